"""Gemma 4: calls between tokens of their own, with bare keys and quoted texts.

Facts from the family's chat template (google/gemma-4-31B-it): `<|tool_call>call:name{key:value}`
and `<tool_call|>`, keys in order of the alphabet, texts between `<|"|>` on both sides, all else as
JSON, objects with bare keys; reasoning in `<|channel>thought` to `<channel|>`, kept only beside a
call. The template writes results of the role "tool" as texts alone, so that a result, which is a
picture, is a user's turn here. Where these tokens are dropped in decoding, texts stand bare. Boxes
from 0 to 1000, turns and where pictures stand are not verified.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, ClassVar, final

from speceyes.dialects._json_call import clean, parse_calls, shown
from speceyes.dialects._native import CALL as HERMES
from speceyes.dialects._native import IN_TURNS, NativeFamily, json_calls, parse_native
from speceyes.dialects.profile import Profile
from speceyes.errors import InputError, ParseError
from speceyes.texts import Texts
from speceyes.types import ToolCall, Turn

_CALL = ("<|tool_call>", "<tool_call|>")
_QUOTE = '<|"|>'
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,199}")
_HEAD = re.compile(r"\s{0,9}call:\s{0,9}([A-Za-z_][\w.-]{0,199})\s{0,9}\{")
_ALONE = re.compile(
    r"\s{0,9}call:\s{0,9}([A-Za-z_][\w.-]{0,199})\s{0,9}(?:\(\s{0,9}\)|\{\s{0,9}(?:null|None)\s{0,9}\})?\s*+"
)
"""A call without arguments, written without its braces or with null in them."""
_BARE = re.compile(r"(?:^|\n)\s{0,9}(?=call:[A-Za-z_][\w.-]{0,199}\{)")
_KEY = re.compile(r'\s*(?:<\|"\|>|")?([^\s:,{}\[\]"<>][^:,{}\[\]"<>]{0,199}?)(?:<\|"\|>|")?\s*:')
_NEXT_KEY = re.compile(r"\s*,\s*(?=[A-Za-z_][\w.-]*\s*:)|\s*\}")
"""Ends of a bare text in an object: another key, or the object's end."""
_NEXT_ITEM = re.compile(r"[,\]]")
_DEEPEST = 40

PROFILE = Profile(
    scale=1000.0,
    max_steps=12,
    max_tokens=16_384,
    temperature=1.0,
    top_p=0.95,
    top_k=64,
    stop=("</answer>",),
    tools=("zoom",),
)


@final
@dataclass(frozen=True, slots=True)
class GemmaDialect(NativeFamily):
    """Gemma 4.

    Example:
        >>> said = '<|tool_call>call:look{at:[1,2],why:<|"|>far, small<|"|>}<tool_call|>'
        >>> GemmaDialect().parse(said).calls[0].arguments
        {'at': [1, 2], 'why': 'far, small'}
    """

    own: ClassVar[Texts] = IN_TURNS

    profile: Profile = PROFILE
    name: str = "gemma"

    def parse(self, text: str) -> Turn:
        """The turn's answer in tags, else its calls, else its text as the answer.

        Raises:
            ParseError: It is blank, or a call can't be read.
        """
        text = text.replace("<|channel>thought", "<think>").replace("<channel|>", "</think>")
        if HERMES[0] in text:  # an engine took the call apart
            return parse_native(text, HERMES, parse_calls, self.known)
        bare = _BARE.search(text, text.rfind("</think>") + 1)
        if _CALL[0] not in text and bare:
            text = f"{text[: bare.end()]}{_CALL[0]}{text[bare.end() :]}"
        return parse_native(text, _CALL, _calls, self.known)

    def render_call(self, call: ToolCall) -> str:
        """The call between its tokens.

        Raises:
            InputError: A name or a text can't be told apart from the marks.
        """
        if not _NAME.fullmatch(call.name):
            raise InputError(f"{call.name[:40]!r:.40} can't be a tool's name here")
        return f"{_CALL[0]}call:{call.name}{_written(dict(call.arguments))}{_CALL[1]}"

    def _kept(self, text: str) -> str:
        """The turn with its calls as the template writes them, tokens and all."""
        try:
            calls = self.parse(text).calls
        except ParseError:
            return text
        if not calls or _CALL[0] in text:
            return text
        at = text.find(HERMES[0])
        if at < 0 and (bare := _BARE.search(text, text.rfind("</think>") + 1)):
            at = bare.end()
        return text[:at] + "".join(map(self.render_call, calls))


