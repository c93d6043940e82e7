"""Tab-separated benchmarks with pictures as base64 inside, as VLMEvalKit's are.

A cell with tabs, quotes or line ends is quoted as in CSV. Such files are gigabytes long, so what
is kept of a picture is where it stands in the file. Some copies hold a picture once; later rows
then name the index of the row that has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from speceyes.errors import InputError
from speceyes.evaluation.benchmarks.sample import BadRow, Cell, text_of

_CELL = re.compile(rb'(?:"([^"]*(?:""[^"]*)*)"|((?:[^"\t\r\n][^\t\r\n]*)?))(\t|\r?\n|\Z)')
_LONGEST = 20
"""Lines that one row may run over; a stray quote ends there, and not with the file."""


def columns(path: Path) -> tuple[str, ...]:
    """The names of a file's columns; none where it can't be read."""
    try:
        with path.open("rb") as file:
            head = cells_of(file.readline(1 << 20), 0) or []
        return tuple(text_of(text).strip() for text, _ in head)
    except (OSError, InputError):
        return ()


def rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[str, dict[str, str], Cell] | BadRow]:
    """(where it stands, its texts, its picture) of each row, or why it can't be used. Rows without
    an index get their number, from 1.

    Raises:
        InputError: The file can't be read, or a column is missing.
    """
    try:
        file = path.open("rb")
    except OSError as exc:
        raise InputError(
            f"{path} can't be read ({exc.strerror}); pass the folder with it"
        ) from None
    with file:
        head = cells_of(file.readline(), 0) or []
        names = [text_of(text).strip() for text, _ in head]
        missing = [name for name in needed if name not in names]
        if missing:
            raise InputError(
                f"{path} has no column {', '.join(missing)}; it has {', '.join(names)[:200]}"
            )
        places: dict[str, Cell] = {}
        for number, (offset, record) in enumerate(records(file, len(head)), 1):
            yield _row(path, number, names, cells_of(record, offset), places)


def _row(
    path: Path,
    number: int,
    names: list[str],
    cells: list[tuple[bytes, int]] | None,
    places: dict[str, Cell],
) -> tuple[str, dict[str, str], Cell] | BadRow:
    name = f"{path.name}, row {number}"
    if cells is None or len(cells) != len(names):
        found = "quotes that aren't closed" if cells is None else f"{len(cells)} cells"
        return BadRow(name, f"{found}; {len(names)} cells separated by tabs are expected")
    texts: dict[str, str] = {}
    picture, start = b"", 0
    try:
        for column, (text, offset) in zip(names, cells, strict=True):
            if column == "image":
                picture, start = text, offset
            else:
                texts[column] = text_of(text)
    except InputError as exc:
        return BadRow(name, f"column {column}: {exc}")
    index = texts["index"] = texts.get("index", "").strip() or str(number)
    name = f"{path.name}, row {number} (index {index})"
    if 0 < len(picture) <= 64:
        wanted = picture.decode("utf-8", "replace").strip()
        if wanted not in places:
            return BadRow(name, f"its image names row {wanted!r}, which has none")
        return name, texts, places[wanted]
    if not picture:
        return BadRow(name, "there is no image")
    place = Cell(path, start, len(picture))
    places.setdefault(index, place)
    return name, texts, place


def records(file: BinaryIO, width: int) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of each row; one goes on where a quoted cell holds line ends."""
    while True:
        offset = file.tell()
        line = file.readline()
        if not line:
            return
        if not line.strip(b"\r\n"):
            continue
        after, record = file.tell(), line
        for _ in range(_LONGEST):
            cells = cells_of(record, 0)
            more = file.readline() if cells is None or len(cells) < width else b""
            if not more:
                break
            record += more
        cells = cells_of(record, 0)
        if cells is not None and len(cells) == width:
            yield offset, record
        else:  # beyond repair: the next line is a row again
            file.seek(after)
            yield offset, line


def cells_of(record: bytes, offset: int) -> list[tuple[bytes, int]] | None:
    """Each cell's bytes and where they begin; None where a quote isn't closed."""
    cells, at = [], 0
    while True:
        found = _CELL.match(record, at)
        if found is None:
            return None
        which = 1 if found[1] is not None else 2
        text = found[which]
        cells.append(
            (text.replace(b'""', b'"') if which == 1 else text, offset + found.start(which))
        )
        at = found.end()
        if found[3] != b"\t":
            return cells if at >= len(record) else None
