"""Events that tell a host program of queries while they are under way.

An observer is anything that can be called with an event. Observers are called in the thread that
did the work, several at once where a pipeline has several threads, and in a copy of the context
(`contextvars`) that the query was asked in. One that raises is logged and changes nothing.
"""

from __future__ import annotations

import contextvars
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final

from speceyes.types import Completion, Judgement, Query, Result, Step, Trajectory, Verdict

_log = logging.getLogger(__name__)

Phase: TypeAlias = Literal["judge", "draft", "gate", "agent"]


@dataclass(frozen=True, slots=True)
class QueryBegan:
    """A query was taken up.

    Args:
        key: Names the query's events; unique in this process, as ids need not be.
        query_id: Its id.
        query: The query; None where it could not be read.
        began: Seconds since the epoch, as all times here.
    """

    key: int
    query_id: str
    query: Query | None
    began: float


@dataclass(frozen=True, slots=True)
class PhaseEnded:
    """A phase has said what it makes of a query.

    Args:
        key: The query's.
        query_id: Its id.
        phase: "judge", "draft", "gate" or "agent".
        model: The name of the phase's model; None for the gate, or where it has none.
        began: When the batch that it was part of began; for the agent, when the query joined.
        ended: When it was through.
        rows: Queries in that batch.
        outcome: What it said.
    """

    key: int
    query_id: str
    phase: Phase
    model: str | None
    began: float
    ended: float
    rows: int
    outcome: Judgement | Completion | Verdict | Trajectory


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """A turn of the agent is over, its tools included.

    Args:
        key: The query's.
        query_id: Its id.
        number: Of the turn, from 1.
        model: The name of the agent's model.
        began: When the turn before it ended, or the query joined the agent.
        said: When the model had spoken and its tools began.
        ended: When the tools were done.
        step: What was said and shown.
    """

    key: int
    query_id: str
    number: int
    model: str | None
    began: float
    said: float
    ended: float
    step: Step


@dataclass(frozen=True, slots=True)
class QueryEnded:
    """The last event of a query; each that began has one.

    Args:
        key: The query's.
        query_id: Its id.
        began: When it was taken up.
        ended: When it was done with.
        result: What became of it; None where the run was given up before.
    """

    key: int
    query_id: str
    began: float
    ended: float
    result: Result | None


Event: TypeAlias = QueryBegan | PhaseEnded | TurnEnded | QueryEnded
Observer: TypeAlias = Callable[[Event], Any]


@final
class QueryTrace:
    """Events of one query. Made by `ObserverDispatcher.trace`."""

    __slots__ = (
        "_dispatcher",
        "_joined",
        "_lock",
        "_over",
        "_turn_began",
        "_turns",
        "began",
        "context",
        "id",
    )
    _KEYS = itertools.count(1)

    def __init__(
        self,
        dispatcher: ObserverDispatcher,
        query_id: str,
        query: Query | None,
        context: contextvars.Context,
    ) -> None:
        self._dispatcher, self.context = dispatcher, context
        self.id = (next(QueryTrace._KEYS), query_id)
        self.began = self._joined = self._turn_began = time.time()
        self._turns = 0
        self._over = False
        self._lock = threading.Lock()
        self._tell(QueryBegan(*self.id, query, self.began))

    def phase(
        self,
        phase: Phase,
        seconds: float,
        outcome: Judgement | Completion | Verdict | Trajectory,
        rows: int = 1,
    ) -> None:
        """A phase is over, after `seconds` for `rows` queries."""
        if not self._over:
            now = time.time()
            model = self._dispatcher.models.get(phase)
            self._tell(PhaseEnded(*self.id, phase, model, now - seconds, now, rows, outcome))

    def joined(self) -> None:
        """The query joins the agent."""
        self._joined = self._turn_began = time.time()

    @property
    def with_agent_s(self) -> float:
        """Seconds since it joined the agent."""
        return time.time() - self._joined

    def turn(self, step: Step, tool_seconds: float) -> None:
        """A turn of the agent is over, of which its tools took `tool_seconds`."""
        if self._over:
            return
        now = time.time()
        self._turns += 1
        model = self._dispatcher.models.get("agent")
        began, said = self._turn_began, max(self._turn_began, now - tool_seconds)
        self._turn_began = now
        self._tell(TurnEnded(*self.id, self._turns, model, began, said, now, step))

    def end(self, result: Result | None) -> None:
        """The query is done with; only the first time counts."""
        with self._lock:
            if self._over:
                return
            self._over = True
        self._dispatcher.forget(self)
        self._tell(QueryEnded(*self.id, self.began, time.time(), result))

    def _tell(self, event: Event) -> None:
        for observer in self._dispatcher.observers:
            try:
                # A context can be entered once at a time, and threads may tell at once.
                self.context.copy().run(observer, event)
            except Exception:  # noqa: BLE001 - whoever looks on must not hurt who is looked at
                _log.warning("an observer failed on %s", type(event).__name__, exc_info=True)


