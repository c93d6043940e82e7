"""The guarantee: its statistics against exact references, its promises against random splits."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import math
import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes import prompts
from speceyes.answerer import SpeculativeAnswerer
from speceyes.bench.guarantees import KINDS, main, pool, split, surprising
from speceyes.calibration import Calibration, CurvePoint, Scoring, calibrate, calibrate_groups
from speceyes.calibration import risk as choose
from speceyes.calibration.binomial import allowed_errors, binomial_cdf, p_value
from speceyes.errors import CalibrationError, ConfigError, InputError
from speceyes.gate import SeparabilityGate
from speceyes.models.scripted import ScriptedModel
from speceyes.scoring.scales import to_unit
from speceyes.scoring.scores import AGGREGATES, raw_scores
from speceyes.types import Completion

MADE = Scoring("small", "ab12", top_k=8)
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def exact_cdf(k: int, n: int, p: Fraction) -> Fraction:
    """P(Bin(n, p) <= k) in whole numbers, p being a / b."""
    a, b = p.numerator, p.denominator
    return Fraction(sum(math.comb(n, i) * a**i * (b - a) ** (n - i) for i in range(k + 1)), b**n)


# --- binomial tails ---------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 99), st.data())
def test_binomial_tail_against_fractions(n: int, percent: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(-1, n))
    exact = exact_cdf(k, n, Fraction(percent, 100))
    assert binomial_cdf(k, n, percent / 100) == pytest.approx(float(exact), rel=1e-11)


@pytest.mark.parametrize(
    ("k", "n", "p", "tail"),
    [
        (0, 22, 0.1, 0.9**22),
        (5, 10, 0.5, 638 / 1024),
        (1, 3, 0.5, 0.5),
        (0, 100_000, 1e-5, (1 - 1e-5) ** 100_000),
        # By the normal approximation with its continuity correction, good to 1e-4 here.
        (5000, 100_000, 0.05, 0.5 * (1 + math.erf(0.5 / math.sqrt(2 * 4750)))),
    ],
)
def test_binomial_tail_known_values(k: int, n: int, p: float, tail: float) -> None:
    assert binomial_cdf(k, n, p) == pytest.approx(tail, rel=1e-9 if n < 1000 else 3e-3)


@pytest.mark.parametrize("target", [0.01, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("delta", [0.05, 0.1])
@pytest.mark.parametrize("test", ["binomial", "hoeffding-bentkus"])
def test_allowed_errors_are_those_whose_p_value_is_small(target, delta, test) -> None:
    allowed = allowed_errors(600, target, delta, test)
    assert (np.diff(allowed) >= 0).all() and allowed[0] == -1 and len(allowed) == 601
    for m in range(1, 601, 7):
        most = int(allowed[m])
        assert most < 0 or p_value(most, m, target, test) <= delta
        assert p_value(most + 1, m, target, test) > delta


def test_allowed_errors_against_exact_arithmetic() -> None:
    target, delta = Fraction(1, 20), Fraction(1, 10)
    allowed = allowed_errors(150, 0.05, 0.1)
    for m in range(1, 151):
        passing = [k for k in range(min(12, m) + 1) if exact_cdf(k, m, target) <= delta]
        assert allowed[m] == len(passing) - 1


@pytest.mark.parametrize(
    ("target", "delta", "first"), [(0.1, 0.1, 22), (0.05, 0.1, 45), (0.01, 0.1, 230)]
)
def test_without_an_error_so_many_are_needed(target: float, delta: float, first: int) -> None:
    # ln(delta) / ln(1 - target), rounded up
    assert first == math.ceil(math.log(delta) / math.log(1 - target))
    assert np.searchsorted(allowed_errors(1000, target, delta), 0) == first


@given(st.integers(1, 200), st.integers(1, 50), st.data())
def test_hoeffding_bentkus_by_its_formula_and_never_below_the_exact(
    m: int, percent: int, data: st.DataObject
) -> None:
    target = percent / 100
    errors = data.draw(st.integers(0, m))
    rate = errors / m
    chernoff = 1.0
    if rate < target:
        odds = (target / rate) ** errors if errors else 1.0
        rest = ((1 - target) / (1 - rate)) ** (m - errors)
        chernoff = odds * rest
    expected = min(1, chernoff, math.e * float(exact_cdf(errors, m, Fraction(percent, 100))))
    got = p_value(errors, m, target, "hoeffding-bentkus")
    assert got == pytest.approx(expected, rel=1e-9)
    assert got >= p_value(errors, m, target) * (1 - 1e-12)


# --- choices against brute force --------------------------------------------------------------

levels = st.sampled_from([0.1, 0.3, 0.5, 0.50000001, 0.8, math.nextafter(1.0, 0.0), math.nan])
drafts = st.lists(st.tuples(levels | st.floats(0, 0.99), st.booleans()), min_size=1, max_size=60)


def arrays(rows: list[tuple[float, bool]]) -> tuple[Floats, Bools]:
    scores = np.array([score for score, _ in rows])
    return scores, np.array([bad for _, bad in rows]) & ~np.isnan(scores)


def candidates(scores: Floats) -> list[float]:
    """Every threshold at which the decisions could change, the strictest first."""
    there = [s for s in set(scores.tolist()) if not math.isnan(s)]
    return sorted({0.0, *there, *(math.nextafter(s, 1.0) for s in there)} - {1.0}, reverse=True)


def counts(scores: Floats, bad: Bools, threshold: float) -> tuple[int, int]:
    accepted = [b for s, b in zip(scores.tolist(), bad.tolist(), strict=True) if s >= threshold]
    return len(accepted), sum(accepted)


@settings(max_examples=200)
@given(drafts, st.sampled_from([0.02, 0.05, 0.1, 0.2, 0.5]), st.sampled_from([None, 0.05, 0.3]))
def test_overall_takes_the_loosest_threshold_that_may_be(rows, target, delta) -> None:
    scores, bad = arrays(rows)
    n, alpha = len(scores), Fraction(str(target))

    def may(threshold: float) -> bool:
        wrong = counts(scores, bad, threshold)[1]
        if delta is None:
            return Fraction(n, n + 1) * Fraction(wrong, n) + Fraction(1, n + 1) <= alpha
        return exact_cdf(wrong, n, alpha) <= Fraction(str(delta))

    fine = [t for t in candidates(scores) if may(t)]
    rungs = choose.ladder(scores, bad)
    passed = choose.crc(rungs, target) if delta is None else choose.overall(rungs, target, delta)
    threshold = choose.loosest(rungs, passed)
    best = min(fine, default=None)
    if best is None or counts(scores, bad, best)[0] == 0:
        assert threshold is None
    else:
        assert threshold == best
        assert counts(scores, bad, threshold) == (rungs.accepted[passed - 1], rungs.bad[passed - 1])


@settings(max_examples=200)
@given(drafts, st.sampled_from([0.1, 0.3, 0.5]), st.sampled_from([0.1, 0.3]), st.integers(1, 40))
def test_selective_walks_from_the_start_to_the_first_failure(rows, target, delta, start) -> None:
    """Draft by draft, as it is explained, with the lots that `random` draws given beforehand."""
    scores, bad = arrays(rows)
    rungs = choose.ladder(scores, bad)
    order = sorted(
        (i for i in range(len(scores)) if not math.isnan(scores[i])), key=lambda i: -scores[i]
    )
    position = min(start, len(order))
    wrong = sum(bool(bad[i]) for i in order[:position])  # the lots: as they lie in the list

    class Lots:
        def hypergeometric(self, bad_tied: int, good_tied: int, drawn: int) -> int:
            tied = [i for i in order if scores[i] == scores[order[position]]]
            assert (bad_tied, bad_tied + good_tied) == (sum(bad[tied]), len(tied))
            before = sum(scores[i] > scores[order[position]] for i in order)
            assert drawn == position - before
            return sum(bool(bad[i]) for i in order[before:position])

    best: float | None = None
    if order and p_value(wrong, position, target) <= delta:
        least = min(start + 1, len(order))
        reachable = [t for t in candidates(scores) if counts(scores, bad, t)[0] >= least]
        for threshold in reachable:
            m, errors = counts(scores, bad, threshold)
            if exact_cdf(errors, m, Fraction(str(target))) > Fraction(str(delta)):
                break
            best = threshold
    passed = choose.selective(rungs, target, delta, start=start, random=Lots())  # type: ignore[arg-type]
    assert choose.loosest(rungs, passed) == best


@given(drafts, st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.7, 0.8]), min_size=1))
def test_given_thresholds_are_tested_from_the_strictest_on(rows, thresholds) -> None:
    scores, bad = arrays(rows)
    rungs = choose.ladder(scores, bad, np.array(thresholds))
    best = None
    for threshold in sorted(set(thresholds), reverse=True):
        m, errors = counts(scores, bad, threshold)
        if m == 0 or exact_cdf(errors, m, Fraction(3, 10)) > Fraction(1, 5):
            break
        best = threshold
    assert choose.loosest(rungs, choose.selective(rungs, 0.3, 0.2), given=True) == best


def test_crc_counts_in_decimals() -> None:
    # 0.07 x 100 is 7.000000000000001 in floats, and 0.29 x 100 is 28.999999999999996.
    for target, allowed in ((0.07, 6), (0.29, 28), (0.01, 0), (0.009, -1)):
        scores = np.linspace(0.9, 0.1, 99)
        rungs = choose.ladder(scores, np.ones(99, bool))
        assert choose.crc(rungs, target) == max(0, allowed)


# --- the promises, exactly and by simulation --------------------------------------------------


def compositions(n: int, cells: int) -> npt.NDArray[np.int64]:
    """Every way to put n drafts into cells."""
    bars = np.array(list(itertools.combinations(range(n + cells - 1), cells - 1)))
    edges = np.column_stack([np.full(len(bars), -1), bars, np.full(len(bars), n + cells - 1)])
    return np.diff(edges, axis=1) - 1


@pytest.mark.parametrize(
    ("n", "target", "delta", "start"),
    [(7, 0.4, 0.2161, 3), (7, 0.5, 0.1251, 3), (7, 0.3, 0.35, 4), (7, 0.5, 0.2266, 7)],
)
def test_selective_error_rate_summed_over_every_sample(n, target, delta, start) -> None:
    """No population of three scores, ties and all, makes more than delta of the calibrations
    false: each sample's chance is summed, lots included, and populations are searched."""
    m = 3
    samples = compositions(n, 2 * m + 1)  # good and bad at each score, and never accepted
    chosen = np.zeros((len(samples), m + 1))  # chance that a sample ends at each score, or nowhere
    for row, sample in enumerate(samples):
        good, bad = sample[:m], sample[m : 2 * m]
        accepted, wrong = np.cumsum(good + bad), np.cumsum(bad)
        there = np.flatnonzero(good + bad)
        if there.size == 0:
            chosen[row, m] = 1
            continue
        rungs = choose.Ladder(there[::-1] + 0.0, accepted[there], wrong[there], n)
        at = there[min(np.searchsorted(accepted[there], start), there.size - 1)]
        before = accepted[at] - good[at] - bad[at]
        drawn = max(0, min(start, int(accepted[at])) - int(before))
        ways = math.comb(int(good[at] + bad[at]), drawn)
        for seen in range(drawn + 1):

            class Lot:
                def hypergeometric(self, *_: int, seen: int = seen) -> int:
                    return seen

            share = math.comb(int(bad[at]), seen) * math.comb(int(good[at]), drawn - seen) / ways
            if share:
                passed = choose.selective(rungs, target, delta, start=start, random=Lot())  # type: ignore[arg-type]
                chosen[row, there[passed - 1] if passed else m] += share
    assert np.allclose(chosen.sum(axis=1), 1)
    logs = np.array([math.lgamma(i + 1) for i in range(n + 1)])
    ways_log = logs[n] - logs[samples].sum(axis=1)

    def failing(mass: Floats, rates: Floats) -> float:
        cells = np.concatenate([mass[:m] * (1 - rates), mass[:m] * rates, mass[m:]])
        chance = np.exp(ways_log + samples @ np.log(np.maximum(cells, 1e-300)))
        risks = np.cumsum(mass[:m] * rates) / np.cumsum(mass[:m])
        return float(chance @ (chosen[:, :m] @ (risks > target)))

    random = np.random.default_rng(n + start)
    worst = 0.0
    for _ in range(6):
        mass, odds = random.dirichlet(np.ones(m + 1)), random.normal(0, 2, m)
        best = 0.0
        for _ in range(60):
            tried = mass * np.exp(0.3 * random.normal(size=m + 1))
            tried /= tried.sum()
            tried_odds = odds + 0.5 * random.normal(size=m)
            rates = 1 / (1 + np.exp(-tried_odds))
            # Just above the target at one score: there the promise is hardest to keep.
            j = int(random.integers(m))
            below = (tried[:j] * rates[:j]).sum()
            edge = ((target + 1e-9) * tried[: j + 1].sum() - below) / tried[j]
            if 0 < edge < 1:
                rates[j] = edge
            value = failing(tried, rates)
            if value > best:
                best, mass, odds = value, tried, np.log(rates / (1 - rates))
        worst = max(worst, best)
    assert 0.3 * delta < worst <= delta + 1e-9


