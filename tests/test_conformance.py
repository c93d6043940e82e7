"""Each dialect against its agent's published format, field by field; see docs/conformance.md."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from speceyes.answerer import SpeculativeAnswerer
from speceyes.dialects import NAMES, dialect, profile_of
from speceyes.dialects.profile import fitted
from speceyes.errors import ConfigError
from speceyes.fallback import AgenticFallback
from speceyes.texts import Texts
from speceyes.tools.draw import ObjectMapper
from speceyes.tools.zoom import Zoom
from speceyes.types import Conversation, Observation, Query, Sampling
from support.conformance import FORMATS, PAGES, SIZE, page
from support.dialect_corpus import SPEAKERS
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


class Resizing(FakeModel):
    """A model that sees images as a Qwen-VL does."""

    limits = (3_136, 12_845_056)

    @classmethod
    def rule(cls, size: tuple[int, int]) -> tuple[int, int]:
        return fitted(size, cls.limits, 28)

    def seen_size(self, image: Image.Image) -> tuple[int, int]:
        return fitted(image.size, self.limits, 28)


def test_every_agent_with_a_format_of_its_own_is_in_the_table() -> None:
    assert set(FORMATS) == set(NAMES) - {"hermes", "speceyes"}


@everyone
def test_a_published_call_is_read_and_meant_as_its_authors_mean_it(name: str) -> None:
    speaks, known = dialect(name), FORMATS[name]
    [call] = speaks.parse(known.call).calls
    shown = speaks.open(QUERY, ()).images
    if name == "deepeyes":  # sides of 30 pixels or less are refused there, as upstream
        assert profile_of(speaks).min_box == 30
    handed = shown if profile_of(speaks).handed == "seen" else (PHOTO,)
    located = speaks.locate(call, handed, [image.size for image in shown])
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
    model = Resizing("<answer>red</answer>", name="mine")
    AgenticFallback(model, tools=["zoom"], dialect="deepeyes")
    assert "sees images otherwise" not in caplog.text
    AgenticFallback(model, tools=["zoom"], dialect="minio3")
    assert "sees images otherwise" not in caplog.text  # it is shown them at their size
    model.limits = (3_136, 1_000_000)
    AgenticFallback(model, tools=["zoom"], dialect="minio3")
    assert "2,000,000 is the trained limit" in caplog.text
    caplog.clear()
    AgenticFallback(FakeModel("a"), tools=["zoom"], dialect="minio3")  # it isn't known to resize
    assert "sees images otherwise" not in caplog.text


def test_an_agent_without_its_tools_and_one_of_no_known_kind_are_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = FakeModel("<answer>red</answer>", name="mine")
    for _ in range(2):
        AgenticFallback(model, tools=["zoom"], dialect="thyme")
        AgenticFallback(model, tools=["zoom"])
    assert caplog.text.count("Pass tools=['python']") == 1
    assert caplog.text.count("can't be told") == 1
    caplog.clear()
    AgenticFallback(model, tools=["python"], dialect="thyme")
    AgenticFallback(model, tools=(), dialect="vilasr")  # without tools on purpose
    AgenticFallback(model, tools=["object_mapper"], dialect="vilasr")
    assert "was trained to call" not in caplog.text
    AgenticFallback(FakeModel("<answer>red</answer>", name="mine"), tools=["zoom"])
    assert "can't be told" in caplog.text  # another model


HELD = [
    name
    for name in FORMATS
    if profile_of(dialect(name)).image_pixels and SPEAKERS[name].place is not None
]


@pytest.mark.parametrize("size", [(61, 47), (137, 91), (3001, 1999), (4096, 977)])
@pytest.mark.parametrize("name", HELD)
def test_images_are_held_to_the_limits_and_boxes_still_meet_what_is_meant(
    name: str, size: tuple[int, int]
) -> None:
    """A target is drawn, the agent asks for it as it sees it, and is shown it in the middle."""
    profile, place = replace(profile_of(dialect(name)), min_box=0.0), SPEAKERS[name].place
    speaks = dialect(name, Resizing("<answer>red</answer>"), profile=profile)
    assert profile.image_pixels is not None and place is not None
    photo = Image.new("RGB", size)
    left, top, right, bottom = (
        round(part * side) for part, side in zip((0.4, 0.3, 0.65, 0.55), size * 2, strict=True)
    )
    ImageDraw.Draw(photo).rectangle((left, top, right - 1, bottom - 1), (0, 255, 0))
    seen: list[Image.Image] = []

    def say(asked: Conversation, sampling: Sampling) -> str:
        seen.append(asked.images[-1])
        if len(asked.images) > 1:
            return SPEAKERS[name].answer.format("red")
        box = (left / size[0], top / size[1], right / size[0], bottom / size[1])
        call = place(box, 0, Resizing.rule(asked.images[0].size))
        return speaks.render_call(call)

    agent = AgenticFallback(Resizing(say), tools=[Zoom(min_side=4), ObjectMapper()], dialect=speaks)
    [way] = agent([Query("Which colour?", (photo,))])
    assert (way.answer, way.depth) == ("red", 1), way
    fewest, most = profile.image_pixels
    shown, crop = (np.asarray(image) for image in seen)
    assert 0.85 * fewest <= shown.shape[0] * shown.shape[1] <= most
    if name == "vilasr":  # it draws, on the image as it is seen
        assert seen[1].size == Resizing.rule(seen[0].size)
        drawn = np.argwhere((crop[:, :, 0] > 128) & (crop[:, :, 1] < 128))
        meant = np.argwhere(shown[:, :, 1] > 128)
        apart = drawn.mean(axis=0) / crop.shape[:2] - meant.mean(axis=0) / shown.shape[:2]
        assert np.abs(apart).max() < 0.06
        return
    green = np.argwhere(crop[:, :, 1] > 128)
    middle = (green.mean(axis=0) + 0.5) / crop.shape[:2]
    assert np.abs(middle - 0.5).max() < 0.06
    # Grown by half, or by a tenth of the image on each side; else nothing but the target.
    share = {"chainoffocus": 0.44, "pixelreasoner": 0.31}.get(name, 1.0)
    assert abs(len(green) / (crop.shape[0] * crop.shape[1]) - share) < 0.15


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


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('user = "{qestion}?"', "user has no {question}"),
        ('user = "{question} {instructon}"', "write {instruction}"),
        ('judge = "{quesiton} yes or no?"', "write {question}"),
        ('judge = "{result}"', "{result} in judge is not filled in there; these are: question"),
        ('draft = "{tools}"', "not filled in there"),
        ('again = "{question}"', "not filled in there; these are: instruction"),
        ('error = "it failed"', "error has no {error}"),
        ('observation = "{resutl}"', "write {result}"),
        ("", "is empty; it may have: system"),
        ('sytem = "a"', "has sytem; it may have: system"),
        ("system = 3", "system is a int"),
        ("system = ", "texts file"),
    ],
)
def test_texts_that_would_lose_something_are_refused(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "texts.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Texts.load(file)
    assert told in str(caught.value)


def test_braces_of_all_kinds_reach_the_model_as_they_stand(tmp_path: Path) -> None:
    """Authors' prompts are full of JSON, of {placeholders} of their own and of stray braces."""
    odd = 'Say {"name": {}, "a": {x}} {answer} {0} {{question}} {question!r} }{ %s {Question}'
    file = tmp_path / "texts.json"
    file.write_text(json.dumps({"system": odd, "judge": f"{odd} {{question}}"}))
    query = replace(QUERY, question="Is {width} {result} here?")
    for name in ("speceyes", "qwen3vl", "thyme"):
        speaks = dialect(name, texts=file)
        head = speaks.open(query, ()).messages[0].text
        assert head == odd.replace("{question}", query.text)
        assert speaks.ask_judge(query, ()).messages[-1].text.endswith(query.text)


def test_texts_are_part_of_what_a_calibration_is_made_for() -> None:
    model = FakeModel("red")
    ours = SpeculativeAnswerer(model)
    theirs = SpeculativeAnswerer(model, texts=Texts(draft="{question}\nAnswer:"))
    assert ours.prompt_hash != theirs.prompt_hash
    assert theirs.prompt_hash == SpeculativeAnswerer(model, texts=theirs.texts).prompt_hash


@pytest.mark.parametrize("name", PAGES)
def test_pages_say_what_is_so(name: str, checkout: Path) -> None:
    text = (checkout / "docs" / name).read_text(encoding="utf-8")
    assert text == page(text, PAGES[name]()), "run: python tests/support/conformance.py"
