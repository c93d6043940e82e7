"""The loosest threshold that keeps a risk under its target, on plain arrays; numpy only.

Three choices, each for drafts that are accepted where score >= threshold:

- `crc`: the share of all queries that are accepted and bad, in expectation (conformal risk
  control, Angelopoulos et al., arXiv 2208.02814, Theorem 1);
- `overall`: the same share, with confidence 1 - delta (a fixed sequence of exact binomial tests);
- `selective`: the share of bad ones among the accepted, with confidence 1 - delta (Learn then
  Test, Angelopoulos et al., arXiv 2110.01052, with a fixed sequence).

docs/guarantee.md proves what is stated here, ties and all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from speceyes.calibration.binomial import Counts, Test, allowed_errors

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ladder:
    """Counts of drafts that thresholds accept, from the strictest threshold (rung) down.

    Args:
        thresholds: float64[m], strictly descending, on any scale.
        accepted: int64[m], how many drafts reach each.
        bad: int64[m], how many of those are bad.
        total: n, how many drafts there are, those included that no threshold accepts.
    """

    thresholds: Floats
    accepted: Counts
    bad: Counts
    total: int


def ladder(scores: Floats, bad: npt.NDArray[np.bool_], thresholds: Floats | None = None) -> Ladder:
    """The rungs on which n scored drafts stand.

    Args:
        scores: float64[n]; NaN where no threshold accepts the draft.
        bad: bool[n].
        thresholds: The rungs; None takes each distinct score for one, at which the drafts that
            tie are accepted together.

    Example:
        >>> rungs = ladder(np.array([0.9, 0.5, 0.9, np.nan]), np.array([False, True, False, True]))
        >>> rungs.thresholds.tolist(), rungs.accepted.tolist(), rungs.bad.tolist()
        ([0.9, 0.5], [2, 3], [0, 1])
    """
    there = ~np.isnan(scores)
    order = np.argsort(scores[there])
    rising, wrong = scores[there][order], bad[there][order]
    rungs = np.unique(rising if thresholds is None else thresholds)[::-1]
    below = np.searchsorted(rising, rungs, side="left")  # so that score >= threshold is accepted
    bad_below = np.concatenate([[0], np.cumsum(wrong)])
    return Ladder(
        rungs, rising.size - below, bad_below[-1] - bad_below[below], int(np.size(scores))
    )


def loosest(rungs: Ladder, passed: int, *, given: bool = False) -> float | None:
    """The threshold on the scale 0 to 1 that lets through what the first `passed` rungs do.

    Args:
        rungs: Scores, or thresholds, from 0 to 1.
        passed: How many rungs, from the strictest on.
        given: Whether the rungs are the only thresholds allowed. If not, everything above the
            next rung down does the same, and the loosest of that is the next float64.

    Returns:
        None where that lets nothing through; 0 where it is everything that was scored.
    """
    if passed == 0 or rungs.accepted[passed - 1] == 0:
        return None
    if given:
        return float(rungs.thresholds[passed - 1])
    if passed == len(rungs.thresholds):
        return 0.0
    return math.nextafter(float(rungs.thresholds[passed]), 1.0)


def crc(rungs: Ladder, target: float) -> int:
    """Number of rungs that keep (n / (n + 1)) R + 1 / (n + 1) <= target, R being bad / n.

    Computed in whole numbers, as bad + 1 <= target (n + 1) with the target as it is written in
    decimals, so that 0.07 of 100 is 7.

    Example:
        >>> crc(ladder(np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 0, 1, 1], bool)), 0.4)
        3
    """
    most = math.floor(Fraction(repr(float(target))) * (rungs.total + 1)) - 1
    return int(np.searchsorted(rungs.bad, most, side="right"))


def overall(rungs: Ladder, target: float, delta: float) -> int:
    """Number of rungs that pass P(Bin(n, target) <= bad) <= delta.

    The strictest is tested first; as `bad` only grows, all before the first failure pass.
    """
    most = allowed_errors(rungs.total, target, delta)[rungs.total]
    return int(np.searchsorted(rungs.bad, most, side="right"))


def default_start(total: int, target: float, delta: float, test: Test = "binomial") -> int:
    """Number of drafts that the strictest threshold which is tried accepts.

    It may depend on nothing but these numbers. Too few can't pass, too many hide the strict
    thresholds, and just below a number that forgives one error more is the worst place. So this
    is the least number that forgives 3, 2, 1 or 0 errors, whichever of them is first to be at
    most a third of the drafts; else the least that can pass at all. But at least a tenth of the
    drafts: no gate is worth its draft that accepts less, and the very highest scores are where a
    few errors that are sure of themselves would end it all.

    Example:
        >>> [default_start(n, 0.05, 0.1) for n in (200, 300, 2000)]
        [45, 77, 200]
    """
    allowed = allowed_errors(total, target, delta, test)
    starts = [int(np.searchsorted(allowed, errors)) for errors in (3, 2, 1, 0)]
    start = next((start for start in starts if 3 * start <= total), min(starts[-1], total))
    return max(start, total // 10)


def selective(
    rungs: Ladder,
    target: float,
    delta: float,
    *,
    test: Test = "binomial",
    start: int | None = None,
    random: np.random.Generator | None = None,
) -> int:
    """Number of rungs that pass p_value(bad, accepted) <= delta, one after the other.

    Args:
        rungs: Distinct scores with start; thresholds fixed beforehand without.
        target: The risk to stay under.
        delta: One minus the confidence.
        test: Which p-values.
        start: The first test is of the `start` best drafts, ties among them drawn by lot; the
            rungs that hold more follow. If none does, the last rung is tested, and no other.
            None tests every rung, the strictest first; one that holds few then ends it all.
        random: Draws those lots; None takes the expected number of bad ones, rounded up.

    Returns:
        How many rungs, so that the last of them may be the threshold; 0 where none may. Those
        that hold `start` drafts or fewer may not.
    """
    allowed = allowed_errors(rungs.total, target, delta, test)
    passes = rungs.bad <= allowed[rungs.accepted]
    if start is None or passes.size == 0:
        return _run(passes)
    if start >= rungs.accepted[-1]:
        return len(passes) if passes[-1] else 0
    # Rungs that hold more drafts are what may be certified; one that holds just so many may not,
    # for where scores tie, its risk is another than that of the drafts drawn by lot.
    first = int(np.searchsorted(rungs.accepted, start, side="right"))
    before, bad_before = (
        (int(rungs.accepted[first - 1]), int(rungs.bad[first - 1])) if first else (0, 0)
    )
    if drawn := start - before:
        tied, bad_tied = int(rungs.accepted[first]) - before, int(rungs.bad[first]) - bad_before
        if random is None:
            bad_before += -(-bad_tied * drawn // tied)
        else:
            bad_before += int(random.hypergeometric(bad_tied, tied - bad_tied, drawn))
    if bad_before > allowed[start]:
        return 0
    more = _run(passes[first:])
    return first + more if more else 0


def _run(passes: npt.NDArray[np.bool_]) -> int:
    """Number that hold before the first that doesn't."""
    failed = np.flatnonzero(~passes)
    return int(failed[0]) if failed.size else len(passes)
