"""Gate that belongs to a monitor: shut once that has tripped, and made anew when it is re-armed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol, final, runtime_checkable

from speceyes.calibration.arming import Arming
from speceyes.calibration.monitor import GateMonitor
from speceyes.calibration.record import Calibration
from speceyes.errors import CalibrationError, ConfigError
from speceyes.protocols import Gate, HasThreshold, offers
from speceyes.types import Completion, Verdict


@runtime_checkable
class _Calibrated(Protocol):
    """A gate that is made of a calibration, as `SeparabilityGate`."""

    calibration: Calibration | None

    def from_calibration(self, calibration: Calibration) -> Gate:
        """The gate that a calibration holds for."""
        ...


@final
class WatchedGate:
    """A gate that accepts nothing any more once its monitor has tripped.

    Drafts are still scored then, so that the scores can go on being observed. When the monitor is
    re-armed, the gate is the new calibration's from the same moment on.

    Args:
        gate: The gate, usually `SeparabilityGate.from_calibration(...)`.
        monitor: Fed by whoever serves the queries; here it is only read.

    Raises:
        ConfigError: gate can't be called.
        CalibrationError: The gate is of another calibration than the one that is watched.

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
        arming = monitor.arming
        if offers(gate, _Calibrated):
            mine, watched = gate.calibration, arming.calibration
            if mine is not None and watched is not None and mine != watched:
                raise CalibrationError(
                    "the gate is of another calibration than the one that the monitor watches: "
                    "make both of the same, or rearm the monitor on the gate's"
                )
        self.monitor = monitor
        self._made = arming.number, gate
        self._of: WatchedGate | None = None
        self._change: Callable[[Gate], Gate] | None = None

    @property
    def gate(self) -> Gate:
        """The gate of the promise under watch.

        Raises:
            CalibrationError: The monitor was re-armed, and the gate is of a kind that can't be
                made of a calibration.
        """
        return self._gate(self.monitor.arming)

    @property
    def threshold(self) -> float | None:
        """The threshold of that gate; None where it has none."""
        gate = self.gate
        return gate.threshold if offers(gate, HasThreshold) else None

    def changed(self, change: Callable[[Gate], Gate]) -> WatchedGate:
        """The same watch over another gate, which is made of this one's whenever that is new.

        Args:
            change: Gives the other gate.
        """
        other = WatchedGate(change(self.gate), self.monitor)
        other._of, other._change = self, change
        other._made = 0, other._made[1]  # to be made anew, for the monitor may be re-armed by now
        return other

    def __call__(self, completion: Completion) -> Verdict:
        """The gate's verdict; no acceptance where the monitor has tripped."""
        arming, tripped = self.monitor.standing
        verdict = self._gate(arming)(completion)
        if verdict.accepted and tripped:
            return dataclasses.replace(
                verdict,
                accepted=False,
                reason="the monitor has tripped: audits refuted the promised risk of "
                f"{arming.target:g}; calibrate anew",
            )
        return verdict

    @property
    def floor(self) -> None:
        """Never ends a draft early: the monitor compares scores with those of whole drafts."""
        return None

    def _gate(self, arming: Arming) -> Gate:
        number, gate = self._made
        if number == arming.number:
            return gate
        if self._of is not None and self._change is not None:
            gate = self._change(self._of._gate(arming))
        else:
            if not offers(gate, _Calibrated) or arming.calibration is None:
                raise CalibrationError(
                    f"the monitor was re-armed, and a {type(gate).__name__} can't be made of its "
                    "new calibration: make a new pipeline with a gate and a monitor of its own"
                )
            gate = gate.from_calibration(arming.calibration)
        self._made = arming.number, gate
        return gate
