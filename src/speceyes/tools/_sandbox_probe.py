"""Trial of a sandbox: it is tried out before it is trusted with a model's code."""

from __future__ import annotations

import functools
import json
import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from speceyes.errors import ConfigError, ToolError
from speceyes.tools._sandbox_executors import (
    BubblewrapExecutor,
    LandlockExecutor,
    NamespaceExecutor,
    PlainExecutor,
)
from speceyes.tools._sandbox_values import Executor, Limits, Program

_log = logging.getLogger(__name__)

_TRIAL_S = 60.0  # a busy machine is no reason to take a weaker sandbox

ISOLATIONS = ("auto", "bubblewrap", "namespaces", "landlock", "none")

# What a program must not be able to do. Each is tried against something that is really there, and
# that this process, unconfined, can reach. Nothing that succeeds does harm: no signal is sent, and
# the files are this trial's own.
_ATTEMPTS = """
import ctypes, fcntl, json, os, platform, socket, stat, sys
secret, folder, port, outside, abstract = json.loads({given!r})
victim = folder + "/victim"
libc = ctypes.CDLL(None, use_errno=True)
def call(x86, arm, *arguments):
    machines = dict(x86_64=x86, aarch64=arm)
    if libc.syscall(machines[platform.machine()], *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")
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
def change_mode():
    os.chmod(victim, 0o4755)
def change_mode_by_descriptor():
    place = os.open(victim, os.O_PATH)
    call(452, 452, place, b"", 0o4755, 0x1000)
def change_mode_by_link():
    os.chmod("/proc/self/fd/%d" % os.open(victim, os.O_PATH), 0o4755)
def change_times():
    os.utime(victim, (1, 1))
def change_owner():
    os.chown(victim, os.getuid(), os.getgid())
def set_attribute():
    os.setxattr(victim, "user.speceyes", b"x")
def truncate():
    os.truncate(victim, 1)
def empty_by_opening():
    os.open(victim, os.O_RDONLY | os.O_TRUNC)
def open_for_nothing():
    os.open(victim, 3)
def link():
    os.link(victim, "linked")
def rename():
    os.rename(victim, "renamed")
def remove():
    os.unlink(victim)
def make_folder():
    os.mkdir(folder + "/made")
def make_link():
    os.symlink("/", folder + "/symlink")
def make_device():
    os.mknod("device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
def make_pipe():
    os.mkfifo(folder + "/pipe")
def signal_by_owner():
    fcntl.fcntl(os.pipe()[0], 8, outside)  # F_SETOWN
def signal_by_owner_of_a_kind():
    fcntl.fcntl(os.pipe()[0], 15, b"\\1\\0\\0\\0" + outside.to_bytes(4, "little"))  # F_SETOWN_EX
def signal_by_choice():
    fcntl.fcntl(os.pipe()[0], 10, 0)  # F_SETSIG
def signal_by_flag():
    fcntl.fcntl(os.pipe()[0], fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
def signal_by_lease():
    fcntl.fcntl(os.open(__import__("os").__file__, os.O_RDONLY), 1024, 0)  # F_SETLEASE
done = []
for attempt in (read, write, listing, connect, connect_local, start, signal, environment,
                own_environment, execute, change_mode, change_mode_by_descriptor,
                change_mode_by_link, change_times, change_owner, set_attribute, truncate,
                empty_by_opening, open_for_nothing, link, make_folder, make_link, make_device,
                make_pipe, signal_by_owner, signal_by_owner_of_a_kind, signal_by_choice,
                signal_by_flag, signal_by_lease, rename, remove):
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
        victim = Path(folder) / "victim"
        victim.write_text("victim")
        victim.chmod(0o666)
        os.utime(victim, (10**9, 10**9))
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as own:
            abstract = "\0speceyes-" + secrets.token_hex(8)
            own.bind(abstract)
            own.listen(1)
            port = server.getsockname()[1]
            given = json.dumps([str(secret), folder, port, os.getpid(), abstract])
            code = _ATTEMPTS.format(given=given)
            outcome = executor(Program(code, limits=Limits(time_s=_TRIAL_S)))
        left = {path.name for path in Path(folder).iterdir()}
        changed = [f"wrote {name}" for name in sorted(left - {"secret", "victim"})]
        if "victim" not in left or victim.read_text() != "victim":
            changed.append("changed a file")
        elif (found_as := victim.stat()).st_mode & 0o7777 != 0o666 or found_as.st_mtime != 10**9:
            changed.append("changed a file's attributes")
    if outcome.error is not None:
        said = " ".join(f"{outcome.error} {outcome.stderr[-300:]}".split())
        raise ToolError(f"a trial program failed: {said}")
    try:
        found: list[str] = json.loads(outcome.stdout)
    except ValueError:
        raise ToolError(f"a trial program said {outcome.stdout[:200]!r}") from None
    return found + changed


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


@dataclass(frozen=True, slots=True)
class Found:
    """Sandbox that holds on this machine, and those before it that don't.

    Args:
        executor: Runs programs in it.
        passed_over: (name, reason) of stronger or equal ones that were tried first.
    """

    executor: Executor
    passed_over: tuple[tuple[str, str], ...] = ()

    @property
    def reasons(self) -> str:
        """Reasons why those before it were passed over; empty where there were none."""
        return "; ".join(f"{name}: {reason}" for name, reason in self.passed_over)


def find_sandbox(isolation: str, packages: Sequence[str]) -> Found:
    """Tries out what is there, the strongest first.

    Args:
        isolation: One of `ISOLATIONS` but "none"; "auto" takes the first of bubblewrap,
            namespaces and landlock that holds here. Any other name is that one or an error.
        packages: Distributions that programs may import.

    Raises:
        ConfigError: None holds on this machine.
    """
    made: tuple[Executor, ...] = (
        BubblewrapExecutor(tuple(packages)),
        NamespaceExecutor(tuple(packages)),
        LandlockExecutor(tuple(packages)),
    )
    reasons: list[tuple[str, str]] = []
    for executor in made:
        if isolation in ("auto", executor.name):
            try:
                prove(executor)
            except ConfigError as exc:
                reasons.append((executor.name, str(exc)))
            else:
                return Found(executor, tuple(reasons))
    raise ConfigError(
        "code can't be isolated on this machine "
        f"({'; '.join(f'{name}: {reason}' for name, reason in reasons)}). Install bubblewrap, run "
        "on Linux 5.13 or later, pass executor= to run it elsewhere, or pass isolation='none' to "
        "let programs written by the model do all that your user can"
    )


def sandbox(isolation: str, packages: Sequence[str]) -> Executor:
    """A sandbox that was tried out. A weaker one than could be is warned of, with the reason.

    Args:
        isolation: One of `ISOLATIONS`; see `find_sandbox`.
        packages: Distributions that programs may import.

    Raises:
        ConfigError: There is none of that name, or none holds on this machine.
    """
    if isolation not in ISOLATIONS:
        raise ConfigError(f"isolation={isolation!r}; there are: {', '.join(ISOLATIONS)}")
    if isolation == "none":
        _log.warning("code written by models runs without isolation, as isolation='none' asks")
        return PlainExecutor()
    found = find_sandbox(isolation, packages)
    failed = [
        name for name, _ in found.passed_over if name != "bubblewrap" or shutil.which("bwrap")
    ]
    if failed:
        _log.warning(
            "code written by models runs in the sandbox %r, since %s failed here: %s",
            found.executor.name, " and ".join(failed), found.reasons,
        )  # fmt: skip
    return found.executor
