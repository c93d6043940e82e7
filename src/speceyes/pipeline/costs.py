"""Costs and gains of speculation, and whether it pays.

The paper's E[L] = c_J + beta c_S + (1 - beta alpha) L_agent (Sec. 3.5, arXiv 2603.23483) has one
L_agent for all queries, and its throughput bound 1 / (1 - beta alpha) leaves c_J and c_S out. Here
both are measured, and the agent's cost is kept apart by what became of a query, since those that
need tools or whose draft is rejected are the slow ones. Seconds are a query's equal share of the
batches it was part of, so that they add up to the time that models worked.

What the agent alone would cost on accepted drafts' queries shows on queries that go straight to
it: accepted ones are usually quick, so that fallbacks alone make speculation look better than it
is. `ScheduleConfig.probe` sends a share there; without, the gain isn't known but for a bound.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final, get_args

import numpy as np

from speceyes import notebook
from speceyes.errors import ConfigError
from speceyes.types import Result

_log = logging.getLogger(__name__)

Speculate: TypeAlias = Literal["always", "auto"]
SPECULATE: tuple[Speculate, ...] = get_args(Speculate)

WINDOW = 256
"""How many of the latest queries of a kind count."""
ENOUGH = 32
"""Queries of a kind before anything is decided by their costs."""
PROBE = 1 / 32
"""Share of queries that go straight to the agent while others are speculated on."""
LOOK = 1 / 16
"""Share of batches that are speculated on while the agent works alone."""
_Z = 1.959963984540054  # 95 %, both sides


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


@dataclass(frozen=True, slots=True)
class _Cost:
    """One query that was speculated on."""

    judge: float | None
    draft: float | None
    fallback: float | None
    accepted: bool
    drafted: bool
    """True where its draft counts: the judge, if there is one, let it through."""

    @property
    def alone(self) -> float | None:
        """The most that the agent alone would have cost; None where it wasn't asked."""
        return None if self.fallback is None else self.fallback + (self.judge or 0.0)

    @property
    def all(self) -> float:
        return (self.judge or 0.0) + (self.draft or 0.0) + (self.fallback or 0.0)


