"""Files of JSON lines: each line is made into something, or is told apart as a bad row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from speceyes.errors import InputError
from speceyes.evaluation.benchmarks._gather import Draft
from speceyes.evaluation.benchmarks.sample import BadRow, text_of

Made = TypeVar("Made")


def lines(
    file: Path, made: Callable[[str, Any, int], Made], *, constants: bool = True
) -> Iterator[Made | BadRow]:
    """Yields what is made of each line of the file; empty lines are passed over.

    Args:
        file: Its lines end in a line feed.
        made: Called with a line's name, its JSON and its number from 1. The InputError that it
            raises is the line's reason.
        constants: Whether NaN and Infinity are read, which others' files hold in fields that
            aren't used.

    Raises:
        InputError: The file can't be read.
    """
    try:
        raw = file.read_bytes().split(b"\n")
    except OSError as exc:
        raise InputError(f"{file} can't be read ({exc.strerror}): check the path") from None
    for number, line in enumerate(raw, 1):
        if not line.strip():
            continue
        name = f"{file.name}, line {number}"
        try:
            data = json.loads(text_of(line), parse_constant=None if constants else _constant)
            found: Made | BadRow = made(name, data, number)
        except InputError as exc:
            found = BadRow(name, str(exc))
        except (ValueError, RecursionError):
            found = BadRow(name, "it can't be read as JSON")
        yield found


def rows(
    file: Path, only: str | None, row: Callable[[str, Any, int], Draft], *, constants: bool = True
) -> Iterator[Draft | BadRow]:
    """The file's questions, or those of one category. Bad rows are told in any case.

    Args:
        file: See `lines`.
        only: Category; None for all.
        row: Makes the question; see `lines`.
        constants: See `lines`.

    Raises:
        InputError: The file can't be read.
    """
    for found in lines(file, row, constants=constants):
        if isinstance(found, BadRow) or only in (None, found.kind):
            yield found


def _constant(name: str) -> Any:
    raise InputError(f"it holds {name}, which is no JSON: write a number, a text or null")
