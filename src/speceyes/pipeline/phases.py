"""The phases as the scheduler runs them: judge, draft and gate on a batch of requests, and the
agent on those that have a place in it, with the line that requests wait in.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

from speceyes.answerer import SpeculativeAnswerer
from speceyes.errors import describe
from speceyes.models.rows import one_by_one, one_each
from speceyes.pipeline.parts import Parts
from speceyes.pipeline.request import CANCELLED, RequestState
from speceyes.pipeline.route import Phase
from speceyes.protocols import Answerer, Gate, HasThreshold, JudgesDrafts, SupportsFloor, offers
from speceyes.types import Completion, Judgement, Query, Step, Verdict

if TYPE_CHECKING:
    from speceyes.fallback import AgentRun

_log = logging.getLogger(__name__)

Found = TypeVar("Found")
Item = TypeVar("Item")

RUNG: Final = "drafter"
"""Name of the note that holds the place, from 0, of what made a draft: a rung, or a drafter of a
cascade."""


@final
class SpeculativeStage:
    """Runs one phase on a batch and notes on each request what was found.

    A phase that fails on a query says so in that query's facts, which route it to the agent.

    Args:
        parts: Judge, answerer and gate, and the rungs below them.
        gate: The gate to use instead of the parts' own.
    """

    def __init__(self, parts: Parts, gate: Gate | None) -> None:
        self._judge, self._clock = parts.judge, parts.clock
        top = () if parts.answerer is None or gate is None else ((parts.answerer, gate),)
        self._rungs = (*parts.ladder, *top)
        self._parts = parts
        self.phases: Mapping[Phase, Callable[[Sequence[RequestState]], None]] = {
            "judge": self.judge,
            "draft": self.draft,
            "gate": self.gate,
        }
        """Phase to what runs it on requests that all need it now."""

    @functools.cached_property
    def _answerers(self) -> list[Answerer]:
        """Of each rung, made when the first query is drafted."""
        return [_ending(answerer, gate, self._parts) for answerer, gate in self._rungs]

    def judge(self, requests: Sequence[RequestState]) -> None:
        """Phase I."""
        assert self._judge is not None
        judgements, seconds = _asked(self._judge, requests, _unjudged, self._clock)
        for request, judgement in zip(requests, judgements, strict=True):
            request.learn(judgement=judgement)
            request.spent(judge=seconds / len(requests))
            if request.trace is not None:
                request.trace.phase("judge", seconds, judgement, len(requests))

    def draft(self, requests: Sequence[RequestState]) -> None:
        """Phase II, of the lowest rung that any of them is due for."""
        last = len(self._rungs) - 1
        due = [self._due(request, last) for request in requests]
        rung = min(due)
        mine = [r for r, its in zip(requests, due, strict=True) if its == rung]
        answerer: object = self._rungs[rung][0]
        drafts, seconds = _asked(self._answerers[rung], mine, Completion.failed, self._clock)
        for request, draft in zip(mine, drafts, strict=True):
            if last:
                draft = draft.noted(RUNG, rung)
            request.learn(draft=draft, verdict=None, rung=rung)
            request.spent(draft=seconds / len(mine) + (request.timings.draft or 0.0))
            if request.trace is not None:
                request.trace.phase("draft", seconds, draft, len(mine))
            if offers(answerer, JudgesDrafts) and (found := answerer.judgement(draft)):
                if found.needs_tools and rung < last:
                    verdict = Verdict(False, None, None, float("nan"), reason=found.reason)
                    request.learn(verdict=verdict)
                else:
                    request.learn(judgement=found)

    def _due(self, request: RequestState, last: int) -> int:
        """Rung of a request's next draft. A gate of its own knows the top one's scores alone."""
        if request.gate is not None:
            return last
        return 0 if request.facts.draft is None else min(request.facts.rung + 1, last)

    def gate(self, requests: Sequence[RequestState]) -> None:
        """Phase III."""
        for request in requests:
            assert request.facts.draft is not None
            start = self._clock()
            gate = self._rungs[request.facts.rung][1]
            verdict = self._verdict(gate, request.facts.draft, request.gate)
            seconds = self._clock() - start
            request.learn(verdict=verdict)
            request.spent(gate=seconds + (request.timings.gate or 0.0))
            if request.trace is not None:
                request.trace.phase("gate", seconds, verdict)

    def _verdict(self, gate: Gate, draft: Completion, own: Gate | None) -> Verdict:
        """Verdict of the gate, or of the query's own gate."""
        verdict = verdict_of(gate, draft)
        if own is not None:
            mine = verdict_of(own, draft)
            # What the loosest gate rejects, none accepts; what it calls blank, it keeps blank.
            verdict = mine if verdict.accepted or not mine.accepted else verdict
        if verdict.accepted and (draft.error is not None or not draft.text.strip()):
            # No score makes an answer out of nothing, whichever gate gave it.
            reason = draft.error or "the draft is blank"
            return dataclasses.replace(verdict, accepted=False, reason=reason)
        return verdict


