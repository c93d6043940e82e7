"""Every dialect alike: what is read, written, located and shown, and a way through the agent."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from speceyes import prompts
from speceyes.dialects import NAMES, Profile, detect, dialect, profile_of
from speceyes.dialects._json_call import MAX_INTEGER
from speceyes.dialects.hermes import HermesDialect
from speceyes.dialects.pixelreasoner import PixelReasonerDialect
from speceyes.dialects.xml import value_of
from speceyes.errors import ConfigError, InputError, ParseError
from speceyes.fallback import AgenticFallback
from speceyes.judge import ToolJudge
from speceyes.models.scripted import Script, ScriptedModel
from speceyes.protocols import Dialect
from speceyes.texts import Texts
from speceyes.tools import Tools, Zoom
from speceyes.tools.draw import ObjectMapper, PathTracer
from speceyes.types import (
    Conversation,
    Message,
    Observation,
    Query,
    ToolCall,
    Trajectory,
)
from speceyes.types import Image as Picture
from support.dialect_corpus import CORPUS, SPEAKERS, ZOOM, Answer, Calls, Refused
from support.models import FakeModel

everyone = pytest.mark.parametrize("name", SPEAKERS)
with_boxes = pytest.mark.parametrize("name", [n for n, s in SPEAKERS.items() if s.place])


def test_every_dialect_is_there_by_name_and_speaks_here() -> None:
    assert {speaker.dialect.name for speaker in SPEAKERS.values()} == set(NAMES)
    for name in NAMES:
        made = dialect(name)
        assert made.name == name and isinstance(made, Dialect)
        assert all(made.stop)
        assert dialect(made) is made


# --- parse ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "outcome"),
    [
        pytest.param(name, text, outcome, id=f"{name}: {title}")
        for name, rows in CORPUS.items()
        for title, text, outcome in rows
    ],
)
def test_what_agents_write(name: str, text: str, outcome: Calls | Answer | Refused) -> None:
    speaks = SPEAKERS[name].dialect
    if isinstance(outcome, Refused):
        with pytest.raises(ParseError, match=outcome.told.replace("(", r"\(")) as caught:
            speaks.parse(text)
        assert len(str(caught.value)) < 200  # it goes back to the model
        return
    turn = speaks.parse(text)
    if isinstance(outcome, Answer):
        assert (turn.answer, turn.plain, turn.calls) == (outcome.answer, outcome.plain, ())
        return
    assert turn.answer is None and not turn.plain
    assert tuple((call.name, call.arguments) for call in turn.calls) == outcome.calls
    assert all(call.raw and call.raw in text for call in turn.calls)


@everyone
def test_the_reasoning_is_kept_for_display(name: str) -> None:
    speaks, answer = SPEAKERS[name].dialect, SPEAKERS[name].answer.format("red")
    if name == "openthinkimg":  # whose thought is a field
        assert speaks.parse(answer.replace('""', '"far"')).thought == "far"
        return
    assert speaks.parse(f"<think> far </think>{answer}").thought == "far"
    assert speaks.parse(answer).thought == ""


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(
        ["</tool_call>", "<answer>", "</think>", "\\", '"', "'", "```", "]\n```", "\u2028", "{"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=3,
)
named = st.text(min_size=1, max_size=20).filter(str.strip)
arguments = st.dictionaries(st.text(max_size=6), json_values, max_size=2)
free_calls = st.builds(ToolCall, named, arguments)
boxed_calls = st.builds(
    lambda more, box: ToolCall(ZOOM, {**more, "bbox_2d": box}), arguments, json_values
)
code_calls = st.builds(
    lambda code: ToolCall("python", {"code": code}),
    st.lists(
        st.text(max_size=12)
        | st.sampled_from(["```", "```python\n", "\n", " ", "\n    ", "<code>", "'", "\r\n", "``"]),
        min_size=1,
        max_size=8,
    )
    .map("".join)
    .filter(lambda code: code.strip() and "</code>" not in code and "<answer>" not in code),
)
plain_names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,15}", fullmatch=True)
id_calls = st.builds(
    lambda name, arguments, number: ToolCall(name, arguments, id=f"functions.{name}:{number}"),
    plain_names,
    arguments,
    st.integers(0, 99),
)
raw_texts = st.text(alphabet="ab c1", max_size=9).filter(lambda text: value_of(text) == text)
pair_calls = st.builds(
    ToolCall,
    plain_names,
    st.dictionaries(
        plain_names,
        raw_texts
        | st.lists(json_values, max_size=3)
        | st.none()
        | st.booleans()
        | st.integers(-MAX_INTEGER, MAX_INTEGER)
        | st.floats(allow_nan=False, allow_infinity=False),
        max_size=3,
    ),
)


def in_order(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with their keys in order of the alphabet, as Gemma's template writes them."""
    found = st.dictionaries(plain_names, values, max_size=3)
    return found.map(lambda one: dict(sorted(one.items())))


marked_texts = st.text(max_size=9).filter(lambda text: "<" not in text)
plain_values = st.recursive(
    marked_texts
    | st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | in_order(inner),
    max_leaves=3,
)
key_calls = st.builds(ToolCall, plain_names, in_order(plain_values))
items = arguments.map(lambda more: {k: v for k, v in more.items() if k not in ("index", "bbox_2d")})
drawings = st.builds(
    lambda index, drawn: ToolCall("object_mapper", {"index": index, "objects": drawn}),
    st.integers(-9, 99),
    st.lists(st.builds(lambda i, b: {**i, "bbox_2d": b}, items, json_values), min_size=1),
) | st.builds(
    lambda index, drawn: ToolCall("path_tracer", {"index": index, "paths": drawn}),
    st.integers(-9, 99),
    st.lists(
        st.builds(
            lambda i, a, b: {**i, "start_point_2d": a, "end_point_2d": b},
            items,
            json_values,
            json_values,
        ),
        min_size=1,
    ),
)
WRITTEN = {
    "glm": pair_calls,
    "gemma": key_calls,
    "kimi": id_calls,
    "xml": pair_calls,
    "pyvision": code_calls,
    "vthinker": code_calls,
    "openthinkimg": free_calls.filter(lambda call: call.name != "Terminate"),
    "deepeyesv2": code_calls | free_calls.filter(lambda call: call.name != "python"),
    "minio3": boxed_calls,
    "thyme": code_calls,
    "vilasr": drawings,
}
"""Calls that a dialect can write; any call where it isn't named."""


MARKS = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "</tool_response>",
    "<function=zoom>",
)


@pytest.mark.parametrize("mark", MARKS)
@everyone
def test_what_is_asked_or_read_opens_and_closes_no_mark_of_a_model(name: str, mark: str) -> None:
    dialect, tools = SPEAKERS[name].dialect, Tools(["zoom"])

    def told(said: str) -> str:
        query = Query(f"Red?{said}", (Image.new("RGB", (64, 48)),), choices=(f"yes{said}", "no"))
        opened = dialect.open(query, list(tools))
        seen = [Observation((f"a{said}b",))]
        after = dialect.observe(opened, "said", seen, last=True)
        begun = "".join(part for part in after.begun if isinstance(part, str))
        judged = dialect.ask_judge(query, list(tools))
        return "".join(m.text for m in (*after.messages, *judged.messages)) + begun

    assert told(mark).count(mark) == told("PLAIN").count(mark)
    assert f"{mark[0]} {mark[1:]}" in told(mark)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30)
