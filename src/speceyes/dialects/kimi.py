"""Kimi K2 and K2.5 to 2.7: calls between tokens of their own, each with an id.

Facts from the family's chat templates (moonshotai): `<|tool_call_begin|>functions.name:0`,
`<|tool_call_argument_begin|>`, JSON, `<|tool_call_end|>`; a result is a turn of the role "tool"
that says "## Return of" the id; reasoning and calls are fields of a message, which the template
writes. Where those tokens are dropped in decoding, id and JSON stand bare. Its evaluation with
tools takes 30 steps of 24k tokens at temperature 1, top_p 0.95 (MoonshotAI/Kimi-K2.5, README).
Boxes from 0 to 1000 are not verified.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, final

from speceyes.dialects._bare_call import call_within
from speceyes.dialects._json_call import (
    between,
    call_of,
    parse_calls,
    read_json,
    written,
)
from speceyes.dialects._native import CALL, IN_TURNS, NativeFamily
from speceyes.dialects._turn import answer_in, refuse_foreign, spoken, thought_in
from speceyes.dialects.profile import Profile
from speceyes.errors import InputError, ParseError
from speceyes.texts import Texts
from speceyes.types import Conversation, Message, ToolCall, Turn

_BEGIN, _ARGUMENTS, _END = (
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
)
_SECTION = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>")
_ID = re.compile(r"(?:functions\.)?([A-Za-z_][\w.-]{0,199}?)(?::([0-9]{1,6}))?")
_BARE = re.compile(r"functions\.[A-Za-z_][\w.-]{0,199}:[0-9]{1,6}[ \t\n]{0,9}(?=\{)")

PROFILE = Profile(
    scale=1000.0,
    max_steps=30,
    max_tokens=24_576,
    temperature=1.0,
    top_p=0.95,
    stop=("<|tool_calls_section_end|>", "</answer>"),
    results="tool",
    tools=("zoom",),
)


@final
@dataclass(frozen=True, slots=True)
class KimiDialect(NativeFamily):
    """Kimi K2, K2-Thinking and K2.5 to 2.7.

    Example:
        >>> said = '<|tool_call_begin|>functions.zoom:0<|tool_call_argument_begin|>{"a": 1}'
        >>> KimiDialect().parse(said).calls[0].id
        'functions.zoom:0'
    """

    own: ClassVar[Texts] = IN_TURNS

    profile: Profile = PROFILE
    name: str = "kimi"

    def parse(self, text: str) -> Turn:
        """The turn's answer in tags, else its calls, else its text as the answer.

        Raises:
            ParseError: It is blank, or a call can't be read.
        """
        text = _plain_tags(text)
        thought, said = thought_in(text, _SECTION[0], _BEGIN), spoken(text)
        answer = answer_in(said, self.known)
        if answer is not None:
            return Turn(answer=answer, thought=thought)
        if found := _calls(said, self.known):
            return Turn(calls=found, thought=thought)
        plain = said.strip()
        if not plain or "<think>" in plain or "</think>" in plain:
            raise ParseError("neither a call nor an answer was found")
        refuse_foreign(plain, known=self.known)
        return Turn(answer=plain, thought=thought, plain=True)

    def render_call(self, call: ToolCall) -> str:
        """The call between its tokens, in a section of its own.

        Raises:
            InputError: The tool's name can't stand in an id.
        """
        identity = call.id or f"functions.{call.name}:0"
        found = _ID.fullmatch(identity)
        if found is None or found[1] != call.name:
            raise InputError(
                f"{identity[:60]!r:.60} can't be the id of a call of {call.name[:40]!r:.40}"
            )
        body = written(dict(call.arguments))
        return f"{_SECTION[0]}{_BEGIN}{identity}{_ARGUMENTS}{body}{_END}{_SECTION[1]}"

    def _said(self, text: str, before: Conversation) -> Message:
        try:
            turn = self.parse(text)
        except ParseError:
            return Message("assistant", (self._kept(text),))
        content = (
            spoken(_plain_tags(text))
            .partition(_SECTION[0])[0]
            .partition(_BEGIN)[0]
            .partition(CALL[0])[0]
        )
        if bare := _BARE.search(content):
            content = content[: bare.start()]
        elif written := call_within(content, self.known):
            content = content[: content.find(written)]
        kept = turn.thought if self.profile.keep_reasoning else ""
        return Message("assistant", (content.strip(),), reasoning=kept, calls=turn.calls)


def _calls(said: str, known: Collection[str]) -> tuple[ToolCall, ...]:
    if _BEGIN not in said and CALL[0] in said:  # an engine took the calls apart
        return _numbered(between(said, *CALL))
    if _BEGIN in said:
        bodies = [part.partition(_END)[0] for part in said.split(_BEGIN)[1:]]
        return tuple(_call(*body.partition(_ARGUMENTS)[::2]) for body in bodies)
    if _SECTION[0] in said:
        raise ParseError(f"a section of calls has no {_BEGIN}")
    starts = list(_BARE.finditer(said))
    if not starts and (written := call_within(said, known)) is not None:
        return _numbered([written])
    ends = [*(start.start() for start in starts[1:]), len(said)][: len(starts)]
    return tuple(
        _call(start[0], said[start.end() : end]) for start, end in zip(starts, ends, strict=True)
    )


def _plain_tags(text: str) -> str:
    """The text with the reasoning tags of Kimi-VL-Thinking as all others write them."""
    return text.replace("\u25c1think\u25b7", "<think>").replace("\u25c1/think\u25b7", "</think>")


def _numbered(bodies: Iterable[str]) -> tuple[ToolCall, ...]:
    """Calls in JSON, with the ids that the family would have given them."""
    read = (call for body in bodies for call in parse_calls(body))
    return tuple(replace(call, id=f"functions.{call.name}:{at}") for at, call in enumerate(read))


def _call(identity: str, arguments: str) -> ToolCall:
    identity = identity.strip()
    found = _ID.fullmatch(identity)
    if found is None:
        raise ParseError(f"{identity[:60]!r:.60} is not the id of a call, such as functions.name:0")
    data = read_json(arguments) if arguments.strip() else {}
    made = call_of({"name": found[1], "arguments": data}, arguments or identity)
    return ToolCall(made.name, made.arguments, made.raw, identity)
