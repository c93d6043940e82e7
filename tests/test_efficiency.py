"""What speculation costs, and when the pipeline leaves it."""

from __future__ import annotations

import dataclasses
import logging
import math
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes.answerer import SpeculativeAnswerer
from speceyes.errors import ConfigError
from speceyes.fallback import AgenticFallback
from speceyes.gate import SeparabilityGate
from speceyes.pipeline import ScheduleConfig, SpecPipeline
from speceyes.pipeline.costs import CostModel, efficiency
from speceyes.pipeline.efficiency import ENOUGH, Ledger
from speceyes.types import Judgement, Query, Result, Timings, Verdict
from support.models import FakeModel

DOT = Image.new("RGB", (32, 32))
YES, NO = Verdict(True, 0.99, 9.0, 0.98), Verdict(False, 0.5, 0.0, 0.98)


def accepted(judge: float = 0.1, draft: float = 0.2) -> Result:
    spent = Timings(judge=judge, draft=draft, gate=0.0)
    return Result("", "red", "draft", Judgement(False), None, YES, timings=spent)


def rejected(fallback: float, judge: float = 0.1, draft: float = 0.2) -> Result:
    spent = Timings(judge=judge, draft=draft, gate=0.0, fallback=fallback)
    return Result("", "red", "agent", Judgement(False), None, NO, timings=spent)


def sent(fallback: float, judge: float = 0.1) -> Result:
    spent = Timings(judge=judge, fallback=fallback)
    return Result("", "red", "agent", Judgement(True), timings=spent)


def straight(fallback: float) -> Result:
    return Result("", "red", "agent", timings=Timings(fallback=fallback))


def test_shares_and_costs_by_outcome() -> None:
    results = [accepted()] * 6 + [rejected(2.0)] * 2 + [sent(3.0)] * 2
    found = efficiency(results)
    assert (found.queries, found.beta, found.alpha) == (10, 0.8, 0.75)
    assert found.c_judge == pytest.approx(0.1) and found.c_draft == pytest.approx(0.2)
    assert (found.l_tools, found.l_rejected, found.l_accepted) == (3.0, 2.0, None)
    assert found.l_agent is None and found.assumed, "nobody knows what accepted ones would cost"
    # c_J + beta c_S + what fell back: 0.1 + 0.8 * 0.2 + (2 * 2 + 2 * 3) / 10
    assert found.speculated == pytest.approx(1.26)
    # A fallback may be spared the judge's reading, no more.
    assert found.gain is None and found.at_most == pytest.approx(2.6 / 1.26)
    assert found.interval is None and found.measured is None
    wall = efficiency(results, seconds=20.0)
    assert wall.outside == pytest.approx((20 - 12.6) / 10) and wall.speculated == pytest.approx(2.0)
    assert found.paper == pytest.approx(1 / (1 - 0.6))


def test_accepted_queries_cost_is_worked_out_from_those_sent_straight() -> None:
    model = CostModel()
    for _ in range(50):
        model.note(accepted())
        model.note(rejected(4.0))
        model.note(straight(1.0))
        model.note(straight(4.0))
    found = model.efficiency()
    assert not found.assumed
    assert found.l_agent == pytest.approx(2.5) and found.l_accepted == pytest.approx(1.0)


