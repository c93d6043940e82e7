"""The list of faults that change nothing names lines that are there."""

from __future__ import annotations

from pathlib import Path

from support.equivalent_mutants import EQUIVALENT

SOURCE = Path(__file__).parents[1] / "src" / "speceyes"


def test_each_fault_that_changes_nothing_is_of_a_line_that_is_there() -> None:
    lines = {
        file: {line.strip() for line in (SOURCE / file).read_text(encoding="utf-8").splitlines()}
        for file, _, _ in EQUIVALENT
    }
    gone = [key for key in EQUIVALENT if lines[key[0]].isdisjoint(key[1:])]
    assert not gone, "a line was changed: say again whether the fault in it changes nothing"
    assert all(reason for reason in EQUIVALENT.values())
