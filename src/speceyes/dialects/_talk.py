"""Building conversations: what dialects have in common there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from speceyes.dialects.profile import Profile
from speceyes.models.control_tokens import (
    RESULT_TAGS,
    SPOKEN_TAGS,
    deeply,
    neutral,
    neutral_parts,
    said_by_others,
)
from speceyes.protocols import Tool
from speceyes.texts import filled
from speceyes.types import Conversation, Image, Message, Observation

_BOXES_SEEN = "in pixels of the image as you see it"
_BOXES_SCALED = "from 0 to {scale} across the image's width and height, whatever its size"


def schema_of(tool: Tool) -> dict[str, Any]:
    """A tool as chat templates and engines take it (OpenAI's function form). Whoever offers it may
    be a stranger: control tokens in its words are broken up.
    """
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }
    return {"type": "function", "function": deeply(function, said_by_others)}


def schema_lines(schemas: Iterable[Mapping[str, Any]]) -> str:
    """Schemas as text, one a line."""
    return "\n".join(json.dumps(schema, ensure_ascii=False) for schema in schemas)


def boxes(scale: float | None) -> str:
    """The space of boxes in words."""
    return _BOXES_SEEN if scale is None else filled(_BOXES_SCALED, scale=f"{scale:g}")


def content_of(seen: Observation, profile: Profile, error: str) -> list[str | Image]:
    """Content of an observation: its error, then its texts and images.

    Args:
        seen: The observation. Control tokens in its texts are broken up.
        profile: How large its images are shown.
        error: How an error is told; {error} in it.
    """
    told = [filled(error, error=neutral(seen.error, RESULT_TAGS))] if seen.error is not None else []
    shown = [
        part if isinstance(part, str) else profile.crop(part)
        for part in seen.content
        if isinstance(part, str | Image)
    ]
    return list(neutral_parts([*told, *neutral_parts(shown, SPOKEN_TAGS)], RESULT_TAGS))


def texts_in(parts: Iterable[str | Image]) -> str:
    """The texts among the parts, one after the other."""
    return "".join(part for part in parts if isinstance(part, str))


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
