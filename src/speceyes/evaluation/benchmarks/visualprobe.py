r"""VisualProbe (Mini-o3, arXiv 2509.07969): small things in large pictures, with open answers.

    VisualProbe_Hard/val.json      [{"doc_id": "...", "images": ["VisualProbe_Hard/data/x.jpg"],
                                     "problem": "<image>\n...", "solution": "...",
                                     "data_source": "visual_probe_hard"}, ...]
    VisualProbe_Hard/data/x.jpg

Each level is a repository of its own, `Mini-o3/VisualProbe_Easy` (141 questions), `_Medium` (268)
and `_Hard` (106); the folder is one of them, or holds several. `images` may be such a list as
text. The published score asks a language model whether an answer means the same; the rules here
are stricter (see `speceyes.evaluation.llm_judge` for a judge). The layout is that which published
evaluation code reads; the files themselves were not looked at.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speceyes.errors import InputError
from speceyes.evaluation.benchmarks._gather import Draft
from speceyes.evaluation.benchmarks.layout import Layout
from speceyes.evaluation.benchmarks.sample import BadRow, inside, text_of

LEVELS = ("easy", "medium", "hard")
_REPOSITORY = re.compile(r"^VisualProbe_\w+/")
_LEVEL = re.compile(r"visual_?probe_(easy|medium|hard)", re.I)


def read(path: Path, only: str | None) -> Iterator[Draft | BadRow]:
    """The rows of all levels there are, or of one: "easy", "medium" or "hard".

    Raises:
        InputError: There is no such file, or it can't be read as JSON.
    """
    for file in _files(path):
        try:
            rows = json.loads(text_of(file.read_bytes()))
        except InputError as exc:
            raise InputError(f"{file}: {exc}") from None
        except (OSError, ValueError, RecursionError):
            raise InputError(f"{file} can't be read as JSON: download it again") from None
        if not isinstance(rows, list):
            raise InputError(f"{file} holds no list of questions")
        for number, data in enumerate(rows, 1):
            name = f"{file.parent.name}/{file.name}, entry {number}"
            try:
                row: Draft | BadRow = _row(name, data, file, number)
            except InputError as exc:
                row = BadRow(name, str(exc))
            if isinstance(row, BadRow) or only in (None, row.kind):
                yield row


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    own = path / "val.json"
    found = [own] if own.is_file() else sorted(path.glob("VisualProbe_*/val.json"))
    if not found:
        raise InputError(f"{path} holds no val.json, nor do folders VisualProbe_... in it")
    return found


def _row(name: str, data: Any, file: Path, number: int) -> Draft:
    if not isinstance(data, dict):
        raise InputError("it is no object")
    images = data.get("images")
    if isinstance(images, str):
        try:
            images = ast.literal_eval(images) if images.lstrip().startswith("[") else [images]
        except (ValueError, SyntaxError):
            raise InputError(f"images is {images[:80]!r:.80}; a list of paths is read") from None
    if not isinstance(images, list) or not all(isinstance(one, str) for one in images):
        raise InputError(f"images is {images!r:.80}; a list of paths is read")
    problem, solution = data.get("problem"), data.get("solution")
    if not isinstance(problem, str) or not isinstance(solution, str):
        raise InputError("problem and solution must be texts")
    level = _LEVEL.search(f"{data.get('data_source', '')} {file.parent.name} {' '.join(images)}")
    kind = level[1].lower() if level else "all"
    sources = tuple(inside(file.parent, _REPOSITORY.sub("", one)) for one in images)
    own = f"{kind}/{data.get('doc_id', number)}"
    question = problem.replace("<image>", "").strip()
    return Draft(name, own, question, (), solution.strip(), kind, sources)


def _holds(path: Path) -> bool:
    try:
        with _files(path)[0].open("rb") as file:
            head = file.read(4096)
    except (InputError, OSError):
        return False
    return b'"problem"' in head and b'"images"' in head


LAYOUTS = (Layout("visualprobe", read, _holds, hub="Mini-o3/VisualProbe_Hard"),)
