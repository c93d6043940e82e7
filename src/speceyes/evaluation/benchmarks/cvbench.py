"""CV-Bench (arXiv 2406.16860): 2,638 questions on counting, relations, depth and distance.

    test_2d.parquet, test_3d.parquet

with the columns `idx, type` ("2D" or "3D")`, task` (Count, Relation, Depth, Distance)`, image,
question, choices` (a list)`, answer` ("(A)")`, prompt, filename, source` (ADE20K, COCO or Omni3D)
and others that aren't used; or `test_2d.jsonl`, `test_3d.jsonl` and the pictures in `img`. The
published score isn't the accuracy over all rows: it is the mean of 3D and of the mean of the two
sources of 2D. The card says so, and names the columns; the files were not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from speceyes.errors import InputError
from speceyes.evaluation.benchmarks import _parquet, _tables
from speceyes.evaluation.benchmarks._gather import Draft
from speceyes.evaluation.benchmarks._json_lines import lines
from speceyes.evaluation.benchmarks.layout import Layout
from speceyes.evaluation.benchmarks.sample import BadRow, Source, inside

_OWN = ("question", "choices", "answer")
_STEMS = ("test_2d", "test_3d")


def read(path: Path, only: str | None) -> Iterator[Draft | BadRow]:
    """The rows, or those of one type or task.

    Raises:
        InputError: There is no such file, it can't be read, or a column is missing.
        ConfigError: There is no pyarrow, and no JSONL.
    """
    for file in _files(path):
        own = file.suffix == ".jsonl"
        for found in lines(file, partial(_line, file)) if own else _parquet.records(file, _OWN):
            row = found if isinstance(found, BadRow) else _row(*found)
            if isinstance(row, BadRow) or only in (None, row.kind, *row.kind.split("/")):
                yield row


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    for ending in ("parquet", "jsonl"):
        found = [file for stem in _STEMS if (file := path / f"{stem}.{ending}").is_file()]
        if found:
            return found
    raise InputError(f"{path} holds no test_2d.parquet and no test_3d.parquet")


def _line(file: Path, name: str, cells: Any, _: int) -> tuple[str, dict[str, Any], Source]:
    if not isinstance(cells, dict):
        raise InputError("it is no object")
    picture = inside(file.parent, f"img/{cells.get('filename')}")
    if not picture.is_file():
        picture = inside(file.parent, str(cells.get("filename")))
    return name, cells, picture


def _row(name: str, cells: dict[str, Any], picture: Source) -> Draft | BadRow:
    options = cells.get("choices")
    if not isinstance(options, list | tuple) or not options:
        return BadRow(name, "its choices are no list of options")
    choices = tuple(str(one).strip() for one in options)
    kind = f"{_tables.text(cells, 'type')}/{_tables.text(cells, 'task')}".strip("/") or "all"
    return Draft(
        name,
        _tables.text(cells, "idx") or name,
        _tables.text(cells, "question"),
        choices,
        _tables.text(cells, "answer"),
        kind,
        (picture,),
        _tables.text(cells, "prompt") or None,
    )


def _holds(path: Path) -> bool:
    if path.is_dir():
        return any((path / f"{stem}.{end}").is_file() for stem in _STEMS for end in _ENDS)
    return path.stem in _STEMS and path.suffix[1:] in _ENDS


_ENDS = ("parquet", "jsonl")
LAYOUTS = (Layout("cv-bench", read, _holds, hub="nyu-visionx/CV-Bench"),)
