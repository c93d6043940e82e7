"""Threads that step a scheduler without end: the driver of `SpecPipeline.ask` and of the server.

Requests that wait together are judged and drafted together; nobody waits for a batch to fill.
"""

from __future__ import annotations

import contextvars
import logging
import os
import threading
from typing import final

from speceyes.errors import ConfigError
from speceyes.pipeline.events import ObserverDispatcher
from speceyes.pipeline.request import RequestState
from speceyes.pipeline.scheduler import Lane, Scheduler

_log = logging.getLogger(__name__)


@final
class EngineLoop:
    """Answers requests until it is closed.

    Args:
        scheduler: Carries requests to their result; stepped by this loop's threads alone.
        dispatcher: Tells observers, as the scheduler's; None where there are none.

    Example:
        >>> from PIL import Image
        >>> from speceyes import SeparabilityGate
        >>> from speceyes.models.scripted import ScriptedModel
        >>> from speceyes.answerer import SpeculativeAnswerer
        >>> from speceyes.pipeline.parts import Parts
        >>> from speceyes.types import Query
        >>> drafts = SpeculativeAnswerer(ScriptedModel("red"))
        >>> loop = EngineLoop(Scheduler(Parts(answerer=drafts, gate=SeparabilityGate(0.98))))
        >>> loop.start()
        >>> request = RequestState(Query("Which colour?", (Image.new("RGB", (64, 64)),)), "alice")
        >>> loop.submit(request)
        >>> request.future.result(timeout=60).answer
        'red'
        >>> loop.close()
        True
    """

    def __init__(self, scheduler: Scheduler, dispatcher: ObserverDispatcher | None = None) -> None:
        self._scheduler, self._dispatcher = scheduler, dispatcher
        self._closing = threading.Event()
        self._process: int | None = None
        self._threads = [
            threading.Thread(target=self._run, args=(lane,), name=f"speceyes-{lane}", daemon=True)
            for lane in scheduler.lanes
        ]

    @property
    def alive(self) -> bool:
        """True where it takes requests."""
        return not self._closing.is_set() and all(t.is_alive() for t in self._threads)

    @property
    def waiting(self) -> int:
        """Requests that nothing was done for yet, and those that wait for the agent."""
        return self._scheduler.waiting

    @property
    def live(self) -> int:
        """Trajectories under way, audits included."""
        return self._scheduler.live

    @property
    def waiting_audits(self) -> int:
        """Audits that wait for a place in the agent."""
        return self._scheduler.waiting_audits

    def start(self) -> None:
        """Starts its threads."""
        self._process = os.getpid()
        for thread in self._threads:
            thread.start()

    def submit(self, request: RequestState) -> None:
        """Takes a request on: it will be finished, whatever happens.

        Raises:
            ConfigError: The loop is closed, or was not started.
        """
        if self._process not in (None, os.getpid()):
            raise ConfigError(
                "this process was forked from the one that the pipeline answers in, and threads "
                "and locks don't survive that: build the pipeline in the child, start workers by "
                "'spawn', or ask before none has been asked in the parent"
            )
        if not self.alive:
            raise ConfigError("the pipeline is closed, or was not started")
        if self._dispatcher is not None:
            context = contextvars.copy_context()
            query = request.query
            request.trace = self._dispatcher.trace(query.id, query, context)
        try:
            self._scheduler.submit([request])
        except ConfigError:
            if request.trace is not None:
                request.trace.end(None)
            raise

    def cancel(self, request: RequestState) -> None:
        """Nobody waits for it any more: it is not begun, or its result is dropped."""
        self._scheduler.cancel(request)

    def close(self, timeout_s: float | None = None) -> bool:
        """Finishes all that was taken on, audits left out, and ends.

        Args:
            timeout_s: Seconds to wait for that; None for as long as it takes.

        Returns:
            Whether all was finished.
        """
        self._closing.set()
        self._scheduler.close()
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(timeout_s)
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self, lane: Lane) -> None:
        while self._scheduler.wait(lane):
            done = list(self._scheduler.step(lane))
            while done:  # nothing of them is held while it waits for others
                _deliver(done.pop(0))
        if lane != "speculative":
            self._scheduler.abort()


def _deliver(request: RequestState) -> None:
    try:
        request.deliver()
    except Exception as exc:  # noqa: BLE001 - a listener's failure ends no loop
        _log.error("a result could not be delivered: %s", type(exc).__name__)
