"""A clock that jumps from event to event, and lanes that wait by it.

Lanes are threads of which one runs at a time, handed on in a fixed order, so that the real
scheduler with both of its lanes is driven without a second being waited for, and every run of the
same work comes out the same.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, final

from speceyes.errors import ModelError


class EventSource(Protocol):
    """Something that happens at times of its own, such as an accelerator's steps."""

    def next_event(self) -> float:
        """Time of its next event, seconds; infinite where it has none."""
        ...

    def fire(self) -> None:
        """Lets that event happen; the clock stands at its time."""
        ...


def _held() -> threading.Lock:
    """A lock that is taken: whoever wants it waits until another gives it."""
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass(slots=True, eq=False)
class _Lane:
    work: Callable[[], None]
    ready: Callable[[], bool] = lambda: True
    until: float = -math.inf
    over: bool = False
    baton: threading.Lock = field(default_factory=_held)
    thread: threading.Thread | None = None


@final
class VirtualClock:
    """Seconds of virtual time. Called, it tells them.

    Example:
        >>> clock, heard = VirtualClock(), []
        >>> clock.run([lambda: (clock.wait(until=3.0), heard.append(clock()))])
        >>> heard
        [3.0]
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._sources: list[EventSource] = []
        self._made: list[_Lane] = []
        self._lanes: dict[int, _Lane] = {}
        self._failure: BaseException | None = None
        self._back = _held()

    def __call__(self) -> float:
        """Seconds since the beginning."""
        return self.now

    def add(self, source: EventSource) -> None:
        """Has a source's events happen."""
        self._sources.append(source)

    def wait(self, ready: Callable[[], bool] = lambda: False, until: float = math.inf) -> None:
        """Returns when `ready` says so, or at a time. In a lane, others go on meanwhile.

        Raises:
            ModelError: Nothing will ever happen any more.
        """
        lane = self._lanes.get(threading.get_ident())
        if lane is None:
            while not ready() and self.now < until:
                self._advance(until)
            return
        if ready():
            return
        lane.ready, lane.until = ready, until
        if self._hand_on() is not lane:
            lane.baton.acquire()

    def run(self, lanes: Sequence[Callable[[], None]]) -> None:
        """Runs lanes to their ends, by turns, the first that is ready before the others.

        Raises:
            ModelError: All of them wait, and nothing will ever happen.
            Exception: What a lane raised; the others are given up.
        """
        self._made, self._failure = [_Lane(work) for work in lanes], None
        for lane in self._made:
            lane.thread = threading.Thread(target=self._lane, args=(lane,), daemon=True)
            lane.thread.start()
        self._hand_on()
        self._back.acquire()
        if self._failure is not None:
            raise self._failure
        for lane in self._made:
            assert lane.thread is not None
            lane.thread.join()

    def _lane(self, lane: _Lane) -> None:
        me = threading.get_ident()
        self._lanes[me] = lane
        lane.baton.acquire()
        try:
            lane.work()
        except BaseException as exc:  # noqa: BLE001 - raised where the lanes were started
            self._failure = exc
        finally:
            lane.over = True
            del self._lanes[me]
            self._hand_on()

    def _hand_on(self) -> _Lane | None:
        """Lets the next lane go on, in the thread of the one that waits, which may be the next one
        itself: a thread that wakes another takes as long as a step. None where no lane is to go on.
        """
        due = None
        try:
            while self._failure is None and due is None:
                waiting = [lane for lane in self._made if not lane.over]
                if not waiting:
                    break
                due = next((one for one in waiting if one.ready() or self.now >= one.until), None)
                if due is None:
                    self._advance(min(one.until for one in waiting))
        except BaseException as exc:  # noqa: BLE001 - raised where the lanes were started
            self._failure, due = exc, None
        if due is None:
            self._back.release()
            return None
        due.ready, due.until = (lambda: False), math.inf
        if self._lanes.get(threading.get_ident()) is not due:
            due.baton.release()
        return due

    def _advance(self, until: float) -> None:
        times = [source.next_event() for source in self._sources]
        soonest = min(times, default=math.inf)
        if soonest > until or not times:
            if math.isinf(until):
                raise ModelError("everything waits, and no event is to come")
            self.now = max(self.now, until)
            return
        if math.isinf(soonest):
            raise ModelError("everything waits, and no event is to come")
        self.now = max(self.now, soonest)
        self._sources[times.index(soonest)].fire()
