"""PRO, uncertainty from probabilities alone with an adaptive K (arXiv 2511.07694), as a gate.

Checked against the published code (manhitv/PRO, pro.py): of probabilities p1 >= p2 >= ... those
above alpha are kept, the first in any case, and with K of them

    PRO = -ln pK - sum over i < K of pi ln(pi / pK)

which bounds the entropy from below: what isn't kept is counted as if it were as likely as pK.
There the pi are those of ten *answers* from beam search, and alpha is the best of 21 values on the
data that is reported. A draft is one answer, so here the formula is put on each *token's* top K,
which is this library's reading and not the paper's.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal, final

import numpy as np
import numpy.typing as npt

from speceyes.checks import checked_choice, checked_number, checked_whole
from speceyes.gates._verdict import top_logprobs, verdict
from speceyes.scoring.scores import TOP_K, Floats
from speceyes.types import Completion, Verdict


@final
@dataclass(frozen=True, slots=True)
class ProbabilityOnlyGate:
    """Accepts a draft whose entropy, bounded from its likely tokens alone, is small.

    Args:
        threshold: The least score, in nats, from minus infinity to 0: minus the uncertainty.
        top_k: The most probabilities that are looked at, at least 1.
        alpha: Only probabilities above it are kept, 0 to 1.
        aggregate: "max" takes the most uncertain token, "sum" adds all, as the chain rule of
            entropy does along the one path that was drafted.

    Raises:
        ConfigError: An argument out of range.

    Example:
        >>> gate = ProbabilityOnlyGate(-0.5, top_k=3)
        >>> round(gate.score(np.log([[0.5, 0.4, 0.01]])), 4)  # -ln 0.4 - 0.5 ln(0.5 / 0.4)
        -0.8047
    """

    threshold: float = -0.5
    _: KW_ONLY
    top_k: int = TOP_K
    alpha: float = 0.05
    aggregate: Literal["max", "sum"] = "max"

    least: ClassVar[float] = -math.inf
    """The threshold that accepts whatever can be scored."""

    def __post_init__(self) -> None:
        checked_choice("aggregate", self.aggregate, ("max", "sum"))
        threshold = checked_number("threshold", self.threshold, -math.inf, 0)
        object.__setattr__(self, "threshold", threshold)
        object.__setattr__(self, "alpha", checked_number("alpha", self.alpha, 0, 1))
        object.__setattr__(self, "top_k", checked_whole("top_k", self.top_k, 1))

    def score(self, rows: npt.ArrayLike) -> float:
        """Minus the answer's uncertainty, in nats, at most 0.

        Args:
            rows: float[n, W] log-probabilities in nats, W >= top_k, in any order within a row.

        Raises:
            InputError: The rows can't be scored.
        """
        return self._answer(self._tokens(rows))

    def __call__(self, completion: Completion) -> Verdict:
        """The verdict on a draft; what can't be scored is rejected with a reason.

        Its score in [0, 1] is exp(-uncertainty).
        """
        return verdict(
            completion,
            top_k=self.top_k,
            threshold=self.threshold,
            tokens=self._tokens,
            answer=self._answer,
            unit=math.exp,
        )

    def _tokens(self, rows: npt.ArrayLike) -> Floats:
        top = top_logprobs(rows, self.top_k)
        chances = np.exp(top)
        kept = chances > self.alpha
        kept[:, 0] = True
        last = kept.sum(axis=1) - 1
        lowest = np.take_along_axis(top, last[:, None], axis=1)
        before = kept & (np.arange(top.shape[1]) < last[:, None])
        gained = np.where(before, chances * (top - lowest), 0.0).sum(axis=1)
        # Never positive but for rounding, where the kept probabilities sum to 1.
        scores: Floats = np.minimum(lowest[:, 0] + gained, 0.0)
        return scores

    def _answer(self, tokens: Floats) -> float:
        return float(tokens.min() if self.aggregate == "max" else tokens.sum())