SPLITS = 1000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("risk", "target", "delta", "n"),
    [
        ("selective", 0.1, 0.1, 50),
        ("selective", 0.05, 0.1, 300),
        ("selective", 0.05, 0.05, 2000),
        ("overall", 0.05, 0.1, 50),
        ("overall", 0.05, 0.05, 300),
        ("overall", 0.1, 0.1, 2000),
    ],
)
def test_promise_holds_over_random_splits(kind, risk, target, delta, n) -> None:
    splits = SPLITS if n < 2000 else SPLITS // 4
    found = split(pool(kind), n, splits, risk, target, delta, seed=n)
    exceeded = int((found.risks > target).sum())
    assert not surprising(exceeded, splits, delta), exceeded / splits
    if kind == "all right" and n >= 300:
        assert found.certified.all() and (found.coverage > 0.79).all()
    if kind == "all wrong" and risk == "selective":
        assert not found.certified.any()
    if kind == "graded" and n >= 300 and target == 0.05:
        # Tight as well: it is not a promise kept by accepting nothing.
        assert found.certified.mean() > 0.85 and exceeded > 0.2 * delta * splits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [50, 300])
def test_conformal_risk_control_holds_on_average(kind, n) -> None:
    target = 0.05
    risks = split(pool(kind), n, SPLITS, "overall", target, None, seed=n).risks
    assert risks.mean() <= target + 3.1 * risks.std() / math.sqrt(SPLITS)
    if kind == "graded":  # without ties no more than 2 / (n + 1) is lost
        assert risks.mean() >= target - 2 / (n + 1) - 3.1 * risks.std() / math.sqrt(SPLITS)


