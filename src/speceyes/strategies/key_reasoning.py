"""Which part of a small model's reasoning is worth handing over."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from speceyes.types import Completion

Keep: TypeAlias = Literal["all", "last", "likeliest", "attended"]

_SENTENCE = re.compile(r"(?<=[.!?\n])\s+")


def sentences_of(text: str) -> list[str]:
    """The sentences and lines of a text.

    Example:
        >>> sentences_of("It is far. Is it red? Yes.")
        ['It is far.', 'Is it red?', 'Yes.']
    """
    return [part for part in _SENTENCE.split(text.strip()) if part.strip()]


def best_of(parts: Sequence[str], worth: Sequence[float], most: int) -> str:
    """Those parts that are worth most, in their own order.

    Example:
        >>> best_of(["a", "b", "c"], [0.1, 0.5, 0.3], 2)
        'b c'
    """
    best = sorted(sorted(range(len(parts)), key=lambda i: -worth[i])[:most])
    return " ".join(parts[i] for i in best)


def likeliest(parts: Sequence[str], reasoning: Completion) -> list[float]:
    """The mean log-probability of each part's tokens, nats.

    Args:
        parts: Of the reasoning's text.
        reasoning: With one log-probability a token, at least.
    """
    # Tokens are shared out by characters, since ids don't tell where sentences end.
    likely = reasoning.top_logprobs[:, 0]
    ends = np.cumsum([len(part) for part in parts]) / sum(map(len, parts)) * len(likely)
    starts = np.concatenate(([0.0], ends[:-1]))
    return [
        float(likely[int(a) : max(int(a) + 1, round(b))].mean())
        for a, b in zip(starts, ends, strict=True)
    ]
