"""A number that an answerer hands to its gate, on the draft itself.

A draft that travels, is written down and is gated again later must carry all that its gate reads.
`Completion.first_token` is a mapping from text to probability, which drafts leave empty; a note
is one entry there, under a name that no token decodes to.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from speceyes.types import Completion

_PREFIX: Final = "speceyes:"


def noted(completion: Completion, name: str, value: float) -> Completion:
    """The completion with one more note."""
    notes = {**completion.first_token, _PREFIX + name: value}
    return dataclasses.replace(completion, first_token=notes)


def note(completion: Completion, name: str) -> float | None:
    """What was noted under a name; None where nothing was."""
    return completion.first_token.get(_PREFIX + name)