@given(
    agent=st.floats(0.05, 5.0),
    share=st.floats(0.0, 1.0),
    noise=st.floats(0.0, 0.5),
    seed=st.integers(0, 999),
)
@settings(max_examples=60, deadline=None)
def test_the_interval_holds_the_ratio_and_is_ordered(
    agent: float, share: float, noise: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    model = CostModel()
    for _ in range(120):
        spent = float(agent * random.lognormal(0, noise))
        model.note(accepted() if random.random() < share else rejected(spent))
        model.note(straight(float(agent * random.lognormal(0, noise))))
    found = model.efficiency()
    assert found.gain is not None and found.interval is not None
    low, high = found.interval
    assert low <= found.gain <= high
    assert math.isfinite(low) and math.isfinite(high) and low > 0


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        model = CostModel()
        for _ in range(60):
            spent = float(random.lognormal(0, 0.8))
            model.note(accepted(0.0, 0.1) if random.random() < 0.6 else rejected(spent, 0.0, 0.1))
            model.note(straight(float(random.lognormal(0, 0.8))))
        mean = math.exp(0.32)
        truth = mean / (0.1 + 0.4 * mean)
        interval = model.efficiency().interval
        assert interval is not None
        covered += interval[0] <= truth <= interval[1]
    assert 0.90 <= covered / 400 <= 0.99


def test_a_loss_is_left_and_taken_up_again_when_it_has_become_a_gain() -> None:
    model = CostModel()
    for _ in range(2 * ENOUGH):
        model.note(rejected(1.0, judge=0.5, draft=0.5))
    before = model.speculating
    model.plan(16)
    assert (before, model.speculating) == (True, False)
    batches = [model.plan(16) for _ in range(200)]
    assert all(len(set(batch)) == 1 for batch in batches), "looks take whole batches"
    assert sum(batch[0] for batch in batches) == 1, "the next waits for what became of the first"
    for _ in range(2 * ENOUGH):
        model.note(straight(1.0))
        model.note(accepted(0.01, 0.01))
    assert any(model.plan(16)) and model.speculating
    straight_now = [not any(model.plan(16)) for _ in range(100)]
    assert not any(straight_now[:60]) and any(straight_now), "the agent alone is looked at again"


def test_a_gain_is_known_from_so_many_probes_on_and_no_fewer() -> None:
    """A few probes say nothing: until there are `ENOUGH` only a bound is told."""
    model = CostModel()
    for _ in range(60):
        model.note(accepted())
        model.note(rejected(2.0))
    for _ in range(ENOUGH - 1):
        model.note(straight(1.0))
    before = model.efficiency()
    assert before.assumed and before.gain is None and before.interval is None
    assert before.l_agent is None and before.l_accepted is None and before.at_most is not None
    model.note(straight(1.0))
    after = model.efficiency()
    assert not after.assumed and after.at_most is None
    assert after.l_agent == pytest.approx(1.0) and after.gain is not None


def test_an_interval_needs_enough_of_either_side() -> None:
    few, many = CostModel(), CostModel()
    for at in range(2 * ENOUGH):
        many.note(rejected(1.0 + at % 3))
        many.note(straight(1.0 + at % 2))
    for at in range(ENOUGH - 1):
        few.note(rejected(1.0 + at % 3))
    for at in range(2 * ENOUGH):
        few.note(straight(1.0 + at % 2))
    assert many.efficiency().interval is not None
    found = few.efficiency()
    assert found.gain is not None and found.interval is None


@pytest.mark.parametrize(("queries", "goes_on"), [(ENOUGH - 1, True), (2 * ENOUGH, False)])
def test_no_loss_is_acted_on_before_there_are_enough_queries(queries: int, goes_on: bool) -> None:
    model = CostModel()
    for _ in range(queries):
        model.note(rejected(1.0, judge=0.5, draft=0.5))
    model.plan(16)
    assert model.speculating == goes_on


def test_what_cannot_be_told_apart_from_no_gain_changes_nothing() -> None:
    model = CostModel()
    random = np.random.default_rng(0)
    for _ in range(100):
        model.note(rejected(float(random.lognormal(0, 1.0)), 0.001, 0.001))
    model.plan(1)
    assert model.speculating


def test_failed_queries_and_other_routes_are_no_costs() -> None:
    model = CostModel()
    model.note(Result("", None, "error", error="no image"))
    found = model.efficiency()
    assert found.queries == 0 and found.gain is None and found.l_agent is None


def test_a_time_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="seconds=0"):
        efficiency([accepted()], seconds=0.0)


def test_threads_may_share_it() -> None:
    model = CostModel()

    def work() -> None:
        for _ in range(300):
            model.note(accepted())
            model.note(straight(1.0))
            model.plan(4)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert model.efficiency().queries == 512


# --- in the pipeline ------------------------------------------------------------------------


def pipe(draft_s: float, agent_s: float, *, margin: float, speculate: Any) -> SpecPipeline:
    """Its phases are timed by a clock that goes only while its models work, however busy the
    machine is.
    """
    now = [0.0]

    def work(seconds: float) -> None:
        now[0] += seconds

    drafter = FakeModel("red", seconds_per_row=draft_s, margin=margin, sleep=work)
    agent = FakeModel("<answer>red</answer>", seconds_per_row=agent_s, sleep=work)
    made = SpecPipeline(
        answerer=SpeculativeAnswerer(drafter),
        gate=SeparabilityGate(0.9),
        fallback=AgenticFallback(agent, tools=["zoom"]),
        schedule=ScheduleConfig(batch_size=8, speculate=speculate),
    )
    made.parts = dataclasses.replace(made.parts, clock=lambda: now[0])
    return made


def queries(n: int) -> list[Query]:
    return [Query("Which?", (DOT,), id=str(i)) for i in range(n)]


def test_the_pipeline_switches_to_the_agent_where_drafts_are_lost_time() -> None:
    made = pipe(0.004, 0.001, margin=2.0, speculate="auto")
    results = made([*queries(200)])
    assert all(result.answer == "red" and result.error is None for result in results)
    assert [r.query_id for r in results] == [str(i) for i in range(200)]
    assert not made.costs.speculating
    late = results[120:]
    assert sum(r.draft is None for r in late) > len(late) / 2
    report = made.run(queries(8))
    assert len(report.results) == 8 and report.seconds > 0


def test_the_pipeline_goes_on_speculating_where_it_pays() -> None:
    made = pipe(0.0005, 0.004, margin=12.0, speculate="auto")
    results = made(queries(200))
    assert made.costs.speculating
    straight_ones = [r for r in results if r.draft is None]
    assert all(r.route == "draft" for r in results if r.draft is not None)
    assert 24 <= len(straight_ones) <= 80, "a trial learns what the agent costs alone"


def test_always_means_always_and_a_loss_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    made = pipe(0.004, 0.001, margin=2.0, speculate="always")
    with caplog.at_level(logging.WARNING, logger="speceyes.pipeline.costs"):
        results = made(queries(120))
    assert all(r.draft is not None for r in results)
    assert sum("the agent alone is faster" in r.getMessage().lower() for r in caplog.records) == 1


