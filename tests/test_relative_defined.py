"""Promises relative to the agent, under drift too, each beside its definition."""

from __future__ import annotations

import math
from math import comb
from typing import Any

import numpy as np
import pytest

from speceyes.calibration import (
    Calibration,
    Gold,
    Scoring,
    calibrate_relative,
    calibrate_shifted,
)
from speceyes.calibration.binomial import binomial_cdf, binomial_cdfs
from speceyes.calibration.matched import matched_p_value
from speceyes.calibration.relative import queries_needed
from speceyes.errors import InputError
from speceyes.scoring.scales import to_unit

MADE = Scoring("small", "ab12")
STAKES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def at_most(bad: int, n: int, p: float) -> float:
    """P(Bin(n, p) <= bad)."""
    return min(1.0, sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(bad + 1)))


def definition(found: Gold, total: int, target: float) -> float:
    """The largest over shares p of both p-values combined as Fisher did."""
    largest = 0.0
    for p in np.geomspace(target, 1.0, 600).tolist():
        mean = min(target / p, 1 - 1e-9)  # a sure loss is refuted by one that isn't
        if found.better is None:
            gold = at_most(found.worse, found.labelled, mean)
        else:
            even = found.labelled - found.worse - found.better
            capital = 0.0
            for stake in STAKES:
                bet = stake / (1 - mean)
                capital += (
                    (1 - bet * (1 - mean)) ** found.worse
                    * (1 + bet * (1 + mean)) ** found.better
                    * (1 + bet * mean) ** even
                )
            gold = min(1.0, len(STAKES) / capital)
        both = at_most(found.differing, total, p) * gold
        if both > 0:
            largest = max(largest, both * (1 - math.log(both)))
    return largest


@pytest.mark.parametrize("target", [0.05, 0.2])
@pytest.mark.parametrize("credit", [False, True])
def test_p_value_is_the_largest_over_all_shares_but_for_the_cells_width(
    target: float, credit: bool
) -> None:
    for counts in ((0, 0, 0, 0), (9, 4, 1, 2), (9, 9, 2, 3), (14, 6, 0, 6), (30, 20, 12, 1)):
        differing, labelled, worse, better = counts
        found = Gold(differing, labelled, worse, better if credit else None)
        told, exact = matched_p_value(found, 90, target), definition(found, 90, target)
        assert exact * (1 - 1e-3) <= told <= min(1.0, 1.25 * exact), counts
    assert 0 <= matched_p_value(Gold(1, 1, 0, 0 if credit else None), 50, 1 - 1e-12) <= 1