def test_surprise_is_told_apart() -> None:
    assert not surprising(130, 2000, 0.05)
    assert surprising(135, 2000, 0.05)


@pytest.mark.exhaustive
def test_every_promise_is_kept_as_the_command_measures_it(capsys) -> None:
    assert main(["--promises"]) == 0
    assert " | NO |" not in capsys.readouterr().out


def test_the_command_prints_its_tables(capsys) -> None:
    sizes = ["--splits", "20", "--sizes", "60", "--streams", "40", "--audits", "120"]
    # test_label_use, test_relative, test_running_gate and test_statistics hold the promises.
    assert main(["--no-promises", *sizes]) == 0
    text = capsys.readouterr().out
    assert text.count("| graded |") == 5 and "Rows that break their promise: 0." in text
    assert "raised an alarm" in text and text.count("| 3%, 5% |") == 18


# --- the whole procedure ----------------------------------------------------------------------


def sample(n: int = 400, seed: int = 0) -> tuple[Floats, Bools]:
    random = np.random.default_rng(seed)
    scores = random.gamma(4, 2, n)
    return scores, random.random(n) < 0.5 * np.exp(-0.4 * scores)


def completions(n: int, seed: int = 0) -> list[Completion]:
    random = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        tokens = int(random.integers(1, 5))
        rows = -np.sort(random.gamma(2, 2, (tokens, 8)), axis=1).astype(np.float32)
        made.append(Completion("x", tuple(range(tokens)), rows))
    return made


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("formula", ["code", "paper"])
@pytest.mark.parametrize("risk", ["selective", "overall"])
def test_the_gate_decides_on_recorded_drafts_as_the_calibration_counted(
    aggregate, formula, risk
) -> None:
    made = dataclasses.replace(MADE, aggregate=aggregate, formula=formula)
    drafts = completions(300)
    raw = raw_scores([d.top_logprobs for d in drafts], 8, aggregate, formula)
    bad = np.random.default_rng(1).random(300) < 0.6 * (raw.argsort().argsort() < 150)
    found = calibrate(raw, bad, made, risk=risk, target=0.1)
    gate = SeparabilityGate.from_calibration(found)
    verdicts = [gate(draft) for draft in drafts]
    accepted = [b for v, b in zip(verdicts, bad, strict=True) if v.accepted]
    assert (len(accepted), sum(accepted)) == (found.accepted, found.bad)
    assert found.certified and 100 < found.accepted < 300
    assert gate.raw_threshold == found.raw_threshold
    # The loosest: the next draft down is rejected, but for a hair.
    assert found.threshold is not None
    below = [s for s in raw if s < gate.raw_threshold]
    log = aggregate == "log"
    assert math.nextafter(to_unit(max(below), log=log), 1.0) == found.threshold


