r"""O3-Bench (InSight-o3, arXiv 2512.18745): maps and charts whose parts must be put together.

    test/metadata.jsonl     {"file_name": "images/map/x.jpg", "subset": "map", "question": "...",
                             "options": "A. ...\nB. ...\nF. No right choice", "answer": "C", ...}
    test/images/map/x.jpg

`image` may stand for `file_name`, and `category` for `subset`; explanations, layouts and sizes
aren't used. The authors' README and notebook show the fields; the files were not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from speceyes.errors import InputError
from speceyes.evaluation.benchmarks._gather import Draft
from speceyes.evaluation.benchmarks._json_lines import rows
from speceyes.evaluation.benchmarks._options import lettered
from speceyes.evaluation.benchmarks.layout import Layout
from speceyes.evaluation.benchmarks.sample import BadRow, inside


def read(path: Path, only: str | None) -> Iterator[Draft | BadRow]:
    """The rows, or those of one subset: "map" or "chart".

    Raises:
        InputError: There is no such file, or it can't be read.
    """
    file = _file(path)
    return rows(file, only, partial(_row, file))


def _file(path: Path) -> Path:
    if path.is_file():
        return path
    own = path / "metadata.jsonl"
    return own if own.is_file() else path / "test" / "metadata.jsonl"


def _row(file: Path, name: str, data: Any, number: int) -> Draft:
    if not isinstance(data, dict):
        raise InputError("it is no object")
    image = data.get("file_name", data.get("image"))
    question, answer = data.get("question"), data.get("answer")
    for field, value in (("file_name", image), ("question", question), ("answer", answer)):
        if not isinstance(value, str):
            raise InputError(f"{field} is {value!r:.80}; a text is read")
    options = data.get("options") or ""
    choices = tuple(map(str, options)) if isinstance(options, list) else lettered(str(options))[1]
    if options and not choices:
        raise InputError(f"options {options!r:.80} can't be told apart by their letters")
    kind = str(data.get("subset") or data.get("category") or "all")
    picture = inside(file.parent, str(image))
    own = str(data.get("question_id", f"{kind}/{number}"))
    return Draft(name, own, str(question), choices, str(answer).strip(), kind, (picture,))


def _holds(path: Path) -> bool:
    file = _file(path)
    try:
        with file.open("rb") as opened:
            head = opened.readline(1 << 16)
    except OSError:
        return False
    return file.name == "metadata.jsonl" and b'"file_name"' in head and b'"options"' in head


LAYOUTS = (Layout("o3-bench", read, _holds, hub="m-Just/O3-Bench"),)
