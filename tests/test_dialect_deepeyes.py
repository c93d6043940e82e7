"""The DeepEyes dialect: what models write, however oddly, and where their boxes lie."""

from __future__ import annotations

import contextlib
import json
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from speceyes import prompts
from speceyes.dialects import dialect
from speceyes.dialects._json_call import MAX_CALL_CHARS, MAX_INTEGER
from speceyes.dialects.deepeyes import DeepEyesDialect, SpecEyesDialect
from speceyes.errors import ConfigError, ParseError
from speceyes.protocols import Dialect
from speceyes.tools import Tools, Zoom
from speceyes.types import Conversation, Message, Observation, Query, ToolCall

EYES = SpecEyesDialect()
ZOOM = '{"name": "zoom", "arguments": {"bbox_2d": [1, 2, 3, 4]}}'
BOX = {"bbox_2d": [1, 2, 3, 4]}


def called(inside: str) -> str:
    return f"<tool_call>{inside}</tool_call>"


def test_the_dialect_by_name() -> None:
    assert dialect("speceyes") == EYES and dialect(EYES) is EYES and isinstance(EYES, Dialect)
    assert dialect("deepeyes") == DeepEyesDialect()
    with pytest.raises(ConfigError, match=r"there are: .*deepeyes"):
        dialect("thyme2")


# --- parse: one row an oddity --------------------------------------------------------------

# Each with the names of the calls (or their arguments), the answer, or what the model is told.
CALLS: list[tuple[str, str, list[tuple[str, dict[str, Any]]]]] = [
    ("plain", called(ZOOM), [("zoom", BOX)]),
    ("OpenAI's form", called('{"function": {"name": "a"}}'), [("a", {})]),
    ("arguments null", called('{"name": "a", "arguments": null}'), [("a", {})]),
    ("arguments empty", called('{"name": "a", "arguments": ""}'), [("a", {})]),
    ("with line breaks", called(f"\n{ZOOM}\n"), [("zoom", BOX)]),
    ("after a thought", f"<think>far</think>{called(ZOOM)}", [("zoom", BOX)]),
    ("two calls", called(ZOOM) + "\n" + called('{"name": "b"}'), [("zoom", BOX), ("b", {})]),
    ("text between two", called(ZOOM) + "and then" + called(ZOOM), [("zoom", BOX)] * 2),
    ("text around", f"I zoom: {called(ZOOM)} so.", [("zoom", BOX)]),
    ("no closing tag", f"<tool_call>{ZOOM}", [("zoom", BOX)]),
    ("only the second unclosed", called(ZOOM) + f"<tool_call>{ZOOM}", [("zoom", BOX)] * 2),
    ("code fence", called(f"```json\n{ZOOM}\n```"), [("zoom", BOX)]),
    ("fence without a language", called(f"```\n{ZOOM}\n```"), [("zoom", BOX)]),
    ("fence in capitals", called(f"```JSON\n{ZOOM}```"), [("zoom", BOX)]),
    ("single quotes", called(ZOOM.replace('"', "'")), [("zoom", BOX)]),
    ("trailing comma", called('{"name": "zoom", "arguments": {"bbox_2d": [1, 2, 3, 4,],},}'), [
        ("zoom", BOX)
    ]),
    ("tuple for a list", called("{'name': 'zoom', 'arguments': {'bbox_2d': (1, 2, 3, 4)}}"), [
        ("zoom", BOX)
    ]),
    ("Python's words", called("{'name': 'a', 'arguments': {'b': True, 'c': None}}"), [
        ("a", {"b": True, "c": None})
    ]),
    ("JSON's words in Python", called("{'name': 'a', 'arguments': {'b': true, 'c': null}}"), [
        ("a", {"b": True, "c": None})
    ]),
    ("a word inside a text", called("{'name': 'a', 'arguments': {'b': 'true, null'}}"), [
        ("a", {"b": "true, null"})
    ]),
    ("apostrophe", called("""{'name': 'a', 'arguments': {'b': "it's", 'c': 'it\\'s'}}"""), [
        ("a", {"b": "it's", "c": "it's"})
    ]),
    ("arguments as text", called(json.dumps({"name": "zoom", "arguments": json.dumps(BOX)})), [
        ("zoom", BOX)
    ]),
    ("no arguments", called('{"name": "zoom"}'), [("zoom", {})]),
    ("further keys", called('{"name": "zoom", "id": 7, "arguments": {}}'), [("zoom", {})]),
    ("the same key twice", called('{"name": "a", "name": "b"}'), [("b", {})]),
    ("unknown tool", called('{"name": "teleport"}'), [("teleport", {})]),
    ("unicode", called('{"name": "a", "arguments": {"b": "käse 猫 \\u00e9"}}'), [
        ("a", {"b": "käse 猫 é"})
    ]),
    ("braces in a text", called('{"name": "a", "arguments": {"b": "}{]["}}'), [
        ("a", {"b": "}{]["})
    ]),
    ("floats", called('{"name": "a", "arguments": {"b": [1.5, -2e3, 1E-2]}}'), [
        ("a", {"b": [1.5, -2000.0, 0.01]})
    ]),
    ("largest number", called(f'{{"name": "a", "arguments": {{"b": -{MAX_INTEGER}}}}}'), [
        ("a", {"b": -MAX_INTEGER})
    ]),
    ("call inside the thought", f"<think>{called(ZOOM)}</think>", [("zoom", BOX)]),
    ("other tags about", f"<think></think><b>{called(ZOOM)}</b>", [("zoom", BOX)]),
]  # fmt: skip

