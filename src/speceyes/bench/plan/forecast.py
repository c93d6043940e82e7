"""Forecast of replicas and latency for a rate of queries.

The model: a server takes what waits, up to a batch, has all of it judged and then drafted, and
takes the next; what no draft answers goes to the agent. An engine's replica works on up to
`slots` calls at once, each slower the more there are: n calls go at 1 / (1 + slow (n - 1)) of the
speed of one alone, so that a chain of births and deaths tells how many there are, and with it how
busy all is. How long queries take is played event by event (`speceyes.bench.plan.simulation`):
means of such a chain leave out that writing waits for all that is to be read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from speceyes.bench.plan.fleet import Costs, Fleet, Forecast
from speceyes.bench.plan.simulation import simulate
from speceyes.errors import ConfigError

__all__ = ["Costs", "Fleet", "Forecast", "forecast", "occupancy", "read_costs"]

_STATES: Final = 4096  # calls at once; beyond that a fleet is as good as overloaded
QUERIES: Final = 6000
"""Queries that a forecast plays."""


def forecast(costs: Costs, rate: float, fleet: Fleet, *, queries: int = QUERIES) -> Forecast:
    """Forecast for a fleet when `rate` queries a second come at times of chance.

    Args:
        costs: What queries cost.
        rate: Queries a second.
        fleet: What answers.
        queries: How many are played; the same ones every time.

    Raises:
        ConfigError: The rate is not above 0, or there are fewer than 100 queries.

    Example:
        >>> costs = Costs(beta=0.8, alpha=0.7, c_judge=0.05, c_draft=0.04, l_tools=1.0)
        >>> told = forecast(costs, 4.0, Fleet(large=1, small=1))
        >>> round(told.busy_large, 2), told.p95 > told.p50 > 0.09
        (0.49, True)
    """
    busy = occupancy(costs, rate, fleet)
    if not (max(busy[:2]) < 1 and busy[2] < 1):
        return Forecast(*busy, *(math.inf,) * 5)
    large, small, front = busy
    played = simulate(costs, rate, fleet, queries=queries)
    return replace(played, busy_large=large, busy_small=small, busy_front=front)


def occupancy(costs: Costs, rate: float, fleet: Fleet) -> tuple[float, float, float]:
    """(busy_large, busy_small, busy_front) of a `Forecast`; the last is not a number where one of
    the others is overloaded.

    Raises:
        ConfigError: The rate is not above 0.
    """
    if not (math.isfinite(rate) and rate > 0):
        raise ConfigError(f"rate={rate}; it must be above 0 queries a second")
    shared = fleet.small == 0
    large = rate * (costs.large + (costs.small if shared else 0.0))
    small = 0.0 if shared else rate * costs.small
    busy_large = large / (fleet.large * fleet.gain)
    busy_small = 0.0 if shared else small / (fleet.small * fleet.gain)
    there = _calls(large, fleet.large, fleet) if busy_large < 1 else math.inf
    drafting = (
        there if shared else (_calls(small, fleet.small, fleet) if busy_small < 1 else math.inf)
    )
    if not (math.isfinite(there) and math.isfinite(drafting)):
        return busy_large, busy_small, math.nan

    # Others' calls that a server's own round meets in a replica of each kind.
    agents = rate * costs.agent / large if large else 0.0
    fronts = (fleet.servers - 1) / fleet.servers * (1 - agents)
    others = there * (agents + fronts) / fleet.large
    others_small = (
        others if shared else drafting * (fleet.servers - 1) / fleet.servers / fleet.small
    )
    n = fleet.batch
    drafts = n * costs.beta

    def on_small(calls: float) -> float:
        return _slowed(calls / (fleet.small or fleet.large), others_small, fleet)

    judging = on_small(n) if costs.small_judge else _slowed(n / fleet.large, others, fleet)
    full = costs.c_judge * judging + min(1.0, drafts) * costs.c_draft * on_small(drafts)
    mine = rate / fleet.servers
    # What agents get done with every place taken.
    places = min(fleet.servers * fleet.batch / fleet.large, fleet.slots)
    most = fleet.large * places / (1 + fleet.slow * max(0.0, places - 1))
    return busy_large, busy_small, max(mine * full / fleet.batch, rate * costs.agent / most)


def _slowed(own: float, others: float, fleet: Fleet) -> float:
    """Factor by which `own` calls that come together take longer beside `others` in a replica."""
    company = max(1.0, own) + others
    if company <= fleet.slots:
        return 1 + fleet.slow * (company - 1)
    return company / fleet.gain  # further ones wait for a slot


def _calls(work: float, replicas: int, fleet: Fleet) -> float:
    """Mean number of calls at the replicas of a model on average, waiting ones included.

    Args:
        work: Seconds of work that come in a second.
        replicas: Calls go where the fewest are.
        fleet: Its slots and its gain.
    """
    if work == 0:
        return 0.0
    counts = np.arange(1, _STATES + 1)
    each = np.minimum(np.maximum(counts / replicas, 0), fleet.slots)
    speed = replicas * np.where(each <= 1, each, each / (1 + fleet.slow * (each - 1)))
    logs = np.concatenate([[0.0], np.cumsum(math.log(work) - np.log(speed))])
    shares = np.exp(logs - logs.max())
    return float((shares * np.arange(_STATES + 1)).sum() / shares.sum())


def read_costs(path: Path) -> tuple[Mapping[str, Any], float | None]:
    """(a query's costs, gain of batching or None) of a load test, of `speceyes tune` or of a demo.

    Raises:
        ConfigError: It can't be read, or has no costs.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path} can't be read: {exc}") from exc
    if isinstance(told, dict) and isinstance(told.get("alone"), dict):
        costs, whole = told["alone"], told.get("full", {}).get("per_s")
        try:
            one = Costs.of(costs)
        except ConfigError as exc:
            raise ConfigError(f"{path}: {exc}") from None
        # Both models together: what was done in a second, over what one does alone in it.
        return costs, None if not whole else max(1.0, whole * (one.large + one.small))
    model = told.get("cost_model") if isinstance(told, dict) else None
    if isinstance(model, dict):
        shares = {name: told.get(name) for name in ("beta", "alpha")}
        if model.get("one_pass") and None not in shares.values():  # every query is drafted
            shares = {"beta": 1.0, "alpha": told["beta"] * told["alpha"]}
        costs = {
            **shares,
            "c_judge": model.get("c_judge_s"),
            "c_draft": model.get("c_draft_s"),
            "l_tools": model.get("l_agent_on_fallback_s"),
        }
        return costs, 1.0  # they are shares of full batches already
    if isinstance(told, dict) and isinstance(told.get("costs"), dict):
        # Of a folder of speceyes tune: shares of full batches as well.
        best = told.get("best")
        setting = best.get("setting") if isinstance(best, dict) else None
        judge = setting.get("judge") if isinstance(setting, dict) else None
        return {**told["costs"], "small_judge": judge in ("small", "draft")}, 1.0
    raise ConfigError(
        f"{path} has no costs: load.json of speceyes bench --serve, tune.json of speceyes tune and "
        "summary.json of speceyes demo have"
    )
