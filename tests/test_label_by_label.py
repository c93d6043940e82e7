"""Labels taken one at a time: the bettor's capital, and which thresholds it certifies."""

from __future__ import annotations

import math

import numpy as np
import pytest

from speceyes.calibration import Scoring, SequentialCalibration
from speceyes.calibration.record import Risk
from speceyes.calibration.sequence import STARTS, evidence_below, log_evidence
from speceyes.errors import ConfigError
from speceyes.scoring.scales import to_unit

MADE = Scoring("small", "ab12")


@pytest.mark.parametrize("target", [0.02, 0.1, 0.4])
@pytest.mark.parametrize("n", [1, 2, 7, 60])
def test_the_bet_is_fair_at_the_target_and_loses_above(n: int, target: float) -> None:
    """So that no rule of stopping makes capital of labels whose risk is as large as the target."""

    def expected(risk: float) -> float:
        chances = [math.comb(n, k) * risk**k * (1 - risk) ** (n - k) for k in range(n + 1)]
        return sum(p * evidence_below(k, n, target) for k, p in enumerate(chances))

    assert expected(target) == pytest.approx(1.0, rel=1e-9)
    assert expected(min(0.9, 1.5 * target)) < 1.0 < expected(0.3 * target)
    assert evidence_below(0, n, target) > 1.0 > evidence_below(n, n, target)


def test_many_counts_at_once_give_what_each_gives_alone() -> None:
    bad, drafts = np.array([[0, 3], [5, 1]]), np.array([[10, 40], [9, 0 + 300]])
    found = log_evidence(bad, drafts, 0.1)
    assert found.shape == (2, 2)
    for at in np.ndindex(2, 2):
        one = evidence_below(int(bad[at]), int(drafts[at]), 0.1)
        assert math.exp(float(found[at])) == pytest.approx(one)


def certified(
    labels: list[tuple[float | None, bool]],
    risk: Risk,
    target: float,
    delta: float,
    grid: list[float],
    starts: list[float],
) -> float | None:
    """The loosest threshold by the definition: each chain goes down its grid as long as the
    greatest capital of a threshold so far reaches the chain's part of delta.
    """
    grid = sorted(set(grid), reverse=True)
    begins = {next((i for i, t in enumerate(grid) if t <= start), None) for start in starts}
    chains = sorted(one for one in begins if one is not None) or [0]
    units = [None if score is None else to_unit(score, log=False) for score, _ in labels]
    loosest = None
    for chain in chains:
        for threshold in grid[chain:]:
            best, accepted_then, accepted, wrong = 1.0, 0, 0, 0
            for n, (unit, (_, bad)) in enumerate(zip(units, labels, strict=True), start=1):
                if unit is not None and min(unit, math.nextafter(1.0, 0.0)) >= threshold:
                    accepted, wrong = accepted + 1, wrong + bad
                capital = evidence_below(wrong, accepted if risk == "selective" else n, target)
                if capital > best:
                    best, accepted_then = capital, accepted
            if best < len(chains) / delta * (1 - 1e-12):
                break
            if accepted_then and (loosest is None or threshold < loosest):
                loosest = threshold
    return loosest


@pytest.mark.parametrize("risk", ["selective", "overall"])
def test_certifies_by_the_definition_label_after_label(risk: Risk) -> None:
    kinds = set()
    for seed in range(60):
        random = np.random.default_rng(seed)
        grid = random.choice([0.0, 0.2, 0.6, 0.9, 0.99], random.integers(1, 6)).tolist()
        starts = random.choice([0.1, 0.5, 0.95, 1.0], random.integers(1, 3)).tolist()
        taking = SequentialCalibration(
            MADE, risk=risk, target=0.3, delta=0.3, thresholds=grid, starts=starts
        )
        labels: list[tuple[float | None, bool]] = []
        for _ in range(40):
            score = None if random.random() < 0.1 else float(random.gamma(2, 1.5))
            labels.append((score, bool(random.random() < (0.5 if (score or 0) < 1.5 else 0.05))))
            taking.add(*labels[-1])
        expected = certified(labels, risk, 0.3, 0.3, grid, starts)
        assert taking.threshold == expected, (seed, grid, starts)
        kinds.add(expected)
        if expected is not None:
            found = taking.calibration()
            assert found.threshold == expected and found.accepted > 0
            assert evidence_below(
                found.bad, found.accepted if risk == "selective" else found.n, 0.3
            ) >= 1 / 0.3 * (1 - 1e-9)
    assert {None, 0.0, 0.9} < kinds


def test_chains_begin_where_they_are_told_to_or_at_the_strictest() -> None:
    """By default at `STARTS`, or for an overall risk at the top of the grid."""

    def taken(risk: Risk, n: int) -> float | None:
        one = SequentialCalibration(MADE, risk=risk, target=0.1, delta=0.1)
        for _ in range(n):
            one.add(30.0, False)
        return one.threshold

    def least(risk: Risk) -> int:
        return next(n for n in range(1, 400) if taken(risk, n) is not None)

    needed = {"selective": len(STARTS) / 0.1, "overall": 1 / 0.1}
    for risk in ("selective", "overall"):
        n = least(risk)
        assert evidence_below(0, n, 0.1) >= needed[risk] > evidence_below(0, n - 1, 0.1)


@pytest.mark.parametrize("grid", [[], [1.0], [0.5, 1.0], [-0.1], [0.5, math.nan]])
def test_thresholds_that_cannot_be(grid: list[float]) -> None:
    with pytest.raises(ConfigError, match="from 0 to below 1"):
        SequentialCalibration(MADE, thresholds=grid)


def test_capital_that_just_reaches_its_level_certifies() -> None:
    """P(the capital ever reaches 1 / delta) is at most delta, reaching included."""
    met = 0
    for n in range(5, 60):
        reached = float(log_evidence(0, n, 0.1))
        delta = math.exp(-reached)
        if math.log(1 / delta) != reached:
            continue
        met += 1
        taking = SequentialCalibration(MADE, risk="overall", target=0.1, delta=delta)
        for _ in range(n):
            assert taking.threshold is None
            taking.add(30.0, False)
        assert taking.threshold is not None
    assert met > 3


@pytest.mark.parametrize("risk", ["selective", "overall"])
def test_one_threshold_is_a_grid_and_without_a_certificate_nothing_is_accepted(risk: Risk) -> None:
    taking = SequentialCalibration(MADE, risk=risk, target=0.1, delta=0.1, thresholds=[0.9])
    taking.add(30.0, False)
    before = taking.calibration()
    assert (before.certified, before.n, before.accepted, before.bad) == (False, 1, 0, 0)
    for _ in range(60):
        taking.add(30.0, False)
    assert taking.threshold == 0.9 and taking.calibration().accepted > 20


def test_a_threshold_is_of_use_from_the_first_draft_that_reaches_it() -> None:
    """Under an overall risk it may be certified by queries that none of it would have answered."""
    taking = SequentialCalibration(MADE, risk="overall", target=0.1, delta=0.1, thresholds=[0.9])
    for _ in range(60):
        taking.add(None, False)
    assert taking.threshold is None
    taking.add(30.0, False)
    assert taking.threshold == 0.9 and taking.calibration().accepted == 1
