"""Threads that read and decode what requests hold, one step of one request at a time.

Clients take turns by the seconds that they have had, and requests of one client by what they have
had and what their next step is expected to take: whoever sends a small picture never waits for
another's eight large ones. One thread takes short steps only, and of the others one is always left
for other clients.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, final

from speceyes.free_memory import give_back_memory

THREADS: Final = 3
"""That take any step, all but one of them those of the same client."""
LANES: Final = THREADS + 1
"""All threads: one more takes steps that are short."""
SHORT_S: Final = 0.15
"""Expected seconds of a short step."""
_TRIM_AFTER_S = 0.5  # by then what was answered is let go of

Steps = Iterator[float]
"""Work in pieces: each `next` does one, and gives the seconds that the next is expected to take."""


@final
@dataclass(slots=True, eq=False)
class Job:
    """Steps that were taken on.

    Args:
        client: On whose behalf.
        steps: What is done.
        expected_s: Seconds that the next step is expected to take.
    """

    client: str
    steps: Steps
    expected_s: float
    future: Future[None] = field(default_factory=Future)
    gone: bool = False
    spent_s: float = 0.0
    since: float = field(default_factory=time.monotonic)

    def abandon(self) -> None:
        """Nobody waits for it any more: the step that runs is its last."""
        self.gone = True


@final
class Loading:
    """The threads, until it is closed.

    Example:
        >>> loading = Loading()
        >>> def steps():
        ...     yield 0.1
        >>> loading.submit("alice", steps(), 0.0).future.result()
        >>> loading.close()
    """

    def __init__(self) -> None:
        self._there = threading.Condition()
        self._waiting: list[Job] = []
        self._spent: dict[str, float] = {}
        self._jobs: dict[str, int] = {}
        self._long: dict[str, int] = {}
        self._trim_at: float | None = None
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(most,), name="speceyes-images", daemon=True)
            for most in (*[math.inf] * THREADS, SHORT_S)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, client: str, steps: Steps, expected_s: float) -> Job:
        """Takes steps on; the job's future is done when they are, or has what they raised."""
        job = Job(client, steps, expected_s)
        job.future.set_running_or_notify_cancel()
        with self._there:
            if client not in self._jobs:  # not behind those who had none so far, nor before them
                self._spent[client] = min(self._spent.values(), default=0.0)
            self._jobs[client] = self._jobs.get(client, 0) + 1
            self._waiting.append(job)
            self._there.notify_all()
        return job

    def trim_soon(self) -> None:
        """Gives memory that is free back to the system, a moment from now."""
        with self._there:
            self._trim_at = time.monotonic() + _TRIM_AFTER_S
            self._there.notify_all()

    def close(self) -> None:
        """Ends the threads; what still waits is done first, unless it was abandoned."""
        with self._there:
            self._closed = True
            self._there.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self, most_s: float) -> None:
        while (job := self._next(most_s)) is not None:
            self._step(job, long=most_s == math.inf)
            del job  # while it waits for another, it would hold this one's images

    def _step(self, job: Job, *, long: bool) -> None:
        begin = time.perf_counter()
        more = False
        try:
            if not job.gone:
                job.expected_s = next(job.steps)
                more = True
        except StopIteration:
            pass
        except BaseException as exc:  # noqa: BLE001 - whoever waits for it is told
            job.future.set_exception(exc)
        if not more:
            job.steps = iter(())
        self._done(job, time.perf_counter() - begin, more=more, long=long)

    def _next(self, most_s: float) -> Job | None:
        with self._there:
            while True:
                now = time.monotonic()
                if self._trim_at is not None and now >= self._trim_at:
                    self._trim_at = None
                    give_back_memory()
                fit = [job for job in self._waiting if job.gone or self._fits(job, most_s)]
                if fit:
                    job = min(fit, key=lambda one: self._place(one, now))
                    self._waiting.remove(job)
                    if most_s == math.inf:
                        self._long[job.client] = self._long.get(job.client, 0) + 1
                    return job
                if self._closed and not self._waiting:
                    return None
                self._there.wait(None if self._trim_at is None else self._trim_at - now)

    def _fits(self, job: Job, most_s: float) -> bool:
        if most_s == math.inf:
            return self._long.get(job.client, 0) < THREADS - 1
        return job.expected_s <= most_s

    def _place(self, job: Job, now: float) -> tuple[bool, float, float]:
        """Those nobody waits for are ended first, since that takes no time."""
        waited = now - job.since
        return not job.gone, self._spent[job.client], job.spent_s + job.expected_s - waited

    def _done(self, job: Job, seconds: float, *, more: bool, long: bool) -> None:
        with self._there:
            if long:
                self._long[job.client] -= 1
                if not self._long[job.client]:
                    del self._long[job.client]
            job.spent_s += seconds
            self._spent[job.client] += seconds
            if more:
                self._waiting.append(job)
            else:
                self._jobs[job.client] -= 1
                if not self._jobs[job.client]:
                    del self._jobs[job.client], self._spent[job.client]
            self._there.notify_all()
        if not more and not job.future.done():
            job.future.set_result(None)