def test_all_right_accepts_whatever_can_be_scored() -> None:
    for options in ({}, {"risk": "overall"}, {"risk": "overall", "delta": None}):
        found = calibrate(sample()[0], np.zeros(400), MADE, **options)
        assert (found.threshold, found.raw_threshold, found.accepted) == (0.0, -math.inf, 400)
        assert SeparabilityGate.from_calibration(found).threshold == 0


def test_all_wrong_can_not_be_certified_selectively() -> None:
    found = calibrate(sample()[0], np.ones(400), MADE)
    assert (found.certified, found.labels_needed, found.accepted) == (False, None, 0)
    assert "nor would it be with more labels" in found.statement
    overall = calibrate(sample()[0], np.ones(400), MADE, risk="overall", delta=None)
    assert overall.accepted == overall.bad == 19  # (19 + 1) / 401 <= 0.05


def test_constant_scores_are_accepted_together_or_not_at_all() -> None:
    bad = np.zeros(400, bool)
    bad[:8] = True  # in front: the lots must not take them for the best
    options = {"target": 0.05, "risk": "overall"}
    assert calibrate(np.full(400, 7.0), bad, MADE, **options).accepted == 400
    assert not calibrate(np.full(400, 7.0), ~bad, MADE, **options).certified
    assert calibrate(np.full(400, 7.0), bad, MADE, start=400).accepted == 400
    assert calibrate(np.full(400, 7.0), bad, MADE, start=45, seed=1).accepted in (0, 400)
    chances = [calibrate(np.full(400, 7.0), bad, MADE, start=45, seed=s) for s in range(120)]
    share = np.mean([c.certified for c in chances])
    # The first 45, drawn by lot, must hold none of the 8: the hypergeometric chance of that.
    expected = math.comb(392, 45) / math.comb(400, 45)
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / 120)


