"""Whether a threshold is worth its cost, beside the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from speceyes.calibration import Scoring, calibrate, price
from speceyes.calibration.priced import cost_p_value
from speceyes.errors import InputError
from speceyes.scoring.scales import to_unit

MADE = Scoring("small", "ab12")
STAKES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def by_definition(taken: Any, own: Any, alone: Any, share: float, most: float) -> float:
    """One over the capital of bets on each query's saving, evenly on all stakes."""
    reach = most * max(1.0, 2.0 - share)
    capital = 0.0
    for stake in STAKES:
        product = 1.0
        for one, spent, agent in zip(taken, own, alone, strict=True):
            saved = share * agent - spent - (0.0 if one else agent)
            product *= 1 + stake * saved / reach
        capital += product / len(STAKES)
    return min(1.0, 1 / capital)


@pytest.mark.parametrize("share", [0.5, 0.7, 1.0, 1.5])
def test_p_value_is_one_over_the_capital_of_the_bets(share: float) -> None:
    random = np.random.default_rng(3)
    found = []
    for n in (1, 5, 20, 60):
        accepted = random.random(n) < 0.9
        own, alone = 0.2 * random.random(n), random.gamma(4, 0.5, n).clip(0, 6)
        given = (accepted, own, alone, share, 6.5)
        found.append(cost_p_value(*given))
        assert found[-1] == pytest.approx(by_definition(*given), rel=1e-9)
    assert found[-1] < 0.5
    assert cost_p_value(accepted, own + 1, alone, 0.1, 6.5) == 1.0


@pytest.mark.parametrize("share", [0.7, 1.0, 1.5])
def test_a_threshold_is_worth_it_where_all_looser_ones_are(share: float) -> None:
    kinds = set()
    for seed in range(14):
        random = np.random.default_rng(seed)
        n = 60
        scores = np.round(random.gamma(4, 2, n))
        found = calibrate(scores, scores < 5, MADE, target=0.1, delta=0.3, start=20)
        if found.threshold is None:
            continue
        own, alone = random.random(n) * (0.2 + seed / 3), random.gamma(2, 1, n).clip(0, 6)
        delta, most = 0.2, 6.5
        priced = price(found, scores, own, alone, most=most, share=share, delta=delta)
        unit = np.array([to_unit(s, log=False) for s in scores])
        levels = [u for u in sorted(set(unit.tolist())) if u < found.threshold]
        worth = all(
            by_definition(unit >= level, own, alone, share, most) <= delta
            for level in [*levels, found.threshold]
        )
        assert priced.worth_it is worth and priced.certified is (worth and found.certified)
        fell = unit < found.threshold
        assert fell.any()
        assert priced.measured == pytest.approx((own.sum() + alone[fell].sum()) / alone.sum())
        kinds.add(worth)
    assert kinds == {True, False}


def test_drafts_that_just_reach_a_threshold_are_spared_the_agent() -> None:
    """One that was fixed beforehand, at a score that drafts have."""
    found = calibrate([9.0] * 60, [0] * 60, MADE, thresholds=[to_unit(9.0, log=False)])
    assert found.threshold == to_unit(9.0, log=False) and found.accepted == 60
    priced = price(found, [9.0] * 60, np.full(60, 0.1), np.ones(60), most=1.0)
    assert priced.worth_it and priced.measured == pytest.approx(0.1)


def test_costs_on_their_limits() -> None:
    found = calibrate([9.0] * 60, [0] * 60, MADE)
    ones = np.ones(60)
    assert price(found, [9.0] * 60, 0 * ones, ones, most=1.0).worth_it
    assert price(found, [9.0] * 60, ones, ones, most=1.0).measured == 1.0
    for spent, agent in ((ones * -1e-9, ones), (ones, ones * 1.0001)):
        with pytest.raises(InputError, match="most=1"):
            price(found, [9.0] * 60, spent, agent, most=1.0)
    for parts in (
        {"scores": [9.0] * 59},
        {"spent": ones[:59]},
        {"agent": ones[:59]},
        {"let_through": [True] * 59},
        {"scores": np.ones((60, 1)), "spent": ones[:, None], "agent": ones[:, None]},
        {"scores": [], "spent": [], "agent": []},
    ):
        whole: dict[str, Any] = {"scores": [9.0] * 60, "spent": ones, "agent": ones, **parts}
        with pytest.raises(InputError, match="of one length"):
            price(found, **whole, most=2.0)


def test_what_no_threshold_answers_is_not_worth_it() -> None:
    none = calibrate([9.0] * 60, [1] * 60, MADE)
    priced = price(none, [9.0] * 60, np.zeros(60), np.ones(60), most=1.0)
    assert (priced.certified, priced.worth_it, priced.measured) == (False, False, None)


def test_both_promises_are_said_with_their_figures() -> None:
    found = calibrate([9.0] * 60, [0] * 60, MADE, delta=0.05)
    ones = np.ones(60)
    cheap = price(found, [9.0] * 60, 0.2 * ones, ones, most=1.0, share=0.8, delta=0.1)
    assert "at most 80% of the agent alone (measured 20.0%)" in cheap.statement
    assert "Both hold at once with confidence 85%" in cheap.statement
    dear = price(found, [9.0] * 60, 0.9 * ones, ones, most=1.0, share=0.8, delta=0.1)
    assert "at most 80% of the agent alone can't be certified (measured 90.0%)" in dear.statement
    mean = calibrate([9.0] * 60, [0] * 60, MADE, risk="overall", delta=None)
    alone = price(mean, [9.0] * 60, 0.2 * ones, ones, most=1.0, share=0.8, delta=0.1)
    assert "With confidence 90%, it costs at most 80% of the agent alone" in alone.statement
