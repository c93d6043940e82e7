"""Gain of speculation for each choice of judge, and the break-even, from the costs of the phases.

Costs are seconds of an accelerator a query, so that gains are those in throughput where the
accelerator is full, as it is behind an engine that batches. With A the agent's cost, c_J and c_S
those of a judgement and a draft, beta the share of queries that the judge lets through, alpha the
share of their drafts that is accepted, and f the agent's cost on queries that reach it over its
mean (above 1, since these are the hard ones), a query under speculation costs

    large judge:  c_J + beta c_S + (1 - beta alpha) f (A - s)
    small judge:  c_S + (1 - beta alpha) f A

s is the part that the agent need not do again where the engine keeps the image which the judge has
read, else 0. The small model judges and drafts on one reading of the image, so that its judgement
adds next to nothing. Where c_J and c_S are left out and f is 1, the gain is the paper's bound
1 / (1 - beta alpha) (Sec. 3.5, arXiv 2603.23483).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias, final

from speceyes.checks import checked_number
from speceyes.errors import ConfigError

Judge: TypeAlias = Literal["large", "large, image kept", "small"]
"""Model that judges: the large one with nothing reused, the large one on an engine that keeps the
image for the agent, or the small one together with its draft."""


@final
@dataclass(frozen=True, slots=True)
class PhaseCosts:
    """Seconds a query of each phase, all measured, or computed, in one way.

    Args:
        agent: A, the agent on an average query, alone.
        judge: c_J, a judgement by the large model.
        draft: c_S, a draft by the small model, its judgement included where it judges.
        shared: s, the part of the agent's cost that a kept image saves it; at most `agent`.
        harder: f, cost of the agent on the queries that reach it, over its mean.

    Raises:
        ConfigError: A cost that isn't a number from 0, or more shared than there is.
    """

    agent: float
    judge: float
    draft: float
    shared: float = 0.0
    harder: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = checked_number(field.name, getattr(self, field.name), 0)
            if math.isinf(value):
                raise ConfigError(f"{field.name}={value}; it must be finite")
            object.__setattr__(self, field.name, value)
        if self.agent <= 0 or self.harder <= 0 or self.shared > self.agent:
            raise ConfigError(
                f"agent={self.agent}, harder={self.harder}, shared={self.shared}; the first two "
                "must be above 0, and no more can be shared than the agent costs"
            )


@final
@dataclass(frozen=True, slots=True)
class Worth:
    """Speculation with one choice of judge against the agent alone.

    Args:
        judge: The choice.
        cost: Seconds a query under speculation.
        gain: The agent's cost over it; above 1 speculation saves time.
        break_even: The least alpha (share of the drafts that are accepted) at which gain is 1, for
            the same beta; None where even alpha = 1 doesn't pay.
    """

    judge: Judge
    cost: float
    gain: float
    break_even: float | None


def worth(costs: PhaseCosts, *, beta: float, alpha: float) -> tuple[Worth, ...]:
    """Every choice of judge, the best gain first.

    Args:
        costs: Of the phases.
        beta: Share of queries that the judge lets through, 0 to 1.
        alpha: Share of their drafts that is accepted, 0 to 1.

    Raises:
        ConfigError: A share is out of range.

    Example:
        >>> costs = PhaseCosts(agent=0.265, judge=0.203, draft=0.088, shared=0.201)
        >>> [(found.judge, round(found.gain, 2)) for found in worth(costs, beta=0.8, alpha=0.7)]
        [('small', 1.3), ('large, image kept', 0.88), ('large', 0.68)]
    """
    beta, alpha = checked_number("beta", beta, 0, 1), checked_number("alpha", alpha, 0, 1)
    found = []
    for judge, before, agent in (
        ("large", costs.judge + beta * costs.draft, costs.agent),
        ("large, image kept", costs.judge + beta * costs.draft, costs.agent - costs.shared),
        ("small", costs.draft, costs.agent),
    ):
        agent *= costs.harder
        cost = before + (1 - beta * alpha) * agent
        gain = costs.agent / cost if cost > 0 else math.inf
        found.append(Worth(judge, cost, gain, _break_even(costs.agent, before, agent, beta)))  # type: ignore[arg-type]
    return tuple(sorted(found, key=lambda one: -one.gain))


def _break_even(alone: float, before: float, agent: float, beta: float) -> float | None:
    """The least alpha with before + (1 - beta alpha) agent <= alone."""
    over = before + agent - alone
    if over <= 0:
        return 0.0
    saved = beta * agent
    return over / saved if over <= saved else None