@pytest.mark.parametrize(
    ("n", "options", "more"),
    [
        (9, {}, 36),  # 45 without an error
        (9, {"target": 0.01}, 221),  # 230
        (9, {"risk": "overall"}, 36),
        (9, {"risk": "overall", "delta": None}, 10),  # 1 / 20 <= 0.05
        (44, {"test": "hoeffding-bentkus"}, 1),  # exp(-n h(0, target)) is the same there
    ],
)
def test_labels_needed_without_an_error(n, options, more) -> None:
    found = calibrate(np.linspace(5, 9, n), np.zeros(n), MADE, **options)
    assert (found.certified, found.labels_needed) == (False, more)
    assert f"about {more} more labels" in found.statement
    enough = calibrate(np.linspace(5, 9, n + more), np.zeros(n + more), MADE, **options)
    assert enough.certified
    short = calibrate(np.linspace(5, 9, n + more - 1), np.zeros(n + more - 1), MADE, **options)
    assert not short.certified


def test_labels_needed_with_errors_is_about_right() -> None:
    scores, bad = np.linspace(9, 5, 50), np.zeros(50, bool)
    bad[[20, 44]] = True  # 4%, for a target of 5%
    found = calibrate(scores, bad, MADE)
    assert found.labels_needed is not None and 50 < found.labels_needed < 2000
    times = -(-(50 + found.labels_needed) // 50) + 1
    grown = calibrate(np.repeat(scores, times), np.repeat(bad, times), MADE)
    assert grown.certified


def test_what_is_not_let_through_or_scored_needs_no_label() -> None:
    scores, bad = sample()
    alone = calibrate(scores, bad, MADE, risk="overall")
    labels = [*bad.astype(float), math.nan, math.nan]
    more = calibrate(
        [*scores, None, 50.0], labels, MADE, risk="overall", let_through=[True] * 401 + [False]
    )
    assert more.n == 402 and more.accepted >= alone.accepted
    assert dict(more.score_counts)[0] == 2
    none = calibrate(scores, np.ones(400), MADE, let_through=np.zeros(400, bool))
    assert not none.certified and none.labels_needed is None


def test_the_given_thresholds_are_the_only_ones() -> None:
    scores, bad = sample()
    found = calibrate(scores, bad, MADE, thresholds=[0.99, 0.98, 0.9, 0.5])
    assert found.threshold in (0.99, 0.98, 0.9, 0.5) and found.start is None
    assert {point.threshold for point in found.curve} <= {0.99, 0.98, 0.9, 0.5}
    # Classical Learn then Test: the strictest lets too few through, and that ends it.
    assert not calibrate(scores, bad, MADE, thresholds=[0.99999999, 0.98]).certified
    overall = calibrate(scores, bad, MADE, risk="overall", thresholds=[0.99999999, 0.98, 0.9])
    assert overall.threshold in (0.98, 0.9)


def test_saturated_scores_are_ties_and_say_so(caplog) -> None:
    scores = np.concatenate([np.linspace(70, 90, 200), np.linspace(1, 5, 100)])
    bad = np.concatenate([np.zeros(200, bool), np.ones(100, bool)])
    found = calibrate(scores, bad, MADE)
    assert "lower sharpness" in caplog.text and found.accepted >= 200
    caplog.clear()
    finer = calibrate(scores, bad, dataclasses.replace(MADE, sharpness=0.1))
    assert not caplog.text and finer.accepted >= 200


def test_the_curve_shows_the_choice() -> None:
    scores, bad = sample(1500)
    found = calibrate(scores, bad, MADE, delta=0.1)
    assert len(found.curve) in (200, 201)
    rows = {p.threshold: p for p in found.curve}
    assert found.threshold is not None
    at = rows[found.threshold]
    assert (at.accepted, at.bad) == (found.accepted, found.bad)
    assert at.evidence == p_value(found.bad, found.accepted, 0.05) <= 0.1
    strictness = [p.threshold for p in found.curve]
    assert strictness == sorted(strictness, reverse=True)
    mean = calibrate(scores, bad, MADE, risk="overall", delta=None)
    chosen = next(p for p in mean.curve if p.threshold == mean.threshold)
    assert chosen.evidence == (mean.bad + 1) / 1501 <= 0.05


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"target": 0}, ConfigError, "target=0"),
        ({"target": "x"}, ConfigError, "target='x'"),
        ({"delta": 1.0}, ConfigError, "delta=1.0"),
        ({"delta": None}, ConfigError, 'risk="overall" only'),
        ({"risk": "some"}, CalibrationError, "overall, selective"),
        ({"test": "z"}, CalibrationError, "binomial"),
        ({"risk": "overall", "start": 5}, ConfigError, 'belong to risk="selective"'),
        ({"start": 0}, ConfigError, "start=0"),
        ({"start": 5, "thresholds": [0.5]}, ConfigError, "without thresholds"),
        ({"thresholds": [1.0]}, ConfigError, "below 1"),
        ({"labels": "odd"}, CalibrationError, "differs_from_agent"),
        ({"let_through": [True]}, InputError, "one length"),
        ({"let_through": [0.5] * 400}, InputError, "True and False"),
        ({"created": "yesterday"}, CalibrationError, "ISO 8601"),
    ],
)
def test_bad_arguments_are_refused(options, error, said) -> None:
    with pytest.raises(error, match=said):
        calibrate(*sample(), MADE, **options)


