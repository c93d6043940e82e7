"""Calibration held against MAPIE's risk control, wherever it has the same method.

MAPIE (BSD-3-Clause) is a second implementation, by other people, of the same papers. Where the
two differ it is by convention, and the test says how:

- Both accept where score >= threshold when they classify. MAPIE's multi-label controller, which
  has the conformal risk control, includes labels where the score is *above* its parameter, so it
  is given 1 - score, and its parameter is 1 - threshold.
- MAPIE searches a grid that it is given; here that is the same list of thresholds. Without a list,
  ours are all the distinct scores, and the loosest of the thresholds that decide alike.
- In conformal risk control MAPIE asks for a bound *below* the target, ours allows equality as the
  theorem does; and where nothing is safe MAPIE returns an end of its grid, the loosest even if
  the sample has no error in it, ours None.
- MAPIE rounds the number of errors up from a share, ceil(m * (k / m)), and where the product lies
  one rounding above k it counts k + 1: 7 of 25 are 8. Ours counts in whole numbers.
- MAPIE reads off the sample whether the risk rises or falls along the grid, and turns the sequence
  round if it falls; ours goes from the strictest to the loosest, whatever the sample says.
- The start by a count (docs/guarantee.md) is our own, so there MAPIE is no oracle.
"""

from __future__ import annotations

import math
import warnings
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from speceyes.calibration import Scoring, calibrate
from speceyes.calibration import risk as choose
from speceyes.calibration.binomial import Test, p_value

control = pytest.importorskip(
    "mapie.risk_control", reason="MAPIE isn't installed: pip install 'speceyes[test]'"
)
methods = pytest.importorskip("mapie.risk_control.methods")

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

GRID = np.arange(63, -1, -1) / 64  # strictest first, and 1 - threshold is exact
TESTS: tuple[tuple[Test, bool], ...] = (("binomial", True), ("hoeffding-bentkus", False))

shares = st.sampled_from([0.02, 0.05, 0.07, 0.1, 0.2, 0.3, 0.5])
deltas = st.sampled_from([0.05, 0.1, 0.3])


@st.composite
def samples(draw: st.DrawFn) -> tuple[Floats, Bools]:
    """(scores, bad): of few levels, which tie, or of any; the low ones bad more often."""
    n = draw(st.integers(1, 400))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([1, 2, 5, 64, 2**40]))
    scores = np.floor(random.beta(2, 1, n) * levels) / levels
    scores[random.random(n) < 0.03] = math.nextafter(1.0, 0.0)
    hardness = draw(st.floats(0, 1))
    return scores, random.random(n) < hardness * (1 - scores) ** draw(st.integers(0, 3))


def miscounts(errors: int, drafts: int) -> bool:
    """Whether MAPIE's way through a share takes the errors for one more than they are."""
    return math.ceil(drafts * (errors / drafts)) != errors


def theirs(
    scores: Floats,
    bad: Bools,
    thresholds: Floats,
    target: float,
    delta: float,
    *,
    selective: bool,
    fwer: str = "fixed_sequence",
) -> object:
    """MAPIE's controller, calibrated to accept where score >= threshold."""
    risk = control.BinaryRisk(
        lambda label, accepted: (label == 1) & (accepted == 1),
        (lambda _, accepted: accepted == 1) if selective else (lambda _, a: np.full(a.shape, True)),
        higher_is_better=False,
    )
    most = control.BinaryRisk(
        lambda _, accepted: accepted == 1,
        lambda _, accepted: np.full(accepted.shape, True),
        higher_is_better=True,
    )
    controller = control.BinaryClassificationController(
        lambda column: np.column_stack([1 - column[:, 0], column[:, 0]]),
        risk=risk,
        target_level=target,
        confidence_level=1 - delta,
        best_predict_param_choice=most,
        list_predict_params=thresholds,
        fwer_method=fwer,
    )
    with warnings.catch_warnings():
        # That nothing is valid, that the risk isn't monotone, that all scores are 0: all fine here.
        warnings.simplefilter("ignore")
        return controller.calibrate(scores[:, None], bad.astype(int))


