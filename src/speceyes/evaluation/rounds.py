"""Intervals of speed from rounds: the unit that arms take turns in, and so the unit to resample.

Queries of one batch share its time, and what disturbs a machine lasts for more than a query, so
that times of single queries are far from independent. Rounds are nearly so: in each, every arm
answers the same queries, one arm after the other, in an order that changes from round to round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from speceyes.errors import InputError
from speceyes.evaluation.statistics import student_t

FEWEST: Final = 5
"""Rounds below which no interval is given: it would be a guess."""
WANTED: Final = 15
"""Rounds that a run is cut into, at least: fewer leave intervals of speed too short."""

Floats: TypeAlias = npt.NDArray[np.float64]
Interval: TypeAlias = tuple[float, float | None, float | None]
"""(value, low, high); the ends are None where there are too few rounds."""


def round_size(n: int, batch_size: int) -> int:
    """Queries a round: whole batches, four at most, where that leaves fifteen rounds, and fewer
    than a batch where it must.

    Example:
        >>> round_size(1000, 16), round_size(200, 16), round_size(42, 16), round_size(6, 16)
        (64, 13, 2, 1)
    """
    whole = n // (WANTED * batch_size)
    return batch_size * min(4, whole) if whole else max(1, n // WANTED)


def ratio(top: Sequence[float] | Floats, bottom: Sequence[float] | Floats) -> Interval:
    """sum(top) / sum(bottom) over rounds, with its 95 % interval where there are rounds enough.

    Each round is left out in turn (the jackknife, on the logarithm of the ratio), and Student's t
    with a degree of freedom less than there are rounds gives the interval. `simulation` in this
    folder says how often it holds the truth among batches, drift and bursts.

    Args:
        top: Seconds of each round in one arm, the agent's for a gain.
        bottom: Seconds of the same rounds in the other arm, or their queries for a mean.

    Raises:
        InputError: Lengths differ, a value isn't finite or is negative, or either sums to 0.

    Example:
        >>> ratio([2.0, 4.0], [1.0, 2.0])
        (2.0, None, None)
        >>> value, low, high = ratio([2.0, 2.2, 1.9, 2.1, 2.0, 1.8], [1.0] * 6)
        >>> round(value, 2), round(low, 2), round(high, 2)
        (2.0, 1.86, 2.15)
    """
    a, b = np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or not a.size:
        raise InputError(f"{a.shape} and {b.shape} must pair up, a value a round each")
    if not (np.isfinite(a).all() and np.isfinite(b).all()) or min(a.min(), b.min()) < 0:
        raise InputError("a round's seconds must be finite and not negative")
    if a.sum() <= 0 or b.sum() <= 0:
        raise InputError("no time was spent: there is no ratio")
    value = float(a.sum() / b.sum())
    n = a.size
    if n < FEWEST:
        return value, None, None
    rest_a, rest_b = a.sum() - a, b.sum() - b
    if min(rest_a.min(), rest_b.min()) <= 0:
        return value, None, None
    half = _jackknife(np.log(rest_a) - np.log(rest_b))
    return value, value * math.exp(-half), value * math.exp(half)


def corrected(
    forecast: Interval,
    foreseen: tuple[Sequence[float], Sequence[float]],
    measured: tuple[Sequence[float], Sequence[float]],
) -> Interval:
    """A forecast of many rounds, times what some of them showed over what they were foreseen to.

    This is the ratio estimator of survey sampling (Cochran, Sampling Techniques, 3rd ed., ch. 6),
    on ratios: what a forecast leaves out everywhere alike is put right, and chance that foreseen
    and measured rounds share cancels. The interval adds the two variances on the logarithm; that
    the rounds measured are among those foreseen makes it wider than it need be.

    Args:
        forecast: A ratio of sums over all rounds, with its ends.
        foreseen: Top and bottom of the rounds that were measured, as the forecast has them.
        measured: Top and bottom of the same rounds, as they were.

    Returns:
        The corrected ratio; without ends where the forecast has none or fewer than five rounds
        were measured.

    Raises:
        InputError: See `ratio`.

    Example:
        >>> corrected((1.5, 1.4, 1.6), ([3.0, 3.0], [2.0, 2.0]), ([3.0, 3.0], [2.5, 2.5]))
        (1.2, None, None)
    """
    before, after = ratio(*foreseen), ratio(*measured)
    if len(foreseen[0]) != len(measured[0]):
        raise InputError(f"{len(foreseen[0])} and {len(measured[0])} rounds must be the same")
    value = forecast[0] * after[0] / before[0]
    if forecast[1] is None or forecast[2] is None or before[1] is None or after[1] is None:
        return value, None, None
    sums = [np.asarray(one, dtype=np.float64) for one in (*measured, *foreseen)]
    a, b, c, d = (np.log(one.sum() - one) for one in sums)
    own = (math.log(forecast[2]) - math.log(forecast[1])) / 2
    half = math.hypot(own, _jackknife((a - b) - (c - d)))
    return value, value * math.exp(-half), value * math.exp(half)


def _jackknife(without: Floats) -> float:
    """Half the 95 % interval of a statistic, from its values with each round left out."""
    n = without.size
    spread = math.sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum()))
    return student_t(0.95, n - 1) * spread


def quantile(values: Sequence[float], rounds: Sequence[int], q: float) -> Interval:
    """The q-th percentile of queries' seconds, with its 95 % bootstrap interval over rounds.

    Example:
        >>> quantile([1.0, 2.0, 3.0], [0, 1, 2], 50)
        (2.0, None, None)
    """
    all_values, where = np.asarray(values, dtype=np.float64), np.asarray(rounds)
    value = float(np.percentile(all_values, q))
    groups = [all_values[where == one] for one in np.unique(where)]
    if len(groups) < FEWEST:
        return value, None, None
    random = np.random.default_rng(0)
    drawn = [
        float(np.percentile(np.concatenate([groups[i] for i in one]), q))
        for one in random.integers(0, len(groups), (200, len(groups)))
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return value, float(low), float(high)
