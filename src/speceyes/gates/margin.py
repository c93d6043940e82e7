"""The gate that looks at the runner-up only: how far the likeliest token is ahead of the next."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal, final

import numpy as np
import numpy.typing as npt

from speceyes.checks import checked_choice, checked_number, checked_whole
from speceyes.gates._verdict import Aggregate, combine, top_logprobs, top_values, verdict
from speceyes.scoring.scores import Floats
from speceyes.types import Completion, Verdict


@final
@dataclass(frozen=True, slots=True)
class MarginGate:
    """Accepts a draft where each token's first choice is well ahead of its second.

    The margin of the top two is the classical measure of active learning (Scheffer et al.,
    "Active Hidden Markov Models for Information Extraction", 2001).

    Args:
        threshold: The least margin. With scale="probability" p1 - p2, 0 to 1; with scale="log"
            l1 - l2 in nats, from 0 up, which doesn't change when a constant is added to a row.
        top_k: At least 2; only the first two columns are read.
        scale: "probability" or "log".
        aggregate: "min" for the weakest token, "mean" for all.

    Raises:
        ConfigError: An argument out of range.

    Example:
        >>> gate = MarginGate(0.5)
        >>> draft = Completion("red", (7,), np.log([[0.75, 0.125, 0.0625]]))
        >>> gate(draft).accepted, round(gate.score(draft.top_logprobs), 6)
        (True, 0.625)
    """

    threshold: float = 0.5
    _: KW_ONLY
    top_k: int = 2
    scale: Literal["probability", "log"] = "probability"
    aggregate: Aggregate = "min"

    least: ClassVar[float] = 0.0
    """The threshold that accepts whatever can be scored."""

    def __post_init__(self) -> None:
        checked_choice("scale", self.scale, ("probability", "log"))
        checked_choice("aggregate", self.aggregate, ("min", "mean"))
        high = 1.0 if self.scale == "probability" else math.inf
        object.__setattr__(self, "threshold", checked_number("threshold", self.threshold, 0, high))
        why = ", since a margin has two sides"
        object.__setattr__(self, "top_k", checked_whole("top_k", self.top_k, 2, why))

    def score(self, rows: npt.ArrayLike) -> float:
        """The answer's margin, on the threshold's scale.

        Args:
            rows: float[n, W] log-probabilities in nats, W >= 2, in any order within a row.

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
            unit=lambda raw: raw if self.scale == "probability" else -math.expm1(-raw),
        )

    def _tokens(self, rows: npt.ArrayLike) -> Floats:
        if self.scale == "log":
            top = top_values(rows, 2)
            margins: Floats = top[:, 0] - top[:, 1]
            return margins
        chances = np.exp(top_logprobs(rows, 2))
        lead: Floats = chances[:, 0] - chances[:, 1]
        return lead
