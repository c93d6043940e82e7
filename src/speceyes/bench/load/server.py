"""The server that is loaded: starting it, and looking at it from outside."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from speceyes.errors import SpecEyesError

KEY: Final = "SPECEYES_API_KEY"
"""The variable of the environment that has the key of a server that runs already."""
UP_WITHIN_S: Final = 180.0


@dataclass(frozen=True, slots=True)
class LoadedServer:
    """Server under load. `pid` is None where it isn't ours."""

    urls: tuple[str, ...]
    pid: int | None = None


@contextmanager
def started(options: argparse.Namespace, urls: Sequence[str]) -> Iterator[LoadedServer]:
    """A server in a process of its own, or those that run already."""
    if urls:
        yield LoadedServer(tuple(urls))
        return
    command = [sys.executable, "-m", "speceyes.bench.load.target", "--pair", options.pair]
    command += ["--stall", str(options.stall), "--batch-size", str(options.batch_size)]
    command += ["--queue", str(options.queue), "--timeout", "60"]
    tell(f"starting a server on the {options.pair} pair ...")
    # It ends when its standard input does, so that it doesn't outlive us, however we end.
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, stdin=pipe, stderr=pipe, text=True)
    try:
        yield LoadedServer((_address(child),), child.pid)
    finally:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=60)
        if child.poll() is None:
            child.kill()
            child.communicate()


def _address(child: subprocess.Popen[str]) -> str:
    """Where it serves, once it is ready.

    Raises:
        SpecEyesError: It ended, or took too long.
    """
    said: list[str] = []
    assert child.stderr is not None
    for line in child.stderr:
        said.append(line)
        if found := re.search(r"on (http://\S+)/v1", line):
            end = time.monotonic() + UP_WITHIN_S
            while time.monotonic() < end:
                with contextlib.suppress(OSError):
                    _get(f"{found[1]}/readyz")
                    return found[1]
                time.sleep(0.05)
            break
    raise SpecEyesError(f"the server did not start: {' '.join(said[-5:]).strip()}")


def _get(url: str) -> str:
    headers = {"Authorization": f"Bearer {os.environ[KEY]}"} if KEY in os.environ else {}
    # Not through a proxy of the environment: it is the server that is measured.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(urllib.request.Request(url, headers=headers), timeout=30) as reply:
        return str(reply.read().decode())


def counted(server: LoadedServer) -> dict[str, float] | None:
    """Counters of the server; None where it can't be told apart from what others ask."""
    if server.pid is None:
        return None
    found = {"responses": 0.0, "in_flight": 0.0, "waiting": 0.0}
    for line in _get(f"{server.urls[0]}/metrics").splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith("speceyes_responses_total{"):
            found["responses"] += float(value)
        elif name.removeprefix("speceyes_") in found:
            found[name.removeprefix("speceyes_")] = float(value)
    return found


def settled(
    server: LoadedServer, before: dict[str, float] | None, sent: int
) -> dict[str, float] | None:
    """The same once nothing is under way any more, and all that was sent is counted; whatever it
    is after some seconds, where that doesn't come about.
    """
    found = counted(server)
    end = time.monotonic() + 20
    while found is not None and before is not None:
        found["responses"] -= before["responses"]
        done = found["responses"] >= sent and not (found["in_flight"] or found["waiting"])
        if done or time.monotonic() > end:
            break
        time.sleep(0.1)
        found = counted(server)
    return found


def resident(pid: int | None) -> float | None:
    """Bytes that a process holds in memory; None where the system doesn't tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def tell(what: str) -> None:
    """Says how far it is, on standard error."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')}  {what}\n")
