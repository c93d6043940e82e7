"""A pytest plugin: warnings that this project causes fail the test; the others are listed.

A warning is ours where

- it is attributed to a file of ours, or raised by one, or tells of an exception that was lost in a
  thread or a destructor on its way through a file of ours;
- or it is a deprecation, and the package that raised it was called by a file of ours. Deprecations
  that are logged instead, as transformers does with some, count too. One that a package causes by
  importing a module of its own, when it is first used, is its own.

What other packages do among themselves is none of our mistakes, and stands in pytest's summary of
warnings. So does what the garbage collector finds, such as a loop that was never closed: it runs at
any moment, so the test that it interrupts need not be the one that is to blame. A test that
provokes a warning on purpose catches it, with `pytest.warns` for example.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

DEPRECATIONS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
LOST = (pytest.PytestUnraisableExceptionWarning, pytest.PytestUnhandledThreadExceptionWarning)
"""Exceptions that nobody could catch."""
OURS = "ours"
PACKAGE = "speceyes"
"""Ours even where it is installed among the others."""
BETWEEN = {"torch.nn.modules.module", "torch.utils._contextlib", "torch.utils._device"}
"""Modules that stand between any caller and a model, and cause nothing themselves."""

_root = str(Path(__file__).resolve().parents[2])
_caused = pytest.StashKey[list[str]]()
_collecting: set[int] = set()
"""Threads in which the garbage collector runs at this moment."""


def _note_collection(phase: str, info: object) -> None:
    (_collecting.add if phase == "start" else _collecting.discard)(threading.get_ident())


def package_of(frame: FrameType) -> str | None:
    """The package that a frame's code belongs to, `OURS`, or None for the standard library."""
    name = str(frame.f_globals.get("__name__", ""))
    root = name.partition(".")[0]
    if name == __name__ or name in BETWEEN or root in sys.stdlib_module_names - {"__main__"}:
        return None
    file = str(frame.f_globals.get("__file__") or frame.f_code.co_filename)
    on_a_page = not (Path(file).is_absolute() or file.startswith("<"))
    return OURS if root == PACKAGE or on_a_page or is_ours(file) else root or None


def is_ours(file: str) -> bool:
    """Whether a file belongs to this project, installed or not."""
    _, installed, inside = file.partition(f"site-packages{os.sep}")
    return inside.startswith(f"{PACKAGE}{os.sep}") if installed else file.startswith(_root)


def ours(frame: FrameType | None, *, deprecation: bool) -> bool:
    """Whether what was called in a frame is our doing: see the module's description."""
    importing = False
    raised_by: str | None = None
    for caller in _outwards(frame):
        package = package_of(caller)
        if package is None:
            importing |= caller.f_code.co_filename.startswith("<frozen importlib")
        elif raised_by is None:
            raised_by, importing = package, False
            if package == OURS or not deprecation:
                return package == OURS
        elif package != raised_by:
            return package == OURS
        elif importing:
            return False  # it imports a module of its own
    return False


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _went_through_us(message: Warning | str) -> bool:
    """Whether a lost exception, which is told with its traceback, passed through a file of ours."""
    return any(map(is_ours, re.findall(r'File "(.+?)", line', str(message))))


@contextmanager
def watching(caused: list[str]) -> Iterator[None]:
    """Collects the warnings that are ours; hands on the others as they come."""
    show, make_record = warnings.showwarning, logging.getLogRecordFactory()

    def shown(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        frame = sys._getframe(1)
        attributed = next((f for f in _outwards(frame) if f.f_code.co_filename == filename), None)
        if issubclass(category, LOST):
            blamed = _went_through_us(message)
        elif threading.get_ident() in _collecting:
            blamed = False
        else:
            blamed = (attributed is not None and package_of(attributed) == OURS) or ours(
                frame, deprecation=issubclass(category, DEPRECATIONS)
            )
        if blamed:
            caused.append(_told(f"{category.__name__}: {message}", frame))
        else:
            show(message, category, filename, lineno, file, line)

    def recorded(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        if record.levelno >= logging.WARNING and record.name.partition(".")[0] != PACKAGE:
            said = record.getMessage()
            if "deprecat" in said.lower():
                frame = sys._getframe(1)
                if ours(frame, deprecation=True):
                    caused.append(_told(f"logged by {record.name}: {said}", frame))
        return record

    warnings.showwarning = shown
    logging.setLogRecordFactory(recorded)
    try:
        yield
    finally:
        warnings.showwarning = show
        logging.setLogRecordFactory(make_record)


def _told(what: str, frame: FrameType) -> str:
    """The warning with the calls that led to it, from the last one of ours on."""
    calls = traceback.extract_stack(frame)
    last = max(
        (i for i, f in enumerate(reversed(list(_outwards(frame)))) if package_of(f) == OURS),
        default=len(calls) - 1,
    )
    return what + "\n" + "".join(traceback.format_list(calls[last:]))


def _raise(caused: list[str]) -> None:
    if caused:
        several = "" if len(caused) == 1 else f" ({len(caused)} of them)"
        told = "\n".join(dict.fromkeys(caused))
        caused.clear()
        pytest.fail(f"a warning that this project causes{several}:\n{told}", pytrace=False)


def pytest_configure(config: pytest.Config) -> None:
    global _root
    _root = f"{config.rootpath}{os.sep}"
    gc.callbacks.append(_note_collection)


def pytest_unconfigure() -> None:
    gc.callbacks.remove(_note_collection)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    item.stash[_caused] = []
    with watching(item.stash[_caused]):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    yield
    _raise(item.stash[_caused])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    yield
    _raise(item.stash[_caused])


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    caused: list[str] = []
    with watching(caused):
        report = yield
    if caused and report.passed:
        report.outcome = "failed"
        report.longrepr = "a warning that this project causes:\n" + "\n".join(caused)
    return report
