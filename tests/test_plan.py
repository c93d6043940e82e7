"""The capacity model, its simulation against exact results of queueing, and the command."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes.bench.plan.forecast import Costs, Fleet, forecast, occupancy
from speceyes.bench.plan.simulation import SMALL, simulate, works_of
from speceyes.bench.plan.sizing import sized
from speceyes.cli import parser
from speceyes.errors import ConfigError

PAPER = Costs(beta=0.8, alpha=0.7, c_judge=0.05, c_draft=0.04, l_tools=1.0, l_rejected=1.2)


def _run(*arguments: str) -> int:
    options = parser().parse_args(["plan", *arguments])
    code: int = options.run(options)
    return code


FLEETS = [
    (Fleet(1, 1), 0.3),
    (Fleet(1, 1), 0.7),
    (Fleet(4, 1, servers=2), 0.5),
    (Fleet(4, 2, servers=4), 0.75),
    (Fleet(2, 0, servers=2, gain=2.0), 0.65),
    (Fleet(3, 1, servers=2, slots=32, gain=12.0, batch=32), 0.6),
    (Fleet(2, 1, slots=8, gain=8.0), 0.4),  # calls don't hinder each other
]


@pytest.mark.parametrize(("fleet", "busy"), FLEETS)
@pytest.mark.parametrize("small_judge", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
def test_replicas_do_the_work_that_comes(fleet: Fleet, busy: float, small_judge: bool) -> None:
    costs = replace(PAPER, small_judge=small_judge)
    whole = costs.large + (0 if fleet.small else costs.small)
    rate = busy * fleet.large * fleet.gain / whole
    told, played = forecast(costs, rate, fleet), simulate(costs, rate, fleet, queries=3000)
    assert told.busy_large == pytest.approx(busy)
    assert played.busy_large == pytest.approx(busy, rel=0.08)
    assert played.busy_small == pytest.approx(told.busy_small, rel=0.08)
    assert told.mean == pytest.approx(played.mean, rel=0.1), "fewer of the same kind"
    assert told.drafted < told.mean < told.by_agent and told.p50 < told.p95


def with_reading(share: float, slots: int = 64) -> Fleet:
    """One replica that reads for so much of a call's time."""
    return Fleet(1, 0, 1, slots, slots / (1 + share * (slots - 1)), 64)


@pytest.mark.parametrize(
    ("read", "busy"),
    [
        (0.3, 0.6),
        (0.9, 0.5),
        *(pytest.param(*one, marks=pytest.mark.exhaustive) for one in ((0.3, 0.3), (0.6, 0.5))),
    ],
)
def test_reading_is_an_m_d_1_queue_and_writing_waits_for_all_of_it(
    read: float, busy: float
) -> None:
    """Pollaczek and Khinchine: who comes finds V = R / (1 - busy) seconds to be read, R = busy
    read / 2. Who was read leaves behind those that came meanwhile, (2 - busy) V seconds. Writing,
    which all that is read goes before, takes (write + what it finds) / (1 - busy): the lowest of
    two preemptive priorities, which does not queue for itself.
    """
    costs = Costs(beta=0, alpha=0, c_judge=0, c_draft=0, l_tools=1.0, spread=0.0)
    told = simulate(costs, busy / read, with_reading(read), queries=40_000)
    found = busy * read / 2 / (1 - busy)
    written = (1 - read + (2 - busy) * found) / (1 - busy)
    assert told.mean == pytest.approx(found + read + written, rel=0.04)


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_shares_of_batches_are_shared_equally(spread: float) -> None:
    """A shared processor: work / (1 - busy), however the work is spread."""
    costs = Costs(beta=0, alpha=0, c_judge=0, c_draft=0, l_tools=1.0, spread=spread)
    told = simulate(costs, 0.5, Fleet(1, 0, 1, 64, 1.0, 64), queries=40_000)
    assert told.mean == pytest.approx(2.0, rel=0.06)


