"""Calls in XML: Qwen3.5 and 3.6, Qwen3-Coder, StepFun 3.5 and 3.7.

Facts from the families' chat templates: `<tool_call>`, `<function=name>` and a `<parameter=key>`
each, texts raw and all else as JSON; results in turns of the role "tool", which the template writes
between `<tool_response>` tags; reasoning stays only behind the last question. Qwen3.5's boxes run
from 0 to 1000 in modelscope/ms-swift (`swift/template/templates/qwen.py`, whose class for it is
Qwen3-VL's); its model cards sample at temperature 1, top_p 0.95, top_k 20, presence penalty 1.5
while thinking, and take 32,768 tokens; Qwen-Agent takes 20 turns. Crop sizes are Qwen3-VL's and not
verified.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from speceyes.dialects._json_call import clean, read_json
from speceyes.dialects._native import CALL, IN_TURNS, NativeFamily, json_calls, parse_native
from speceyes.dialects.profile import Profile
from speceyes.errors import InputError, ParseError
from speceyes.texts import Texts
from speceyes.types import ToolCall, Turn

_FUNCTION = re.compile(r"<function=([^<>\n]{1,200})>")
_PARAMETER = re.compile(r"<parameter=([^<>\n]{1,200})>\n?")
_ENDS = re.compile(r"\n?</parameter>|(?=<parameter=)|\n?(?=</function>)")
_NAME = re.compile(r"[^<>\s][^<>\n]*")

PROFILE = Profile(
    scale=1000.0,
    crop_pixels=(262_144, 12_845_056),
    factor=32,
    max_steps=20,
    max_tokens=32_768,
    temperature=1.0,
    top_p=0.95,
    top_k=20,
    presence_penalty=1.5,
    results="tool",
    tools=("zoom",),
)


@final
@dataclass(frozen=True, slots=True)
class XmlDialect(NativeFamily):
    r"""Qwen3.5 and 3.6, StepFun, and other families whose template writes `<function=`.

    Example:
        >>> said = "<tool_call>\n<function=zoom>\n<parameter=bbox_2d>\n[0, 0, 500, 500]\n"
        >>> XmlDialect().parse(said + "</parameter>\n</function>\n</tool_call>").calls[0].arguments
        {'bbox_2d': [0, 0, 500, 500]}
    """

    own: ClassVar[Texts] = IN_TURNS

    profile: Profile = PROFILE
    name: str = "xml"

    def parse(self, text: str) -> Turn:
        """The turn's answer in tags, else its calls, else its text as the answer.

        Raises:
            ParseError: It is blank, or a call can't be read.
        """
        at = text.find("<function=", text.rfind("</think>") + 1)
        if "<tool_call>" not in text and at >= 0:  # the tags around it are lost
            text = f"{text[:at]}<tool_call>{text[at:]}"
        return parse_native(text, CALL, parse_xml, self.known)

    def render_call(self, call: ToolCall) -> str:
        """`<tool_call>` with the function and its parameters inside.

        Raises:
            InputError: A name or a text can't be told apart from the tags.
        """
        return f"<tool_call>\n{render_xml(call)}\n</tool_call>"


def parse_xml(body: str) -> list[ToolCall]:
    """The functions between two tags; JSON in their place is read too.

    Raises:
        ParseError: There is none.
    """
    if (written := json_calls(body)) is not None:
        return written
    starts = list(_FUNCTION.finditer(body))
    if not starts:
        raise ParseError("the call has no <function=name>")
    ends = [start.start() for start in starts[1:]] + [len(body)]
    return [
        ToolCall(_bared(start[1]), clean(_arguments(body[start.end() : end])), body)
        for start, end in zip(starts, ends, strict=True)
    ]


def _arguments(inside: str) -> dict[str, Any]:
    if (body := inside.partition("</function>")[0].strip())[:1] == "{":
        data = read_json(body)
        return data if isinstance(data, dict) else {}
    found: dict[str, Any] = {}
    at = 0
    while (key := _PARAMETER.search(inside, at)) is not None:
        end = _ENDS.search(inside, key.end())
        stop = end.start() if end else len(inside)
        found[_bared(key[1])] = value_of(inside[key.end() : stop])
        at = max(end.end() if end else len(inside), key.end())
    return found


def _bared(name: str) -> str:
    """A name without the quotes that some write around it."""
    name = name.strip().removesuffix("/").rstrip()
    quoted = len(name) > 2 and name[0] == name[-1] and name[0] in "\"'"
    return name[1:-1].strip() if quoted else name


def value_of(raw: str) -> Any:
    """Value that a parameter's text stands for: JSON that is no text, else the text itself.

    Raises:
        ParseError: A number that is not finite.
    """
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        words = {"True": True, "False": False, "None": None}
        return words.get(raw.strip(), raw)
    return raw if isinstance(value, str) else value


def render_xml(call: ToolCall) -> str:
    """A function with its parameters, a line each.

    Raises:
        InputError: A name or a text can't be told apart from the tags, or from JSON.
    """
    lines = [f"<function={_named(call.name)}>"]
    for key, value in call.arguments.items():
        lines += [f"<parameter={_named(key)}>", raw_of(value, ("</", "<p")), "</parameter>"]
    return "\n".join([*lines, "</function>"])


def raw_of(value: Any, tags: Sequence[str]) -> str:
    """A value as `value_of` reads it back.

    Raises:
        InputError: It is a text that would be read as something else.
    """
    if not isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
        return text.replace("<", "\\u003c")
    if any(tag in value for tag in tags) or value_of(value) != value or value[-1:] == "\n":
        raise InputError(f"the text {value[:40]!r:.40} can't be written as a raw value")
    return value


def _named(name: str) -> str:
    if not _NAME.fullmatch(name) or name != name.strip() or len(name) > 200:
        raise InputError(f"{name[:40]!r:.40} can't be a name in a tag")
    return name