@final
class CostModel:
    """Learns costs from results as they come. Threads may share it.

    Example:
        >>> from speceyes.types import Timings, Verdict
        >>> model, yes = CostModel(), Verdict(True, 0.99, 9.0, 0.98)
        >>> no = Verdict(False, 0.5, 0.0, 0.98)
        >>> for i in range(40):
        ...     model.note(Result("", "red", "draft", verdict=yes, timings=Timings(draft=0.1)))
        ...     spent = Timings(draft=0.1, fallback=1.0)
        ...     model.note(Result("", "red", "agent", verdict=no, timings=spent))
        >>> found = model.efficiency()
        >>> found.alpha, round(found.speculated, 3), found.gain, round(found.at_most, 3)
        (0.5, 0.6, None, 1.667)
        >>> for i in range(40):
        ...     model.note(Result("", "red", "agent", timings=Timings(fallback=0.75)))
        >>> round(model.efficiency().gain, 3)
        1.25
    """

    def __init__(self) -> None:
        self._spent: deque[_Cost] = deque(maxlen=WINDOW)
        self._straight: deque[float] = deque(maxlen=WINDOW)
        self._lock = threading.Lock()
        self._speculating = True
        self._said = False
        self._random = random.Random(0)

    @property
    def speculating(self) -> bool:
        """True where "auto" speculates now, but for the queries that try the other way."""
        return self._speculating

    def note(self, result: Result) -> None:
        """Takes a query's costs down. One that no model worked on, or that failed, is left out."""
        spent = result.timings
        if result.route == "error":
            return
        with self._lock:
            if result.judgement is None and result.verdict is None:
                if spent.fallback is not None:
                    self._straight.append(spent.fallback)
                return
            wanted = result.judgement is None or not result.judgement.needs_tools
            draft = None if spent.draft is None else spent.draft + (spent.gate or 0.0)
            self._spent.append(
                _Cost(spent.judge, draft, spent.fallback, result.route == "draft", wanted)
            )

    def plan(self, n: int) -> list[bool]:
        """Plan for the next n queries, a batch, under "auto": True for those to speculate on.

        Looks at the costs first. Speculation is given up where the whole interval of its gain is
        below 1, and taken up again where the whole interval is above. A look at speculation
        takes a whole batch, since a judgement alone costs more than one among many.
        """
        found, at_most = self._found()
        with self._lock:
            interval = found.interval or at_most
            if interval is not None:
                # Without probes the bound may only end speculation: it says what is gained at most.
                low, high = interval
                if self._speculating and high < 1:
                    self._switch(found, interval)
                    self._spent.clear()  # the next looks decide
                elif not self._speculating and found.interval is not None and low > 1:
                    self._switch(found, interval)
                    self._straight.clear()
            if self._speculating:
                return [self._random.random() >= PROBE for _ in range(n)]
            return [self._random.random() < LOOK] * n

    def probe(self, n: int, share: float) -> list[bool]:
        """Plan for the next n queries under "always": False for those that are sent straight to the
        agent, to learn what it costs alone.
        """
        with self._lock:
            return [self._random.random() >= share for _ in range(n)]

    def _switch(self, found: Efficiency, interval: tuple[float, float]) -> None:
        self._speculating = not self._speculating
        _log.info(
            "speculation is %s: predicted gain %.2fx (%.2f to %.2f)",
            "taken up again" if self._speculating else "given up",
            found.at_most if found.gain is None else found.gain,
            *interval,
        )

    def warn(self) -> None:
        """Says once in the log that speculation is a loss, where it surely is."""
        if self._said:
            return
        found, at_most = self._found()
        interval = found.interval or at_most
        if interval is not None and interval[1] < 1:
            self._said = True
            _log.warning(
                "speculation costs more than it saves: predicted gain %.2fx (%.2f to %.2f). The "
                "agent alone is faster here; speculate='auto' switches by itself",
                found.at_most if found.gain is None else found.gain,
                *interval,
            )

    def efficiency(self, seconds: float | None = None, queries: int | None = None) -> Efficiency:
        """Efficiency by the costs so far.

        Args:
            seconds: Wall time that the queries took, for `measured`.
            queries: How many took that time; None for those looked at.
        """
        return self._found(seconds, queries)[0]

    def _found(
        self, seconds: float | None = None, queries: int | None = None
    ) -> tuple[Efficiency, tuple[float, float] | None]:
        """The efficiency, and the interval of `at_most`."""
        with self._lock:
            spent, straight = list(self._spent), list(self._straight)
        judged = [one.judge for one in spent if one.judge is not None]
        drafted = [one for one in spent if one.drafted and one.draft is not None]
        drafts = [one.draft for one in spent if one.draft is not None]
        tools = [one.fallback for one in spent if one.fallback is not None and not one.drafted]
        rejected = [one.fallback for one in spent if one.fallback is not None and one.drafted]
        beta = sum(one.drafted for one in spent) / len(spent) if judged else None
        alpha = sum(one.accepted for one in drafted) / len(drafted) if drafted else None
        accepted = sum(one.accepted for one in spent)
        probed = len(straight) >= ENOUGH
        assumed = not probed and (accepted > 0 or bool(judged))
        # A fallback finds its prompt read where the judge has read it, so that alone the agent
        # costs up to a judgement more.
        agent = straight if probed else [one.alone for one in spent if one.alone is not None]
        l_accepted = None
        if probed and accepted:
            # What all cost, less what the others cost, is what the accepted ones would have.
            rest = [*tools, *rejected]
            share = accepted / len(spent)
            others = float(np.mean(rest)) if rest else 0.0
            l_accepted = max(0.0, (float(np.mean(straight)) - (1 - share) * others) / share)
        costs = [one.all for one in spent]
        n = queries if queries is not None else len(spent) + len(straight)
        # What runs beside something else is counted twice by the phases, and nothing is outside.
        outside = None
        if seconds is not None and n and (worked := sum(costs) + sum(straight)) <= seconds:
            outside = (seconds - worked) / n
        costs = [one + (outside or 0.0) for one in costs]
        alone = [one + (outside or 0.0) for one in agent] if probed else agent
        gain, interval = _ratio(alone, costs)
        at_most, reach = (gain, interval) if assumed else (None, None)
        l_agent = None if assumed else _mean(alone)
        if assumed:
            gain = interval = None
        measured = l_agent / (seconds / n) if l_agent and seconds and n else None
        settled = beta if beta is not None else 1.0
        bound = None if alpha is None or settled * alpha >= 1 else 1 / (1 - settled * alpha)
        found = Efficiency(
            queries=len(spent) + len(straight),
            beta=beta,
            alpha=alpha,
            c_judge=_mean(judged),
            c_draft=_mean([one for one in drafts if one is not None]),
            l_tools=_mean(tools),
            l_rejected=_mean(rejected),
            l_accepted=l_accepted,
            l_agent=l_agent,
            assumed=assumed,
            speculated=_mean(costs),
            gain=gain,
            interval=interval,
            measured=measured,
            paper=bound,
            at_most=at_most,
            outside=outside,
        )
        return found, reach


def efficiency(results: Iterable[Result], seconds: float | None = None) -> Efficiency:
    """The same of results at hand, all of them (`CostModel` keeps the latest only).

    Args:
        results: What a pipeline gave.
        seconds: Wall time that they took.

    Raises:
        ConfigError: seconds is not above 0.
    """
    if seconds is not None and not seconds > 0:
        raise ConfigError(f"seconds={seconds}; the wall time must be above 0")
    results = list(results)
    model = CostModel()
    model._spent = deque(maxlen=None)
    model._straight = deque(maxlen=None)
    for result in results:
        model.note(result)
    return model.efficiency(seconds, len(results))


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
    spread = sum(
        float(np.var(side, ddof=1)) / (len(side) * float(np.mean(side)) ** 2)
        for side in (above, below)
    )
    reach = math.exp(_Z * math.sqrt(spread))
    return ratio, (ratio / reach, ratio * reach)
