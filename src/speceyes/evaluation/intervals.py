"""Intervals of 95 % beyond those of `statistics`: means, ranks and risk-coverage."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from speceyes.errors import InputError
from speceyes.evaluation.statistics import paired_bootstrap_ratio, student_t
from speceyes.scoring.ranking import auroc

Floats = npt.NDArray[np.float64]
_Z = NormalDist().inv_cdf(0.975)


def mean_interval(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> tuple[float, float, float]:
    """The mean of values that aren't negative, with its bootstrap interval (see `ratio_interval`).

    Args:
        values: float[n].
        clusters: Each row's cluster, such as its image, drawn whole; None draws rows.

    Example:
        >>> mean_interval([2.0, 2.0])
        (2.0, 2.0, 2.0)
        >>> mean_interval([1.0, 1.0, 5.0, 5.0], ["a", "a", "b", "b"])
        (3.0, 1.0, 5.0)
    """
    return ratio_interval(values, [1.0] * len(values), clusters)


def ratio_interval(
    a: Sequence[float], b: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> tuple[float, float, float]:
    """`paired_bootstrap_ratio` with 2,000 draws up to 1,000 pairs, and 400 at least above.

    Args:
        a: float[n].
        b: float[n].
        clusters: Each pair's cluster, such as its image, drawn whole; None draws pairs.

    Example:
        >>> ratio_interval([2.0, 4.0], [1.0, 2.0])
        (2.0, 2.0, 2.0)
    """
    draws = max(400, min(2000, 2_000_000 // max(len(a), 1)))
    if clusters is not None:
        a = _by_cluster(np.asarray(a, dtype=np.float64), clusters)[1].tolist()
        b = _by_cluster(np.asarray(b, dtype=np.float64), clusters)[1].tolist()
    return paired_bootstrap_ratio(a, b, resamples=draws)


def difference_interval(
    one: Sequence[bool] | npt.NDArray[np.bool_],
    other: Sequence[bool] | npt.NDArray[np.bool_],
    clusters: Sequence[Hashable],
    confidence: float = 0.95,
) -> tuple[float, float, float]:
    """share(one) - share(other) of paired answers, with its interval.

    Rows that only one of the two has right are counted, one added to either kind (Bonett and Price,
    British Journal of Mathematical and Statistical Psychology 65, 2012); rows are divided by the
    design effect of clusters as in `statistics.cluster_interval`.

    Args:
        one: bool[n], right answers of one arm.
        other: bool[n], of the other, on the same queries.
        clusters: Each row's cluster, such as its image.
        confidence: Two-sided coverage, between 0 and 1.

    Raises:
        InputError: Lengths differ, or there are no rows.

    Example:
        >>> value, low, high = difference_interval([1] * 90 + [0] * 10, [1] * 100, range(100))
        >>> round(value, 3), round(low, 3), round(high, 3)
        (-0.1, -0.162, -0.034)
    """
    a, b = np.asarray(one, dtype=bool), np.asarray(other, dtype=bool)
    if a.ndim != 1 or not a.size or a.shape != b.shape or a.size != len(clusters):
        raise InputError(f"{a.shape}, {b.shape} and {len(clusters)} clusters; one each is needed")
    gaps = a.astype(np.float64) - b
    n, value = gaps.size, float(gaps.mean())
    rows, sums = _by_cluster(gaps, clusters)
    m = rows.size
    if m < 2:
        return value, -1.0, 1.0
    plain = float((gaps**2).mean() - value**2) / n
    if m == n:
        effect, wide = 1.0, NormalDist().inv_cdf(0.5 + confidence / 2)
    else:
        between = m / (m - 1) * float(((sums - value * rows) ** 2).sum()) / n**2
        effect = max(1.0, between / plain) if plain > 0 else float((rows**2).sum()) / n
        wide = student_t(confidence, m - 1)
    size = n / effect
    up = (float((gaps > 0).mean()) * size + 1) / (size + 2)
    down = (float((gaps < 0).mean()) * size + 1) / (size + 2)
    half = wide * math.sqrt((up + down - (up - down) ** 2) / (size + 2))
    return value, max(-1.0, up - down - half), min(1.0, up - down + half)


def _by_cluster(values: Floats, clusters: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """Rows of each cluster, and the sum of their values."""
    numbers: dict[Hashable, int] = {}
    at = np.array([numbers.setdefault(one, len(numbers)) for one in clusters], dtype=np.int64)
    rows, sums = np.bincount(at).astype(np.float64), np.bincount(at, weights=values)
    return rows, sums.astype(np.float64)


def auroc_interval(
    scores: Sequence[float] | Floats,
    right: Sequence[bool] | npt.NDArray[np.bool_],
    clusters: Sequence[Hashable] | None = None,
) -> tuple[float, float, float]:
    """AUROC with a score interval: all areas from which the one measured is less than 1.96 standard
    deviations away, by the deviation that each of them would have.

    DeLong's interval (Biometrics 44, 1988) takes the deviation at the measured area, which is 0 at
    an area of 1 and too small near it. The variance at another area is that of Hanley and McNeil
    (Radiology 143, 1982) with the mean of both kinds for their numbers (Newcombe, Statistics in
    Medicine 25, 2006, method 5), scaled by DeLong's over theirs where the scores spread more. Where
    rows come in clusters, such as several of an image, DeLong's is Obuchowski's (Biometrics 53,
    1997), and at an area of 1, where nothing shows how alike they are, rows count as if they were.

    Args:
        scores: float[n].
        right: bool[n].
        clusters: Each row's cluster; None takes each row for one of its own.

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
    sizes = above.size, below.size
    known = _area_variance(value, *sizes)
    if clusters is None or len(set(clusters)) == all_scores.size:
        spread, alike, wide = _variance(won) / above.size + _variance(lost) / below.size, 1.0, _Z
    else:
        if len(clusters) != all_scores.size:
            raise InputError(f"{all_scores.size} scores and {len(clusters)} clusters")
        parts = np.zeros(all_scores.size)
        parts[labels], parts[~labels] = (won - value) / above.size, (lost - value) / below.size
        rows, sums = _by_cluster(parts, clusters)
        if rows.size < 2:
            return value, 0.0, 1.0
        spread = rows.size / (rows.size - 1) * float((sums**2).sum())
        alike, wide = float((rows**2).sum()) / all_scores.size, student_t(0.95, rows.size - 1)
    scale = max(1.0, spread / known) if known > 0 else alike

    def inside(area: float) -> bool:
        return abs(area - value) <= wide * math.sqrt(scale * _area_variance(area, *sizes))

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
    scores: Floats,
    right: npt.NDArray[np.bool_],
    clusters: Sequence[Hashable] | None = None,
    *,
    resamples: int = 400,
    seed: int = 0,
) -> tuple[float, float, float]:
    """The area under the risk-coverage curve with its bootstrap interval over clusters.

    Args:
        scores: float[n].
        right: bool[n].
        clusters: Each row's cluster, such as its image, drawn whole; None draws rows.
        resamples: How often they are drawn anew.
        seed: Seed of the draws.

    Example:
        >>> aurc_interval(np.array([2.0, 1.0]), np.array([True, True]))
        (0.0, 0.0, 0.0)
    """
    value = float(risk_coverage(scores, right)[1].mean())
    random = np.random.default_rng(seed)
    rows_of: dict[Hashable, list[int]] = {}
    for at in range(len(scores)):
        rows_of.setdefault(at if clusters is None else clusters[at], []).append(at)
    parts = [np.array(rows) for rows in rows_of.values()]
    areas = []
    for _ in range(resamples):
        drawn = random.integers(0, len(parts), len(parts)).tolist()
        taken = np.concatenate([parts[one] for one in drawn])
        areas.append(float(risk_coverage(scores[taken], right[taken])[1].mean()))
    low, high = np.percentile(areas, [2.5, 97.5])
    return value, float(low), float(high)
