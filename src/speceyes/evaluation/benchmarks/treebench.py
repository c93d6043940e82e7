"""TreeBench (arXiv 2507.07999): 405 questions on details of crowded pictures, in ten categories.

    TreeBench.tsv

with the columns `index, image` (base64)`, question, multi-choice options` (a text, a line each)`,
answer` (a letter)`, category` ("Perception/OCR", "Reasoning/Ordering" and so on) and
`target_instances` (boxes, which aren't used); some copies have options in columns `A, B, C` too.

The names are those that the authors' and others' evaluation code reads; the file itself was not
looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speceyes.evaluation.benchmarks import _tables
from speceyes.evaluation.benchmarks._gather import Draft
from speceyes.evaluation.benchmarks.layout import Layout
from speceyes.evaluation.benchmarks.sample import BadRow, Source

_OWN = ("question", "answer", "category", "target_instances")


def read(path: Path, only: str | None) -> Iterator[Draft | BadRow]:
    """The rows, or those of one category, as "Perception/OCR" or "Perception".

    Raises:
        InputError: There is no such file, it can't be read, or a column is missing.
        ConfigError: It is parquet, and there is no pyarrow.
    """
    for file in _tables.files(path, "TreeBench"):
        for found in _tables.rows(file, ("question", "answer")):
            row = found if isinstance(found, BadRow) else _row(*found)
            if isinstance(row, BadRow) or only in (None, row.kind, row.kind.split("/")[0]):
                yield row


def _row(name: str, cells: dict[str, Any], picture: Source) -> Draft | BadRow:
    choices = _tables.choices(cells)
    if not choices:
        return BadRow(name, "it has no options that can be read, in columns A, B or in one text")
    index, kind = _tables.text(cells, "index"), _tables.text(cells, "category")
    question, answer = _tables.text(cells, "question"), _tables.text(cells, "answer")
    return Draft(name, index, question, choices, answer, kind or "all", (picture,))


def _holds(path: Path) -> bool:
    return _tables.holds(path, _OWN, "TreeBench")


LAYOUTS = (Layout("treebench", read, _holds, hub="HaochenWang/TreeBench"),)