# --- p-values ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("test", "binary"), TESTS)
@settings(max_examples=60)
@given(st.integers(1, 3000), shares, st.data())
def test_p_values_are_the_same(test: Test, binary: bool, m: int, target: float, data) -> None:
    errors = data.draw(st.integers(0, m) | st.integers(0, min(m, int(2 * target * m) + 1)))
    found = methods.compute_hoeffding_bentkus_p_value(
        np.array([errors / m]), np.array([m]), target, binary
    )
    got = min(1.0, float(found[0, 0]))
    ours = p_value(errors, m, target, test)
    if miscounts(errors, m):
        assert got >= ours * (1 - 1e-9)
    else:
        assert got == pytest.approx(ours, rel=1e-7, abs=1e-300)


def test_where_shares_round_up_mapie_counts_an_error_more() -> None:
    # 25 * (7 / 25) is 7.000000000000001: the reason why ours never goes through a share.
    assert miscounts(7, 25)
    (got,) = methods.compute_hoeffding_bentkus_p_value(
        np.array([7 / 25]), np.array([25]), 0.5, True
    )[0]
    entropy = 0.28 * math.log(0.28 / 0.5) + 0.72 * math.log(0.72 / 0.5)
    assert got == pytest.approx(min(math.exp(-25 * entropy), p_value(8, 25, 0.5)), rel=1e-9)
    assert got > 1.5 * p_value(7, 25, 0.5)


# --- Learn then Test --------------------------------------------------------------------------


@pytest.mark.parametrize(("test", "binary"), TESTS)
@settings(max_examples=40)
@given(samples(), shares, deltas)
def test_the_fixed_sequence_passes_the_same_thresholds(test, binary, sample, target, delta) -> None:
    """p-values by MAPIE on the drafts that each threshold accepts, then MAPIE's own sequence."""
    scores, bad = sample
    rungs = choose.ladder(scores, bad, GRID)
    drafts, errors = rungs.accepted[rungs.accepted > 0], rungs.bad[rungs.accepted > 0]
    assume(not any(miscounts(k, m) for k, m in zip(errors.tolist(), drafts.tolist(), strict=True)))
    found = methods.compute_hoeffding_bentkus_p_value(errors / drafts, drafts, target, binary)
    # Thresholds that accept nothing can't pass: p = 1. Ours tests them too, and stops there.
    p_values = np.concatenate([np.ones(len(rungs.accepted) - len(drafts)), found[:, 0]])
    passed = control.control_fwer(p_values, delta, "fixed_sequence")
    assert choose.selective(rungs, target, delta, test=test) == len(passed)
    assert passed.tolist() == list(range(len(passed)))


@settings(max_examples=40)
@given(samples(), shares, deltas, st.integers(1, 64))
def test_selective_thresholds_are_those_of_the_controller(sample, target, delta, rungs) -> None:
    """End to end, where the sample's own risk rises, so that MAPIE keeps our order."""
    scores, bad = sample
    grid = GRID[-rungs:]
    ladder = choose.ladder(scores, bad, grid)
    assume(ladder.accepted[0] > 0)
    risks = ladder.bad / ladder.accepted
    assume((np.diff(risks) >= 0).all())
    pairs = zip(ladder.bad.tolist(), ladder.accepted.tolist(), strict=True)
    assume(not any(miscounts(k, m) for k, m in pairs))
    controller = theirs(scores, bad, grid, target, delta, selective=True)
    passed = choose.selective(ladder, target, delta)
    assert controller.valid_predict_params.tolist() == grid[:passed].tolist()
    assert_best(controller, ladder, passed)


def test_a_sample_can_not_turn_our_sequence_round() -> None:
    """A few sure errors at the top: the risk falls along the grid, and MAPIE begins at its end."""
    scores = np.concatenate([np.full(40, 0.9), np.full(400, 0.3)])
    bad = np.arange(440) < 8
    grid = np.array([0.8, 0.2])
    controller = theirs(scores, bad, grid, 0.05, 0.1, selective=True)
    assert controller.valid_predict_params.tolist() == [0.2]
    assert choose.selective(choose.ladder(scores, bad, grid), 0.05, 0.1) == 0


@settings(max_examples=40)
@given(samples(), shares, deltas)
def test_overall_thresholds_are_those_of_the_controller(sample, target, delta) -> None:
    """P(accepted and bad) never falls as the threshold is loosened, so this is end to end."""
    scores, bad = sample
    ladder = choose.ladder(scores, bad, GRID)
    assume(not any(miscounts(k, len(scores)) for k in ladder.bad.tolist()))
    controller = theirs(scores, bad, GRID, target, delta, selective=False)
    passed = choose.overall(ladder, target, delta)
    assert controller.valid_predict_params.tolist() == GRID[:passed].tolist()
    assert_best(controller, ladder, passed)


