"""The way into a sandbox: namespaces of its own, with nothing in them but what was named.

Needs the standard library only. Run in a fresh interpreter, which is the sandbox from then on.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

from speceyes.tools import _sandbox_kernel as kernel
from speceyes.tools import _sandbox_worker as worker

_USER, _MOUNTS, _PIDS, _NETWORK, _IPC, _NAMES, _CGROUPS = (
    0x10000000, 0x00020000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x02000000,
)  # fmt: skip
_NOSUID, _NODEV, _BIND, _REC, _PRIVATE = 2, 4, 4096, 16384, 1 << 18


def main() -> None:
    """Takes the job, enters the sandbox that it asks for, and does it. Ends the process."""
    try:
        job, blobs = worker.read_job()
        if job["mounts"] is not None:
            _enter(job, blobs)
        else:
            if job.get("host"):
                kernel.die_with_parent(job["host"])
            worker.put_inputs(job, blobs)
        worker.work(job)
    except BaseException as exc:  # noqa: BLE001 - read by the process outside
        os.write(2, f"{type(exc).__name__}: {exc}".encode())
    os._exit(125)


def _enter(job: dict[str, Any], blobs: list[bytes]) -> None:
    """Returns in the one process that is left, inside; the others wait for it."""
    user = _user_namespace()
    kernel.die_with_parent(job["host"])
    os.umask(0o022)
    folders = _build(job, blobs)
    alive = os.pipe()
    inside = os.fork()
    if inside:
        os.close(alive[0])
        _wait_for(inside)
    os.close(alive[1])
    kernel.die_with_parent(None)
    if select.select([alive[0]], [], [], 0)[0]:
        os._exit(125)  # the one that waits for this one is gone, before it could be told so
    os.close(alive[0])
    # This one is the first process of its namespace: when it ends, all others there do.
    program = os.fork()
    if program:
        _wait_for(program)
    if user is not None:
        for folder in folders:
            os.chown(folder, user, user)
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def _wait_for(process: int) -> None:
    """Ends as that process ends, and ends it when asked to, so that nothing is left unreaped."""
    signal.signal(signal.SIGTERM, lambda *_: os.kill(process, signal.SIGKILL))
    os.chdir("/")
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _user_namespace() -> int | None:
    """Every namespace, new.

    Returns:
        The user to become once all is built, where there is another to become.
    """
    flags = _USER | _MOUNTS | _PIDS | _NETWORK | _IPC | _NAMES | _CGROUPS
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0 and _mapped_by_root(flags):
        return worker.NOBODY
    if uid != 0 or not _is_unshared():
        kernel.unshare(flags)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{worker.NOBODY} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{worker.NOBODY} {gid} 1")
    return None


def _is_unshared() -> bool:
    """True where this process is in a user namespace that has no map yet."""
    return not Path("/proc/self/uid_map").read_text().strip()


def _mapped_by_root(flags: int) -> bool:
    """Root's program shall run as nobody, so that not even the owner of a file is root outside.

    Two users are mapped for it, which only a process outside of the namespace may do.
    """
    ready = os.pipe()
    here = os.getpid()
    outside = os.fork()
    if not outside:
        code = 1
        try:
            os.close(ready[1])
            os.read(ready[0], 1)
            for kind in ("uid_map", "gid_map"):
                two = f"0 0 1\n{worker.NOBODY} {worker.NOBODY} 1\n"
                Path(f"/proc/{here}/{kind}").write_text(two)
            code = 0
        except OSError:
            pass  # a container whose root is not quite root
        os._exit(code)
    kernel.unshare(flags)
    os.write(ready[1], b".")
    _, status = os.waitpid(outside, 0)
    for end in ready:
        os.close(end)
    return status == 0


def _build(job: dict[str, Any], blobs: list[bytes]) -> list[str]:
    """A new root with the mounts that the job names, and no way back to the old one.

    Returns:
        The folders that are the program's own.
    """
    kernel.mount("none", "/", flags=_REC | _PRIVATE)
    kernel.mount("tmpfs", "/tmp", "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755")
    Path("/tmp/.outside").mkdir()
    kernel.pivot_root("/tmp", "/tmp/.outside")
    os.chdir("/")
    cwd = job["cwd"]
    _room(cwd, job["limits"]["disk_bytes"], 700)
    shared = [(f"{cwd}/{name}", target) for name, target in job["shared"]]
    for source, target in shared:
        Path(source).mkdir()
        Path(target).mkdir()
        kernel.mount(source, target, flags=_BIND)
    for source, target in job["mounts"]:
        _bind(f"/.outside{source}", target)
    for target in job["masks"]:
        if Path(target).is_dir():
            kernel.mount("tmpfs", target, "tmpfs", _NOSUID | _NODEV, "size=4k,mode=755")
            kernel.protect_mount(target)
    for path, leads_to in job["links"]:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).symlink_to(leads_to)
    inputs = job["inputs_dir"]
    _room(inputs, sum(map(len, blobs)) + 8192 * (len(blobs) + 2), 755)
    worker.put_inputs(job, blobs)
    kernel.protect_mount(inputs)
    kernel.detach("/.outside")
    Path("/.outside").rmdir()
    kernel.protect_root()
    sys.path_importer_cache.clear()
    return [cwd, *(source for source, _ in shared)]


def _room(folder: str, size: int, mode: int) -> None:
    """A new folder that holds so many bytes."""
    Path(folder).mkdir()
    options = f"size={size},mode={mode},nr_inodes=4096"
    kernel.mount("tmpfs", folder, "tmpfs", _NOSUID | _NODEV, options)


def _bind(source: str, target: str) -> None:
    """Mounts a file or a folder of the old root, read-only."""
    place, there = Path(target), Path(source)
    if not there.exists():
        return
    if there.is_dir():
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    kernel.mount(source, target, flags=_BIND | _REC)
    kernel.protect_mount(target, devices=target.startswith("/dev/"))
