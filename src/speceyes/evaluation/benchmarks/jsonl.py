"""A user's own questions: JSONL with pictures beside it.

    {"image": "photos/1.jpg", "question": "...", "choices": ["a", "b"], "answer": "a",
     "category": "colour", "id": "1"}

`choices`, `category` and `id` may be left out or null, and `answer` where no labels are needed
(`speceyes tune`); `image` may be a list of paths, relative to the file, inside its folder; `answer`
may be an option's text or its letter, or true or false where one option says so. A row with a field
of another kind is a bad row, told with its reason, and never read as something else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from speceyes.errors import InputError
from speceyes.evaluation.benchmarks._gather import Draft
from speceyes.evaluation.benchmarks._json_lines import rows
from speceyes.evaluation.benchmarks.layout import Layout
from speceyes.evaluation.benchmarks.sample import BadRow, inside
from speceyes.evaluation.row import Item


def files_of(path: Path) -> list[Path]:
    """The JSONL files that a path stands for: itself, or those in the folder.

    Raises:
        InputError: There is none.
    """
    found = [path] if path.is_file() else sorted(path.glob("*.jsonl")) if path.is_dir() else []
    if not found:
        raise InputError(f"{path} is no JSONL file, nor a folder with one")
    return found


def read(path: Path, only: str | None) -> Iterator[Draft | BadRow]:
    """The rows of the file or of the folder's files, or those of one category.

    Raises:
        InputError: There is no such file, or it can't be read.
    """
    files = files_of(path)
    for file in files:
        yield from rows(file, only, partial(_row, file, len(files) > 1), constants=False)


def _row(file: Path, several: bool, name: str, data: Any, number: int) -> Draft:
    if not isinstance(data, dict):
        raise InputError('it is no object; {"image": ..., "question": ..., "answer": ...} is read')
    images = data.get("image")
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, list) or not images:
        raise InputError("image must be a path, or a list of paths")
    if not all(isinstance(image, str) and image.strip() for image in images):
        raise InputError("image must be a path, or a list of paths")
    question = data.get("question")
    if not isinstance(question, str):
        raise InputError("question must be a text")
    choices = data.get("choices")
    choices = [] if choices is None else choices
    if not isinstance(choices, list):
        raise InputError(
            f"choices is {choices!r:.60}; it must be a list of texts, and is left out or null "
            "where the question is open"
        )
    options = tuple(_text("choices", choice) for choice in choices)
    given = data.get("answer")
    answer = "" if given is None else _answer(given, options)
    own = data.get("id")
    if isinstance(own, bool) or not isinstance(own, str | int | None):
        raise InputError(f"id is {own!r:.60}; it must be a text or a whole number, or left out")
    id = f"line-{number}" if own is None or not str(own).strip() else str(own).strip()
    if several:
        id = f"{file.stem}/{id}"
    category = data.get("category")
    category = category.strip() if isinstance(category, str) else category
    if isinstance(category, bool | float | list | dict):
        raise InputError(f"category is {category!r}; it must be a text or a whole number")
    return Draft(
        name,
        id,
        question,
        options,
        answer,
        "all" if category in (None, "") else str(category),
        tuple(inside(file.parent, image) for image in images),
    )


def _answer(given: Any, options: tuple[str, ...]) -> str:
    """The right answer as text; a truth value, as JSON or in a word, as the option that says it."""
    answer = _text("answer", given)
    if answer in options:
        return answer
    truth = answer.strip().casefold()
    for words in (("true", "yes"), ("false", "no")):
        same = [option for option in options if option.strip(" .").casefold() in words]
        if truth in words and len(same) == 1:
            return same[0]
    return str(given).casefold() if isinstance(given, bool) and options else answer


def _text(what: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and math.isfinite(value):
        return str(value)
    raise InputError(f"{what} holds {value!r}; texts and finite numbers are read")


def write(items: Iterable[Item], path: Path) -> int:
    """Writes the items as JSONL with PNG pictures in `images` beside it; how many they are."""
    folder = path.parent / "images"
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for count, item in enumerate(items, 1):
            names = []
            for place, image in enumerate(item.query.images):
                names.append(f"images/{count:05d}_{place}.png")
                image.save(path.parent / names[-1], compress_level=1)
            row = {
                "id": item.query.id or f"item-{count}",
                "image": names,
                "question": item.query.question,
                "choices": list(item.query.choices),
                "answer": item.answer,
                "category": item.kind,
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return count


def _holds(path: Path) -> bool:
    return path.suffix == ".jsonl" if path.is_file() else any(path.glob("*.jsonl"))


def _write(items: Iterable[Item], folder: Path) -> int:
    return write(items, folder / "questions.jsonl")


def _named(path: Path) -> str:
    return path.stem or "jsonl"


LAYOUTS = (Layout("jsonl", read, _holds, _write, broad=True, named=_named),)
