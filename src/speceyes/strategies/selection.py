"""Selectors: the part of a small model's reasoning that is worth handing over."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, final, get_args

import numpy as np
import numpy.typing as npt

from speceyes.errors import ConfigError
from speceyes.types import Completion

By: TypeAlias = Literal["all", "last", "likeliest", "attended", "random"]
Unit: TypeAlias = Literal["tokens", "sentences"]
Head: TypeAlias = tuple[int, int]
"""A layer and a head in it, both counted from 0."""
Weights: TypeAlias = npt.NDArray[np.float32]

_SENTENCE = re.compile(r"(?<=[.!?\n])\s+")
_WORD = re.compile(r"\s*\S+")


@final
@dataclass(frozen=True, slots=True)
class Selector:
    """Chooses tokens or sentences of a reasoning, which keep their order.

    Args:
        by: "all" of it; the "last" ones; the "likeliest", by the small model's log-probability;
            the most "attended", by the small model's attention from where its answer would
            begin; or "random" ones, as the control that every other selector must beat.
        share: Share of the units to keep, above 0, up to 1.
        unit: "tokens" or "sentences".
        heads: For "attended": the heads whose attention counts, summed; none means all. See
            `speceyes.strategies.attention_heads.choose_heads`.
        seed: For "random".

    Raises:
        ConfigError: An argument is out of range.

    Example:
        >>> said = Completion("It is far. Is it red? Yes.")
        >>> Selector("last", share=0.3, unit="sentences").select(said)
        ('Yes.', 1, 7)
    """

    by: By = "all"
    share: float = 0.5
    unit: Unit = "tokens"
    heads: tuple[Head, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("keep", self.by, get_args(By)),
            ("unit", self.unit, get_args(Unit)),
        ):
            if value not in allowed:
                raise ConfigError(f"{name}={value!r}; it must be one of {allowed}")
        if not 0 < self.share <= 1:
            raise ConfigError(f"share={self.share}; it must be above 0 and at most 1 (all)")
        object.__setattr__(self, "heads", tuple((int(a), int(b)) for a, b in self.heads))

    def select(
        self, reasoning: Completion, attention: Weights | None = None
    ) -> tuple[str, int, int]:
        """The kept text, the number of its tokens, and the number of all tokens.

        Args:
            reasoning: Its `tokens` are the units where the model told them, else its words are.
                "likeliest" reads its log-probabilities.
            attention: float32[layers, heads, n] from the answer to the n tokens, for "attended".

        What can't be scored is kept whole: nothing is left out at a guess.
        """
        whole = reasoning.text.strip()
        tokens = tokens_of(reasoning)
        if self.by == "all" or not tokens:
            return whole, len(tokens), len(tokens)
        groups = _groups(tokens) if self.unit == "sentences" else [[i] for i in range(len(tokens))]
        count = max(1, round(self.share * len(groups)))
        scores = self._scores(reasoning, len(tokens), attention)
        if scores is None or count >= len(groups):
            return whole, len(tokens), len(tokens)
        total = np.sum if self.by == "attended" else np.mean
        worth = [float(total(scores[group])) for group in groups]
        best = sorted(range(len(groups)), key=lambda i: (-worth[i], -i))[:count]
        kept = np.zeros(len(tokens), dtype=bool)
        for i in best:
            kept[groups[i]] = True
        return join_kept(tokens, kept.tolist()), int(kept.sum()), len(tokens)

    def _scores(
        self, reasoning: Completion, n: int, attention: Weights | None
    ) -> npt.NDArray[np.float64] | None:
        """float64[n], higher for what is kept first; None where it can't be told."""
        if self.by == "last":
            return np.arange(n, dtype=np.float64)
        if self.by == "random":
            digest = hashlib.sha256(f"{self.seed}\0{reasoning.text}".encode()).digest()
            generator = np.random.default_rng(list(digest))
            return np.asarray(generator.random(n), dtype=np.float64)
        if self.by == "likeliest":
            rows = reasoning.top_logprobs
            return _spread(rows[:, 0], n) if rows.shape[1] and len(rows) else None
        if attention is None:
            return None
        if self.heads:
            layers, heads = attention.shape[:2]
            if any(a >= layers or b >= heads for a, b in self.heads):
                raise ConfigError(
                    f"heads={self.heads}: the small model has {layers} layers of {heads} heads"
                )
            weights = np.stack([attention[a, b] for a, b in self.heads])
        else:
            weights = attention.reshape(-1, attention.shape[-1])
        return _spread(weights.sum(axis=0), n)


def tokens_of(said: Completion) -> list[str]:
    """The texts of the tokens, or the words where the model told no tokens."""
    if said.tokens and "".join(said.tokens) == said.text:
        return list(said.tokens)
    return _WORD.findall(said.text.strip())


def _spread(values: npt.NDArray[np.float32], n: int) -> npt.NDArray[np.float64]:
    """float64[n]: one value a unit, where units are words and values are of tokens."""
    places = np.minimum((np.arange(n) + 0.5) * len(values) / n, len(values) - 1)
    spread: npt.NDArray[np.float64] = values[places.astype(int)].astype(np.float64)
    return spread


def sentences_of(text: str) -> list[str]:
    """The sentences and lines of a text.

    Example:
        >>> sentences_of("It is far. Is it red? Yes.")
        ['It is far.', 'Is it red?', 'Yes.']
    """
    return [part for part in _SENTENCE.split(text.strip()) if part.strip()]


def _groups(tokens: Sequence[str]) -> list[list[int]]:
    """Token places by sentence; a token over a border belongs to the sentence where it begins."""
    text = "".join(tokens)
    starts = [0, *(found.end() for found in _SENTENCE.finditer(text))]
    ends = np.cumsum([len(t) for t in tokens])
    begins = [int(e) - len(t.lstrip()) for e, t in zip(ends, tokens, strict=True)]
    groups: list[list[int]] = [[] for _ in starts]
    for at, begin in enumerate(begins):
        groups[int(np.searchsorted(starts, begin, side="right")) - 1].append(at)
    return [group for group in groups if group]


def join_kept(tokens: Sequence[str], kept: Sequence[bool]) -> str:
    """The text of those tokens that are kept, in order; words don't run together over a gap.

    Example:
        >>> join_kept(["A", " red", " ring", "."], [True, False, True, True])
        'A ring.'
    """
    text = ""
    gap = False
    for token, keep in zip(tokens, kept, strict=True):
        if keep:
            runs_together = gap and text[-1:].isalnum() and token[:1].isalnum()
            text += f" {token}" if runs_together else token
        gap = not keep
    return text.strip()
