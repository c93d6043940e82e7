"""Each dialect against its agent's published format, field by field; see docs/conformance.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from speceyes.dialects import NAMES, dialect, profile_of
from speceyes.types import Conversation, Observation, Query
from support.conformance import FORMATS, SIZE, page

PHOTO = Image.effect_noise(SIZE, 60).convert("RGB")
PICTURE = PHOTO.crop((100, 200, 150, 250))
QUERY = Query("Which colour?", (PHOTO,))
everyone = pytest.mark.parametrize("name", FORMATS)


def told(after: Conversation, text: str) -> tuple[str, str]:
    """(role, what stands in the turn behind what the model said), pictures as their sizes."""
    last = after.messages[-1]
    role, content = ("assistant", after.begun) if after.begun else (str(last.role), last.content)
    said = "".join(
        part if isinstance(part, str) else f"[{part.width}x{part.height}]" for part in content
    )
    return role, said.removeprefix(text)


def test_every_agent_with_a_format_of_its_own_is_in_the_table() -> None:
    assert set(FORMATS) == set(NAMES) - {"hermes", "speceyes"}


@everyone
def test_a_published_call_is_read_and_meant_as_its_authors_mean_it(name: str) -> None:
    speaks, known = dialect(name), FORMATS[name]
    [call] = speaks.parse(known.call).calls
    shown = speaks.open(QUERY, ()).images
    if name == "deepeyes":  # sides of 30 pixels or less are refused there, as upstream
        assert profile_of(speaks).min_box == 30
    located = speaks.locate(call, [PHOTO], [image.size for image in shown])
    assert located.name == known.tool
    assert set(located.arguments) - {"img_idx"} == set(known.arguments) - {"img_idx"}
    for key, value in known.arguments.items():
        assert located.arguments[key] == (pytest.approx(value) if key == "bbox_2d" else value), key


@everyone
def test_results_and_errors_stand_where_the_agent_knows_them(name: str) -> None:
    speaks, known = dialect(name), FORMATS[name]
    again = str(speaks.texts.again).replace("{instruction}", str(speaks.texts.instruction))
    start = speaks.open(QUERY, ())
    for observation, expected in (
        (Observation((PICTURE,)), known.result),
        (Observation(error="no"), known.error),
    ):
        after = speaks.observe(start, known.call, [observation], last=False)
        role, said = told(after, known.call)
        assert (role, said) == (known.role, expected.replace("{again}", again))


@everyone
def test_the_published_answer_turns_tokens_and_sampling(name: str) -> None:
    speaks, known = dialect(name), FORMATS[name]
    assert speaks.parse(known.answer).answer == "red"
    profile = profile_of(speaks)
    sampling = profile.sampling()
    assert (profile.max_steps, profile.max_tokens) == (known.steps, known.tokens)
    assert known.sampling == (
        sampling.temperature,
        sampling.top_p,
        sampling.sample_top_k,
        sampling.presence_penalty,
    )


@everyone
def test_the_last_turn_is_told_so(name: str) -> None:
    speaks = dialect(name)
    start = speaks.open(QUERY, ())
    after = speaks.observe(start, FORMATS[name].call, [Observation((PICTURE,))], last=True)
    assert "further" in told(after, "")[1] or "No more" in told(after, "")[1]


def test_the_page_has_the_table(checkout: Path) -> None:
    text = (checkout / "docs" / "conformance.md").read_text(encoding="utf-8")
    assert text == page(text), "run: python tests/support/conformance.py"
