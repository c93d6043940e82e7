"""Places in the agent: the requests that it works on, and those that wait for one."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, final

from speceyes.pipeline.fair_queue import FairQueue
from speceyes.pipeline.parts import Parts
from speceyes.pipeline.request import CANCELLED, RequestState
from speceyes.types import Step

if TYPE_CHECKING:
    from speceyes.fallback import AgentRun

_log = logging.getLogger(__name__)


@final
class AgentSlots:
    """Requests with the agent. Stepped by one thread; `waiting` belongs to the scheduler's lock.

    Args:
        parts: The fallback.
        observed: Whether turns are told to observers.
    """

    def __init__(self, parts: Parts, *, observed: bool) -> None:
        self._fallback, self._observed = parts.fallback, observed
        self.waiting: FairQueue[RequestState] = FairQueue(piled=parts.schedule.batch_size)
        self.live: dict[int, RequestState] = {}
        self._run: AgentRun | None = None
        self._number = 0

    @property
    def room(self) -> int:
        """Number of requests that may join now."""
        if self._fallback is None:
            return 0
        return self._fallback.max_batch if self._run is None else self._run.room

    @property
    def joins_mid_turn(self) -> bool:
        """True where one that joins need not wait for the others' turns."""
        return self._run is not None and self._run.joins

    def join(self, request: RequestState) -> None:
        """Gives a request a place. One that can't be asked has a failure in its facts then."""
        audit = request.facts.answered
        if not audit and not request.wanted:
            request.learn(failure=CANCELLED)
            return
        self._number += 1
        if request.trace is not None and not audit:
            request.trace.joined()
        try:
            self._opened().add(self._number, request.query)
        except Exception as exc:  # noqa: BLE001 - this one fails, and its neighbours don't
            _log.error("a query could not join the agent: %s", type(exc).__name__)
            request.learn(failure=f"the pipeline failed: {type(exc).__name__}")
        else:
            self.live[self._number] = request

    def step(self) -> list[RequestState]:
        """Works on all that are live for a moment.

        Returns:
            Requests whose trajectory, or failure, is in their facts now.
        """
        if not self.live:
            return []
        try:
            finished = self._opened().step()
        except Exception as exc:  # noqa: BLE001 - these fail, and the next are served
            _log.error("%d trajectories failed: %s", len(self.live), type(exc).__name__)
            failed = list(self.live.values())
            for request in failed:
                request.learn(failure=f"the pipeline failed: {type(exc).__name__}")
            self.close()
            return failed
        ended = []
        for key, trajectory, seconds in finished:
            request = self.live.pop(key)
            if not request.facts.answered:
                request.spent(fallback=seconds)
                if request.trace is not None:
                    request.trace.phase("agent", request.trace.with_agent_s, trajectory)
            request.learn(trajectory=trajectory)
            ended.append(request)
        return ended

    def close(self) -> None:
        """Gives up what is under way."""
        run, self._run = self._run, None
        self.live.clear()
        if run is not None:
            with contextlib.suppress(Exception):
                run.close()

    def _opened(self) -> AgentRun:
        assert self._fallback is not None
        if self._run is None:
            self._run = self._fallback.begin()
            if self._observed:
                self._run.tell_turns(self._turn_ended)
        return self._run

    def _turn_ended(self, key: int, step: Step, tool_seconds: float) -> None:
        request = self.live[key]
        if request.trace is not None and not request.facts.answered:
            request.trace.turn(step, tool_seconds)
