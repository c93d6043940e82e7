"""Thresholds and gates at their edges: starts amid ties, last rungs, single drafts, equality."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from speceyes.calibration import Calibration, Scoring, Setting, calibrate
from speceyes.calibration import risk as choose
from speceyes.calibration.binomial import p_value
from speceyes.calibration.images import one_each
from speceyes.calibration.many import calibrate_many, choosing_rows
from speceyes.errors import ConfigError, InputError
from speceyes.gate import SeparabilityGate
from speceyes.scoring import scales, scores
from speceyes.types import Completion

MADE = Scoring("small", "ab12", top_k=4)
ROW = [[-0.1, -7.0, -8.0, -9.0]]


# --- which rungs pass ---------------------------------------------------------------------------


def walked(rungs: choose.Ladder, target: float, delta: float, start: int) -> int:
    """Rungs that "selective" passes with the expected number of bad ones, told rung by rung."""
    blocks = list(zip(rungs.accepted.tolist(), rungs.bad.tolist(), strict=True))

    def passes(bad: int, drafts: int) -> bool:
        return p_value(bad, drafts, target) <= delta

    if not blocks:
        return 0
    if start >= blocks[-1][0]:
        return len(blocks) if passes(blocks[-1][1], blocks[-1][0]) else 0
    at = next(i for i, (accepted, _) in enumerate(blocks) if accepted > start)
    before, wrong = blocks[at - 1] if at else (0, 0)
    tied, bad = blocks[at][0] - before, blocks[at][1] - wrong
    if not passes(wrong + math.ceil(Fraction(bad * (start - before), tied)), start):
        return 0
    last = 0
    while at < len(blocks) and passes(blocks[at][1], blocks[at][0]):
        at = last = at + 1
    return last


def test_the_first_test_is_of_the_start_and_the_rungs_behind_it_stop_at_the_first_failure() -> None:
    random, kinds = np.random.default_rng(0), set()
    for _ in range(1500):
        sizes = random.integers(1, 12, random.integers(1, 7))
        rates = random.choice([0.0, 0.0, 0.1, 0.3], sizes.size)
        bad = np.cumsum(random.binomial(sizes, rates))
        thresholds = np.linspace(0.9, 0.1, sizes.size)
        rungs = choose.ladder(np.repeat(thresholds, sizes), np.zeros(int(sizes.sum()), bool))
        rungs = choose.Ladder(rungs.thresholds, rungs.accepted, bad, rungs.total)
        start = int(random.integers(1, sizes.sum() + 3))
        target, delta = float(random.choice([0.1, 0.3])), float(random.choice([0.1, 0.4]))
        found = choose.selective(rungs, target, delta, start=start)
        assert found == walked(rungs, target, delta, start), (rungs, target, delta, start)
        kinds.add((found == 0, found == sizes.size, start in rungs.accepted))
    assert len(kinds) == 6, "failures, successes and partial ones, amid ties and between them"


def test_drafts_that_tie_over_the_start_count_by_their_share() -> None:
    """1,000 that tie pass as a whole with 38 bad ones, but 77 of them hold 3, where 1 may be."""
    rungs = choose.Ladder(np.array([0.5]), np.array([1000]), np.array([38]), 1000)
    assert p_value(38, 1000, 0.05) <= 0.1 < p_value(3, 77, 0.05)
    assert choose.selective(rungs, 0.05, 0.1, start=77) == 0
    assert choose.selective(rungs, 0.05, 0.1, start=1000) == 1


@pytest.mark.parametrize(("target", "delta"), [(0.05, 0.1), (0.1, 0.05), (0.3, 0.2)])
def test_the_start_by_its_definition(target: float, delta: float) -> None:
    """The least number that forgives 3, 2, 1 or 0 errors and is at most a third of the drafts."""
    least = [
        next(m for m in range(1, 2000) if p_value(errors, m, target) <= delta)
        for errors in range(4)
    ]
    for total in (1, 5, *(3 * m + d for m in least for d in (-1, 0, 1)), 20 * least[3]):
        fits = [m for m in least if 3 * m <= total]
        start = max(fits, default=min(least[0], total))
        assert choose.default_start(total, target, delta) == max(start, total // 10)


def test_a_threshold_lets_through_what_its_rung_holds_be_it_one_draft_or_none() -> None:
    one = choose.ladder(np.array([0.9, np.nan]), np.array([False, False]))
    assert choose.loosest(one, 1) == 0.0 and choose.loosest(one, 0) is None
    two = choose.ladder(np.array([0.9, 0.4]), np.array([False, True]))
    assert choose.loosest(two, 1) == math.nextafter(0.4, 1.0)
    given = choose.ladder(np.array([0.9, 0.4]), np.zeros(2, bool), np.array([0.95, 0.5]))
    assert choose.loosest(given, 1, given=True) is None, "nothing scores 0.95"
    assert choose.loosest(given, 2, given=True) == 0.5


def test_one_given_threshold_is_enough_and_none_are_not() -> None:
    assert calibrate([9.0] * 60, [0] * 60, MADE, thresholds=[0.5]).threshold == 0.5
    for wrong in ([], [1.0], [-0.1], [[0.5]]):
        with pytest.raises(ConfigError, match="from 0 to below 1"):
            calibrate([9.0] * 60, [0] * 60, MADE, thresholds=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("apart", "warned"), [(8, False), (7, True)])
def test_a_warning_where_a_tenth_of_the_scores_run_together(
    apart: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Two scores beyond the sigmoid's reach are one: 9 of 10 are left apart, or 8 of 9."""
    raw = [*np.linspace(1.0, 4.0, apart).tolist(), 100.0, 120.0] * 6
    calibrate(raw, [0] * len(raw), MADE)
    assert ("distinct scores" in caplog.text) == warned


