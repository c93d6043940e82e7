"""Rows of parquet files, whose pictures stay in the file until they are asked for."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from speceyes.errors import ConfigError, InputError
from speceyes.evaluation.benchmarks.sample import BadRow, ParquetCell, text_of

_BATCH = 64


def arrow() -> Any:
    """The pyarrow module, with its parquet.

    Raises:
        ConfigError: It isn't installed.
    """
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError:
        raise ConfigError(
            "the benchmark's files are parquet, which needs pyarrow: pip install 'speceyes[eval]'"
        ) from None


def columns(path: Path) -> tuple[str, ...]:
    """The names of a file's columns; none where it can't be read, or without pyarrow."""
    try:
        return tuple(arrow().parquet.read_schema(path).names)
    except (ConfigError, OSError, ValueError):
        return ()


def first(path: Path) -> Path | None:
    """The file itself, or the first parquet file in or below a folder."""
    if path.is_file():
        return path if path.suffix == ".parquet" else None
    return min(path.rglob("*.parquet"), default=None)


def files(path: Path) -> list[Path]:
    """The file itself, or all parquet files in and below a folder, by name.

    Raises:
        InputError: There is none.
    """
    found = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    if not found:
        raise InputError(f"{path} holds no parquet file: pass the folder that does")
    return found


def rows(
    path: Path, needed: Sequence[str], leave: Sequence[str] = ()
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """(row group, place in it, cells) of each row. Texts stay bytes, so that one that isn't UTF-8
    hurts its own row alone.

    Args:
        path: The file.
        needed: Columns that must be there.
        leave: Columns that aren't read, such as pictures.

    Raises:
        InputError: It can't be read as parquet, or lacks a column.
        ConfigError: There is no pyarrow.
    """
    pa = arrow()
    try:
        with pa.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            missing = [name for name in needed if name not in names]
            if missing:
                raise InputError(
                    f"{path} has no column {', '.join(missing)}; it has {', '.join(names)[:200]}"
                )
            read = [name for name in names if name not in leave]
            for group in range(file.num_row_groups):
                place = 0
                for batch in file.iter_batches(_BATCH, row_groups=[group], columns=read):
                    for cells in _cells(pa, batch):
                        yield group, place, cells
                        place += 1
    except (OSError, ValueError) as exc:
        if isinstance(exc, InputError):
            raise
        raise InputError(f"{path} can't be read as parquet: download it again") from None


def _cells(pa: Any, batch: Any) -> Iterator[dict[str, Any]]:
    cells = {}
    for name in batch.schema.names:
        column = batch.column(name)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = column.cast(pa.binary())
        cells[name] = column.to_pylist()
    for values in zip(*cells.values(), strict=True):
        yield dict(zip(cells, values, strict=True))


def records(
    path: Path, needed: Sequence[str], picture: str = "image", leave: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, Any], ParquetCell] | BadRow]:
    """(where it stands, its cells, its picture) of each row, or why it can't be used. Texts are
    decoded; rows without an "index" get their number, from 1.

    Args:
        path: The file.
        needed: Columns that must be there, besides the picture's.
        picture: The picture's column: a struct with `bytes`, bytes, or base64 text.
        leave: Further columns that aren't read.

    Raises:
        InputError: The file can't be read as parquet, or lacks a column.
        ConfigError: There is no pyarrow.
    """
    for number, (group, place, row) in enumerate(
        rows(path, (*needed, picture), (picture, *leave)), 1
    ):
        name = f"{path.name}, row {number}"
        try:
            cells = {column: _decoded(column, value) for column, value in row.items()}
        except InputError as exc:
            yield BadRow(name, str(exc))
            continue
        if cells.get("index") in (None, ""):
            cells["index"] = number
        yield name, cells, ParquetCell(path, group, place, picture)


def _decoded(column: str, value: Any) -> Any:
    try:
        return text_of(value) if isinstance(value, bytes) else value
    except InputError as exc:
        raise InputError(f"column {column}: {exc}") from None


def cell(path: Path, group: int, place: int, column: str) -> Any:
    """One cell, read when it is asked for; the row groups of the last few pictures are kept."""
    return _column(path, path.stat().st_mtime_ns, group, column)[place].as_py()


@functools.lru_cache(maxsize=4)
def _column(path: Path, changed: int, group: int, column: str) -> Any:
    with arrow().parquet.ParquetFile(path) as file:
        return file.read_row_group(group, columns=[column]).column(column)


def present(path: Path, pictures: Sequence[str]) -> list[tuple[str, ...]]:
    """Columns, of these of pictures, that each row has something in; no picture is read."""
    with arrow().parquet.ParquetFile(path) as file:
        # Of a struct only its path is read, which is enough to know whether the struct is there.
        leaves = {column.path.rpartition(".")[0]: column.path for column in _leaves(file)}
        table = file.read(columns=[leaves.get(name, name) for name in pictures])
        there = {name: table.column(name).is_valid().to_pylist() for name in pictures}
    return [tuple(name for name in pictures if there[name][row]) for row in range(table.num_rows)]


def _leaves(file: Any) -> list[Any]:
    columns = [file.schema.column(i) for i in range(len(file.schema.names))]
    return [column for column in columns if column.path.endswith(".path")]
