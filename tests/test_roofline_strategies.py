"""SpecReason and drafts with depth on scripted engines of real sizes."""

from __future__ import annotations

import pytest

from speceyes.bench.planned import RoutePlan
from speceyes.bench.roofline import strategies
from speceyes.bench.roofline.strategies import StrategyGain, deep_drafts, gains, spec_reason, table
from speceyes.bench.roofline.workload import RooflineWorkload, play
from speceyes.drafting import depth_of
from speceyes.errors import ConfigError


def workload(batch: int = 1, n: int = 12, turn_tokens: int = 128) -> RooflineWorkload:
    routes = RoutePlan(n, beta=1.0, alpha=0.5, depth=2, turn_tokens=turn_tokens)
    return RooflineWorkload("strategies", routes, batch=batch, judge="none")


def test_all_turns_stand_or_none_and_boxes_are_among_them() -> None:
    alone = play(workload(), "never", at_once=1)
    every, hits = spec_reason(workload(), 1.0)
    none, misses = spec_reason(workload(), 0.0)
    assert (hits, misses) == (1.0, 0.0), "both models see images at one size"
    for run in (alone, every, none):
        answers = {r.query_id: (r.answer, len(r.trajectory.steps)) for r in run.results}  # type: ignore[union-attr]
        assert set(answers.values()) == {("a kite", 3)} and len(answers) == 12
    assert every.large is not None and none.large is not None and alone.large is not None
    wrote = [sum(r.written for r in run.large.asked) for run in (every, none, alone)]  # type: ignore[union-attr]
    assert wrote[0] < 0.1 * wrote[2] and wrote[1] == pytest.approx(wrote[2], rel=0.1)
    assert every.seconds < alone.seconds < none.seconds


def test_a_deep_draft_is_made_where_the_first_is_rejected() -> None:
    run = deep_drafts(workload(), 1.0)
    assert len(run.results) == 12 and {r.route for r in run.results} == {"draft"}
    depths = sorted(depth_of(r.draft) for r in run.results if r.draft is not None)
    assert depths == [0] * 6 + [1] * 6
    shut = deep_drafts(workload(), 0.0)
    assert sum(r.route == "agent" for r in shut.results) == 6
    plain = play(workload(), "always", at_once=1)
    assert run.seconds < plain.seconds < shut.seconds, "a look in vain costs"


def test_the_table_has_a_line_for_each() -> None:
    found = gains(4, [1], [16], [0.5])
    assert [(one.name, one.batch, one.turn_tokens) for one in found] == [
        ("SpecReason", 1, 16),
        ("drafts with depth", 1, 16),
    ]
    text = table([*found, StrategyGain("x", 1, 2, 0.5, 3.0, 2.0)])
    assert text.count("\n") == 4 and "| x | 1 | 2 | 50 % | 1.50x |  |" in text
    with pytest.raises(ConfigError, match="at least one of each"):
        gains(4, [], [16], [0.5])
    assert strategies.SHARES and strategies.TURNS