@given(data=st.data())
def test_a_call_written_is_the_call_read(name: str, data: st.DataObject) -> None:
    speaks = SPEAKERS[name].dialect
    call = data.draw(WRITTEN.get(name, free_calls))
    text = speaks.render_call(call)
    turns = [text, f"<think>so</think>\n{text}"]
    ends = [end for end in speaks.stop if text.endswith(end)]
    if speaks.stop not in (("</answer>",), ()):  # several calls a turn
        assert ends, "the dialect's own stop strings end its calls"
        # Where the stop string cuts the turn is where the call ends.
        assert min(text.find(end) for end in ends) == len(text) - len(ends[0])
    for turn in turns:
        [back] = speaks.parse(turn).calls
        assert back.name == call.name and back.arguments == call.arguments
        assert repr(back.arguments) == repr(call.arguments)  # 1, 1.0 and True differ


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("", "</think>"),
        ("", 'a</think>{"b": 1}'),
        ("<think>a {sign}?</think>\n", "no </think> here"),
        ("it reads {this}</think>", "plain"),
    ],
)
def test_a_mark_within_a_text_of_openthinkimg_ends_no_reasoning(before: str, said: str) -> None:
    call = ToolCall("ocr", {"text": said})
    speaks = SPEAKERS["openthinkimg"].dialect
    [back] = speaks.parse(before + speaks.render_call(call)).calls
    assert (back.name, back.arguments) == (call.name, call.arguments)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("thyme", ToolCall("zoom", {"code": "a"})),
        ("thyme", ToolCall("python", {"code": "a", "b": 1})),
        ("thyme", ToolCall("python", {"code": 3})),
        ("thyme", ToolCall("python", {"code": " "})),
        ("thyme", ToolCall("python", {"code": "print('</code>')"})),
        ("deepeyesv2", ToolCall("python", {})),
        ("minio3", ToolCall("rotate", {"bbox_2d": []})),
        ("minio3", ToolCall(ZOOM, {"box": []})),
        ("vilasr", ToolCall("zoom", {"index": 1, "objects": [{}]})),
        ("vilasr", ToolCall("object_mapper", {"objects": [{}]})),
        ("vilasr", ToolCall("object_mapper", {"index": 1, "objects": []})),
        ("vilasr", ToolCall("object_mapper", {"index": 1, "objects": [3]})),
        ("vilasr", ToolCall("path_tracer", {"index": 1, "objects": [{}]})),
    ],
)
def test_what_a_dialect_can_not_say_is_not_written(name: str, call: ToolCall) -> None:
    with pytest.raises(InputError):
        SPEAKERS[name].dialect.render_call(call)


TAGS = (
    "<tool_call> </tool_call> <answer> </answer> <think> </think> <code> </code> <grounding> "
    "</grounding> ``` ```json ```python Action: \\boxed{ { } [ ] ( ) ' \" \\ , : name arguments "
    "parameters function bbox_2d start_point_2d end_point_2d index source original_image "
    "observation_1 target_image img_idx null True NaN -Infinity 1e999 -1 0 1 2 0x1f 1_0 b'x' \0 "
    '\ud800 "name": "arguments": {"name":"a","arguments":{ {"name":"image_zoom_in_tool", '
    '"bbox_2d":[0,0,1,1] [{"index":1,"bbox_2d":[1,2,3,4]}] "source":"observation_1" }} '
    '{"bbox_2d": crop_image_normalized 99999999999999999999999 "objects" Answer python'
).split(" ")
pieces = st.sampled_from([*TAGS, "\n"]) | st.text(max_size=4)
BROKEN_CALLS = st.builds(ToolCall, st.sampled_from([ZOOM, "crop_image", "object_mapper", "a"]), (
    st.dictionaries(
        st.sampled_from("bbox_2d bbox point_2d source target_image img_idx index objects".split()),
        json_values
        | st.lists(st.floats() | st.integers(), min_size=2, max_size=4)
        | st.lists(st.dictionaries(st.sampled_from(["bbox_2d", "label"]), json_values)),
    )
))  # fmt: skip


@settings(max_examples=400)
@given(parts=st.lists(pieces, max_size=20), opening=st.sampled_from(TAGS))
def test_only_parse_errors_leave_parse_and_locate(parts: list[str], opening: str) -> None:
    text = opening + "".join(parts)
    for speaker in SPEAKERS.values():
        try:
            turn = speaker.dialect.parse(text)
        except ParseError as exc:
            assert len(str(exc)) < 250
            continue
        assert (turn.answer is None) == bool(turn.calls)
        assert turn.answer is None or turn.answer.strip()
        for call in turn.calls:
            with contextlib.suppress(ParseError):
                speaker.dialect.locate(call, [Image.new("L", (40, 30))], [(28, 28)])


@settings(max_examples=200)
@given(call=BROKEN_CALLS)
def test_any_arguments_are_located_or_are_a_parse_error(call: ToolCall) -> None:
    images, seen = [Image.new("L", (40, 30))] * 2, [(28, 56)] * 2
    before = repr(call)
    for speaker in SPEAKERS.values():
        try:
            speaker.dialect.locate(call, images, seen)
        except ParseError as exc:
            assert len(str(exc)) < 200
        assert repr(call) == before


UNITS = [
    "<tool_call>",
    "<code>",
    "<grounding>{",
    "<answer>x",
    "</think>",
    "<think>",
    "```",
    "```json [",
    "Action:",
    "\\boxed{",
    "{}[]\"'",
    "</code></tool_call>",
    '<tool_call>{"name": "a"}</tool_call>',
    "<code>a</code>",
    '<grounding>{"bbox_2d": []}</grounding>',
    " \n",
]