@pytest.mark.parametrize(
    ("scores", "bad", "said"),
    [
        ([], [], "not empty"),
        ([1.0], [0, 1], "one length"),
        ([math.inf], [0], "infinities"),
        ([1.0, 2.0], [0, 2], "label 1 is 2"),
        ([1.0], [math.nan], "label 0 is nan"),
        (["high"], [0], "numbers"),
    ],
)
def test_bad_arrays_are_refused(scores, bad, said) -> None:
    with pytest.raises(InputError, match=said):
        calibrate(scores, bad, MADE)


# --- categories -------------------------------------------------------------------------------


def test_each_category_has_its_own_threshold() -> None:
    (easy, easy_bad), (hard, hard_bad) = sample(500, 1), sample(500, 2)
    hard_bad |= np.random.default_rng(3).random(500) < 0.6 * (hard < 8)
    scores = np.concatenate([easy, hard, [5.0] * 10])
    bad = np.concatenate([easy_bad, hard_bad, np.zeros(10, bool)])
    groups = ["easy"] * 500 + ["hard"] * 500 + ["rare"] * 10
    found = calibrate_groups(scores, bad, MADE, groups, target=0.1)
    assert [*found] == ["easy", "hard", "rare"] and found["rare"].labels_needed == 12
    assert found["easy"].threshold < found["hard"].threshold
    assert found["hard"].statement.count("in category 'hard'") == 1
    alone = calibrate(hard, hard_bad, MADE, target=0.1, group="hard", created="2026-01-01")
    assert dataclasses.replace(found["hard"], created="2026-01-01") == alone
    together = calibrate_groups(scores, bad, MADE, groups, target=0.1, together=True)
    assert together["easy"].delta == pytest.approx(0.1 / 3)
    assert together["easy"].threshold >= found["easy"].threshold
    with pytest.raises(ConfigError, match="together"):
        calibrate_groups(scores, bad, MADE, groups, delta=None, together=True, risk="overall")
    with pytest.raises(InputError, match="one each"):
        calibrate_groups(scores, bad, MADE, groups[:-1])


