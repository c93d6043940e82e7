"""Building conversations: what dialects have in common there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from speceyes import prompts
from speceyes.protocols import Tool
from speceyes.types import Conversation, Image, Message, Observation, Query


def schema_of(tool: Tool) -> dict[str, Any]:
    """A tool as chat templates and engines take it (OpenAI's function form)."""
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": dict(tool.parameters),
        },
    }


def schema_lines(schemas: Iterable[Mapping[str, Any]]) -> str:
    """Schemas as text, one a line."""
    return "\n".join(json.dumps(schema, ensure_ascii=False) for schema in schemas)


def begin(
    query: Query, text: str, *, system: str = "", tools: Iterable[Mapping[str, Any]] = ()
) -> Conversation:
    """A system message where there is one, then the images, then the text.

    Args:
        query: Whose images are shown.
        text: Question and instruction.
        system: The system message.
        tools: Schemas for a chat template that takes `tools=`.
    """
    user = Message("user", (*query.images, text))
    before = (Message("system", (system,)),) if system else ()
    return Conversation((*before, user), tuple(tools))


def content_of(seen: Observation) -> list[str | Image]:
    """What an observation shows: its error, then its texts and images."""
    error = [prompts.OBSERVATION_ERROR.format(error=seen.error)] if seen.error is not None else []
    return [*error, *(part for part in seen.content if isinstance(part, str | Image))]


def joined(parts: Iterable[str | Image]) -> tuple[str | Image, ...]:
    """The parts, with texts that touch made one."""
    whole: list[str | Image] = []
    for part in parts:
        if isinstance(part, str) and whole and isinstance(whole[-1], str):
            whole[-1] += part
        elif part != "":
            whole.append(part)
    return tuple(whole)


def reply(conversation: Conversation, text: str, parts: Sequence[str | Image]) -> Conversation:
    """The conversation after the model's turn and a user turn with these parts."""
    return conversation.then(Message("assistant", (text,)), Message("user", joined(parts)))
