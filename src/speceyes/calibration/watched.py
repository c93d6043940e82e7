"""Gate that stops accepting once its monitor has tripped."""

from __future__ import annotations

import dataclasses
from typing import final

from speceyes.calibration.monitor import GateMonitor
from speceyes.errors import ConfigError
from speceyes.protocols import Gate
from speceyes.types import Completion, Verdict


@final
class WatchedGate:
    """A gate that accepts nothing any more once its monitor has tripped.

    Drafts are still scored then, so that the scores can go on being observed.

    Args:
        gate: The gate, usually `SeparabilityGate.from_calibration(...)`.
        monitor: Fed by whoever serves the queries; here it is only read.

    Example:
        >>> from speceyes.gate import SeparabilityGate
        >>> monitor = GateMonitor(0.05)
        >>> gate = WatchedGate(SeparabilityGate(0.98, top_k=4), monitor)
        >>> clear = Completion("red", (7,), [[-0.1, -7.0, -8.0, -9.0]])
        >>> gate(clear).accepted
        True
        >>> for _ in range(10):
        ...     monitor.audit(True)
        >>> gate(clear).accepted
        False
    """

    def __init__(self, gate: Gate, monitor: GateMonitor) -> None:
        if not callable(gate):
            raise ConfigError(f"gate={gate!r} can't be called on a draft")
        self.gate = gate
        self.monitor = monitor

    def __call__(self, completion: Completion) -> Verdict:
        """The gate's verdict; no acceptance where the monitor has tripped."""
        verdict = self.gate(completion)
        if verdict.accepted and self.monitor.tripped:
            return dataclasses.replace(
                verdict,
                accepted=False,
                reason="the monitor has tripped: audits refuted the promised risk of "
                f"{self.monitor.target:g}; calibrate anew",
            )
        return verdict

    @property
    def floor(self) -> None:
        """Never ends a draft early: the monitor compares scores with those of whole drafts."""
        return None
