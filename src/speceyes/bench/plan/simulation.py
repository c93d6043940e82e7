"""A fleet played event by event, to hold `speceyes.bench.plan.forecast` against.

The same servers, rounds, replicas and slots; nothing is averaged. Queries come at times of chance,
a round waits for the last of its calls, and calls go to the replica that has the fewest.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np

from speceyes.bench.plan.forecast import Costs, Fleet, Forecast
from speceyes.errors import ConfigError

_NEVER = math.inf


@final
class _Replica:
    """Calls that share an engine. Work is counted on a clock that runs as fast as each goes on."""

    def __init__(self, fleet: Fleet) -> None:
        self._slots, self._slow = fleet.slots, fleet.slow
        self._clock = self._at = self.worked = 0.0
        self._running: list[tuple[float, int, Callable[[float], None]]] = []
        self._waiting: deque[tuple[float, Callable[[float], None]]] = deque()
        self._number = 0

    @property
    def calls(self) -> int:
        return len(self._running) + len(self._waiting)

    def _speed(self) -> float:
        return 1 / (1 + self._slow * (len(self._running) - 1)) if self._running else 0.0

    def _advance(self, now: float) -> None:
        passed = (now - self._at) * self._speed()
        self._clock += passed
        self.worked += passed * len(self._running)
        self._at = now

    def add(self, now: float, work: float, done: Callable[[float], None]) -> None:
        self._advance(now)
        if len(self._running) == self._slots:
            self._waiting.append((work, done))
        else:
            self._start(work, done)

    def _start(self, work: float, done: Callable[[float], None]) -> None:
        self._number += 1
        heapq.heappush(self._running, (self._clock + work, self._number, done))

    def next(self) -> float:
        """When its next call is over."""
        if not self._running:
            return _NEVER
        return self._at + max(0.0, self._running[0][0] - self._clock) / self._speed()

    def finish(self, now: float) -> None:
        """Ends that call."""
        self._advance(now)
        _, _, done = heapq.heappop(self._running)
        if self._waiting:
            self._start(*self._waiting.popleft())
        done(now)


@dataclass(slots=True, eq=False)
class _Query:
    came: float
    drafted: bool
    agent: float


@final
class _Server:
    """One `speceyes serve`: rounds of judging and drafting, and trajectories beside them."""

    def __init__(self, fleet: Fleet, costs: Costs, ended: Callable[[_Query, float], None]) -> None:
        self._fleet, self._costs, self._ended = fleet, costs, ended
        self._asked: deque[_Query] = deque()
        self._for_agent: deque[_Query] = deque()
        self._round: list[_Query] = []
        self._live = self._open = 0
        self.large: list[_Replica] = []
        self.small: list[_Replica] = []

    def ask(self, now: float, query: _Query) -> None:
        self._asked.append(query)
        if not self._round:
            self._judge(now)

    def _call(
        self, now: float, at: list[_Replica], work: float, done: Callable[[float], None]
    ) -> None:
        min(at, key=lambda replica: replica.calls).add(now, work, done)

    def _judge(self, now: float) -> None:
        while self._asked and len(self._round) < self._fleet.batch:
            self._round.append(self._asked.popleft())
        self._open = len(self._round)
        for _ in self._round:
            self._call(now, self.large, self._costs.c_judge, self._judged)

    def _judged(self, now: float) -> None:
        self._open -= 1
        if self._open:
            return
        drafts = [query for query in self._round if query.drafted]
        self._open = len(drafts)
        if not drafts:
            self._settle(now)
        for _ in drafts:
            self._call(now, self.small or self.large, self._costs.c_draft, self._drafted)

    def _drafted(self, now: float) -> None:
        self._open -= 1
        if not self._open:
            self._settle(now)

    def _settle(self, now: float) -> None:
        over, self._round = self._round, []
        for query in over:
            if query.agent:
                self._for_agent.append(query)
            else:
                self._ended(query, now)
        self._begin(now)
        if self._asked:
            self._judge(now)

    def _begin(self, now: float) -> None:
        while self._for_agent and self._live < self._fleet.batch:
            query = self._for_agent.popleft()
            self._live += 1
            self._call(now, self.large, query.agent, partial(self._left, query))

    def _left(self, query: _Query, now: float) -> None:
        self._live -= 1
        self._ended(query, now)
        self._begin(now)


def simulate(
    costs: Costs, rate: float, fleet: Fleet, *, queries: int = 20_000, seed: int = 0
) -> Forecast:
    """Simulated run of a fleet over so many queries; the first tenth is left out of the latencies.

    Args:
        costs: What queries cost. The agent's time follows a gamma distribution, with the spread
            that is given; judgements and drafts take as long as they are said to.
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
    servers = [
        _Server(fleet, costs, lambda query, now: found.append((query, now)))
        for _ in range(fleet.servers)
    ]
    large = [_Replica(fleet) for _ in range(fleet.large)]
    small = [_Replica(fleet) for _ in range(fleet.small)]
    for server in servers:
        server.large, server.small = large, small
    squared = costs.spread**2

    def drawn() -> _Query:
        route, agent = chance.random(), 0.0
        if route >= costs.beta * costs.alpha:
            agent = costs.l_tools if route >= costs.beta else costs.rejected
            agent *= chance.gammavariate(1 / squared, squared) if squared else 1.0
        return _Query(now, route < costs.beta, agent)

    now, coming, came = 0.0, chance.expovariate(rate), 0
    while len(found) < queries:
        busy = min((*large, *small), key=lambda replica: replica.next())
        over = busy.next()
        if came < queries and coming <= over:
            now = coming
            servers[came % len(servers)].ask(now, drawn())
            came += 1
            coming = now + chance.expovariate(rate)
        else:
            now = over
            busy.finish(now)
    return _counted(found, queries, now, fleet, large, small)


def _counted(
    found: list[tuple[_Query, float]],
    queries: int,
    now: float,
    fleet: Fleet,
    large: list[_Replica],
    small: list[_Replica],
) -> Forecast:
    found.sort(key=lambda pair: pair[0].came)
    kept = found[queries // 10 :]
    spent = np.array([end - query.came for query, end in kept])
    agents = np.array([query.agent > 0 for query, _ in kept])

    def busy(replicas: list[_Replica]) -> float:
        done = sum(replica.worked for replica in replicas)
        return done / (now * fleet.gain * len(replicas)) if replicas else 0.0

    def mean(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
        return float(values.mean()) if len(values) else math.nan

    return Forecast(
        busy_large=busy(large),
        busy_small=busy(small),
        busy_front=math.nan,
        mean=mean(spent),
        p50=float(np.percentile(spent, 50)),
        p95=float(np.percentile(spent, 95)),
        drafted=mean(spent[~agents]),
        by_agent=mean(spent[agents]),
    )
