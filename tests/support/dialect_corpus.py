r"""What agents write, however oddly, by dialect, and what must become of it.

Every row is a title, a turn, and its outcome: calls, an answer, or the words of the refusal.
DeepEyes has its own, in test_dialect_deepeyes.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

from speceyes.dialects._family import Family
from speceyes.dialects.adaptvision import AdaptVisionDialect
from speceyes.dialects.chainoffocus import ChainOfFocusDialect
from speceyes.dialects.deepeyes import DeepEyesDialect, SpecEyesDialect
from speceyes.dialects.deepeyesv2 import DeepEyesV2Dialect
from speceyes.dialects.gemma import GemmaDialect
from speceyes.dialects.glm import GlmDialect
from speceyes.dialects.hermes import HermesDialect
from speceyes.dialects.kimi import KimiDialect
from speceyes.dialects.minio3 import MiniO3Dialect
from speceyes.dialects.openthinkimg import OpenThinkImgDialect
from speceyes.dialects.pixelreasoner import PixelReasonerDialect
from speceyes.dialects.pyvision import PyVisionDialect
from speceyes.dialects.qwen3vl import Qwen3VLDialect
from speceyes.dialects.sensenova import SenseNovaDialect
from speceyes.dialects.thyme import ThymeDialect
from speceyes.dialects.vilasr import ViLaSRDialect
from speceyes.dialects.visionthink import VisionThinkDialect
from speceyes.dialects.vthinker import VThinkerDialect
from speceyes.dialects.xml import XmlDialect
from speceyes.protocols import Dialect
from speceyes.types import ToolCall

ZOOM = "image_zoom_in_tool"
Fractions: TypeAlias = tuple[float, float, float, float]
Place: TypeAlias = Callable[[Fractions, int, tuple[int, int]], ToolCall]


@dataclass(frozen=True)
class Speaker:
    """A dialect, and how an agent that speaks it asks for a box of an image.

    `place` takes the box as parts of width and height, the image's index from 0, and its size as
    seen; None where boxes are no part of the dialect.
    """

    dialect: Dialect
    place: Place | None
    answer: str = "<answer>{}</answer>"


def _scaled(scale: float | None) -> Place:
    def place(box: Fractions, index: int, seen: tuple[int, int]) -> ToolCall:
        across, down = (scale, scale) if scale is not None else seen
        sides = [v * s for v, s in zip(box, (across, down, across, down), strict=True)]
        return ToolCall(ZOOM, {"bbox_2d": sides, "img_idx": index})

    return place


def _sourced(box: Fractions, index: int, seen: tuple[int, int]) -> ToolCall:
    source = f"observation_{index}" if index else "original_image"
    return ToolCall(ZOOM, {"bbox_2d": list(box), "source": source})


def _targeted(box: Fractions, index: int, seen: tuple[int, int]) -> ToolCall:
    arguments = {"bbox_2d": list(box), "target_image": index + 1}
    return ToolCall("crop_image_normalized", arguments)


def _drawn(box: Fractions, index: int, seen: tuple[int, int]) -> ToolCall:
    [*sides] = _scaled(None)(box, index, seen).arguments["bbox_2d"]
    return ToolCall("object_mapper", {"index": index + 1, "objects": [{"bbox_2d": sides}]})


Kind = TypeVar("Kind", bound=Family)


def exact(made: Kind, **more: Any) -> Kind:
    """The dialect without what its profile does to boxes and crops, so that they can be compared
    to a thousandth of a pixel.
    """
    plain = {"rounding": None, "margin": 0.0, "grow": 1.0, "min_box": 0.0, "crop_pixels": None}
    plain |= {"crop_scale": 1.0, "image_scale": 1.0, "image_pixels": None, "handed": "original"}
    plain |= {"temperature": 0.0}
    return replace(made, profile=replace(made.profile, **plain, **more))


def _named(box: Fractions, index: int, seen: tuple[int, int]) -> ToolCall:
    arguments = dict(_scaled(None)(box, index, seen).arguments)
    del arguments["img_idx"]
    return ToolCall(ZOOM, {**arguments, "image": f"img_{index + 1}"})


TERMINATE = '{{"thought": "", "actions": [{{"name": "Terminate", "arguments": {{"ans": "{}"}}}}]}}'

SPEAKERS: Mapping[str, Speaker] = {
    "adaptvision": Speaker(exact(AdaptVisionDialect()), _scaled(None)),
    "chainoffocus": Speaker(exact(ChainOfFocusDialect()), _scaled(None)),
    "openthinkimg": Speaker(exact(OpenThinkImgDialect()), _named, TERMINATE),
    "pyvision": Speaker(exact(PyVisionDialect()), None),
    "sensenova": Speaker(exact(SenseNovaDialect()), _scaled(1000)),
    "visionthink": Speaker(exact(VisionThinkDialect()), _scaled(None)),
    "vthinker": Speaker(exact(VThinkerDialect()), None),
    "deepeyes": Speaker(exact(DeepEyesDialect()), _scaled(None)),
    "deepeyesv2": Speaker(exact(DeepEyesV2Dialect()), _scaled(None)),
    "gemma": Speaker(exact(GemmaDialect()), _scaled(1000)),
    "glm": Speaker(exact(GlmDialect()), _scaled(1000)),
    "hermes": Speaker(HermesDialect(), _scaled(1000)),
    "hermes, 0 to 1": Speaker(exact(HermesDialect(), scale=1), _scaled(1)),
    "hermes, pixels": Speaker(exact(HermesDialect(), scale=None), _scaled(None)),
    "kimi": Speaker(exact(KimiDialect()), _scaled(1000)),
    "minio3": Speaker(exact(MiniO3Dialect()), _sourced),
    "pixelreasoner": Speaker(exact(PixelReasonerDialect()), _targeted, "so \\boxed{{{}}}."),
    "qwen3vl": Speaker(exact(Qwen3VLDialect()), _scaled(1000)),
    "speceyes": Speaker(SpecEyesDialect(), _scaled(None)),
    "thyme": Speaker(exact(ThymeDialect()), None),
    "vilasr": Speaker(exact(ViLaSRDialect()), _drawn, "Action: Answer\n<answer>{}</answer>"),
    "xml": Speaker(exact(XmlDialect()), _scaled(1000)),
}


@dataclass(frozen=True)
class Calls:
    calls: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Answer:
    answer: str
    plain: bool = False


@dataclass(frozen=True)
class Refused:
    told: str


Row: TypeAlias = "tuple[str, str, Calls | Answer | Refused]"


def calls(*listed: tuple[str, Any]) -> Calls:
    return Calls(listed)


def tagged(inside: str) -> str:
    return f"<tool_call>{inside}</tool_call>"


BOX = {"bbox_2d": [1, 2, 3, 4]}
CALL = '{"name": "zoom", "arguments": {"bbox_2d": [1, 2, 3, 4]}}'
NAMED = '{"name": "Bob", "age": 3}'
KIMI = (
    "<|tool_calls_section_begin|><|tool_call_begin|>functions.zoom:0"
    '<|tool_call_argument_begin|>{"bbox_2d": [1, 2, 3, 4]}'
    "<|tool_call_end|><|tool_calls_section_end|>"
)
GARBAGE = "x{['\"" * 20_000

NATIVE: list[Row] = [
    ("a call in answer tags", f"<answer>{tagged(CALL)}</answer>", Refused("holds a call")),
    ("a tag as the answer", "<answer><code></answer>", Answer("<code>")),
    ("a line break within a text", tagged('{"name": "say", "arguments": {"text": "a\nb"}}'),
     calls(("say", {"text": "a\nb"}))),
    ("the end of its turn left in the text", "It is red.<|im_end|>\n",
     Answer("It is red.", plain=True)),
    ("the same within tags", "<answer>red<|im_end|>", Answer("red")),
    ("a call of Gemma 3", "```tool_code\nzoom(bbox_2d=[1, 2, 3, 4])\n```",
     Refused("written as ```tool_code")),
    ("the second half of an XML call", "<parameter=bbox_2d>[1, 2]</parameter>",
     Refused("written as <parameter=")),
    ("plain", tagged(CALL), calls(("zoom", BOX))),
    ("as the template writes it", f"<tool_call>\n{CALL}\n</tool_call>", calls(("zoom", BOX))),
    ("two calls", tagged(CALL) + "\n" + tagged('{"name": "b"}'), calls(("zoom", BOX), ("b", {}))),
    ("two in one, listed", tagged(f"[{CALL}, {CALL}]"), calls(("zoom", BOX), ("zoom", BOX))),
    ("text around", f"I look closer. {tagged(CALL)} Then I see.", calls(("zoom", BOX))),
    ("unclosed", f"<tool_call>{CALL}", calls(("zoom", BOX))),
    ("after its reasoning", f"so I zoom</think>\n\n{tagged(CALL)}", calls(("zoom", BOX))),
    (
        "a call tried out in the reasoning is none",
        f"<think>perhaps {tagged('{')}? no</think>{tagged(CALL)}",
        calls(("zoom", BOX)),
    ),
    ("only in the reasoning", f"<think>{tagged(CALL)}</think>", calls(("zoom", BOX))),
    ("code fence inside", tagged(f"```json\n{CALL}\n```"), calls(("zoom", BOX))),
    ("single quotes", tagged(CALL.replace('"', "'")), calls(("zoom", BOX))),
    ("arguments as text", tagged(json.dumps({"name": "zoom", "arguments": json.dumps(BOX)})),
     calls(("zoom", BOX))),
    ("OpenAI's form", tagged(f'{{"type": "function", "function": {CALL}}}'), calls(("zoom", BOX))),
    ("Llama's form", tagged(CALL.replace("arguments", "parameters")), calls(("zoom", BOX))),
    ("bare", CALL, calls(("zoom", BOX))),
    ("bare in a list", f"[{CALL}]", calls(("zoom", BOX))),
    ("bare in a fence", f"```json\n{CALL}\n```", calls(("zoom", BOX))),
    ("opening tag lost", f"{CALL}\n</tool_call>", calls(("zoom", BOX))),
    ("answer in tags", "<think>so</think><answer> red </answer>", Answer("red")),
    ("answer unclosed", "<answer>red", Answer("red")),
    ("call and answer, which wins", tagged(CALL) + "<answer>red</answer>", Answer("red")),
    ("broken call and answer", tagged("{") + "<answer>red</answer>", Answer("red")),
    ("plain answer", "The collar is red.", Answer("The collar is red.", plain=True)),
    ("plain after reasoning", "hm</think>\n\nred\n", Answer("red", plain=True)),
    ("JSON that is no call", '{"colour": "red"}', Answer('{"colour": "red"}', plain=True)),
    ("JSON with a name", NAMED, Answer(NAMED, plain=True)),
    ("JSON with a name, fenced", f"```json\n{NAMED}\n```",
     Answer(f"```json\n{NAMED}\n```", plain=True)),
    ("names, listed", f"[{NAMED}]", Answer(f"[{NAMED}]", plain=True)),
    ("bare, Llama's form", CALL.replace("arguments", "parameters"), calls(("zoom", BOX))),
    ("arguments null", tagged('{"name": "look", "arguments": null}'), calls(("look", {}))),
    ("arguments empty", tagged('{"name": "look", "arguments": ""}'), calls(("look", {}))),
    ("no arguments", tagged('{"name": "look"}'), calls(("look", {}))),
    *((f"arguments {none}", tagged(f'{{"name": "look", "arguments": {none}}}'),
       calls(("look", {}))) for none in ("[]", '"None"', '"null"', '"{}"', '" "')),
    ("arguments as a Python dict in text",
     tagged(json.dumps({"name": "zoom", "arguments": str(BOX)})), calls(("zoom", BOX))),
    ("arguments encoded twice",
     tagged(json.dumps({"name": "zoom", "arguments": json.dumps(json.dumps(BOX))})),
     calls(("zoom", BOX))),
    ("arguments beside the name", tagged('{"name": "zoom", "bbox_2d": [1, 2, 3, 4]}'),
     calls(("zoom", BOX))),
    ("arguments by another name", tagged('{"name": "zoom", "args": {"bbox_2d": [1, 2, 3, 4]}}'),
     calls(("zoom", BOX))),
    ("the name under function", CALL.replace("name", "function"), calls(("zoom", BOX))),
    ("bare behind words", f"I look closer.\n{CALL}", calls(("zoom", BOX))),
    ("fenced behind words", f"Closer:\n```json\n{CALL}\n```", calls(("zoom", BOX))),
    ("bare, with quotes of a book", CALL.replace('"', "\u201d"), Refused("not valid JSON")),
    ("bare, with wide colons", CALL.replace(":", "\uff1a"), Refused("not valid JSON")),
    *((f"an answer: {said}", said, Answer(said, plain=True)) for said in (
        '{"name": ["Bob", "Al"]}', '{"name": {"first": "Bob"}}', '{"name": 7}',
        '{"name": "None"}', '{"function": "brake"}', '{"arguments": ["pro", "con"]}',
        '{"arguments": "for and against"}', '{"function": {"name": "brake", "use": "stop"}}',
        '{"parameters": 7}', '[{"name": ["Bob"]}, {}]', '{"type": "function", "id": 3}',
        '{"bbox_2d": [1, 2, 3, 4], "label": "cup"}', 'They are:\n{"name": "Bob", "age": 3}',
        'In short: {"function": "brake", "name": "pedal"}',
        '{"name": "Bob", "parameters": "none"}', '{"name": "Bob", "arguments": "he argues a lot"}',
        '{"name": "engine", "parameters": ["bore", "stroke"]}', '{"name": "X", "parameters": 7}',
        '{"name": "Bob", "arguments": true}', '{"name": "Bob", "parameters": "none", "age": 3}',
        '[{"name": "Bob", "parameters": "none"}, {"name": "Al", "parameters": "few"}]',
        '```json\n{"name": "Bob", "parameters": "none"}\n```',
        '{"person": {"name": "Bob", "arguments": "sound"}}',
        'The person: {"person": {"name": "Bob", "arguments": "sound"}}',
        'Here:\n{"name": "Bob", "parameters": "none"}\nThat is all.',
    )),
    ("arguments null, of a tool unknown", '{"name": "look", "arguments": null}',
     calls(("look", {}))),
    ("a call that lost its name", '{"arguments": {"bbox_2d": [1, 2, 3, 4]}}', Refused("empty")),
    ("the same as text", '{"name": null, "arguments": "{\\"a\\": 1}"}', Refused("empty")),
    ("XML in the tags", tagged("<function=zoom>"), Refused("not valid JSON")),
    ("XML without the tags", "<function=zoom></function>", Refused("written as <function=")),
    ("Kimi's call", KIMI, Refused("written as <|tool_call")),
    ("Mini-o3's call", '<grounding>{"bbox_2d": [0, 0, 1, 1]}</grounding>',
     Refused("written as <grounding>")),
    ("a program", "<code>print(1)</code>", Refused("written as <code>")),
    ("100 kB of answer", "red " * 25_000, Answer(("red " * 25_000).strip(), plain=True)),
    ("empty", "", Refused("neither")),
    ("blank", " \n\t", Refused("neither")),
    ("only reasoning", "<think>hmm</think>", Refused("neither")),
    ("unfinished reasoning", "<think>hmm", Refused("neither")),
    ("empty answer", "<answer> </answer>", Refused("<answer> is empty")),
    ("closing tag alone", "zoom</tool_call>", Refused("without its <tool_call>")),
    ("empty call", tagged(""), Refused("not valid JSON")),
    ("empty list", tagged("[]"), Refused("list of calls is empty")),
    ("trailing text inside", tagged(CALL + " and so on"), Refused("not valid JSON")),
    ("nested", tagged(tagged(CALL)), Refused("not valid JSON")),
    ("no name", tagged('{"arguments": {}}'), Refused('no "name"')),
    ("a number", tagged("7"), Refused("is a int; a JSON object")),
    ("NaN", tagged(CALL.replace("1,", "NaN,")), Refused("NaN is not a JSON number")),
    ("1e999", tagged(CALL.replace("1,", "1e999,")), Refused("inf is not a finite")),
    ("huge number", tagged(CALL.replace("1,", "9" * 30 + ",")), Refused("too many digits")),
    ("cut within the JSON", f"<tool_call>{CALL[:-9]}", Refused("not valid JSON")),
    ("bare, cut", CALL[:-9], Refused("not valid JSON")),
    ("100 kB of garbage in a call", f"<tool_call>{GARBAGE}", Refused("at most")),
    ("deep", tagged("[" * 9000), Refused("not valid JSON")),
]  # fmt: skip

RUN = ("python", {"code": "print(1)"})
CODE = "<code>\n```python\nprint(1)\n```\n</code>"

PROGRAMS: list[Row] = [
    ("plain", CODE, calls(RUN)),
    ("two programs", CODE + CODE, calls(RUN, RUN)),
    ("within the reasoning", f"<think>I crop. {CODE} Then", calls(RUN)),
    ("no fence", "<code>print(1)</code>", calls(RUN)),
    ("no fence, the language named", "<code>\npython\nprint(1)\n</code>", calls(RUN)),
    ("fence without a language", "<code>```\nprint(1)\n```</code>", calls(RUN)),
    ("fence with another name", "<code>```py\nprint(1)```</code>", calls(RUN)),
    ("fence on one line", "<code>```python print(1)```</code>", calls(RUN)),
    ("opening fence lost", "<code>print(1)\n```</code>", calls(RUN)),
    ("closing fence lost", "<code>```python\nprint(1)\n</code>", calls(
        ("python", {"code": "print(1)"})
    )),
    ("closing tag lost", "<code>```python\nprint(1)\n```", calls(RUN)),
    ("text about the fence", "<code>Here: ```python\nprint(1)\n``` That's it.</code>", calls(RUN)),
    ("a fence within the code", '<code>```python\nprint("```")\n```</code>', calls(
        ("python", {"code": 'print("```")'})
    )),
    ("indentation kept", "<code>```python\nif a:\n    b()\n\n\n```</code>", calls(
        ("python", {"code": "if a:\n    b()\n\n"})
    )),
    ("quotes and tags", "<code>```python\nprint('<b>', \"it's\")\n```</code>", calls(
        ("python", {"code": "print('<b>', \"it's\")"})
    )),
    ("not Python at all", "<code>zoom in!</code>", calls(("python", {"code": "zoom in!"}))),
    ("NaN and huge numbers", f"<code>x = float('nan'), {'9' * 50}</code>", calls(
        ("python", {"code": f"x = float('nan'), {'9' * 50}"})
    )),
    ("answer", "so</think>\n<answer> red </answer>", Answer("red")),
    ("answer unclosed", "<answer>red", Answer("red")),
    ("code and answer, which wins", f"{CODE}<answer>red</answer>", Answer("red")),
    ("answers in a row", "<answer>red</answer><answer>blue</answer>", Answer("blue")),
    ("empty", "", Refused("neither")),
    ("plain text", "The collar is red.", Refused("neither")),
    ("fence without tags", "```python\nprint(1)\n```", Refused("neither")),
    ("tag in capitals", CODE.upper(), Refused("neither")),
    ("empty answer", "<answer></answer>", Refused("<answer> is empty")),
    ("empty program", "<code>\n</code>", Refused("<code> is empty")),
    ("empty fence", "<code>```python\n```</code>", Refused("<code> is empty")),
    ("fences only", "<code>``````</code>", Refused("<code> is empty")),
    ("nested", f"<code>{CODE}</code>", calls(RUN)),
    ("100 kB of garbage", f"<code>{GARBAGE}</code>", Refused("at most 50000 are run")),
]  # fmt: skip

THYME: list[Row] = [
    *PROGRAMS,
    ("boxed answer", "<answer>\\boxed{red}</answer>", Answer("red")),
    ("boxed with braces", "<answer>\\boxed{\\frac{1}{2}}</answer>", Answer("\\frac{1}{2}")),
    ("empty box", "<answer>\\boxed{}</answer>", Answer("\\boxed{}")),
    ("a call of another dialect", tagged(CALL), Refused("written as <tool_call>... can't be")),
]

DEEPEYESV2: list[Row] = [
    *PROGRAMS,
    ("a tool", tagged(CALL), calls(("zoom", BOX))),
    ("a tool without arguments", tagged('{"name": "image_search"}'), calls(("image_search", {}))),
    ("code beside a tool, which wins", tagged(CALL) + CODE, calls(RUN)),
    ("a broken tool beside code", tagged("{") + CODE, calls(RUN)),
    ("a broken tool", tagged("{"), Refused("not valid JSON")),
    ("a boxed answer stays", "<answer>\\boxed{red}</answer>", Answer("\\boxed{red}")),
]

GROUND = {"bbox_2d": [0.1, 0.2, 0.3, 0.4], "source": "observation_2"}


def grounded(inside: str) -> str:
    return f"<grounding>{inside}</grounding>"


MINIO3: list[Row] = [
    ("tags lost", f"<think>a</think>\n{json.dumps(GROUND)}", calls((ZOOM, GROUND))),
    ("a call in answer tags", f"<answer>{grounded(json.dumps(GROUND))}</answer>",
     Refused("holds a call")),
    ("plain", grounded(json.dumps(GROUND)), calls((ZOOM, GROUND))),
    ("two", grounded(json.dumps(GROUND)) * 2, calls((ZOOM, GROUND), (ZOOM, GROUND))),
    ("without a source", grounded('{"bbox_2d": [0, 0, 1, 1]}'),
     calls((ZOOM, {"bbox_2d": [0, 0, 1, 1]}))),
    ("text around", f"<think>a</think>Zoom: {grounded(json.dumps(GROUND))} so",
     calls((ZOOM, GROUND))),
    ("unclosed", "<grounding>" + json.dumps(GROUND), calls((ZOOM, GROUND))),
    ("line breaks", grounded("\n" + json.dumps(GROUND, indent=1) + "\n"), calls((ZOOM, GROUND))),
    ("single quotes", grounded(str(GROUND)), calls((ZOOM, GROUND))),
    ("quotes mixed", grounded(str(GROUND).replace("'source'", '"source"')),
     calls((ZOOM, GROUND))),
    ("code fence", grounded(f"```json\n{json.dumps(GROUND)}\n```"), calls((ZOOM, GROUND))),
    ("tuple for a list", grounded('{"bbox_2d": (0, 0, 1, 1)}'),
     calls((ZOOM, {"bbox_2d": [0, 0, 1, 1]}))),
    ("tried out in the reasoning", f"<think>{grounded('{')}</think>{grounded(json.dumps(GROUND))}",
     calls((ZOOM, GROUND))),
    ("only in the reasoning", f"<think>{grounded(json.dumps(GROUND))}", calls((ZOOM, GROUND))),
    ("not four, which locate refuses", grounded('{"bbox_2d": [1]}'),
     calls((ZOOM, {"bbox_2d": [1]}))),
    ("answer", "<think>a</think><answer>red</answer>", Answer("red")),
    ("call and answer, which wins", grounded(json.dumps(GROUND)) + "<answer>red</answer>",
     Answer("red")),
    ("empty", "", Refused("neither")),
    ("plain text", "red", Refused("neither a <grounding>")),
    ("another dialect's call", tagged(CALL), Refused("written as <tool_call>... can't be")),
    ("empty grounding", grounded(""), Refused("the <grounding> is not valid JSON")),
    ("only a box", grounded("[0, 0, 1, 1]"), Refused('JSON object with "bbox_2d"')),
    ("no box", grounded('{"source": "original_image"}'), Refused('JSON object with "bbox_2d"')),
    ("trailing text", grounded(json.dumps(GROUND) + "."), Refused("not valid JSON")),
    ("nested", grounded(grounded(json.dumps(GROUND))), Refused("not valid JSON")),
    ("NaN", grounded('{"bbox_2d": [NaN, 0, 1, 1]}'), Refused("NaN is not")),
    ("1e999", grounded("{'bbox_2d': [1e999, 0, 1, 1]}"), Refused("inf is not")),
    ("huge number", grounded(f'{{"bbox_2d": [{"9" * 40}]}}'), Refused("digits")),
    ("empty answer", "<answer></answer>", Refused("is empty")),
    ("100 kB of garbage", f"<grounding>{GARBAGE}", Refused("a <grounding> of 100000 characters")),
    ("100 kB without a tag", GARBAGE, Refused("neither")),
]  # fmt: skip

CROP = ("crop_image_normalized", {"bbox_2d": [0.1, 0.2, 0.3, 0.4], "target_image": 1})
CROPPING = json.dumps({"name": CROP[0], "arguments": CROP[1]})

PIXELREASONER: list[Row] = [
    ("plain", tagged(CROPPING), calls(CROP)),
    ("two", tagged(CROPPING) * 2, calls(CROP, CROP)),
    ("text around", f"Let me look. {tagged(CROPPING)} so", calls(CROP)),
    ("unclosed", f"<tool_call>{CROPPING}", calls(CROP)),
    ("single quotes", tagged(CROPPING.replace('"', "'")), calls(CROP)),
    ("code fence", tagged(f"```json\n{CROPPING}\n```"), calls(CROP)),
    ("frames", tagged('{"name": "select_frames", "arguments": {"target_frames": [1, 3]}}'),
     calls(("select_frames", {"target_frames": [1, 3]}))),
    ("call and answer: the call wins", f"\\boxed{{red}} {tagged(CROPPING)}", calls(CROP)),
    ("boxed", "So it is \\boxed{red}.", Answer("red")),
    ("the last box counts", "\\boxed{red}? No: \\boxed{blue}", Answer("blue")),
    ("braces inside", "\\boxed{\\text{dark {red}}}", Answer("\\text{dark {red}}")),
    ("box unclosed", "\\boxed{red", Answer("red", plain=True)),
    ("tags", "<answer>red</answer>", Answer("red")),
    ("box in tags", "<answer>\\boxed{red}</answer>", Answer("red")),
    ("empty box in tags", "<answer>\\boxed{}</answer>", Answer("\\boxed{}")),
    ("100 kB in a box", f"\\boxed{{{'a{}' * 33_000}}}", Answer("a{}" * 33_000)),
    ("empty", "", Refused("neither")),
    ("plain text", "red", Refused("neither a <tool_call> nor a")),
    ("empty box", "\\boxed{ }", Refused("is empty")),
    ("boxed without a brace", "\\boxed red", Refused("neither")),
    ("trailing text", tagged(CROPPING + "."), Refused("not valid JSON")),
    ("nested", tagged(tagged(CROPPING)), Refused("not valid JSON")),
    ("NaN", tagged(CROPPING.replace("0.1", "NaN")), Refused("NaN is not")),
    ("huge number", tagged(CROPPING.replace("0.1", "9" * 40)), Refused("digits")),
    ("broken call beside an answer", tagged("{") + "\\boxed{red}", Refused("not valid JSON")),
    ("100 kB of garbage", f"<tool_call>{GARBAGE}", Refused("at most")),
]  # fmt: skip

CUP = {"bbox_2d": [1, 2, 3, 4], "label": "cup"}
WAY = {"start_point_2d": [1, 2], "end_point_2d": [3, 4], "label": "way"}
MAPPED = ("object_mapper", {"index": 1, "objects": [CUP]})
TRACED = ("path_tracer", {"index": 2, "paths": [WAY]})
CUPS = json.dumps([{"index": 1, **CUP}])
WAYS = json.dumps([{"index": 2, **WAY}])


def drawn(listed: str, action: str = "Object Mapper") -> str:
    return f"<think>I draw.</think> Action: {action}\n```json\n{listed}\n```"


VILASR: list[Row] = [
    ("an answer in a fence", "Action: Answer\n```\nred\n```", Answer("red", plain=True)),
    ("an action in bold", "**Action:** Answer\nred", Answer("red", plain=True)),
    ("a wide colon", drawn(CUPS).replace("Action:", "Action\uff1a"), calls(MAPPED)),
    ("boxes", drawn(CUPS), calls(MAPPED)),
    ("paths", drawn(WAYS, "Path Tracer"), calls(TRACED)),
    ("two blocks", drawn(CUPS) + drawn(WAYS, "Path Tracer").replace("<think>I draw.</think>", ""),
     calls(MAPPED, TRACED)),
    ("both in one list", drawn(CUPS[:-1] + ", " + WAYS[1:]), calls(MAPPED, TRACED)),
    ("two on one image", drawn(json.dumps([{"index": 1, **CUP}, {"index": 1, **CUP}])),
     calls(("object_mapper", {"index": 1, "objects": [CUP, CUP]}))),
    ("on two images", drawn(json.dumps([{"index": 3, **CUP}, {"index": 1, **CUP}])),
     calls(("object_mapper", {"index": 3, "objects": [CUP]}), MAPPED)),
    ("the other tool named", drawn(CUPS, "Path Tracer"), calls(MAPPED)),
    ("no action named", f"```json\n{CUPS}\n```", calls(MAPPED)),
    ("an object for a list", drawn(CUPS[1:-1]), calls(MAPPED)),
    ("no index", drawn(json.dumps([CUP])), calls(MAPPED)),
    ("index as a float", drawn(json.dumps([{"index": 1.0, **CUP}])), calls(MAPPED)),
    ("fence without a language", f"Action: Object Mapper\n```\n{CUPS}\n```", calls(MAPPED)),
    ("fence unclosed", f"Action: Object Mapper\n```json\n{CUPS}", calls(MAPPED)),
    ("no fences", f"Action: Object Mapper\n{CUPS}", calls(MAPPED)),
    ("no fences, text after", f"Action: Object Mapper\n{CUPS}\nI wait.", calls(MAPPED)),
    ("single quotes", drawn(CUPS.replace('"', "'")), calls(MAPPED)),
    ("text after", drawn(CUPS) + "\nI wait for the drawing.", calls(MAPPED)),
    ("a list in the reasoning", f"<think>```json\n[{{]\n```</think>{drawn(CUPS)[24:]}",
     calls(MAPPED)),
    ("answer", "<think>a</think> Action: Answer\n<answer> red </answer>", Answer("red")),
    ("answer without tags", "<think>a</think> Action: Answer\nred", Answer("red", plain=True)),
    ("drawing and answer, which wins", drawn(CUPS) + "<answer>red</answer>", Answer("red")),
    ("empty", "", Refused("neither a drawing")),
    ("plain text", "red", Refused("neither a drawing")),
    ("an action and nothing", "Action: Object Mapper", Refused("neither a drawing")),
    ("an answer and nothing", "Action: Answer", Refused("neither a drawing")),
    ("empty list", drawn("[]"), Refused("list is empty")),
    ("a list of numbers", drawn("[1, 2, 3, 4]"), Refused("holds a int")),
    ("neither box nor points", drawn('[{"index": 1, "label": "a"}]'), Refused("an item has nei")),
    ("half a path", drawn('[{"index": 1, "start_point_2d": [1, 2]}]'), Refused("an item has nei")),
    ("an index that is none", drawn(CUPS.replace("1,", '"one",', 1)), Refused("index='one'")),
    ("index null", drawn(CUPS.replace("1,", "null,", 1)), calls(MAPPED)),
    ("index as a text", drawn(CUPS.replace("1,", '"1.0",', 1)), calls(MAPPED)),
    ("code", "```python\nprint(1)\n```", Refused("the list is not valid JSON")),
    ("cut", drawn(CUPS)[:-20], Refused("not valid JSON")),
    ("NaN", drawn(CUPS.replace("2,", "NaN,", 1)), Refused("NaN is not")),
    ("huge number", drawn(CUPS.replace("2,", "9" * 40 + ",", 1)), Refused("digits")),
    ("nested lists", drawn(f"[{CUPS}]"), Refused("holds a list")),
    ("empty answer", "Action: Answer\n<answer></answer>", Refused("is empty")),
    ("100 kB of garbage", f"Action: Path Tracer ```json\n{GARBAGE}", Refused("at most")),
    ("100 kB unfenced", f"Action: Path Tracer {GARBAGE}]", Refused("at most")),
]  # fmt: skip

FUNCTION = "<function=zoom>\n<parameter=bbox_2d>\n[1, 2, 3, 4]\n</parameter>\n</function>"
CUT = FUNCTION.partition("\n</parameter>")[0]

XML: list[Row] = [
    ("an empty element", tagged("<function=look/>"), calls(("look", {}))),
    ("names in quotes", tagged('<function="zoom"><parameter="bbox_2d">[1, 2, 3, 4]</parameter>'),
     calls(("zoom", BOX))),
    ("JSON within the function", tagged(f"<function=zoom>{json.dumps(BOX)}</function>"),
     calls(("zoom", BOX))),
    ("names as attributes", '<function name="zoom"></function>', Refused("written as <function n")),
    ("plain", tagged(f"\n{FUNCTION}\n"), calls(("zoom", BOX))),
    ("two", tagged(FUNCTION) * 2, calls(("zoom", BOX), ("zoom", BOX))),
    ("two in one", tagged(FUNCTION * 2), calls(("zoom", BOX), ("zoom", BOX))),
    ("tags around it lost", f"Closer.\n{FUNCTION}", calls(("zoom", BOX))),
    ("after its reasoning", f"so</think>\n{tagged(FUNCTION)}", calls(("zoom", BOX))),
    ("tried out in the reasoning", f"<think><function=a></think>{tagged(FUNCTION)}",
     calls(("zoom", BOX))),
    ("no arguments", tagged("<function=look>\n</function>"), calls(("look", {}))),
    ("a text over lines", tagged(
        "<function=say>\n<parameter=text>\na <b>\n\nc\n</parameter>\n</function>"
    ), calls(("say", {"text": "a <b>\n\nc"}))),
    ("several parameters", tagged(FUNCTION.replace("</function>",
        "<parameter=label>\nred cup\n</parameter>\n<parameter=img_idx>\n0\n</parameter>\n"
        "</function>")), calls(("zoom", {**BOX, "label": "red cup", "img_idx": 0}))),
    ("Python's words", tagged("<function=a><parameter=b>True</parameter></function>"),
     calls(("a", {"b": True}))),
    ("cut behind a value", f"<tool_call>\n{CUT}", calls(("zoom", BOX))),
    ("a closing parameter lost", tagged(f"{CUT}\n</function>"), calls(("zoom", BOX))),
    ("JSON in the tags", tagged(CALL), calls(("zoom", BOX))),
    ("answer", "<answer>red</answer>", Answer("red")),
    ("plain answer", "</think>\n\nIt is red.", Answer("It is red.", plain=True)),
    ("JSON that is no call", NAMED, Answer(NAMED, plain=True)),
    ("no function", tagged("zoom"), Refused("no <function=name>")),
    ("NaN", tagged(FUNCTION.replace("1,", "NaN,")), Refused("is not a finite")),
    ("huge number", tagged(FUNCTION.replace("1,", "9" * 30 + ",")), Refused("too many digits")),
    ("Kimi's call", KIMI, Refused("written as <|tool_call")),
    ("100 kB of garbage in a call", f"<tool_call>{GARBAGE}", Refused("at most")),
    ("empty", "", Refused("neither")),
]  # fmt: skip

PAIRS = "zoom\n<arg_key>bbox_2d</arg_key>\n<arg_value>[1, 2, 3, 4]</arg_value>\n"

GLM: list[Row] = [
    *((f"no arguments: {bare!r}", tagged(f"look{bare}"), calls(("look", {})))
      for bare in ("{}", "()", "\nnull", "\nNone", "\n{}")),
    ("arguments as JSON", tagged(f"zoom\n{json.dumps(BOX)}"), calls(("zoom", BOX))),
    ("tags around it lost", PAIRS, Refused("written as <arg_key>")),
    ("the end of its turn left", "It is red.<|user|>", Answer("It is red.", plain=True)),
    ("plain", tagged(PAIRS), calls(("zoom", BOX))),
    ("on one line", tagged(PAIRS.replace("\n", "")), calls(("zoom", BOX))),
    ("after its reasoning", f"<think>so</think>\n{tagged(PAIRS)}", calls(("zoom", BOX))),
    ("two", tagged(PAIRS) * 2, calls(("zoom", BOX), ("zoom", BOX))),
    ("no arguments", tagged("look\n"), calls(("look", {}))),
    ("a text", tagged(PAIRS + "<arg_key>label</arg_key>\n<arg_value>a cup</arg_value>\n"),
     calls(("zoom", {**BOX, "label": "a cup"}))),
    ("cut behind a value", f"<tool_call>{PAIRS[:-13]}", calls(("zoom", BOX))),
    ("JSON in the tags", tagged(CALL), calls(("zoom", BOX))),
    ("an answer in its box", "It is <|begin_of_box|>red<|end_of_box|>.", Answer("red")),
    ("a box in tags", "<answer><|begin_of_box|>red<|end_of_box|></answer>", Answer("red")),
    ("a box unclosed", "<|begin_of_box|>red", Answer("red", plain=True)),
    ("plain answer", "<think></think>\nred", Answer("red", plain=True)),
    ("an empty box", "<|begin_of_box|><|end_of_box|>", Refused("box is empty")),
    ("a key without a value", tagged("zoom<arg_key>a</arg_key>"), Refused("no <arg_value>")),
    ("no name", tagged("<arg_key>a</arg_key><arg_value>1</arg_value>"), Refused("no tool's name")),
    ("NaN", tagged(PAIRS.replace("1,", "NaN,")), Refused("is not a finite")),
    ("another family's call", "<function=zoom></function>", Refused("written as <function=")),
    ("100 kB of garbage in a call", f"<tool_call>{GARBAGE}", Refused("at most")),
    ("empty", "", Refused("neither")),
]  # fmt: skip

KIMIS: list[Row] = [
    ("Kimi-VL's reasoning tags", "\u25c1think\u25b7hm\u25c1/think\u25b7It is red.",
     Answer("It is red.", plain=True)),
    ("the begin of a call lost", 'zoom<|tool_call_argument_begin|>{"a": 1}<|tool_call_end|>',
     Refused("written as <|tool_call_argument")),
    ("JSON without tags", CALL, calls(("zoom", BOX))),
    ("JSON behind words", f"Closer: {CALL}", calls(("zoom", BOX))),
    ("arguments null", "<|tool_call_begin|>functions.look:3<|tool_call_argument_begin|>null",
     calls(("look", {}))),
    ("JSON that is no call", '{"name": {"first": "Bob"}}',
     Answer('{"name": {"first": "Bob"}}', plain=True)),
    ("plain", KIMI, calls(("zoom", BOX))),
    ("after its reasoning", f"so</think>Closer. {KIMI}", calls(("zoom", BOX))),
    ("cut before its end", KIMI.partition("<|tool_call_end|>")[0], calls(("zoom", BOX))),
    ("two", KIMI.replace("<|tool_calls_section_end|>", KIMI.partition("begin|>")[2]),
     calls(("zoom", BOX), ("zoom", BOX))),
    ("tokens dropped in decoding", 'Closer. functions.zoom:0{"bbox_2d": [1, 2, 3, 4]}',
     calls(("zoom", BOX))),
    ("two, tokens dropped", 'functions.look:0{}functions.zoom:1{"bbox_2d": [1, 2, 3, 4]}',
     calls(("look", {}), ("zoom", BOX))),
    ("no arguments", "<|tool_call_begin|>functions.look:3<|tool_call_argument_begin|>",
     calls(("look", {}))),
    ("an id of another form", '<|tool_call_begin|>zoom<|tool_call_argument_begin|>{"a": 1}',
     calls(("zoom", {"a": 1}))),
    ("answer", "<answer>red</answer>", Answer("red")),
    ("plain answer", "so</think>It is red.", Answer("It is red.", plain=True)),
    ("an id that is none", "<|tool_call_begin|>?!<|tool_call_argument_begin|>{}",
     Refused("is not the id of a call")),
    ("broken JSON", KIMI.replace("]}", "]"), Refused("not valid JSON")),
    ("a section and nothing", "<|tool_calls_section_begin|>", Refused("has no <|tool_call")),
    ("a call that an engine took apart", tagged(CALL), calls(("zoom", BOX))),
    ("XML", "<function=zoom></function>", Refused("written as <function=")),
    ("100 kB of garbage in a call", f"<|tool_call_begin|>a:0<|tool_call_argument_begin|>{GARBAGE}",
     Refused("at most")),
    ("empty", "", Refused("neither")),
]  # fmt: skip

GEMMA_CALL = "call:zoom{bbox_2d:" + str(BOX["bbox_2d"]) + "}"
GEMMA = f"<|tool_call>{GEMMA_CALL}<tool_call|>"
CUP = '<|"|>a {red}, "big" cup: 2<|"|>'

GEMMAS: list[Row] = [
    *((f"no arguments: {bare}", f"<|tool_call>call:look{bare}<tool_call|>", calls(("look", {})))
      for bare in ("", "()", "{null}", " { None } ")),
    ("plain", GEMMA, calls(("zoom", BOX))),
    ("after reasoning", f"<|channel>thought\nfar<channel|>{GEMMA}", calls(("zoom", BOX))),
    ("two", GEMMA * 2, calls(("zoom", BOX), ("zoom", BOX))),
    ("two in one", f"<|tool_call>{GEMMA_CALL}{GEMMA_CALL}<tool_call|>",
     calls(("zoom", BOX), ("zoom", BOX))),
    ("unclosed", GEMMA.removesuffix("<tool_call|>"), calls(("zoom", BOX))),
    ("its tokens dropped", GEMMA_CALL, calls(("zoom", BOX))),
    ("tokens dropped, words before", f"Closer.\n{GEMMA_CALL}", calls(("zoom", BOX))),
    ("a bare text", "call:zoom{label:a cup, red,n:2}",
     calls(("zoom", {"label": "a cup, red", "n": 2}))),
    ("a quoted text", f"<|tool_call>call:zoom{{label:{CUP},n:1.5}}<tool_call|>",
     calls(("zoom", {"label": 'a {red}, "big" cup: 2', "n": 1.5}))),
    ("JSON's quotes", '<|tool_call>call:zoom{"label":"a cup"}<tool_call|>',
     calls(("zoom", {"label": "a cup"}))),
    ("an object", "<|tool_call>call:zoom{a:{b:[true,null,None]}}<tool_call|>",
     calls(("zoom", {"a": {"b": [True, None, None]}}))),
    ("no arguments", "<|tool_call>call:look{}<tool_call|>", calls(("look", {}))),
    ("a call that an engine took apart", tagged(CALL), calls(("zoom", BOX))),
    ("answer", "<answer>red</answer>", Answer("red")),
    ("plain answer", "<|channel>thought\nso<channel|>It is red.", Answer("It is red.", plain=True)),
    ("an answer about a call", "I would write call:zoom{a:1}.",
     Answer("I would write call:zoom{a:1}.", plain=True)),
    ("no name", "<|tool_call>{a:1}<tool_call|>", Refused("not valid JSON")),
    ("a text without an end", '<|tool_call>call:zoom{a:<|"|>b}<tool_call|>', Refused("no closing")),
    ("a list without an end", "<|tool_call>call:zoom{a:[1}<tool_call|>", Refused("expected at")),
    ("nested deeply", "<|tool_call>call:zoom{a:" + "[" * 3000 + "<tool_call|>",
     Refused("too deeply")),
    ("XML", "<function=zoom></function>", Refused("written as <function=")),
    ("100 kB of garbage in a call", f"<|tool_call>call:a{{{GARBAGE}", Refused("at most")),
    ("empty", "", Refused("neither")),
]  # fmt: skip

ACTION = json.dumps({"thought": "closer", "actions": [{"name": "zoom", "arguments": BOX}]})

ACTIONS: list[Row] = [
    ("an object for a list", ACTION.replace("[{", "{").replace("}]", "}"), calls(("zoom", BOX))),
    ("braces in its reasoning", f"<think>{{a}}</think>{ACTION}", calls(("zoom", BOX))),
    ("null for an answer", TERMINATE.format("7").replace('"7"', "null"), Refused('has no "ans"')),
    ("a list for an answer", TERMINATE.format("7").replace('"7"', '["a", "b"]'),
     Answer('["a", "b"]')),
    ("plain", ACTION, calls(("zoom", BOX))),
    ("fenced", f"```json\n{ACTION}\n```", calls(("zoom", BOX))),
    ("text around", f"Sure: {ACTION} Done.", calls(("zoom", BOX))),
    ("single quotes", str(json.loads(ACTION)), calls(("zoom", BOX))),
    ("no arguments", '{"thought": "", "actions": [{"name": "look"}]}', calls(("look", {}))),
    ("the end", TERMINATE.format("7"), Answer("7")),
    ("a number for an answer", TERMINATE.format("7").replace('"7"', "7"), Answer("7")),
    ("an action and the end", TERMINATE.format("7").replace("[{", '[{"name": "a"}, {'),
     Answer("7")),
    ("an end without an answer", TERMINATE.format(""), Refused('has no "ans"')),
    ("no actions", '{"thought": "hm", "actions": []}', Refused('no list of "actions"')),
    ("another object", NAMED, Refused('no list of "actions"')),
    ("plain text", "It is red.", Refused("no JSON object")),
    ("cut", ACTION[:-9] + "}", Refused("not valid JSON")),
    ("100 kB of garbage", "{" + GARBAGE + "}", Refused("at most")),
    ("empty", "", Refused("no JSON object")),
]  # fmt: skip

QUOTED = "'" * 3

VTHINKER: list[Row] = [
    (
        "single quotes within the tags",
        f"<code>\n{QUOTED}python\nprint(1)\n{QUOTED}\n</code>",
        calls(RUN),
    ),
    *THYME,
    ("between single quotes", f"I draw. {QUOTED}python\nprint(1)\n{QUOTED} so", calls(RUN)),
    ("two between single quotes", f"{QUOTED}python\nprint(1)\n{QUOTED}\n" * 2, calls(RUN, RUN)),
    ("quotes unclosed", f"{QUOTED}python\nprint(1)", Refused("neither")),
]

PYVISION: list[Row] = [
    ("plain", CODE, calls(RUN)),
    ("the last of two", CODE.replace("1", "2") + CODE, calls(RUN)),
    ("a boxed answer", "<answer>\\boxed{red}</answer>", Answer("red")),
    ("answer", "<think>so</think><answer>red</answer>", Answer("red")),
    ("a tool call", tagged(CALL), Refused("written as <tool_call>")),
    ("empty", "", Refused("neither")),
]

ONE_LOOK: list[Row] = [
    ("plain", tagged(CALL), calls(("zoom", BOX))),
    ("boxed", "<think>a</think><answer>\\boxed{B}</answer>", Answer("B")),
    ("answer", "<answer>B. red</answer>", Answer("B. red")),
    ("resize", tagged('{"name": "resize_image", "arguments": {"action": "resize"}}'),
     calls(("resize_image", {"action": "resize"}))),
    ("XML", "<function=zoom></function>", Refused("written as <function=")),
    ("broken", tagged("{"), Refused("not valid JSON")),
    ("empty", "", Refused("neither")),
]  # fmt: skip

CORPUS: Mapping[str, list[Row]] = {
    "adaptvision": ONE_LOOK,
    "openthinkimg": ACTIONS,
    "pyvision": PYVISION,
    "sensenova": NATIVE,
    "visionthink": ONE_LOOK,
    "vthinker": VTHINKER,
    "deepeyesv2": DEEPEYESV2,
    "gemma": GEMMAS,
    "glm": GLM,
    "kimi": KIMIS,
    "xml": XML,
    "hermes": NATIVE,
    "minio3": MINIO3,
    "pixelreasoner": PIXELREASONER,
    "qwen3vl": NATIVE,
    "thyme": THYME,
    "vilasr": VILASR,
}
