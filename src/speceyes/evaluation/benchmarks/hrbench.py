r"""HR-Bench (arXiv 2408.15556): one tab-separated file a resolution, pictures as base64 inside.

Columns `index, question, image, A, B, C, D, answer (a letter), category (single or cross),
cycle_category`, in any order; a cell with tabs, quotes or line ends is quoted as in CSV. Each of
200 questions comes four times with its options turned by one place each time. The published
score is the mean over these four of each one's accuracy, which is the accuracy over all rows
where none is missing.

The file is gigabytes long, so what is kept of a picture is where it stands in the file.
"""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from speceyes.errors import InputError
from speceyes.evaluation.benchmarks._gather import Draft, lettered_prompt
from speceyes.evaluation.benchmarks.sample import BadRow, Cell, text_of
from speceyes.evaluation.row import Item

FILES = {"hr-bench-4k": "hr_bench_4k.tsv", "hr-bench-8k": "hr_bench_8k.tsv"}
_LETTERS = "ABCDEFGH"
_NEEDED = ("question", "image", "A", "B", "answer")
_CELL = re.compile(rb'(?:"([^"]*(?:""[^"]*)*)"|((?:[^"\t\r\n][^\t\r\n]*)?))(\t|\r?\n|\Z)')
_LONGEST = 20
"""Lines that one row may run over; a stray quote ends there, and not with the file."""


def read(path: Path, only: str | None) -> Iterator[Draft | BadRow]:
    """The rows of a file, or those of one category.

    Raises:
        InputError: It can't be read, or a column is missing.
    """
    try:
        file = path.open("rb")
    except OSError as exc:
        raise InputError(
            f"{path} can't be read ({exc.strerror}); pass the folder with it"
        ) from None
    with file:
        head = _cells(file.readline(), 0) or []
        names = [text_of(text).strip() for text, _ in head]
        missing = [name for name in _NEEDED if name not in names]
        if missing:
            raise InputError(
                f"{path} has no column {', '.join(missing)}; it has {', '.join(names)[:200]}"
            )
        places: dict[str, Cell] = {}
        for number, (offset, record) in enumerate(_records(file, len(head)), 1):
            row = _row(path, number, names, _cells(record, offset), places)
            if isinstance(row, BadRow) or only in (None, row.kind):
                yield row


def _records(file: BinaryIO, width: int) -> Iterator[tuple[int, bytes]]:
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
            cells = _cells(record, 0)
            more = file.readline() if cells is None or len(cells) < width else b""
            if not more:
                break
            record += more
        cells = _cells(record, 0)
        if cells is not None and len(cells) == width:
            yield offset, record
        else:  # beyond repair: the next line is a row again
            file.seek(after)
            yield offset, line


def _cells(record: bytes, offset: int) -> list[tuple[bytes, int]] | None:
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


def _row(
    path: Path,
    number: int,
    names: list[str],
    cells: list[tuple[bytes, int]] | None,
    places: dict[str, Cell],
) -> Draft | BadRow:
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
    index = texts.get("index", "").strip() or str(number)
    name = f"{path.name}, row {number} (index {index})"
    # Some copies hold a picture once; later rows name the index of the row that has it.
    if 0 < len(picture) <= 64:
        wanted = picture.decode("utf-8", "replace").strip()
        if wanted not in places:
            return BadRow(name, f"its image names row {wanted!r}, which has none")
        place = places[wanted]
    elif picture:
        place = Cell(path, start, len(picture))
        places.setdefault(index, place)
    else:
        return BadRow(name, "there is no image")
    options = {letter: texts[letter] for letter in _LETTERS if texts.get(letter, "").strip()}
    letter = texts["answer"].strip().upper()
    if letter not in options:
        return BadRow(name, f"answer {texts['answer'][:40]!r} is none of {', '.join(options)}")
    choices = tuple(options.values())
    cycle = texts.get("cycle_category", "").strip()
    return Draft(
        name,
        f"{cycle}/{index}" if cycle else index,
        texts["question"],
        choices,
        options[letter],
        texts.get("category", "").strip() or "single",
        (place,),
        lettered_prompt(texts["question"], choices),
    )


def write(items: Iterable[Item], path: Path) -> int:
    """Writes the items in this layout, each as often as it has options; how many rows they are.

    Raises:
        InputError: An item has no choices or more than four, or its answer isn't among them.
    """
    rows = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = ["index", "question", "image", *"ABCD", "answer", "category", "cycle_category"]
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(columns)
        for item in items:
            query = item.query
            if item.answer not in query.choices or len(query.choices) > 4:
                raise InputError(
                    f"item {query.id!r} has the choices {query.choices} and the answer "
                    f"{item.answer!r}; HR-Bench has 2 to 4 options, the answer among them"
                )
            encoded = io.BytesIO()
            query.images[0].save(encoded, "JPEG", quality=95, subsampling=0)
            picture = base64.b64encode(encoded.getvalue()).decode()
            category = "cross" if "position" in item.kind or "same" in item.kind else "single"
            for turn in range(len(query.choices)):
                turned = [*query.choices[turn:], *query.choices[:turn]]
                letter = _LETTERS[turned.index(item.answer)]
                turned += [""] * (4 - len(turned))
                table.writerow([rows, query.question, picture, *turned, letter, category, turn])
                rows += 1
    return rows
