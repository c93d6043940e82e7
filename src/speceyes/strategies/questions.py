"""The questions of reasoning transfer: an answer at once, reasoning, an answer behind it."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias

from speceyes import prompts
from speceyes.models.control_tokens import said_by_others
from speceyes.types import Conversation, Message, Query

Place: TypeAlias = Literal["prompt", "turn"]
"""Where notes stand: in the prompt, as another's, or as the turn that the model itself began."""
ANSWER_LEAD = f"\n{prompts.REASONED}"
"""Stands between reasoning and the answer that follows it."""


def _asking(query: Query, instruction: str) -> Conversation:
    # The image and the question come first in all of them, so that what was read serves again.
    return Conversation(
        (Message("user", (*query.images, f"{said_by_others(query.text)}\n{instruction}")),)
    )


def _brief(query: Query) -> str:
    return prompts.CHOICE if query.choices else prompts.DRAFT


def short(query: Query) -> Conversation:
    """Asks for the answer at once."""
    return _asking(query, _brief(query))


def reasoning(query: Query) -> Conversation:
    """Asks for reasoning without the answer."""
    return _asking(query, prompts.REASON)


def concluding(query: Query, thought: str) -> Conversation:
    """Asks the model that has reasoned for its answer."""
    return dataclasses.replace(reasoning(query), prefill=f"{thought}{ANSWER_LEAD}")


def noted(query: Query, notes: str, place: Place = "prompt") -> Conversation:
    """Asks for the answer at once, with another model's notes; `short` where there are none."""
    if not notes:
        return short(query)
    if place == "turn":
        return concluding(query, notes)
    told = prompts.TRANSFER.replace("{notes}", notes)
    return _asking(query, f"{told}\n{_brief(query)}")
