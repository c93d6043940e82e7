"""One query under way: who waits for it, and what the phases have found so far."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, final

from speceyes.pipeline.events import QueryTrace
from speceyes.pipeline.route import Facts, outcome
from speceyes.types import Completion, Query, Result, Timings, Verdict

CANCELLED = "nobody waits for it any more"


@final
@dataclass(slots=True, eq=False)
class RequestState:
    """A query that was accepted, from submission to answer.

    One thread at a time works on it; `cancelled` may be set, and `future` waited for, in any.

    Args:
        query: Its images loaded.
        client: On whose behalf; clients take turns (see `FairQueue`).
        deadline: `time.monotonic` seconds after which no further phase is begun.
        facts: What is known of it.
        gate: A gate of its own, which is not looser than the pipeline's; None for that one.
        position: Its place among the queries of its run.
        since: When it was submitted or pulled, `time.perf_counter` seconds.
        trace: Tells observers of it; None where there are none.
        on_end: Called once, when nothing will be done for it any more.
    """

    query: Query
    client: str = ""
    deadline: float = math.inf
    facts: Facts = field(default_factory=Facts)
    gate: Callable[[Completion], Verdict] | None = None
    position: int = 0
    since: float = field(default_factory=time.perf_counter)
    trace: QueryTrace | None = None
    on_end: Callable[[], None] | None = None
    queued_s: float = 0.0
    """Seconds from submission until a model took it up."""
    timings: Timings = field(default_factory=Timings)
    audit: int | None = None
    """Number of its audit; None where it isn't audited."""
    cancelled: bool = False
    future: Future[Result] = field(default_factory=Future)
    result: Result | None = None
    """What became of it; None while it is under way."""
    _delivered: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        # Cancelling is `cancelled`; the future itself belongs to whoever finishes the request.
        self.future.set_running_or_notify_cancel()

    @property
    def wanted(self) -> bool:
        """True where anybody would still get the answer."""
        return not self.cancelled and time.monotonic() < self.deadline

    def learn(self, **found: Any) -> None:
        """Adds what a phase found; names as in `Facts`."""
        for name, value in found.items():
            setattr(self.facts, name, value)

    def spent(self, **seconds: float) -> None:
        """Notes seconds of phases; names as in `Timings`."""
        self.timings = dataclasses.replace(self.timings, **seconds)

    def begin(self) -> None:
        """Notes that a model takes it up now."""
        self.queued_s = time.perf_counter() - self.since

    def conclude(self) -> Result:
        """Settles what becomes of it, where its next phase is "answer"."""
        ended = outcome(self.facts)
        self.spent(latency=time.perf_counter() - self.since)
        self.result = Result(
            query_id=self.query.id,
            answer=ended.answer,
            route=ended.route,
            judgement=self.facts.judgement,
            draft=self.facts.draft,
            verdict=self.facts.verdict,
            trajectory=self.facts.trajectory,
            timings=self.timings,
            error=ended.error,
        )
        self.learn(answered=True)
        return self.result

    def deliver(self) -> Result:
        """Hands the result to whoever waits; a second time nothing happens."""
        assert self.result is not None
        with self._lock:
            first, self._delivered = not self._delivered, True
        if first:
            if self.trace is not None:
                self.trace.end(self.result)
            self.future.set_result(self.result)
            if self.on_end is not None:
                self.on_end()
        return self.result
