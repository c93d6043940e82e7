"""A batch that fails: the rows are told apart, and a defect of the code is said once."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from speceyes.models.rows import retry_per_row


def test_a_defect_that_hits_every_row_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[int] = []

    def ask(rows: Sequence[int]) -> list[str]:
        asked.append(len(rows))
        raise AttributeError("'Output' object has no attribute 'to_tuple'")

    found = retry_per_row(ask, [1, 2, 3], lambda why: why)
    assert len(set(found)) == 1 and "to_tuple" in found[0]
    assert "the same for all 3 rows" in found[0] and "not of a query" in found[0]
    assert asked == [3, 1, 1, 1]
    [said] = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert said.exc_info


@pytest.mark.parametrize("error", [ValueError("no such mode"), AttributeError("shape")])
def test_a_row_that_goes_well_shows_that_it_is_the_others(error: Exception) -> None:
    def ask(rows: Sequence[int]) -> list[str]:
        if any(row < 0 for row in rows):
            raise error
        return [str(row) for row in rows]

    found = retry_per_row(ask, [-1, 5, -2], lambda why: why)
    assert found[1] == "5" and found[0] == found[2]
    assert "the same for all" not in found[0]


def test_failures_of_queries_stay_theirs() -> None:
    def ask(rows: Sequence[int]) -> list[str]:
        raise ValueError(f"row {rows[0]}")

    assert retry_per_row(ask, [1, 2], lambda why: why) == ["ValueError: row 1", "ValueError: row 2"]