def test_the_promise_holds_within_each_category() -> None:
    random = np.random.default_rng(0)
    failed = {"a": 0, "b": 0}
    runs = 150
    for _ in range(runs):
        scores = random.gamma(4, 2, 400)
        names = np.where(random.random(400) < 0.5, "a", "b")
        chance = np.where(names == "a", 0.25, 0.6) * np.exp(-0.35 * scores)
        bad = random.random(400) < chance
        for name, found in calibrate_groups(scores, bad, MADE, names.tolist(), target=0.1).items():
            if not found.certified:
                continue
            level = found.raw_threshold
            x = np.linspace(max(0.0, level), 60, 4000)  # the risk by the population's own integral
            density = x**3 * np.exp(-x / 2)
            error = {"a": 0.25, "b": 0.6}[name] * np.exp(-0.35 * x)
            failed[name] += (density * error).sum() / density.sum() > 0.1
    assert not surprising(failed["a"], runs, 0.1) and not surprising(failed["b"], runs, 0.1)


# --- the record -------------------------------------------------------------------------------


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    scores, bad = sample()
    for number, options in enumerate(
        ({}, {"risk": "overall"}, {"risk": "overall", "delta": None}, {"target": 0.001})
    ):
        found = calibrate(scores, bad, MADE, labels="differs_from_agent", **options)
        path = tmp_path / f"{number}.json"
        found.save(path)
        assert Calibration.load(path) == found and hash(found) == hash(Calibration.load(path))
        data = json.loads(path.read_text())
        assert data["scoring"]["model"] == "small" and data["n"] == 400
        assert "the agent's answer" in data["statement"] or not found.certified
        assert pickle.loads(pickle.dumps(found)) == found
    assert [p.suffix for p in tmp_path.iterdir()] == [".json"] * 4
    everything = calibrate(scores, np.zeros(400), MADE)
    everything.save(tmp_path / "all.json")
    assert json.loads((tmp_path / "all.json").read_text())["raw_threshold"] == "-inf"
    assert Calibration.load(tmp_path / "all.json") == everything


def edited(**changes: object) -> str:
    data = json.loads(calibrate(*sample(), MADE).to_json())
    return json.dumps({k: v for k, v in {**data, **changes}.items() if v is not ...})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "not a calibration"),
        (edited(format="x"), "not a calibration"),
        (edited(version=2), "version 2"),
        (edited(threshold=0.5), "edited"),
        (edited(raw_threshold=None), "edited"),
        (edited(threshold=1.0), "threshold=1.0"),
        (edited(threshold="0.5"), "threshold='0.5'"),
        (edited(raw_threshold=...), "KeyError"),
        (edited(delta=None), "don't go together"),
        (edited(method="crc"), "don't go together"),
        (edited(target=None), "target=None"),
        (edited(target=2), "target=2"),
        (edited(labels="x"), "labels='x'"),
        (edited(bad=500), "bad=500"),
        (edited(n=0), "n=0"),
        (edited(n="many"), "n='many'"),
        (edited(surplus=1), "unknown fields: surplus"),
        (edited(scoring={"model": "", "prompt_hash": "x"}), "model=''"),
        (edited(scoring={"model": "a", "prompt_hash": "x", "top_k": 0}), "top_k=0"),
        (edited(scoring={"model": "a", "prompt_hash": "x", "sharpness": 0}), "sharpness=0"),
        (edited(scoring={"model": "a", "prompt_hash": "x", "revision": 1}), "revision=1"),
        (edited(scoring={"model": "a"}), "TypeError"),
        (edited(created="x"), "ISO 8601"),
    ],
)
def test_what_is_no_calibration_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(text)
    with pytest.raises(CalibrationError, match=said) as caught:
        Calibration.load(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"none\.json can't be read"):
        SeparabilityGate.from_calibration(tmp_path / "none.json")