def test_places_that_are_full_are_waited_for() -> None:
    """Erlang: with 4 places at 3 erlangs half of all wait, M/D/4 about half as long as M/M/4."""
    costs = Costs(beta=0, alpha=0, c_judge=0, c_draft=0, l_tools=1.0, spread=1.0)
    told = simulate(costs, 3.0, Fleet(1, 0, 1, 4, 4.0, 4), queries=40_000)
    assert told.mean == pytest.approx(1 + 0.5094, rel=0.06)  # C(4, 3) / (4 - 3)
    fixed = simulate(replace(costs, spread=0.0), 3.0, Fleet(1, 0, 1, 4, 4.0, 4), queries=40_000)
    assert 1 + 0.4 * 0.5094 < fixed.mean < 1 + 0.7 * 0.5094


def test_what_two_engines_share_takes_turns() -> None:
    """A draft's steps wait for the agent's where both write on one accelerator."""
    costs = replace(PAPER, small_judge=True, c_judge=0.01, agent_tokens=200.0)
    apart, waits = (
        forecast(replace(costs, draft_tokens=tokens), 1.5, Fleet(1, 0, gain=8.0))
        for tokens in (0.0, 10.0)
    )
    alone = forecast(replace(costs, draft_tokens=10.0), 1.5, Fleet(1, 1, gain=8.0))
    assert waits.drafted > apart.drafted + 0.02 and alone.drafted < apart.drafted + 0.01


def test_reading_falls_to_who_reads_first() -> None:
    fleet = Fleet(1, 0, gain=4.0)
    judge, draft, agent, step = works_of(replace(PAPER, agent_tokens=100.0), fleet)
    assert (judge.read, draft.read) == (PAPER.c_judge, PAPER.c_draft) and judge.write == 0
    every = judge.read + PAPER.beta * draft.read + (1 - PAPER.beta * PAPER.alpha) * agent
    assert every == pytest.approx(fleet.slow * (PAPER.large + PAPER.small))
    assert 0 < step < PAPER.rejected / 100
    judge, draft, _, _ = works_of(replace(PAPER, small_judge=True), Fleet(1, 1, gain=16.0))
    assert (judge.model, judge.read, draft.read) == (SMALL, 0.0, 0.0), "nothing hinders others"


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
    fleet, told = sized(costs, rate, Fleet(1, 0 if shared else 1), busy=busy, queries=400)
    assert told.stable and (fleet.small == 0) == shared
    assert max(told.busy_large, told.busy_small, told.busy_front) <= busy
    alone = judge + (draft if beta > 0 else 0)
    assert told.mean >= 0.99 * judge and told.p95 >= told.p50 >= 0.9 * min(judge, alone)
    more, _, _ = occupancy(costs, rate, Fleet(fleet.large + 1, fleet.small, fleet.servers))
    assert more < told.busy_large


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
        lambda: Costs(0.5, 0.5, "0.1", 0.1, 1.0),  # type: ignore[arg-type]
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
    assert _run(*costs, "--rate", "20", "--queries", "2000", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["forecast"]["p95"] > told["forecast"]["mean"] > 0.05
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
    tuned = {"costs": alone, "best": {"setting": {"judge": "small"}}}
    file.write_text(json.dumps(tuned))
    assert _run("--from", str(file), "--rate", "0.3", "--json") == 0
    assert json.loads(capsys.readouterr().out)["costs"]["small_judge"] is True
    for best in (None, "small", {"setting": None}, {"setting": {"judge": ["small"]}}, {}):
        file.write_text(json.dumps({"costs": alone, "best": best}))
        assert _run("--from", str(file), "--rate", "0.3", "--queries", "200", "--json") == 0
        assert json.loads(capsys.readouterr().out)["costs"]["small_judge"] is False
    wrong = json.dumps({"costs": {**alone, "beta": "most"}})
    for text in ("{", "{}", '{"alone": {"beta": 0.5}}', wrong):
        file.write_text(text)
        with pytest.raises(ConfigError):
            _run("--from", str(file), "--rate", "3")
