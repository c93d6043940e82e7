"""Promises on what is handed over, and forecasts on the bundled pair, by their commands."""

from __future__ import annotations

import re
from typing import Any

import pytest

from speceyes.bench import forecasts
from speceyes.bench.promises import handed, measures
from speceyes.errors import ConfigError
from speceyes.pipeline.costs import CostModel
from speceyes.pipeline.efficiency import ENOUGH
from speceyes.types import Judgement, Result, Timings, Verdict


@pytest.mark.parametrize(
    "experiment",
    [
        lambda: handed.as_many_more_as_told(30, 400),
        lambda: handed.another_judge(12, 900),
        handed.other_labels,
        handed.edited_file,
        handed.unseen_category,
        lambda: handed.copies(30),
        handed.graded,
        measures.parts_of_a_forecast,
    ],
)
def test_what_was_promised_of_what_is_handed_over_is_kept(experiment: Any) -> None:
    found = experiment()
    assert found.kept, found


@pytest.mark.exhaustive  # what it is made of is tested below
def test_forecasts_are_told_beside_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    forecasts.main(["--queries", "32", "--only", "no judge, 32"])
    head, rule, row, _, last = capsys.readouterr().out.splitlines()
    assert head.count("|") == rule.count("|") == row.count("|")
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[0] == "no judge, 32 at once"
    told, measured = map(float, cells[1].split(", "))
    assert told > 0 and float(cells[2].rstrip("%")) == pytest.approx(
        100 * (told / measured - 1), abs=0.5
    )
    assert re.fullmatch(r"[\d.]+x \([\d.]+ to [\d.]+\), [\d.]+x", cells[4])
    assert re.fullmatch(r"[01] of 1 forecasts of E\[L\] within 10%\.", last)


def test_what_a_phase_costs_by_itself_is_the_mean_of_its_latest_queries() -> None:
    """Not of all, since the first are slow, and not of the last one alone."""
    model, said = CostModel(), Verdict(True, 0.99, 9.0, 0.98)

    def note(judge: float, *, alone: bool) -> None:
        spent = Timings(judge=judge, draft=0.1, gate=0.0)
        one = Result("", "red", "draft", Judgement(False), None, said, timings=spent)
        model.note(one, stage_alone=alone)

    model.note(Result("", "red", "agent", timings=Timings(fallback=1.0)))
    for _ in range(40):
        note(5.0, alone=True)
    for number in range(ENOUGH):
        note(0.1 if number % 2 else 0.3, alone=True)
    for _ in range(150):  # beside others, whose work their seconds hold
        note(9.0, alone=False)
    expected = (40 * 5.0 + (ENOUGH + 150) * 0.2) / (40 + ENOUGH + 150)
    assert model.efficiency().c_judge == pytest.approx(expected)


def test_thirteen_ways_each_with_a_name_of_its_own() -> None:
    assert len({str(case) for case in forecasts.CASES}) == len(forecasts.CASES) == 13


def test_a_pilot_that_is_too_short_is_refused() -> None:
    with pytest.raises(ConfigError, match="31 queries tried and 31 measured"):
        forecasts.main(["--queries", "31"])