@pytest.mark.parametrize("k", [-1, 0, 1022, 1023, 1024, 2047, 2048, 2999, 3000])
def test_tails_of_many_chances_are_those_of_each_however_many_terms_there_are(k: int) -> None:
    chances = np.array([0.2, 0.34, 0.5, 0.9])
    alone = [binomial_cdf(k, 3000, p) for p in chances.tolist()]
    assert binomial_cdfs(k, 3000, chances) == pytest.approx(alone, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize(
    ("gold", "message"),
    [
        (Gold(5, 3, 2, 1), None),
        (Gold(5, 5, 5), None),
        (Gold(6, 3, 2), "among 5"),
        (Gold(2, 3, 2), "among 5"),
        (Gold(5, 3, 2, 2), "among 5"),
        (Gold(5, 3, 4), "among 5"),
        (Gold(True, 0, 0), "whole numbers"),
        (Gold(5, 3.0, 0), "whole numbers"),  # type: ignore[arg-type]
        (Gold(5, 3, -1), "whole numbers"),
        (Gold(5, 3, 1, -1), "whole numbers"),
    ],
)
def test_counts_of_gold_that_cannot_be_are_told(gold: Gold, message: str | None) -> None:
    said = gold.fault(5)
    assert said is None if message is None else message in str(said)
    assert gold.none() == Gold(0, 0, 0, None if gold.better is None else 0)


def few(seed: int, n: int = 120) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    scores = np.round(random.gamma(4, 2, n), 1)
    scores[random.random(n) < 0.05] = np.nan
    differs = random.random(n) < 0.4 * np.exp(-0.25 * np.nan_to_num(scores))
    differs[0] = True
    gold = differs & (random.random(n) < 0.7)
    gold[0] = True
    kind = random.random(n)
    worse = np.where(gold, kind < 0.4, np.nan)
    return {
        "scores": scores,
        "differs": differs,
        "worse": worse,
        "better": np.where(gold, (kind >= 0.4) & (kind < 0.7), np.nan),
    }


@pytest.mark.parametrize("credit", [False, True])
@pytest.mark.parametrize("given", [None, [0.5, 0.9, 0.97, 0.999]])
def test_the_loosest_threshold_before_the_first_that_fails(credit: bool, given: Any) -> None:
    """Over all thresholds from the strictest on, each with its counts."""
    certified = 0
    for seed in range(3):
        data = few(seed)
        target, delta = 0.2, 0.3
        found = calibrate_relative(
            data["scores"],
            data["differs"],
            data["worse"],
            MADE,
            better=data["better"] if credit else None,
            target=target,
            delta=delta,
            thresholds=given,
        )
        unit = np.array([to_unit(s, log=False) if s == s else -1.0 for s in data["scores"]])
        levels = sorted({u for u in unit if u >= 0} if given is None else set(given), reverse=True)
        best: tuple[Any, int, int] = (None, 0, 0)
        for level in levels:
            taken = unit >= level
            apart = taken & data["differs"]
            known = apart & ~np.isnan(data["worse"])
            gold = Gold(
                int(apart.sum()),
                int(known.sum()),
                int((known & (data["worse"] == 1)).sum()),
                int((known & (data["better"] == 1)).sum()) if credit else None,
            )
            if matched_p_value(gold, 120, target) > delta:
                break
            best = gold, int(taken.sum()), gold.worse
        assert (found.accepted, found.bad) == best[1:]
        if best[1]:
            certified += 1
            assert found.gold == best[0]
            assert int((unit >= found.threshold).sum()) == found.accepted  # type: ignore[operator]
        else:
            assert found.threshold is None and found.gold == Gold(0, 0, 0, 0 if credit else None)
        assert (found.n, found.rows) == (120, None)
    assert certified > 1


def test_evidence_that_just_suffices_certifies() -> None:
    just = matched_p_value(Gold(0, 0, 0), 200, 0.05)
    for delta, certified in ((just, True), (just * 0.999, False)):
        found = calibrate_relative([9.0] * 200, [0] * 200, [None] * 200, MADE, delta=delta)
        assert found.certified is certified
        assert Calibration.from_json(found.to_json()) == found


def needed(rows: int, differing: int, gold: tuple[int, ...], delta: float = 0.1) -> Calibration:
    worse, better = (*gold, 0)[:2]
    labelled = worse + better + 1
    lost = [1.0] * worse + [0.0] * (labelled - worse)
    won = [0.0] * worse + [1.0] * better + [0.0] * (labelled - worse - better)
    rest = [math.nan] * (rows - labelled)
    return calibrate_relative(
        [9.0] * rows,
        [1] * differing + [0] * (rows - differing),
        [*lost, *rest],
        MADE,
        better=[*won, *rest] if len(gold) > 1 else None,
        delta=delta,
    )


@pytest.mark.parametrize("gold", [(0,), (1, 1), (1, 3), (2, 2)])
def test_as_many_more_queries_as_told_would_do_and_not_many_fewer(gold: tuple[int, ...]) -> None:
    """All shares as they are: of as many times the queries the first multiple that passes."""
    found = needed(40, 6, gold)
    assert not found.certified and found.labels_needed is not None

    def passes(times: int) -> bool:
        credit = gold[1] * times if len(gold) > 1 else None
        many = Gold(6 * times, (sum(gold) + 1) * times, gold[0] * times, credit)
        return matched_p_value(many, 40 * times, 0.05) <= 0.1

    times = next(times for times in range(1, 5000) if passes(times))
    total = 40 + found.labels_needed
    assert 40 * (times - 1) / 1.06 <= total <= 40 * (times + 1) * 1.06


def test_none_is_told_where_no_number_of_queries_would_do_and_that_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    def counted(found: Gold, total: int, target: float) -> float:
        tried.append(total)
        return matched_p_value(found, total, target)

    monkeypatch.setattr("speceyes.calibration.relative.matched_p_value", counted)
    hopeless = needed(40, 3, (2,))
    assert not hopeless.certified and hopeless.labels_needed is None
    assert needed(400, 3, (0,)).labels_needed is None, "what is certified needs no more"
    tried.clear()
    many = needed(40, 3, (1,)).labels_needed  # 3.75 % where 5 % are promised
    assert many is not None and many > 40
    assert len(tried) < 25, "each of hundreds of thousands of queries takes a second"


@pytest.mark.parametrize("rows", [10, 77, 190_000, 200_000])
@pytest.mark.parametrize("least", [1, 2, 25, 150_000, 195_000, 200_000, 200_001])
def test_numbers_are_told_that_would_do_in_steps_of_a_twentieth(
    rows: int, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where so many do, and no fewer, up to 200,000."""
    monkeypatch.setattr(
        "speceyes.calibration.relative.matched_p_value",
        lambda found, total, target: 0.0 if total >= max(least, rows + 1) else 1.0,
    )
    found = queries_needed(Gold(0, 0, 0), rows, 0.05, 0.1)
    sizes = [rows]
    while sizes[-1] < 200_000:
        sizes.append(min(200_000, sizes[-1] + max(1, sizes[-1] // 20)))
    would = [size - rows for size in sizes if size >= max(least, rows + 1)]
    assert found == (would[0] if would else None)


def test_gold_of_what_agrees_is_looked_at_only_where_it_contradicts() -> None:
    data = few(1)
    plain = calibrate_relative(data["scores"], data["differs"], data["worse"], MADE, target=0.2)
    told = np.where(data["differs"], data["worse"], 0.0)
    also = calibrate_relative(
        data["scores"], data["differs"], told, MADE, target=0.2, created=plain.created
    )
    assert also == plain
    at = int(np.flatnonzero(~data["differs"])[0])
    told[at] = 1.0
    with pytest.raises(InputError, match=rf"query {at} \(and 0 others\)"):
        calibrate_relative(data["scores"], data["differs"], told, MADE)
    won = np.where(np.isnan(told), np.nan, 0.0)
    won[at], told[at] = 1.0, 0.0
    with pytest.raises(InputError, match=rf"query {at} \(and 0 others\)"):
        calibrate_relative(data["scores"], data["differs"], told, MADE, better=won)


# --- drift --------------------------------------------------------------------------------------


def test_matched_scores_are_those_of_the_new_queries() -> None:
    """As many in each part of the scale, and each label goes with its own draft's score."""
    random = np.random.default_rng(5)
    old, new = random.gamma(4, 2, 3000), random.gamma(3, 2, 1200)
    found = calibrate_shifted(old, old < 6.0, new, MADE, target=0.1)
    assert found.certified and found.drawn_like == 1200
    assert found.n == 900, "all but the quarter that plans"
    assert found.threshold is not None and found.threshold <= to_unit(6.0, log=False)
    for count, least in ((found.accepted, found.raw_threshold), (found.accepted - found.bad, 6.0)):
        share = float((new >= least).mean())  # type: ignore[operator]
        assert count / found.n == pytest.approx(share, abs=0.03)


def test_fewer_new_queries_are_matched_where_labels_would_lack_for_all() -> None:
    """Each labelled draft is taken once."""
    random = np.random.default_rng(6)
    old, new = random.gamma(4, 2, 600), random.gamma(4, 2, 4000)
    found = calibrate_shifted(old, np.zeros(600), new, MADE, target=0.1)
    assert found.certified and 200 < found.n <= 600
    again = calibrate_shifted(old, np.zeros(600), new, MADE, target=0.1, created=found.created)
    assert again == found, "the same lots"


def test_new_scores_must_be_many() -> None:
    for n in (0, 1):
        with pytest.raises(InputError):
            calibrate_shifted([9.0] * 60, [0] * 60, [9.0] * n, MADE)
    assert calibrate_shifted([9.0] * 60, [0] * 60, [9.0] * 2, MADE).n == 2
