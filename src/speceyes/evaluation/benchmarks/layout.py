"""One benchmark as it is published: its name, how it is recognised, read and written.

Every module of this package that holds `LAYOUTS` adds its benchmarks; nothing else names them.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from speceyes.evaluation.benchmarks._gather import Draft
from speceyes.evaluation.benchmarks.sample import BadRow
from speceyes.evaluation.row import Item


@dataclass(frozen=True, slots=True)
class Layout:
    """A benchmark's layout on the disk.

    Args:
        name: The name it is asked for by.
        read: Its rows, from (path, category or None). The path is what was passed: a folder or
            one of its files.
        holds: True where a path, a folder or a file, is in this layout. None where it can't be
            recognised by its files.
        write: Writes items into a folder in this layout, and says how many rows they are; None
            where it is read only.
        broad: It takes files that a narrower layout may hold too, and is asked after those.
        hub: Repository on the Hugging Face Hub that its files come from; "" where there is none.
        named: What a run calls it, given the path, where that isn't its name.
    """

    name: str
    read: Callable[[Path, str | None], Iterator[Draft | BadRow]]
    holds: Callable[[Path], bool] | None = None
    write: Callable[[Iterable[Item], Path], int] | None = None
    broad: bool = False
    hub: str = ""
    named: Callable[[Path], str] | None = None


@dataclass(frozen=True, slots=True)
class DrawnLayout:
    """A benchmark that is drawn rather than read.

    Args:
        name: The name it is asked for by.
        read: Its first n rows, from (split, n).
    """

    name: str
    read: Callable[[str, int], Iterator[Draft]]


@functools.cache
def layouts() -> dict[str, Layout | DrawnLayout]:
    """The benchmarks of all modules beside this one, by name: read ones first, then drawn ones."""
    package = __name__.rpartition(".")[0]
    found: list[Layout | DrawnLayout] = []
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        found += getattr(importlib.import_module(f"{package}.{module.name}"), "LAYOUTS", ())
    found.sort(key=lambda one: (isinstance(one, DrawnLayout), one.name))
    return {one.name: one for one in found}
