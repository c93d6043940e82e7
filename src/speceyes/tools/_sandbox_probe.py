"""Trial of a sandbox: it is tried out before it is trusted with a model's code."""

from __future__ import annotations

import functools
import json
import logging
import os
import secrets
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

from speceyes.errors import ConfigError, ToolError
from speceyes.tools._sandbox_executors import (
    BubblewrapExecutor,
    LandlockExecutor,
    NamespaceExecutor,
    PlainExecutor,
)
from speceyes.tools._sandbox_values import Executor, Program

_log = logging.getLogger(__name__)

ISOLATIONS = ("auto", "bubblewrap", "namespaces", "landlock", "none")

# What a program must not be able to do. Each is tried against something that is really there, and
# that this process, unconfined, can reach.
_ATTEMPTS = """
import json, os, socket, sys
secret, folder, port, outside, abstract = json.loads({given!r})
def read():
    return open(secret).read()
def write():
    open(folder + "/written", "w").close()
def listing():
    return os.listdir(folder)
def connect():
    socket.create_connection(("127.0.0.1", port), 1)
def connect_local():
    socket.socket(socket.AF_UNIX).connect(abstract)
def start():
    if os.fork() == 0:
        os._exit(0)
def execute():
    try:
        os.execv("/nowhere/at/all", ["nothing"])
    except FileNotFoundError:
        pass  # it was looked for
def signal():
    os.kill(outside, 0)
def environment():
    return open("/proc/%d/environ" % outside, "rb").read()
def own_environment():
    known = {{"HOME", "TMPDIR", "PATH", "LANG", "MPLBACKEND", "MPLCONFIGDIR",
             "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "LC_CTYPE"}}
    if set(os.environ) <= known:
        raise OSError
done = []
for attempt in (read, write, listing, connect, connect_local, start, signal, environment,
                own_environment, execute):
    try:
        attempt()
    except OSError:
        continue
    done.append(attempt.__name__)
print(json.dumps(done))
"""


def holes(executor: Executor) -> list[str]:
    """Holes: things that a program in it must not be able to do and can, by a real attempt each.

    Args:
        executor: Where to try. Nothing is changed but in a temporary folder.

    Raises:
        ToolError: No program can be run there.
    """
    with tempfile.TemporaryDirectory(prefix="speceyes-probe-") as folder:
        # Open to all users, so that permissions alone don't pass for isolation.
        Path(folder).chmod(0o777)
        secret = Path(folder) / "secret"
        secret.write_text("secret")
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as own:
            abstract = "\0speceyes-" + secrets.token_hex(8)
            own.bind(abstract)
            own.listen(1)
            port = server.getsockname()[1]
            given = json.dumps([str(secret), folder, port, os.getpid(), abstract])
            code = _ATTEMPTS.format(given=given)
            outcome = executor(Program(code))
        written = [path.name for path in Path(folder).iterdir() if path.name != "secret"]
    if outcome.error is not None:
        raise ToolError(f"a trial program failed: {outcome.error} {outcome.stderr[-300:]}")
    try:
        found: list[str] = json.loads(outcome.stdout)
    except ValueError:
        raise ToolError(f"a trial program said {outcome.stdout[:200]!r}") from None
    return found + [f"wrote {name}" for name in written]


@functools.lru_cache(maxsize=64)
def prove(executor: Executor) -> None:
    """Tries a sandbox out, once a process for those that are equal.

    Raises:
        ConfigError: It doesn't run, or doesn't hold.
    """
    try:
        found = holes(executor)
    except (ToolError, OSError) as exc:
        raise ConfigError(str(exc)) from exc
    if found:
        raise ConfigError(f"it does not hold: a trial program could {', '.join(found)}")
    _log.info("sandboxed code runs in %s, which held", executor.name)


def sandbox(isolation: str, packages: Sequence[str]) -> Executor:
    """A sandbox that was tried out.

    Args:
        isolation: One of `ISOLATIONS`; "auto" takes the first of bubblewrap, namespaces and
            landlock that holds here.
        packages: Distributions that programs may import.

    Raises:
        ConfigError: There is none of that name, or none holds on this machine.
    """
    if isolation not in ISOLATIONS:
        raise ConfigError(f"isolation={isolation!r}; there are: {', '.join(ISOLATIONS)}")
    if isolation == "none":
        _log.warning("code written by models runs without isolation, as isolation='none' asks")
        return PlainExecutor()
    made: tuple[Executor, ...] = (
        BubblewrapExecutor(tuple(packages)),
        NamespaceExecutor(tuple(packages)),
        LandlockExecutor(tuple(packages)),
    )
    reasons = []
    for executor in made:
        if isolation in ("auto", executor.name):
            try:
                prove(executor)
            except ConfigError as exc:
                reasons.append(f"{executor.name}: {exc}")
            else:
                return executor
    raise ConfigError(
        f"code can't be isolated on this machine ({'; '.join(reasons)}). Install bubblewrap, run "
        "on Linux 5.13 or later, pass executor= to run it elsewhere, or pass isolation='none' to "
        "let programs written by the model do all that your user can"
    )
