"""Intervals, ranks and tests for measured answers; numpy only."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from speceyes.errors import InputError


def _check_confidence(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise InputError(f"confidence={confidence}; it must lie strictly between 0 and 1")


def _numbers(
    values: Sequence[float] | npt.NDArray[np.floating], what: str
) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise InputError(f"{what} has shape {array.shape}; it must be one-dimensional, not empty")
    if not np.isfinite(array).all():
        raise InputError(f"{what} holds NaN or infinity; leave such measurements out first")
    return array


def wilson_interval(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a share, which stays inside [0, 1] and is sound at 0 and n.

    Args:
        k: Successes.
        n: Trials; with none, nothing is known and the interval is (0, 1).
        confidence: Two-sided coverage, between 0 and 1.

    Raises:
        InputError: k is not within 0 to n, or confidence not strictly within 0 to 1.

    Example:
        >>> low, high = wilson_interval(95, 100)
        >>> f"{low:.4f} {high:.4f}"
        '0.8882 0.9785'
    """
    _check_confidence(confidence)
    if n < 0 or not 0 <= k <= n:
        raise InputError(f"k={k} of n={n}; 0 <= k <= n is needed")
    if n == 0:
        return 0.0, 1.0
    return _wilson(k / n, n, NormalDist().inv_cdf(0.5 + confidence / 2))


def _wilson(share: float, n: float, z: float) -> tuple[float, float]:
    z2 = z * z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At the ends the interval touches 0 and 1 exactly; rounding must not push it past them.
    low = 0.0 if share == 0 else max(0.0, centre - half)
    high = 1.0 if share == 1 else min(1.0, centre + half)
    return low, high


def student_t(confidence: float, freedom: int) -> float:
    """The two-sided quantile of Student's t, by the expansion of Cornish and Fisher; right to a
    hundredth from four degrees of freedom on (Abramowitz and Stegun, 26.7.5).

    Example:
        >>> round(student_t(0.95, 9), 2), round(student_t(0.95, 4), 2)
        (2.26, 2.78)
    """
    z, v = NormalDist().inv_cdf(0.5 + confidence / 2), freedom
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )


