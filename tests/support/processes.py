"""Starting programs so that they end with the test, and a pytest plugin that looks for any left.

Threads too: `our_threads` before and after.

A program that a test starts is the leader of a process group of its own, and the whole group ends
with the block, however the block ends.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MARK = "SPECEYES_TEST_SESSION"
"""Environment variable that tells the processes of one test session from all others."""
HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
"""Helpers of Python's own, which end with the process that they belong to."""
LEFT_OVER = 11
"""Exit status of a session that left processes, whatever else there was."""
_GRACE_S = 10.0


@contextmanager
def started(
    *command: str | os.PathLike[str], grace_s: float = _GRACE_S, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Runs a program while the block runs, then ends it and all that it started.

    Args:
        command: The program and its arguments.
        grace_s: Seconds between the request to end and the end by force.
        **options: As for `subprocess.Popen`; text mode, unless `text=False`.
    """
    options = {"text": True, **options}
    child = subprocess.Popen([os.fspath(word) for word in command], process_group=0, **options)
    try:
        yield child
    finally:
        end_group(child, grace_s)
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                with suppress(OSError):  # what was left to write has nobody to read it
                    stream.close()


def end_group(child: subprocess.Popen[Any], grace_s: float = _GRACE_S) -> None:
    """Ends a program, and what is left of its process group whether its leader is gone or not."""
    if child.poll() is None:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(child.pid, signal.SIGTERM)
            child.wait(grace_s)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def our_threads() -> set[threading.Thread]:
    """The threads of pipelines and tools; other packages start and end theirs when they like."""
    names = ("speceyes", "tool ", "async tool", "mcp session")
    return {one for one in threading.enumerate() if one.name.startswith(names)}


def until(what: Callable[[], object], seconds: float = 60.0) -> None:
    """Waits until it is so."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)


@dataclass(frozen=True, slots=True)
class Left:
    """A process that a test session has started and not ended."""

    pid: int
    command: str
    started_by: str

    def __str__(self) -> str:
        return f"{self.pid}: {self.command} (started by {self.started_by})"


def left_over(mark: str) -> list[Left]:
    """The processes that carry a session's mark, and the children of this one.

    None where there is no /proc.
    """
    found = []
    marked = f"{MARK}={mark}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile, or is another user's
            parent = int((path / "stat").read_bytes().rpartition(b")")[2].split()[1])
            environment = (path / "environ").read_bytes().split(b"\0")
            # What was forked has the environment that this process began with.
            if parent != os.getpid() and not any(v.startswith(marked) for v in environment):
                continue
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            test = [v for v in environment if v.startswith(b"PYTEST_CURRENT_TEST=")]
            by = test[0].decode(errors="replace").partition("=")[2] if test else "no test"
            if words and not any(helper in words for helper in HELPERS):
                found.append(Left(int(path.name), words.strip()[:200], by))
    return found


_mark = pytest.StashKey[str]()
_left = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    # A shell that starts pytest in the background has it ignore Ctrl-C, and its children with it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # What is started inherits it, and a worker of xdist begins its own with that of its session.
    config.stash[_mark] = os.environ[MARK] = f"{os.environ.get(MARK, '')}.{secrets.token_hex(8)}"
    config.stash[_left] = []


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, None, None]:
    yield
    config = session.config
    for one in left_over(config.stash[_mark]):
        config.stash[_left].append(str(one))
        with suppress(OSError):
            os.kill(one.pid, signal.SIGKILL)
    worker = getattr(config, "workeroutput", None)
    if worker is not None:
        worker["left_over"] = config.stash[_left]
    elif config.stash[_left]:
        session.exitstatus = LEFT_OVER


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    node.config.stash[_left].extend(getattr(node, "workeroutput", {}).get("left_over", ()))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if left := config.stash[_left]:
        terminalreporter.section("processes that tests started and did not end", red=True)
        for one in left:
            terminalreporter.line(one)
