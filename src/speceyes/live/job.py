"""A request on its way through the worker."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import final

from speceyes.journey import Ticket
from speceyes.observing import Watch
from speceyes.types import Completion, Query, Result, Verdict

UNWANTED = "nobody waits for it any more"


@final
@dataclass(slots=True, eq=False)
class Job:
    """A query that was accepted, and who waits for it.

    Args:
        query: Its images loaded.
        client: Whose turn it is.
        deadline: In `time.monotonic` seconds; nothing is begun after it.
        straight: Whether the agent is to take it at once.
        gate: What decides on its draft; None for the pipeline's own gate.
        done: Called once, when nothing will be done for it any more.
        watch: Tells observers of it; the worker gives it one where there are any.
    """

    query: Query
    client: str
    deadline: float
    straight: bool = False
    gate: Callable[[Completion], Verdict] | None = None
    done: Callable[[], None] = lambda: None
    watch: Watch | None = None
    since: float = field(default_factory=time.perf_counter)
    queued_s: float = 0.0
    gone: bool = False
    ticket: Ticket | None = None
    future: Future[Result] = field(default_factory=Future)
    _over: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        # Whoever waits may stop waiting, which is `gone`; the future itself is the worker's.
        self.future.set_running_or_notify_cancel()

    @property
    def wanted(self) -> bool:
        """Whether anybody would still get the answer."""
        return not self.gone and time.monotonic() < self.deadline

    def begin(self) -> None:
        """The models take it up."""
        self.queued_s = time.perf_counter() - self.since

    def kept(self) -> bool:
        """Whether to go on with it; where not, it is finished now."""
        if self.wanted:
            return True
        self.fail(UNWANTED)
        return False

    def finish(self, result: Result) -> bool:
        """Tells the answer; False where it was over already."""
        with self._lock:
            if self._over:
                return False
            self._over = True
        spent = dataclasses.replace(result.timings, latency=time.perf_counter() - self.since)
        result = dataclasses.replace(result, timings=spent)
        if self.watch is not None:
            self.watch.end(result)
        self.future.set_result(result)
        self.done()
        return True

    def fail(self, reason: str) -> bool:
        """Tells that there is none."""
        return self.finish(Result(self.query.id, None, "error", error=reason))
