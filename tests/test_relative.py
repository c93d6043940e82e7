"""Promises with few gold answers, under drift, and on cost: what holds, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import logging
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speceyes.bench.promises import beyond
from speceyes.calibration import (
    Calibration,
    GateMonitor,
    Gold,
    Scoring,
    calibrate,
    calibrate_groups,
    calibrate_relative,
    calibrate_shifted,
    price,
)
from speceyes.calibration.matched import matched_p_value
from speceyes.errors import CalibrationError, ConfigError, InputError
from speceyes.gate import SeparabilityGate
from speceyes.notebook import calibration_html

MADE = Scoring("small", "ab12")


@pytest.mark.parametrize(
    "experiment",
    [
        lambda: beyond.relative(False, 40, 900),
        lambda: beyond.relative(True, 40, 900),
        lambda: beyond.drifted(40),
        lambda: beyond.beyond_labels(3),
        lambda: beyond.paid(60, 300),
    ],
)
def test_what_was_promised_beyond_labels_is_kept(experiment: Any) -> None:
    found = experiment()
    assert found.kept, found


# --- relative to the agent ------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.3, 0.55, 0.9])
@pytest.mark.parametrize("credit", [False, True])
def test_p_value_holds_whatever_the_share_of_disagreement(p: float, credit: bool) -> None:
    """Over every possible sample of 12 queries, gold of 5 of those that differ, at the target."""
    target, n, most = 0.3, 12, 5
    h = target / p  # the mean loss of one that differs, so that p h is the target
    # With credit: worse with (1 + h) / 2, better with the rest, so that the mean is h.
    worse = h if not credit else (1 + h) / 2
    below = {0.05: 0.0, 0.1: 0.0, 0.3: 0.0}
    for k in range(n + 1):
        chance = comb(n, k) * p**k * (1 - p) ** (n - k)
        m = min(k, most)
        for w in range(m + 1):
            both = chance * comb(m, w) * worse**w * (1 - worse) ** (m - w)
            found = matched_p_value(Gold(k, m, w, m - w if credit else None), n, target)
            for level in below:
                below[level] += both * (found <= level)
    for level, share in below.items():
        assert share <= level + 1e-9, (level, share)


def test_p_value_falls_with_more_gold_that_is_good_and_rises_with_what_is_worse() -> None:
    few, more = Gold(90, 10, 1), Gold(90, 60, 6)
    assert matched_p_value(more, 1000, 0.05) < matched_p_value(few, 1000, 0.05)
    assert matched_p_value(Gold(90, 60, 30), 1000, 0.05) > matched_p_value(more, 1000, 0.05)
    assert matched_p_value(Gold(90, 60, 60), 1000, 0.05) > 0.5
    credited = Gold(90, 60, 20, 20)
    assert matched_p_value(credited, 1000, 0.05) < matched_p_value(Gold(90, 60, 20, 0), 1000, 0.05)
    assert matched_p_value(Gold(0, 0, 0), 10, 0.05) > 0.1  # nothing is known of ten queries
    assert matched_p_value(Gold(0, 0, 0), 1, 0.999999) <= 1.0


def some(n: int = 1500, share: float = 0.4, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    scores = random.gamma(4, 2, n)
    differs = random.random(n) < 0.5 * np.exp(-0.2 * scores)
    gold = differs & (random.random(n) < share)
    kind = random.random(n)
    return {
        "scores": scores,
        "differs": differs,
        "worse": np.where(gold, kind < 0.4, np.nan),
        "better": np.where(gold, (kind >= 0.4) & (kind < 0.6), np.nan),
    }


def relative(data: dict[str, Any], **options: Any) -> Calibration:
    return calibrate_relative(data["scores"], data["differs"], data["worse"], MADE, **options)


def test_calibration_is_a_file_like_any_other(tmp_path: Path) -> None:
    data = some()
    plain, net = relative(data), relative(data, better=data["better"])
    assert plain.accepted > 1000 and net.accepted > 1000
    assert plain.labels == "worse_than_agent" and net.labels == "net_of_agent"
    assert "wrong where the agent is right" in plain.statement
    assert "less often than the agent's in at most 5%" in net.statement
    for number, made in enumerate((plain, net)):
        path = tmp_path / f"{number}.json"
        made.save(path)
        assert Calibration.load(path) == made
        gate = SeparabilityGate.from_calibration(path)
        raw = np.nan_to_num(data["scores"])
        assert int((raw >= gate.raw_threshold).sum()) == made.accepted
        assert "Calibration" in calibration_html(made)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"differing": 400}, "can't certify"),
        ({"labelled": 0, "worse": 0}, "bad="),
        ({"worse": 99}, "bad is 99"),
        ({"labelled": -1}, "whole numbers"),
        ({"labelled": 10.5}, "whole numbers"),
        ({"differing": 10**6}, "among"),
        ({"extra": 1}, "extra"),
    ],
)
def test_file_edited_by_hand_is_refused(change: dict[str, Any], message: str) -> None:
    data = json.loads(relative(some()).to_json())
    data["gold"] |= change
    with pytest.raises(CalibrationError, match=message):
        Calibration.from_json(json.dumps(data))
    with pytest.raises(CalibrationError, match="don't go together"):
        Calibration.from_json(json.dumps(data | {"gold": None}))


def test_gold_goes_with_its_method_only() -> None:
    plain = calibrate([9.0] * 60, [0] * 60, MADE)
    with pytest.raises(CalibrationError, match="don't go together"):
        dataclasses.replace(plain, gold=Gold(0, 0, 0))
    with pytest.raises(CalibrationError, match="net_of_agent"):
        dataclasses.replace(plain, labels="net_of_agent")
    with pytest.raises(CalibrationError, match="drawn_like"):
        dataclasses.replace(plain, drawn_like=59)


def test_what_contradicts_itself_or_has_no_gold_is_refused() -> None:
    data = some(300)
    bare = np.full(300, np.nan)
    with pytest.raises(InputError, match="by lot"):
        relative(data | {"worse": bare})
    with pytest.raises(InputError, match="agrees with the agent"):
        relative(data | {"differs": np.zeros(300, bool)})
    with pytest.raises(InputError, match="same queries"):
        relative(data, better=bare)
    with pytest.raises(InputError, match="at once"):
        relative(data, better=np.where(np.isnan(data["worse"]), np.nan, 1.0))
    with pytest.raises(InputError, match="0, 1"):
        relative(data | {"worse": np.full(300, 2.0)})
    with pytest.raises(InputError, match="shape"):
        relative(data | {"worse": [0.0]})
    with pytest.raises(InputError, match="0, 1"):
        relative(data | {"worse": ["yes"] * 300})


def test_drafts_that_always_agree_need_no_gold() -> None:
    found = calibrate_relative([9.0] * 200, [0] * 200, [None] * 200, MADE)
    assert found.accepted == 200 and found.gold == Gold(0, 0, 0)
    few = calibrate_relative([9.0] * 20, [0] * 20, [None] * 20, MADE)
    assert not few.certified and few.labels_needed is not None and 30 < few.labels_needed < 120
    more = 20 + few.labels_needed
    assert calibrate_relative([9.0] * more, [0] * more, [None] * more, MADE).certified
    none = calibrate_relative([None] * 20, [0] * 20, [None] * 20, MADE)
    assert not none.certified and none.labels_needed is None


def test_what_the_judge_keeps_back_is_no_loss() -> None:
    data = some()
    through = np.arange(1500) % 2 == 0
    whole, half = relative(data), relative(data, let_through=through)
    assert half.n == 1500 and half.accepted <= 750 and half.raw_threshold <= whole.raw_threshold  # type: ignore[operator]


def test_rows_of_one_image_count_once() -> None:
    data = some(400)
    twice = {name: np.tile(values, 3) for name, values in data.items()}
    keys = [str(i) for i in range(400)] * 3
    found = relative(twice, image_key=keys)
    assert (found.n, found.rows) == (400, 1200)
    assert found.threshold == relative(data).threshold


def test_monitor_of_few_gold_answers_looks_at_what_differs(caplog: Any) -> None:
    made = relative(some())
    assert made.gold is not None
    with caplog.at_level(logging.WARNING):
        watch = GateMonitor.from_calibration(made, seed=0)
    expected = max(0.05, 1.5 * made.gold.differing / made.n)
    assert watch.target == pytest.approx(expected) and "audits tell how many" in caplog.text
    assert GateMonitor.from_calibration(made, tolerance=0.0, seed=0).target == 0.05
    assert GateMonitor.from_calibration(made, audits="worse_than_agent", seed=0).target == 0.05


# --- categories -----------------------------------------------------------------------------------


def test_category_without_labels_goes_to_the_agent_however_it_is_asked_for() -> None:
    found = calibrate_groups([9.0] * 60, [0] * 60, MADE, ["a"] * 60)
    for new in (found["b"], found.get("b"), found.get("b", found["a"])):
        assert not new.certified and "its queries go to the agent" in new.statement
        assert SeparabilityGate.from_calibration(new).threshold == 1
        assert Calibration.from_json(new.to_json()) == new
        assert "none certified" in calibration_html(new)
    assert found.get("a").certified


# --- drift ----------------------------------------------------------------------------------------


def test_drift_is_matched_to_the_new_scores_and_said() -> None:
    random = np.random.default_rng(1)
    old, new = random.gamma(4, 2, 2000), random.gamma(3, 2, 1500)
    bad = random.random(2000) < 0.3 * np.exp(-0.3 * old)
    found = calibrate_shifted(old, bad, new, MADE)
    assert found.certified and found.drawn_like == 1500 and found.n < 1500
    assert "whose scores are drawn as those of 1500 new ones" in found.statement
    assert Calibration.from_json(found.to_json()) == found
    share = found.accepted / found.n
    assert share == pytest.approx(float((new >= found.raw_threshold).mean()), abs=0.05)  # type: ignore[operator]


def test_queries_of_a_drift_that_never_reach_the_gate_need_no_label() -> None:
    random = np.random.default_rng(2)
    old = random.gamma(4, 2, 800)
    bad = np.zeros(800)
    new = np.concatenate([random.gamma(4, 2, 400), np.full(600, np.nan)])
    found = calibrate_shifted(old, bad, new, MADE, risk="overall")
    assert found.accepted == pytest.approx(0.4 * found.n, rel=0.15)
    kept = np.r_[np.ones(400, bool), np.zeros(600, bool)]
    new[400:] = 1e6  # the judge keeps them back, so that their scores don't matter
    again = calibrate_shifted(old, bad, new, MADE, risk="overall", new_let_through=kept)
    assert again.accepted == found.accepted


def test_drift_beyond_the_labels_is_said_where() -> None:
    random = np.random.default_rng(3)
    old = random.gamma(4, 2, 800)
    new = np.concatenate([random.gamma(4, 2, 700), random.normal(60, 0.5, 300)])
    with pytest.raises(CalibrationError, match=r"around (59|60|61).*0 of 800 labelled"):
        calibrate_shifted(old, np.zeros(800), new, MADE)
    with pytest.raises(InputError, match="new scores"):
        calibrate_shifted(old, np.zeros(800), [3.0], MADE)


def test_new_query_without_a_labelled_draft_counts_as_bad() -> None:
    old = np.repeat([3.0, 9.0], 900)
    new = np.concatenate([np.full(985, 9.0), np.full(15, 30.0)])  # where nothing is known
    found = calibrate_shifted(old, np.zeros(1800), new, MADE, target=0.1, risk="overall")
    known = calibrate_shifted(old, np.zeros(1800), new[:985], MADE, target=0.1, risk="overall")
    assert (known.n, known.bad) == (739, 0)
    assert found.n == 750 and 5 <= found.bad <= 15


def test_images_of_old_and_new_queries_count_once() -> None:
    random = np.random.default_rng(4)
    old, new = random.gamma(4, 2, 600), random.gamma(4, 2, 600)
    keys = [str(i // 3) for i in range(600)]
    found = calibrate_shifted(
        old, np.zeros(600), new, MADE, image_key=keys, new_image_key=keys, target=0.1
    )
    assert found.n <= 150


# --- cost -----------------------------------------------------------------------------------------


def test_cost_and_risk_together_are_paid_for() -> None:
    random = np.random.default_rng(0)
    scores = random.gamma(4, 2, 600)
    bad = random.random(600) < 0.3 * np.exp(-0.3 * scores)
    agent = random.gamma(4, 0.25, 600).clip(0, 4)
    found = calibrate(scores, bad, MADE, delta=0.05)
    cheap = price(found, scores, np.full(600, 0.1), agent, most=4.0)
    assert cheap.certified and "confidence 90%" in cheap.statement
    share = (0.1 * 600 + agent[scores < found.raw_threshold].sum()) / agent.sum()
    assert cheap.measured == pytest.approx(share)
    dear = price(found, scores, np.full(600, 0.9), agent, most=4.0)
    assert dear.calibration.certified and not dear.certified and "let the agent" in dear.statement
    # Nothing is certified that was measured above what is promised.
    strict = price(found, scores, np.full(600, 0.1), agent, most=4.0, share=share * 0.99)
    assert not strict.worth_it
    mean = calibrate(scores, bad, MADE, risk="overall", delta=None)
    assert (
        "With confidence 95%, it costs"
        in price(mean, scores, np.zeros(600), agent, most=4.0).statement
    )
    none = calibrate(scores, np.ones(600), MADE)
    priced = price(none, scores, np.zeros(600), agent, most=4.0)
    assert not priced.certified and priced.measured is None and priced.statement == none.statement


def test_cost_is_of_what_gets_to_the_gate_and_of_one_row_an_image() -> None:
    scores, agent = np.full(300, 9.0), np.ones(300)
    found = calibrate(scores, np.zeros(300), MADE)
    through = np.arange(300) < 150
    priced = price(found, scores, np.full(300, 0.1), agent, most=2.0, let_through=through)
    assert priced.measured == pytest.approx(0.6)
    keys = [i // 30 for i in range(300)]
    assert not price(found, scores, np.full(300, 0.5), agent, most=2.0, image_key=keys).worth_it
    assert price(found, scores, np.full(300, 0.5), agent, most=2.0).worth_it


def test_costs_that_cannot_be_are_refused() -> None:
    found = calibrate([9.0] * 60, [0] * 60, MADE)
    ones = np.ones(60)
    for spent, agent in ((-ones, ones), (ones, 3 * ones), (ones, ones * np.nan)):
        with pytest.raises(InputError, match="a cost"):
            price(found, [9.0] * 60, spent, agent, most=2.0)
    with pytest.raises(InputError, match="one length"):
        price(found, [9.0] * 60, ones[:3], ones, most=2.0)
    with pytest.raises(ConfigError, match="most"):
        price(found, [9.0] * 60, ones, ones, most=-1)
    free = price(found, [9.0] * 60, 0 * ones, 0 * ones, most=2.0)
    assert not free.worth_it


def test_p_values_of_a_cost_hold_where_the_saving_is_nothing() -> None:
    """Over all samples of 14 queries that save or lose one unit with the same chance."""
    from speceyes.calibration.priced import cost_p_value

    below, n = Fraction(0), 14
    for k in range(n + 1):
        accepted = np.arange(n) < k
        own, alone = np.full(n, 1.0), np.where(accepted, 2.0, 0.0)
        if cost_p_value(accepted, own, alone, 1.0, 2.0) <= 0.1:
            below += Fraction(comb(n, k), 2**n)
    assert below <= Fraction(1, 10)


# --- files edited by hand, judges swapped ---------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"judge": 7},
        {"group": ["a"]},
        {"score_counts": [[879, 700], [880, -100]]},
        {"score_counts": [[99999, 600]]},
        {"score_counts": [[700, 600]]},
        {"start": 10**9},
        {"start": 1},
        {"curve": []},
        {"curve": [["a", 1, 0, 0.1]]},
        {"threshold": 0.1, "raw_threshold": -3.6620409622270322, "curve": []},
        {"labels_needed": 5},
    ],
)
def test_calibration_that_was_edited_is_refused(change: dict[str, Any]) -> None:
    random = np.random.default_rng(0)
    scores = random.gamma(4, 2, 600)
    made = calibrate(scores, random.random(600) < 0.3 * np.exp(-0.3 * scores), MADE)
    data = json.loads(made.to_json())
    assert Calibration.from_json(json.dumps(data)) == made
    with pytest.raises(CalibrationError):
        Calibration.from_json(json.dumps(data | change))


def test_arming_anew_under_another_judge_is_refused() -> None:
    made = calibrate([9.0] * 200, [0] * 200, MADE, judge="large@0.5")
    monitor = GateMonitor.from_calibration(made, seed=0)
    with pytest.raises(CalibrationError, match="not 'none'"):
        monitor.rearm(dataclasses.replace(made, judge="none"))
    assert monitor.arming.number == 1
    monitor.rearm(made)
    assert monitor.arming.number == 2
