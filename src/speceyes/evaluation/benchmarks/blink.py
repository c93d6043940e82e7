"""BLINK (arXiv 2404.12390): 14 tasks that people solve at a glance, of one to four pictures.

    Counting/val-00000-of-00001.parquet, Jigsaw/val-..., and so on

with the columns `idx, sub_task, question, prompt` (the question with its options)`, choices` (a
list)`, answer` ("(A)")`, image_1` to `image_4` (those that there are) and others that aren't used.
Answers of `test-...` are not published, so that only `val` is read. The columns are those that
lmms-eval reads; the files were not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speceyes.errors import InputError
from speceyes.evaluation.benchmarks import _parquet, _tables
from speceyes.evaluation.benchmarks._gather import Draft
from speceyes.evaluation.benchmarks.layout import Layout
from speceyes.evaluation.benchmarks.sample import BadRow, ParquetCell, Source

_OWN = ("question", "choices", "answer")
_PICTURES = ("image_1", "image_2", "image_3", "image_4")


def read(path: Path, only: str | None) -> Iterator[Draft | BadRow]:
    """The rows of all tasks, or of one, as "Counting".

    Raises:
        InputError: There is no such file, it can't be read, or a column is missing.
        ConfigError: There is no pyarrow.
    """
    found = _parquet.files(path)
    files = [file for file in found if path.is_file() or not file.name.startswith("test")]
    if not files:
        raise InputError(f"{path} holds files of the test split only, which has no answers")
    for file in files:
        pictures = [name for name in _PICTURES if name in _parquet.columns(file)]
        rows = _parquet.records(file, _OWN, _PICTURES[0], pictures[1:])
        shown = _parquet.present(file, pictures)
        for place, one in enumerate(rows):
            row = one if isinstance(one, BadRow) else _row(file, shown[place], *one)
            if isinstance(row, BadRow) or only in (None, row.kind):
                yield row


def _row(
    file: Path, shown: tuple[str, ...], name: str, cells: dict[str, Any], first: ParquetCell
) -> Draft | BadRow:
    options = cells.get("choices")
    if not isinstance(options, list) or not options:
        return BadRow(name, "its choices are no list of options")
    kind = _tables.text(cells, "sub_task") or file.parent.name
    sources: tuple[Source, ...] = tuple(
        ParquetCell(first.path, first.group, first.place, column) for column in shown
    )
    return Draft(
        f"{file.parent.name}/{name}",
        _tables.text(cells, "idx") or f"{kind}/{name}",
        _tables.text(cells, "question"),
        tuple(str(one).strip() for one in options),
        _tables.text(cells, "answer"),
        kind,
        sources,
        _tables.text(cells, "prompt") or None,
    )


def _holds(path: Path) -> bool:
    file = _parquet.first(path)
    return file is not None and {"image_1", *_OWN} <= set(_parquet.columns(file))


LAYOUTS = (Layout("blink", read, _holds, hub="BLINK-Benchmark/BLINK"),)
