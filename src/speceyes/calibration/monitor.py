"""Monitoring of a running gate: audits of accepted drafts, and the scores of all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from speceyes.calibration.evidence import RiskEvidence, bounds
from speceyes.calibration.provenance import one_of, write_whole
from speceyes.calibration.record import RISKS, Calibration, Risk
from speceyes.calibration.shift import ShiftMartingale
from speceyes.checks import checked_share
from speceyes.errors import CalibrationError

_FORMAT: Final = "speceyes-monitor"
_VERSION: Final = 1


@final
class GateMonitor:
    """Says when a promised risk is passed, and when scores have shifted.

    A pure object: it starts nothing, and isn't for several threads at once (hold a lock).
    For each query call `observe`; where it returns True, run the agent on the query as well and
    report to `audit` whether the draft was bad, in the order in which the audits were drawn.

    While the risk of each draft, given those before it, is at most the target, `tripped` becomes
    True with probability delta at most, however long it runs; likewise `shifted` while the
    scores come from where the calibration's did.

    Args:
        target: The promised risk.
        risk: "selective" or "overall", as in `Calibration`.
        delta: How likely a false alarm of each kind may be, ever.
        share: The share of accepted drafts to audit, above 0 and at most 1.
        score_counts: Of the calibration (`Calibration.score_counts`); the shift alarm begins with
            them.
        seed: Draws the audits.

    Raises:
        ConfigError: An argument out of range.

    Example:
        >>> monitor = GateMonitor(0.05, delta=0.05, share=0.1)
        >>> for _ in range(10):
        ...     monitor.audit(True)
        >>> monitor.tripped
        True
    """

    def __init__(
        self,
        target: float,
        *,
        risk: Risk = "selective",
        delta: float = 0.05,
        share: float = 0.05,
        score_counts: Iterable[tuple[int, int]] = (),
        seed: int = 0,
    ) -> None:
        one_of("risk", risk, RISKS)
        self.target = checked_share("target", target)
        self.delta = checked_share("delta", delta)
        self.share = 1.0 if share == 1 else checked_share("share", share)
        self.risk = risk
        self._random = np.random.default_rng(seed)
        self._evidence = self._fresh()
        self._shift = ShiftMartingale(score_counts, seed=seed + 1)
        self._peak = self._shift_peak = 1.0
        self.audits = 0
        self.disagreements = 0

    @classmethod
    def from_calibration(
        cls,
        calibration: Calibration,
        *,
        tolerance: float = 0.0,
        delta: float = 0.05,
        share: float = 0.05,
        seed: int = 0,
    ) -> GateMonitor:
        """A monitor of what a calibration promised.

        Args:
            calibration: Audits must mean what its labels mean.
            tolerance: How much more than the calibration's target is still put up with. For one
                that holds in expectation it should not be 0: about half of those have a risk
                slightly above the target.
            delta: See `GateMonitor`.
            share: See `GateMonitor`.
            seed: See `GateMonitor`.

        Raises:
            CalibrationError: It certified no threshold, so that there is nothing to watch.
        """
        if not calibration.certified:
            raise CalibrationError(f"nothing to watch: {calibration.statement}")
        return cls(
            calibration.target + tolerance,
            risk=calibration.risk,
            delta=delta,
            share=share,
            score_counts=calibration.score_counts,
            seed=seed,
        )

    def observe(self, score: float | None, accepted: bool = True) -> bool:
        """Takes in a query, and says whether to audit it.

        Args:
            score: The draft's raw score (`Verdict.separability`); None where it has none, or the
                judge sent the query to the agent.
            accepted: Whether the gate accepted the draft.

        Returns:
            True for a random share of the accepted drafts.
        """
        self._shift.observe(score)
        self._shift_peak = max(self._shift_peak, self._shift.evidence)
        chosen = accepted and float(self._random.random()) < self.share
        if self.risk == "overall" and not chosen:
            self._add(False)
        return chosen

    def audit(self, disagreed: bool) -> None:
        """Takes in an audit's outcome.

        Args:
            disagreed: Whether the draft was bad, in the sense of the calibration's labels.
        """
        self.audits += 1
        self.disagreements += bool(disagreed)
        self._add(disagreed)

    @property
    def tripped(self) -> bool:
        """True once the promise was refuted, until `rearm`."""
        return self._peak >= 1 / self.delta

    @property
    def shifted(self) -> bool:
        """True once a shift of the scores was found, until `rearm`.

        It is a reason to look, not to stop: another mix of queries may be as safe.
        """
        return self._shift_peak >= 1 / self.delta

    @property
    def evidence(self) -> float:
        """Evidence against the promise now (dimensionless, 1 at first); it trips at 1 / delta."""
        return self._evidence.value

    @property
    def shift_evidence(self) -> float:
        """Evidence for a shift of the scores now, on the same scale."""
        return self._shift.evidence

    @property
    def bounds(self) -> tuple[float, float]:
        """Bounds on the mean risk since it was armed, valid at all times with 1 - delta."""
        low, high = bounds(self._evidence.bad, self._evidence.seen, self.delta)
        if self.risk == "overall":  # what is counted there is accepted, drawn and bad
            return low / self.share, min(1.0, high / self.share)
        return low, high

    def rearm(self, calibration: Calibration, *, tolerance: float = 0.0) -> None:
        """Begins anew on a new calibration; false alarms have probability delta each time.

        Raises:
            CalibrationError: It certified no threshold; the gate stays tripped.
        """
        fresh = self.from_calibration(calibration, tolerance=tolerance, share=self.share)
        self.target, self.risk = fresh.target, fresh.risk
        self._evidence, self._peak = self._fresh(), 1.0
        lots = int(self._random.integers(1 << 32))
        self._shift = ShiftMartingale(calibration.score_counts, seed=lots)
        self._shift_peak = 1.0
        self.audits = self.disagreements = 0

    def to_json(self) -> str:
        """The whole state; a monitor restored from it goes on as this one would have."""
        state = {
            "format": _FORMAT,
            "version": _VERSION,
            "target": self.target,
            "risk": self.risk,
            "delta": self.delta,
            "share": self.share,
            "audits": self.audits,
            "disagreements": self.disagreements,
            "peak": self._peak,
            "shift_peak": self._shift_peak,
            "evidence": self._evidence.state(),
            "shift": self._shift.state(),
            "random": self._random.bit_generator.state,
        }
        return json.dumps(state, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> GateMonitor:
        """The monitor that `to_json` wrote.

        Raises:
            CalibrationError: It is no such JSON, or of another version.
        """
        try:
            state: dict[str, Any] = json.loads(text)
            if state["format"] != _FORMAT or state["version"] != _VERSION:
                raise CalibrationError("not the state of a monitor of this version")
            monitor = cls(
                state["target"], risk=state["risk"], delta=state["delta"], share=state["share"]
            )
            monitor.audits = int(state["audits"])
            monitor.disagreements = int(state["disagreements"])
            monitor._peak, monitor._shift_peak = float(state["peak"]), float(state["shift_peak"])
            monitor._evidence = RiskEvidence.restored(state["evidence"])
            monitor._shift = ShiftMartingale.restored(state["shift"])
            monitor._random.bit_generator.state = state["random"]
        except (KeyError, TypeError, ValueError) as exc:
            if isinstance(exc, CalibrationError):
                raise
            raise CalibrationError(
                f"not the state of a monitor: {type(exc).__name__}: {exc}"
            ) from exc
        return monitor

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the state, whole or not at all."""
        write_whole(path, self.to_json())

    @classmethod
    def load(cls, path: str | PathLike[str]) -> GateMonitor:
        """The monitor whose state is in a file.

        Raises:
            CalibrationError: The file can't be read, or `from_json` can't read what is in it.
        """
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise CalibrationError(f"{path}: {exc}") from exc

    def _fresh(self) -> RiskEvidence:
        # Overall: each query is accepted, drawn and bad with probability share x risk.
        return RiskEvidence(self.target * (self.share if self.risk == "overall" else 1.0))

    def _add(self, bad: bool) -> None:
        self._evidence.add(bad)
        self._peak = max(self._peak, self._evidence.value)
