"""One query under way with what the phases have found so far, and the queue that it waits in."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, final

from speceyes.pipeline.events import QueryTrace
from speceyes.pipeline.route import Facts, outcome
from speceyes.types import Completion, Query, Result, Timings, Verdict

Item = TypeVar("Item")

CANCELLED = "nobody waits for it any more"


@final
@dataclass(slots=True, eq=False)
class RequestState:
    """A query that was accepted, from submission to answer.

    One thread at a time works on it; `cancelled` may be set, and `future` waited for, in any.

    Args:
        query: Its images loaded.
        client: On whose behalf; clients take turns (see `FairQueue`).
        deadline: `time.monotonic` seconds after which no further phase is begun.
        facts: What is known of it.
        gate: A gate of its own, which is not looser than the pipeline's; None for that one.
        position: Its place among the queries of its run.
        since: When it was submitted or pulled, `time.perf_counter` seconds.
        trace: Tells observers of it; None where there are none.
        on_end: Called once, when nothing will be done for it any more.
        clock: Tells the time that `since` and `timings` go by, seconds.
    """

    query: Query
    client: str = ""
    deadline: float = math.inf
    facts: Facts = field(default_factory=Facts)
    gate: Callable[[Completion], Verdict] | None = None
    position: int = 0
    since: float = field(default_factory=time.perf_counter)
    trace: QueryTrace | None = None
    on_end: Callable[[], None] | None = None
    clock: Callable[[], float] = time.perf_counter
    queued_s: float = 0.0
    """Seconds from submission until a model took it up."""
    timings: Timings = field(default_factory=Timings)
    audit: int | None = None
    """Number of its audit; None where it isn't audited."""
    straight: int | None = None
    """Its number among those that were planned to go straight to the agent."""
    why_straight: Literal["", "costs", "probe"] = ""
    stage_alone: bool = True
    """True where nothing ran beside its judgement and its draft."""
    joined_at: int | None = None
    """Batches that had been judged or drafted when the agent took it up; None where one was."""
    cancelled: bool = False
    future: Future[Result] = field(default_factory=Future)
    result: Result | None = None
    """What became of it; None while it is under way."""
    _delivered: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        # Cancelling is `cancelled`; the future itself belongs to whoever finishes the request.
        self.future.set_running_or_notify_cancel()

    @property
    def wanted(self) -> bool:
        """True where anybody would still get the answer."""
        return not self.cancelled and time.monotonic() < self.deadline

    def learn(self, **found: Any) -> None:
        """Adds what a phase found; names as in `Facts`."""
        for name, value in found.items():
            setattr(self.facts, name, value)

    def spent(self, **seconds: float) -> None:
        """Notes seconds of phases; names as in `Timings`."""
        self.timings = dataclasses.replace(self.timings, **seconds)

    def begin(self) -> None:
        """Notes that a model takes it up now."""
        self.queued_s = self.clock() - self.since

    def conclude(self) -> Result:
        """Settles what becomes of it, where its next phase is "answer"."""
        ended = outcome(self.facts)
        self.spent(latency=self.clock() - self.since)
        self.result = Result(
            query_id=self.query.id,
            answer=ended.answer,
            route=ended.route,
            judgement=self.facts.judgement,
            draft=self.facts.draft,
            verdict=self.facts.verdict,
            trajectory=self.facts.trajectory,
            timings=self.timings,
            error=ended.error,
            question=self.query.question,
            straight=self.why_straight or ("asked" if self.facts.direct else ""),
        )
        self.learn(answered=True)
        return self.result

    def deliver(self) -> Result:
        """Hands the result to whoever waits; a second time nothing happens."""
        assert self.result is not None
        with self._lock:
            first, self._delivered = not self._delivered, True
        if first:
            if self.trace is not None:
                self.trace.end(self.result)
            self.future.set_result(self.result)
            if self.on_end is not None:
                self.on_end()
        return self.result


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
