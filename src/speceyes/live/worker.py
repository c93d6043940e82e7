"""The threads that own the models: an endless run of a pipeline over what clients ask.

Jobs that wait together are judged and drafted together; nobody waits for a batch to fill. What
drafts can't answer joins the agent's live trajectories as places come free. Where the pipeline
overlaps, the front has a thread of its own, as in `SpecPipeline.stream`.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable, Sequence
from typing import final

from speceyes import intake
from speceyes.errors import ConfigError, InputError
from speceyes.front import Front
from speceyes.isolation import describe
from speceyes.journey import Ticket
from speceyes.live.agent_side import AgentSide
from speceyes.live.fair_queue import FairQueue
from speceyes.live.funnel import Funnel
from speceyes.live.job import UNWANTED, Job
from speceyes.ordering import Ordering
from speceyes.rounds import FRONT_BATCHES
from speceyes.types import Completion, Result, Verdict

_log = logging.getLogger(__name__)


@final
class Worker:
    """Runs a pipeline until it is closed.

    Args:
        pipe: The pipeline; its parts are used by this worker's threads alone.
        loosest: A gate that accepts all that any job's gate may accept; None for the pipeline's
            own. Drafts are ended early only where this one rejects them.
        batched: Told the size of each batch in front.
        who: Whom to blame in the results of jobs that break here.

    Example:
        >>> import time
        >>> from PIL import Image
        >>> from speceyes import SeparabilityGate, SpecPipeline
        >>> from speceyes.answerer import SpeculativeAnswerer
        >>> from speceyes.models.scripted import ScriptedModel
        >>> from speceyes.types import Query
        >>> drafts = SpeculativeAnswerer(ScriptedModel("red"))
        >>> worker = Worker(SpecPipeline(answerer=drafts, gate=SeparabilityGate(0.98)))
        >>> worker.start()
        >>> query = Query("Which colour?", (Image.new("RGB", (64, 64)),))
        >>> job = Job(query, "alice", time.monotonic() + 60)
        >>> worker.submit(job)
        >>> job.future.result(timeout=60).answer
        'red'
        >>> worker.close()
        True
    """

    def __init__(
        self,
        pipe: Funnel,
        *,
        loosest: Callable[[Completion], Verdict] | None = None,
        batched: Callable[[int], None] = lambda size: None,
        who: str = "the server",
    ) -> None:
        self._pipe, self._who = pipe, who
        self._watching = pipe.watching()
        self._batched = batched
        self._first = Front(
            pipe.judge,
            pipe.answerer,
            pipe.gate if loosest is None else loosest,
            order=pipe.order,
            early=pipe.early and pipe.auditor is None,
        )
        self._ordering = Ordering(pipe.order)
        self._asked: FairQueue[Job] = FairQueue()
        self._agent = AgentSide(pipe, self._finish, who)
        self._closing = threading.Event()
        self._front_over = threading.Event()
        overlaps = (
            pipe.schedule == "overlapped"
            and pipe.fallback is not None
            and pipe.answerer is not None
        )
        loops = (self._fronts, self._agents) if overlaps else (self._turns,)
        self._threads = [
            threading.Thread(target=loop, name=f"speceyes-{loop.__name__.strip('_')}", daemon=True)
            for loop in loops
        ]

    @property
    def alive(self) -> bool:
        """Whether it takes jobs."""
        return not self._closing.is_set() and all(t.is_alive() for t in self._threads)

    @property
    def waiting(self) -> int:
        """Jobs that nothing has been done for yet, and those that wait for the agent."""
        return len(self._asked) + len(self._agent.waiting)

    @property
    def live(self) -> int:
        """Trajectories under way."""
        return len(self._agent.live)

    def start(self) -> None:
        """Starts its threads."""
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Takes a job on: it will be finished, whatever happens.

        Raises:
            ConfigError: The worker is closed.
        """
        if self._watching is not None and self.alive:
            context = contextvars.copy_context()
            job.watch = self._watching.watch(job.query.id, job.query, context)
        if not (self.alive and self._asked.put(job.client, job)):
            if job.watch is not None:
                job.watch.end(None)
            raise ConfigError("the worker is closed, or was not started")

    def abandon(self, job: Job) -> None:
        """Nobody waits for it any more: it is not begun, or its result is dropped."""
        job.gone = True
        if self._asked.remove(job.client, job) or self._agent.waiting.remove(job.client, job):
            job.fail(UNWANTED)

    def close(self, timeout_s: float | None = None) -> bool:
        """Finishes all that was taken on, audits left out, and ends.

        Args:
            timeout_s: Seconds to wait for that; None for as long as it takes.

        Returns:
            Whether all was finished.
        """
        self._asked.close()  # first, so that a loop that sees `_closing` knows that no more comes
        self._agent.closing = True
        self._closing.set()
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(timeout_s)
        return not any(thread.is_alive() for thread in self._threads)

    # The loops. Nothing that goes wrong inside may end them.

    def _turns(self) -> None:
        """Front and agent by turns, in one thread."""
        while True:
            for _ in range(FRONT_BATCHES):
                # The agent's places are filled first; with none free, new jobs still get drafts.
                idle = not (self._agent.busy or self._closing.is_set())
                jobs = self._asked.take(self._pipe.batch_size, wait=idle)
                if not jobs:
                    break
                self._guarded(jobs)
            if self._agent.busy:
                self._agent.step()
            elif self._closing.is_set() and not len(self._asked):
                break
        self._agent.end()

    def _fronts(self) -> None:
        """The front, in a thread of its own."""
        while True:
            jobs = self._asked.take(self._pipe.batch_size, wait=True)
            if not jobs:
                break
            self._guarded(jobs)
        self._front_over.set()
        self._agent.waiting.close()

    def _agents(self) -> None:
        """The agent, in the other."""
        while True:
            if self._agent.busy:
                self._agent.step()
            elif self._front_over.is_set() and not len(self._agent.waiting):
                break
            else:
                self._agent.join_next()
        self._agent.end()

    def _guarded(self, jobs: Sequence[Job]) -> None:
        try:
            self._front(jobs)
        except Exception as exc:  # noqa: BLE001 - these jobs fail, and the next are served
            _log.error("a batch of %d failed: %s", len(jobs), type(exc).__name__)
            for job in jobs:
                job.fail(f"{self._who} failed: {type(exc).__name__}")

    def _front(self, jobs: Sequence[Job]) -> None:
        """One batch through judge, draft and gate."""
        pipe = self._pipe
        wanted = [job for job in jobs if job.kept()]
        for job in wanted:
            job.begin()
        drafts = pipe.answerer is not None
        straight = [job for job in wanted if job.straight or not drafts]
        drafted = [job for job in wanted if not job.straight and drafts]
        if pipe.speculate == "auto" and pipe.fallback is not None and drafted:
            plan = list(zip(drafted, pipe.costs.plan(len(drafted)), strict=True))
            straight += [job for job, speculated in plan if not speculated]
            drafted = [job for job, speculated in plan if speculated]
        for job in straight:
            job.ticket = Ticket(0, job.query, job.since, watch=job.watch)
            self._pass_on(job)
        if not drafted:
            return
        self._batched(len(drafted))
        loaded = [job for job in drafted if self._load(job)]
        tickets = [job.ticket for job in loaded if job.ticket is not None]
        self._ordering.run(tickets, self._first.judge, self._first.draft)
        for job, ticket in zip(loaded, tickets, strict=True):
            self._settle(job, ticket)

    def _load(self, job: Job) -> bool:
        """Whether its images are within the limits; where not, it is finished now."""
        try:
            query = intake.to_query(job.query, number=0, limits=self._pipe.image_limits)
        except Exception as exc:  # noqa: BLE001 - a query's failure is its own
            job.fail(str(exc) if isinstance(exc, InputError) else describe(exc))
            return False
        job.ticket = Ticket(0, query, job.since, gate=job.gate, watch=job.watch)
        return True

    def _settle(self, job: Job, ticket: Ticket) -> None:
        """By draft, or on to the agent."""
        accepted = ticket.by_draft()
        auditor = self._pipe.auditor
        if auditor is not None:
            score = None if ticket.verdict is None else ticket.verdict.separability
            ticket.audit = auditor.observe(score, accepted is not None)
        if accepted is None:
            self._pass_on(job)
            return
        self._finish(job, accepted[1])
        if ticket.audit is not None:
            self._agent.waiting.put_aside(job)

    def _pass_on(self, job: Job) -> None:
        assert job.ticket is not None
        if self._pipe.fallback is None:
            self._finish(job, job.ticket.unanswered()[1])
        else:
            self._agent.waiting.put(job.client, job)

    def _finish(self, job: Job, result: Result) -> None:
        self._pipe.costs.note(result)
        job.finish(result)
