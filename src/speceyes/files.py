"""Small files that are read and written whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from speceyes.errors import ConfigError

Made = TypeVar("Made")


def load_whole(
    path: str | os.PathLike[str],
    read: Callable[[str], Made],
    *,
    error: type[ConfigError] = ConfigError,
    kind: str = "",
) -> Made:
    """Contents of a text file, made by `read`. Every error names the file.

    Args:
        path: The file, UTF-8.
        read: Makes it of the text; raises a `ConfigError` for what it can't use.
        error: Type of the errors that are raised here.
        kind: What the file is, said before its path.

    Raises:
        ConfigError: Of the type `error`: the file can't be read, or `read` refuses it.
    """
    named = f"{kind} {os.fspath(path)}".lstrip()
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        raise error(f"{named} can't be read: {exc}") from exc
    try:
        return read(text)
    except ConfigError as exc:
        raise error(f"{named}: {exc}") from exc


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Puts text into a file, so that a reader finds the old text or the new, never half of it."""
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
