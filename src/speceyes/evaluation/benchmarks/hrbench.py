r"""HR-Bench (arXiv 2408.15556): one tab-separated file a resolution, pictures as base64 inside.

    hr_bench_4k.tsv, hr_bench_8k.tsv

with the columns `index, question, image, A, B, C, D, answer (a letter), category (single or cross),
cycle_category`, in any order; or the same columns as parquet, `hr_bench_4k.parquet`. Each of 200
questions comes four times with its options turned by one place each time. The published score is
the mean over these four of each one's accuracy, which is the accuracy over all rows where none is
missing.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from speceyes.encoded import in_base64
from speceyes.errors import InputError
from speceyes.evaluation.benchmarks import _tables
from speceyes.evaluation.benchmarks._gather import Draft, lettered_prompt
from speceyes.evaluation.benchmarks.layout import Layout
from speceyes.evaluation.benchmarks.sample import BadRow, Source
from speceyes.evaluation.row import Item

FILES = {"hr-bench-4k": "hr_bench_4k.tsv", "hr-bench-8k": "hr_bench_8k.tsv"}
_LETTERS = "ABCDEFGH"
_NEEDED = ("question", "A", "B", "answer")


def _file(name: str, path: Path) -> Path:
    """The file of this benchmark: the path itself, or the one in the folder."""
    if path.is_file():
        return path
    table = path / FILES[name]
    parquet = table.with_suffix(".parquet")
    return parquet if parquet.is_file() and not table.is_file() else table


def _holds(name: str, path: Path) -> bool:
    file = _file(name, path)
    return file.is_file() and file.stem == Path(FILES[name]).stem


def _read(name: str, path: Path, only: str | None) -> Iterator[Draft | BadRow]:
    return read(_file(name, path), only)


def read(path: Path, only: str | None) -> Iterator[Draft | BadRow]:
    """The rows of a file, or those of one category.

    Raises:
        InputError: It can't be read, or a column is missing.
        ConfigError: It is parquet, and there is no pyarrow.
    """
    for found in _tables.rows(path, _NEEDED):
        row = found if isinstance(found, BadRow) else _row(*found)
        if isinstance(row, BadRow) or only in (None, row.kind):
            yield row


def _row(name: str, cells: dict[str, Any], place: Source) -> Draft | BadRow:
    options = {letter: cells[letter] for letter in _LETTERS if _tables.text(cells, letter)}
    letter = _tables.text(cells, "answer").upper()
    if letter not in options:
        return BadRow(name, f"answer {letter[:40]!r:.40} is none of {', '.join(options)}")
    choices = tuple(options.values())
    cycle, index = _tables.text(cells, "cycle_category"), _tables.text(cells, "index")
    question = str(cells["question"] or "")
    return Draft(
        name,
        f"{cycle}/{index}" if cycle else index,
        question,
        choices,
        options[letter],
        _tables.text(cells, "category") or "single",
        (place,),
        lettered_prompt(question, choices),
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
            picture = in_base64(query.images[0], "JPEG", quality=95, subsampling=0)
            category = "cross" if "position" in item.kind or "same" in item.kind else "single"
            for turn in range(len(query.choices)):
                turned = [*query.choices[turn:], *query.choices[:turn]]
                letter = _LETTERS[turned.index(item.answer)]
                turned += [""] * (4 - len(turned))
                table.writerow([rows, query.question, picture, *turned, letter, category, turn])
                rows += 1
    return rows


def _write(name: str, items: Iterable[Item], folder: Path) -> int:
    return write(items, folder / FILES[name])


LAYOUTS = tuple(
    Layout(
        name,
        partial(_read, name),
        partial(_holds, name),
        partial(_write, name),
        hub="DreamMr/HR-Bench",
    )
    for name in FILES
)