ANSWERS = [
    ("plain", "<answer>red</answer>", "red"),
    ("white space", "<answer>\n red \n</answer>", "red"),
    ("no closing tag", "<think>so</think><answer>red", "red"),
    ("several, the last counts", "<answer>red</answer><answer>blue</answer>", "blue"),
    ("beside a call, which it beats", f"{called(ZOOM)}<answer>red</answer>", "red"),
    ("beside a broken call", "<tool_call>{</tool_call><answer>red</answer>", "red"),
    ("with tags inside", "<answer>a <b>red</b> one</answer>", "a <b>red</b> one"),
    ("unicode", "<answer>猫 🐈 é</answer>", "猫 🐈 é"),
    ("long", f"<answer>{'a' * 100_000}</answer>", "a" * 100_000),
]

REFUSED = [
    ("empty", "", "neither"),
    ("blank", " \n\t", "neither"),
    ("only a thought", "<think>hmm</think>", "neither"),
    ("plain text", "The collar is red.", "neither"),
    ("only closing tags", "</think></tool_call></answer>", "neither"),
    ("a tag in capitals", f"<TOOL_CALL>{ZOOM}</TOOL_CALL>", "neither"),
    ("empty answer", "<answer></answer>", "<answer> is empty"),
    ("blank answer", "<answer> \n</answer>", "<answer> is empty"),
    ("cut within a tag", "<think>far</think><tool_ca", "neither"),
    ("empty call", called(""), "not valid JSON"),
    ("opening tag only", "<tool_call>", "not valid JSON"),
    ("cut within the JSON", f"<tool_call>{ZOOM[:-4]}", "not valid JSON"),
    ("text after the JSON", called(ZOOM + " and so on"), "not valid JSON"),
    ("text before the JSON", called("zoom: " + ZOOM), "not valid JSON"),
    ("two objects in one", called(ZOOM + ZOOM), "not valid JSON"),
    ("a call in a call", called(f"<tool_call>{ZOOM}"), "not valid JSON"),
    ("code", called("zoom(bbox_2d=[1, 2, 3, 4])"), "not valid JSON"),
    ("other words", called("{'name': zoom}"), "not valid JSON"),
    ("code to be run", called("__import__('os').system('true')"), "not valid JSON"),
    ("a list", called(f"[{ZOOM}]"), "is a list; a JSON object"),
    ("a number", called("3"), "is a int; a JSON object"),
    ("null", called("null"), "is a NoneType; a JSON object"),
    ("no name", called('{"arguments": {}}'), 'no "name"'),
    ("empty name", called('{"name": ""}'), 'no "name"'),
    ("a name that isn't text", called('{"name": 5}'), 'no "name"'),
    ("arguments a list", called('{"name": "a", "arguments": [1]}'), "is a list; an object"),
    ("arguments words", called('{"name": "a", "arguments": "all of it"}'), "is text"),
    ("NaN", called('{"name": "a", "arguments": {"b": NaN}}'), "NaN is not a JSON number"),
    ("Infinity", called('{"name": "a", "arguments": {"b": -Infinity}}'), "-Infinity is not"),
    ("1e999", called('{"name": "a", "arguments": {"b": [1e999]}}'), "inf is not a finite"),
    ("1e999 in Python", called("{'name': 'a', 'arguments': {'b': ((1e999,),)}}"), "inf is not"),
    ("NaN within text", called('{"name": "a", "arguments": "{\\"b\\": NaN}"}'), "is text"),
    ("huge number", called('{"name": "a", "arguments": {"b": ' + "9" * 30 + "}}"), "digits"),
    ("a huger one", called('{"name": "a", "arguments": {"b": ' + "9" * 5000 + "}}"), "valid JSON"),
    ("hexadecimal", called("{'name': 'a', 'arguments': {'b': 0xff}}"), "not valid JSON"),
    ("a set", called("{'name': 'a', 'arguments': {'b': {1, 2}}}"), "a set is not a JSON value"),
    ("bytes", called("{'name': 'a', 'arguments': {'b': b'x'}}"), "not valid JSON"),
    ("a sum", called("{'name': 'a', 'arguments': {'b': 1 + 2j}}"), "not valid JSON"),
    ("names that aren't text", called("{'name': 'a', 'arguments': {'b': {3: 4}}}"), "a int for a"),
    ("a bad escape", called("{'name': 'a', 'arguments': {'b': '\\d'}}"), "not valid JSON"),
    ("zero bytes", called('{"name": "a\0"'), "not valid JSON"),
    ("deep lists", called('{"name": "a", "arguments": {"b": ' + "[" * 9000), "not valid JSON"),
    ("deep objects", called('{"a":' * 3000 + "1" + "}" * 3000), "not valid JSON|no .name"),
    ("deep and closed", called(
        '{"name": "a", "arguments": {"b": ' + "[" * 9000 + "]" * 9000 + "}}"
    ), "not valid JSON|deep"),
    ("deep brackets of Python", called("(" * 5000 + ")" * 5000), "not valid JSON"),
    ("too long", called('{"name": "' + "a" * MAX_CALL_CHARS), "characters; at most"),
    ("100 kB of garbage", "<tool_call>" + "x{[\"'" * 20_000, "characters; at most"),
    ("one good, one broken", called(ZOOM) + called("{"), "not valid JSON"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "calls"), [row[1:] for row in CALLS], ids=[r[0] for r in CALLS])