def test_labels_that_are_lacking_are_told_for_either_risk() -> None:
    """One bad draft of 40 is a share below 5 %, though it is all that is accepted."""
    scores = [9.0] + [math.nan] * 39
    overall, selective = (
        calibrate(scores, [1] + [0] * 39, MADE, risk=risk, target=0.05, delta=0.1)
        for risk in ("overall", "selective")
    )
    assert not overall.certified and not selective.certified
    assert overall.labels_needed is not None and selective.labels_needed is None


# --- choosing among settings --------------------------------------------------------------------


def setting(level: float) -> Setting:
    return Setting(np.full(400, level), MADE)


def labelled(bad: int, n: int = 400) -> np.ndarray:
    """Labels of which so many in 20 are bad, as often in every stretch."""
    return (np.arange(n) % 20 < bad).astype(float)


def test_halves_are_halves_of_the_images_whatever_the_seed() -> None:
    for seed in range(5):
        first = choosing_rows(200, None, seed)
        assert first.sum() == 100
        keys = [i // 4 for i in range(200)]
        by_image = choosing_rows(200, keys, seed).reshape(50, 4)
        assert (by_image.all(axis=1) | ~by_image.any(axis=1)).all() and by_image[:, 0].sum() == 25
    assert not np.array_equal(choosing_rows(200, None, 0), choosing_rows(200, None, 1))
    assert np.array_equal(choosing_rows(200), choosing_rows(200)), "the same one every time"


def test_the_half_that_certifies_takes_over_whatever_the_choosing_half_says() -> None:
    """Where that half certifies a setting, the one that accepts most; where it certifies none, the
    one that lacks the fewest labels, and none can where more labels wouldn't help."""
    rows = np.arange(400)
    good, some = labelled(0), labelled(1)
    few = Setting(np.where(rows % 4 == 0, 9.0, np.nan), MADE, bad=good)
    most = Setting(np.full(400, 9.0), MADE, bad=good)
    made = calibrate_many({"few": few, "most": most}, good, correction="split", target=0.1)
    assert list(made.calibrations) == ["most"] and made.best == "most"
    hopeless = Setting(np.full(400, 9.0), MADE, bad=labelled(10))
    nearly = Setting(np.full(400, 9.0), MADE, bad=some)
    for settings in ({"hopeless": hopeless, "nearly": nearly}, {"nearly": nearly, "a": hopeless}):
        made = calibrate_many(settings, good, correction="split", target=0.06, delta=0.1)
        assert list(made.calibrations) == ["nearly"] and made.best is None
        assert made.chosen.labels_needed is not None


def test_labels_of_settings_are_one_for_each_query() -> None:
    for wrong in (np.zeros((4, 2)), np.float64(0.0)):
        with pytest.raises(InputError, match=r"labels of shape .*; one for each query is"):
            calibrate_many({"a": setting(9.0)}, wrong)


def test_one_row_of_each_image_by_a_lot_that_comes_again() -> None:
    clusters = np.arange(300) // 3
    drawn = [one_each(clusters, seed) for seed in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])
    assert (clusters[drawn[2]] == np.arange(100)).all()
    assert set((drawn[2] % 3).tolist()) == {0, 1, 2}


