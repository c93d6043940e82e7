"""What is told to calibrations and monitors: outcomes, scores, keys and numbers that mean nothing
are refused with a reason, and never taken for a good draft; threads may arm and audit at once.
"""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from speceyes.calibration import (
    Calibration,
    GateMonitor,
    Scoring,
    SequentialCalibration,
    Setting,
    calibrate,
    calibrate_groups,
    price,
)
from speceyes.calibration.many import calibrate_many
from speceyes.errors import CalibrationError, ConfigError, InputError
from speceyes.gate import SeparabilityGate
from speceyes.pipeline.audit import Auditor
from speceyes.pipeline.costs import CostModel
from speceyes.types import Query, Trajectory

MADE = Scoring("small", "ab12")
NOT_OUTCOMES = ["yes", "no", "", None, math.nan, 2, -1, 0.5, [True], np.array([1, 0])]
SIXTY: dict[str, Any] = {"scores": [9.0] * 60, "bad": [0] * 60, "scoring": MADE}


def certified(n: int = 200, target: float = 0.05) -> Calibration:
    scores, bad = [9.0] * n + [2.0] * 50, [0] * n + [1] * 50
    return calibrate(scores, bad, MADE, target=target, labels="differs_from_agent")


@pytest.mark.parametrize("outcome", NOT_OUTCOMES, ids=repr)
def test_an_outcome_is_true_or_false_and_nothing_else_counts(outcome: Any) -> None:
    monitor = GateMonitor.from_calibration(certified(), share=1.0)
    drawn, labelling = monitor.observe(9.0), SequentialCalibration(MADE)
    with pytest.raises(InputError, match="True or False"):
        monitor.audit(outcome, drawn)
    with pytest.raises(InputError, match="True or False"):
        labelling.add(9.0, outcome, image_key="one")
    assert (monitor.audits, labelling.n) == (0, 0)
    monitor.audit(False, drawn)
    labelling.add(9.0, False, image_key="one")
    assert (monitor.audits, labelling.n) == (1, 1), "what was refused left nothing behind"


@pytest.mark.parametrize("bad", [True, 1, 1.0, np.True_, np.int64(1), np.float32(1)], ids=repr)
def test_outcomes_of_any_number_type_count_alike(bad: Any) -> None:
    monitor = GateMonitor.from_calibration(certified(), share=1.0)
    monitor.audit(bad, monitor.observe(np.float32(9.0)))  # type: ignore[arg-type]
    labelling = SequentialCalibration(MADE)
    labelling.add(np.float64(9.0), bad)
    assert (monitor.audits, monitor.disagreements, labelling.n) == (1, 1, 1)


def test_a_draft_that_no_threshold_accepts_needs_no_label() -> None:
    labelling = SequentialCalibration(MADE)
    labelling.add(None, None)  # type: ignore[arg-type]
    labelling.add(9.0, None, let_through=False)  # type: ignore[arg-type]
    assert labelling.n == 2


@pytest.mark.parametrize("score", ["9", True, [9.0], 9j, math.inf, -math.inf, 10**400])
def test_a_score_is_a_number(score: Any) -> None:
    monitor, labelling = GateMonitor(0.05), SequentialCalibration(MADE)
    for take in (monitor.observe, lambda one: labelling.add(one, False)):
        with pytest.raises(InputError, match="score is"):
            take(score)
    assert labelling.n == 0


@pytest.mark.parametrize("audit", [object(), 1, "first", True])
def test_an_audit_is_one_that_was_drawn(audit: Any) -> None:
    monitor = GateMonitor(0.05, share=1.0)
    monitor.observe(9.0)
    for tell in (lambda: monitor.audit(True, audit), lambda: monitor.leave_out(audit)):
        with pytest.raises(InputError, match="what observe returned"):
            tell()
    for nothing in (None, 0.05, "calibration.json"):
        with pytest.raises(CalibrationError, match="no calibration"):
            monitor.rearm(nothing)  # type: ignore[arg-type]