def test_turns_with_calls(text: str, calls: list[tuple[str, dict[str, Any]]]) -> None:
    turn = EYES.parse(text)
    assert turn.answer is None
    assert [(call.name, call.arguments) for call in turn.calls] == calls
    assert all(call.raw and call.raw in text for call in turn.calls)


@pytest.mark.parametrize(
    ("text", "answer"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS]
)
def test_turns_with_an_answer(text: str, answer: str) -> None:
    turn = EYES.parse(text)
    assert turn.answer == answer and turn.calls == ()


@pytest.mark.parametrize(
    ("text", "told"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_turns_that_can_not_be_read(text: str, told: str) -> None:
    with pytest.raises(ParseError, match=told) as caught:
        EYES.parse(text)
    assert len(str(caught.value)) < 200  # it goes back to the model


def test_the_thought_is_kept() -> None:
    assert EYES.parse(f"<think> far </think>{called(ZOOM)}").thought == "far"
    assert EYES.parse("<think>a</think><think>b</think><answer>c</answer>").thought == "a"
    assert EYES.parse("<answer>c</answer>").thought == ""


# --- parse: properties ---------------------------------------------------------------------

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["</tool_call>", "<answer>", "<think>", "\\", '"', "'", "```", "\u2028"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
names = st.text(min_size=1, max_size=30).filter(str.strip)  # a blank one is no name: an error


@given(names, st.dictionaries(st.text(max_size=10), json_values, max_size=3))
def test_a_call_written_is_the_call_read(name: str, arguments: dict[str, Any]) -> None:
    text = EYES.render_call(ToolCall(name, arguments))
    for turn in (text, f"<think>so</think>\n{text}\n", text.removesuffix("</tool_call>")):
        (call,) = EYES.parse(turn).calls
        assert call.name == name and call.arguments == arguments
        assert repr(call.arguments) == repr(arguments)  # 1, 1.0 and True differ


@given(st.lists(st.tuples(names, st.fixed_dictionaries({"a": st.text()})), min_size=2, max_size=4))
def test_several_calls_keep_their_order(calls: list[tuple[str, dict[str, Any]]]) -> None:
    text = "\n".join(EYES.render_call(ToolCall(*call)) for call in calls)
    assert [(call.name, call.arguments) for call in EYES.parse(text).calls] == calls


pieces = st.sampled_from(
    "<tool_call> </tool_call> <answer> </answer> <think> </think> { } [ ] ( ) ' \" \\ , : ``` json "
    "name arguments bbox_2d img_idx null True NaN 1e999 -1 0x1f 0o7 1_0 1if {1} b'x' f'x' \0 "
    '\ud800 "name": "arguments": {"name":"a","arguments":{ }} 1. .5 -- + 1j lambda: ...'.split(" ")
)  # fmt: skip


@settings(max_examples=250)
@given(st.lists(pieces | st.text(max_size=4), max_size=25), st.booleans())
def test_only_parse_errors_leave_parse_and_locate(parts: list[str], inside: bool) -> None:
    text = "".join(parts)
    try:
        turn = EYES.parse(called(text) if inside else text)
    except ParseError:
        return
    assert (turn.answer is None) == bool(turn.calls)
    for call in turn.calls:
        with contextlib.suppress(ParseError):
            EYES.locate(call, [Image.new("L", (40, 30))], [(28, 28)])


@given(st.text())
def test_any_text_parses_or_is_a_parse_error(text: str) -> None:
    for turn in (text, called(text), f"<tool_call>{{{text}}}", f"<answer>{text}"):
        with contextlib.suppress(ParseError):
            EYES.parse(turn)


@pytest.mark.parametrize(
    "unit",
    [
        "<tool_call>",
        "<tool_call></tool_call",
        "<answer>x",
        "<think>a",
        "<think></think>",
        "</think>",
        "x{['\"",
        "1",
        "\\",
        " ",
        called("{"),
    ],
)
def test_a_megabyte_is_read_at_once(unit: str) -> None:
    """What grew with the square of the length would take minutes."""
    for text in (unit * (1_000_000 // len(unit)), "<tool_call>" + unit * (19_000 // len(unit))):
        begin = time.thread_time()
        with contextlib.suppress(ParseError):
            EYES.parse(text)
        assert time.thread_time() - begin < 10


# --- locate --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((1024, 768), (1024, 768)),
        ((1025, 767), (252, 196)),
        ((4096, 2161), (1036, 532)),
        ((333, 999), (336, 1008)),
        ((37, 61), (56, 84)),
        ((3840, 2160), (28, 28)),
    ],
)
@pytest.mark.parametrize("place", [(0.1, 0.1), (0.5, 0.55), (0.93, 0.9)])
def test_the_crop_of_a_located_box_shows_the_target(
    size: tuple[int, int], seen: tuple[int, int], place: tuple[float, float]
) -> None:
    """A target is drawn, a model that sees the image resized names its place exactly."""
    (width, height), (w, h) = size, seen
    half = max(2, min(size) // 40)
    x = min(max(round(place[0] * width), half), width - half)
    y = min(max(round(place[1] * height), half), height - half)
    target = (x - half, y - half, x + half, y + half)
    image = Image.new("RGB", size)
    ImageDraw.Draw(image).rectangle((target[0], target[1], target[2] - 1, target[3] - 1), "red")
    across, down = w / width, h / height
    box = [target[0] * across, target[1] * down, target[2] * across, target[3] * down]
    call = EYES.parse(EYES.render_call(ToolCall("image_zoom_in_tool", {"bbox_2d": box}))).calls[0]

    located = EYES.locate(call, [image], [seen])
    assert located.arguments["bbox_2d"] == pytest.approx(target, abs=1e-6)
    crop = Tools([Zoom(min_side=4)]).run(located, [image])
    assert crop.box is not None and crop.error is None
    red = np.argwhere(np.asarray(crop.images[0])[:, :, 0] > 128)
    assert len(red) == 4 * half * half  # the whole target, and nothing of it twice
    top, left = red.mean(axis=0) + 0.5
    centre = crop.images[0].width / 2, crop.images[0].height / 2
    assert abs(left - centre[0]) <= 2 and abs(top - centre[1]) <= 2


def test_a_box_in_whole_pixels_of_a_small_view_misses_by_less_than_one_of_them() -> None:
    image, seen = Image.new("RGB", (4096, 2160)), (512, 270)
    for x in range(100, 4000, 171):
        box = [round(x / 8), 10, round((x + 80) / 8), 20]
        at = EYES.locate(ToolCall("z", {"bbox_2d": box}), [image], [seen]).arguments["bbox_2d"]
        assert abs(at[0] - x) <= 4 and abs(at[2] - x - 80) <= 4


def test_a_crop_can_be_located_in() -> None:
    images = [Image.new("L", (400, 300)), Image.new("L", (100, 50))]
    sizes = [(200, 150), (400, 100)]
    call = ToolCall("image_zoom_in_tool", {"bbox_2d": [40, 20, 80, 40], "img_idx": 1}, "raw")
    located = EYES.locate(call, images, sizes)
    assert located.arguments == {"bbox_2d": [10, 10, 20, 20], "img_idx": 1}
    assert located.raw == "raw" and located.name == call.name
    assert call.arguments["bbox_2d"] == [40, 20, 80, 40]  # the call itself is as it was
    whole = EYES.locate(ToolCall("z", {"bbox_2d": [0, 0, 9, 9], "img_idx": 1.0}), images, sizes)
    assert whole.arguments["img_idx"] == 1 and type(whole.arguments["img_idx"]) is int


def test_upstreams_other_name_for_the_box() -> None:
    one, half = [Image.new("L", (100, 100))], [(50, 50)]
    zoomed = EYES.locate(ToolCall("image_zoom_in_tool", {"bbox": [1, 2, 3, 4]}), one, half)
    assert zoomed.arguments == {"bbox_2d": [2, 4, 6, 8]}
    other = EYES.locate(ToolCall("detect", {"bbox": [1, 2, 3, 4]}), one, half)
    assert other.arguments == {"bbox": [2, 4, 6, 8]}  # a tool of that schema gets what it asks for


def test_calls_without_a_box_pass_as_they_are() -> None:
    call = ToolCall("image_rotate_tool", {"angle": 90, "img_idx": 7})
    assert EYES.locate(call, [Image.new("L", (9, 9))], [(28, 28)]) is call


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"img_idx": 2}, "img_idx=2 is not an image so far; use 0 to 1"),
        ({"img_idx": -1}, "img_idx=-1"),
        ({"img_idx": True}, "img_idx=True"),
        ({"img_idx": "2"}, "img_idx='2'"),
        ({"img_idx": "one"}, "img_idx='one'"),
        ({"img_idx": 0.5}, "img_idx=0.5"),
        ({"img_idx": math.inf}, "img_idx=inf"),
        ({"img_idx": 1 << 100_000}, "img_idx=a int"),
        ({"bbox_2d": None}, "bbox_2d=None is not"),
        ({"bbox_2d": [1, 2, 3]}, "is not [left, top, right, bottom]"),
        ({"bbox_2d": [1, 2, 3, 4, 5]}, "is not [left"),
        ({"bbox_2d": "x" * 9999}, "bbox_2d='xxx"),
        ({"bbox_2d": {"a": 1}}, "is not [left"),
        ({"bbox_2d": [1, 2, 3, "4x"]}, "holds '4x', which is not a number"),
        ({"bbox_2d": [1, 2, 3, [4]]}, "holds [4], which"),
        ({"bbox_2d": [1, 2, 3, None]}, "holds None, which"),
        ({"bbox_2d": [1, 2, 3, False]}, "holds False, which"),
        ({"bbox_2d": [1, 2, 3, math.nan]}, "out of all bounds"),
        ({"bbox_2d": [1, 2, 3, -math.inf]}, "out of all bounds"),
        ({"bbox_2d": [1, 2, 3, 1e9]}, "out of all bounds"),
        ({"bbox_2d": [1, 2, 3, 10**400]}, "out of all bounds"),
        ({"bbox_2d": [1, 2, 3, 1 << 100_000]}, "out of all bounds"),
    ],
)
def test_boxes_and_images_that_can_not_be_located(arguments: dict[str, Any], told: str) -> None:
    call = ToolCall("image_zoom_in_tool", {**BOX, **arguments})
    with pytest.raises(ParseError) as caught:
        EYES.locate(call, [Image.new("L", (9, 9))] * 2, [(28, 28)] * 2)
    assert told in str(caught.value) and len(str(caught.value)) < 200


