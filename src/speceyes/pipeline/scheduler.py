"""The one scheduler: requests wait by phase, and `step` runs one batch of what waits.

A list, a stream, coroutines and a server all drive the same object. Where the agent works beside
judge and drafts, two threads step it, each its own lane; `route` alone says where a request goes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final

from speceyes.errors import ConfigError
from speceyes.pipeline.events import ObserverDispatcher
from speceyes.pipeline.parts import Parts
from speceyes.pipeline.phases import AgentSlots, FairQueue, SpeculativeStage, verdict_of
from speceyes.pipeline.request import CANCELLED, RequestState
from speceyes.pipeline.route import Phase, accepted, next_phase
from speceyes.protocols import Gate

if TYPE_CHECKING:
    from speceyes.pipeline.costs import CostModel

_log = logging.getLogger(__name__)

Lane: TypeAlias = Literal["speculative", "agent", "both"]

BATCHES_PER_TURN: Final = 4
"""Most batches that are judged and drafted between two steps of the agent: enough to fill its
places, few enough that live trajectories go on while nothing is rejected."""


@final
class Scheduler:
    """Carries requests from submission to their result.

    Threads may submit and cancel; each lane is stepped by one thread.

    Args:
        parts: The phases.
        planner: Plans who is speculated on, where the parts' schedule asks for that
            (`Parts.plans`); None speculates on everybody.
        on_result: Takes note of each request that has its result, before it is delivered. It
            changes nothing about the request; what it raises is logged, and harms no result.
        dispatcher: Tells observers; None where there are none.
        loosest_gate: A gate that accepts all that any request's own gate may accept; None for the
            parts' gate. Drafts are ended early only where this one rejects them.
        on_batch: Told the size of each batch that is judged or drafted.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        planner: CostModel | None = None,
        on_result: Callable[[RequestState], None] | None = None,
        dispatcher: ObserverDispatcher | None = None,
        loosest_gate: Gate | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self._parts, self._policy = parts, parts.policy
        self._planner, self._on_result = planner, on_result
        self._batch_size = parts.schedule.batch_size
        gate = parts.gate if loosest_gate is None else loosest_gate
        self._stage = SpeculativeStage(parts, gate)
        self._agent = AgentSlots(parts, observed=dispatcher is not None)
        self._arrived: FairQueue[RequestState] = FairQueue()
        self._on_batch = on_batch
        self._changed = threading.Condition()
        self._closing = False
        self._in_stage = 0
        self._working = self._worked = 0
        self._batches_since_turn = 0

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """Lanes to be stepped, each by a thread of its own."""
        return ("speculative", "agent") if self._parts.overlaps else ("both",)

    @property
    def waiting(self) -> int:
        """Requests that nothing was done for yet, and those that wait for the agent."""
        return len(self._arrived) + len(self._agent.waiting)

    @property
    def live(self) -> int:
        """Trajectories under way, audits included."""
        return len(self._agent.live)

    @property
    def waiting_audits(self) -> int:
        """Audits that wait for a place in the agent."""
        return self._agent.waiting.background

    def hungry(self, ahead: int = 0) -> bool:
        """True where another batch should be submitted: nothing waits to be judged or drafted, and
        no more than `ahead` requests wait beyond the agent's free places.
        """
        if len(self._arrived) or self._turn_due:
            return False
        return not self._policy.has_agent or len(self._agent.waiting) < self._agent.room + ahead

    @property
    def better_waits(self) -> bool:
        """True where the agent's next turn is better begun after the batch that is in front: it has
        nothing to do, or has places that can't be taken in mid-turn.
        """
        agent = self._agent
        if not self.has_work("agent"):
            return True
        return len(agent.waiting) < agent.room and not agent.joins_mid_turn

    @property
    def _turn_due(self) -> bool:
        return self._batches_since_turn >= BATCHES_PER_TURN and self.has_work("agent")

    def has_work(self, lane: Lane = "both") -> bool:
        """True where a step of that lane would do anything."""
        arrived = bool(len(self._arrived))
        agent = self._agent
        with_agent = bool(agent.live or len(agent.waiting) or agent.waiting.background)
        if lane == "both":
            return arrived or with_agent
        return arrived if lane == "speculative" else with_agent

    def ready(self, lane: Lane = "both") -> bool:
        """True where a step of that lane is due: what would only wait for the agent is left where
        it can still go another way.
        """
        if not self.has_work(lane):
            return False
        full = len(self._agent.waiting) >= self._batch_size
        straight = self._planner is not None and self._planner.going_straight
        return not (lane == "speculative" and full and straight)

    def submit(self, requests: Sequence[RequestState]) -> None:
        """Takes requests on: each will be returned by `step` once, whatever happens.

        Raises:
            ConfigError: The scheduler is closing.
        """
        with self._changed:
            if self._closing:
                raise ConfigError("the pipeline is closed, or was not started")
            for request in requests:
                self._arrived.put(request.client, request)
            self._changed.notify_all()

    def cancel(self, request: RequestState) -> bool:
        """Nobody waits for it any more; what is under way for it runs to its end unseen.

        Returns:
            Whether it was still waiting. It is finished here then, and no step returns it.
        """
        request.cancelled = True
        with self._changed:
            waited = self._arrived.remove(request.client, request) or self._agent.waiting.remove(
                request.client, request
            )
        if waited:
            request.learn(failure=CANCELLED)
            request.conclude()
            request.deliver()
        return waited

    def wait(self, lane: Lane) -> bool:
        """Waits until that lane has work.

        Returns:
            False once the scheduler is closing and no work will come any more.
        """
        with self._changed:
            while not self.ready(lane):
                idle = not self.has_work(lane)
                if self._closing and idle and not (lane == "agent" and self._may_reach_agent()):
                    return False
                self._changed.wait()
            return True

    def step(self, lane: Lane = "both") -> list[RequestState]:
        """Runs one batch: through judge, draft and gate, or a turn of the agent.

        Returns:
            Requests that have their result now; to be delivered by the caller.
        """
        if lane != "agent" and (batch := self._next_batch(lane)):
            try:
                return self._speculate(batch)
            finally:
                with self._changed:
                    self._in_stage = 0
                    self._changed.notify_all()
        if lane == "speculative":
            return []
        self._batches_since_turn = 0
        self._drop_late_audits()
        ended = self._fill_agent()
        return [*ended, *self._settle_all(self._agent.step())]

    def close(self) -> None:
        """Takes no more requests. What was taken on can still be stepped to its end; audits that
        were not begun are given up.
        """
        with self._changed:
            self._closing = True
            audits = self._agent.waiting.take_background()
            self._changed.notify_all()
        for request in audits:
            self._give_up_audit(request)

    def abort(self) -> None:
        """Gives up everything. To be called when no lane is being stepped."""
        self.close()
        for request in self._agent.live.values():
            self._give_up_audit(request)
        self._agent.close()

    def _may_reach_agent(self) -> bool:
        return bool(len(self._arrived) or self._in_stage)

    def _next_batch(self, lane: Lane) -> list[RequestState]:
        with self._changed:
            if lane == "both" and self._turn_due:
                return []
            batch = self._arrived.take(self._batch_size)
            self._in_stage = len(batch)
        self._batches_since_turn += 1
        return batch

    def _speculate(self, batch: Sequence[RequestState]) -> list[RequestState]:
        """Judge, draft and gate, in the order that `route` says, until the batch has left them."""
        auditor = self._parts.auditor
        # Drafts that were accepted before the monitor was armed anew are not what it watches.
        arming = None if auditor is None else auditor.monitor.arming.number
        wanted = []
        for request in batch:
            if request.wanted:
                request.begin()
                wanted.append(request)
            else:
                request.learn(failure=CANCELLED)
        try:
            self._plan(wanted)
            if self._on_batch is not None and (size := self._many_due(wanted)):
                self._on_batch(size)
            alone = not self._parts.overlaps or not self._agent.live
            while due := self._due(wanted):
                phase, requests = due
                with self._changed:
                    self._working, self._worked = 1, self._worked + 1
                self._stage.phases[phase](requests)
            self._working = 0
            if self._parts.overlaps:
                for request in wanted:
                    request.stage_alone = alone and not self._agent.live
            self._draw_audits(wanted, arming)
        except Exception as exc:  # noqa: BLE001 - these fail, and the next are served
            self._working = 0
            _log.error("a batch of %d failed: %s", len(batch), type(exc).__name__)
            for request in wanted:
                request.learn(failure=f"the pipeline failed: {type(exc).__name__}")
        return self._settle_all(batch)

    def _plan(self, requests: Sequence[RequestState]) -> None:
        """Sends queries straight to the agent where speculation doesn't pay."""
        planner, schedule = self._planner, self._parts.schedule
        if planner is None:
            return
        auto = self._parts.speculate == "auto"
        open_ = [request for request in requests if not request.facts.direct]
        n = len(open_)
        plan = planner.plan(n) if auto else planner.probe(n, schedule.probe)
        for request, speculated in zip(open_, plan, strict=True):
            request.learn(direct=not speculated)
            if not speculated:
                request.straight = planner.next_straight()
                request.why_straight = "costs" if auto else "probe"

    def _due(self, requests: Sequence[RequestState]) -> tuple[Phase, list[RequestState]] | None:
        """The next phase of the stage that any of them needs, and who needs it."""
        phases = self._phases_of(requests)
        first = next((phase for phase in self._stage.phases if phase in phases), None)
        if first is None:
            return None
        return first, [r for r, phase in zip(requests, phases, strict=True) if phase == first]

    def _many_due(self, requests: Sequence[RequestState]) -> int:
        return sum(phase in self._stage.phases for phase in self._phases_of(requests))

    def _phases_of(self, requests: Sequence[RequestState]) -> list[Phase]:
        return [next_phase(request.facts, self._policy) for request in requests]

    def _draw_audits(self, requests: Sequence[RequestState], arming: int | None) -> None:
        auditor = self._parts.auditor
        if auditor is None:
            return
        for request in requests:
            if not request.facts.direct:
                verdict = request.facts.verdict
                score = None if verdict is None else verdict.separability
                promised = accepted(request.facts) and self._promised(request)
                request.audit = auditor.observe(score, promised, arming=arming)
                request.learn(audited=request.audit is not None)

    def _promised(self, request: RequestState) -> bool:
        """True where the calibrated gate accepts too: a request's own may be a looser one."""
        gate, draft = self._parts.gate, request.facts.draft
        if request.gate is None or gate is None or draft is None:
            return True
        return verdict_of(gate, draft).accepted

    def _drop_late_audits(self) -> None:
        """Frees what is kept for audits that took too long."""
        auditor = self._parts.auditor
        if auditor is None:
            return
        auditor.expire()
        self._agent.drop(
            lambda r: r.facts.answered and r.audit is not None and not auditor.runs(r.audit)
        )

    def _fill_agent(self) -> list[RequestState]:
        """Gives free places to those who wait; returns those that have their result instead."""
        failed: list[RequestState] = []
        while self._agent.room:
            with self._changed:
                taken = self._agent.waiting.take(1)
                self._changed.notify_all()  # what was held back may come
            if not taken:
                break
            if taken[0].facts.answered and not self._audit_begins(taken[0]):
                continue
            taken[0].joined_at = None if self._working else self._worked
            self._agent.join(taken[0])
            if taken[0].facts.failure is not None:
                failed += taken
        return self._settle_all(failed)

    def _settle_all(self, requests: Sequence[RequestState]) -> list[RequestState]:
        """Sends each request on to where it goes next; returns those that have their result."""
        ended = []
        for request in requests:
            phase = next_phase(request.facts, self._policy)
            if phase == "answer":
                request.conclude()
                request.agent_alone = not self._parts.overlaps or (
                    request.straight is not None
                    and request.joined_at == self._worked
                    and not self._working
                )
                self._note(request)
                ended.append(request)
                phase = next_phase(request.facts, self._policy)
            elif phase == "done":
                self._report_audit(request)
            if phase in ("agent", "audit"):
                self._send_to_agent(request, audit=phase == "audit")
        return ended

    def _note(self, request: RequestState) -> None:
        if self._on_result is None:
            return
        try:
            self._on_result(request)
        except Exception as exc:  # noqa: BLE001 - a note isn't worth an answer
            _log.error("a result could not be taken note of: %s", type(exc).__name__)

    def _send_to_agent(self, request: RequestState, *, audit: bool) -> None:
        with self._changed:
            if not audit:
                self._agent.waiting.put(request.client, request)
            elif not self._closing:
                self._agent.waiting.put_in_background(request)
            self._changed.notify_all()
        if audit and self._closing:
            self._give_up_audit(request)

    def _report_audit(self, request: RequestState) -> None:
        auditor, facts = self._parts.auditor, request.facts
        if auditor is None or request.audit is None:
            return
        if facts.trajectory is None or facts.draft is None:
            auditor.fail(request.audit, facts.failure or "the agent's run failed")
        else:
            said = facts.draft.text.strip()
            auditor.report(request.audit, request.query, said, facts.trajectory)

    def _audit_begins(self, request: RequestState) -> bool:
        auditor = self._parts.auditor
        return auditor is not None and request.audit is not None and auditor.begin(request.audit)

    def _give_up_audit(self, request: RequestState) -> None:
        if request.audit is not None and request.facts.answered and self._parts.auditor is not None:
            self._parts.auditor.give_up(request.audit)