# --- the gate -----------------------------------------------------------------------------------


def test_the_fewest_columns_that_a_spread_can_be_taken_of() -> None:
    assert SeparabilityGate(top_k=3).top_k == 3
    assert SeparabilityGate(top_k=1, aggregate="log").top_k == 1
    for aggregate, k in (("min", 2), ("log", 0)):
        with pytest.raises(ConfigError, match="needs at least"):
            SeparabilityGate(top_k=k, aggregate=aggregate)  # type: ignore[arg-type]


def test_a_slope_may_be_as_flat_as_another_is_steep() -> None:
    steepest = 1e6
    for allowed in (steepest, 1 / steepest):
        assert SeparabilityGate(sharpness=allowed).sharpness == allowed
    for beyond in (2 * steepest, 0.5 / steepest):
        with pytest.raises(ConfigError, match="sharpness"):
            SeparabilityGate(sharpness=beyond)


def test_a_threshold_just_at_the_papers_bound_is_out_of_reach() -> None:
    """Its formula scores below sqrt(K - 1), never at it."""
    found = 0
    for k in (5, 10, 17, 26, 65):
        bound = math.sqrt(k - 1)
        for sharpness in np.linspace(0.05, 2.0, 60).tolist():
            threshold = scales.sigmoid(bound, sharpness)
            if scales.to_raw(threshold, log=False, sharpness=sharpness) == bound:
                found += 1
                with pytest.raises(ConfigError, match="out of reach"):
                    SeparabilityGate(threshold, top_k=k, formula="paper", sharpness=sharpness)
    assert found > 3


def test_a_draft_that_a_stricter_threshold_ended_keeps_its_score() -> None:
    gate = SeparabilityGate(0.98, top_k=4)
    whole, ended = (gate(Completion("a", (7,), ROW, finish=how)) for how in ("stop", "rejected"))
    assert whole.accepted and not ended.accepted
    assert ended.score == whole.score and "stricter threshold" in ended.reason


def test_a_gate_is_shown_in_one_line_whatever_its_calibration_holds() -> None:
    random = np.random.default_rng(0)
    level = random.gamma(4, 3, 900)
    made: Calibration = calibrate(level, random.random(900) < 0.3 * np.exp(-0.4 * level), MADE)
    shown = repr(SeparabilityGate.from_calibration(made))
    assert len(shown) < 200 and "curve" not in shown


# --- scores -------------------------------------------------------------------------------------


@pytest.mark.parametrize("aggregate", scores.AGGREGATES)
def test_drafts_together_score_as_each_alone_down_to_the_fewest_columns(
    aggregate: scores.Aggregate,
) -> None:
    width = 1 if aggregate == "log" else 4
    drafts = [[row[:width] for row in ROW], [row[:width] for row in (*ROW, *ROW)]]
    found = scores.raw_scores(drafts, 4, aggregate, logprobs=True)
    gate = SeparabilityGate(top_k=4, aggregate=aggregate)
    for draft, raw in zip(drafts, found.tolist(), strict=True):
        alone = gate(Completion("a", (7,) * len(draft), draft))
        assert alone.separability == pytest.approx(raw) and not math.isnan(raw)


def test_k_is_64_where_nothing_is_said_as_in_the_papers_code() -> None:
    assert scores.TOP_K == SeparabilityGate().top_k == SeparabilityGate().needed_top_k == 64
    assert "top_k=64" in SeparabilityGate()(Completion("a", (1,))).reason