def test_a_loss_is_told_in_time_without_reckoning_for_every_batch(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    reckoned: list[int] = []
    reckon = Ledger.reckon

    def counted(self: Ledger) -> Any:
        reckoned.append(len(self.spent))
        return reckon(self)

    monkeypatch.setattr(Ledger, "reckon", counted)
    model, told = CostModel(), []
    with caplog.at_level(logging.WARNING, logger="speceyes.pipeline.costs"):
        for at in range(640):
            gains = at < 320
            model.note(rejected(1.0 if gains else 0.001, judge=0.01, draft=0.01))
            model.note(accepted(judge=0.01, draft=0.01))
            model.warn()
            told += [at] * (len(caplog.records) - len(told))
    assert reckoned[0] == ENOUGH, "as soon as there is enough to go by"
    assert len(reckoned) <= 2 * 640 / ENOUGH
    [at] = told
    assert 320 <= at < 320 + 128 + ENOUGH, "once the window holds the loss alone"


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="speculate='never'"):
        pipe(0.0, 0.0, margin=9.0, speculate="never")


# --- the agent alone ------------------------------------------------------------------------


def test_a_loss_is_never_told_as_a_gain_where_the_agent_is_not_known_alone() -> None:
    """Accepted queries are quick for the agent too: fallbacks alone say 1.58, and it is 0.75."""
    random = np.random.default_rng(5)
    model, probed = CostModel(), CostModel()
    for _ in range(200):
        slow, quick = (float(s * random.lognormal(-0.02, 0.2)) for s in (1.0, 0.12))
        for one in (model, probed):
            one.note(accepted(0.3, 0.1))
            one.note(rejected(slow, 0.3, 0.1))
        probed.note(straight(slow))
        probed.note(straight(quick))
    found = model.efficiency()
    assert found.gain is None and found.interval is None and found.l_agent is None
    assert found.at_most is not None and found.at_most > 1
    known = probed.efficiency()
    assert known.gain == pytest.approx(0.56 / 0.9, rel=0.1)
    assert known.interval is not None and known.interval[1] < 1


def test_a_bound_ends_speculation_but_never_takes_it_up() -> None:
    model = CostModel()
    for _ in range(2 * ENOUGH):
        model.note(rejected(1.0, judge=0.9, draft=0.9))
        model.note(accepted(judge=0.9, draft=0.9))
    model.plan(4)
    assert not model.speculating
    for _ in range(2 * ENOUGH):
        model.note(rejected(1.0, judge=0.01, draft=0.01))
        model.note(accepted(judge=0.01, draft=0.01))
    for _ in range(20):
        model.plan(4)
    assert not model.speculating


def test_a_share_is_sent_to_the_agent_alone_to_learn_what_it_costs() -> None:
    model = FakeModel("<answer>red</answer>")
    made = SpecPipeline(
        answerer=SpeculativeAnswerer(FakeModel("red", margin=12.0)),
        gate=SeparabilityGate(0.9),
        fallback=AgenticFallback(model, tools=["zoom"]),
        schedule=ScheduleConfig(batch_size=8, probe=0.3),
    )
    report = made.run(queries(240))
    direct = [r for r in report.results if r.draft is None]
    assert 24 <= len(direct) <= 130 and {r.route for r in direct} == {"agent"}
    assert report.efficiency.gain is not None and not report.efficiency.assumed
    with pytest.raises(ConfigError, match="probe"):
        ScheduleConfig(probe=1.0)


def test_the_forecast_is_made_of_its_parts() -> None:
    from speceyes.bench.expected import CostParts

    results = [accepted()] * 6 + [rejected(2.0)] * 2 + [sent(3.0)] * 2
    parts = CostParts.of(results, wall=15.0)
    # c_J + beta c_S + (1 - beta alpha) L + o
    assert parts.outside == pytest.approx(0.24)
    assert parts.expected == pytest.approx(0.1 + 0.8 * 0.2 + 0.4 * 2.5 + 0.24)
    both = CostParts.pooled([parts, CostParts.of([accepted()] * 10, wall=3.0)])
    assert both.expected == pytest.approx(18.0 / 20)
    assert CostParts.of(results, wall=1.0).outside == 0  # phases beside each other


def test_efficiency_is_shown_in_one_line() -> None:
    found = efficiency([accepted()] * 6 + [rejected(2.0)] * 2 + [sent(3.0)] * 2, seconds=20.0)
    assert repr(found) == (
        "Efficiency(10 queries, beta=0.8, alpha=0.75, predicted at most 1.30x, speculated=2 s)"
    )
    known = dataclasses.replace(found, gain=1.5, interval=(1.25, 1.75), l_agent=3.0, measured=1.4)
    assert repr(known) == (
        "Efficiency(10 queries, beta=0.8, alpha=0.75, predicted=1.50x (1.25 to 1.75), "
        "measured=1.40x, agent=3 s, speculated=2 s)"
    )
    assert repr(efficiency([])) == "Efficiency(0 queries)"
