"""Cost and gain of speculation, reckoned from the costs of queries.

The paper's E[L] = c_J + beta c_S + (1 - beta alpha) L_agent (Sec. 3.5, arXiv 2603.23483) has one
L_agent for all queries, and its throughput bound 1 / (1 - beta alpha) leaves c_J and c_S out. Here
both are measured, and the agent's cost is kept apart by what became of a query, since those that
need tools or whose draft is rejected are the slow ones. Seconds are a query's equal share of the
batches it was part of, so that they add up to the time that models worked.

Where phases run beside each other, in front of an engine that batches, seconds of a phase hold
other phases' work. Judgements and drafts, which read and write next to nothing, cost the same
beside others as by themselves, so that batches with nothing beside them tell. What the agent costs
at the concurrency that it is served at, queries tell that went straight to it while nothing was
judged or drafted; a fallback's part of that goes by its tokens, those left out that the engine had
kept.

What the agent alone would cost on accepted drafts' queries shows on queries that go straight to
it: accepted ones are usually quick, so that fallbacks alone make speculation look better than it
is. `ScheduleConfig.probe` sends a share there; without, the gain isn't known but for a bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Final, final

import numpy as np

from speceyes import notebook
from speceyes.types import Result

ENOUGH: Final = 32
"""Queries of a kind before anything is decided by their costs."""
_BALANCE = 0.008
"""What reading a token costs over what writing one costs alone: a write reads all weights once, at
2 bytes each, and a read computes with them, on accelerators that do some 250 operations a byte; the
image encoder comes on top. Taken where no judgement of the same model tells what reading costs."""
_Z = NormalDist().inv_cdf(0.975)  # 95 %, both sides


@dataclass(frozen=True, slots=True, repr=False)
class Efficiency:
    """Costs in seconds a query, shares, and the gain that they predict. None: not measured.

    Args:
        queries: How many were looked at.
        beta: Share of queries that no judge sent to the agent.
        alpha: Share of these whose draft was accepted.
        c_judge: c_J, a judgement.
        c_draft: c_S, a draft and its gating.
        l_tools: The agent, on queries that the judge sent to it.
        l_rejected: The agent, on queries whose draft was rejected.
        l_accepted: The agent, on queries whose draft is accepted: worked out from queries that
            were sent straight to the agent, else None.
        l_agent: The agent alone, on all queries; None where too few queries were sent straight to
            it and drafts were accepted, since nobody knows then what it costs on those, or there
            is a judge, whose reading of the prompt a fallback may find paid for.
        assumed: l_agent isn't known; `at_most` takes accepted queries to cost the agent no more
            than the others, and a fallback to be spared no more than a judgement.
        speculated: A query under speculation, all phases, and the time outside all of them where
            the wall time is known.
        gain: l_agent / speculated, the predicted gain in throughput.
        interval: Its 95 % interval (delta method on the logarithm).
        at_most: What the gain is at most, where l_agent isn't known, in the sense of `assumed`.
        outside: Seconds a query outside all phases, where the wall time is known and phases didn't
            run beside each other.
        measured: l_agent / (wall seconds / queries), where the wall time is known.
        paper: 1 / (1 - beta alpha), the paper's bound.
    """

    queries: int
    beta: float | None
    alpha: float | None
    c_judge: float | None
    c_draft: float | None
    l_tools: float | None
    l_rejected: float | None
    l_accepted: float | None
    l_agent: float | None
    assumed: bool
    speculated: float | None
    gain: float | None
    interval: tuple[float, float] | None
    measured: float | None = None
    paper: float | None = None
    at_most: float | None = None
    outside: float | None = None

    def __repr__(self) -> str:
        """One line: shares, gains and seconds a query, of those that are known."""
        shares = [("beta", self.beta), ("alpha", self.alpha)]
        parts = [f"{name}={share:.3g}" for name, share in shares if share is not None]
        if self.gain is not None:
            over = "" if self.interval is None else " ({:.2f} to {:.2f})".format(*self.interval)
            parts.append(f"predicted={self.gain:.2f}x{over}")
        elif self.at_most is not None:
            parts.append(f"predicted at most {self.at_most:.2f}x")
        if self.measured is not None:
            parts.append(f"measured={self.measured:.2f}x")
        spent = [("agent", self.l_agent), ("speculated", self.speculated)]
        parts += [f"{name}={cost:.3g} s" for name, cost in spent if cost is not None]
        return f"Efficiency({', '.join([f'{self.queries} queries', *parts])})"


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """Results of a run, with its time and costs.

    Args:
        results: One a query, in order.
        seconds: Wall time of the run.
        efficiency: Its costs and its gain.
    """

    results: tuple[Result, ...]
    seconds: float
    efficiency: Efficiency

    def plot(self) -> Any:
        """A matplotlib figure of routes, scores against the threshold, and latencies.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        return notebook.plot(self.results)

    def _repr_html_(self) -> str:
        return notebook.report_html(self.results, self.seconds, self.efficiency)

    def __repr__(self) -> str:
        """One line, without the results."""
        return f"Report({len(self.results)} results, {self.seconds:.3g} s, {self.efficiency!r})"


