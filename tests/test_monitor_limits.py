"""The monitor just on its limits: when it trips, what it counts, and which states can't be."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest

from speceyes.bench.promises.running import draft, made
from speceyes.calibration import (
    GateMonitor,
    Scoring,
    WatchedGate,
    bounds,
    calibrate,
    calibrate_relative,
)
from speceyes.calibration.evidence import RiskEvidence
from speceyes.calibration.sealed import digest_of
from speceyes.errors import CalibrationError, ConfigError
from speceyes.gate import SeparabilityGate

MADE = Scoring("small", "ab12", top_k=4)
PROMISE = calibrate(
    [9.0] * 100, [0] * 100, MADE, target=0.1, labels="differs_from_agent", created="2026-01-01"
)
SHUT = calibrate([9.0] * 20, [1] * 20, MADE, target=0.1, created="2026-01-01")


def state(risk: Any = "selective") -> dict[str, Any]:
    """Of a monitor that was told six outcomes, one of them bad."""
    watch = GateMonitor(0.1, risk=risk, delta=0.1, share=0.5, seed=3)
    if risk == "selective":
        watch = GateMonitor.from_calibration(PROMISE, delta=0.1, share=0.5, seed=3)
    told = 0
    while told < 6:
        if (audit := watch.observe(9.0)) is not None:
            told += 1
            watch.audit(told == 4, audit)
    found: dict[str, Any] = json.loads(watch.to_json())
    return found


def restored(data: dict[str, Any]) -> GateMonitor:
    return GateMonitor.from_json(json.dumps({**data, "digest": digest_of(data)}))


def changed(data: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The state with other values, at paths whose parts are joined by two underscores."""
    data = copy.deepcopy(data)
    for path, value in changes.items():
        *inner, last = path.split("__")
        place = data
        for name in inner:
            place = place[name]
        place[last] = value
    return data


# --- states -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("version 2", {"format": "speceyes-calibration"}),
        ("version 2", {"version": 3}),
        ("version 2", {"version": 1}),
        ("version 2", {"version": 2.0}),
        ("arming=", {"arming": 0}),
        ("arming=", {"arming": 1.0}),
        ("audits=", {"audits": -1}),
        ("audits=", {"audits": True}),
        ("disagreements=", {"disagreements": -1}),
        ("drawn=", {"drawn": -1}),
        ("drawn=", {"drawn": "6"}),
        ("another calibration", {"target": 0.05, "evidence__evidence__target": 0.05}),
        ("another calibration", {"risk": "overall", "evidence__evidence__target": 0.05}),
        ("another calibration", {"calibration": json.loads(SHUT.to_json())}),
        ("is watched", {"evidence__evidence__target": 0.11}),
        ("is watched", {"target": 0.11}),
        ("more disagreements", {"disagreements": 7}),
        ("more disagreements", {"evidence__evidence__bad": 7}),
        ("more disagreements", {"evidence__evidence__bad": -1}),
        ("7 outcomes of 6 audits", {"evidence__evidence__seen": 7}),
        ("with a peak of", {"evidence__peak": 0.9}),
        ("with a peak of", {"shift_peak": 0.9}),
        ("with a peak of", {"shift_peak": math.inf}),
        ("with a peak of", {"shift__wealth": -1.0}),
        ("with a peak of", {"shift__wealth": 1e6}),
        ("with a peak of", {"shift__wealth": math.inf, "shift_peak": math.inf}),
        ("with a peak of", {"evidence__evidence__wealth": [1.0] * 24}),
        ("with a peak of", {"evidence__evidence__wealth": [-1.0] * 24}),
    ],
)
def test_each_contradiction_of_a_state_is_told_by_itself(
    message: str, changes: dict[str, Any]
) -> None:
    data = state()
    assert restored(data).to_json() == json.dumps({**data, "digest": digest_of(data)}) + "\n"
    with pytest.raises(CalibrationError, match=message):
        restored(changed(data, **changes))


def test_states_on_their_limits_are_taken() -> None:
    """All audits bad, none yet, evidence at its peak, or more seen than audited for all queries."""
    data = state()
    every = {"disagreements": 6, "evidence__evidence__bad": 6}
    assert restored(changed(data, **every)).disagreements == 6
    assert restored(changed(data, evidence__evidence__seen=5)).audits == 6
    peak = restored(data).evidence
    assert restored(changed(data, evidence__peak=max(1.0, peak))).evidence == peak
    overall = state("overall")
    assert overall["evidence"]["evidence"]["seen"] > overall["audits"]
    assert restored(overall).audits == 6
    fresh = GateMonitor.from_json(GateMonitor(0.1).to_json())
    assert (fresh.audits, fresh.arming.number, fresh.tripped, fresh.shifted) == (0, 1, False, False)


@pytest.mark.parametrize("armings", [0, 2])
def test_it_trips_and_shifts_at_one_over_delta_and_not_before(armings: int) -> None:
    data = json.loads(GateMonitor(0.1, delta=0.1, armings=armings).to_json())
    level = 1 / restored(data).arming.delta
    for name, alarm in (("evidence__peak", "tripped"), ("shift_peak", "shifted")):
        for peak, rung in ((level, True), (math.nextafter(level, 0), False)):
            watch = restored(changed(data, **{name: peak}))
            assert getattr(watch, alarm) is rung
            other = {"tripped": "shifted", "shifted": "tripped"}[alarm]
            assert getattr(watch, other) is False
            assert watch.standing == (watch.arming, watch.tripped)


# --- counting ---------------------------------------------------------------------------------