def cluster_interval(
    right: Sequence[bool] | npt.NDArray[np.bool_],
    clusters: Sequence[Hashable],
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Wilson's interval of a share whose rows come in clusters, such as questions of one image.

    n is divided by the design effect: the variance of the share between clusters (a ratio of means
    over them) over that of as many independent rows, at least 1; where all rows are alike, so that
    nothing shows it, by the rows of a cluster (mean, weighted by rows). The quantile is Student's,
    with a degree of freedom less than there are clusters.

    Args:
        right: bool[n].
        clusters: Each row's cluster.
        confidence: Two-sided coverage, between 0 and 1.

    Raises:
        InputError: Lengths differ, or confidence isn't strictly within 0 to 1.

    Example:
        >>> low, high = cluster_interval([True] * 95 + [False] * 5, range(100))
        >>> f"{low:.3f} {high:.3f}"
        '0.888 0.978'
        >>> images = [i // 5 for i in range(100)]
        >>> low, high = cluster_interval([True] * 95 + [False] * 5, images)
        >>> low < 0.86
        True
    """
    _check_confidence(confidence)
    found = np.asarray(right, dtype=bool)
    if found.ndim != 1 or found.size != len(clusters):
        raise InputError(f"{found.shape} answers and {len(clusters)} clusters; one each is needed")
    n = found.size
    numbers: dict[Hashable, int] = {}
    at = np.array([numbers.setdefault(one, len(numbers)) for one in clusters], dtype=np.int64)
    m = len(numbers)
    if m == n:
        return wilson_interval(int(found.sum()), n, confidence)
    if m < 2:
        return 0.0, 1.0
    rows, hits = np.bincount(at), np.bincount(at, weights=found)
    share = float(found.mean())
    if 0 < share < 1:
        between = m / (m - 1) * float(((hits - share * rows) ** 2).sum()) / n**2
        effect = max(1.0, between / (share * (1 - share) / n))
    else:
        effect = float((rows**2).sum()) / n
    return _wilson(share, n / effect, student_t(confidence, m - 1))


def percentile(values: Sequence[float] | npt.NDArray[np.floating], q: float) -> float:
    """The q-th percentile (0 to 100), linear between the two nearest values.

    Raises:
        InputError: There are no values, one isn't finite, or q is not within 0 to 100.

    Example:
        >>> percentile([1.0, 2.0, 3.0, 4.0], 50)
        2.5
    """
    if not 0 <= q <= 100:
        raise InputError(f"q={q}; a percentile lies within 0 to 100")
    return float(np.percentile(_numbers(values, "values"), q))


def paired_bootstrap_ratio(
    a: Sequence[float] | npt.NDArray[np.floating],
    b: Sequence[float] | npt.NDArray[np.floating],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """sum(a) / sum(b) with its percentile interval, resampling the queries in pairs.

    Pairs are kept together, because the same query is slow or fast for both.

    Args:
        a: float[n], one value a query, for example seconds of the agent.
        b: float[n], the same queries' values in the other arm; their sum must be positive.
        confidence: Two-sided coverage, between 0 and 1.
        resamples: How often the n queries are drawn anew.
        seed: Seed of the draws.

    Returns:
        (ratio, low, high).

    Raises:
        InputError: The lengths differ, a value isn't finite or is negative, or b sums to 0.

    Example:
        >>> paired_bootstrap_ratio([2.0, 4.0], [1.0, 2.0])
        (2.0, 2.0, 2.0)
    """
    _check_confidence(confidence)
    top, bottom = _numbers(a, "a"), _numbers(b, "b")
    if top.size != bottom.size:
        raise InputError(f"a has {top.size} values and b {bottom.size}; pairs are needed")
    if resamples < 1:
        raise InputError(f"resamples={resamples}; at least 1 is needed")
    if (top < 0).any() or (bottom < 0).any() or bottom.sum() <= 0:
        raise InputError("a and b must not be negative, and b must not sum to 0")
    random = np.random.default_rng(seed)
    ratios: list[float] = []
    at_once = max(1, 1_000_000 // top.size)  # bounds the memory of the drawn positions
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = random.integers(0, top.size, (rows, top.size))
        above, below = top[drawn].sum(axis=1), bottom[drawn].sum(axis=1)
        kept = below > 0  # a draw of nothing but zeros has no ratio
        ratios += (above[kept] / below[kept]).tolist()
    tail = 50 * (1 - confidence)
    low, high = np.percentile(ratios, [tail, 100 - tail])
    return float(top.sum() / bottom.sum()), float(low), float(high)


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided exact McNemar test of two arms on the same queries.

    Args:
        only_a: Queries that only the first arm got right.
        only_b: Queries that only the second arm got right.

    Returns:
        The p-value: how likely a split at least this uneven is where both are equally good.

    Raises:
        InputError: A count is negative.

    Example:
        >>> mcnemar_exact(1, 9)
        0.021484375
    """
    if only_a < 0 or only_b < 0:
        raise InputError(f"only_a={only_a}, only_b={only_b}; counts are not negative")
    n = only_a + only_b
    tail, ways = 0, 1  # ways: n over i, from one i to the next
    for i in range(min(only_a, only_b) + 1):
        tail += ways
        ways = ways * (n - i) // (i + 1)
    return min(1.0, tail / (1 << n) * 2)


def mcnemar_clusters(
    one: Sequence[bool] | npt.NDArray[np.bool_],
    other: Sequence[bool] | npt.NDArray[np.bool_],
    clusters: Sequence[Hashable],
) -> float:
    """McNemar's exact test of two arms on rows that come in clusters, such as questions of one
    image.

    Where both arms are equally good on every cluster, they may change places in it: the sign of
    its difference is a fair coin, one a cluster, not one a row. Of the sum of all differences the
    distribution under these coins is computed whole. With a row a cluster it is `mcnemar_exact`.

    Args:
        one: bool[n], right answers of one arm.
        other: bool[n], of the other, on the same queries.
        clusters: Each row's cluster.

    Returns:
        The two-sided p-value.

    Raises:
        InputError: Lengths differ.

    Example:
        >>> one, other = [True] * 8 + [False] * 2, [False] * 8 + [True] * 2
        >>> mcnemar_clusters(one, other, range(10)), mcnemar_exact(8, 2)
        (0.109375, 0.109375)
        >>> mcnemar_clusters(one, other, [0] * 8 + [1] * 2)
        1.0
    """
    a, b = np.asarray(one, dtype=bool), np.asarray(other, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape or a.size != len(clusters):
        raise InputError(f"{a.shape}, {b.shape} and {len(clusters)} clusters; one each is needed")
    gaps: dict[Hashable, int] = {}
    for at in np.flatnonzero(a != b).tolist():
        gaps[clusters[at]] = gaps.get(clusters[at], 0) + (1 if a[at] else -1)
    sizes = [abs(gap) for gap in gaps.values() if gap]
    if not sizes:
        return 1.0
    if max(sizes) == 1:
        up = sum(gap > 0 for gap in gaps.values())
        return mcnemar_exact(up, len(sizes) - up)
    whole = sum(sizes)
    chances = np.zeros(2 * whole + 1)  # of each sum, from -whole to whole
    chances[whole] = 1.0
    for size in sizes:
        chances = (np.roll(chances, size) + np.roll(chances, -size)) / 2
    far = np.abs(np.arange(-whole, whole + 1)) >= abs(sum(gaps.values()))
    return min(1.0, float(chances[far].sum()))
