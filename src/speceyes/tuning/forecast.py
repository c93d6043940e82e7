"""Expected cost of a funnel beside the agent alone, with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from speceyes.evaluation.rounds import Interval, corrected, ratio
from speceyes.evaluation.statistics import paired_bootstrap_ratio
from speceyes.tuning.observed import Floats


@final
@dataclass(frozen=True, slots=True)
class Forecast:
    """Expected cost of a funnel beside the agent alone, a query.

    Args:
        agent: The agent alone, seconds or money.
        funnel: The funnel.
        gain: Their ratio.
        low: Lower end of its 95 % interval.
        high: Upper end.
        more: Further questions after which the interval would no longer hold 1, were all else to
            stay as it is; 0 where it doesn't hold 1 now, None where no number would do.
        parts: The gain as the parts' costs alone have it, with its ends, where a run of the funnel
            as a whole has put it right; None where there was none.
    """

    agent: float
    funnel: float
    gain: float
    low: float
    high: float
    more: int | None
    parts: tuple[float, float, float] | None = None

    @property
    def settled(self) -> bool:
        """The interval is on one side of 1."""
        return not self.low <= 1 <= self.high


@final
@dataclass(frozen=True, slots=True)
class AsAWhole:
    """Seconds of the agent alone and of a chosen funnel, in turns on the same rounds.

    Args:
        rounds: Their numbers in the recorded phase.
        agent: Seconds of each under the agent alone.
        funnel: The same under the funnel.
    """

    rounds: tuple[int, ...]
    agent: tuple[float, ...]
    funnel: tuple[float, ...]

    @property
    def gain(self) -> Interval:
        """The agent's seconds over the funnel's, with its 95 % interval."""
        return ratio(self.agent, self.funnel)


def forecast(
    alone: Floats, funnel: Floats, rounds: np.ndarray[Any, Any], *, quick: bool
) -> Forecast:
    """A forecast from recorded costs.

    Args:
        alone: float64[n], what each query costs the agent alone.
        funnel: float64[n], what it is reckoned to cost under the funnel.
        rounds: int[n], the round of each.
        quick: Without an interval, which takes a moment.
    """
    means = float(alone.mean()), float(funnel.mean())
    if means[0] <= 0 or means[1] <= 0:
        return Forecast(*means, math.nan, math.nan, math.nan, None)
    gain = means[0] / means[1]
    if quick:
        return Forecast(*means, gain, math.nan, math.nan, None)
    groups = np.unique(rounds)
    sums = [[float(side[rounds == r].sum()) for r in groups] for side in (alone, funnel)]
    _, low, high = ratio(*sums)
    if low is None or high is None:  # too few rounds: by queries, which is the narrower one
        _, low, high = paired_bootstrap_ratio(alone, funnel)
    return Forecast(*means, gain, low, high, _more(gain, low, high, len(alone)))


def put_right(
    found: Forecast, whole: AsAWhole, foreseen: tuple[Sequence[float], Sequence[float]], n: int
) -> Forecast:
    """A forecast in time, corrected by a run of the funnel as a whole.

    Parts that are measured by themselves cost less than together: what falls back fills no batch,
    and what lies between the phases isn't in any of them.

    Args:
        found: From the parts.
        whole: The run.
        foreseen: Seconds of the same rounds as the parts have them, of the agent and the funnel.
        n: Questions that the forecast is from.
    """
    ends = (found.low, found.high) if math.isfinite(found.low) else (None, None)
    gain, low, high = corrected((found.gain, *ends), foreseen, (whole.agent, whole.funnel))
    parts = (found.gain, found.low, found.high)
    if low is None or high is None:
        return Forecast(found.agent, found.agent / gain, gain, math.nan, math.nan, None, parts)
    more = _more(gain, low, high, n)
    return Forecast(found.agent, found.agent / gain, gain, low, high, more, parts)


def _more(gain: float, low: float, high: float, n: int) -> int | None:
    """Further questions until the interval is on one side of 1, as it shrinks with their root."""
    if not low <= 1 <= high:
        return 0
    far = abs(math.log(gain))
    reach = (math.log(high) - math.log(low)) / 2
    if far < 1e-3:
        return None
    needed = math.ceil(n * (reach / far) ** 2)
    return max(1, needed - n) if needed < 10_000_000 else None