@given(json_values, json_values, st.sampled_from(["bbox_2d", "bbox"]))
def test_any_arguments_locate_or_are_a_parse_error(box: Any, index: Any, key: str) -> None:
    images, seen = [Image.new("L", (40, 30))] * 2, [(28, 56)] * 2
    for arguments in ({key: box, "img_idx": index}, {key: [box] * 4}, {key: box}):
        try:
            EYES.locate(ToolCall("image_zoom_in_tool", arguments), images, seen)
        except ParseError as exc:
            assert len(str(exc)) < 200


# --- conversations -------------------------------------------------------------------------

IMAGES = Image.new("RGB", (30, 20)), Image.new("RGB", (20, 30))
QUERY = Query("What colour?", IMAGES, choices=("red", "{blue}"))


def test_images_come_first_and_only_the_instruction_differs() -> None:
    tools = tuple(Tools(["zoom", "rotate"]))
    conversations = {
        prompts.DEEPEYES_INSTRUCTION: EYES.open(QUERY, tools),
        prompts.JUDGE: EYES.ask_judge(QUERY, tools),
        prompts.DIRECT: EYES.ask_direct(QUERY, tools),
    }
    for instruction, conversation in conversations.items():
        system, user = conversation.messages
        assert (system.role, user.role) == ("system", "user")
        assert conversation.tools == () and conversation.prefill == ""
        assert user.content[:2] == IMAGES and conversation.images == IMAGES
        assert user.content[2] == f"What colour?\n(A) red\n(B) {{blue}}\n{instruction}"
        assert system == conversations[prompts.JUDGE].messages[0]


