"""Intervals of 95 % beyond those of `statistics`: means, ranks and risk-coverage."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from speceyes.errors import InputError
from speceyes.evaluation.statistics import auroc, paired_bootstrap_ratio

Floats = npt.NDArray[np.float64]
_Z = 1.959963984540054


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of values that aren't negative, with its bootstrap interval (see `ratio_interval`).

    Example:
        >>> mean_interval([2.0, 2.0])
        (2.0, 2.0, 2.0)
    """
    return ratio_interval(values, [1.0] * len(values))


def ratio_interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """`paired_bootstrap_ratio` with 2,000 draws up to 1,000 pairs, and 400 at least above.

    Example:
        >>> ratio_interval([2.0, 4.0], [1.0, 2.0])
        (2.0, 2.0, 2.0)
    """
    draws = max(400, min(2000, 2_000_000 // max(len(a), 1)))
    return paired_bootstrap_ratio(a, b, resamples=draws)


def auroc_interval(
    scores: Sequence[float] | Floats, right: Sequence[bool] | npt.NDArray[np.bool_]
) -> tuple[float, float, float]:
    """AUROC with a score interval: all areas from which the one measured is less than 1.96 standard
    deviations away, by the deviation that each of them would have.

    DeLong's interval (Biometrics 44, 1988) takes the deviation at the measured area, which is 0 at
    an area of 1 and too small near it. The variance at another area is that of Hanley and McNeil
    (Radiology 143, 1982) with the mean of both kinds for their numbers (Newcombe, Statistics in
    Medicine 25, 2006, method 5), scaled by DeLong's over theirs where the scores spread more.

    Raises:
        InputError: See `auroc`.

    Example:
        >>> scores, right = [0.1, 0.4, 0.35, 0.8] * 9, [False, False, True, True] * 9
        >>> value, low, high = auroc_interval(scores, right)
        >>> round(value, 3), round(low, 3), round(high, 3)
        (0.75, 0.552, 0.874)
        >>> value, low, high = auroc_interval([1, 2, 3, 4] * 9, [False, False, True, True] * 9)
        >>> value, round(low, 3), high
        (1.0, 0.887, 1.0)
    """
    value = auroc(scores, right)
    all_scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(right, dtype=bool)
    above, below = all_scores[labels], np.sort(all_scores[~labels])
    won = _wins(above, below) / below.size
    lost = 1 - _wins(below, np.sort(above)) / above.size
    spread = _variance(won) / above.size + _variance(lost) / below.size
    sizes = above.size, below.size
    known = _area_variance(value, *sizes)
    scale = max(1.0, spread / known) if known > 0 else 1.0

    def inside(area: float) -> bool:
        return abs(area - value) <= _Z * math.sqrt(scale * _area_variance(area, *sizes))

    return value, _edge(inside, value, 0.0), _edge(inside, value, 1.0)


def _area_variance(area: float, above: int, below: int) -> float:
    """Variance of a measured area where that is the true one (Newcombe's method 5)."""
    more = (above + below) / 2 - 1
    term = 1 + more * ((1 - area) / (2 - area) + area / (1 + area))
    return area * (1 - area) * term / (above * below)


def _edge(inside: Callable[[float], bool], value: float, end: float) -> float:
    """The last number from a value towards an end that is inside."""
    if value == end:
        return end
    near, far = value, end
    for _ in range(60):
        middle = (near + far) / 2
        near, far = (middle, far) if inside(middle) else (near, middle)
    return near


def _wins(values: Floats, against: Floats) -> Floats:
    """Number of the sorted `against` each value beats, ties half."""
    left = np.searchsorted(against, values, side="left")
    won: Floats = (left + np.searchsorted(against, values, side="right")) / 2
    return won


def _variance(values: Floats) -> float:
    return float(values.var(ddof=1)) if values.size > 1 else 0.0


def risk_coverage(
    scores: Sequence[float] | Floats, right: Sequence[bool] | npt.NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """(coverage, risk) float64[n] each: the share of wrong answers among the best-scored i of n.

    Equal scores can't be told apart, so that within a tie errors are spread evenly.

    Raises:
        InputError: There are no answers, lengths differ, or a score is NaN.

    Example:
        >>> coverage, risk = risk_coverage([3.0, 2.0, 1.0, 0.0], [True, True, False, True])
        >>> risk.round(3).tolist()
        [0.0, 0.0, 0.333, 0.25]
    """
    values, labels = np.asarray(scores, dtype=np.float64), np.asarray(right, dtype=bool)
    if values.ndim != 1 or values.size == 0 or values.shape != labels.shape:
        raise InputError(f"scores {values.shape} and labels {labels.shape} must pair up, one each")
    if np.isnan(values).any():
        raise InputError("scores holds NaN; give answers without a score -inf")
    _, tie, counts = np.unique(-values, return_inverse=True, return_counts=True)
    errors = np.bincount(tie, weights=~labels) / counts
    risk: Floats = np.cumsum(np.repeat(errors, counts)) / np.arange(1, values.size + 1)
    return np.arange(1, values.size + 1) / values.size, risk


def aurc_interval(
    scores: Floats, right: npt.NDArray[np.bool_], *, resamples: int = 400, seed: int = 0
) -> tuple[float, float, float]:
    """The area under the risk-coverage curve with its bootstrap interval over queries.

    Example:
        >>> aurc_interval(np.array([2.0, 1.0]), np.array([True, True]))
        (0.0, 0.0, 0.0)
    """
    value = float(risk_coverage(scores, right)[1].mean())
    random = np.random.default_rng(seed)
    drawn = random.integers(0, len(scores), (resamples, len(scores)))
    areas = [float(risk_coverage(scores[at], right[at])[1].mean()) for at in drawn]
    low, high = np.percentile(areas, [2.5, 97.5])
    return value, float(low), float(high)