@final
@dataclass(frozen=True, slots=True)
class Spent:
    """One query that was speculated on."""

    judge: float | None
    draft: float | None
    fallback: float | None
    accepted: bool
    drafted: bool
    """True where its draft counts: the judge, if there is one, let it through."""
    stage_alone: bool = True
    """True where nothing ran beside its judgement and its draft."""
    agent_alone: bool = True
    """True where nothing ran beside its fallback but other trajectories."""
    read: int = 0
    """Prompt tokens of its trajectory that weren't kept from before."""
    written: int = 0
    """New tokens of its trajectory."""
    judged: int = 0
    """Prompt tokens of its judgement that weren't kept from before."""

    @property
    def alone(self) -> float | None:
        """The most that the agent alone would have cost; None where it wasn't asked."""
        return None if self.fallback is None else self.fallback + (self.judge or 0.0)

    @property
    def all(self) -> float:
        """Seconds of all phases."""
        return (self.judge or 0.0) + (self.draft or 0.0) + (self.fallback or 0.0)


@final
@dataclass(frozen=True, slots=True)
class Straight:
    """One query that went straight to the agent."""

    seconds: float
    read: int = 0
    written: int = 0


@final
@dataclass(frozen=True, slots=True)
class Ledger:
    """Costs of the queries that count.

    Args:
        spent: Queries that were speculated on.
        straight: Queries that went straight to the agent, nothing but those beside them.
        by_itself: Queries that were judged and drafted with nothing beside them.
        same_model: The agent's own model judges, so that a judgement tells what reading costs.
        places: Most trajectories alive at once.
    """

    spent: Sequence[Spent]
    straight: Sequence[Straight]
    by_itself: Sequence[Spent]
    same_model: bool = False
    places: int = 1

    def priced(self) -> list[Spent] | None:
        """Queries at their costs with nothing beside them but their like; None where unknown."""
        if all(one.stage_alone and one.agent_alone for one in self.spent):
            return list(self.spent)
        if not self.straight:
            return None
        judge = _by_themselves(
            [one.judge for one in self.spent], [one.judge for one in self.by_itself]
        )
        draft = _by_themselves(
            [one.draft for one in self.spent], [one.draft for one in self.by_itself]
        )
        agent = float(np.mean([one.seconds for one in self.straight]))
        read = float(np.mean([one.read for one in self.straight]))
        written = float(np.mean([one.written for one in self.straight]))
        judged = [one.judged for one in self.spent if one.judge is not None]
        ratio = _BALANCE * self.places
        a_read = agent * ratio / (ratio * read + written) if read and written else 0.0
        if self.same_model and judge is not None and np.mean(judged or [0]) > 0:
            a_read = min(judge / float(np.mean(judged)), agent / read if read else math.inf)
        a_written = (agent - a_read * read) / written if written else 0.0

        def fallback(one: Spent) -> float | None:
            if one.fallback is None or one.agent_alone:
                return one.fallback
            if a_read or a_written:
                return a_read * one.read + a_written * one.written
            return agent

        return [
            replace(
                one,
                judge=None if one.judge is None else one.judge if one.stage_alone else judge,
                draft=None if one.draft is None else one.draft if one.stage_alone else draft,
                fallback=fallback(one),
            )
            for one in self.spent
        ]

    def reckon(
        self, seconds: float | None = None, queries: int | None = None
    ) -> tuple[Efficiency, tuple[float, float] | None]:
        """The efficiency, and the interval of its `at_most`.

        Args:
            seconds: Wall time that the queries took, for `measured` and `outside`.
            queries: How many took that time; None for those that count.
        """
        priced = self.priced()
        mixed, spent = priced is None, self.spent if priced is None else priced
        judged = [one.judge for one in spent if one.judge is not None]
        drafted = [one for one in spent if one.drafted and one.draft is not None]
        drafts = [one.draft for one in spent if one.draft is not None]
        tools = [one.fallback for one in spent if one.fallback is not None and not one.drafted]
        rejected = [one.fallback for one in spent if one.fallback is not None and one.drafted]
        # A drafter that may ask for a closer look judges as it drafts.
        screened = judged or not all(one.drafted for one in spent)
        beta = sum(one.drafted for one in spent) / len(spent) if screened else None
        alpha = sum(one.accepted for one in drafted) / len(drafted) if drafted else None
        accepted = sum(one.accepted for one in spent)
        probed = len(self.straight) >= ENOUGH
        assumed = not probed and (accepted > 0 or bool(judged))
        # A fallback finds its prompt read where the judge has read it, so that alone the agent
        # costs up to a judgement more.
        own = [one.seconds for one in self.straight]
        agent = own if probed else [one.alone for one in spent if one.alone is not None]
        costs = [one.all for one in spent]
        n = queries if queries is not None else len(spent) + len(own)
        # What runs beside something else is counted twice by the phases, and nothing is outside.
        outside = None
        if seconds is not None and n and (worked := sum(costs) + sum(own)) <= seconds:
            outside = (seconds - worked) / n
        costs = [one + (outside or 0.0) for one in costs]
        alone = [one + (outside or 0.0) for one in agent] if probed else agent
        gain, interval = _ratio(alone, costs)
        at_most, reach = (gain, interval) if assumed and not mixed else (None, None)
        l_agent = None if assumed else _mean(alone)
        if assumed:
            gain = interval = None
        settled = beta if beta is not None else 1.0
        found = Efficiency(
            queries=len(spent) + len(own),
            beta=beta,
            alpha=alpha,
            c_judge=_mean(judged),
            c_draft=_mean(drafts),
            l_tools=_mean(tools),
            l_rejected=_mean(rejected),
            l_accepted=(
                _accepted_cost(own, [*tools, *rejected], accepted / len(spent))
                if probed and accepted
                else None
            ),
            l_agent=l_agent,
            assumed=assumed,
            speculated=_mean(costs),
            gain=gain,
            interval=interval,
            measured=l_agent / (seconds / n) if l_agent and seconds and n else None,
            paper=None if alpha is None or settled * alpha >= 1 else 1 / (1 - settled * alpha),
            at_most=at_most,
            outside=outside,
        )
        return found, reach


