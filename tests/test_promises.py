"""Promises on what is handed over, and forecasts on the bundled pair, by their commands."""

from __future__ import annotations

import re
from typing import Any

import pytest

from speceyes.bench import forecasts
from speceyes.bench.promises import handed, measures
from speceyes.errors import ConfigError


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


def test_thirteen_ways_each_with_a_name_of_its_own() -> None:
    assert len({str(case) for case in forecasts.CASES}) == len(forecasts.CASES) == 13


def test_a_pilot_that_is_too_short_is_refused() -> None:
    with pytest.raises(ConfigError, match="31 queries tried and 31 measured"):
        forecasts.main(["--queries", "31"])
