"""A share of what the gate accepts goes through the agent as well, in the background."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from speceyes.calibration.arming import Audit
from speceyes.calibration.monitor import GateMonitor
from speceyes.checks import checked_number, checked_outcome
from speceyes.errors import ConfigError, describe
from speceyes.types import Query, Trajectory

_log = logging.getLogger(__name__)

TIMEOUT_S: Final = 600.0
"""Seconds, by default, after which an audit without an outcome counts as a disagreement."""


@dataclass(slots=True)
class _Running:
    audit: Audit
    deadline: float


@final
class Auditor:
    """Audits accepted drafts for a `GateMonitor`: what the agent would have said instead.

    Give one to `SpecPipeline(auditor=...)`: an audited query is answered by its draft at once, and
    the agent takes it up when it has places free. Once the monitor has tripped no draft is accepted
    any more, until it is re-armed. Threads may share an auditor.

    Outcomes count in the order in which the audits were drawn, as the monitor's bound demands.
    An audit in which the agent gives no answer, fails or takes too long counts as a disagreement,
    since leaving it out would make drafts on hard queries look safe; one that is given up with its
    stream is left out, for that has nothing to do with its outcome.

    Args:
        monitor: Draws the audits (its `share`) and says when the promised risk is passed.
        agrees: Whether a draft's answer (second) says what the agent's (third) says. It must
            mean what the calibration's labels mean; `speceyes.evaluation.grading.same_answer`
            compares short answers by rules.
        timeout_s: Seconds from when an audit is drawn, and again from when the agent takes it up,
            after which it counts as a disagreement and nothing is kept of it. Time in which
            nobody asks a stream for its next result isn't counted.
        clock: Seconds that only grow.

    Raises:
        ConfigError: agrees can't be called, or timeout_s isn't above 0.

    Example:
        >>> auditor = Auditor(GateMonitor(0.05), lambda query, draft, agent: draft == agent)
        >>> auditor.monitor.tripped
        False
    """

    def __init__(
        self,
        monitor: GateMonitor,
        agrees: Callable[[Query, str, str], bool],
        *,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not callable(agrees):
            raise ConfigError(
                f"agrees={agrees!r} can't be called: pass a function of the query, the draft's "
                "answer and the agent's"
            )
        if not checked_number("timeout_s", timeout_s, 0.0) > 0:
            raise ConfigError("timeout_s=0; it must be above 0")
        self.monitor = monitor
        self._agrees, self._timeout_s, self._clock = agrees, timeout_s, clock
        self._lock = threading.Lock()
        self._running: dict[int, _Running] = {}

    def observe(
        self, score: float | None, accepted: bool, *, arming: int | None = None
    ) -> int | None:
        """Takes in a query; see `GateMonitor.observe`.

        Returns:
            The number of its audit, which `report`, `fail` or `give_up` must be told; None for no
            audit.
        """
        self.expire()
        drawn = self.monitor.observe(score, accepted, arming=arming)
        if drawn is None:
            return None
        with self._lock:
            self._running[drawn.number] = _Running(drawn, self._clock() + self._timeout_s)
        return drawn.number

    def begin(self, number: int) -> bool:
        """The agent takes an audit up.

        Returns:
            False where it isn't wanted any more.
        """
        with self._lock:
            if number not in self._running:
                return False
            self._running[number].deadline = self._clock() + self._timeout_s
        return True

    def runs(self, number: int) -> bool:
        """True where the audit's outcome is still wanted."""
        with self._lock:
            return number in self._running

    def report(self, number: int, query: Query, draft: str, trajectory: Trajectory) -> None:
        """Takes in what the agent said to a query that was answered by draft."""
        agreed = False
        if trajectory.answer is not None:
            try:
                said = self._agrees(query, draft, trajectory.answer)
                agreed = checked_outcome("agrees", said)
            except Exception as exc:  # noqa: BLE001 - what can't be compared doesn't agree
                _log.warning("an audit could not be compared: %s", describe(exc))
        self._settle(number, not agreed)

    def fail(self, number: int, reason: str) -> None:
        """An audit could not be carried out, which counts as a disagreement."""
        _log.warning("an audit failed, which counts as a disagreement: %s", reason)
        self._settle(number, True)

    def give_up(self, number: int) -> None:
        """An audit will not be run, for a reason that has nothing to do with its outcome."""
        self._settle(number, None)

    def expire(self) -> None:
        """Counts those that take too long as disagreements."""
        now = self._clock()
        with self._lock:
            late = [number for number, one in self._running.items() if one.deadline <= now]
        for number in late:
            self.fail(number, f"it took longer than timeout_s={self._timeout_s:g} s")

    def extend(self, seconds: float) -> None:
        """Adds time in which nothing could be done to all deadlines."""
        with self._lock:
            for one in self._running.values():
                one.deadline += seconds

    def _settle(self, number: int, disagreed: bool | None) -> None:
        with self._lock:
            running = self._running.pop(number, None)
            if running is None:
                return
            before = self.monitor.tripped
            if disagreed is None:
                self.monitor.leave_out(running.audit)
            else:
                self.monitor.audit(disagreed, running.audit)
            if self.monitor.tripped and not before:
                _log.warning(
                    "the gate is shut: audits refuted the promised risk of %g (%d of %d audits "
                    "disagreed); calibrate anew and rearm the monitor",
                    self.monitor.target,
                    self.monitor.disagreements,
                    self.monitor.audits,
                )