def assert_best(controller: object, ladder: choose.Ladder, passed: int) -> None:
    """The threshold that is chosen accepts the same drafts, if any."""
    best = controller.best_predict_param  # type: ignore[attr-defined]
    threshold = choose.loosest(ladder, passed, given=True)
    if threshold is None:  # MAPIE may call a threshold best that accepts nothing
        assert best is None or ladder.accepted[passed - 1] == 0
    else:
        at = int(np.flatnonzero(ladder.thresholds == best)[0])
        assert ladder.accepted[at] == ladder.accepted[passed - 1]
        assert threshold <= best


def test_a_whole_calibration_gives_the_threshold_of_the_controller() -> None:
    """Through `calibrate`, with raw scores and the gate's own scale."""
    random = np.random.default_rng(7)
    raw = random.gamma(4, 2, 900)
    bad = random.random(900) < 0.6 * np.exp(-0.35 * raw)
    unit = 1 / (1 + np.exp(-0.6 * raw))
    grid = np.array([0.995, 0.99, 0.98, 0.95, 0.9, 0.8, 0.7, 0.5])
    chosen = set()
    for target in (0.02, 0.04, 0.06, 0.1, 0.2):
        for kind in ("selective", "overall"):
            found = calibrate(
                raw,
                bad,
                Scoring("small", "ab12"),
                risk=kind,  # type: ignore[arg-type]
                target=target,
                delta=0.1,
                thresholds=grid.tolist(),
            )
            controller = theirs(unit, bad, grid, target, 0.1, selective=kind == "selective")
            assert found.threshold == controller.best_predict_param
            chosen.add(found.threshold)
    assert len(chosen) >= 4  # so that agreement says something


# --- conformal risk control -------------------------------------------------------------------


def mapie_crc(scores: Floats, bad: Bools, thresholds: Floats, target: float) -> object:
    """The multi-label controller with one label a query, which is missed where it is a loss.

    A label is missed where its score is at most the parameter, 1 - threshold. A bad draft's label
    scores 1 - score, so it is missed where the draft is accepted; a good one's scores 1.
    """
    controller = control.MultiLabelClassificationController(
        lambda column: column,
        risk="recall",
        method="crc",
        target_level=1 - target,
        predict_params=1 - thresholds,
    )
    column = np.where(bad, 1 - scores, 1.0)[:, None]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The risk cannot be controlled")
        return controller.calibrate(column, np.ones((len(scores), 1), dtype=int))


@settings(max_examples=40)
@given(samples(), st.sampled_from([0.03, 0.07, 0.13, 0.31, 0.49]))
def test_conformal_risk_control_takes_the_same_threshold(sample, target) -> None:
    scores, bad = sample
    scores, bad = np.floor(scores[:120] * 64) / 64, bad[:120]  # so that 1 - score is exact
    grid = np.append(1.0, GRID[::4])  # 1 accepts nothing, so the risk has somewhere to rise from
    ladder = choose.ladder(scores, bad, grid)
    n = len(scores)
    assume((Fraction(str(target)) * (n + 1)).denominator > 1)  # equality: see below
    passed = choose.crc(ladder, target)
    controller = mapie_crc(scores, bad, grid, target)
    assert controller.r_hat * n == pytest.approx(ladder.bad)
    threshold = 1 - float(controller.best_predict_param[0])
    if passed == 0:  # where nothing is safe, MAPIE gives an end of its grid, with a warning
        assert threshold == (1.0 if ladder.bad[-1] else grid[-1])
    elif ladder.bad[-1] == 0:
        # A flat risk: MAPIE takes it for a falling one and stays at the strictest.
        assert threshold == 1.0 and passed == len(grid)
    else:
        assert threshold == grid[passed - 1]


def test_conformal_risk_control_allows_equality_and_mapie_does_not() -> None:
    # 15 queries and one bad one: accepted, its bound is (1 + 1) / 16, which is the target.
    scores, bad = np.arange(15) / 16, np.arange(15) == 3
    grid = np.array([0.5, 3 / 16, 2 / 16])
    assert choose.crc(choose.ladder(scores, bad, grid), 0.125) == 3
    assert 1 - mapie_crc(scores, bad, grid, 0.125).best_predict_param[0] == 0.5
    assert 1 - mapie_crc(scores, bad, grid, 0.126).best_predict_param[0] == 2 / 16