def test_statements_say_what_is_promised_and_by_which_labels() -> None:
    scores, bad = sample()
    words = calibrate(scores, bad, MADE, labels="worse_than_agent", group="colour").statement
    assert words == (
        "With confidence 90%, at most 5% of the accepted drafts are wrong where the agent is "
        "right; for queries in category 'colour' drawn as the 400 labelled ones were."
    )
    words = calibrate(scores, bad, MADE, risk="overall", delta=None).statement
    assert words.startswith("On average over calibrations, at most 5% of all queries get drafts")


# --- the gate ---------------------------------------------------------------------------------


def test_a_gate_keeps_to_its_calibration(tmp_path: Path) -> None:
    found = calibrate(*sample(), MADE)
    found.save(tmp_path / "c.json")
    gate = SeparabilityGate.from_calibration(tmp_path / "c.json")
    assert gate == SeparabilityGate.from_calibration(found)
    assert gate.calibration == found and pickle.loads(pickle.dumps(gate)) == gate
    for change in (
        {"top_k": 16},
        {"threshold": 0.9},
        {"aggregate": "mean"},
        {"formula": "paper"},
        {"sharpness": 0.5},
    ):
        with pytest.raises(CalibrationError, match=next(iter(change))):
            dataclasses.replace(gate, **change)
    loose = dataclasses.replace(gate, threshold=0.5, calibration=None)
    assert loose.calibration is None
    few = Completion("x", (1,), np.array([[-0.1, -5, -6, -7]], np.float32))
    assert not gate(few).accepted and "top_k=8" in gate(few).reason


def test_another_model_prompt_or_k_is_refused() -> None:
    answerer = SpeculativeAnswerer(ScriptedModel("red", name="small"), top_k=8)
    made = dataclasses.replace(MADE, prompt_hash=answerer.prompt_hash, revision="r1")
    gate = SeparabilityGate.from_calibration(calibrate(*sample(), made))

    def check(drafts: SpeculativeAnswerer, revision: str | None = None) -> None:
        gate.check(
            model=drafts.model.name,
            revision=revision,
            prompt_hash=drafts.prompt_hash,
            top_k=drafts.top_k,
        )

    check(answerer)
    check(answerer, "r1")
    check(SpeculativeAnswerer(ScriptedModel("red", name="small"), top_k=64))  # cut to 8
    with pytest.raises(CalibrationError, match="its revision is 'r2', not 'r1'"):
        check(answerer, "r2")
    with pytest.raises(CalibrationError, match="'other', not 'small'"):
        check(SpeculativeAnswerer(ScriptedModel("red", name="other"), top_k=8))
    with pytest.raises(CalibrationError, match="hash of its prompts"):
        check(SpeculativeAnswerer(answerer.model, top_k=8, prompt=prompts.DIRECT))
    with pytest.raises(CalibrationError, match="top_k=4"):
        check(SpeculativeAnswerer(answerer.model, top_k=4))
    SeparabilityGate(0.98).check(model="anything", top_k=1)


def test_without_a_certified_threshold_nothing_is_accepted(caplog) -> None:
    found = calibrate(sample()[0], np.ones(400), MADE)
    with caplog.at_level(logging.WARNING):
        gate = SeparabilityGate.from_calibration(found)
    assert "accepts nothing" in caplog.text and "No threshold" in caplog.text
    assert gate.threshold == 1 and not any(gate(d).accepted for d in completions(50))


def test_curve_points_are_plain_values() -> None:
    assert CurvePoint(0.5, 3, 1, 0.2) == CurvePoint(0.5, 3, 1, 0.2)
