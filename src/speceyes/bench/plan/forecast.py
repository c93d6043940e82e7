"""Forecast of replicas and latency for a rate of queries.

The model: a server takes what waits, up to a batch, has all of it judged and then drafted, and
takes the next; what no draft answers goes to the agent. An engine's replica works on up to
`slots` calls at once, each slower the more there are: n calls go at 1 / (1 + slow (n - 1)) of the
speed of one alone. Where every call has its equal share of a replica, the number of calls there
depends on how calls come and on how much work they bring, and not on how that work is spread (the
insensitivity of processor sharing), so that a chain of births and deaths gives it.
`speceyes.bench.plan.simulation` plays the same fleet event by event.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from speceyes.errors import ConfigError

_STATES = 4096  # calls at once; beyond that a fleet is as good as overloaded
_SAMPLES = 40_000


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of a query where nothing else is under way, seconds, and shares of the routes.

    Args:
        beta: Share of queries that the judge leaves to a draft.
        alpha: Share of these whose draft is accepted.
        c_judge: c_J, a judgement, on the large model.
        c_draft: c_S, a draft, on the small one.
        l_tools: L_agent, the agent on a query that needs tools, on the large model.
        l_rejected: The agent on a query whose draft was rejected; None for as long as `l_tools`.
        spread: Standard deviation of the agent's time over its mean.

    Raises:
        ConfigError: A share is not from 0 to 1, or a time is below 0.

    Example:
        >>> costs = Costs(beta=0.8, alpha=0.5, c_judge=0.1, c_draft=0.1, l_tools=1.0)
        >>> round(costs.large, 3), round(costs.small, 3)
        (0.7, 0.08)
    """

    beta: float
    alpha: float
    c_judge: float
    c_draft: float
    l_tools: float
    l_rejected: float | None = None
    spread: float = 0.5

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is None and one.name == "l_rejected":
                continue
            most = 1.0 if one.name in ("alpha", "beta") else math.inf
            if not (0 <= value <= most and math.isfinite(value)):
                raise ConfigError(f"{one.name}={value}; a finite number from 0 to {most:g}")

    @property
    def rejected(self) -> float:
        """The agent on a query whose draft was rejected, seconds."""
        return self.l_tools if self.l_rejected is None else self.l_rejected

    @property
    def agent(self) -> float:
        """The agent's seconds a query, over all queries."""
        return (1 - self.beta) * self.l_tools + self.beta * (1 - self.alpha) * self.rejected

    @property
    def large(self) -> float:
        """The large model's seconds a query."""
        return self.c_judge + self.agent

    @property
    def small(self) -> float:
        """The small model's seconds a query."""
        return self.beta * self.c_draft

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Costs:
        """From the fields of `pipeline.efficiency.Efficiency`, or of a load test's "alone".

        Raises:
            ConfigError: One that is needed is missing.
        """
        found = {one.name: told.get(one.name) for one in fields(cls)}
        if found["l_tools"] is None:  # no query needed tools
            found["l_tools"] = told.get("l_agent") or found["l_rejected"]
        missing = [name for name in ("beta", "alpha", "c_judge", "c_draft") if found[name] is None]
        if missing or found["l_tools"] is None:
            missing += ["l_tools"] if found["l_tools"] is None else []
            raise ConfigError(f"the costs don't tell {', '.join(missing)}: measure more queries")
        return cls(**{name: value for name, value in found.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Fleet:
    """Replicas that answer.

    Args:
        large: Replicas of the large model.
        small: Replicas of the small one; 0 where both models share the large one's replicas.
        servers: `speceyes serve` processes in front.
        slots: Calls that a replica works on at once.
        gain: How many calls' work a replica with all slots full does in the time of one alone;
            from 1, where batching gains nothing, to `slots`, where calls don't hinder each other.
        batch: Queries that a server judges and drafts together, and trajectories that it has.

    Raises:
        ConfigError: A number is out of range.
    """

    large: int
    small: int
    servers: int = 1
    slots: int = 16
    gain: float = 4.0
    batch: int = 16

    def __post_init__(self) -> None:
        for name, least in (("large", 1), ("small", 0), ("servers", 1), ("slots", 1), ("batch", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)}; it must be at least {least}")
        if not 1 <= self.gain <= self.slots:
            raise ConfigError(f"gain={self.gain}; from 1 to the number of slots ({self.slots})")

    @property
    def slow(self) -> float:
        """Slow-down of the others by each further call in a replica, as a share."""
        return 0.0 if self.slots == 1 else (self.slots / self.gain - 1) / (self.slots - 1)


@dataclass(frozen=True, slots=True)
class Forecast:
    """Behaviour of a fleet under a rate. Times are in seconds; infinite where it can't keep up.

    Args:
        busy_large: Share of what the large model's replicas can do; those of both models, where
            they share.
        busy_small: The same of the small one.
        busy_front: Share of what the servers can do: of their rounds of judging and drafting, or
            of their places for trajectories, whichever is larger.
        mean: From acceptance to answer.
        p50: The median.
        p95: Of a hundred queries, five take longer.
        drafted: The mean of those that a draft answers.
        by_agent: The mean of the others.
    """

    busy_large: float
    busy_small: float
    busy_front: float
    mean: float
    p50: float
    p95: float
    drafted: float
    by_agent: float

    @property
    def stable(self) -> bool:
        """True where it keeps up."""
        return math.isfinite(self.mean)


def forecast(costs: Costs, rate: float, fleet: Fleet) -> Forecast:
    """Forecast for a fleet when `rate` queries a second come at times of chance.

    Raises:
        ConfigError: The rate is not above 0.

    Example:
        >>> costs = Costs(beta=0.8, alpha=0.7, c_judge=0.05, c_draft=0.04, l_tools=1.0)
        >>> told = forecast(costs, 4.0, Fleet(large=1, small=1))
        >>> round(told.busy_large, 2), told.p95 > told.p50 > 0.09
        (0.49, True)
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
        return _overloaded(busy_large, busy_small, math.nan)

    # Others' calls that a server's own round meets in a replica of each kind.
    agents = rate * costs.agent / large if large else 0.0
    fronts = (fleet.servers - 1) / fleet.servers * (1 - agents)
    others = there * (agents + fronts) / fleet.large
    others_small = (
        others if shared else drafting * (fleet.servers - 1) / fleet.servers / fleet.small
    )

    def round_of(n: float) -> float:
        """Seconds of a round of n queries."""
        drafts = n * costs.beta
        return costs.c_judge * _slowed(n / fleet.large, others, fleet) + min(1.0, drafts) * (
            costs.c_draft * _slowed(drafts / (fleet.small or fleet.large), others_small, fleet)
        )

    mine = rate / fleet.servers
    stretch = there / large if large else 1.0
    alive = mine * costs.agent * stretch / fleet.batch
    busy_front = max(mine * round_of(fleet.batch) / fleet.batch, alive)
    if busy_front >= 1:
        return _overloaded(busy_large, busy_small, busy_front)
    n = 1.0
    for _ in range(200):  # as many as come during a round make the next one
        n = 0.5 * n + 0.5 * min(max(1.0, mine * round_of(n)), fleet.batch)
    taken = round_of(n)
    waits = min(1.0, mine * taken / n)
    return _told(costs, stretch, taken, waits, (busy_large, busy_small, busy_front))


def _told(
    costs: Costs, stretch: float, taken: float, waits: float, busy: tuple[float, float, float]
) -> Forecast:
    """The latencies. One that finds a round under way waits for its end; then comes its own."""
    chance = np.random.default_rng(0)
    begun = chance.random(_SAMPLES) < waits
    front = taken * (1 + np.where(begun, chance.random(_SAMPLES), 0.0))
    # Beside its own spread, the agent's time has that of the company it keeps. In a single shared
    # server (M/M/1) the squared deviation grows by 2 r / (2 - r) at a load of r; with many slots,
    # by about half of that in simulations.
    crowd = 1 - 1 / stretch if stretch > 1 else 0.0
    squared = costs.spread**2 + crowd / (2 - crowd)
    route = chance.random(_SAMPLES)
    tools, rejected = (
        route >= costs.beta,
        (route >= costs.beta * costs.alpha) & (route < costs.beta),
    )
    agent = np.where(tools, costs.l_tools, np.where(rejected, costs.rejected, 0.0)) * stretch
    spread = chance.gamma(1 / squared, squared, _SAMPLES) if squared > 0 else np.ones(_SAMPLES)
    whole = front + agent * spread
    by_draft = ~(tools | rejected)
    mean_front = taken * (1 + waits / 2)
    share = 1 - costs.beta * costs.alpha
    by_agent = mean_front + (costs.agent * stretch / share if share else 0.0)
    return Forecast(
        *busy,
        mean=mean_front + costs.agent * stretch,
        p50=float(np.percentile(whole, 50)),
        p95=float(np.percentile(whole, 95)),
        drafted=mean_front if by_draft.any() else math.nan,
        by_agent=by_agent if share else math.nan,
    )


def _overloaded(large: float, small: float, front: float) -> Forecast:
    return Forecast(large, small, front, *(math.inf,) * 5)


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
        return told["costs"], 1.0  # of a folder of speceyes tune: shares of full batches as well
    raise ConfigError(
        f"{path} has no costs: load.json of speceyes bench --serve, tune.json of speceyes tune and "
        "summary.json of speceyes demo have"
    )
