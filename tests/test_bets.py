"""The bets behind the alarms, by their definitions: numbers that a running watch rests on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from speceyes.calibration import ShiftMartingale, bounds, shift
from speceyes.calibration.arming import share_of_delta
from speceyes.calibration.evidence import RiskEvidence
from speceyes.calibration.ordered import OrderedEvidence
from speceyes.errors import ConfigError, InputError

STEPS = [0.05 * (8.0 / 0.05) ** (i / 23) for i in range(24)]
"""Distances of the bets' log-odds from the target's."""


@pytest.mark.parametrize("target", [0.02, 0.3])
def test_capital_is_that_of_each_bet_from_each_beginning(target: float) -> None:
    """Of the capital 1 / (j (j + 1)) that enters at round j each bet takes an equal part, and pays
    q / target on a bad draft and (1 - q) / (1 - target) on a good one; what hasn't entered is kept.
    """
    outcomes = [False, False, True, False, True, True]
    one = RiskEvidence(target)
    for n, bad in enumerate(outcomes, start=1):
        one.add(bad)
        value = 1 / (n + 1)
        for step in STEPS:
            odds = target / (1 - target) * math.exp(step)
            q = odds / (1 + odds)
            for j in range(1, n + 1):
                capital = 1 / (j * (j + 1)) / len(STEPS)
                for told in outcomes[j - 1 : n]:
                    capital *= q / target if told else (1 - q) / (1 - target)
                value += capital
        assert one.value == pytest.approx(value, rel=1e-12)
    assert (one.seen, one.bad) == (6, 3)
    assert RiskEvidence.restored(one.state()).state() == one.state()


def test_a_shift_is_bet_on_by_tenths_of_the_ranks_that_are_forgotten_slowly() -> None:
    """Half the stake goes on the histogram of earlier ranks, each one more counted for each tenth;
    of what was seen one in 500 is forgotten a round.
    """
    ranks = [0.0, 0.05, 0.99, 0.5, 1.0, 0.93, 0.01]
    alarm = ShiftMartingale()
    memory, wealth = [0.0] * 10, 0.0
    for n, rank in enumerate(ranks, start=1):
        alarm.bet(rank)
        cell = min(9, int(10 * rank))
        guess = 10 * (memory[cell] + 1) / (sum(memory) + 10)
        wealth = (wealth + 1 / (n * (n + 1))) * (0.5 + 0.5 * guess)
        memory = [499 / 500 * held for held in memory]
        memory[cell] += 1
        assert alarm.evidence == pytest.approx(wealth + 1 / (n + 1), rel=1e-12)
    assert alarm.observed == len(ranks)
    assert alarm.state()["memory"] == pytest.approx(memory)


def test_a_rank_counts_the_score_itself_and_draws_among_ties() -> None:
    counts = {0: 2, 800: 1, shift.BINS - 1: 3}
    alarm, lots = ShiftMartingale(counts.items(), seed=0), np.random.default_rng(0)
    for at in range(60):
        raw = (None, 1e12, 1.0, math.nan)[at % 4]
        place = int(shift.bins(math.nan if raw is None else raw))
        counts[place] = counts.get(place, 0) + 1
        below = sum(count for number, count in counts.items() if number < place)
        expected = (below + lots.random() * counts[place]) / sum(counts.values())
        assert alarm.rank(raw) == pytest.approx(expected, rel=1e-12)
    assert alarm.state()["counts"] == [[place, counts[place]] for place in sorted(counts)]
    with pytest.raises(InputError, match="no bin"):
        ShiftMartingale([(-1, 1)])
    with pytest.raises(InputError, match="no bin"):
        ShiftMartingale([(1, -1)])
    assert ShiftMartingale([(1, 0)]).state()["counts"] == []


def test_bins_are_two_hundredths_of_the_inverse_hyperbolic_sine() -> None:
    assert shift.BINS == 1502
    for raw in (-1e9, -3.0, -0.03, 0.011, 0.5, 40.0, 1e9):
        reach = min(15.0, max(-15.0, math.asinh(raw)))
        assert int(shift.bins(raw)) == 1 + math.floor((reach + 15) / 0.02 + 1e-9)
    assert shift.bins([math.nan, 1.0]).tolist()[0] == 0
    assert shift.count_scores([]) == ()
    assert shift.count_scores([None, 1.0, 1.0, None, None])[0] == (0, 3)


def test_capital_that_wins_for_ever_stays_finite() -> None:
    alarm = ShiftMartingale()
    for _ in range(1500):
        alarm.bet(0.0)
    assert 1e150 < alarm.evidence < math.inf


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]])
@pytest.mark.parametrize("left_out", [None, 0, 2, 3])
def test_what_is_known_at_once_counts_behind_what_was_drawn_before(
    order: list[int], left_out: int | None
) -> None:
    """However late outcomes come, the evidence is that of the order of drawing, good ones between
    included; nothing counts before all that came before it.
    """
    outcomes = [True, False, True, True]
    goods = [2, 0, 1, 3]
    ordered, plain = OrderedEvidence(0.1), RiskEvidence(0.1)
    peak = 1.0

    def count(bad: bool) -> None:
        nonlocal peak
        plain.add(bad)
        peak = max(peak, plain.value)

    for bad in (False, True):
        ordered.add(bad)
        count(bad)
    for number, good in enumerate(goods):
        ordered.draw(number)
        for _ in range(good):
            ordered.add(False)
    settled: dict[int, bool | None] = {}
    counted = 0
    for number in order:
        settled[number] = None if number == left_out else outcomes[number]
        ordered.settle(number, settled[number])
        while counted in settled:
            if (bad := settled[counted]) is not None:
                count(bad)
            for _ in range(goods[counted]):
                count(False)
            counted += 1
        assert ordered.evidence.state() == plain.state() and ordered.peak == peak
        again = OrderedEvidence.restored(ordered.state())
        assert again.evidence.seen >= plain.seen and again.state()["slots"] == []


@pytest.mark.parametrize("delta", [0.05, 0.3])
def test_bounds_are_one_minus_each_other_and_spend_half_of_delta_each(delta: float) -> None:
    for bad, seen in ((0, 60), (3, 60), (60, 60), (1, 1)):
        low, high = bounds(bad, seen, delta)
        for risk, steps in ((low, STEPS), (high, [-step for step in STEPS])):
            if 0 < risk < 1:
                capital = sum(
                    math.exp(step * bad) / (1 + risk * math.expm1(step)) ** seen for step in steps
                )
                assert capital / len(STEPS) == pytest.approx(2 / delta, rel=1e-6)
    for wrong in ((-1, 5), (6, 5)):
        with pytest.raises(InputError, match="is needed"):
            bounds(*wrong)
    with pytest.raises(ConfigError, match="delta"):
        bounds(1, 2, 1.0)


def test_the_first_arming_takes_six_of_pi_squared() -> None:
    for number in (1, 2, 7):
        assert share_of_delta(0.1, number) == pytest.approx(0.6 / math.pi**2 / number**2)


def test_to_observe_is_to_rank_and_to_bet() -> None:
    alarm, other = ShiftMartingale(seed=2), ShiftMartingale(seed=2)
    scores: list[Any] = [3.0, None, -2.0, 1e300, 0.0]
    for score in scores:
        alarm.observe(score)
        other.bet(other.rank(score))
    assert alarm.state() == other.state()
    assert ShiftMartingale.restored(alarm.state()).state() == alarm.state()
    assert np.isfinite(alarm.evidence)
