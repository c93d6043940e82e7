"""Matching labels to new scores: which are alike, how many are matched, and when it is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from speceyes.calibration import Scoring, calibrate_shifted, shift
from speceyes.errors import CalibrationError, InputError

MADE = Scoring("small", "ab12")


def fine(raw: float) -> int:
    """Four bins of the shift alarm are one."""
    return int(shift.bins(raw)) // 4


def of_fine(number: int) -> float:
    """A score in the middle of such a one."""
    return math.sinh(0.02 * (4 * number + 1.5 - 750))


HELD = 230
"""Where nearly all new scores lie, in such numbers."""


@pytest.mark.parametrize("new", [*range(HELD - 7, HELD), *range(HELD + 1, HELD + 8)])
def test_scores_are_alike_within_up_to_four_cells_where_few_new_ones_are(new: int) -> None:
    """New ones in nearly equal parts at `HELD`, which is a cell's end, and a few at another place:
    a label there is taken within four from the last cell's end on, and none is beyond.
    """
    assert fine(of_fine(new)) == new

    def cell(number: int) -> int:
        return number // 4 if number <= HELD else 10**6 + (number - HELD - 1) // 4

    unlike = [old for old in range(new - 5, new + 6) if old != HELD and cell(old) != cell(new)]
    like = [old for old in range(new - 5, new + 6) if old != HELD and cell(old) == cell(new)]
    scores = [of_fine(HELD)] * 985 + [of_fine(new)] * 15
    lacking = 15 if cell(new) != cell(HELD) else 0  # those of `HELD` are alike as well
    for olds, bad in ((like, 0), (unlike, lacking)):
        for old in olds:
            if (old < HELD) != (new < HELD):
                continue
            raw = [of_fine(HELD)] * 1100 + [of_fine(old)] * 30
            found = calibrate_shifted(
                raw, [0] * 1130, scores, MADE, target=0.5, risk="overall", seed=1
            )
            assert found.n == 750 and (found.bad > 0) == (bad > 0), (new, old)
            assert found.bad <= bad


@pytest.mark.parametrize("risk", ["overall", "selective"])
@pytest.mark.parametrize("labels", [20, 200, 423, 424, 467, 468, 700])
def test_as_many_new_queries_are_matched_as_labels_allow(risk: Any, labels: int) -> None:
    """Eight tenths of three quarters of them, and eight tenths of that, and so on, up to eighteen
    tries, until those without a label are few enough.
    """
    bearable = 0.4 * {"overall": 0.25, "selective": 0.05}[risk]
    tried = [int(0.8**k * 600) for k in range(18)]
    expected = next((size for size in tried if 1 - labels / size <= bearable), None)
    old, new = [9.0] * labels, [9.0] * 800
    if expected is None:
        assert labels < 13
    found = calibrate_shifted(old, [0] * labels, new, MADE, target=0.4, risk=risk)
    assert found.n == expected
    assert found.bad == max(0, found.n - labels) if found.certified else True
    with pytest.raises(CalibrationError, match="the drift doesn't allow it"):
        calibrate_shifted([9.0] * 11, [0] * 11, new, MADE, target=0.1, risk=risk)


def test_as_many_may_lack_as_can_be_borne() -> None:
    """An eighth of 600, under a quarter of a target of one half."""
    for labels, expected in ((525, 600), (524, 480)):
        found = calibrate_shifted(
            [9.0] * labels, [0] * labels, [9.0] * 800, MADE, target=0.5, risk="overall"
        )
        assert found.n == expected


def test_labels_that_lack_below_the_middle_only_shut_the_gate_there() -> None:
    new = np.array([9.0] * 700 + [2.0] * 300)
    found = calibrate_shifted([9.0] * 1000, [0] * 1000, new, MADE)
    assert found.certified and found.raw_threshold is not None and found.raw_threshold > 2.0
    assert found.accepted / found.n == pytest.approx(0.7, abs=0.05) and found.bad == 0
    with pytest.raises(
        CalibrationError, match=r"7\d% of the new scores .* around 2, where 1\d\d of 250 new "
    ):
        calibrate_shifted([9.0] * 1000, [0] * 1000, 11.0 - new, MADE)
    # Nor is anything certified, and labels lack by more than the target: that is said as well.
    with pytest.raises(CalibrationError, match=r"2\d% of the new scores .* around 2, .* 0 of 1000"):
        calibrate_shifted([9.0] * 1000, [1] * 1000, new, MADE)
    enough = calibrate_shifted([9.0] * 1000 + [2.0] * 1000, [1] * 2000, new, MADE)
    assert not enough.certified and enough.n == 750


def test_new_queries_that_have_no_score_need_no_labels() -> None:
    none = calibrate_shifted([9.0] * 60, [0] * 60, [None] * 400, MADE)
    assert not none.certified and (none.n, none.drawn_like) == (300, 400)
    assert none.score_counts == ((0, 300),)
    some = calibrate_shifted(
        [9.0] * 60 + [1.0] * 60, [0] * 60 + [1] * 60, [9.0] * 60 + [None] * 60, MADE
    )
    assert dict(some.score_counts).keys() == {0, int(shift.bins(9.0))}
    assert some.bad == 0, "without a score none is accepted, whatever its label"


def test_each_image_counts_once_on_either_side() -> None:
    keys = [at // 3 for at in range(900)]
    old, new = [9.0] * 900, [9.0] * 900
    plain = calibrate_shifted(old, [0] * 900, new, MADE)
    assert plain.n == 675
    once = calibrate_shifted(old, [0] * 900, new, MADE, new_image_key=keys)
    assert (once.n, once.drawn_like) == (225, 900)
    fewer = calibrate_shifted(old, [0] * 900, new, MADE, image_key=keys)
    assert fewer.n == int(0.8**4 * 675), "300 labels are left"
    with pytest.raises(InputError, match="1 new scores"):
        calibrate_shifted(old, [0] * 900, new, MADE, new_image_key=["one"] * 900)


def test_labels_go_with_their_own_scores() -> None:
    """All of one part of the scale bad: what is accepted of it is bad, and nothing else."""
    old = [9.0] * 800 + [3.0] * 800
    found = calibrate_shifted(
        old, [0] * 800 + [1] * 800, [9.0] * 500 + [3.0] * 500, MADE, target=0.1
    )
    assert found.bad == 0 and found.accepted / found.n == pytest.approx(0.5, abs=0.06)
    turned = calibrate_shifted(
        old, [0] * 800 + [1] * 800, [9.0] * 950 + [3.0] * 50, MADE, target=0.2
    )
    assert turned.accepted == turned.n and 10 < turned.bad < 60


@pytest.mark.parametrize("raw", [-1e30, -1e6, 0.0, 1e6, 1e30])
def test_scores_as_far_out_as_there_are_any_are_matched_like_others(raw: float) -> None:
    found = calibrate_shifted([raw] * 400, [0] * 400, [raw] * 400, MADE, risk="overall")
    assert (found.n, found.accepted, found.bad) == (300, 300, 0)
    with pytest.raises(CalibrationError, match="0 of 400 labelled"):
        calibrate_shifted([raw + 5.0 + abs(raw)] * 400, [0] * 400, [-raw - 9.0] * 400, MADE)
