"""What stands around the sandbox in the tests, and whether it is still as it was."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from speceyes import tiny
from speceyes.errors import ConfigError
from speceyes.tools import _sandbox_run
from speceyes.tools.python import (
    BubblewrapExecutor,
    Executor,
    LandlockExecutor,
    NamespaceExecutor,
    prove,
)

KINDS = {
    "namespaces": NamespaceExecutor,
    "landlock": LandlockExecutor,
    "bubblewrap": BubblewrapExecutor,
}


@functools.cache
def missing(kind: str) -> str | None:
    """Why a kind of isolation can't be tested here; None where it can."""
    if not sys.platform.startswith("linux"):
        return "no isolation but on Linux"
    try:
        prove(KINDS[kind]())
    except ConfigError as exc:
        return f"{kind}: {exc}"
    return None


def executor(kind: str) -> Executor:
    """The executor, or the test is skipped where there is no such isolation."""
    if reason := missing(kind):
        # What was tried and didn't hold is a failure and no reason to skip.
        assert "does not hold" not in reason, reason
        pytest.skip(reason)
    return KINDS[kind]()


def any_executor() -> Executor:
    """The first isolation that there is here."""
    for kind in KINDS:
        if missing(kind) is None:
            return KINDS[kind]()
    pytest.skip("; ".join(str(missing(kind)) for kind in KINDS))


@dataclass
class Host:
    """Canaries: a file, a folder, servers, a secret in the environment, and this process."""

    folder: Path
    names: dict[str, Any]
    token: str
    attributes: tuple[object, ...]
    sessions: list[int] = field(default_factory=list)
    servers: list[socket.socket] = field(default_factory=list)

    def code(self, attempt: str) -> str:
        return "\n".join([*(f"{k} = {v!r}" for k, v in self.names.items()), attempt])

    def check(self) -> None:
        """Nothing of it was touched, and nothing that was started is left."""
        secret = Path(self.names["SECRET"])
        assert secret.read_text() == self.token
        assert _attributes(secret) == self.attributes
        assert [path.name for path in self.folder.iterdir()] == [secret.name]
        assert os.environ["SPECEYES_SECRET"] == self.token
        for server in self.servers:
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.accept()
        assert self.sessions, "no process was started"
        assert [p for p in _processes() if p[1] in self.sessions] == []
        self.sessions.clear()


def _attributes(path: Path) -> tuple[object, ...]:
    """What an attack may change of a file and its folder but the content."""
    about = [place.stat() for place in (path, path.parent)]
    found = tuple(
        (one.st_mode, one.st_uid, one.st_gid, one.st_nlink, one.st_ctime_ns) for one in about
    )
    return found + (tuple(os.listxattr(path)) if hasattr(os, "listxattr") else ())


def _processes() -> Iterator[tuple[int, int]]:
    """(process, its session) of all that there are."""
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (path / "stat").read_text().rpartition(")")[2].split()
                yield int(path.name), int(stat[3])


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with its canaries, whose processes are counted."""
    top = tmp_path_factory.mktemp("host")
    folder = top / "open"
    folder.mkdir()
    for path in (*top.parents[:1], top, folder):
        path.chmod(0o777)
    token = secrets.token_hex(16)
    secret = folder / "secret.txt"
    secret.write_text(token)
    secret.chmod(0o666)
    weights = tiny.LARGE / "model.safetensors"
    sessions: list[int] = []

    class Counted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            sessions.append(self.pid)

    with (
        pytest.MonkeyPatch.context() as patch,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as local,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        patch.setenv("SPECEYES_SECRET", token)
        patch.setattr(_sandbox_run.subprocess, "Popen", Counted)
        path, name = str(top / "unix"), f"\0speceyes-{token}"
        local.bind(path)
        Path(path).chmod(0o777)
        abstract.bind(name)
        local.listen()
        abstract.listen()
        names = {
            "SECRET": str(secret),
            "FOLDER": str(folder),
            "HOMEDIR": str(Path.home()),
            "PORT": server.getsockname()[1],
            "UNIX": path,
            "ABSTRACT": name,
            "OUTSIDE": os.getpid(),
            "MODEL": str(weights if weights.exists() else secret),
        }
        attributes = _attributes(secret)
        yield Host(folder, names, token, attributes, sessions, [server, local, abstract])


def numbers_are_ours() -> bool:
    """Whether the numbers of system calls in the attempts are this machine's."""
    return platform.machine() == "x86_64"