@everyone
def test_a_long_text_is_read_at_once(name: str) -> None:
    """What grew with the square of its 60,000 characters would take seconds; this takes some
    hundredths of one.
    """
    speaks = SPEAKERS[name].dialect
    for unit in UNITS:
        for opening in ("", "<tool_call>", "<code>", "<grounding>", "Action: ```json\n"):
            text = opening + unit * (60_000 // len(unit))
            begin = time.thread_time()
            with contextlib.suppress(ParseError):
                speaks.parse(text)
            assert time.thread_time() - begin < 0.6, (opening, unit)


# --- locate --------------------------------------------------------------------------------

SIZES = [
    ((1024, 768), (1024, 768)),
    ((1025, 767), (252, 196)),
    ((4096, 2161), (1036, 532)),
    ((333, 999), (336, 1008)),
    ((37, 61), (56, 84)),
    ((3840, 2160), (28, 28)),
]


def with_target(size: tuple[int, int], place: tuple[float, float]) -> tuple[Picture, list[int]]:
    """An image with a red square, and the square's box."""
    (width, height), half = size, max(2, min(size) // 40)
    x = min(max(round(place[0] * width), half), width - half)
    y = min(max(round(place[1] * height), half), height - half)
    image = Image.new("RGB", size)
    ImageDraw.Draw(image).rectangle((x - half, y - half, x + half - 1, y + half - 1), "red")
    return image, [x - half, y - half, x + half, y + half]


def ask_for(
    name: str, box: Sequence[float], image: Picture, seen: tuple[int, int], index: int = 0
) -> ToolCall:
    """What an agent that sees the image resized writes for a box of the original."""
    place = SPEAKERS[name].place
    assert place is not None
    sides = (image.width, image.height) * 2
    left, top, right, bottom = (v / side for v, side in zip(box, sides, strict=True))
    call = place((left, top, right, bottom), index, seen)
    [back] = SPEAKERS[name].dialect.parse(SPEAKERS[name].dialect.render_call(call)).calls
    return back


def box_of(call: ToolCall) -> list[float]:
    inside: list[float] = (call.arguments.get("objects") or [call.arguments])[0]["bbox_2d"]
    return inside


@with_boxes
@pytest.mark.parametrize(("size", "seen"), SIZES)
@pytest.mark.parametrize("place", [(0.1, 0.1), (0.5, 0.55), (0.93, 0.9)])
def test_the_crop_of_a_located_box_shows_the_target(
    name: str, size: tuple[int, int], seen: tuple[int, int], place: tuple[float, float]
) -> None:
    image, target = with_target(size, place)
    other = Image.new("RGB", (50, 50))
    call = ask_for(name, target, image, seen, index=1)
    located = SPEAKERS[name].dialect.locate(call, [other, image], [(28, 28), seen])
    assert box_of(located) == pytest.approx(target, abs=1e-6)
    assert located.arguments["img_idx"] == 1

    crop = Zoom(min_side=4)([other, image], {"bbox_2d": box_of(located), "img_idx": 1})
    red = np.argwhere(np.asarray(crop.images[0])[:, :, 0] > 128)
    assert len(red) == (target[2] - target[0]) * (target[3] - target[1])  # all of it, once
    top, left = red.mean(axis=0) + 0.5
    centre = crop.images[0].width / 2, crop.images[0].height / 2
    assert abs(left - centre[0]) <= 2 and abs(top - centre[1]) <= 2
    if name == "vilasr":
        shown = ObjectMapper()([other, image], located.arguments).images[0]
        assert shown.size == image.size and shown.getpixel((target[0], target[1])) == (255, 0, 0)


@settings(max_examples=100)
@given(
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    seen=st.tuples(st.integers(1, 100).map(lambda n: 28 * n), st.integers(28, 3000)),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_boxes_come_back_to_a_thousandth_of_a_pixel(
    size: tuple[int, int], seen: tuple[int, int], corners: tuple[float, ...]
) -> None:
    image = Image.new("1", size)
    box = [corner * side for corner, side in zip(corners, size * 2, strict=True)]
    assume(abs(box[2] - box[0]) > 1e-3 and abs(box[3] - box[1]) > 1e-3)  # without area: refused
    for name, speaker in SPEAKERS.items():
        scale = profile_of(speaker.dialect).scale
        if (
            scale != 1
            and max(v * (scale or s) for v, s in zip(corners, seen * 2, strict=True)) <= 1.1
        ):
            continue  # no more than a pixel, and taken for parts of the image
        if speaker.place:
            located = speaker.dialect.locate(ask_for(name, box, image, seen), [image], [seen])
            assert box_of(located) == pytest.approx(box, abs=1e-3), name


def test_rounding_to_whole_thousandths_misses_by_half_of_one_at_most() -> None:
    image = Image.new("1", (3840, 2160))
    for x in range(100, 3700, 171):
        box = [round(x / 3.84), 10, round((x + 80) / 3.84), 90]
        at = box_of(dialect("qwen3vl").locate(ToolCall("z", {"bbox_2d": box}), [image], [(9, 9)]))
        assert abs(at[0] - x) <= 1.93 and abs(at[2] - x - 80) <= 1.93


def test_pixel_reasoner_crops_with_a_margin_and_also_reads_pixels() -> None:
    speaks, image, seen = PixelReasonerDialect(), Image.new("RGB", (200, 100)), (100, 50)

    def located(box: list[float], **more: Any) -> ToolCall:
        call = ToolCall("crop_image", {"bbox_2d": box, **more})
        return speaks.locate(call, [image], [seen])

    call = located([0.5, 0.5, 0.6, 0.6], target_image=1, label="cup")
    assert call.name == ZOOM and call.arguments == {
        "bbox_2d": pytest.approx([80, 40, 140, 70]),
        "img_idx": 0,
        "label": "cup",
    }
    # In pixels of the image itself, and put in order.
    assert box_of(located([120, 60, 100, 50])) == pytest.approx([80, 40, 140, 70])
    crop = Tools("zoom").run(located([0.9, 0.9, 1, 1]), [image])
    assert crop.box == (160, 72, 200, 100)  # clamped
    with pytest.raises(ConfigError, match="margin"):
        Profile(margin=math.nan)


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("qwen3vl", {"bbox_2d": [0, 0, 5000, 1]}, "holds 5000; numbers go from 0 to 1000"),
        ("qwen3vl", {"bbox_2d": [-2000, 0, 1, 1]}, "holds -2000; numbers go"),
        ("qwen3vl", {"bbox_2d": [0, 0, 1]}, "is not [left, top, right, bottom]"),
        ("qwen3vl", {"point_2d": [0, 0, 1]}, "is not [x, y]"),
        ("qwen3vl", {"point_2d": [0, math.nan]}, "out of all bounds"),
        ("qwen3vl", {"bbox_2d": [0, 0, 1, 1], "img_idx": 2}, "use 0 to 1"),
        ("hermes", {"bbox_2d": [0, 0, 1, True]}, "not a number"),
        ("hermes, 0 to 1", {"bbox_2d": [0, 0, 500, 500]}, "numbers go from 0 to 1"),
        ("minio3", {"bbox_2d": [0, 0, 500, 500]}, "numbers go from 0 to 1"),
        ("minio3", {"bbox_2d": [0, 0, 1, 1], "source": "observation_2"}, "is not an image; use"),
        ("minio3", {"bbox_2d": [0, 0, 1, 1], "source": "observation_-1"}, "is not an image; use"),
        ("deepeyes", {"bbox_2d": [0.4, 0.4, 0.6, 0.6]}, "are parts of the image; numbers are pix"),
        ("deepeyes", {"bbox_2d": [0, 0, 99, 99]}, "numbers are pixels of the image as you see it"),
        ("qwen3vl", {"bbox_2d": [0.4, 0.4, 0.6, 1.0]}, "are parts of the image; numbers go from"),
        ("qwen3vl", {"bbox_2d": [-0.02, 0.4, 0.6, 1.05]}, "are parts of the image; numbers go"),
        ("glm", {"bbox_2d": [0, 0.5, 1, 1]}, "are parts of the image; numbers go from 0 to 1000"),
        ("qwen3vl", {"bbox_2d": [0, 0, 1, 1]}, "are parts of the image; numbers go from 0 to 1000"),
        ("glm", {"bbox_2d": [0, 1, 1, 0]}, "are parts of the image; numbers go from 0 to 1000"),
        ("kimi", {"bbox_2d": [0, 0, 1, 1.0]}, "are parts of the image; numbers go from 0 to 1000"),
        ("deepeyes", {"bbox_2d": [0, 0, 1, 1]}, "are parts of the image; numbers are pixels"),
        ("qwen3vl", {"bbox_2d": [0, 0, 0, 0]}, "has no area; a box is [left, top, right, bottom]"),
        ("qwen3vl", {"bbox_2d": [500, 20, 500, 90]}, "has no area"),
        ("hermes", {"bbox_2d": [5, 20, 9, 20]}, "has no area"),
        ("minio3", {"bbox_2d": [0.5, 0.5, 0.5, 0.9]}, "has no area"),
        ("kimi", {"point_2d": [0.5, 0.5]}, "are parts of the image; numbers go from 0 to 1000"),
        ("vilasr", {"index": 1, "objects": [{"bbox_2d": [0.1, 0, 1, 1]}]}, "are parts of the im"),
        ("minio3", {"bbox_2d": [0, 0, 1, 1], "source": ["a"]}, "source=['a'] is not an image"),
        ("pixelreasoner", {"bbox_2d": [0, 0, 1, 1], "target_image": 0}, "use 1 to 2"),
        ("pixelreasoner", {"bbox_2d": [0, 0, 1, 1], "target_image": 3}, "use 1 to 2"),
        ("pixelreasoner", {"bbox_2d": [-5, 0, 1, 1]}, "numbers go from 0 to 1"),
        ("vilasr", {"index": 0, "objects": [{"bbox_2d": [0, 0, 1, 1]}]}, "use 1 to 2"),
        ("vilasr", {"index": 1, "objects": [{"bbox_2d": "all"}]}, "bbox_2d='all' is not"),
        ("vilasr", {"index": 1, "objects": 3}, "a list of JSON objects"),
        ("vilasr", {"index": 1}, "a list of JSON objects"),
    ],
)
def test_boxes_and_images_that_can_not_be_located(
    name: str, arguments: dict[str, Any], told: str
) -> None:
    called = {"pixelreasoner": "crop_image_normalized", "vilasr": "object_mapper"}.get(name, ZOOM)
    images = [Image.new("L", (90, 90))] * 2
    with pytest.raises(ParseError) as caught:
        SPEAKERS[name].dialect.locate(ToolCall(called, arguments), images, [(28, 28)] * 2)
    assert told in str(caught.value) and len(str(caught.value)) < 200


def test_a_box_written_the_other_way_round_is_the_same_part_of_the_picture() -> None:
    image = Image.linear_gradient("L").resize((900, 700))
    for box in ([100, 200, 300, 400], [300, 400, 100, 200], [300, 200, 100, 400]):
        call = ToolCall(ZOOM, {"bbox_2d": box})
        located = dialect("qwen3vl").locate(call, [image], [(896, 704)])
        assert Zoom()([image], located.arguments).box == (90, 140, 270, 280)


EMPTY = (
    *("{}", "[]", '{"name": ""}', '{"name": null, "arguments": null}', '{"arguments": {}}'),
    *('{"function": {}}', '{"function": {"name": " ", "arguments": ""}}', "```python\n```", "```"),
    *("<tool_call></tool_call>", "<tool_call>{}</tool_call>", "<tool_call>[]</tool_call>"),
    '<tool_call>{"name": "", "arguments": {}}</tool_call>',
)


@pytest.mark.parametrize("name", [name for name in SPEAKERS if name != "plain"])
@pytest.mark.parametrize("text", EMPTY)
def test_an_empty_call_is_an_error_and_never_the_answer(name: str, text: str) -> None:
    with pytest.raises(ParseError):
        SPEAKERS[name].dialect.parse(text)
    with pytest.raises(ParseError):
        SPEAKERS[name].dialect.parse(f"<think>Let me look.</think>\n{text}")


@pytest.mark.parametrize("written", [None, "null", "None", "", "1", "1.0", 1.0, " 1 "])
@pytest.mark.parametrize("name", ["qwen3vl", "deepeyes", "hermes", "xml", "pixelreasoner"])
def test_an_image_is_meant_however_its_number_is_written(name: str, written: Any) -> None:
    first = 1 if name == "pixelreasoner" else 0
    key = "target_image" if first else "img_idx"
    box = [0.1, 0.1, 0.9, 0.9] if first else [100, 100, 600, 600]
    call = ToolCall("crop_image" if first else ZOOM, {"bbox_2d": box, key: written})
    images = [Image.new("L", (1000, 1000)), Image.new("L", (900, 900))]
    located = SPEAKERS[name].dialect.locate(call, images, [(1000, 1000)] * 2)
    blank = written is None or written in ("null", "None", "")
    assert located.arguments.get("img_idx", 0) == (0 if blank or first else 1)
    assert Tools("zoom").run(located, images).error is None


@pytest.mark.parametrize("written", ["one", "1.5", 1.5, [1], "-1", "\u0661"])
def test_what_is_no_number_of_an_image_is_told(written: Any) -> None:
    call = ToolCall(ZOOM, {"bbox_2d": [0, 0, 500, 500], "img_idx": written})
    with pytest.raises(ParseError, match="is not an image so far; use 0 to 1"):
        dialect("qwen3vl").locate(call, [Image.new("L", (90, 90))] * 2, [(28, 28)] * 2)


@pytest.mark.parametrize(
    "written",
    [
        ["100", "200", "300", "400"],
        "[100, 200, 300, 400]",
        "100,200,300,400",
        "(100, 200), (300, 400)".replace("), (", ", "),
        "100\uff0c200\uff0c300\uff0c400",
        [[100, 200, 300, 400]],
        [[100, 200], [300, 400]],
        ["100.0", 200, "300", 400.0],
        '"[100, 200, 300, 400]"',
    ],
)
@pytest.mark.parametrize("name", ["qwen3vl", "deepeyes", "pixelreasoner"])
def test_four_numbers_are_a_box_however_they_are_written(name: str, written: Any) -> None:
    call = "crop_image" if name == "pixelreasoner" else ZOOM
    located = SPEAKERS[name].dialect.locate(
        ToolCall(call, {"bbox_2d": written}), [Image.new("L", (1000, 1000))], [(1000, 1000)]
    )
    assert box_of(located) == pytest.approx([100, 200, 300, 400])


@pytest.mark.parametrize(
    "written",
    [
        "all of it",
        "100 to 200",
        [[1, 2, 3, 4], [5, 6, 7, 8]],
        [1, 2, 3, "x"],
        "1,2,3",
        [[]],
        {},
        "",
    ],
)
def test_what_is_no_box_is_told_in_short(written: Any) -> None:
    with pytest.raises(ParseError, match="bbox_2d") as told:
        dialect("qwen3vl").locate(
            ToolCall(ZOOM, {"bbox_2d": written}), [Image.new("L", (90, 90))], [(28, 28)]
        )
    assert len(str(told.value)) < 200


@pytest.mark.parametrize("name", ["qwen3vl", "deepeyes", "glm", "adaptvision", "pixelreasoner"])
def test_a_box_by_its_older_name_reaches_the_zoom_tool(name: str) -> None:
    called = "crop_image" if name == "pixelreasoner" else ZOOM
    image = Image.new("L", (1000, 1000))
    call = ToolCall(called, {"bbox": [100, 200, 300, 400]})
    located = SPEAKERS[name].dialect.locate(call, [image], [(1000, 1000)])
    assert box_of(located) == pytest.approx([100, 200, 300, 400])
    assert Tools("zoom").run(located, [image]).error is None


@pytest.mark.parametrize("source", ["Original_Image", "original image", "", "null", None])
def test_mini_o3s_first_image_by_any_spelling(source: Any) -> None:
    call = ToolCall(ZOOM, {"bbox_2d": [0, 0, 0.5, 1], "source": source})
    located = dialect("minio3").locate(call, [Image.new("L", (90, 90))], [(28, 28)])
    assert located.arguments["img_idx"] == 0


@pytest.mark.parametrize("unit", [" ", "\n", "<|im_end|>", " <|im_end|>", "zoom(", "{"])
def test_a_long_end_of_a_turn_is_read_at_once(unit: str) -> None:
    """What grew with the square of the length would take minutes."""
    long = unit * (400_000 // len(unit))
    speaks = dialect("qwen3vl", tools=["zoom"])
    begin = time.thread_time()
    for text in (f"red{long}", f"red{long}x", f"<answer>red{long}x</answer>"):
        assert (speaks.parse(text).answer or "").startswith("red")
    assert time.thread_time() - begin < 10


def test_calls_in_words_of_other_frameworks_are_errors() -> None:
    for said in (
        "zoom(bbox_2d=[1, 2, 3, 4])",
        "[zoom(bbox_2d=[1, 2, 3, 4])]",
        'Action: zoom\nAction Input: {"bbox_2d": [1, 2, 3, 4]}',
    ):
        for name in ("qwen3vl", "xml", "glm", "kimi", "gemma", "deepeyes"):
            with pytest.raises(ParseError, match="can't be read here"):
                dialect(name, tools=["zoom"]).parse(said)
    for said in ("f(x) = 3", "zoom(x) = (3)", "zoom (2x)", "zoom(", "I would zoom(in)"):
        assert dialect("qwen3vl", tools=["zoom"]).parse(said).answer == said
    named = '<answer>{"name": "zoom", "arguments": {}}</answer>'
    with pytest.raises(ParseError, match="holds a call"):
        dialect("deepeyes", tools=["zoom"]).parse(named)
    assert dialect("deepeyes", tools=["rotate"]).parse(named).answer


def test_points_are_located_as_boxes_are() -> None:
    image, call = Image.new("L", (100, 50)), ToolCall("mark", {"point_2d": [500, 1000]})
    assert dialect("hermes").locate(call, [image], [(9, 9)]).arguments["point_2d"] == [50, 50]
    assert dialect("deepeyes").locate(call, [image], [(1000, 1000)]).arguments["point_2d"] == [
        50,
        50,
    ]


@pytest.mark.parametrize("name", [n for n in SPEAKERS if n != "vilasr"])  # it only draws
def test_calls_without_a_place_pass_as_they_are(name: str) -> None:
    call = ToolCall("image_rotate_tool", {"angle": 90})
    located = SPEAKERS[name].dialect.locate(call, [Image.new("L", (9, 9))], [(28, 28)])
    assert located.name == call.name and located.arguments["angle"] == 90


# --- conversations -------------------------------------------------------------------------

IMAGES = Image.new("RGB", (30, 20)), Image.new("RGB", (20, 31))
QUERY = Query("What colour?", IMAGES, choices=("red", "{blue}"))
TOOLS = tuple(Tools(["zoom", "rotate"]))


@everyone
def test_images_come_first_and_beginnings_are_shared(name: str) -> None:
    speaks = SPEAKERS[name].dialect
    opened = speaks.open(QUERY, TOOLS)
    judged = speaks.ask_judge(QUERY, TOOLS)
    direct = speaks.ask_direct(QUERY, TOOLS)
    assert judged.messages[-1].text.endswith(prompts.JUDGE)
    assert direct.messages[-1].text.endswith(prompts.DIRECT)
    for one in (opened, judged, direct):
        system, user = one.messages
        first = "user" if name == "openthinkimg" else "system"
        assert (system.role, user.role, one.prefill) == (first, "user", "")
        assert system == opened.messages[0] and one.tools == opened.tools
        assert one.images == IMAGES
        if name != "pyvision":  # where tags stand around them
            assert user.content[:2] == IMAGES
        text = user.content[-1]
        assert isinstance(text, str) and "What colour?\n(A) red\n(B) {blue}" in text
        assert text[: text.index("{blue}")] in opened.messages[1].text
        assert not any(left in system.text for left in ("{tools}", "{boxes}", "{scale}"))


@everyone
def test_tools_are_told_in_one_place(name: str) -> None:
    speaks = SPEAKERS[name].dialect
    conversation = speaks.open(QUERY, TOOLS)
    listed = [tool["function"]["name"] for tool in conversation.tools]
    said = conversation.messages[0].text
    if speaks.name in ("hermes", "qwen3vl", "xml", "glm", "kimi", "sensenova", "gemma"):
        assert listed == [tool.name for tool in TOOLS]
        parameters = dict(Zoom().parameters)
        if speaks.name in ("qwen3vl", "sensenova"):
            parameters["required"] = ["bbox_2d", "label", "img_idx"]
        assert conversation.tools[0]["function"]["parameters"] == parameters
        assert ZOOM not in said
        return
    assert listed == []
    # The others were trained to one tool.
    knows = {"deepeyes", "deepeyesv2", "pixelreasoner", "speceyes", "adaptvision", "visionthink"}
    knows |= {"chainoffocus", "openthinkimg"}
    assert ("image_rotate_tool" in said) == (speaks.name in knows)
    if speaks.name == "pixelreasoner":
        assert "crop_image_normalized" in said and ZOOM not in said
    none = speaks.open(QUERY, ()).messages[0].text
    assert "image_rotate_tool" not in none


@everyone
@pytest.mark.parametrize("last", [False, True])
def test_observing_only_appends(name: str, last: bool) -> None:
    speaks, crop = SPEAKERS[name].dialect, Image.new("RGB", (28, 29))
    start = speaks.open(QUERY, TOOLS)
    seen = (
        Observation((crop,), box=(0, 0, 28, 29), source=0),
        Observation(error="out of paint"),
        Observation(("3 words", crop)),
    )
    said = "<think>a</think><code>1</code>" if name == "deepeyesv2" else "<think>a</think>call"
    after = speaks.observe(start, said, seen, last=last)
    assert after.messages[:2] == start.messages and len(start.messages) == 2
    assert after.tools == start.tools
    assert after.images == (*IMAGES, crop, crop)  # as tools address them
    if profile_of(speaks).results == "assistant":
        assert after.messages == start.messages
        parts = after.begun
        assert parts[0] == f"{said}<sandbox_output>"
    else:
        if name != "kimi":  # whose reasoning stands apart
            assert after.messages[2] == Message("assistant", (said,)) and after.prefill == ""
        told = ["tool"] * 3 if profile_of(speaks).results == "tool" else ["user"]
        first = "user" if name == "openthinkimg" else "system"
        assert [m.role for m in after.messages] == [first, "user", "assistant", *told]
        parts = tuple(part for message in after.messages[3:] for part in message.content)
    text = "".join(part for part in parts if isinstance(part, str))
    # Thyme is shown images, and texts where there is none.
    assert "out of paint" in text
    assert ("3 words" in text) == (profile_of(speaks).results != "assistant")
    final = {"thyme": prompts.THYME_LAST, "pixelreasoner": prompts.PIXELREASONER_LAST}
    final |= {"vthinker": prompts.THYME_LAST, "openthinkimg": prompts.OPENTHINKIMG_LAST}
    final["vilasr"] = prompts.VILASR_LAST
    assert (final.get(name, prompts.LAST_TURN) in text) == last
    for left in ("{", "}"):
        assert left not in text.replace("\\boxed{}", "")
    # Once more: what was there stays there.
    again = speaks.observe(after, said, seen[:1], last=last)
    assert again.images == (*IMAGES, crop, crop, crop)
    assert again.messages[: len(after.messages)] == after.messages
    if profile_of(speaks).results == "assistant":
        assert "".join(p for p in again.begun if isinstance(p, str)).startswith(text)


def said_to(name: str, seen: Observation, said: str = "call") -> list[str | Picture]:
    """What stands in the user turn that shows an observation."""
    start = SPEAKERS[name].dialect.open(QUERY, TOOLS)
    after = SPEAKERS[name].dialect.observe(start, said, (seen,), last=False)
    return [part for part in after.messages[-1].content if not isinstance(part, tuple)]


def test_observations_are_shown_as_each_agent_knows_them() -> None:
    crop = Image.new("RGB", (28, 29))
    one, seen = Observation((crop,)), Observation(("1\n", crop))
    assert said_to("minio3", one) == [
        "After the above Action 0, the zoom-in image (Observation 2):\n",
        crop,
        f"\n{prompts.MINIO3_INSTRUCTION}",
    ]
    assert said_to("pixelreasoner", one) == [
        "Here is the cropped image (Image Size: 28x29):",
        crop,
    ]
    index = "The index of the given image is 3 (width: 28, height: 29)."
    assert said_to("vilasr", one) == [crop, f"{index}\n{prompts.VILASR_GO_ON}"]
    assert said_to("qwen3vl", one) == ["<tool_response>\n", crop, "\n</tool_response>"]
    assert said_to("deepeyesv2", seen, "<code>print(1)</code>") == [
        "Code execution result:\nstdout:\n```\n1\n\n```\n\nstderr:\n```\n\n```\n\nImages:\n",
        crop,
    ]
    assert said_to("deepeyesv2", one, "<tool_call>")[:2] == ["<tool_response>\n", crop]
    thyme = SPEAKERS["thyme"].dialect
    after = thyme.observe(thyme.open(QUERY, ()), "<code>a</code>", (seen,), last=False)
    assert after.begun == ("<code>a</code><sandbox_output>", crop, "</sandbox_output>")
    after = thyme.observe(thyme.open(QUERY, ()), "b", (Observation(("1\n",)),), last=False)
    assert after.begun == ("b<sandbox_output>1\n</sandbox_output>",)


def test_thyme_tells_paths_and_sizes_and_mini_o3_its_sources() -> None:
    text = dialect("thyme").open(QUERY, ()).messages[1].text
    assert '### User Image 2 Path:** "image_2.png"\n### User Image 2 Size:** "20x31"' in text
    alone = Query("What colour?", IMAGES[:1])
    text = dialect("thyme").open(alone, ()).messages[1].text
    assert '### User Image Path:** "image_1.png"\n### User Image Size:** "30x20"' in text
    assert "observation_1 to observation_1" in dialect("minio3").open(QUERY, ()).messages[1].text
    assert dialect("minio3").open(alone, ()).messages[1].text == "What colour?"


def test_texts_of_a_checkpoints_own_can_be_given() -> None:
    texts = Texts(system="Boxes {boxes}.")
    made = HermesDialect(texts=texts, profile=Profile(scale=None)).open(QUERY, ())
    assert made.messages[0].text == "Boxes in pixels of the image as you see it."
    silent = HermesDialect(texts=Texts(system="")).open(QUERY, ())
    assert [m.role for m in silent.messages] == ["user"]
    with pytest.raises(ConfigError, match="scale=0"):
        Profile(scale=0)


# --- through the agent -----------------------------------------------------------------------

PHOTO = Image.effect_noise((200, 100), 60).convert("RGB")


class Python:
    """Stands for the sandbox: prints, and returns the picture that it was told to crop."""

    name = "python"
    description = "Runs code."
    parameters: Mapping[str, Any] = {
        "type": "object",
        "properties": {"code": {"type": "string"}},
        "required": ["code"],
    }

    def __call__(self, images: Sequence[Picture], arguments: Mapping[str, Any]) -> Observation:
        return Observation((f"ran {arguments['code']}", images[0].crop((10, 20, 60, 90))))


def travel(
    name: str, turns: Sequence[str], tools: Any = None, **options: Any
) -> tuple[Trajectory, list[Conversation]]:
    model = FakeModel(
        lambda *_: turns[min(len(model.asked), len(turns)) - 1],
        seen=lambda image: (image.width // 2, image.height // 2),
    )
    given = [Zoom(), ObjectMapper(), PathTracer(), Python()] if tools is None else tools
    agent = AgenticFallback(model, tools=given, dialect=SPEAKERS[name].dialect, **options)
    [way] = agent([Query("Which colour?", (PHOTO,))])
    return way, model.asked


def call_for(name: str) -> str:
    """The turn in which an agent asks for the box (10, 20, 60, 90), or runs code."""
    speaks = SPEAKERS[name].dialect
    if speaks.name in ("thyme", "deepeyesv2", "pyvision", "vthinker"):
        return "<think>closer " + speaks.render_call(ToolCall("python", {"code": "crop()"}))
    call = ask_for(name, (10, 20, 60, 90), PHOTO, (100, 50))
    return f"<think>closer</think> {speaks.render_call(call)}"


@everyone
def test_a_look_and_an_answer(name: str) -> None:
    answer = SPEAKERS[name].answer.format("red")
    way, asked = travel(name, [call_for(name), answer])
    assert (way.answer, way.stop, way.error, way.depth) == ("red", "answered", None, 1)
    [seen] = way.steps[0].observations
    assert seen.error is None
    shown = seen.images[0]
    if name == "vilasr":
        assert shown.size == PHOTO.size and shown.getpixel((10, 50)) == (255, 0, 0)
    else:
        assert shown.tobytes() == PHOTO.crop((10, 20, 60, 90)).tobytes()
    assert asked[1].images == (PHOTO, shown)
    if profile_of(SPEAKERS[name].dialect).results == "assistant":
        assert asked[1].messages == asked[0].messages
        assert asked[1].begun[0] == f"{call_for(name)}<sandbox_output>"


@with_boxes
def test_a_look_at_what_was_shown_before(name: str) -> None:
    speaks = SPEAKERS[name].dialect
    crop = PHOTO.crop((10, 20, 60, 90)) if name != "vilasr" else PHOTO
    second = speaks.render_call(
        ask_for(name, (5, 5, 45, 45), crop, (crop.width // 2, crop.height // 2), 1)
    )
    first = speaks.render_call(ask_for(name, (10, 20, 60, 90), PHOTO, (100, 50)))
    way, _ = travel(name, [first, second, SPEAKERS[name].answer.format("red")], max_steps=3)
    seen = way.steps[1].observations[0]
    assert (way.answer, way.depth, seen.error, seen.source) == ("red", 2, None, 1)
    if name != "vilasr":
        assert seen.images[0].tobytes() == crop.crop((5, 5, 45, 45)).tobytes()


@everyone
def test_a_tool_that_is_not_there_is_told(name: str) -> None:
    way, asked = travel(name, [call_for(name), SPEAKERS[name].answer.format("red")], tools=())
    assert way.answer == "red"
    assert "there is no tool" in (way.steps[0].observations[0].error or "")
    begun = "".join(part for part in asked[1].begun if isinstance(part, str))
    assert "there is no tool" in begun + asked[1].messages[-1].text


@everyone
def test_a_turn_that_can_not_be_read_is_told(name: str) -> None:
    way, asked = travel(name, ["<think>hm</think>", SPEAKERS[name].answer.format("red")])
    assert way.answer == "red" and "could not be read" in (way.steps[0].error or "")
    begun = "".join(part for part in asked[1].begun if isinstance(part, str))
    assert "could not be read" in begun + asked[1].messages[-1].text


@everyone
def test_out_of_turns_the_last_word_counts(name: str) -> None:
    turns = [call_for(name)] * 2
    way, asked = travel(name, [*turns, SPEAKERS[name].answer.format("red")], max_steps=3)
    assert (way.answer, way.depth) == ("red", 2)
    plain, _ = travel(name, [*turns, "<think>so</think> dark red"], max_steps=3)
    assert (plain.answer, plain.stop) == ("dark red", "answered")
    still, _ = travel(name, [*turns, call_for(name)], max_steps=3)
    assert (still.answer, still.stop) == (None, "max_steps")
    whole = "".join(part for part in asked[2].begun if isinstance(part, str))
    whole += asked[2].messages[-1].text
    assert "No further" in whole or "No more code" in whole
    at_once, asked = travel(name, ["red"], max_steps=1)
    assert at_once.answer == "red" and asked[0].messages[-1].text.endswith(prompts.DIRECT)


@pytest.mark.parametrize("name", ["hermes", "qwen3vl", "pixelreasoner", "vilasr"])
def test_an_answer_without_tags_that_was_cut_off_is_none(name: str) -> None:
    long = {"pixelreasoner": "\\boxed{", "vilasr": "Action: Answer\n"}.get(name, "") + "it is " * 40
    way, _ = travel(name, [long, SPEAKERS[name].answer.format("red")], max_tokens=20)
    assert way.answer == "red"
    assert "no answer was found; it was cut off: be shorter" in (way.steps[0].error or "")
    never, _ = travel(name, [long], max_tokens=20, max_steps=2)
    assert (never.answer, never.stop) == (None, "max_steps")


def test_a_program_on_the_last_turn_is_no_answer() -> None:
    for name, said in (("thyme", "<code>``` ```"), ("vilasr", "```json\n[{]")):
        way, _ = travel(name, [said], max_steps=2)
        assert (way.answer, way.stop) == (None, "max_steps")


# --- auto ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("ChenShawn/DeepEyes-7B", "deepeyes"),
        ("honglyhly/DeepEyesV2_7B_1031", "deepeyesv2"),
        ("some/deepeyes-v2-7b", "deepeyesv2"),
        ("some/DeepEyes-23B", "deepeyes"),
        ("Kwai-Keye/Thyme-RL", "thyme"),
        ("Mini-o3/Mini-o3-7B-v1", "minio3"),
        ("TIGER-Lab/PixelReasoner-RL-v1", "pixelreasoner"),
        ("inclusionAI/ViLaSR", "vilasr"),
        ("Qwen/Qwen3-VL-30B-A3B-Instruct", "qwen3vl"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "deepeyes"),
        ("Qwen/Qwen3.5-9B", "xml"),
        ("qwen3_6-35b-a3b", "xml"),
        ("stepfun-ai/Step-3.7-Flash", "xml"),
        ("zai-org/GLM-4.5V", "glm"),
        ("zai-org/GLM-4.6V-Flash", "glm"),
        ("moonshotai/Kimi-K2.5", "kimi"),
        ("google/gemma-4-E4B-it", "gemma"),
        ("xintongzhang/CoF-rl-model-7b", "chainoffocus"),
        (SimpleNamespace(name="mine", config={"model_type": "qwen3_5_moe"}), "xml"),
        (SimpleNamespace(name="mine", config={"model_type": "glm4v_moe"}), "glm"),
        ("/data/thyme/Qwen3-VL-2B", "qwen3vl"),
        ("/venv/lib/speceyes/tiny/weights/large/", "speceyes"),
        (Path("models/Thyme-RL"), "thyme"),
        (ScriptedModel("a", name="qwen3_vl_8b"), "qwen3vl"),
        (SimpleNamespace(name="mine", config={"model_type": "qwen3_vl_moe"}), "qwen3vl"),
        (SimpleNamespace(name="mine", config=SimpleNamespace(model_type="qwen2_5_vl")), "deepeyes"),
        (
            SimpleNamespace(
                name="thyme-like",
                config=SimpleNamespace(model_type="qwen3_vl", _name_or_path="a/DeepEyes-7B"),
            ),
            "thyme",
        ),
        (
            SimpleNamespace(
                name="step-900",
                config=SimpleNamespace(model_type="qwen2_5_vl", _name_or_path="a/Thyme-SFT/"),
            ),
            "thyme",
        ),
        (
            SimpleNamespace(name="thyme", config={"speceyes_dialect": "minio3"}),
            "minio3",
        ),
        (SimpleNamespace(name="mine", chat_template="{% if tools %}"), "hermes"),
    ],
)
def test_auto_picks_by_name_and_configuration_and_says_so(
    model: object, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "speceyes.dialects"):
        assert detect(model) == expected
    assert f": {expected}, for its " in caplog.text or "speceyes_dialect" in caplog.text
    assert dialect("auto", model).name == expected


def test_auto_reads_a_directory(tmp_path: Path) -> None:
    place = tmp_path / "checkpoint-9"
    place.mkdir()
    with pytest.raises(ConfigError, match=r"can't be told .* pass dialect="):
        detect(place)
    (place / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ tools }}"}))
    assert detect(place) == "hermes"
    (place / "config.json").write_text(json.dumps({"model_type": "qwen3_vl"}))
    assert detect(str(place)) == "qwen3vl"
    (place / "config.json").write_text(json.dumps({"speceyes_dialect": "thyme"}))
    assert detect(place) == "thyme"
    (place / "config.json").write_text("[not JSON")
    (place / "tokenizer_config.json").write_bytes(b"\xff\xfe")
    (place / "chat_template.jinja").write_text("{%- if tools %}")
    assert detect(place) == "hermes"


@pytest.mark.parametrize(
    "model",
    [
        None,
        "llava-hf/llava-1.5-7b-hf",
        "healthymeal",
        "Qwen/Qwen3-8B",
        "step-3000",
        "moonshotai/Kimi-VL-A3B-Instruct",  # whose template takes no tools
        SimpleNamespace(),
        ScriptedModel("a"),
    ],
)
def test_auto_that_can_not_tell_says_what_it_does(
    model: object, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match=r"pass dialect=, one of .*deepeyes, "):
        detect(model)
    with caplog.at_level(logging.WARNING, "speceyes.dialects"):
        assert dialect("auto", model).name == "speceyes"
    assert ('driven by "speceyes"' in caplog.text) == (model is not None)


def test_a_configuration_that_names_no_dialect_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'klingon'; there are: .*deepeyes"):
        detect(SimpleNamespace(name="mine", config={"speceyes_dialect": "klingon"}))


def test_the_phases_take_auto() -> None:
    script: Script = {"Reply with one word": "yes", "": "It is red."}
    model = ScriptedModel(script, name="Qwen3-VL-2B-Instruct")
    assert AgenticFallback(model, tools=["zoom"], dialect="auto").dialect.name == "qwen3vl"
    judge = ToolJudge(model, tools=["zoom"], dialect="auto")
    assert judge.dialect is not None and judge.dialect.name == "qwen3vl"
    [way] = AgenticFallback(model, tools=["zoom"], dialect="auto")([Query("?", (PHOTO,))])
    assert way.answer == "It is red."


# --- drawing -----------------------------------------------------------------------------------


def test_drawings_leave_what_was_seen_as_it_was() -> None:
    image = Image.new("RGB", (300, 200))
    tools = Tools([ObjectMapper(), PathTracer()])
    items = [{"bbox_2d": [250, 150, 20.4, 30], "label": "a\ncup 猫"}, {"bbox_2d": [0, 0, 999, 5]}]
    boxes = tools.run(ToolCall("object_mapper", {"objects": items}), [image])
    assert boxes.error is None and boxes.source == 0
    assert image.getextrema() == ((0, 0),) * 3
    drawn = boxes.images[0]
    assert drawn.getpixel((20, 100)) == (255, 0, 0) and drawn.getpixel((299, 3)) == (0, 128, 0)
    ways = [{"start_point_2d": [50, 100], "end_point_2d": [250, 100], "label": "w" * 999}]
    way = tools.run(ToolCall("path_tracer", {"paths": ways, "img_idx": 1}), [image, drawn])
    assert way.source == 1 and way.images[0].getpixel((150, 100)) == (0, 0, 0)
    assert way.images[0].getpixel((50, 100)) == (255, 0, 0)
    assert way.images[0].getpixel((250, 100)) == (0, 0, 255)
    assert way.images[0].getpixel((299, 3)) == (0, 128, 0)  # the boxes are still there


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (ToolCall("object_mapper", {"objects": []}), "at least 1"),
        (ToolCall("object_mapper", {}), "objects must be given"),
        (ToolCall("object_mapper", {"objects": [{"bbox_2d": [1, 2, 3]}]}), "exactly 4"),
        (ToolCall("object_mapper", {"objects": [{"bbox_2d": [99, 0, 200, 9]}]}), "outside"),
        (
            ToolCall("object_mapper", {"objects": [{"bbox_2d": [0, 0, 9, 9]}], "img_idx": 4}),
            "0 to 0",
        ),
        (ToolCall("path_tracer", {"paths": [{"start_point_2d": [0, 0]}]}), "must be given"),
        (
            ToolCall(
                "path_tracer", {"paths": [{"start_point_2d": [0, -9], "end_point_2d": [3, -1]}]}
            ),
            "outside",
        ),
    ],
)
def test_drawings_that_can_not_be_made_are_told(call: ToolCall, told: str) -> None:
    seen = Tools([ObjectMapper(), PathTracer()]).run(call, [Image.new("RGB", (50, 50))])
    assert told in (seen.error or "") and not seen.images