def _accepted_cost(own: Sequence[float], rest: Sequence[float], share: float) -> float:
    """Seconds that the agent would take for an accepted query: what all cost it, less what the
    others did.

    Args:
        own: Seconds of queries that went straight to the agent, a sample of all.
        rest: Seconds of the agent on queries that weren't accepted.
        share: Share of queries that were accepted, above 0.
    """
    others = float(np.mean(rest)) if rest else 0.0
    return max(0.0, (float(np.mean(own)) - (1 - share) * others) / share)


def _by_themselves(told: Sequence[float | None], alone: Sequence[float | None]) -> float | None:
    """Seconds of a phase with nothing beside it: the mean where that was seen, or a lower quartile
    where company was less at times, whichever is less; the first of all are slow.
    """
    every = [seconds for seconds in told if seconds is not None]
    by_itself = [seconds for seconds in alone if seconds is not None]
    if not every:
        return _mean(by_itself)
    least = float(np.quantile(every, 0.25))
    return min(float(np.mean(by_itself)), least) if by_itself else least


def logged(above: Sequence[float], below: Sequence[float]) -> tuple[float, float]:
    """(logarithm of the ratio of two means, its standard deviation)."""
    spread = sum(
        float(np.var(side, ddof=1)) / (len(side) * float(np.mean(side)) ** 2)
        for side in (above, below)
    )
    return math.log(float(np.mean(above) / np.mean(below))), math.sqrt(spread)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _ratio(
    above: Sequence[float], below: Sequence[float]
) -> tuple[float | None, tuple[float, float] | None]:
    """The ratio of two means and its 95 % interval; None without enough of either."""
    if not above or not below or not np.mean(below) > 0 or not np.mean(above) > 0:
        return None, None
    ratio = float(np.mean(above) / np.mean(below))
    if min(len(above), len(below)) < ENOUGH:
        return ratio, None
    reach = math.exp(_Z * logged(above, below)[1])
    return ratio, (ratio / reach, ratio * reach)