def test_a_comparison_that_tells_nothing_counts_as_a_disagreement(
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = Trajectory((), "red", "answered")
    for told in NOT_OUTCOMES:
        monitor = GateMonitor(0.5, share=1.0)
        auditor = Auditor(monitor, lambda *_, told=told: told)  # type: ignore[misc]
        number = auditor.observe(None, True)
        assert number is not None
        auditor.report(number, Query("?", (Image.new("RGB", (8, 8)),)), "red", said)
        assert (monitor.audits, monitor.disagreements) == (1, 1), told
    assert "could not be compared" in caplog.text


@pytest.mark.parametrize(
    "options",
    [
        {"start": 1.5},
        {"start": True},
        {"start": "45"},
        {"seed": -1},
        {"seed": 1.5},
        {"thresholds": "ab"},
        {"thresholds": [None]},
    ],
    ids=repr,
)
def test_numbers_that_are_none_are_refused(options: dict[str, Any]) -> None:
    [name] = options
    with pytest.raises(ConfigError, match=name):
        calibrate(**SIXTY, **options)


@pytest.mark.parametrize(
    "key", [None, "", math.nan, [], (), [None], ["a", ""], {}, [{}], bytearray(b"a")], ids=repr
)
def test_a_row_without_a_key_is_told_not_counted_as_an_image_of_its_own(key: Any) -> None:
    with pytest.raises(InputError, match="image key"):
        calibrate(**SIXTY, image_key=["a"] * 59 + [key])
    if key is not None:
        labelling = SequentialCalibration(MADE)
        with pytest.raises(InputError, match="image key"):
            labelling.add(9.0, False, image_key=key)


def test_keys_may_come_from_any_iterable() -> None:
    keys = [number // 2 for number in range(60)]
    for given in (keys, tuple(keys), np.array(keys), (key for key in keys)):
        assert calibrate(**SIXTY, image_key=given).n == 30  # type: ignore[arg-type]


def test_labelling_knows_an_image_under_other_names_and_formats() -> None:
    image, file = Image.effect_noise((64, 64), 60).convert("RGB"), io.BytesIO()
    image.save(file, "PNG")
    labelling = SequentialCalibration(MADE)
    labelling.add(9.0, False, image_key=image)
    labelling.add(9.0, True, image_key=Image.open(file))
    labelling.add(9.0, False, image_key=["other", image])
    labelling.add(9.0, False, image_key="other")
    assert labelling.n == 1, "the third shares an image with the first, the fourth with the third"


@pytest.mark.parametrize(
    "options",
    [
        {"labels": "odd"},
        {"risk": "odd"},
        {"starts": []},
        {"starts": [math.nan]},
        {"starts": "ab"},
        {"thresholds": "ab"},
    ],
    ids=repr,
)
def test_labelling_refuses_at_once_what_it_cannot_keep(options: dict[str, Any]) -> None:
    [name] = options
    with pytest.raises(ConfigError, match=name):
        SequentialCalibration(MADE, **options)


@pytest.mark.parametrize("name", [None, math.nan], ids=repr)
def test_a_query_without_a_category_has_no_promise_of_its_own(name: Any) -> None:
    with pytest.raises(InputError, match="no category"):
        calibrate_groups([9.0] * 60, [0] * 60, MADE, ["a"] * 59 + [name])


@pytest.mark.parametrize(("n", "keys"), [(0, None), (1, None), (50, ["one"] * 50)])
def test_halves_need_two_images(n: int, keys: list[str] | None) -> None:
    with pytest.raises(InputError, match="two images"):
        calibrate_many({"a": Setting([9.0] * n, MADE)}, [0] * n, correction="split", image_key=keys)


def test_numbers_beyond_all_bounds_are_refused_by_name() -> None:
    """JSON holds whole numbers of any length, and no float does."""
    for name in ("target", "delta"):
        with pytest.raises(ConfigError, match=name):
            calibrate(**SIXTY, **{name: 10**400})
    for make in (SeparabilityGate, lambda one: SeparabilityGate(sharpness=one)):
        with pytest.raises(ConfigError, match="must be a number from"):
            make(10**400)


def test_a_cost_that_is_bounded_by_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="most=0"):
        price(certified(), [9.0] * 10, [0.0] * 10, [0.0] * 10, most=0)


@pytest.mark.parametrize("window", [0, -1, 1.5, "all", True], ids=repr)
def test_a_window_holds_at_least_one_query(window: Any) -> None:
    with pytest.raises(ConfigError, match="window"):
        CostModel(window)


def test_arming_anew_while_audits_come_and_go_in_threads() -> None:
    """Whatever the order, an audit counts for the arming that it was drawn under, or not at all."""
    promises = [certified(), certified(300, 0.1)]
    monitor = GateMonitor.from_calibration(promises[0], share=0.5)
    faults: list[BaseException] = []
    ready = threading.Barrier(5)

    def guarded(work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except Exception as exc:  # noqa: BLE001 - told below
                faults.append(exc)

        return threading.Thread(target=run)

    def audits() -> None:
        ready.wait()
        held: list[Any] = []
        for _ in range(400):
            arming, _ = monitor.standing
            held.append(monitor.observe(9.0, arming=arming.number))
            low, high = monitor.bounds
            assert 0 <= low <= high <= 1
            if len(held) > 6:
                for one in reversed(held):
                    if one is not None:
                        monitor.audit(one.arming < 20, one)
                held.clear()

    def arms() -> None:
        ready.wait()
        for number in range(20):
            monitor.rearm(promises[number % 2])

    threads = [guarded(audits) for _ in range(4)] + [guarded(arms)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not faults, faults
    assert monitor.arming.number == 21
    assert monitor.disagreements == 0 and not monitor.tripped, "bad ones were all of older armings"
    monitor.audit(False, None)
    assert GateMonitor.from_json(monitor.to_json()).arming.number == 21
