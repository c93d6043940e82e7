"""What every test runs under: no network, no hidden deadlines."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["pytester", "support.processes", "support.warning_rules"]

# Nothing in the tests may reach for a model on the hub: a missing file has to fail at once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Processes that share the cores get in each other's way with a thread for each core.
if os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

# What workers and the programs of tests import is compiled once, not by each of them: 20 s of each
# worker. A container's image often says otherwise, so that its layers stay small.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shared machine is slow at times; a property is right or wrong, not late. The same tree gives the
# same verdict: `pytest --hypothesis-profile explore` draws other cases each time, to find new ones.
settings.register_profile("speceyes", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile("speceyes")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected stays to the end, so that looking for garbage in it, here and
    behind each test, is time for nothing.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is exhaustive runs where `-m` names it, or once more where it failed."""
    if "exhaustive" in config.getoption("markexpr", "") or config.getoption("lf", False):
        return
    long = [item for item in items if item.get_closest_marker("exhaustive")]
    if long:
        items[:] = [item for item in items if not item.get_closest_marker("exhaustive")]
        config.hook.pytest_deselected(items=long)


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the repository."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _warnings_are_logged() -> Iterator[None]:
    """The command line, when called in this process, turns libraries' warnings off for good."""
    yield
    logging.disable(logging.NOTSET)
