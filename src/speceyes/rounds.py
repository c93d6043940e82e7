"""How batches in front and trajectories in the agent take turns; local to one run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeAlias, final

from speceyes.ahead import Ahead
from speceyes.auditing import Auditor
from speceyes.journey import Ticket
from speceyes.types import Result, Step

if TYPE_CHECKING:
    from speceyes.fallback import AgentRun

Loaded: TypeAlias = tuple[list[tuple[int, Result]], list[Ticket]]
"""Results that are final, and queries that are under way."""

FRONT_BATCHES = 4
"""Most batches that pass judge, draft and gate between two steps of the agent: enough to fill
its places, few enough that live trajectories go on while nothing is rejected."""


@final
class Rounds:
    """One run of a pipeline.

    Args:
        front: Takes a batch through judge, draft and gate.
        agent: Takes the rest; None where there is none.
        batch_size: Queries a batch.
        auditor: Has accepted drafts audited.
        observed: Whether anybody wants to see the agent's turns.
    """

    def __init__(
        self,
        front: Callable[[list[tuple[int, Result]], Sequence[Ticket]], Loaded],
        agent: AgentRun | None,
        batch_size: int,
        auditor: Auditor | None,
        *,
        observed: bool = False,
    ) -> None:
        self._front, self._agent, self._batch_size = front, agent, batch_size
        self._auditor = auditor
        self._waiting: deque[Ticket] = deque()
        self._audits: deque[Ticket] = deque()
        self._live: dict[int, Ticket] = {}
        if observed and agent is not None:
            agent.tell_turns(self._turned)

    @property
    def busy(self) -> bool:
        """Whether the agent has anything to do."""
        return bool(self._waiting or self._live or self._audits)

    def batched(self, ahead: Ahead[Loaded]) -> Iterator[tuple[int, Result]]:
        """Front and agent by turns."""
        agent = self._agent
        while not ahead.exhausted or self.busy:
            for _ in range(FRONT_BATCHES):
                if ahead.exhausted or (agent is not None and len(self._waiting) >= agent.room):
                    break
                yield from self._sorted(self._front(*ahead.batch()))
            if agent is not None:
                yield from self._step(agent)

    def overlapped(self, ahead: Ahead[Loaded]) -> Iterator[tuple[int, Result]]:
        """The front in a thread, while the agent works in this one."""
        agent = self._agent
        assert agent is not None
        front: Future[Loaded] | None = None
        fronts = 0  # since the agent's last step
        pool = ThreadPoolExecutor(1, thread_name_prefix="speceyes-front")
        try:
            while not ahead.exhausted or front is not None or self.busy:
                self._fill(agent)
                if front is None and not ahead.exhausted and len(self._waiting) < self._batch_size:
                    front = pool.submit(self._front, *ahead.batch())
                # A round is better begun with all its rows; where rows join at any time, at once.
                waits = not self._live or (agent.room > 0 and not agent.joins)
                enough = bool(self._live) and fronts >= FRONT_BATCHES
                if front is not None and not enough and (front.done() or waits):
                    loaded = front.result()
                    front, fronts = None, fronts + 1
                    yield from self._sorted(loaded)
                else:
                    fronts = 0
                    yield from self._step(agent)
        finally:
            pool.shutdown(wait=True)

    def close(self) -> None:
        """Gives up what is under way."""
        if self._agent is not None:
            self._agent.close()
        if self._auditor is not None:
            for ticket in (*self._audits, *self._live.values()):
                if ticket.audit is not None:
                    self._auditor.give_up(ticket.audit)

    def _sorted(self, loaded: Loaded) -> list[tuple[int, Result]]:
        """Puts down who waits for the agent; the results that are final."""
        finished, left = loaded
        for ticket in left:
            (self._waiting if ticket.audit is None else self._audits).append(ticket)
        return finished

    def _fill(self, agent: AgentRun) -> None:
        """Those who wait for an answer come first, unless audits have piled up."""
        while agent.room:
            late = len(self._audits) > self._batch_size
            if self._waiting and not late:
                ticket = self._waiting.popleft()
            elif self._audits:
                ticket = self._audits.popleft()
            else:
                return
            key = ticket.at if ticket.audit is None else -1 - ticket.at
            self._live[key] = ticket
            if ticket.watch is not None and ticket.audit is None:
                ticket.watch.joined()
            agent.add(key, ticket.query)

    def _turned(self, key: int, step: Step, tool_seconds: float) -> None:
        ticket = self._live[key]
        if ticket.watch is not None and ticket.audit is None:
            ticket.watch.turn(step, tool_seconds)

    def _step(self, agent: AgentRun) -> Iterator[tuple[int, Result]]:
        self._fill(agent)
        for key, trajectory, seconds in agent.step() if self._live else ():
            ticket = self._live.pop(key)
            if ticket.audit is None:
                yield ticket.by_agent(trajectory, seconds)
            elif self._auditor is not None and ticket.draft is not None:
                said = ticket.draft.text.strip()
                self._auditor.report(ticket.audit, ticket.query, said, trajectory)
