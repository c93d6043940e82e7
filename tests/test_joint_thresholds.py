"""Thresholds of a whole cascade by their definition: what it costs, the search and the promise."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from speceyes.calibration.binomial import p_value
from speceyes.errors import ConfigError, InputError
from speceyes.gates.joint_thresholds import (
    MOST_SETTINGS,
    Outcome,
    RecordedDrafts,
    cheapest,
    choose_thresholds,
    grid,
    outcome,
    outcomes,
)

Bools = npt.NDArray[np.bool_]


def drafts(n: int = 40, m: int = 2, seed: int = 0, **options: Any) -> RecordedDrafts:
    random = np.random.default_rng(seed)
    scores = np.round(random.gamma(4, 2, (n, m)), 1)
    scores[random.random((n, m)) < 0.1] = np.nan
    bad = random.random((n, m)) < 0.6 * np.exp(-0.2 * np.nan_to_num(scores))
    costs = options.pop("costs", tuple(1.0 + 2 * i for i in range(m)))
    return RecordedDrafts(scores, bad, costs, **{"agent": 10.0, **options})


def by_definition(told: RecordedDrafts, setting: Any, rows: Any = None) -> tuple[float, int, int]:
    """(cost of all queries, how many a draft answers, how many of these are bad)."""
    cost, accepted, bad = 0.0, 0, 0
    for row in range(len(told.scores)) if rows is None else rows:
        for drafter, threshold in enumerate(setting):
            if threshold is None:
                continue
            cost += told.costs[drafter]
            if told.scores[row, drafter] >= threshold:
                accepted, bad = accepted + 1, bad + bool(told.bad[row, drafter])
                break
        else:
            cost += told.agent
    return cost, accepted, bad


def test_the_first_drafter_that_reaches_its_threshold_answers() -> None:
    told = drafts(m=3)
    for setting in itertools.product((None, 4.0, 8.0), repeat=3):
        found = outcome(told, setting)
        cost, accepted, bad = by_definition(told, setting)
        assert (found.accepted, found.bad) == (accepted, bad)
        assert found.cost == pytest.approx(cost / 40)
        assert found.risk == (bad / accepted if accepted else 0.0)
    for short in ((4.0,), (4.0,) * 4):
        with pytest.raises(InputError, match="thresholds for 3 drafters"):
            outcome(told, short)


def test_a_grid_holds_scores_evenly_by_rank_from_the_lowest_to_the_highest() -> None:
    scores = np.array([[3.0, np.nan], [1.0, np.nan], [2.0, np.nan], [1.0, np.nan], [5.0, np.nan]])
    told = RecordedDrafts(scores, np.zeros((5, 2), bool), (1.0, 1.0), 9.0)
    assert grid(told, 1) == ((None, 1.0), (None,))
    assert grid(told, 2) == ((None, 1.0, 5.0), (None,))
    assert grid(told, 3)[0] in ((None, 1.0, 2.0, 5.0), (None, 1.0, 3.0, 5.0))
    for size in (4, 5, 100):
        assert grid(told, size)[0] == (None, 1.0, 2.0, 3.0, 5.0)
    one = RecordedDrafts(scores[:1, :1], np.zeros((1, 1), bool), (1.0,), 9.0)
    assert grid(one, 7) == ((None, 3.0),)


def test_as_many_settings_as_are_allowed_are_tried_and_no_more() -> None:
    told = drafts(m=2)
    columns = (None, *[float(i) for i in range(MOST_SETTINGS // 2 - 1)]), (None, 1.0)
    assert len(columns[0]) * len(columns[1]) == MOST_SETTINGS == 200_000
    assert next(outcomes(told, columns)).setting == (None, None)
    more = ((*columns[0], -1.0), columns[1])
    with pytest.raises(ConfigError, match="200002 settings are more than 200000"):
        outcomes(told, more)


@pytest.mark.parametrize("target", [0.01, 0.1, 0.3])
def test_the_cheapest_of_all_settings_whose_risk_is_small_enough(target: float) -> None:
    for seed in range(4):
        told = drafts(seed=seed)
        allowed: list[tuple[float, float]] = []
        for setting in itertools.product(*grid(told, 6)):
            cost, accepted, bad = by_definition(told, setting)
            if not accepted or bad / accepted <= target:
                allowed.append((round(cost / 40, 9), bad / accepted if accepted else 0.0))
        found = cheapest(told, target, size=6)
        assert (round(found.cost, 9), found.risk) == min(allowed)
    exact = RecordedDrafts([[9.0]] * 10, [[True]] + [[False]] * 9, (1.0,), 5.0)  # type: ignore[arg-type]
    assert cheapest(exact, 0.1).accepted == 10 and cheapest(exact, 0.09).accepted == 0
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(ConfigError, match="size"):
            cheapest(exact, 0.1, size=wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="size"):
            choose_thresholds(exact, size=wrong)  # type: ignore[arg-type]


def held(n: int, **options: Any) -> Bools:
    """Which of n queries certify: those whose label alone is counted."""
    found = np.zeros(n, dtype=bool)
    for at in range(n):
        bad = np.arange(n)[:, None] == at
        told = RecordedDrafts(np.full((n, 1), 9.0), bad, (1.0,), 9.0, options.get("image_key"))
        chosen = choose_thresholds(
            told, target=0.9, size=1, held_out=options.get("held_out", 0.5), seed=3
        )
        found[at] = chosen.accepted > 0 and chosen.bad == 1
    return found


@pytest.mark.parametrize("share", [0.5, 0.7])
def test_settings_are_tested_in_the_search_s_order_up_to_the_first_failure(share: float) -> None:
    n, target, delta = 60, 0.3, 0.2
    certify = held(n, held_out=share)
    assert certify.sum() == round(share * n)
    certificates = failures = 0
    for seed in range(25):
        told = drafts(n, seed=seed)
        search, test = np.flatnonzero(~certify), np.flatnonzero(certify)
        ranked = []
        for setting in itertools.product(*grid(told.part(search), 4)):
            cost, accepted, bad = by_definition(told, setting, search)
            if accepted and (evidence := p_value(bad, accepted, target)) < 1:
                ranked.append((evidence, cost / search.size, setting))
        best: Any = (None, None)
        tested, least, certified = 0, told.agent, False
        for _, cost, setting in sorted(ranked, key=lambda row: (row[0], round(row[1], 9))):
            if cost >= least - 1e-9:
                continue
            least, tested = cost, tested + 1
            _, accepted, bad = by_definition(told, setting, test)
            if p_value(bad, accepted, target) > delta:
                failures += 1
                break
            best, certified = setting, True
        found = choose_thresholds(told, target=target, delta=delta, size=4, held_out=share, seed=3)
        cost, accepted, bad = by_definition(told, best, test)
        assert (found.setting, found.certified, found.tested) == (best, certified, tested)
        assert (found.accepted, found.bad, found.n) == (accepted, bad, test.size)
        assert found.cost == pytest.approx(cost / test.size)
        assert (found.target, found.delta) == (target, delta)
        certificates += certified
    assert certificates > 5 and failures > 1


def test_no_image_is_on_both_sides_and_one_row_of_each_certifies() -> None:
    keys = [at // 3 for at in range(60)]
    certify = held(60, image_key=keys)
    assert certify.sum() == 10 and len({keys[at] for at in np.flatnonzero(certify)}) == 10
    told = RecordedDrafts(np.full((60, 1), 9.0), np.zeros((60, 1), bool), (1.0,), 9.0, keys)
    assert choose_thresholds(told, target=0.5, seed=3).n == 10
    part = told.part(np.array([5, 0, 59]))
    assert part.image_key == [1, 0, 19] and len(part.scores) == 3


@pytest.mark.parametrize(("n", "share"), [(1, 0.5), (4, 0.1), (4, 0.9), (40, 0.0), (40, 1.0)])
def test_neither_part_is_empty(n: int, share: float) -> None:
    told = RecordedDrafts(np.full((n, 1), 9.0), np.zeros((n, 1), bool), (1.0,), 9.0)
    with pytest.raises((InputError, ConfigError)):
        choose_thresholds(told, held_out=share)
    if n == 4:
        assert choose_thresholds(told, held_out=0.25).n == 1
        assert choose_thresholds(told, held_out=0.75).n == 3


def test_a_setting_that_saves_nothing_or_is_sure_to_fail_is_never_tested() -> None:
    n = 200
    same = RecordedDrafts(np.full((n, 1), 9.0), np.zeros((n, 1), bool), (9.0,), 9.0)
    assert choose_thresholds(same).tested == 0, "a draft costs what the agent does"
    less = RecordedDrafts(np.full((n, 1), 9.0), np.zeros((n, 1), bool), (8.99,), 9.0)
    assert choose_thresholds(less).certified
    bad = RecordedDrafts(np.full((n, 1), 9.0), np.ones((n, 1), bool), (1.0,), 9.0)
    found = choose_thresholds(bad)
    assert (found.tested, found.certified, found.setting) == (0, False, (None,))
    assert (found.cost, found.accepted, found.bad) == (9.0, 0, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"scores": [1.0, 2.0]},
        {"scores": np.zeros((0, 1))},
        {"bad": np.zeros((2, 2), bool)},
        {"costs": (1.0, 2.0)},
        {"costs": (-0.1,)},
        {"costs": (math.inf,)},
        {"costs": (math.nan,)},
        {"agent": -1.0},
        {"agent": math.inf},
        {"scores": [[math.inf], [1.0]]},
        {"bad": [[0.5], [0]]},
        {"bad": [[2], [0]]},
    ],
    ids=repr,
)
def test_what_cannot_be_recorded(change: dict[str, Any]) -> None:
    good: dict[str, Any] = {"scores": [[None], [1.0]], "bad": [[1], [0]], "costs": (0,), "agent": 0}
    made = RecordedDrafts(**good)
    assert made.bad.dtype == bool and made.costs == (0.0,) and np.isnan(made.scores[0, 0])
    with pytest.raises(InputError):
        RecordedDrafts(**(good | change))


def test_an_outcome_without_answers_by_draft_has_no_risk() -> None:
    assert Outcome((None,), 1.0, 0, 0).risk == 0.0
    assert Outcome((1.0,), 1.0, 4, 1).risk == 0.25


def test_sixteen_thresholds_a_drafter_are_tried_by_default() -> None:
    """Of 17 scores the one in the middle is left out, which alone is right down to it."""
    scores = np.arange(17.0)[:, None]
    told = RecordedDrafts(scores, scores == 7, (1.0,), 90.0)
    assert cheapest(told, 0.05).accepted == cheapest(told, 0.05, size=16).accepted == 8
    assert cheapest(told, 0.05, size=17).accepted == 9
    many = RecordedDrafts(
        np.repeat(scores, 60, axis=0), np.repeat(scores == 7, 60, axis=0), (1.0,), 90.0
    )
    found = {size: choose_thresholds(many, size=size, seed=0).setting for size in (16, 17)}
    assert found == {16: (9.0,), 17: (8.0,)} and choose_thresholds(many).setting == (9.0,)


def test_a_test_that_is_just_passed_certifies() -> None:
    told = RecordedDrafts(np.full((60, 1), 9.0), np.zeros((60, 1), bool), (1.0,), 9.0)
    just = p_value(0, 30, 0.1)
    assert choose_thresholds(told, target=0.1, delta=just).certified
    assert not choose_thresholds(told, target=0.1, delta=just * 0.999).certified
    for share in (-0.1, 1.5, 1.01):
        with pytest.raises(ConfigError, match="held_out"):
            choose_thresholds(told, held_out=share)
