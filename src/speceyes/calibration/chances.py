"""Probability that a draft is good, by its score and the labels of a calibration.

Inductive Venn-Abers predictors (Vovk and Petej, arXiv 1211.0025): isotonic regression of the labels
on the scores, once with the new draft as a good one and once as a bad one. Of the two probabilities
that it then has, one is calibrated whatever the scores' distribution, as long as drafts are drawn
as the labelled ones were.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from speceyes.calibration.record import Calibration
from speceyes.scoring.scales import to_raw


@final
@dataclass(frozen=True, slots=True)
class Chance:
    """Probability that a draft is good, with the two that it lies between.

    Args:
        low: Where the draft is counted as a bad one, 0 to 1.
        high: Where it is counted as a good one, 0 to 1; the wider apart, the fewer the labels.
    """

    low: float
    high: float

    @property
    def probability(self) -> float:
        """The one number between them that loses least in log loss, whichever of them holds."""
        return self.high / (1 - self.low + self.high)


@final
class Chances:
    """Chances of drafts by their scores.

    Labels are known by bins: of the drafts between two neighbouring thresholds of the
    calibration's curve, which has at most 201. All in a bin get the same chance.

    Args:
        calibration: Its curve has the counts; without one every chance is unknown.

    Example:
        >>> from speceyes.calibration import Scoring, calibrate
        >>> scores, bad = [1.0] * 50 + [9.0] * 50, [1] * 25 + [0] * 75
        >>> chances = Chances(calibrate(scores, bad, Scoring("small", "ab12", top_k=20)))
        >>> [round(chances(s).probability, 2) for s in (1.0, 9.0)]
        [0.5, 0.98]
        >>> chances(None) is None
        True
    """

    def __init__(self, calibration: Calibration) -> None:
        self.calibration = calibration
        made = calibration.scoring
        curve = calibration.curve[::-1]  # the loosest first
        self._edges = [
            to_raw(point.threshold, log=made.aggregate == "log", sharpness=made.sharpness)
            for point in curve
        ]
        inner = [*calibration.curve[-2::-1], None] if curve else []
        self._bins = [(0, 0)]  # below the loosest threshold nothing is labelled
        for whole, stricter in zip(curve, inner, strict=True):
            count = whole.accepted - (stricter.accepted if stricter else 0)
            bad = whole.bad - (stricter.bad if stricter else 0)
            self._bins.append((count, count - bad))
        self._known: dict[int, Chance] = {}

    def __call__(self, separability: float | None) -> Chance | None:
        """The chance of a draft; None where it has no score, or nothing is labelled.

        Args:
            separability: Its raw score (`Verdict.separability`).
        """
        if separability is None or math.isnan(separability) or len(self._bins) == 1:
            return None
        at = bisect.bisect_right(self._edges, separability)
        if at not in self._known:
            self._known[at] = Chance(*(self._with(at, good) for good in (0, 1)))
        return self._known[at]

    def _with(self, at: int, good: int) -> float:
        """The fit at a bin, one draft more in it."""
        bins = list(self._bins)
        count, right = bins[at]
        bins[at] = (count + 1, right + good)
        return isotonic(bins)[at]


def isotonic(bins: Sequence[tuple[int, int]]) -> list[float]:
    """Shares of good ones that never fall from a bin to the next, closest to those counted.

    Pools neighbours that fall (Ayer et al., 1955). A bin of nobody has the share of the one below.

    Args:
        bins: (count, good ones of them), by rising score.

    Example:
        >>> isotonic([(4, 1), (4, 3), (2, 1), (0, 0)])
        [0.25, 0.6666666666666666, 0.6666666666666666, 0.6666666666666666]
    """
    pools: list[list[int]] = []  # count, good, bins
    for count, good in bins:
        pools.append([count, good, 1])
        while len(pools) > 1 and pools[-2][1] * pools[-1][0] >= pools[-1][1] * pools[-2][0]:
            last = pools.pop()
            pools[-1] = [a + b for a, b in zip(pools[-1], last, strict=True)]
    shares: list[float] = []
    for count, good, size in pools:
        shares += [good / count if count else 0.0] * size
    return shares