def _ending(answerer: Answerer, gate: Gate, parts: Parts) -> Answerer:
    """The answerer, whose drafts end at the first token by which the gate rejects them."""
    if not parts.ends_early or not isinstance(answerer, SpeculativeAnswerer):
        return answerer
    floor = gate.floor if offers(gate, SupportsFloor) else None
    return functools.partial(answerer, floor=floor)


def _asked(
    phase: Callable[[Sequence[Query]], Sequence[Found]],
    requests: Sequence[RequestState],
    failed: Callable[[str], Found],
    clock: Callable[[], float],
) -> tuple[Sequence[Found], float]:
    """A phase's findings on each query, and the seconds that all of them took."""
    start = clock()
    queries = [request.query for request in requests]
    try:
        found: Sequence[Found] = one_each(phase(queries), queries)
    except Exception as exc:  # noqa: BLE001 - whatever it is, the rows are told apart
        found = one_by_one(phase, queries, failed, exc)
    return found, clock() - start


def _unjudged(reason: str) -> Judgement:
    return Judgement(True, reason=f"the judge failed: {reason}")


def verdict_of(gate: Gate, draft: Completion) -> Verdict:
    """Verdict of a gate; one that raises rejects."""
    try:
        return gate(draft)
    except Exception as exc:  # noqa: BLE001 - a draft that can't be scored is rejected
        _log.warning("the gate failed: %s", describe(exc))
        known = gate.threshold if offers(gate, HasThreshold) else None
        threshold = float("nan") if known is None else known
        return Verdict(False, None, None, threshold, reason=f"gate failed: {describe(exc)}")


@final
class FairQueue(Generic[Item]):
    """First in, first out for a client; one from each client by turns. Not locked.

    What is put in the background is taken when nothing else is there, or when it has piled up.

    Args:
        piled: How much in the background is a pile.

    Example:
        >>> queue = FairQueue()
        >>> for item in ("a1", "a2", "b1"):
        ...     queue.put(item[0], item)
        >>> queue.take(3)
        ['a1', 'b1', 'a2']
    """

    def __init__(self, piled: int = 16) -> None:
        self._lines: OrderedDict[str, deque[Item]] = OrderedDict()
        self._background: deque[Item] = deque()
        self._piled = piled
        self._length = 0

    def __len__(self) -> int:
        """Number of items that wait, those in the background left out."""
        return self._length

    @property
    def background(self) -> int:
        """Number of items that wait in the background."""
        return len(self._background)

    def put(self, client: str, item: Item) -> None:
        """Appends to a client's line."""
        self._lines.setdefault(client, deque()).append(item)
        self._length += 1

    def put_in_background(self, item: Item) -> None:
        """Appends to the background."""
        self._background.append(item)

    def remove(self, client: str, item: Item) -> bool:
        """Takes an item out; False where it isn't waiting any more."""
        line = self._lines.get(client)
        if line is None or item not in line:
            return False
        line.remove(item)
        self._length -= 1
        if not line:
            del self._lines[client]
        return True

    def take(self, most: int) -> list[Item]:
        """Up to `most` of what waits."""
        taken: list[Item] = []
        while len(taken) < most and (self._length or self._background):
            if self._background and (not self._length or len(self._background) > self._piled):
                taken.append(self._background.popleft())
                continue
            client, line = next(iter(self._lines.items()))
            taken.append(line.popleft())
            self._length -= 1
            if line:
                self._lines.move_to_end(client)
            else:
                del self._lines[client]
        return taken

    def take_background(self) -> list[Item]:
        """Everything in the background."""
        taken = list(self._background)
        self._background.clear()
        return taken


@final
class AgentSlots:
    """Requests with the agent. Stepped by one thread; `waiting` belongs to the scheduler's lock.

    Args:
        parts: The fallback.
        observed: Whether turns are told to observers.
    """

    def __init__(self, parts: Parts, *, observed: bool) -> None:
        self._fallback, self._observed = parts.fallback, observed
        self._clock = parts.clock
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
            if key not in self.live:  # it was dropped
                continue
            request = self.live.pop(key)
            if not request.facts.answered:
                request.spent(fallback=seconds)
                if request.trace is not None:
                    request.trace.phase("agent", request.trace.with_agent_s, trajectory)
            request.learn(trajectory=trajectory)
            ended.append(request)
        return ended

    def drop(self, unwanted: Callable[[RequestState], bool]) -> None:
        """Forgets requests. What the agent does for them goes on in its place until it ends."""
        for key in [key for key, request in self.live.items() if unwanted(request)]:
            del self.live[key]

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
            self._run = self._fallback.begin(self._clock)
            self._run.let_in(lambda: len(self.waiting) > 0)
            if self._observed:
                self._run.tell_turns(self._turn_ended)
        return self._run

    def _turn_ended(self, key: int, step: Step, tool_seconds: float) -> None:
        request = self.live.get(key)
        if request is None:
            return
        if request.trace is not None and not request.facts.answered:
            request.trace.turn(step, tool_seconds)
