"""Calls of the Linux kernel for a sandbox: capabilities, Landlock, namespaces, by ctypes.

Needs the standard library only, for it runs where the package can't be imported.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable

from speceyes.tools import _sandbox_calls as calls

_libc = ctypes.CDLL(None, use_errno=True)

_MACHINES = calls.MACHINES
_CAPGET, _CAPSET, _UNSHARE, _PIVOT_ROOT = (125, 90), (126, 91), (272, 97), (155, 41)
_MOUNT_SETATTR, _SECCOMP, _LANDLOCK = 442, (317, 277), (444, 445, 446)

_READ = 1 << 2 | 1 << 3
_OF_FILES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
_FS_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""Landlock's version to how many rights on files it knows."""


class KernelError(OSError):
    """The kernel refused something that the sandbox needs."""


def _done(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise KernelError(code, f"{what}: {os.strerror(code)}")
    return result


def _machine() -> int:
    found = _MACHINES.get(platform.machine())
    if found is None:
        raise KernelError(errno.ENOSYS, f"no table of system calls for {platform.machine()}")
    return found[0]


def _call(what: str, number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char]) -> int:
    given = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _done(int(_libc.syscall(ctypes.c_long(number), *given)), what)


def confine_calls() -> None:
    """Puts the filter on this process and all of its threads, for good.

    Raises:
        KernelError: The kernel can't, or there is no table for this machine.
    """
    _machine()
    program = calls.seccomp_filter(platform.machine())
    kept = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(kept))
    _call("seccomp", _SECCOMP[_machine()], 1, 1, ctypes.create_string_buffer(fprog))


def no_new_rights() -> None:
    """No program that this process starts gains rights by its owner or its capabilities."""
    _done(_libc.prctl(38, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")


def undumpable() -> None:
    """Other processes of the same user can't attach to this one or read its memory."""
    _done(_libc.prctl(4, 0, 0, 0, 0), "PR_SET_DUMPABLE")


def die_with_parent(parent: int | None) -> None:
    """This process is killed when the one that started it ends; becoming another user undoes it.

    Args:
        parent: The one that started it, which may have ended already; None where it can't be
            seen from here.

    Raises:
        KernelError: The parent has ended.
    """
    _done(_libc.prctl(1, 9, 0, 0, 0), "PR_SET_PDEATHSIG")
    if parent is not None and os.getppid() != parent:
        raise KernelError(errno.ESRCH, "the process that asked for this has ended")


def drop_capabilities(kept: int = 0) -> None:
    """Takes every capability from this process.

    Args:
        kept: Bits of those that it keeps for itself, where it has them.
    """
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
    low, high = kept & 0xFFFFFFFF, kept >> 32
    given = struct.pack("6I", low, low, 0, high, high, 0)
    _call("capset", _CAPSET[_machine()], header, given)


def bound_capabilities() -> None:
    """Takes every capability from what this process may ever become."""
    for capability in range(64):
        if _libc.prctl(24, capability, 0, 0, 0) < 0:
            break  # past the last one, or the right to drop them is gone already


def permitted_capabilities() -> int:
    """Bits of the capabilities that this process may use."""
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
    held = ctypes.create_string_buffer(24)
    _call("capget", _CAPGET[_machine()], header, held)
    _, low, _, _, high, _ = struct.unpack("6I", held.raw)
    return int(low | high << 32)


def keep_capabilities() -> None:
    """Keeps root's capabilities permitted, though not in effect, when it becomes another user."""
    _done(_libc.prctl(8, 1, 0, 0, 0), "PR_SET_KEEPCAPS")


def landlock_version() -> int:
    """Landlock's version in this kernel; 0 where there is none."""
    return max(0, int(_libc.syscall(ctypes.c_long(_LANDLOCK[0]), None, 0, ctypes.c_long(1))))


def confine_files(readable: Iterable[str], listable: Iterable[str], writable: Iterable[str]) -> int:
    """Leaves this process these paths, and no connections, by Landlock.

    Args:
        readable: Files and folders with all that is in them.
        listable: Folders whose names may be listed, though not what is in the files.
        writable: Folders in which files may be made, changed and removed.

    Returns:
        Landlock's version; 0 where the kernel has none, and nothing was done.

    Raises:
        KernelError: The kernel has it and refused.
    """
    version = landlock_version()
    if not version:
        return 0
    every = (1 << _FS_RIGHTS[min(version, 5)]) - 1
    network = 3 if version >= 4 else 0
    scopes = 3 if version >= 6 else 0  # abstract sockets, signals
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = struct.pack("QQQ", every, network, scopes)[:size]
    made = _call("landlock_create_ruleset", _LANDLOCK[0], ruleset, size, 0)
    rules = [(path, _READ) for path in readable]
    rules += [(path, 1 << 3) for path in listable]
    # No devices, sockets or programs to be run: of what is writable, files and links alone.
    files = every & ~(1 << 0 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 15)
    rules += [(path, files) for path in writable]
    rules.append(("/dev/null", 1 << 1 | 1 << 2))
    for path, rights in rules:
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            if not os.path.isdir(path):  # noqa: PTH112 - pathlib costs time at every start
                rights &= _OF_FILES
            if rights & every:
                rule = struct.pack("=Qi", rights & every, opened)
                _call("landlock_add_rule", _LANDLOCK[1], made, 1, rule, 0)
        finally:
            os.close(opened)
    _call("landlock_restrict_self", _LANDLOCK[2], made, 0)
    os.close(made)
    return version


def unshare(flags: int) -> None:
    """New namespaces for this process (CLONE_NEW* flags)."""
    _call("unshare", _UNSHARE[_machine()], flags)


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mounts a file system, or a part of one."""
    _done(
        _libc.mount(
            source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()
        ),
        f"mount on {target}",
    )


def protect_mount(target: str, *, devices: bool = False) -> None:
    """Makes a mount and those in it read-only and nosuid; without devices, but where asked."""
    attributes = struct.pack("QQQQ", 1 | 2 | (0 if devices else 4), 0, 0, 0)
    _call(f"mount_setattr {target}", _MOUNT_SETATTR, -100, target.encode(), 0x8000, attributes, 32)


def protect_root() -> None:
    """Makes the root itself read-only, not what is mounted in it."""
    attributes = struct.pack("QQQQ", 1 | 2 | 4, 0, 0, 0)
    _call("mount_setattr /", _MOUNT_SETATTR, -100, b"/", 0, attributes, 32)


def pivot_root(new: str, old: str) -> None:
    """Makes `new` the root; the old one is found at `old`, which lies in it."""
    _call("pivot_root", _PIVOT_ROOT[_machine()], new.encode(), old.encode())


def detach(target: str) -> None:
    """Takes a mount away, though it may be in use."""
    _done(_libc.umount2(target.encode(), 2), f"umount {target}")
