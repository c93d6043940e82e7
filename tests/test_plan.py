"""The capacity model, held against a simulation of the same fleet, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes.bench.plan.forecast import Costs, Fleet, forecast
from speceyes.bench.plan.simulation import simulate
from speceyes.bench.plan.sizing import sized
from speceyes.cli import parser
from speceyes.errors import ConfigError

PAPER = Costs(beta=0.8, alpha=0.7, c_judge=0.05, c_draft=0.04, l_tools=1.0, l_rejected=1.2)


def _run(*arguments: str) -> int:
    options = parser().parse_args(["plan", *arguments])
    code: int = options.run(options)
    return code


@pytest.mark.parametrize(
    ("fleet", "busy"),
    [
        (Fleet(1, 1), 0.3),
        (Fleet(1, 1), 0.7),
        (Fleet(4, 1, servers=2), 0.5),
        (Fleet(4, 2, servers=4), 0.75),
        (Fleet(2, 0, servers=2, gain=2.0), 0.65),
        (Fleet(3, 1, servers=2, slots=32, gain=12.0, batch=32), 0.6),
        (Fleet(2, 1, slots=8, gain=8.0), 0.4),  # calls don't hinder each other
    ],
)
def test_it_foresees_what_a_simulation_gives(fleet: Fleet, busy: float) -> None:
    whole = PAPER.large + (0 if fleet.small else PAPER.small)
    rate = busy * fleet.large * fleet.gain / whole
    told, played = forecast(PAPER, rate, fleet), simulate(PAPER, rate, fleet, queries=6000)
    assert told.busy_large == pytest.approx(busy)
    assert played.busy_large == pytest.approx(busy, rel=0.08)
    assert told.mean == pytest.approx(played.mean, rel=0.08)
    assert told.by_agent == pytest.approx(played.by_agent, rel=0.08)
    assert 0.92 * played.p95 < told.p95 < 1.25 * played.p95  # rather too long than too short
    assert told.drafted == pytest.approx(played.drafted, rel=0.25)


def test_a_query_alone_takes_its_phases_time() -> None:
    costs = Costs(beta=1.0, alpha=0.5, c_judge=0.1, c_draft=0.2, l_tools=1.0, spread=0.0)
    fleet = Fleet(1, 1)
    for told in (forecast(costs, 1e-6, fleet), simulate(costs, 1e-6, fleet, queries=400)):
        assert told.drafted == pytest.approx(0.3, abs=1e-4)
        assert told.by_agent == pytest.approx(1.3, abs=1e-3)
        assert told.mean == pytest.approx(0.8, abs=0.06)


@given(
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0.001, 0.5),
    st.floats(0.001, 0.5),
    st.floats(0.01, 5),
    st.floats(0.1, 50),
    st.booleans(),
    st.floats(0.3, 0.9),
)
@settings(max_examples=25)
def test_a_fleet_that_is_sized_keeps_its_head_room(
    beta: float,
    alpha: float,
    judge: float,
    draft: float,
    agent: float,
    rate: float,
    shared: bool,
    busy: float,
) -> None:
    costs = Costs(beta, alpha, judge, draft, agent)
    fleet, told = sized(costs, rate, Fleet(1, 0 if shared else 1), busy=busy)
    assert told.stable and (fleet.small == 0) == shared
    assert max(told.busy_large, told.busy_small, told.busy_front) <= busy
    alone = judge + (draft if beta > 0 else 0)
    assert told.mean >= 0.99 * judge and told.p95 >= told.p50 >= 0.9 * min(judge, alone)
    more = forecast(costs, rate, Fleet(fleet.large + 1, fleet.small, fleet.servers))
    assert more.busy_large < told.busy_large


def test_a_p95_is_kept_or_said_to_be_out_of_reach() -> None:
    small, slow = sized(PAPER, 20.0, Fleet(1, 1), busy=0.8)
    large, fast = sized(PAPER, 20.0, Fleet(1, 1), busy=0.8, p95=2.6)
    assert fast.p95 <= 2.6 < slow.p95 and large.large > small.large
    assert simulate(PAPER, 20.0, large, queries=4000).p95 <= 2.6 * 1.05
    with pytest.raises(ConfigError, match="a query alone has"):
        sized(PAPER, 20.0, Fleet(1, 1), p95=0.5)


def test_more_than_it_can_do_is_said() -> None:
    told = forecast(PAPER, 100.0, Fleet(1, 1))
    assert not told.stable and told.busy_large > 1 and math.isinf(told.p95)
    few = forecast(PAPER, 24.0, Fleet(8, 1, servers=1, batch=2))
    assert not few.stable and few.busy_front > 1 > few.busy_large


@pytest.mark.parametrize(
    "make",
    [
        lambda: Costs(1.5, 0.5, 0.1, 0.1, 1),
        lambda: Costs(0.5, 0.5, -0.1, 0.1, 1),
        lambda: Costs(0.5, 0.5, 0.1, 0.1, math.inf),
        lambda: Fleet(0, 1),
        lambda: Fleet(1, 1, gain=0.5),
        lambda: Fleet(1, 1, slots=2, gain=3.0),
        lambda: forecast(PAPER, 0.0, Fleet(1, 1)),
        lambda: simulate(PAPER, 1.0, Fleet(1, 1), queries=3),
        lambda: sized(PAPER, 1.0, Fleet(1, 1), busy=1.0),
        lambda: Costs.of({"beta": 0.5}),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()


def test_the_command_sizes_and_simulates(capsys: pytest.CaptureFixture[str]) -> None:
    costs = "--beta 0.8 --alpha 0.7 --judge 0.05 --draft 0.04 --agent 1".split()
    assert _run(*costs, "--rate", "20", "--simulate", "2000", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["forecast"]["mean"] == pytest.approx(told["simulated"]["mean"], rel=0.1)
    assert told["fleet"]["large"] >= 4
    assert _run(*costs, "--rate", "20", "--large", "1") == 1
    assert "without end" in capsys.readouterr().out
    assert _run(*costs, "--rate", "2", "--shared", "--p95", "3") == 0
    shown = capsys.readouterr().out
    assert "small one's work" in shown and "expected" in shown


def test_the_command_reads_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = {"beta": 0.8, "alpha": 0.7, "c_judge": 0.05, "c_draft": 0.04, "l_tools": 1.0}
    file = tmp_path / "load.json"
    file.write_text(json.dumps({"alone": {**alone, "l_rejected": None}, "full": {"per_s": 10}}))
    assert _run("--from", str(file), "--rate", "3", "--alpha", "0.5", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["costs"]["alpha"] == 0.5 and told["costs"]["l_rejected"] is None
    assert told["fleet"]["gain"] == pytest.approx(10 * (0.05 + 0.44 + 0.032))
    model = {"c_judge_s": 0.1, "c_draft_s": 0.1, "l_agent_on_fallback_s": 1.0}
    file.write_text(json.dumps({"beta": 0.8, "alpha": 0.7, "cost_model": model}))
    assert _run("--from", str(file), "--rate", "3", "--json") == 0
    assert json.loads(capsys.readouterr().out)["fleet"]["gain"] == 1
    file.write_text(
        json.dumps({"beta": 0.8, "alpha": 0.7, "cost_model": {**model, "one_pass": True}})
    )
    assert _run("--from", str(file), "--rate", "3", "--json") == 0
    costs = json.loads(capsys.readouterr().out)["costs"]
    assert (costs["beta"], costs["alpha"]) == (1.0, pytest.approx(0.56)), "all are drafted"
    for text in ("{", "{}", '{"alone": {"beta": 0.5}}'):
        file.write_text(text)
        with pytest.raises(ConfigError):
            _run("--from", str(file), "--rate", "3")