def test_audits_are_numbered_from_one_over_all_armings() -> None:
    watch = GateMonitor.from_calibration(PROMISE, share=1.0)
    numbers = []
    for at in range(6):
        audit = watch.observe(9.0)
        assert audit is not None and audit.arming == 1 + at // 3
        numbers.append(audit.number)
        if at == 2:
            watch.rearm(PROMISE)
    assert numbers == [1, 2, 3, 4, 5, 6]
    again = GateMonitor.from_json(watch.to_json()).observe(9.0)
    assert again is not None and (again.number, again.arming) == (7, 2)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_bounds_of_an_overall_risk_are_those_of_what_is_audited_over_the_share(
    share: float,
) -> None:
    watch, plain = GateMonitor(0.1, risk="overall", share=share, seed=0), RiskEvidence(0.1 * share)
    seen = bad = 0
    for at in range(200):
        audit = watch.observe(9.0, at % 3 > 0)
        seen += 1
        if audit is not None:
            bad += at % 7 == 0
            watch.audit(at % 7 == 0, audit)
        plain.add(audit is not None and at % 7 == 0)
    low, high = bounds(bad, seen, watch.arming.delta)
    assert watch.bounds == pytest.approx((low / share, min(1.0, high / share)))
    assert 0 < watch.bounds[0] < watch.bounds[1] < 1
    assert watch.evidence == pytest.approx(plain.value) and watch.disagreements == bad
    few = GateMonitor(0.1, risk="overall", share=0.1)
    few.observe(9.0, False)
    assert few.bounds == (0.0, 1.0), "no share is above 1"


def test_what_is_left_out_or_unknown_counts_nowhere() -> None:
    watch = GateMonitor(0.1, share=1.0)
    first, second = watch.observe(9.0), watch.observe(9.0)
    assert first is not None and second is not None
    watch.leave_out(first)
    watch.audit(True, first)
    assert (watch.audits, watch.disagreements, watch.evidence) == (0, 0, 1.0)
    watch.audit(True, second)
    watch.audit(True, second)
    assert (watch.audits, watch.disagreements) == (1, 1)
    once = watch.evidence
    watch.audit(True)  # drawn by whoever reports it, since none is open
    assert (watch.audits, watch.disagreements) == (2, 2) and watch.evidence > once > 1


@pytest.mark.parametrize("share", [1, 1.0, 0.999, 0.001])
def test_a_share_may_be_all(share: float) -> None:
    assert GateMonitor(0.05, share=share).share == share
    for wrong in (0, 2, 1.0001, True, None):
        with pytest.raises(ConfigError, match="share"):
            GateMonitor(0.05, share=wrong)  # type: ignore[arg-type]


# --- what is watched --------------------------------------------------------------------------


def test_warnings_tell_the_numbers_that_are_held_against(caplog: pytest.LogCaptureFixture) -> None:
    mean = calibrate([9.0] * 100, [0] * 100, MADE, risk="overall", delta=None, target=0.1)
    watch = GateMonitor.from_calibration(mean, audits="wrong")
    assert watch.target == pytest.approx(0.15)
    assert "above 0.1; audits are held against 0.15" in caplog.text
    caplog.clear()
    differs, gold = [1] * 20 + [0] * 180, [0] * 20 + [None] * 180
    few = calibrate_relative([9.0] * 200, differs, gold, MADE, target=0.05)  # type: ignore[arg-type]
    assert GateMonitor.from_calibration(few).target == pytest.approx(1.5 * 20 / 200)
    assert "at most 0.05: audits are held against 0.15" in caplog.text
    caplog.clear()
    assert GateMonitor.from_calibration(few, tolerance=0.0).target == 0.05
    assert "another risk than the promise" in caplog.text
    caplog.clear()
    watch = GateMonitor.from_calibration(few, audits="worse_than_agent")
    assert watch.target == 0.05 and not caplog.records


def test_a_gate_of_any_kind_may_be_watched_and_changed() -> None:
    old, new = made(6.0), made(14.0, seed=1)
    watch = GateMonitor.from_calibration(old)
    uncalibrated = WatchedGate(SeparabilityGate(0.5, top_k=4), watch)
    assert uncalibrated.threshold == 0.5
    plain = WatchedGate(SeparabilityGate.from_calibration(old), GateMonitor(0.05))
    assert plain.threshold == old.threshold and plain.floor is None

    def never(completion: Any) -> Any:
        raise AssertionError

    bare = WatchedGate(never, watch)
    assert bare.threshold is None and bare.gate is never
    watch.rearm(old)
    for gate in (bare, WatchedGate(never, watch)):
        watch.rearm(old)
        with pytest.raises(CalibrationError, match="can't be made of its new calibration"):
            gate.gate  # noqa: B018
    watch = GateMonitor.from_calibration(old)
    with pytest.raises(ConfigError, match="can't be called"):
        WatchedGate(0.5, watch)  # type: ignore[arg-type]
    made_of: list[Any] = []

    def strict(gate: Any) -> Any:
        made_of.append(gate)
        return SeparabilityGate(max(gate.threshold, 0.5), top_k=4)

    gate = WatchedGate(SeparabilityGate.from_calibration(old), watch)
    other = gate.changed(strict)
    assert other(draft(30.0)).accepted and other.threshold == old.threshold
    watch.rearm(new)
    assert other.threshold == gate.threshold == new.threshold
    assert not other(draft(9.0)).accepted and not gate(draft(9.0)).accepted
    assert made_of[-1] is gate.gate and len(made_of) == 3, "once for each arming, not each draft"
