"""An agent that a user has already, as phase IV: whatever answers a query is called with it.

Calls run side by side in threads, as many at once as the agent may have, over all runs together.
One at a time runs in the caller's own thread, for an agent may mind which thread it is in.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import inspect
import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, final

from speceyes.agent.outcome import trajectory_of
from speceyes.errors import ConfigError, describe
from speceyes.event_loop import EventLoop
from speceyes.types import Query, Trajectory

_log = logging.getLogger(__name__)

MOMENT: Final = 0.02
"""Seconds that a step waits at most while there is room for another query."""


@final
class CallableAgent:
    """A callable that answers a query, and how often at once it may be called.

    Args:
        agent: Given a `Query`, returns an answer (see `trajectory_of`), or something to await
            that gives one. What is awaited runs in one event loop, always the same, so that a
            client which it keeps works on.
        name: Names it in the log and in errors; default: the callable's own name.
        concurrency: Most calls at once, over all runs and threads.
        timeout_s: Seconds that a query may take; None for no limit. What is awaited is cancelled
            then. A plain call can't be ended: it is left behind, holds its place until it ends
            by itself, and its answer is dropped.

    Raises:
        ConfigError: agent can't be called, or a number is out of range.
    """

    def __init__(
        self,
        agent: Callable[[Query], Any],
        *,
        name: str | None = None,
        concurrency: int = 1,
        timeout_s: float | None = None,
    ) -> None:
        if not callable(agent):
            raise ConfigError(
                f"the agent is a {type(agent).__name__}, which can't be called: pass a function "
                "of a Query that returns the answer, such as lambda query: my_agent.run(query.text)"
            )
        if concurrency < 1:
            raise ConfigError(f"concurrency={concurrency}; it must be at least 1 call at once")
        if timeout_s is not None and not 0 < timeout_s < math.inf:
            raise ConfigError(f"timeout_s={timeout_s}; a positive number of seconds, or None")
        self.agent = agent
        self.name = name or str(getattr(agent, "__name__", type(agent).__name__))
        self.concurrency, self.timeout_s = concurrency, timeout_s
        self.places = threading.Semaphore(concurrency)
        self.loop = EventLoop()

    def ask(self, query: Query, waits: Callable[[Future[Any]], None]) -> Trajectory:
        """Answer of the agent to a query; its failure is a trajectory that says so.

        Args:
            query: The query. The agent gets copies of its images, to draw on as it likes.
            waits: Told of what is awaited, if something is, so that it can be cancelled.
        """
        try:
            mine = tuple(image.copy() for image in query.images)
            value = self.agent(dataclasses.replace(query, images=mine))
            if inspect.isawaitable(value):
                awaited = self.loop.submit(value)
                waits(awaited)
                try:
                    value = awaited.result()
                finally:  # an interrupt from the keyboard leaves nothing running
                    awaited.cancel()
            return trajectory_of(value)
        except (Exception, SystemExit, asyncio.CancelledError) as exc:  # noqa: BLE001
            _log.warning("%s failed: %s", self.name, describe(exc))
            return Trajectory((), None, "error", describe(exc))


@dataclass(slots=True)
class _Call:
    """A query that the agent works on."""

    key: int
    query: Query
    deadline: float
    awaited: Future[Any] | None = None
    abandoned: bool = False
    begun: float = field(default=0.0)

    def waits(self, awaited: Future[Any]) -> None:
        self.awaited = awaited
        if self.abandoned:
            awaited.cancel()

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        self.abandoned = True
        if self.awaited is not None:
            self.awaited.cancel()


@final
class _Shares:
    """Time shared equally by those under way, as one clock that goes slower the more they are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._many, self._shared, self._since = 0, 0.0, time.perf_counter()

    def change(self, by: int) -> float:
        """Notes that so many more are under way; the clock now, seconds."""
        with self._lock:
            now = time.perf_counter()
            if self._many:
                self._shared += (now - self._since) / self._many
            self._many, self._since = self._many + by, now
            return self._shared


