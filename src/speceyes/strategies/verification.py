"""Mutual verification: do the two models' first answers settle the query?"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from speceyes.gate import SeparabilityGate
from speceyes.types import Completion, Conversation, Query

Verify: TypeAlias = Literal["answers", "likelihood", "separability"]
Agrees: TypeAlias = Callable[[Query, str, str], bool]

_WORDS = re.compile(r"\w+")
_ARTICLES = {"a", "an", "the"}


@runtime_checkable
class TellsLikelihoods(Protocol):
    """A model that can tell how likely it holds an answer, as `HFModel` does, and `OpenAIModel`
    where the engine is vLLM.
    """

    @property
    def tells_likelihoods(self) -> bool:
        """True where `likelihoods` works."""
        ...

    def likelihoods(
        self, conversations: Sequence[Conversation], answers: Sequence[str]
    ) -> list[float | None]:
        """The mean log-probability of each answer's tokens, nats; None where it can't be told."""
        ...


def same_words(query: Query, one: str, other: str) -> bool:
    """True where two short answers say the same, but for case, articles and punctuation.

    Example:
        >>> from PIL import Image
        >>> asked = Query("Which colour?", (Image.new("RGB", (8, 8)),))
        >>> same_words(asked, "The red one.", "red one"), same_words(asked, "red", "not red")
        (True, False)
    """
    words = [[w for w in _WORDS.findall(t.casefold()) if w not in _ARTICLES] for t in (one, other)]
    return bool(words[0]) and words[0] == words[1]


def answered(said: Completion) -> bool:
    """True for an answer: complete, without error, and not blank."""
    return said.error is None and said.finish == "stop" and bool(said.text.strip())


def alike(agrees: Agrees, query: Query, one: str, other: str) -> bool:
    """True where two answers agree; those that can't be compared don't."""
    try:
        return bool(agrees(query, one, other))
    except Exception:  # noqa: BLE001 - a user's rule may fail on any text
        return False


def both_sure(
    gates: tuple[SeparabilityGate, SeparabilityGate], large: Completion, small: Completion
) -> bool:
    """True where the large model's and the small model's answer each pass their gate."""
    return gates[0](large).accepted and gates[1](small).accepted
