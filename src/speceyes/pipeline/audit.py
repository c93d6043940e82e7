"""A share of what the gate accepts goes through the agent as well, in the background."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import final

from speceyes.calibration.monitor import GateMonitor
from speceyes.errors import ConfigError
from speceyes.retry_per_row import describe
from speceyes.types import Query, Trajectory

_log = logging.getLogger(__name__)


@final
class Auditor:
    """Audits accepted drafts for a `GateMonitor`: what the agent would have said instead.

    Give one to `SpecPipeline(auditor=...)`: an audited query is answered by its draft at once, and
    the agent takes it up when it has places free. Once the monitor has tripped no draft is accepted
    any more, until it is re-armed. Threads may share an auditor; the monitor is then its own.

    Outcomes reach the monitor in the order in which the audits were drawn, as its bound demands.
    An audit in which the agent gives no answer counts as a disagreement, since leaving it out
    would make drafts on hard queries look safe; one that is given up with its stream is left out,
    for that has nothing to do with its outcome.

    Args:
        monitor: Draws the audits (its `share`) and says when the promised risk is passed.
        agrees: Whether a draft's answer (second) says what the agent's (third) says. It must
            mean what the calibration's labels mean; `speceyes.evaluation.grading.same_answer`
            compares short answers by rules.

    Raises:
        ConfigError: agrees can't be called.

    Example:
        >>> auditor = Auditor(GateMonitor(0.05), lambda query, draft, agent: draft == agent)
        >>> auditor.monitor.tripped
        False
    """

    def __init__(self, monitor: GateMonitor, agrees: Callable[[Query, str, str], bool]) -> None:
        if not callable(agrees):
            raise ConfigError(
                f"agrees={agrees!r} can't be called: pass a function of the query, the draft's "
                "answer and the agent's"
            )
        self.monitor = monitor
        self._agrees = agrees
        self._lock = threading.Lock()
        self._drawn = self._told = 0
        self._outcomes: dict[int, bool | None] = {}

    def observe(self, score: float | None, accepted: bool) -> int | None:
        """Takes in a query; see `GateMonitor.observe`.

        Returns:
            The number of its audit, which `report` or `give_up` must be told; None for no audit.
        """
        with self._lock:
            if not self.monitor.observe(score, accepted):
                return None
            self._drawn += 1
            return self._drawn - 1

    def report(self, number: int, query: Query, draft: str, trajectory: Trajectory) -> None:
        """Takes in what the agent said to a query that was answered by draft."""
        agreed = False
        if trajectory.answer is not None:
            try:
                agreed = bool(self._agrees(query, draft, trajectory.answer))
            except Exception as exc:  # noqa: BLE001 - what can't be compared doesn't agree
                _log.warning("an audit could not be compared: %s", describe(exc))
        self._note(number, not agreed)

    def give_up(self, number: int) -> None:
        """An audit will not be run."""
        self._note(number, None)

    def _note(self, number: int, disagreed: bool | None) -> None:
        with self._lock:
            self._outcomes[number] = disagreed
            before = self.monitor.tripped
            while self._told in self._outcomes:
                outcome = self._outcomes.pop(self._told)
                self._told += 1
                if outcome is not None:
                    self.monitor.audit(outcome)
            if self.monitor.tripped and not before:
                _log.warning(
                    "the gate is shut: audits refuted the promised risk of %g (%d of %d audits "
                    "disagreed); calibrate anew and rearm the monitor",
                    self.monitor.target,
                    self.monitor.disagreements,
                    self.monitor.audits,
                )
