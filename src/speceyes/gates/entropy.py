"""The gate that asks how many tokens were in the running: entropy over the top K."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal, final

import numpy as np
import numpy.typing as npt

from speceyes.checks import checked_choice, checked_number, checked_whole
from speceyes.gates._verdict import Aggregate, combine, top_logprobs, top_values, verdict
from speceyes.scoring.scores import TOP_K, Floats
from speceyes.types import Completion, Verdict


@final
@dataclass(frozen=True, slots=True)
class EntropyGate:
    """Accepts a draft where each token's distribution is concentrated.

    A token's score is 1 - H / H_max: 1 where one token has all the mass, 0 where all are as
    likely. H is Shannon's entropy in nats.

    Args:
        threshold: The least score, 0 to 1.
        top_k: K, at least 2. It belongs to the threshold.
        tail: "renormalise" divides the K probabilities by their sum, which makes the score
            the same on logits; H_max = ln K. "mass" keeps them as they are and counts what is
            left for the rest of the vocabulary as one more outcome; H_max = ln(K + 1).
        aggregate: "min" for the weakest token, "mean" for all.

    Raises:
        ConfigError: An argument out of range.

    Example:
        >>> gate = EntropyGate(0.5, top_k=4)
        >>> round(gate.score(np.log([[0.25, 0.25, 0.25, 0.25]])), 6)
        0.0
    """

    threshold: float = 0.5
    _: KW_ONLY
    top_k: int = TOP_K
    tail: Literal["renormalise", "mass"] = "renormalise"
    aggregate: Aggregate = "min"

    least: ClassVar[float] = 0.0
    """The threshold that accepts whatever can be scored."""

    def __post_init__(self) -> None:
        checked_choice("tail", self.tail, ("renormalise", "mass"))
        checked_choice("aggregate", self.aggregate, ("min", "mean"))
        object.__setattr__(self, "threshold", checked_number("threshold", self.threshold, 0, 1))
        why = ", since one outcome has no entropy"
        object.__setattr__(self, "top_k", checked_whole("top_k", self.top_k, 2, why))

    def score(self, rows: npt.ArrayLike) -> float:
        """The answer's score, 0 to 1.

        Args:
            rows: float[n, W] log-probabilities in nats, W >= top_k, in any order within a row.

        Raises:
            InputError: The rows can't be scored.
        """
        return combine(self._tokens(rows), self.aggregate)

    def __call__(self, completion: Completion) -> Verdict:
        """The verdict on a draft; what can't be scored is rejected with a reason."""
        return verdict(
            completion,
            top_k=self.top_k,
            threshold=self.threshold,
            tokens=self._tokens,
            answer=lambda tokens: combine(tokens, self.aggregate),
            unit=float,
        )

    def _tokens(self, rows: npt.ArrayLike) -> Floats:
        if self.tail == "renormalise":
            top = top_values(rows, self.top_k)
            shifted = top - top[:, :1]
            weights = np.exp(shifted)
            total = weights.sum(axis=1)
            # ln(sum) - mean of the exponents: no logarithm of a probability that vanished.
            entropy = np.log(total) - (weights * shifted).sum(axis=1) / total
            most = math.log(self.top_k)
        else:
            top = top_logprobs(rows, self.top_k)
            chances = np.exp(top)
            rest = np.maximum(1.0 - chances.sum(axis=1), 0.0)
            entropy = -(chances * top).sum(axis=1) - rest * np.log(np.where(rest > 0, rest, 1.0))
            most = math.log(self.top_k + 1)
        # Rounding must not put a score outside the scale that thresholds live on.
        scores: Floats = np.clip(1.0 - entropy / most, 0.0, 1.0)
        return scores
