"""GLM-4.5V and 4.6V: calls as pairs of keys and values.

Facts from the GLM-V repository (zai-org, Apache-2.0) and the family's chat templates:
`<tool_call>name`, then `<arg_key>` and `<arg_value>` in turns, texts raw and all else as JSON;
results behind `<|observation|>`, which the template writes for the role "tool"; boxes from 0 to
1000; the answer may stand in `<|begin_of_box|>`; reasoning stays only behind the last question,
and `/nothink` goes without it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, final

from speceyes.dialects._json_call import call_of, clean
from speceyes.dialects._native import CALL, IN_TURNS, NativeFamily, json_calls, parse_native
from speceyes.dialects.profile import Profile
from speceyes.dialects.xml import raw_of, value_of
from speceyes.errors import InputError, ParseError
from speceyes.texts import Texts
from speceyes.types import ToolCall, Turn

_PAIR = re.compile(
    r"<arg_key>([^<>]{1,200})</arg_key>\s{0,9}<arg_value>\n?((?:[^<]|<(?!/?arg_))*+)(?:</arg_value>|\Z)"
)
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,199}")
_IN_JSON = re.compile(r"([A-Za-z_][\w.-]{0,199}?)\s{0,9}(\(\)|\bnull|\bNone|\{.*\})", re.DOTALL)
"""A name with its arguments as JSON, or with none."""
_BOX = ("<|begin_of_box|>", "<|end_of_box|>")

PROFILE = Profile(
    scale=1000.0,
    max_steps=12,
    max_tokens=16_384,
    temperature=0.8,
    top_p=0.6,
    top_k=2,
    repetition_penalty=1.1,
    results="tool",
    tools=("zoom",),
)


@final
@dataclass(frozen=True, slots=True)
class GlmDialect(NativeFamily):
    r"""GLM-4.5V, GLM-4.6V and their text siblings' template.

    Example:
        >>> said = "<tool_call>zoom\n<arg_key>bbox_2d</arg_key>\n<arg_value>[0, 0, 9, 9]"
        >>> GlmDialect().parse(said + "</arg_value>\n</tool_call>").calls[0].arguments
        {'bbox_2d': [0, 0, 9, 9]}
    """

    own: ClassVar[Texts] = IN_TURNS

    profile: Profile = PROFILE
    name: str = "glm"

    def parse(self, text: str) -> Turn:
        """The turn's answer in tags or in its box, else its calls, else its text as the answer.

        Raises:
            ParseError: It is blank, or a call can't be read.
        """
        turn = parse_native(text, CALL, _calls, self.known)
        if turn.answer is None or _BOX[0] not in turn.answer:
            return turn
        inside = turn.answer.rpartition(_BOX[0])[2]
        boxed, closed, _ = inside.partition(_BOX[1])
        if not boxed.strip():
            raise ParseError("the box is empty")
        return Turn(answer=boxed.strip(), thought=turn.thought, plain=turn.plain and not closed)

    def render_call(self, call: ToolCall) -> str:
        """`<tool_call>` with the name and the pairs inside.

        Raises:
            InputError: A name or a text can't be told apart from the tags.
        """
        if not _NAME.fullmatch(call.name):
            raise InputError(f"{call.name[:40]!r:.40} can't be a tool's name here")
        lines = [f"<tool_call>{call.name}"]
        for key, value in call.arguments.items():
            if not key.strip() or key != key.strip() or set(key) & set("<>") or len(key) > 200:
                raise InputError(f"{key[:40]!r:.40} can't be a name in a tag")
            raw = raw_of(value, ("<", "\n"))
            lines += [f"<arg_key>{key}</arg_key>", f"<arg_value>{raw}</arg_value>"]
        return "\n".join([*lines, "</tool_call>"])


def _calls(body: str) -> list[ToolCall]:
    if (written := json_calls(body)) is not None:
        return written
    name = body.partition("<arg_key>")[0].strip()
    if "<arg_key>" not in body and (bare := _IN_JSON.fullmatch(name)):
        said = "{}" if bare[2] == "()" else bare[2]
        return [call_of({"name": bare[1], "arguments": said}, body)]
    if not _NAME.fullmatch(name):
        raise ParseError("the call has no tool's name before its <arg_key>")
    pairs = {found[1].strip(): found[2].removesuffix("\n") for found in _PAIR.finditer(body)}
    if len(pairs) != body.count("<arg_key>"):
        raise ParseError("an <arg_key> has no <arg_value> of its own")
    return [ToolCall(name, clean({key: value_of(raw) for key, raw in pairs.items()}), body)]
