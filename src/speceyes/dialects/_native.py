"""Agents that speak their chat template's own tool format.

The tools go to the model by the template's `tools=`, and results come back between
`<tool_response>` tags, just as the templates of the Qwen families write a message of the role
"tool". A turn without a call is the answer, with or without `<answer>` tags.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from speceyes import prompts
from speceyes.dialects._bare_call import call_within, unfenced
from speceyes.dialects._family import Family
from speceyes.dialects._json_call import (
    MAX_CALL_CHARS,
    between,
    parse_calls,
    render_json,
)
from speceyes.dialects._talk import schema_of
from speceyes.dialects._turn import answer_in, refuse_foreign, spoken, thought_in
from speceyes.errors import ParseError
from speceyes.protocols import Tool
from speceyes.texts import Texts
from speceyes.types import ToolCall, Turn

CALL = ("<tool_call>", "</tool_call>")


@dataclass(frozen=True, slots=True)
class NativeFamily(Family):
    """A family whose template describes the tools; calls as JSON in `<tool_call>`."""

    own: ClassVar[Texts] = Texts(
        system=prompts.NATIVE_SYSTEM,
        instruction=prompts.NATIVE_INSTRUCTION,
        observation="<tool_response>\n{result}{again}\n</tool_response>\n",
        again="",
        last_turn=f"\n{prompts.LAST_TURN}",
    )

    def parse(self, text: str) -> Turn:
        """The turn's answer in tags, else its calls, else its text as the answer.

        Raises:
            ParseError: It is blank, or a call can't be read.
        """
        return parse_native(text, CALL, parse_calls, self.known)

    def render_call(self, call: ToolCall) -> str:
        """`<tool_call>` with the JSON object inside."""
        return render_json(call)

    def _listed(self, tools: Sequence[Tool]) -> tuple[str, tuple[Mapping[str, Any], ...]]:
        return "", tuple(schema_of(tool) for tool in tools)


IN_TURNS = Texts(observation="{result}{again}").over(NativeFamily.own)
"""Texts of families whose template puts results between tags of its own."""


def json_calls(body: str) -> list[ToolCall] | None:
    """Calls written as JSON where a family writes them otherwise; None where they aren't JSON.

    Raises:
        ParseError: The text is too long, or broken JSON.
    """
    if len(body) > MAX_CALL_CHARS:
        raise ParseError(f"a call of {len(body)} characters; at most {MAX_CALL_CHARS} are read")
    return parse_calls(body) if unfenced(body)[:1] in ("{", "[") else None


def parse_native(
    text: str,
    tags: tuple[str, str],
    read: Callable[[str], Sequence[ToolCall]],
    known: Collection[str] = (),
) -> Turn:
    """The turn's answer in tags, else its calls, else its text as the answer.

    Args:
        text: The turn.
        tags: What stands around a call.
        read: The calls between tags.
        known: Names of tools.

    Raises:
        ParseError: It is blank, or a call can't be read.
    """
    opening, closing = tags
    thought, said = thought_in(text, *tags), spoken(text)
    answer = answer_in(said, known)
    if answer is not None:
        return Turn(answer=answer, thought=thought)
    bodies = between(said, *tags)
    if not bodies and "</think>" not in said:
        # The tags are special tokens for some, and lost.
        bare = call_within(said.replace(closing, ""), known)
        bodies = [] if bare is None else [bare]
    calls = tuple(call for body in bodies for call in read(body))
    if bodies:
        return Turn(calls=calls, thought=thought)
    plain = said.strip()
    if not plain or "<think>" in plain or "</think>" in plain:
        raise ParseError(f"neither a {opening} nor an answer was found")
    if closing in plain:
        raise ParseError(f"a {closing} stands without its {opening}")
    refuse_foreign(plain, opening, known=known)
    return Turn(answer=plain, thought=thought, plain=True)