@final
class ObserverDispatcher:
    """Sends the events of one run to its observers.

    Args:
        observers: Called with each event.
        models: Names of the phases' models.
    """

    def __init__(
        self, observers: Iterable[Observer], models: Mapping[str, str | None] | None = None
    ) -> None:
        self.observers = tuple(observers)
        self.models: Mapping[str, str | None] = models or {}
        self._context = contextvars.copy_context()
        self._open: set[QueryTrace] = set()
        self._lock = threading.Lock()

    def trace(
        self, query_id: str, query: Query | None, context: contextvars.Context | None = None
    ) -> QueryTrace:
        """Trace of a query that begins now, in the context given, or in that of the run."""
        trace = QueryTrace(self, query_id, query, context or self._context)
        with self._lock:
            self._open.add(trace)
        return trace

    def forget(self, trace: QueryTrace) -> None:
        """It has ended."""
        with self._lock:
            self._open.discard(trace)

    def close(self) -> None:
        """Tells that what is still open was given up."""
        with self._lock:
            left = list(self._open)
        for trace in left:
            trace.end(None)


@final
class LogObserver:
    """Writes a line of plain `logging` for each event; questions, answers and images never.

    Args:
        logger: Where to; None for `speceyes.pipeline.events`.
        level: At which level; events of failed queries are warnings.

    Example:
        >>> from PIL import Image
        >>> from speceyes import SpecPipeline
        >>> from speceyes.models.scripted import ScriptedModel
        >>> pipe = SpecPipeline.from_pretrained(
        ...     small=ScriptedModel("red"), judge=None, observers=[LogObserver()]
        ... )
        >>> pipe(Image.new("RGB", (64, 64)), "Which colour?").route
        'draft'
    """

    def __init__(self, logger: logging.Logger | None = None, level: int = logging.INFO) -> None:
        self._logger, self._level = logger or _log, level

    def __call__(self, event: Event) -> None:
        """Writes it down."""
        failed = isinstance(event, QueryEnded) and (
            event.result is not None and event.result.error is not None
        )
        level = max(self._level, logging.WARNING) if failed else self._level
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "query %s: %s", event.query_id, _line(event))


def _line(event: Event) -> str:
    if isinstance(event, QueryBegan):
        return f"began, {len(event.query.images)} images" if event.query else "can't be read"
    spent = f"in {event.ended - event.began:.3f} s"
    if isinstance(event, TurnEnded):
        # What a model wrote is no line of its own, and not a long one.
        names = ", ".join(repr(call.name[:60]) for call in event.step.calls) or "none"
        return f"turn {event.number} of {event.model}: {event.step.tokens} tokens, tools {names}"
    if isinstance(event, QueryEnded):
        if event.result is None:
            return f"given up {spent}"
        how = "without an answer" if event.result.answer is None else "answered"
        return f"{how} by route {event.result.route} {spent}"
    outcome = event.outcome
    if isinstance(outcome, Judgement):
        said = f"needs_tools={outcome.needs_tools} p={outcome.p_tools}"
    elif isinstance(outcome, Verdict):
        said = f"accepted={outcome.accepted} score={outcome.score} threshold={outcome.threshold}"
    elif isinstance(outcome, Trajectory):
        said = f"{outcome.stop} after {len(outcome.steps)} turns and {outcome.depth} calls"
    else:
        said = f"{len(outcome.token_ids)} tokens, {outcome.finish}"
    return f"{event.phase} {spent} ({event.rows} rows): {said}"
