"""Monitoring of a running gate: audits of accepted drafts, and the scores of all."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Iterable
from os import PathLike
from typing import Any, Final, final

import numpy as np

from speceyes.calibration.arming import Arming, Audit, share_of_delta
from speceyes.calibration.evidence import bounds
from speceyes.calibration.ordered import OrderedEvidence
from speceyes.calibration.provenance import is_whole, one_of
from speceyes.calibration.record import MEANINGS, RISKS, Calibration, Labels, Risk
from speceyes.calibration.sealed import check_digest, sealed
from speceyes.calibration.shift import ShiftMartingale
from speceyes.checks import checked_number, checked_outcome, checked_score, checked_share
from speceyes.errors import CalibrationError, ConfigError, InputError
from speceyes.files import load_whole, write_whole

_log = logging.getLogger(__name__)

_FORMAT: Final = "speceyes-monitor"
_VERSION: Final = 2


@final
class GateMonitor:
    """Says when a promised risk is passed, and when scores have shifted.

    It starts nothing. For each query call `observe`; where that returns an `Audit`, run the agent
    on the query as well and report to `audit` whether the draft was bad. Outcomes may come back in
    any order; they count in the order in which the audits were drawn. Threads may share it.

    While the risk of each draft, given those before it, is at most the target, `tripped` becomes
    True with probability delta at most, however long it runs and however often it is armed anew;
    likewise `shifted` while the scores come from where the calibration's did.

    Args:
        target: The promised risk.
        risk: "selective" or "overall", as in `Calibration`.
        delta: How likely a false alarm of each kind may be, ever, over all armings; see
            `share_of_delta`.
        share: The share of accepted drafts to audit, above 0 and at most 1.
        score_counts: Of the calibration (`Calibration.score_counts`); the shift alarm begins with
            them.
        seed: Draws the audits. None draws them from the system's entropy, so that nobody can tell
            beforehand which query is audited; a number is for tests.
        calibration: What made the promise; see `from_calibration`.
        armings: How often a monitor of the same gate was armed before, whose parts of delta are
            spent.

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
        seed: int | None = None,
        calibration: Calibration | None = None,
        armings: int = 0,
    ) -> None:
        one_of("risk", risk, RISKS)
        self.delta = checked_share("delta", delta)
        whole = share == 1 and not isinstance(share, bool)
        self.share = 1.0 if whole else checked_share("share", share)
        self._lock = threading.RLock()
        self._seed = seed
        self._random = np.random.default_rng(seed)
        self._drawn = 0
        self._shift_peak: float = 1.0
        self._open: dict[int, Audit] = {}
        """Audits of all armings without an outcome, in the order of drawing."""
        if not is_whole(armings) or armings < 0:
            raise ConfigError(f"armings={armings!r}; it must be a whole number from 0")
        self._arm(
            Arming(
                armings + 1,
                checked_share("target", target),
                risk,
                share_of_delta(self.delta, armings + 1),
                calibration,
            ),
            score_counts,
        )

    @classmethod
    def from_calibration(
        cls,
        calibration: Calibration,
        *,
        tolerance: float | None = None,
        delta: float = 0.05,
        share: float = 0.05,
        seed: int | None = None,
        audits: Labels = "differs_from_agent",
        armings: int = 0,
    ) -> GateMonitor:
        """A monitor of what a calibration promised.

        Args:
            calibration: The promise.
            tolerance: How much more than the calibration's target is still put up with. None is 0,
                and half the target for a promise in expectation: about half of those have a risk
                slightly above their target, which the monitor would find out. Where a promise
                relative to the agent came of few gold answers (`calibrate_relative`), and audits
                tell where drafts differ, None holds them against half as many again as differed.
            delta: See `GateMonitor`.
            share: See `GateMonitor`.
            seed: See `GateMonitor`.
            audits: What an audit's outcome of True means. Where the calibration's labels mean
                something else, the log says so, since the alarm is then about another risk than
                the promise.
            armings: See `GateMonitor`.

        Raises:
            CalibrationError: It certified no threshold, so that there is nothing to watch, or it
                holds in expectation and the tolerance is 0.
        """
        return cls(
            _watched_target(calibration, tolerance, audits),
            risk=calibration.risk,
            delta=delta,
            share=share,
            score_counts=calibration.score_counts,
            seed=seed,
            calibration=calibration,
            armings=armings,
        )

    @property
    def arming(self) -> Arming:
        """The promise under watch."""
        return self._arming

    @property
    def target(self) -> float:
        """The promised risk."""
        return self._arming.target

    @property
    def risk(self) -> Risk:
        """Kind of risk: "selective" or "overall"."""
        return self._arming.risk

    @property
    def standing(self) -> tuple[Arming, bool]:
        """The promise under watch and whether it was refuted, of one and the same moment."""
        with self._lock:
            return self._arming, self.tripped

    def observe(
        self, score: float | None, accepted: bool = True, *, arming: int | None = None
    ) -> Audit | None:
        """Takes in a query, and says whether to audit it.

        Args:
            score: The draft's raw score (`Verdict.separability`); None where it has none, or the
                judge sent the query to the agent.
            accepted: Whether the gate accepted the draft.
            arming: Number of the arming that the gate decided under; a query of an earlier one is
                passed over. None for the present one.

        Returns:
            An audit for a random share of the accepted drafts.

        Raises:
            InputError: The score is no number, or infinite.
        """
        score = checked_score(score)
        with self._lock:
            if arming is not None and arming != self._arming.number:
                return None
            self._shift.observe(score)
            self._shift_peak = max(self._shift_peak, self._shift.evidence)
            if accepted and float(self._random.random()) < self.share:
                self._drawn += 1
                drawn = Audit(self._drawn, self._arming.number)
                self._open[drawn.number] = drawn
                self._ordered.draw(drawn.number)
                return drawn
            if self.risk == "overall":
                self._ordered.add(False)
            return None

    def audit(self, disagreed: bool, audit: Audit | None = None) -> None:
        """Takes in an audit's outcome. One that was drawn before the monitor was armed anew is
        dropped: it says nothing about the new promise.

        Args:
            disagreed: Whether the draft was bad, in the sense of the calibration's labels.
            audit: What `observe` returned; None for the oldest one that has no outcome yet, for
                whoever reports in the order of drawing.

        Raises:
            InputError: The outcome is neither True nor False, or it is of no audit.
        """
        bad = checked_outcome("disagreed", disagreed)
        with self._lock:
            if self._settled(audit, bad):
                self.audits += 1
                self.disagreements += bad

    def leave_out(self, audit: Audit) -> None:
        """An audit won't be run, for a reason that has nothing to do with its outcome."""
        with self._lock:
            self._settled(audit, None)

    @property
    def tripped(self) -> bool:
        """True once the promise was refuted, until `rearm`."""
        return self._ordered.peak >= 1 / self._arming.delta

    @property
    def shifted(self) -> bool:
        """True once a shift of the scores was found, until `rearm`.

        It is a reason to look, not to stop: another mix of queries may be as safe.
        """
        return self._shift_peak >= 1 / self._arming.delta

    @property
    def evidence(self) -> float:
        """Evidence against the promise now (dimensionless, 1 at first); it trips at
        1 / arming.delta.
        """
        return self._ordered.evidence.value

    @property
    def shift_evidence(self) -> float:
        """Evidence for a shift of the scores now, on the same scale."""
        return self._shift.evidence

    @property
    def bounds(self) -> tuple[float, float]:
        """Bounds on the mean risk since it was armed, valid at all times with 1 - arming.delta."""
        with self._lock:
            seen = self._ordered.evidence
            low, high = bounds(seen.bad, seen.seen, self._arming.delta)
        if self.risk == "overall":  # what is counted there is accepted, drawn and bad
            return low / self.share, min(1.0, high / self.share)
        return low, high

    def rearm(
        self,
        calibration: Calibration,
        *,
        tolerance: float | None = None,
        audits: Labels = "differs_from_agent",
    ) -> None:
        """Begins anew on a new calibration, in one moment: a `WatchedGate` takes the new threshold
        with it, and outcomes of audits that were drawn before no longer count.

        Args:
            calibration: The new promise.
            tolerance: See `from_calibration`.
            audits: See `from_calibration`.

        Raises:
            CalibrationError: It certified no threshold, or is for drafts of another model or
                prompt than the one before; everything stays as it was.
        """
        target = _watched_target(calibration, tolerance, audits)
        with self._lock:
            before = self._arming.calibration
            if before is not None:
                made = before.scoring
                calibration.check(
                    model=made.model,
                    revision=made.revision,
                    prompt_hash=made.prompt_hash,
                    judge=before.judge,
                )
            number = self._arming.number + 1
            self._arm(
                Arming(
                    number,
                    checked_share("target", target),
                    calibration.risk,
                    share_of_delta(self.delta, number),
                    calibration,
                ),
                calibration.score_counts,
            )

    def to_json(self) -> str:
        """The whole state; a monitor restored from it goes on as this one would have."""
        with self._lock:
            armed = self._arming
            made = armed.calibration
            state = {
                "format": _FORMAT,
                "version": _VERSION,
                "target": armed.target,
                "risk": armed.risk,
                "delta": self.delta,
                "share": self.share,
                "arming": armed.number,
                "calibration": None if made is None else json.loads(made.to_json()),
                "audits": self.audits,
                "disagreements": self.disagreements,
                "drawn": self._drawn,
                "shift_peak": self._shift_peak,
                "evidence": self._ordered.state(),
                "shift": self._shift.state(),
                # Without a seed nothing is written: one file that is loaded twice would draw the
                # same audits twice.
                "random": None if self._seed is None else self._random.bit_generator.state,
            }
        return json.dumps(sealed(state), allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> GateMonitor:
        """The monitor that `to_json` wrote. Audits that were under way are left out.

        Raises:
            CalibrationError: It is no such JSON, or of another version.
        """
        try:
            state: dict[str, Any] = json.loads(text)
            version = state["version"]
            if state["format"] != _FORMAT or not is_whole(version) or version != _VERSION:
                raise CalibrationError(
                    f"not the state of a monitor of version {_VERSION}: make one with "
                    "GateMonitor.from_calibration"
                )
            check_digest(state, "make a new one with GateMonitor.from_calibration")
            for name, least in (("arming", 1), ("audits", 0), ("disagreements", 0), ("drawn", 0)):
                if not is_whole(state[name]) or state[name] < least:
                    raise CalibrationError(f"{name}={state[name]!r}; a whole number from {least}")
            made, lots = state["calibration"], state["random"]
            monitor = cls(
                state["target"],
                risk=state["risk"],
                delta=state["delta"],
                share=state["share"],
                seed=None if lots is None else 0,
                calibration=None if made is None else Calibration.from_json(json.dumps(made)),
                armings=state["arming"] - 1,
            )
            monitor.audits, monitor.disagreements = state["audits"], state["disagreements"]
            monitor._drawn, monitor._shift_peak = state["drawn"], float(state["shift_peak"])
            watched = monitor._ordered.evidence.target
            monitor._ordered = OrderedEvidence.restored(state["evidence"])
            monitor._shift = ShiftMartingale.restored(state["shift"])
            if lots is not None:
                monitor._random.bit_generator.state = lots
            if fault := monitor._fault(watched):
                raise CalibrationError(f"it contradicts itself: {fault}")
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as exc:
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
        return load_whole(path, cls.from_json, error=CalibrationError)

    def _arm(self, arming: Arming, score_counts: Iterable[tuple[int, int]]) -> None:
        lots = None if self._seed is None else int(self._random.integers(1 << 32))
        self._shift: ShiftMartingale = ShiftMartingale(score_counts, seed=lots)
        self._shift_peak = 1.0
        # Overall: each query is accepted, drawn and bad with probability share x risk.
        self._ordered: OrderedEvidence = OrderedEvidence(
            arming.target * (self.share if arming.risk == "overall" else 1.0)
        )
        self.audits: int = 0
        self.disagreements: int = 0
        self._arming: Arming = arming

    def _fault(self, watched: float) -> str | None:
        """The contradiction in a restored state.

        Args:
            watched: The risk that bets of this promise are placed against.
        """
        armed, ordered = self._arming, self._ordered
        made, seen = armed.calibration, ordered.evidence
        if made is not None and (
            not made.certified or made.risk != armed.risk or made.target > armed.target
        ):
            return f"a {armed.risk} risk of {armed.target} for another calibration"
        if seen.target != watched:
            return f"evidence against {seen.target} where {watched} is watched"
        if not 0 <= self.disagreements <= self.audits or not 0 <= seen.bad <= seen.seen:
            return "more disagreements than audits"
        if armed.risk == "selective" and seen.seen > self.audits:
            return f"{seen.seen} outcomes of {self.audits} audits"
        for peak, now in ((ordered.peak, seen.value), (self._shift_peak, self._shift.evidence)):
            if not (0 <= now < math.inf and max(1, now) <= peak < math.inf):
                return f"evidence of {now} with a peak of {peak}"
        return None

    def _settled(self, audit: Audit | None, bad: bool | None) -> bool:
        """Notes an outcome; False where it says nothing about the present promise."""
        if audit is not None and not isinstance(audit, Audit):
            raise InputError(f"audit={audit!r}; pass what observe returned, or None for the oldest")
        if audit is None:
            audit = next(iter(self._open.values()), None)
            if audit is None and bad is not None:  # drawn by whoever reports it
                self._ordered.add(bad)
                return True
        if audit is None or self._open.pop(audit.number, None) is None:
            return False
        if audit.arming != self._arming.number:
            return False
        self._ordered.settle(audit.number, bad)
        return True


def _watched_target(calibration: Calibration, tolerance: float | None, audits: Labels) -> float:
    """The risk that audits are held against."""
    one_of("audits", audits, tuple(MEANINGS))
    if not isinstance(calibration, Calibration):
        raise CalibrationError(f"{calibration!r} is no calibration; pass what calibrate returned")
    if tolerance is not None:
        tolerance = checked_number("tolerance", tolerance, 0.0, 1.0)
    if not calibration.certified:
        raise CalibrationError(f"nothing to watch: {calibration.statement}")
    if calibration.gold is not None and audits == "differs_from_agent" and tolerance is None:
        return _differing_target(calibration)
    if calibration.labels != audits:
        _log.warning(
            "the calibration promises how many drafts %s, and audits tell how many %s: the alarm "
            "is about another risk than the promise. Calibrate with labels=%r, or pass audits=%r "
            "where an outcome of True means just that",
            MEANINGS[calibration.labels],
            MEANINGS[audits],
            audits,
            calibration.labels,
        )
    if calibration.delta is None:
        if tolerance is None:
            tolerance = calibration.target / 2
            _log.warning(
                "the calibration holds in expectation, so that its risk may be slightly above "
                "%g; audits are held against %g. Pass tolerance to choose how much more is put "
                "up with",
                calibration.target,
                calibration.target + tolerance,
            )
        elif not tolerance > 0:
            raise CalibrationError(
                f"tolerance={tolerance} for a promise in expectation: about half of these have a "
                "risk slightly above their target, and the monitor would find that out. Pass a "
                "tolerance above 0, such as half the target"
            )
    return calibration.target + (tolerance or 0.0)


def _differing_target(calibration: Calibration) -> float:
    """The share of queries that may differ from the agent's answer, where the promise is about the
    part of them that is worse: half as much again as did when it was made.
    """
    assert calibration.gold is not None
    target = max(calibration.target, min(0.99, 1.5 * calibration.gold.differing / calibration.n))
    _log.warning(
        "audits tell how many drafts differ from the agent's answer, and the calibration promises "
        "that the accuracy lost is at most %g: audits are held against %g that differ, half as "
        "many again as at calibration. Pass tolerance to choose another number",
        calibration.target,
        target,
    )
    return target
