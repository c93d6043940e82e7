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

from speceyes.evaluation.benchmarks import _tables
from speceyes.evaluation.benchmarks._gather import Draft
from speceyes.evaluation.benchmarks.layout import Layout
from speceyes.evaluation.benchmarks.sample import BadRow

_OWN = ("question", "answer", "category", "target_instances")


def read(path: Path, only: str | None) -> Iterator[Draft | BadRow]:
    """The rows, or those of one category, as "Perception/OCR" or "Perception".

    Raises:
        InputError: There is no such file, it can't be read, or a column is missing.
        ConfigError: It is parquet, and there is no pyarrow.
    """
    for file in _tables.files(path, "TreeBench"):
        yield from _tables.with_options(file, only)


def _holds(path: Path) -> bool:
    return _tables.holds(path, _OWN, "TreeBench")


LAYOUTS = (Layout("treebench", read, _holds, hub="HaochenWang/TreeBench"),)
