"""Each dialect against its agent's published format, field by field; see docs/conformance.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from speceyes.dialects import NAMES, dialect, profile_of
from speceyes.dialects.profile import fitted
from speceyes.errors import ConfigError
from speceyes.fallback import AgenticFallback
from speceyes.types import Conversation, Observation, Query
from support.conformance import FORMATS, SIZE, page
from support.models import FakeModel

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


def test_a_model_that_sees_images_otherwise_than_it_was_trained_to_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Resizes(FakeModel):
        limits = (3_136, 12_845_056)

        def seen_size(self, image: Image.Image) -> tuple[int, int]:
            return fitted(image.size, self.limits, 28)

    model = Resizes("<answer>red</answer>", name="mine")
    AgenticFallback(model, tools=["zoom"], dialect="deepeyes")
    assert "sees images otherwise" not in caplog.text
    AgenticFallback(model, tools=["zoom"], dialect="minio3")
    assert "2,000,000 is the trained limit" in caplog.text
    assert "trained on at least 40,000" in caplog.text
    caplog.clear()
    model.limits = (40_000, 2_000_000)
    AgenticFallback(model, tools=["zoom"], dialect="minio3")
    AgenticFallback(FakeModel("a"), tools=["zoom"], dialect="minio3")  # it isn't known to resize
    assert "sees images otherwise" not in caplog.text


def test_profiles_and_texts_come_from_files_by_name(tmp_path: Path) -> None:
    toml = tmp_path / "mine.toml"
    toml.write_text('max_steps = 3\nscale = "none"\ncrop_pixels = [100, 400]\nstop = ["x"]\n')
    made = dialect("minio3", profile=toml)
    profile = profile_of(made)
    assert (profile.max_steps, profile.scale, profile.crop_pixels) == (3, None, (100, 400))
    assert profile.max_tokens == 8_192 and made.stop == ("x",)
    words = tmp_path / "words.json"
    words.write_text(
        '{"system": "{tools} and {\\"a\\": 1}", "judge": "{width}x{height} {question}"}'
    )
    spoken = dialect("deepeyes", texts=words)
    assert spoken.open(QUERY, ()).messages[0].text == ' and {"a": 1}'
    assert spoken.ask_judge(QUERY, ()).messages[-1].text == "1000x800 Which colour?"
    toml.write_text("max_stepz = 3\n")
    with pytest.raises(ConfigError, match="has max_stepz; it may have: scale"):
        dialect("minio3", profile=toml)
    toml.write_text("max_steps = 0\n")
    with pytest.raises(ConfigError, match="max_steps=0"):
        dialect("minio3", profile=toml)
    with pytest.raises(ConfigError, match="texts file"):
        dialect("minio3", texts=tmp_path / "none.toml")


def test_the_page_has_the_table(checkout: Path) -> None:
    text = (checkout / "docs" / "conformance.md").read_text(encoding="utf-8")
    assert text == page(text), "run: python tests/support/conformance.py"
