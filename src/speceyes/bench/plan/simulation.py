"""A fleet played event by event: how long queries take at a rate.

An engine reads prompts one after the other, and writes for all that are read at once; while it
reads, writing hardly goes on, since a step that holds a piece of a prompt takes many times as long
as one that writes a token (chunked prefill, Sarathi-Serve, arXiv 2403.02310). Two engines on one
accelerator take turns. How much of the work is reading is told by what batching gains, for that
part gains nothing.

Queries come at times of chance, a round of judging and drafting waits for the last of its calls,
and calls go to the replica that has the fewest.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias, final

import numpy as np

from speceyes.bench.plan.fleet import Costs, Fleet, Forecast
from speceyes.errors import ConfigError

_NEVER: Final = math.inf
LARGE: Final = 0
SMALL: Final = 1

Done: TypeAlias = Callable[[float], None]


@final
@dataclass(frozen=True, slots=True)
class Work:
    """Parts of a call, seconds where nothing else is under way.

    Args:
        model: `LARGE` or `SMALL`.
        read: Reading its prompt.
        write: Writing.
        waits: Seconds that its steps wait for another engine's on the same accelerator, while that
            one writes.
    """

    model: int
    read: float
    write: float
    waits: float = 0.0


@final
class _Replica:
    """Engines on one accelerator, each with slots of its own for calls that it reads in order and
    writes together.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._slots = fleet.slots
        # Costs that are shares of full batches already: calls share, whatever they do.
        self._shares = fleet.gain == 1 < fleet.slots
        self._clock = self._at = self.worked = 0.0
        self._reading: tuple[deque[list[float]], ...] = (deque(), deque())
        self._writing: list[tuple[float, int]] = []
        self._calls: dict[int, tuple[Work, Done]] = {}
        self._waiting: tuple[deque[tuple[Work, Done]], ...] = (deque(), deque())
        self._open, self._writers = [0, 0], [0, 0]
        self._number = self.calls = 0

    def _turns(self) -> list[deque[list[float]]]:
        return [line for line in self._reading if line]

    def _speed(self) -> float:
        """Of writing, where nothing is read."""
        return 1 / len(self._writing) if self._shares and self._writing else 1.0

    def _advance(self, now: float) -> None:
        passed, self._at = now - self._at, now
        if reading := self._turns():
            for line in reading:
                line[0][0] -= passed / len(reading)
            self.worked += passed
        else:
            self._clock += passed * self._speed()
            self.worked += passed * self._speed() * len(self._writing)

    def add(self, now: float, work: Work, done: Done) -> None:
        """Takes a call on."""
        self._advance(now)
        self.calls += 1
        if self._open[work.model] == self._slots:
            self._waiting[work.model].append((work, done))
        else:
            self._start(work, done)

    def _start(self, work: Work, done: Done) -> None:
        self._number += 1
        self._open[work.model] += 1
        self._calls[self._number] = work, done
        if work.read > 0:
            self._reading[work.model].append([work.read, self._number])
        else:
            self._write(self._number, work)

    def _write(self, number: int, work: Work) -> None:
        beside = self._writers[1 - work.model] > 0
        self._writers[work.model] += 1
        end = self._clock + work.write + (work.waits if beside else 0.0)
        heapq.heappush(self._writing, (end, number))

    def next(self) -> float:
        """When its next call is read or over."""
        if reading := self._turns():
            return self._at + max(0.0, min(line[0][0] for line in reading)) * len(reading)
        if not self._writing:
            return _NEVER
        return self._at + max(0.0, self._writing[0][0] - self._clock) / self._speed()

    def finish(self, now: float) -> None:
        """Has that happen."""
        self._advance(now)
        if reading := self._turns():
            number = int(min(reading, key=lambda line: line[0][0]).popleft()[1])
            work, _ = self._calls[number]
            if work.write > 0 or work.waits > 0:
                self._write(number, work)
                return
        else:
            _, number = heapq.heappop(self._writing)
            self._writers[self._calls[number][0].model] -= 1
        work, done = self._calls.pop(number)
        self.calls -= 1
        self._open[work.model] -= 1
        if self._waiting[work.model]:
            self._start(*self._waiting[work.model].popleft())
        done(now)