@settings(max_examples=60)
@given(
    size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    numbers=st.lists(st.floats(-100, 200), min_size=4, max_size=4),
    label=st.text(max_size=80),
    mode=st.sampled_from(["RGB", "L", "P", "RGBA", "1", "CMYK"]),
)
def test_any_drawing_is_made_or_told(
    size: tuple[int, int], numbers: list[float], label: str, mode: str
) -> None:
    image = Image.new(mode, size)
    box = {"bbox_2d": numbers, "label": label}
    path = {"start_point_2d": numbers[:2], "end_point_2d": numbers[2:], "label": label}
    tools = Tools([ObjectMapper(), PathTracer()], timeout_s=None)
    for call in (
        ToolCall("object_mapper", {"objects": [box]}),
        ToolCall("path_tracer", {"paths": [path]}),
    ):
        seen = tools.run(call, [image])
        if seen.error is not None:
            assert "outside the image" in seen.error
        else:
            assert seen.images[0].size == size and seen.images[0].mode == "RGB"


def test_an_image_that_is_named_without_a_box_is_counted_from_zero_too() -> None:
    from speceyes.dialects._space import locate

    images = [Image.new("RGB", (64, 48)), Image.new("RGB", (32, 32))]
    seen = [image.size for image in images]
    call = ToolCall("flip", {"target_image": 2, "axis": "x"})
    found = locate(call, images, seen, Profile(), key="target_image", first=1)
    assert dict(found.arguments) == {"img_idx": 1, "axis": "x"}
    for wrong in (0, 3, "one"):
        call = ToolCall("flip", {"target_image": wrong})
        with pytest.raises(ParseError, match="use 1 to 2"):
            locate(call, images, seen, Profile(), key="target_image", first=1)
    plain = ToolCall("flip", {"axis": "x"})
    assert locate(plain, images, seen, Profile(), key="target_image", first=1) == plain


@pytest.mark.parametrize("name", ["hermes", "kimi", "gemma", "glm", "xml", "deepeyes"])
def test_nothing_is_nothing_however_it_is_written(name: str) -> None:
    for empty in ("null", '""', '"null"', '" "', "{}", '"{}"'):
        said = f'<tool_call>{{"name": "look", "arguments": {empty}}}</tool_call>'
        [call] = SPEAKERS[name].dialect.parse(said).calls
        assert (call.name, dict(call.arguments)) == ("look", {}), empty
    for first in (None, "", "0", 0, 0.0):
        at = ToolCall(ZOOM, {"bbox_2d": [10, 10, 90, 90], "img_idx": first})
        located = SPEAKERS[name].dialect.locate(at, [PHOTO, PHOTO], [(200, 100)] * 2)
        assert located.arguments.get("img_idx", 0) == 0
