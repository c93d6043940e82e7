"""What drafts couldn't answer: it waits for the agent, and is worked on side by side."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import final

from speceyes.fallback import AgentRun
from speceyes.live.fair_queue import FairQueue
from speceyes.live.funnel import Funnel
from speceyes.live.job import Job
from speceyes.types import Result, Step, Trajectory

_log = logging.getLogger(__name__)


@final
class AgentSide:
    """The agent's live trajectories, and who waits to join them. Stepped by one thread.

    Args:
        pipe: Whose fallback and auditor are used.
        finish: Told a job and its result.
        who: Whom to blame in the results of jobs that break here.
    """

    def __init__(
        self, pipe: Funnel, finish: Callable[[Job, Result], None], who: str = "the server"
    ) -> None:
        self._pipe, self._finish, self._who = pipe, finish, who
        self.waiting: FairQueue[Job] = FairQueue(piled=pipe.batch_size)
        self.live: dict[int, Job] = {}
        self.closing = False
        self._run: AgentRun | None = None
        self._number = 0

    @property
    def busy(self) -> bool:
        """Whether there is anything to do; when it is closing, audits are no reason to stay."""
        if self.live or len(self.waiting):
            return True
        return bool(self.waiting.background) and not self.closing

    def join_next(self) -> None:
        """Waits for one to join; returns without when the queue is closed."""
        for job in self.waiting.take(1, wait=True):
            self._join(job)

    def step(self) -> None:
        """Fills the agent's places and works on what is alive."""
        run = self._current()
        while run.room:
            jobs = self.waiting.take(1, wait=False)
            if not jobs:
                break
            self._join(jobs[0])
        if not self.live:
            return
        try:
            finished = run.step()
        except Exception as exc:  # noqa: BLE001 - these jobs fail, and the next are served
            _log.error("%d trajectories failed: %s", len(self.live), type(exc).__name__)
            for job in self.live.values():
                self._give_up(job)
                job.fail(f"{self._who} failed: {type(exc).__name__}")
            self.live.clear()
            self.end()
            return
        for key, trajectory, seconds in finished:
            job = self.live.pop(key)
            try:
                self._conclude(job, trajectory, seconds)
            except Exception as exc:  # noqa: BLE001 - this one fails, and its neighbours don't
                _log.error("a result was lost: %s", type(exc).__name__)
                job.fail(f"{self._who} failed: {type(exc).__name__}")

    def end(self) -> None:
        """Gives up the run, and when it is closing the audits that were not begun."""
        run, self._run = self._run, None
        if run is not None:
            with contextlib.suppress(Exception):
                run.close()
        while self.waiting.background and self.closing:
            for job in self.waiting.take(1, wait=False):
                self._give_up(job)

    def _conclude(self, job: Job, trajectory: Trajectory, seconds: float) -> None:
        ticket, auditor = job.ticket, self._pipe.auditor
        assert ticket is not None
        if ticket.audit is None:
            self._finish(job, ticket.by_agent(trajectory, seconds)[1])
        elif auditor is not None and ticket.draft is not None:
            auditor.report(ticket.audit, job.query, ticket.draft.text.strip(), trajectory)

    def _join(self, job: Job) -> None:
        assert job.ticket is not None
        if job.ticket.audit is None and not job.kept():
            return
        self._number += 1
        self.live[self._number] = job
        if job.watch is not None and job.ticket.audit is None:
            job.watch.joined()
        try:
            self._current().add(self._number, job.query)
        except Exception as exc:  # noqa: BLE001 - this one fails, and the next are served
            _log.error("a query could not join the agent: %s", type(exc).__name__)
            del self.live[self._number]
            self._give_up(job)
            job.fail(f"{self._who} failed: {type(exc).__name__}")

    def _current(self) -> AgentRun:
        assert self._pipe.fallback is not None
        if self._run is None:
            self._run = self._pipe.fallback.begin()
            if self._pipe.observers:
                self._run.tell_turns(self._turned)
        return self._run

    def _turned(self, key: int, step: Step, tool_seconds: float) -> None:
        job = self.live[key]
        if job.watch is not None and job.ticket is not None and job.ticket.audit is None:
            job.watch.turn(step, tool_seconds)

    def _give_up(self, job: Job) -> None:
        auditor, ticket = self._pipe.auditor, job.ticket
        if auditor is not None and ticket is not None and ticket.audit is not None:
            auditor.give_up(ticket.audit)