def test_the_system_message_carries_each_tools_schema() -> None:
    tools = tuple(Tools(["zoom", "rotate"]))
    text = EYES.open(QUERY, tools).messages[0].text
    inside = text[text.index("<tools>\n") + 8 : text.index("\n</tools>")]
    schemas = [json.loads(line) for line in inside.split("\n")]
    assert [schema["function"]["name"] for schema in schemas] == [one.name for one in tools]
    assert [schema["function"]["parameters"] for schema in schemas] == [
        one.parameters for one in tools
    ]
    none = EYES.open(QUERY, ()).messages[0].text
    assert "<tools>\n\n</tools>" in none


def test_observing_only_appends() -> None:
    start = EYES.open(QUERY, tuple(Tools("zoom")))
    crop = Image.new("RGB", (28, 28))
    seen = (
        Observation((crop,), box=(0, 0, 28, 28), source=0),
        Observation(error="img_idx=5 is not an image; use 0 to 2"),
        Observation(("3 words", crop)),
    )
    text = f"<think>a</think>{called(ZOOM) * 3}"
    after = EYES.observe(start, text, seen, last=False)
    assert after.messages[:2] == start.messages and len(start.messages) == 2
    assert after.messages[2] == Message("assistant", (text,))
    assert after.messages[3] == Message("user", (
        "<tool_response>", crop, "</tool_response>\n<tool_response>"
        "Error: img_idx=5 is not an image; use 0 to 2</tool_response>\n<tool_response>3 words",
        crop, f"</tool_response>\n{prompts.DEEPEYES_INSTRUCTION}",
    ))  # fmt: skip
    assert after.images == (*IMAGES, crop, crop)  # as tools address them: 0, 1, 2, 3
    end = EYES.observe(after, called(ZOOM), seen[:1], last=True)
    assert end.messages[:4] == after.messages
    assert end.messages[5].content[-1] == f"</tool_response>\n{prompts.LAST_TURN}"


def test_a_prefill_does_not_outlive_its_turn() -> None:
    begun = Conversation(EYES.open(QUERY, ()).messages, prefill="<think>")
    assert EYES.observe(begun, "x", (), last=False).prefill == ""
