"""How deep a draft is, written on the draft itself, so that it can be written down and read."""

from __future__ import annotations

import dataclasses
from typing import Final

from speceyes.types import Completion

_DEPTH: Final = "speceyes:depth"
"""No token decodes to it, and drafts leave `first_token` empty otherwise."""


def deepened(completion: Completion, depth: int) -> Completion:
    """The completion, marked as a draft that was made after `depth` tool calls."""
    notes = {**completion.first_token, _DEPTH: float(depth)}
    return dataclasses.replace(completion, first_token=notes)


def depth_of(completion: Completion) -> int:
    """How many tool calls stand behind a draft; 0 where it was made at once.

    Example:
        >>> depth_of(Completion("red"))
        0
    """
    return int(completion.first_token.get(_DEPTH, 0.0))
