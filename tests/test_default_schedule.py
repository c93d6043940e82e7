"""Whether a pipeline that isn't told to speculate does so: always in one process, and over an
engine while it pays.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest

from speceyes import SpecPipeline
from speceyes.answerer import SpeculativeAnswerer
from speceyes.bench.arms import Speech, engine_arms
from speceyes.bench.counted import CountedModel
from speceyes.bench.roofline.defaults import main, play_built, speeds
from speceyes.bench.roofline.workload import eight
from speceyes.cli import parser
from speceyes.errors import ConfigError
from speceyes.evaluation.context import EvalContext
from speceyes.fallback import AgenticFallback
from speceyes.gate import SeparabilityGate
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import ScheduleConfig
from speceyes.pipeline.reference import as_published
from speceyes.pipeline.settings_reading import read_section
from speceyes.pipeline.speculation_switch import Prediction, SpeculationSwitch


class Served:
    """A scripted model that an engine serves, as far as a pipeline sees."""

    engine: str | None = "openai"

    def __init__(self, says: str) -> None:
        self._says = ScriptedModel(says)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._says, name)


HERE, SERVED = ScriptedModel("<answer>red</answer>"), Served("<answer>red</answer>")


@pytest.mark.parametrize(
    ("large", "small", "judge", "taken"),
    [
        (HERE, ScriptedModel("red"), "large", "always"),
        (lambda query: "red", ScriptedModel("red"), None, "always"),
        (SERVED, ScriptedModel("red"), "large", "auto"),
        (SERVED, ScriptedModel("red"), None, "auto"),
        (HERE, Served("red"), "small", "auto"),
        (CountedModel(SERVED), ScriptedModel("red"), "large", "auto"),  # as through any wrapper
    ],
)
def test_an_engine_is_speculated_before_while_that_pays(
    large: Any, small: Any, judge: Any, taken: str
) -> None:
    pipe = SpecPipeline.from_pretrained(large, small, judge=judge)
    assert pipe.schedule.speculate is None and pipe.parts.speculate == taken


@pytest.mark.parametrize(("engine", "taken"), [("vllm", "auto"), (None, "always")])
def test_a_rung_may_be_served_and_no_engine_is_none(engine: Any, taken: str) -> None:
    rung, gate = Served("red"), SeparabilityGate(0.9)
    rung.engine = engine
    pipe = SpecPipeline(
        answerer=SpeculativeAnswerer(ScriptedModel("red")),
        gate=gate,
        fallback=AgenticFallback.from_callable(lambda query: "red"),
        ladder=[(SpeculativeAnswerer(rung), gate)],
    )
    assert pipe.parts.speculate == taken


@pytest.mark.parametrize("told", ["always", "auto"])
@pytest.mark.parametrize("large", [HERE, SERVED])
def test_what_is_said_holds_anywhere(told: Any, large: Any) -> None:
    schedule = ScheduleConfig(speculate=told)
    pipe = SpecPipeline.from_pretrained(large, ScriptedModel("red"), schedule=schedule)
    assert pipe.parts.speculate == told


def test_a_share_that_is_probed_goes_with_speculating_always() -> None:
    schedule = ScheduleConfig(probe=0.1)
    pipe = SpecPipeline.from_pretrained(SERVED, ScriptedModel("red"), schedule=schedule)
    assert pipe.parts.speculate == "always"


def test_measurements_speculate_always_over_engines_too() -> None:
    """The same questions take the same routes, however long they take."""
    thresholds = {"min": 0.9, "deep": 0.9}
    context = EvalContext(SERVED, Served("red"), thresholds, 8, 8, looker=Served("red"))
    pipes = [context.funnel("min"), context.deep_funnel(), context.one_pass()]
    default = SpecPipeline.from_pretrained(SERVED, Served("red"))
    pipes += [as_published(default)]
    models = CountedModel(SERVED), CountedModel(Served("red"))
    speech = Speech(("zoom",), "deepeyes")
    for arm in engine_arms(*models, SeparabilityGate(0.9), speech, batch=4):
        pipes.append(arm.run.__self__)  # type: ignore[attr-defined]
    assert len(pipes) > 8 and default.parts.speculate == "auto"
    assert {pipe.parts.speculate for pipe in pipes if pipe.gate is not None} == {"always"}


def test_commands_leave_it_to_the_schedule_but_servers() -> None:
    told = {
        command: parser().parse_args([command, *words]).speculate
        for command, words in (("ask", ["x.png", "What?"]), ("serve", []), ("mcp", []))
    }
    assert told == {"ask": None, "serve": "auto", "mcp": "auto"}


def test_a_settings_file_may_leave_it_to_the_schedule() -> None:
    assert read_section("schedule", {"speculate": None}, ScheduleConfig) == ScheduleConfig()
    for wrong in ("never", True, 1, ""):
        with pytest.raises(ConfigError, match="or None"):
            ScheduleConfig(speculate=wrong)  # type: ignore[arg-type]


def test_giving_up_is_told_once_where_everybody_sees_it(caplog: pytest.LogCaptureFixture) -> None:
    switch, loss, gain = SpeculationSwitch(), Prediction(-0.5, 0.01, 64), Prediction(0.5, 0.01, 64)
    with caplog.at_level(logging.INFO, logger="speceyes.pipeline.speculation_switch"):
        for found in (loss, gain, loss):  # a trial, or another, and what it has shown
            while switch.plan(16) != [True] * 16:
                pass
            for _ in range(16):
                switch.speculated()
            while any(switch.plan(1)):
                pass
            for _ in range(128):
                switch.concluded(switch.next_straight())
            switch.decide(found)
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "INFO", "INFO"], [r.getMessage() for r in caplog.records]
    assert "speculate='always' keeps on" in caplog.records[0].getMessage()


@pytest.mark.parametrize(
    "at", [2, pytest.param(4, marks=pytest.mark.exhaustive)], ids=["large judge", "small judge"]
)
def test_the_default_does_not_lose_over_an_engine_where_speculation_does(at: int) -> None:
    workload = eight(640)[at]
    found = speeds(workload)
    assert found.always < 0.9 and found.default >= 0.98
    assert found.speculated <= 64 < found.queries


def test_the_command_shows_a_line_for_each_workload(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--queries", "12", "--batch-size", "4"]) == 0
    said = capsys.readouterr().out
    assert all(f"| {workload.name} |" in said for workload in eight(1))
    agent = play_built(eight(12, 4)[0], "agent")
    assert all(one.route == "agent" and not one.straight for one in agent.results)
