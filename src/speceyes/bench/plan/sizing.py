"""The smallest fleet for a rate of queries."""

from __future__ import annotations

import math
from dataclasses import replace

from speceyes.bench.plan.forecast import QUERIES, Costs, Fleet, Forecast, forecast, occupancy
from speceyes.errors import ConfigError

_MOST_REPLICAS = 4096


def sized(
    costs: Costs,
    rate: float,
    fleet: Fleet,
    *,
    busy: float = 0.7,
    p95: float | None = None,
    queries: int = QUERIES,
) -> tuple[Fleet, Forecast]:
    """The smallest fleet whose parts are busy for at most a share, and whose p95 is as wanted.

    Args:
        costs: What queries cost.
        rate: Queries a second.
        fleet: Whose slots, gain and batch are taken, and whether the models share replicas.
        busy: Largest share of what each part can do, so that there is head-room.
        p95: Largest p95, seconds; None for any.
        queries: See `forecast`.

    Returns:
        The fleet with its numbers, and what it does.

    Raises:
        ConfigError: busy is not between 0 and 1, or no fleet reaches the p95.

    Example:
        >>> costs = Costs(beta=0.8, alpha=0.7, c_judge=0.05, c_draft=0.04, l_tools=1.0)
        >>> fleet, told = sized(costs, 40.0, Fleet(1, 1))
        >>> fleet.large, fleet.small, fleet.servers
        (8, 1, 4)
    """
    if not 0 < busy < 1:
        raise ConfigError(f"busy={busy}; a share between 0 and 1")
    if p95 is not None:
        one = replace(fleet, large=1, small=min(fleet.small, 1), servers=1)
        least = forecast(costs, 1e-6, one, queries=queries)
        if p95 < least.p95:
            raise ConfigError(
                f"no fleet has a p95 of {p95:g} s: a query alone has {least.p95:.3g} s. Faster "
                "engines or another threshold are needed, not more of them"
            )
    shared = fleet.small == 0
    whole = costs.large + (costs.small if shared else 0.0)
    large = max(1, math.ceil(rate * whole / (busy * fleet.gain)))
    small = 0 if shared else max(1, math.ceil(rate * costs.small / (busy * fleet.gain)))
    one = replace(fleet, large=large, small=small, servers=1)
    while max(one.large, one.small, one.servers) <= _MOST_REPLICAS:
        parts = occupancy(costs, rate, one)
        if max(parts) <= busy:  # false where one is not a number
            told = forecast(costs, rate, one, queries=queries)
            if p95 is None or told.p95 <= p95:
                return one, told
        one = _grown(one, parts)
    wanted = "" if p95 is None else f", with a p95 of {p95:g} s,"
    raise ConfigError(f"{rate:g} queries a second{wanted} take more than {_MOST_REPLICAS} replicas")


def _grown(fleet: Fleet, parts: tuple[float, float, float]) -> Fleet:
    """A larger one, where it is busiest."""
    named = dict(zip(("large", "small", "front"), parts, strict=True))
    worst = max(named, key=lambda name: -1.0 if math.isnan(named[name]) else named[name])
    if worst == "front":
        return replace(fleet, servers=fleet.servers + 1)
    if worst == "large":
        return replace(fleet, large=fleet.large + max(1, fleet.large // 8))
    return replace(fleet, small=fleet.small + 1)
