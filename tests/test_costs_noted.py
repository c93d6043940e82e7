"""Which costs of a query are noted and which queries count, and what "auto" goes by."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
from typing import Any

import pytest
from PIL import Image

from speceyes.errors import ConfigError
from speceyes.fallback import AgenticFallback
from speceyes.judge import ToolJudge
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline.costs import WINDOW, CostModel, efficiency
from speceyes.pipeline.efficiency import ENOUGH, Ledger, Spent, Straight, logged
from speceyes.pipeline.parts import Parts
from speceyes.pipeline.request import RequestState
from speceyes.pipeline.speculation_switch import LEAST, RECENT, Prediction, SpeculationSwitch
from speceyes.types import Completion, Judgement, Query, Result, Step, Timings, Trajectory, Verdict

YES, NO = Verdict(True, 0.99, 9.0, 0.98), Verdict(False, 0.5, 0.0, 0.98)


def served(places: int, *, judges: bool = False) -> Parts:
    """An agent with so many places, whose own model judges, or nothing does."""
    agent = ScriptedModel("<answer>red</answer>")
    judge = ToolJudge(agent, dialect=None) if judges else None
    return Parts(judge, fallback=AgenticFallback(agent, tools=["zoom"], max_batch=places))


def result(judge: float | None = None, **options: Any) -> Result:
    steps = options.pop("steps", ())
    said = None
    if judge is not None:
        said = Judgement(options.pop("tools", False), completion=options.pop("completion", None))
    trajectory = Trajectory(tuple(steps), "red", "answered") if steps else None
    verdict, route = options.pop("verdict", NO), options.pop("route", "agent")
    spent = Timings(judge=judge, **options)
    return Result("", "red", route, said, None, verdict, trajectory, timings=spent)


def kept(model: CostModel, **options: Any) -> Ledger:
    """The costs that a model reckons by."""
    seen: list[Ledger] = []

    def reckon(self: Ledger, *args: Any) -> Any:
        seen.append(self)
        return original(self, *args)

    original = Ledger.reckon
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "reckon", reckon)
        model.efficiency(**options)
    return seen[0]


def test_a_query_is_noted_with_all_that_it_tells() -> None:
    steps = [Step("a", tokens=7, prompt_tokens=100), Step("b", tokens=5, prompt_tokens=130)]
    steps[1] = dataclasses.replace(steps[1], cached_tokens=110)
    said = Completion("no", prompt_tokens=90, cached_tokens=30)
    model = CostModel()
    model.serve(served(5, judges=True))
    drafted = {"draft": 0.2, "gate": 0.01, "fallback": 2.0}
    model.note(result(0.1, completion=said, steps=steps, **drafted), agent_alone=False)
    model.note(result(0.1, draft=0.2, verdict=YES, route="draft"), stage_alone=False)
    model.note(result(0.1, tools=True, fallback=3.0, verdict=None))
    model.note(result(verdict=None, fallback=4.0, steps=steps[:1]))
    seen = kept(model)
    first, second, third = seen.spent
    assert first == Spent(0.1, 0.2 + 0.01, 2.0, False, True, True, False, 120, 12, 60)
    assert second == Spent(0.1, 0.2, None, True, True, False, True, 0, 0, 0)
    assert third == Spent(0.1, None, 3.0, False, False, True, True, 0, 0, 0)
    assert seen.straight == [Straight(4.0, 100, 7)] and seen.by_itself == [first, third]
    assert seen.same_model and seen.places == 5
    unheard = dataclasses.replace(said, cached_tokens=None)
    over = [dataclasses.replace(steps[0], cached_tokens=101)]  # an engine that counts otherwise
    model.note(result(0.1, completion=unheard, steps=over, **drafted))
    model.note(result(0.1, completion=dataclasses.replace(said, cached_tokens=91), **drafted))
    *_, one, other = kept(model).spent
    assert (one.judged, one.read, one.written) == (90, 0, 7) and other.judged == 0
    model.note(result(draft=0.2, verdict=YES, route="draft"))
    assert kept(model).spent[-1].drafted, "without a judge all are"


def test_a_request_is_recorded_with_what_ran_beside_it() -> None:
    model = CostModel()
    model.serve(Parts())
    assert (model.same_model, model.places) == (False, 1), "nobody answers"
    for stage, agent in ((True, False), (False, True)):
        request = RequestState(Query("?", (Image.new("RGB", (8, 8)),)))
        request.stage_alone, request.agent_alone = stage, agent
        request.result = result(draft=0.2, fallback=2.0)
        model.record(request)
        assert (model_spent := kept(model).spent[-1]).stage_alone is stage
        assert model_spent.agent_alone is agent
    request.straight, request.agent_alone = 0, True
    request.result = result(verdict=None, fallback=2.0)
    model.record(request)
    assert kept(model).straight == [Straight(2.0)]


def test_what_failed_or_ran_beside_others_tells_nothing_of_the_agent_alone() -> None:
    model = CostModel()
    model.note(result(0.1, fallback=1.0, route="error"))
    model.note(result(verdict=None, fallback=1.0), agent_alone=False)
    model.note(result(verdict=None))
    seen = kept(model)
    assert (seen.spent, seen.straight, seen.by_itself) == ([], [], [])
    assert (seen.same_model, seen.places) == (False, 1), "until it is told"
    model.note(result(verdict=None, fallback=1.0), stage_alone=False)
    assert kept(model).straight == [Straight(1.0)]


def test_probes_count_but_for_the_first_and_the_last_of_a_block() -> None:
    model = CostModel()
    model.serve(served(8))
    planned = model.probe(400, 0.9)
    assert planned == [False] * 400 and model.going_straight
    numbers = [model.next_straight() for _ in range(48)]
    assert numbers == list(range(48))
    for number in numbers:
        model.note(result(verdict=None, fallback=float(number)), straight=number)
    # 8 places fill first, then 32 count; what was sent beyond them is of no block.
    assert [one.seconds for one in kept(model).straight] == list(map(float, range(8, 40)))
    assert model.going_straight, "until the next plan"
    assert all(len(set(model.probe(8, 0.001))) == 1 for _ in range(3))
    assert not model.going_straight and model.speculating


def test_places_that_are_told_later_hold_for_the_switch_too() -> None:
    model = CostModel()
    assert not model.going_straight and model.speculating
    assert model.probe(8, 1e-9) == [True] * 8
    model.serve(served(2))
    assert model.probe(100, 0.9) == [False] * 100
    for _ in range(40):
        number = model.next_straight()
        model.note(result(verdict=None, fallback=float(number)), straight=number)
    assert [one.seconds for one in kept(model).straight] == list(map(float, range(2, 34)))


def test_a_failed_probe_is_over_too() -> None:
    model = CostModel()
    model.serve(served(1))
    model.probe(100, 0.9)
    numbers = [model.next_straight() for _ in range(33)]
    for number in numbers:
        model.note(result(verdict=None, route="error"), straight=number)
    assert model.probe(1, 1e-9) == [True] and not model.going_straight


@pytest.mark.parametrize(("window", "most"), [(WINDOW, 256), (5, 5), (None, 300), (1, 1)])
def test_the_latest_of_each_kind_count(window: int | None, most: int) -> None:
    model = CostModel() if window == WINDOW else CostModel(window)
    for at in range(300):
        model.note(result(draft=0.1, fallback=float(at)))
        model.note(result(verdict=None, fallback=float(at)))
    seen = kept(model)
    latest = [float(at) for at in range(300 - most, 300)]
    assert [one.fallback for one in seen.spent] == latest
    assert [one.seconds for one in seen.straight] == latest
    by_itself = [one.fallback for one in seen.by_itself]
    assert by_itself == [float(at) for at in range(300 - ENOUGH, 300)]


def test_results_at_hand_count_all_and_share_the_wall_time() -> None:
    told = [result(draft=0.5, fallback=0.5)] * 300 + [result(verdict=None, route="error")] * 100
    found = efficiency(told, 400.0)
    assert found.queries == 300 and found.outside == pytest.approx(100 / 400)
    assert found.measured == pytest.approx((found.l_agent or 0) / 1.0)
    assert efficiency(told, 0.25).outside is None, "phases ran beside each other"
    with pytest.raises(ConfigError, match="above 0"):
        efficiency(told, -1.0)


# --- what "auto" goes by --------------------------------------------------------------------------


def decided(model: CostModel, plans: int = 1) -> list[Prediction | None]:
    """What the switch is told by the next plans."""
    told: list[Prediction | None] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SpeculationSwitch, "decide", lambda self, found: told.append(found))
        for _ in range(plans):
            model.plan(1)
    return told


def noted(spent: int, straight: int = 0, *, accepted: int = 0) -> CostModel:
    model = CostModel()
    for at in range(spent):
        answered = {"verdict": YES, "route": "draft"} if at < accepted else {"fallback": 1.0}
        model.note(result(draft=0.25 + at % 2, **answered))
    for at in range(straight):
        model.note(result(verdict=None, fallback=2.0 + at % 2))
    return model


@pytest.mark.parametrize("spent", [LEAST - 1, LEAST])
@pytest.mark.parametrize("straight", [LEAST - 1, LEAST])
def test_a_prediction_needs_the_least_of_either_kind(spent: int, straight: int) -> None:
    [told] = decided(noted(spent, straight))
    assert (told is not None) == (spent == straight == LEAST)


@pytest.mark.parametrize("spent", [ENOUGH - 1, ENOUGH])
@pytest.mark.parametrize("fallbacks", [LEAST - 1, LEAST])
def test_fallbacks_bound_the_gain_where_there_are_enough(spent: int, fallbacks: int) -> None:
    model = noted(spent, accepted=spent - fallbacks)
    [told] = decided(model)
    if (spent, fallbacks) != (ENOUGH, LEAST):
        assert told is None
        return
    assert told is not None and told.bound and told.queries == ENOUGH
    costs = [one.all for one in kept(model).spent]
    assert (told.log_gain, told.deviation) == pytest.approx(logged([1.0] * LEAST, costs))


def test_the_latest_queries_tell_the_gain_of_now() -> None:
    model = noted(0)
    for at in range(3 * RECENT):
        model.note(result(draft=9.0 if at < 2 * RECENT else 1.0 + at % 2))
    for _ in range(LEAST):
        model.note(result(verdict=None, fallback=3.0))
    [told] = decided(model)
    assert told is not None and not told.bound and told.queries == RECENT
    costs = [1.0 + at % 2 for at in range(2 * RECENT, 3 * RECENT)]
    assert (told.log_gain, told.deviation) == pytest.approx(logged([3.0] * LEAST, costs))
    assert math.exp(told.log_gain) == pytest.approx(2.0)


def test_queries_of_before_a_look_do_not_count_for_it() -> None:
    """After a loss: the switch asks anew only by what was speculated on since the look began."""
    model = noted(2 * ENOUGH)
    for _ in range(LEAST):
        model.note(result(verdict=None, fallback=0.1))
    model.plan(1)
    assert not model.speculating
    while not model.plan(16)[0]:
        assert model.going_straight
    assert not model.going_straight
    assert decided(model) == [None], "nothing of the look has come back"
    for at in range(LEAST):
        model.note(result(draft=0.01 + 0.01 * (at % 2), verdict=YES, route="draft"))
    [told] = decided(model)
    assert told is not None and told.queries == LEAST and told.wins


def test_a_loss_is_said_with_its_figures_and_no_gain_is(caplog: pytest.LogCaptureFixture) -> None:
    known, bound = CostModel(), CostModel()
    with caplog.at_level(logging.WARNING, logger="speceyes.pipeline.costs"):
        for at in range(ENOUGH):
            known.note(result(draft=1.0 + at % 2, verdict=YES, route="draft"))
            known.warn()
            known.note(result(verdict=None, fallback=0.3))
            known.warn()
            bound.note(result(0.5, draft=0.5, fallback=0.25 + 0.01 * (at % 2)))
            bound.warn()
    first, second = (record.getMessage() for record in caplog.records)
    assert {"0.20x", "0.60x"} == {text.split("gain ")[1].split()[0] for text in (first, second)}
    caplog.clear()
    even = CostModel()
    with caplog.at_level(logging.WARNING, logger="speceyes.pipeline.costs"):
        for at in range(4 * ENOUGH):
            even.note(result(draft=1.0 + at % 2, verdict=YES, route="draft"))
            even.note(result(verdict=None, fallback=1.49 + 0.01 * (at % 2)))
            even.warn()
    assert not caplog.records, "1 lies within the interval"


@pytest.mark.parametrize("seconds", [0.0, math.nan])
def test_a_clock_that_tells_no_time_ends_no_planning(seconds: float) -> None:
    """Costs of nothing say nothing about a gain, whichever of them is nothing."""
    for draft, fallback, alone in itertools.product((seconds, 1.0), repeat=3):
        for straight in (True, False):
            model = CostModel()
            for _ in range(2 * ENOUGH):
                model.plan(1)
                model.note(result(draft=draft, fallback=fallback))
                if straight:
                    model.note(result(verdict=None, fallback=alone))
            assert len(model.plan(4)) == 4
            assert model.efficiency().queries
