"""Result of one experiment on a promise, and the table of many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Experiment:
    """A promise put to the test.

    Args:
        name: What was done.
        promised: What must hold.
        before: What was measured without the remedy.
        after: What is measured with it.
        kept: The promise holds, but for chance.
    """

    name: str
    promised: str
    before: str
    after: str
    kept: bool


def table(rows: Iterable[Experiment]) -> str:
    """The rows in Markdown.

    Example:
        >>> print(table([Experiment("a", "<= 10%", "30%", "8%", True)]))
        | experiment | promised | before | after | kept |
        |---|---|---|---|---|
        | a | <= 10% | 30% | 8% | yes |
    """
    lines = ["| experiment | promised | before | after | kept |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (row.name, row.promised, row.before, row.after, "yes" if row.kept else "NO")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