def _calls(body: str) -> list[ToolCall]:
    if (written := json_calls(body)) is not None:
        return written
    if alone := _ALONE.fullmatch(body):
        return [ToolCall(alone[1], {}, body)]
    found, at = [], 0
    while (head := _HEAD.match(body, at)) is not None:
        arguments, at = _object(body, head.end(), 0)
        found.append(ToolCall(head[1], clean(arguments), body))
    if not found:
        raise ParseError("the call has no call:name{...}")
    return found


def _object(text: str, at: int, depth: int) -> tuple[dict[str, Any], int]:
    """The object whose brace was opened before `at`, and where it ends."""
    found: dict[str, Any] = {}
    while True:
        at = _blanks(text, at)
        if text[at : at + 1] == "}":
            return found, at + 1
        key = _KEY.match(text, at)
        if key is None:
            raise ParseError(f"a key was expected at {shown(text[at : at + 20])}")
        found[key[1].strip()], at = _value(text, key.end(), depth + 1, _NEXT_KEY)
        at = _blanks(text, at)
        if text[at : at + 1] == ",":
            at += 1
        elif text[at : at + 1] != "}":
            raise ParseError(f"a comma or }} was expected at {shown(text[at : at + 20])}")


def _value(text: str, at: int, depth: int, end_of_bare: re.Pattern[str]) -> tuple[Any, int]:
    """A value, and where it ends."""
    at = _blanks(text, at)
    if depth > _DEEPEST:
        raise ParseError("the call is nested too deeply")
    if text.startswith(_QUOTE, at):
        end = text.find(_QUOTE, at + len(_QUOTE))
        if end < 0:
            raise ParseError(f"a text has no closing {_QUOTE}")
        return text[at + len(_QUOTE) : end], end + len(_QUOTE)
    if text[at : at + 1] == "{":
        return _object(text, at + 1, depth)
    if text[at : at + 1] == "[":
        return _list(text, at + 1, depth)
    try:
        value, end = json.JSONDecoder().raw_decode(text, at)
        if text[_blanks(text, end) :][:1] in (",", "}", "]"):
            return value, end
    except ValueError:
        pass
    ends = end_of_bare.search(text, at)
    if ends is None:
        raise ParseError("the call has no end")
    raw = text[at : ends.start()].strip()
    return {"True": True, "False": False, "None": None}.get(raw, raw), ends.start()


def _list(text: str, at: int, depth: int) -> tuple[list[Any], int]:
    found: list[Any] = []
    while True:
        at = _blanks(text, at)
        if text[at : at + 1] == "]":
            return found, at + 1
        value, at = _value(text, at, depth + 1, _NEXT_ITEM)
        found.append(value)
        at = _blanks(text, at)
        if text[at : at + 1] == ",":
            at += 1
        elif text[at : at + 1] != "]":
            raise ParseError(f"a comma or ] was expected at {shown(text[at : at + 20])}")


def _blanks(text: str, at: int) -> int:
    while text[at : at + 1].isspace():
        at += 1
    return at


def _written(value: Any) -> str:
    if isinstance(value, str):
        if "<" in value:
            raise InputError(f"the text {value[:40]!r:.40} can't be told apart from the marks")
        return f"{_QUOTE}{value}{_QUOTE}"
    if isinstance(value, dict):
        for key in value:
            if not _NAME.fullmatch(key):
                raise InputError(f"{key[:40]!r:.40} can't be a key")
        return "{" + ",".join(f"{key}:{_written(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_written, value)) + "]"
    return json.dumps(value)
