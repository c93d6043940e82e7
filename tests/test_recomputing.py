"""Counts of a calibration computed anew: none that was made contradicts itself, at the edges."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from speceyes.calibration import Calibration, Scoring, SequentialCalibration, calibrate
from speceyes.calibration.binomial import p_value
from speceyes.calibration.recompute import contradiction, evidence
from speceyes.calibration.sequence import evidence_below

MADE = Scoring("small", "ab12", top_k=4)


def graded(n: int = 600, seed: int = 0, **options: Any) -> Calibration:
    random = np.random.default_rng(seed)
    level = random.gamma(4, 3, n)
    level[random.random(n) < 0.1] = np.nan  # what the judge sends to the agent has no score
    return calibrate(level, random.random(n) < 0.5 * np.exp(-0.4 * level), MADE, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"risk": "overall"},
        {"risk": "overall", "delta": None},
        {"test": "hoeffding-bentkus"},
        {"thresholds": [0.0, 0.5, 0.9, 0.97]},
        {"start": 60},
    ],
)
def test_what_calibrating_made_never_contradicts_itself(options: dict[str, Any]) -> None:
    for seed in range(25):
        made = graded(200 + 40 * seed, seed, **options)
        assert contradiction(made) is None
        assert Calibration.from_json(made.to_json()) == made


def test_evidence_that_just_suffices_is_no_contradiction() -> None:
    """Conformal risk control with 1 of 20, and tests whose delta is the p-value."""
    mean = calibrate([9.0] * 19, [0] * 19, MADE, risk="overall", delta=None, target=0.05)
    assert mean.certified and contradiction(mean) is None
    for n in (46, 60, 200):
        delta, bad = p_value(0, n, 0.05), [0] * n
        made = calibrate([9.0] * n, bad, MADE, delta=delta, target=0.05, start=n)
        assert made.certified and contradiction(made) is None
        apart = np.linspace(20.0, 10.0, n).tolist()
        made = calibrate([*apart, 1.0], [*bad, 1], MADE, delta=p_value(0, 45, 0.05), start=45)
        assert made.certified and contradiction(made) is None


def test_everything_may_be_accepted_down_to_the_lowest_score_there_is() -> None:
    lowest = Scoring("small", "ab12", aggregate="log")
    made = calibrate([-1e30] * 60 + [-0.1] * 60, [0] * 120, lowest)
    assert made.threshold == 0.0 and contradiction(made) is None


def test_a_start_as_large_as_what_is_accepted_must_be_of_all() -> None:
    """Where scores tie the risk of the `start` best is another than that of their threshold."""
    made = graded(target=0.02)
    assert made.certified and made.start is not None and made.accepted < made.curve[-1].accepted
    for start in (made.accepted, made.accepted + 1):
        assert "start" in str(contradiction(dataclasses.replace(made, start=start)))
    whole = calibrate([9.0] * 60, [0] * 60, MADE, start=60)
    assert contradiction(whole) is None


@pytest.mark.parametrize(
    "change",
    [
        {"accepted": True},
        {"bad": 0.5},
        {"threshold": "0.5"},
        {"evidence": None},
        {"accepted": None},
    ],
)
def test_a_point_of_the_curve_is_numbers(change: dict[str, Any]) -> None:
    made = graded()
    point = dataclasses.replace(made.curve[0], **change)
    assert contradiction(dataclasses.replace(made, curve=(point, *made.curve[1:]))) is not None


@pytest.mark.parametrize("short", [1.01, 1.5, 3.0])
def test_evidence_that_falls_short_is_a_contradiction(short: float) -> None:
    """Of a test, and of conformal risk control, however little is lacking."""
    tested = calibrate([9.0] * 60, [0] * 60, MADE, target=0.05, delta=0.1, start=60)
    delta = p_value(0, 60, 0.05)
    assert contradiction(dataclasses.replace(tested, delta=delta * short)) is None
    assert contradiction(dataclasses.replace(tested, delta=delta / short)) is not None
    mean = calibrate([9.0] * 19, [0] * 19, MADE, risk="overall", delta=None, target=0.05)
    assert contradiction(dataclasses.replace(mean, target=0.05 / short)) is not None


def test_each_way_for_a_curve_to_turn_back_is_a_contradiction_by_itself() -> None:
    """Fewer accepted, fewer bad, or a threshold no lower, with the evidence of their counts."""
    made = graded()
    at = next(i for i, p in enumerate(made.curve) if p.bad) + 1  # the one before has a bad one
    before, point = made.curve[at - 1], made.curve[at]
    for change in (
        {"accepted": before.accepted - 1},
        {"bad": before.bad - 1},
        {"threshold": before.threshold},
    ):
        back = dataclasses.replace(point, **change)
        shown = evidence(made.method, made.risk, back.accepted, back.bad, made.n, made.target)
        back = dataclasses.replace(back, evidence=shown)
        curve = (*made.curve[:at], back, *made.curve[at + 1 :])
        assert "turns back" in str(contradiction(dataclasses.replace(made, curve=curve)))


def test_counts_of_scores_are_whole_and_their_bins_rise_each_by_itself() -> None:
    made = graded()
    (first, few), (second, more), *rest = made.score_counts
    for counts in (
        ((first, few + 0.5), (second, more - 0.5), *rest),
        ((second, more), (first, few), *rest),
        ((first, few), (first, more), *rest),
    ):
        other = dataclasses.replace(made, score_counts=counts)
        assert "rising bins" in str(contradiction(other))


def test_a_stricter_threshold_that_fails_by_little_is_a_contradiction() -> None:
    found = 0
    for seed in range(40):
        made = graded(300, seed)
        if not made.certified or made.start is None:
            continue
        chosen = next(p for p in made.curve if p.threshold == made.threshold)
        tested = [
            p.evidence
            for p in made.curve
            if p.threshold > chosen.threshold and p.accepted > made.start
        ]
        began = evidence(made.method, made.risk, made.start, 0, made.n, made.target)
        delta = max(tested, default=0.0) / 1.5
        if delta > max(began, chosen.evidence):
            found += 1
            other = dataclasses.replace(made, delta=delta)
            assert "is looser" in str(contradiction(other))
    assert found


@pytest.mark.parametrize("threshold", [1.0, 1.5, -0.5])
def test_thresholds_of_the_curve_lie_on_the_scale(threshold: float) -> None:
    made = graded()
    point = dataclasses.replace(made.curve[0], threshold=threshold)
    curve = (point, *made.curve[1:])
    assert f"threshold of {threshold}" in str(contradiction(dataclasses.replace(made, curve=curve)))


def test_bins_are_there_and_hold_scores_each_by_itself() -> None:
    made = graded()
    *rest, (last, many) = made.score_counts
    for counts in (
        (*rest, (10**9, many)),  # no such bin
        ((-1, many), *rest),
        (*rest, (last, many + 3), (last + 1, -3)),  # a count below none
        (*rest, (last, many), (last + 1, 0)),
    ):
        other = dataclasses.replace(made, score_counts=counts)
        assert "bin or a count" in str(contradiction(other))


def test_one_accepted_draft_may_be_what_is_certified() -> None:
    bad = [0] + [1] * 30
    made = calibrate([9.0] + [1.0] * 30, bad, MADE, risk="overall", delta=None, target=0.05)
    assert made.accepted == 1 and contradiction(made) is None


def test_a_start_that_passes_too_late_by_little_is_a_contradiction() -> None:
    found = 0
    for seed in range(40):
        made = graded(900, seed)
        if not made.certified or made.start is None or made.start >= made.accepted:
            continue
        first = evidence(made.method, made.risk, made.start, 0, made.n, made.target)
        own = evidence(made.method, made.risk, made.accepted, made.bad, made.n, made.target)
        if own < first / 1.5:
            found += 1
            for delta, late in ((first / 1.5, True), (first, False)):
                said = str(contradiction(dataclasses.replace(made, delta=delta)))
                assert ("too few to pass" in said) == late
    assert found


@pytest.mark.parametrize("accepted", [0, 1, 5])
def test_thresholds_fixed_beforehand_are_all_tested_however_few_they_accept(accepted: int) -> None:
    """One that accepts next to nothing fails, and ends the tests of those that are looser."""
    made = calibrate([9.0] * 60, [0] * 60, MADE, thresholds=[0.9])
    assert made.certified and contradiction(made) is None
    shown = evidence(made.method, made.risk, accepted, 0, made.n, made.target)
    strict = dataclasses.replace(made.curve[0], threshold=0.95, accepted=accepted, evidence=shown)
    other = dataclasses.replace(made, curve=(strict, *made.curve))
    assert "is looser" in str(contradiction(other))


def test_tests_that_are_just_passed_are_no_contradiction() -> None:
    """Of a stricter threshold, and of the start: delta is what their evidence comes to."""
    stricter = starts = 0
    for seed in range(30):
        made = graded(600, seed)
        if not made.certified or made.start is None or made.start >= made.accepted:
            continue
        chosen = next(p for p in made.curve if p.threshold == made.threshold)
        first = evidence(made.method, made.risk, made.start, 0, made.n, made.target)
        tested = [
            p.evidence
            for p in made.curve
            if p.threshold > chosen.threshold and p.accepted > made.start
        ]
        most = max([*tested, first, chosen.evidence])
        stricter, starts = stricter + (most in tested), starts + (most == first)
        assert contradiction(dataclasses.replace(made, delta=most)) is None
    assert stricter and starts


def test_evidence_is_that_of_its_method_over_the_drafts_that_its_risk_counts() -> None:
    for risk, drafts in (("selective", 60), ("overall", 200)):
        kind: Any = risk
        assert evidence("binomial", kind, 60, 2, 200, 0.1) == p_value(2, drafts, 0.1)
        bentkus = p_value(2, drafts, 0.1, "hoeffding-bentkus")
        assert evidence("hoeffding-bentkus", kind, 60, 2, 200, 0.1) == bentkus
        bets = evidence("betting", kind, 60, 2, 200, 0.1)
        assert bets == pytest.approx(1 / evidence_below(2, drafts, 0.1)) and bets < 1
        assert evidence("betting", kind, 60, 59, 60, 0.1) == 1.0
    assert evidence("crc", "overall", 60, 2, 200, 0.1) == 3 / 201
    with pytest.raises(ValueError, match="no curve"):
        evidence("matched", "overall", 60, 2, 200, 0.1)


def test_bets_that_certified_are_no_contradiction_and_others_are() -> None:
    taking = SequentialCalibration(MADE, target=0.1, thresholds=[0.9])
    while taking.threshold is None:
        taking.add(30.0, False)
    made = taking.calibration()
    assert contradiction(made) is None
    less = dataclasses.replace(made, bad=made.bad + 1)
    assert "can't certify" in str(contradiction(less))
    looser = dataclasses.replace(made, target=made.target / 1.5)
    assert "can't certify" in str(contradiction(looser))
