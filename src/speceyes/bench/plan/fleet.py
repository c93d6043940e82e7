"""Costs of queries, the replicas that answer them, and the times that come of both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

from speceyes.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of a query where nothing else is under way, seconds, and shares of the routes.

    Args:
        beta: Share of queries that the judge leaves to a draft.
        alpha: Share of these whose draft is accepted.
        c_judge: c_J, a judgement, on the large model or, by `small_judge`, on the small one.
        c_draft: c_S, a draft, on the small one.
        l_tools: L_agent, the agent on a query that needs tools, on the large model.
        l_rejected: The agent on a query whose draft was rejected; None for as long as `l_tools`.
        spread: Standard deviation of the agent's time over its mean.
        small_judge: The small model judges, and finds the image read when it drafts.
        draft_tokens: Tokens that the small model writes for a judgement and a draft; 0: unknown.
        agent_tokens: Tokens that the agent writes, all turns together; 0: unknown. By both it is
            told what a draft waits for where both models take turns on one accelerator.

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
    small_judge: bool = False
    draft_tokens: float = 0.0
    agent_tokens: float = 0.0

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is None and one.name == "l_rejected":
                continue
            most = 1.0 if one.name in ("alpha", "beta") else math.inf
            number = isinstance(value, Real)
            if not (number and 0 <= value <= most and math.isfinite(value)):
                raise ConfigError(f"{one.name}={value!r}; a finite number from 0 to {most:g}")

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
        return self.agent + (0.0 if self.small_judge else self.c_judge)

    @property
    def small(self) -> float:
        """The small model's seconds a query."""
        return self.beta * self.c_draft + (self.c_judge if self.small_judge else 0.0)

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
        """Share of a call's work that a replica does for one call after the other, as it reads
        prompts; by Amdahl's law, from the gain. So much each further call slows the others down.
        """
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
