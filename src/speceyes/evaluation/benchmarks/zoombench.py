"""ZoomBench (arXiv 2602.11858): 845 questions whose evidence is a small part of the picture.

    data/test.parquet

with the columns `id, query, response, question_type` ("mcq", 621 rows, or "blank")`, bbox, image`
and `crop_image`, the part that holds the evidence, which isn't shown to a model. The card calls
two of them `prompt` and `answer`; either is read. An mcq's options stand in its query; where they
can't be told apart there, the query is asked as it stands and its answer is a letter.

The names are those that published evaluation code reads, where the release and the card disagree
on two; the file itself was not looked at, nor how its queries write their options.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speceyes.evaluation.benchmarks import _parquet, _tables
from speceyes.evaluation.benchmarks._gather import Draft
from speceyes.evaluation.benchmarks._options import lettered
from speceyes.evaluation.benchmarks.layout import Layout
from speceyes.evaluation.benchmarks.sample import BadRow, Source

_QUESTION, _ANSWER = ("query", "prompt", "question"), ("response", "answer")


def read(path: Path, only: str | None) -> Iterator[Draft | BadRow]:
    """The rows, or those of one type of question, "mcq" or "blank".

    Raises:
        InputError: There is no such file, it can't be read, or a column is missing.
        ConfigError: There is no pyarrow.
    """
    for file in _parquet.files(path):
        there = _parquet.columns(file)
        question = next((name for name in _QUESTION if name in there), _QUESTION[0])
        answer = next((name for name in _ANSWER if name in there), _ANSWER[0])
        rows = _parquet.records(file, (question, answer), "image", ("crop_image",))
        for found in rows:
            row = found if isinstance(found, BadRow) else _row(question, answer, *found)
            if isinstance(row, BadRow) or only in (None, row.kind):
                yield row


def _row(question: str, answer: str, name: str, cells: dict[str, Any], picture: Source) -> Draft:
    kind = _tables.text(cells, "question_type").lower() or "all"
    asked = _tables.text(cells, question).replace("<image>", "").strip()
    text, choices = (asked, ()) if kind == "blank" else lettered(asked)
    own = _tables.text(cells, "id") or _tables.text(cells, "index")
    gold = _tables.text(cells, answer)
    return Draft(name, own, text, choices, gold, kind, (picture,), asked)


def _holds(path: Path) -> bool:
    file = _parquet.first(path)
    return file is not None and {"image", "crop_image"} <= set(_parquet.columns(file))


LAYOUTS = (Layout("zoombench", read, _holds, hub="inclusionAI/ZoomBench"),)