@final
class _Replicas:
    """Replicas of a model, or of both. Knows which of them has something happen next."""

    def __init__(self, fleet: Fleet, many: int) -> None:
        self._all = [_Replica(fleet) for _ in range(many)]
        self._calls = np.zeros(many, dtype=np.int64)
        self._due: list[tuple[float, int, int]] = []
        self._version = [0] * many

    def __len__(self) -> int:
        return len(self._all)

    @property
    def worked(self) -> float:
        return sum(one.worked for one in self._all)

    def call(self, now: float, work: Work, done: Done) -> None:
        """Hands a call to the replica that has the fewest."""
        at = int(self._calls.argmin())
        self._all[at].add(now, work, done)
        self._changed(at)

    def next(self) -> float:
        while self._due and self._due[0][2] != self._version[self._due[0][1]]:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else _NEVER

    def finish(self, now: float) -> None:
        _, at, _ = self._due[0]
        self._all[at].finish(now)
        self._changed(at)

    def _changed(self, at: int) -> None:
        self._calls[at] = self._all[at].calls
        self._version[at] += 1
        if (when := self._all[at].next()) < _NEVER:
            heapq.heappush(self._due, (when, at, self._version[at]))


@dataclass(slots=True, eq=False)
class _Query:
    came: float
    drafted: bool
    agent: Work | None


@final
class _Server:
    """One `speceyes serve`: rounds of judging and drafting, and trajectories beside them."""

    def __init__(
        self,
        batch: int,
        works: tuple[Work, Work],
        replicas: tuple[_Replicas, _Replicas],
        ended: Callable[[_Query, float], None],
    ) -> None:
        self._batch, self._ended, self._replicas = batch, ended, replicas
        self._judge_work, self._draft_work = works
        self._asked: deque[_Query] = deque()
        self._for_agent: deque[_Query] = deque()
        self._round: list[_Query] = []
        self._live = self._open = 0

    def ask(self, now: float, query: _Query) -> None:
        self._asked.append(query)
        if not self._round:
            self._judge(now)

    def _call(self, now: float, work: Work, done: Done) -> None:
        self._replicas[work.model].call(now, work, done)

    def _judge(self, now: float) -> None:
        while self._asked and len(self._round) < self._batch:
            self._round.append(self._asked.popleft())
        self._open = len(self._round)
        if not (self._judge_work.read or self._judge_work.write):
            self._open = 1
            self._judged(now)
            return
        for _ in self._round:
            self._call(now, self._judge_work, self._judged)

    def _judged(self, now: float) -> None:
        self._open -= 1
        if self._open:
            return
        drafts = [query for query in self._round if query.drafted]
        self._open = len(drafts)
        if not drafts:
            self._settle(now)
        for _ in drafts:
            self._call(now, self._draft_work, self._drafted)

    def _drafted(self, now: float) -> None:
        self._open -= 1
        if not self._open:
            self._settle(now)

    def _settle(self, now: float) -> None:
        over, self._round = self._round, []
        for query in over:
            if query.agent is not None:
                self._for_agent.append(query)
            else:
                self._ended(query, now)
        self._begin(now)
        if self._asked:
            self._judge(now)

    def _begin(self, now: float) -> None:
        while self._for_agent and self._live < self._batch:
            query = self._for_agent.popleft()
            self._live += 1
            assert query.agent is not None
            self._call(now, query.agent, partial(self._left, query))

    def _left(self, query: _Query, now: float) -> None:
        self._live -= 1
        self._ended(query, now)
        self._begin(now)


def works_of(costs: Costs, fleet: Fleet) -> tuple[Work, Work, float, float]:
    """The reading in each phase: (a judgement, a draft, the seconds that the agent reads,
    those that a step of its writing takes, 0 where that is unknown).

    The share that is done one after the other falls to the judgement first, which writes a single
    token, then to the draft that must read the image itself, and what is left of it to the agent.
    """
    shared = fleet.small == 0
    judge_by = SMALL if costs.small_judge else LARGE
    slow = 0.0 if fleet.gain == 1 else fleet.slow
    left = {LARGE: slow * costs.large, SMALL: slow * costs.small}
    if shared:
        left = dict.fromkeys(left, slow * (costs.large + costs.small))
    if fleet.slots == 1:
        # Nothing is told by a batch of one: they read, and the agent's part is open.
        left = dict.fromkeys(left, costs.c_judge + costs.small * (not costs.small_judge))

    def taken(by: int, most: float) -> float:
        """Reading of all queries on average, at most `most` seconds a query."""
        found = min(most, left[by])
        for model in (LARGE, SMALL) if shared else (by,):
            left[model] -= found
        return found

    judge = taken(judge_by, costs.c_judge)
    draft = 0.0
    if costs.small > 0 and not costs.small_judge:
        draft = taken(SMALL, costs.small) / costs.beta
    falls = 1 - costs.beta * costs.alpha
    agent = taken(LARGE, costs.agent) / falls if falls else 0.0
    step = 0.0
    if costs.agent_tokens and falls:
        step = (costs.agent / falls - agent) / costs.agent_tokens
    waits = costs.draft_tokens * step if shared else 0.0
    return (
        Work(judge_by, judge, costs.c_judge - judge),
        Work(SMALL, draft, costs.c_draft - draft, waits),
        agent,
        step,
    )


