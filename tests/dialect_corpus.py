r"""What agents write, however oddly, by dialect, and what must become of it.

Every row is a title, a turn, and its outcome: calls, an answer, or the words of the refusal.
DeepEyes has its own, in test_dialect_deepeyes.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from speceyes.dialects.deepeyes import DeepEyesDialect
from speceyes.dialects.deepeyesv2 import DeepEyesV2Dialect
from speceyes.dialects.hermes import HermesDialect
from speceyes.dialects.minio3 import MiniO3Dialect
from speceyes.dialects.pixelreasoner import PixelReasonerDialect
from speceyes.dialects.qwen3vl import Qwen3VLDialect
from speceyes.dialects.thyme import ThymeDialect
from speceyes.dialects.vilasr import ViLaSRDialect
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


SPEAKERS: Mapping[str, Speaker] = {
    "deepeyes": Speaker(DeepEyesDialect(), _scaled(None)),
    "deepeyesv2": Speaker(DeepEyesV2Dialect(), _scaled(None)),
    "hermes": Speaker(HermesDialect(), _scaled(1000)),
    "hermes, 0 to 1": Speaker(HermesDialect(scale=1), _scaled(1)),
    "hermes, pixels": Speaker(HermesDialect(scale=None), _scaled(None)),
    "minio3": Speaker(MiniO3Dialect(), _sourced),
    "pixelreasoner": Speaker(PixelReasonerDialect(padding=0), _targeted, "so \\boxed{{{}}}."),
    "qwen3vl": Speaker(Qwen3VLDialect(), _scaled(1000)),
    "thyme": Speaker(ThymeDialect(), None),
    "vilasr": Speaker(ViLaSRDialect(), _drawn, "Action: Answer\n<answer>{}</answer>"),
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
GARBAGE = "x{['\"" * 20_000

NATIVE: list[Row] = [
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
    ("a call of another dialect", tagged(CALL), Refused("neither <code> nor an <answer>")),
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
    ("another dialect's call", tagged(CALL), Refused("neither a <grounding>")),
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
    ("index null", drawn(CUPS.replace("1,", "null,", 1)), Refused("index=None")),
    ("code", "```python\nprint(1)\n```", Refused("the list is not valid JSON")),
    ("cut", drawn(CUPS)[:-20], Refused("not valid JSON")),
    ("NaN", drawn(CUPS.replace("2,", "NaN,", 1)), Refused("NaN is not")),
    ("huge number", drawn(CUPS.replace("2,", "9" * 40 + ",", 1)), Refused("digits")),
    ("nested lists", drawn(f"[{CUPS}]"), Refused("holds a list")),
    ("empty answer", "Action: Answer\n<answer></answer>", Refused("is empty")),
    ("100 kB of garbage", f"Action: Path Tracer ```json\n{GARBAGE}", Refused("at most")),
    ("100 kB unfenced", f"Action: Path Tracer {GARBAGE}]", Refused("at most")),
]  # fmt: skip

CORPUS: Mapping[str, list[Row]] = {
    "deepeyesv2": DEEPEYESV2,
    "hermes": NATIVE,
    "minio3": MINIO3,
    "pixelreasoner": PIXELREASONER,
    "qwen3vl": NATIVE,
    "thyme": THYME,
    "vilasr": VILASR,
}