@final
class CallableRun:
    """One run of an `CallableAgent`. Used by one thread.

    Args:
        own: The agent.
        most: Most queries held at once.
    """

    joins: Final = True

    def __init__(self, own: CallableAgent, most: int) -> None:
        self._own, self._most = own, most
        self._alone = own.concurrency == 1 and own.timeout_s is None
        self._calls: dict[int, _Call] = {}
        self._ended: queue.SimpleQueue[tuple[_Call, Trajectory, float]] = queue.SimpleQueue()
        self._shares = _Shares()

    @property
    def live(self) -> int:
        """Number of queries that were added and have not come back."""
        return len(self._calls)

    def add(self, key: int, query: Query) -> None:
        """Begins with a query at once; one that runs in the caller's thread at the next step."""
        limit = self._own.timeout_s
        call = _Call(key, query, math.inf if limit is None else time.monotonic() + limit)
        self._calls[key] = call
        if self._alone:
            return
        context = contextvars.copy_context()
        name = f"speceyes-{self._own.name}"
        thread = threading.Thread(
            target=context.run, args=(self._work, call), name=name, daemon=True
        )
        thread.start()

    def step(self) -> list[tuple[int, Trajectory, float]]:
        """Waits until one has ended, but only for a moment where another may be added.

        Returns:
            (key, trajectory, its share of the time in seconds); perhaps none.
        """
        if self._alone:
            return self._next()
        finished = self._late()
        wait = self._wait()
        while self._calls and not finished:
            try:
                call, trajectory, seconds = self._ended.get(timeout=wait)
            except queue.Empty:
                finished = self._late()
                break
            finished += self._taken(call, trajectory, seconds)
            wait = self._wait()
        with contextlib.suppress(queue.Empty):
            while True:
                finished += self._taken(*self._ended.get_nowait())
        return finished

    def close(self) -> None:
        """Gives up what is under way: what is awaited is cancelled, a plain call left behind."""
        for call in self._calls.values():
            call.abandon()
        self._calls.clear()

    def _wait(self) -> float | None:
        """Seconds until something has to be done; None for as long as it takes."""
        nearest = min((call.deadline for call in self._calls.values()), default=math.inf)
        wait = max(0.0, nearest - time.monotonic())
        if len(self._calls) < self._most:
            wait = min(wait, MOMENT)
        return None if math.isinf(wait) else wait

    def _next(self) -> list[tuple[int, Trajectory, float]]:
        """The oldest query, in this thread."""
        if not self._calls:
            return []
        key, call = next(iter(self._calls.items()))
        with self._own.places:
            start = time.perf_counter()
            trajectory = self._own.ask(call.query, call.waits)
            seconds = time.perf_counter() - start
        del self._calls[key]
        return [(key, trajectory, seconds)]

    def _late(self) -> list[tuple[int, Trajectory, float]]:
        """Those whose time is over."""
        now, limit = time.monotonic(), self._own.timeout_s
        finished = []
        for call in [call for call in self._calls.values() if call.deadline <= now]:
            call.abandon()
            del self._calls[call.key]
            why = f"{self._own.name} took longer than timeout_s={limit} s"
            if not call.begun:
                why = f"{why}: calls before it have not ended, and held its place"
            finished.append((call.key, Trajectory((), None, "error", why), float(limit or 0)))
        return finished

    def _taken(
        self, call: _Call, trajectory: Trajectory, seconds: float
    ) -> list[tuple[int, Trajectory, float]]:
        """Result of a call that ended, unless nobody waits for it any more."""
        if self._calls.get(call.key) is not call:
            return []
        del self._calls[call.key]
        return [(call.key, trajectory, seconds)]

    def _work(self, call: _Call) -> None:
        """A query in a thread of its own, in a place that is free."""
        while not self._own.places.acquire(timeout=0.5):
            if call.abandoned:
                return
        start = self._shares.change(1)
        try:
            if call.abandoned:
                return
            call.begun = time.monotonic()
            trajectory = self._own.ask(call.query, call.waits)
        finally:
            seconds = self._shares.change(-1) - start
            self._own.places.release()
        self._ended.put((call, trajectory, seconds))
