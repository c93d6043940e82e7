"""The watch over a running gate: false alarms, delays, state, and the gate that obeys."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes.answerer import SpeculativeAnswerer
from speceyes.bench.guarantees import first_alarm, first_shift_alarm, surprising
from speceyes.calibration import (
    GateMonitor,
    Scoring,
    ShiftMartingale,
    WatchedGate,
    bounds,
    calibrate,
    evidence,
    shift,
)
from speceyes.calibration.evidence import RiskEvidence
from speceyes.errors import CalibrationError, ConfigError, InputError
from speceyes.fallback import AgenticFallback
from speceyes.gate import SeparabilityGate
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import SpecPipeline
from speceyes.tools import Tools
from speceyes.types import Completion

MADE = Scoring("small", "ab12", top_k=4)


# --- evidence against a risk ------------------------------------------------------------------


@pytest.mark.parametrize("target", [0.01, 0.05, 0.3])
def test_the_bet_is_fair_at_the_target_and_loses_below(target: float) -> None:
    """Averaged over every sequence of 10 audits, each with its exact chance."""
    sequences = np.array(list(itertools.product([False, True], repeat=10)))
    wealth = np.zeros((len(sequences), 24))
    for j in range(10):
        wealth = evidence.play(wealth, sequences[:, j], j, target)
        value = wealth.sum(axis=1) + 1 / (j + 2)
        for risk in (target, 0.5 * target, 0.0):
            chance = np.prod(np.where(sequences, risk, 1 - risk), axis=1)
            mean = float(chance @ value)
            assert mean == pytest.approx(1) if risk == target else mean < 1


def test_the_shift_bet_is_fair_whatever_it_remembers() -> None:
    cells = (np.arange(shift.CELLS) + 0.5) / shift.CELLS
    sequences = np.array(list(itertools.product(cells, repeat=4)))
    wealth, memory = np.zeros(len(sequences)), np.zeros((len(sequences), shift.CELLS))
    for j in range(4):
        wealth, memory = shift.play(wealth, memory, sequences[:, j], j)
        assert (wealth + 1 / (j + 2)).mean() == pytest.approx(1)


def quiet(seed: int, streams: int, risk: Callable[[int], float] | float):
    random = np.random.default_rng(seed)
    for j in itertools.count():
        yield random.random(streams) < (risk(j) if callable(risk) else risk)


@pytest.mark.parametrize("delta", [0.05, 0.1])
@pytest.mark.parametrize("target", [0.02, 0.1])
def test_no_false_alarms_over_100_000_queries(target: float, delta: float) -> None:
    """At 5% audits all drafts accepted, the risk all the time exactly what was promised."""
    alarm = first_alarm(quiet(1, 500, target), 5000, target, delta)
    assert not surprising(int((alarm <= 5000).sum()), 500, delta)
    assert (alarm <= 5000).any()  # tight enough to be seen


def test_a_risk_that_wanders_below_its_promise_raises_no_alarm() -> None:
    wander = quiet(2, 1000, lambda j: 0.05 * (1 + math.sin(j / 50)) / 2)
    alarm = first_alarm(wander, 3000, 0.05, 0.05)
    assert not surprising(int((alarm <= 3000).sum()), 1000, 0.05)


def test_drift_is_noticed_the_sooner_the_worse_it_is() -> None:
    delays = []
    for after in (0.1, 0.2, 0.4):
        drifting = quiet(3, 400, lambda j, after=after: 0.02 if j < 500 else after)
        alarm = first_alarm(drifting, 2000, 0.05, 0.05)
        assert (alarm <= 500).mean() < 0.02
        delays.append(float(np.median(alarm - 500)))
    assert delays[0] > 3 * delays[1] > 6 * delays[2]
    # At least log(1 / delta) / KL(after, target) on average, no more than some times that.
    for after, delay in zip((0.1, 0.2, 0.4), delays, strict=True):
        gain = after * math.log(after / 0.05) + (1 - after) * math.log((1 - after) / 0.95)
        assert 1 < delay / (math.log(20) / gain) < 8


def test_a_late_drift_is_met_as_an_early_one_but_for_a_little() -> None:
    def delay(change: int) -> float:
        stream = quiet(4, 300, lambda j: 0.01 if j < change else 0.25)
        alarm = first_alarm(stream, change + 400, 0.05, 0.05)
        return float(np.median(alarm)) - change

    assert delay(4000) < 2 * delay(200)


@settings(max_examples=30)
@given(st.lists(st.booleans(), min_size=1, max_size=60), st.sampled_from([0.02, 0.05, 0.3]))
def test_one_bettor_is_as_many(audits: list[bool], target: float) -> None:
    one = RiskEvidence(target)
    wealth = np.zeros((3, 24))
    for j, bad in enumerate(audits):
        one.add(bad)
        wealth = evidence.play(wealth, np.array([False, bad, True]), j, target)
        assert one.value == pytest.approx(wealth[1].sum() + 1 / (j + 2), rel=1e-12)
    assert (one.seen, one.bad) == (len(audits), sum(audits))


def test_capital_never_overflows() -> None:
    sure = RiskEvidence(0.001)
    for _ in range(2000):
        sure.add(True)
    assert math.isfinite(sure.value) and sure.value > 1e150


# --- bounds -----------------------------------------------------------------------------------


@given(st.integers(0, 400), st.data(), st.sampled_from([0.01, 0.05, 0.2]))
def test_bounds_enclose_the_share_and_refute_what_lies_outside(seen, data, delta) -> None:
    bad = data.draw(st.integers(0, seen))
    low, high = bounds(bad, seen, delta)
    assert 0 <= low <= (bad / seen if seen else 0) and (bad / seen if seen else 1) <= high <= 1
    steps = np.geomspace(0.05, 8.0, 24)

    def capital(p: float, direction: int) -> float:
        bets = np.exp(direction * steps * bad - seen * np.log1p(p * np.expm1(direction * steps)))
        return float(bets.mean())

    if low > 0:
        assert capital(low, 1) == pytest.approx(2 / delta, rel=1e-6)
    if high < 1:
        assert capital(high, -1) == pytest.approx(2 / delta, rel=1e-6)
    assert bounds(seen - bad, seen, delta) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_bounds_narrow_and_widen() -> None:
    assert bounds(0, 0) == (0.0, 1.0)
    wide, narrow = bounds(5, 100), bounds(50, 1000)
    assert wide[0] < narrow[0] < 0.05 < narrow[1] < wide[1]
    assert bounds(5, 100, 0.01)[1] > bounds(5, 100, 0.2)[1]
    for bad, seen in ((2, 1), (-1, 1)):
        with pytest.raises(InputError):
            bounds(bad, seen)


@pytest.mark.parametrize("wandering", [False, True])
def test_bounds_hold_at_all_times_at_once(wandering: bool) -> None:
    random = np.random.default_rng(5)
    streams, rounds, delta = 400, 400, 0.1
    chance = 0.1 * (1 + np.sin(np.arange(rounds) / 30)) if wandering else np.full(rounds, 0.1)
    bad = np.cumsum(random.random((streams, rounds)) < chance, axis=1)
    mean = np.cumsum(chance) / np.arange(1, rounds + 1)
    # A mean leaves the bounds where the bet against it has won: the same, without bisection.
    steps = np.geomspace(0.05, 8.0, 24)
    missed = np.zeros(streams, bool)
    for direction in (1, -1):
        for j in range(rounds):
            bets = direction * steps * bad[:, j, None] - (j + 1) * np.log1p(
                mean[j] * np.expm1(direction * steps)
            )
            missed |= np.exp(bets).mean(axis=1) > 2 / delta
    for i in range(5):
        low, high = bounds(int(bad[i, -1]), rounds, delta)
        assert (low <= mean[-1] <= high) or missed[i]
    assert not surprising(int(missed.sum()), streams, delta)


def test_a_lower_bound_above_the_target_means_the_alarm_has_rung() -> None:
    random = np.random.default_rng(6)
    passed = 0
    for _ in range(20):
        monitor = GateMonitor(0.05, delta=0.1)
        for audit in range(150):
            monitor.audit(bool(random.random() < 0.15))
            if audit % 5 == 0 and monitor.bounds[0] > 0.05:
                passed += 1
                assert monitor.tripped
                break
    assert passed > 5


# --- shift ------------------------------------------------------------------------------------


def test_ranks_are_uniform_and_independent_whatever_ties_there_are() -> None:
    random = np.random.default_rng(7)
    scores = np.round(random.gamma(4, 2, 6000) / 3) * 3  # a few distinct ones
    alarm = ShiftMartingale(shift.count_scores(scores[:1000]), seed=8)
    ranks = np.array([alarm.rank(None if s == 0 else float(s)) for s in scores[1000:]])
    tenth = np.minimum((10 * ranks).astype(int), 9)
    chi = ((np.bincount(tenth, minlength=10) - 500) ** 2 / 500).sum()
    assert chi < 27.9  # 1 in 1,000 at 9 degrees of freedom
    assert abs(np.corrcoef(ranks[1:], ranks[:-1])[0, 1]) < 0.05


def test_no_false_shift_alarms() -> None:
    random = np.random.default_rng(9)
    ranks = (random.random(400) for _ in itertools.count())
    alarm = first_shift_alarm(ranks, 20_000, 0.05)
    assert not surprising(int((alarm <= 20_000).sum()), 400, 0.05)


@pytest.mark.parametrize(
    "change", [lambda s: 0.7 * s, lambda s: 1.5 * s, lambda s: 8 + 0.2 * (s - 8)]
)
def test_lower_higher_and_narrower_scores_are_noticed(change) -> None:
    random = np.random.default_rng(10)
    monitor = GateMonitor(0.05, score_counts=shift.count_scores(random.gamma(4, 2, 1000)))
    for score in random.gamma(4, 2, 2000):
        monitor.observe(score)
    assert not monitor.shifted and monitor.shift_evidence < 20
    delay = 0
    while not monitor.shifted:
        monitor.observe(float(change(random.gamma(4, 2))))
        delay += 1
        assert delay < 1500
    assert not monitor.tripped  # another mix of queries is a reason to look, not to stop


def test_more_queries_without_a_score_are_a_shift() -> None:
    random = np.random.default_rng(11)
    scores = [None if random.random() < 0.2 else float(random.gamma(4, 2)) for _ in range(800)]
    monitor = GateMonitor(0.05, score_counts=shift.count_scores(scores))
    for _ in range(800):
        monitor.observe(None if random.random() < 0.6 else float(random.gamma(4, 2)), False)
    assert monitor.shifted


def test_bins_are_fixed_monotone_and_checked() -> None:
    scores = np.concatenate([-np.geomspace(1e9, 1e-9, 200), [0], np.geomspace(1e-9, 1e9, 200)])
    numbers = shift.bins(scores)
    assert (np.diff(numbers) >= 0).all() and numbers[0] == 1 and numbers[-1] == shift.BINS - 1
    with pytest.raises(InputError, match="infinite"):
        shift.bins([math.inf])
    with pytest.raises(InputError, match="no bin"):
        ShiftMartingale([(shift.BINS, 1)])


# --- the monitor ------------------------------------------------------------------------------


def run(monitor: GateMonitor, queries: int, risk: float, seed: int, accept: float = 0.6) -> int:
    """Serves queries as a server would; how many were served when it tripped, or all."""
    random = np.random.default_rng(seed)
    for served in range(queries):
        accepted = bool(random.random() < accept)
        bad = bool(random.random() < risk)
        if monitor.observe(float(random.gamma(4, 2)), accepted):
            monitor.audit(bad)
        if monitor.tripped:
            return served
    return queries


def test_a_share_of_what_is_accepted_is_audited() -> None:
    monitor = GateMonitor(0.1, share=0.2, seed=3)
    run(monitor, 5000, 0.0, 12)
    assert abs(monitor.audits - 600) < 4 * math.sqrt(600)
    assert monitor.disagreements == 0 and not monitor.tripped
    everything = GateMonitor(0.1, share=1.0)
    assert all(everything.observe(5.0) for _ in range(50))
    assert not any(everything.observe(5.0, False) for _ in range(50))


def test_the_overall_risk_counts_every_query() -> None:
    """60% accepted, of these 12% bad: 7.2% overall, which an overall promise of 10% allows and
    a selective one does not."""
    overall = GateMonitor(0.1, risk="overall", share=0.5, seed=1)
    assert run(overall, 3000, 0.12, 13) == 3000
    low, high = overall.bounds
    assert low < 0.072 < high < 0.12
    assert run(GateMonitor(0.05, share=0.5, seed=1), 3000, 0.12, 13) < 3000
    assert run(GateMonitor(0.1, risk="overall", share=0.5, seed=1), 4000, 0.4, 14) < 1000


@pytest.mark.parametrize("runs", [40, pytest.param(150, marks=pytest.mark.exhaustive)])
def test_false_alarms_of_the_overall_monitor(runs: int) -> None:
    alarms = sum(
        run(GateMonitor(0.1, risk="overall", delta=0.2, share=1.0, seed=i), 150, 0.1, i, 1.0) < 150
        for i in range(runs)
    )
    assert not surprising(alarms, runs, 0.2)


def test_tripped_stays_until_it_is_rearmed() -> None:
    random = np.random.default_rng(15)
    scores = random.gamma(4, 2, 400)
    found = calibrate(scores, np.zeros(400), MADE, labels="differs_from_agent")
    monitor = GateMonitor.from_calibration(found, share=0.5, tolerance=0.01)
    assert monitor.target == pytest.approx(0.06)
    for _ in range(20):
        monitor.audit(True)
    at_trip = monitor.evidence
    for _ in range(400):
        monitor.audit(False)
    assert monitor.tripped and monitor.evidence < 20 < at_trip
    none = calibrate(scores, np.ones(400), MADE)
    with pytest.raises(CalibrationError, match="No threshold"):
        monitor.rearm(none)
    assert monitor.tripped
    again = calibrate(scores, np.zeros(400), MADE, target=0.1)
    monitor.rearm(again)
    assert not monitor.tripped and (monitor.target, monitor.audits) == (0.1, 0)
    assert monitor.evidence == 1 and monitor.share == 0.5
    with pytest.raises(CalibrationError, match="nothing to watch"):
        GateMonitor.from_calibration(none)


@pytest.mark.parametrize("risk", ["selective", "overall"])
def test_a_restored_monitor_goes_on_as_it_would_have(risk, tmp_path: Path) -> None:
    random = np.random.default_rng(16)
    counts = shift.count_scores(random.gamma(4, 2, 300))
    whole = GateMonitor(0.05, risk=risk, share=0.3, score_counts=counts, seed=5)
    broken = GateMonitor(0.05, risk=risk, share=0.3, score_counts=counts, seed=5)
    for i in range(600):
        score, bad = float(random.gamma(3, 2)), bool(random.random() < 0.08)
        chosen = [monitor.observe(score, i % 3 > 0) for monitor in (whole, broken)]
        assert chosen[0] == chosen[1]
        if chosen[0]:
            whole.audit(bad)
            broken.audit(bad)
        if random.random() < 0.03:
            broken.save(tmp_path / "state.json")
            broken = GateMonitor.load(tmp_path / "state.json")
    assert whole.to_json() == broken.to_json()
    assert whole.bounds == broken.bounds and whole.tripped == broken.tripped
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


def test_what_is_no_state_is_refused(tmp_path: Path) -> None:
    good = json.loads(GateMonitor(0.05).to_json())
    texts = ["{", "[]", json.dumps({**good, "version": 9}), json.dumps({**good, "shift": {}})]
    texts += [json.dumps({**good, "share": 0}), json.dumps({**good, "random": {"state": 1}})]
    for text in texts:
        (tmp_path / "state.json").write_text(text)
        with pytest.raises((CalibrationError, ConfigError), match=r"state\.json"):
            GateMonitor.load(tmp_path / "state.json")
    with pytest.raises(CalibrationError, match=r"none\.json"):
        GateMonitor.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    "arguments", [{"target": 0}, {"delta": 1}, {"share": 0}, {"share": 1.1}, {"risk": "x"}]
)
def test_bad_arguments_are_refused(arguments) -> None:
    with pytest.raises(ConfigError):
        GateMonitor(**{"target": 0.05, **arguments})


# --- the gate that obeys ----------------------------------------------------------------------


def test_a_pipeline_goes_back_to_the_agent_when_the_monitor_trips() -> None:
    image = Image.new("RGB", (64, 64))
    monitor = GateMonitor(0.05)
    gate = WatchedGate(SeparabilityGate(0.6, top_k=4), monitor)
    pipe = SpecPipeline(
        answerer=SpeculativeAnswerer(ScriptedModel("red"), top_k=4),
        gate=gate,
        fallback=AgenticFallback(ScriptedModel("<answer>blue</answer>"), tools=Tools(["zoom"])),
    )
    before = pipe(image, "Which colour?")
    assert (before.route, before.answer) == ("draft", "red")
    for _ in range(10):
        monitor.audit(True)
    after = pipe(image, "Which colour?")
    assert (after.route, after.answer) == ("agent", "blue")
    assert after.verdict is not None and "monitor has tripped" in after.verdict.reason
    assert before.verdict is not None
    assert after.verdict.separability == before.verdict.separability  # still scored
    with pytest.raises(ConfigError, match="top_k=8"):  # a pipeline sees the gate behind it
        SpecPipeline(
            answerer=SpeculativeAnswerer(ScriptedModel("red"), top_k=4),
            gate=WatchedGate(SeparabilityGate(0.6, top_k=8), monitor),
        )
    with pytest.raises(ConfigError):
        WatchedGate(0.98, monitor)  # type: ignore[arg-type]


def test_a_rejection_keeps_its_own_reason() -> None:
    monitor = GateMonitor(0.05)
    for _ in range(10):
        monitor.audit(True)
    gate = WatchedGate(SeparabilityGate(0.98, top_k=4), monitor)
    cut = Completion("x", (1,), np.array([[-0.1, -5, -6, -7]], np.float32), finish="length")
    assert "token limit" in gate(cut).reason