def simulate(
    costs: Costs, rate: float, fleet: Fleet, *, queries: int = 20_000, seed: int = 0
) -> Forecast:
    """Simulated run of a fleet over so many queries; the first tenth and the last are left out of
    the latencies.

    Args:
        costs: What queries cost. What the agent writes follows a gamma distribution, with the
            spread that is given; judgements and drafts take as long as they are said to.
        rate: Queries a second.
        fleet: What answers.
        queries: How many.
        seed: Of all that is left to chance.

    Returns:
        As `forecast` does; `busy_front` is not a number, since it isn't looked at.

    Raises:
        ConfigError: The rate is not above 0, or there are fewer than 100 queries.

    Example:
        >>> costs = Costs(beta=1.0, alpha=1.0, c_judge=0.1, c_draft=0.1, l_tools=1.0)
        >>> round(simulate(costs, 0.01, Fleet(1, 1), queries=200).p50, 6)
        0.2
    """
    if not (math.isfinite(rate) and rate > 0) or queries < 100:
        raise ConfigError(f"rate={rate}, queries={queries}; above 0 a second, and at least 100")
    chance = random.Random(seed)
    found: list[tuple[_Query, float]] = []
    large = _Replicas(fleet, fleet.large)
    small = large if fleet.small == 0 else _Replicas(fleet, fleet.small)
    judge, draft, read, _ = works_of(costs, fleet)

    def ended(query: _Query, now: float) -> None:
        found.append((query, now))

    servers = [
        _Server(fleet.batch, (judge, draft), (large, small), ended) for _ in range(fleet.servers)
    ]
    squared = costs.spread**2

    def drawn() -> _Query:
        route, agent = chance.random(), None
        if route >= costs.beta * costs.alpha:
            whole = costs.l_tools if route >= costs.beta else costs.rejected
            factor = chance.gammavariate(1 / squared, squared) if squared else 1.0
            reads = min(read, whole)
            agent = Work(
                LARGE, reads * (factor if read >= whole else 1.0), (whole - reads) * factor
            )
        return _Query(now, route < costs.beta, agent)

    now, coming, came = 0.0, chance.expovariate(rate), 0
    while len(found) < queries:
        first = min((large, small), key=lambda replicas: replicas.next())
        over = first.next()
        if came < queries and coming <= over:
            now = coming
            servers[came % len(servers)].ask(now, drawn())
            came += 1
            coming = now + chance.expovariate(rate)
        else:
            now = over
            first.finish(now)
    return _counted(found, now, fleet, large, small)


def _counted(
    found: list[tuple[_Query, float]],
    now: float,
    fleet: Fleet,
    large: _Replicas,
    small: _Replicas,
) -> Forecast:
    found.sort(key=lambda pair: pair[0].came)
    kept = found[len(found) // 10 : len(found) - len(found) // 10]
    spent = np.array([end - query.came for query, end in kept])
    agents = np.array([query.agent is not None for query, _ in kept])

    def busy(replicas: _Replicas) -> float:
        return replicas.worked / (now * fleet.gain * len(replicas))

    def mean(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
        return float(values.mean()) if len(values) else math.nan

    return Forecast(
        busy_large=busy(large),
        busy_small=0.0 if small is large else busy(small),
        busy_front=math.nan,
        mean=mean(spent),
        p50=float(np.percentile(spent, 50)),
        p95=float(np.percentile(spent, 95)),
        drafted=mean(spent[~agents]),
        by_agent=mean(spent[agents]),
    )
