"""DeepConf's lowest group confidence, as a gate (Fu et al., arXiv 2508.15260).

Checked against the published code (facebookresearch/deepconf, helper.py): a token's confidence
is minus the mean of its top-K log-probabilities, the greedy one included; a group's is the mean
over a sliding window; a trace that is shorter than the window is one group; the lowest counts.
There it ranks whole reasoning traces of thousands of tokens, with windows as long as 2,048.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Final, final

import numpy as np
import numpy.typing as npt

from speceyes.checks import checked_number, checked_whole
from speceyes.gates._verdict import top_logprobs, verdict
from speceyes.scoring.scores import Floats
from speceyes.types import Completion, Verdict

TOP_K: Final = 20
"""K of the published code: what engines return at most by default."""


@final
@dataclass(frozen=True, slots=True)
class GroupConfidenceGate:
    """Accepts a draft whose least confident run of tokens is confident enough.

    A token's confidence C is high where its competitors are far: the mass then sits on one token
    and the mean of the K log-probabilities is very negative. C is at least ln K.

    Args:
        threshold: The least group confidence, in nats, from 0 up; below ln(top_k) all pass.
        top_k: K, at least 2. It belongs to the threshold.
        window: Tokens a group, at least 1. A draft is short, so the default is far below the
            paper's; 1 takes the least confident token.

    Raises:
        ConfigError: An argument out of range.

    Example:
        >>> gate = GroupConfidenceGate(5.0, top_k=4, window=1)
        >>> round(gate.score([[-0.1, -7.0, -8.0, -9.0]]), 3)
        6.025
    """

    threshold: float = 10.0
    _: KW_ONLY
    top_k: int = TOP_K
    window: int = 4

    least: ClassVar[float] = 0.0
    """The threshold that accepts whatever can be scored."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", checked_number("threshold", self.threshold, 0))
        object.__setattr__(self, "top_k", checked_whole("top_k", self.top_k, 2))
        object.__setattr__(self, "window", checked_whole("window", self.window, 1))

    def score(self, rows: npt.ArrayLike) -> float:
        """The lowest group confidence, in nats.

        Args:
            rows: float[n, W] log-probabilities in nats, W >= top_k, in any order within a row.

        Raises:
            InputError: The rows can't be scored.
        """
        return self._lowest(self._tokens(rows))

    def __call__(self, completion: Completion) -> Verdict:
        """The verdict on a draft; what can't be scored is rejected with a reason.

        Its score in [0, 1] is 1 - K exp(-C): one minus K times the geometric mean of the K
        probabilities.
        """
        return verdict(
            completion,
            top_k=self.top_k,
            threshold=self.threshold,
            tokens=self._tokens,
            answer=self._lowest,
            unit=lambda raw: max(0.0, 1.0 - self.top_k * math.exp(-raw)),
        )

    def _tokens(self, rows: npt.ArrayLike) -> Floats:
        confidence: Floats = -top_logprobs(rows, self.top_k).mean(axis=1)
        return confidence

    def _lowest(self, tokens: Floats) -> float:
        width = min(self.window, tokens.size)
        return float(np.lib.stride_tricks.sliding_window_view(tokens, width).mean(axis=1).min())
