"""Tables of questions, tab-separated or parquet: one way to read either."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from speceyes.errors import InputError
from speceyes.evaluation.benchmarks import _parquet, _tsv
from speceyes.evaluation.benchmarks._gather import Draft
from speceyes.evaluation.benchmarks._options import lettered
from speceyes.evaluation.benchmarks.sample import BadRow, Source

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def columns(path: Path) -> tuple[str, ...]:
    """The names of a file's columns; none where it can't be read."""
    return _parquet.columns(path) if path.suffix == ".parquet" else _tsv.columns(path)


def files(path: Path, *stems: str) -> list[Path]:
    """The file itself, or the folder's tables: those called so, or else all parquet files.

    Args:
        path: A file or a folder.
        stems: Names of tab-separated files without their ending.

    Raises:
        InputError: There is none.
    """
    if path.is_file():
        return [path]
    named = [path / f"{stem}.tsv" for stem in stems]
    there = [one for one in named if one.is_file()]
    found = there or sorted(path.rglob("*.parquet"))
    if not found:
        tables = " or ".join(one.name for one in named)
        raise InputError(f"{path} holds no {tables} and no parquet file: pass the folder that does")
    return found


def holds(path: Path, needed: Sequence[str], *stems: str) -> bool:
    """True where a path's tables, found as `files` finds them, have these columns."""
    if path.is_file() and path.suffix not in (".tsv", ".parquet"):
        return False
    try:
        found = files(path, *stems)
    except InputError:
        return False
    return set(needed) <= set(columns(found[0]))


def rows(
    path: Path, needed: Sequence[str], picture: str = "image"
) -> Iterator[tuple[str, dict[str, Any], Source] | BadRow]:
    """(where it stands, its cells, its picture) of each row, or why it can't be used.

    Args:
        path: The file; a tab-separated one has its pictures in the column "image".
        needed: Columns that must be there, besides the picture's.
        picture: The picture's column in a parquet file.

    Raises:
        InputError: The file can't be read, or lacks a column.
        ConfigError: It is parquet, and there is no pyarrow.
    """
    if path.suffix == ".parquet":
        yield from _parquet.records(path, needed, picture)
    else:
        yield from _tsv.rows(path, (*needed, "image"))


def with_options(path: Path, only: str | None, picture: str = "image") -> Iterator[Draft | BadRow]:
    """The questions of a table with options, or those of one category.

    Args:
        path: The file, with the columns question, answer, category and index, and with options.
        only: Category, "Perception/OCR" or "Perception"; None for all. Bad rows are told anyway.
        picture: The picture's column in a parquet file.

    Raises:
        InputError: The file can't be read, or lacks a column.
        ConfigError: It is parquet, and there is no pyarrow.
    """
    for found in rows(path, ("question", "answer"), picture):
        row = found if isinstance(found, BadRow) else _with_options(*found)
        if isinstance(row, BadRow) or only in (None, row.kind, row.kind.split("/")[0]):
            yield row


def _with_options(name: str, cells: dict[str, Any], picture: Source) -> Draft | BadRow:
    options = choices(cells)
    if not options:
        return BadRow(name, "it has no options that can be read, in columns A, B or in one text")
    index, kind = text(cells, "index"), text(cells, "category") or "all"
    return Draft(
        name, index, text(cells, "question"), options, text(cells, "answer"), kind, (picture,)
    )


def text(cells: dict[str, Any], column: str) -> str:
    """A cell as text without spaces around it; "" where there is none."""
    value = cells.get(column)
    return "" if value is None else str(value).strip()


def choices(cells: dict[str, Any], column: str = "multi-choice options") -> tuple[str, ...]:
    """A row's options: of its columns A, B, C and so on where they have texts, or else of one
    column that holds them all, as a list or as a text.
    """
    own = [text(cells, letter) for letter in _LETTERS]
    count = next((i for i, one in enumerate(own) if one.lower() in ("", "nan", "none")), len(own))
    if count >= 2:
        return tuple(own[:count])
    whole = cells.get(column)
    if isinstance(whole, list | tuple):
        return tuple(str(one).strip() for one in whole)
    return lettered(str(whole or ""))[1]
