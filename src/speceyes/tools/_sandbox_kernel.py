"""Calls of the Linux kernel for a sandbox: seccomp, Landlock, namespaces, by ctypes.

Needs the standard library only, for it runs where the package can't be imported.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable

_libc = ctypes.CDLL(None, use_errno=True)

# Every system call that a program which works on images may make, with its numbers on x86-64 and
# on AArch64 (-1: not there). All others are refused with EPERM: among them are those that make
# processes, open sockets, signal, trace, mount, load into the kernel or reach its key rings.
_CALLS = """
read 0 63|write 1 64|close 3 57|fstat 5 80|lseek 8 62|mmap 9 222|mprotect 10 226|munmap 11 215
brk 12 214|rt_sigaction 13 134|rt_sigprocmask 14 135|rt_sigreturn 15 139|pread64 17 67
pwrite64 18 68|readv 19 65|writev 20 66|preadv 295 69|pwritev 296 70|madvise 28 233|mremap 25 216
mincore 27 232|dup 32 23|dup3 292 24|pipe2 293 59|nanosleep 35 101|clock_nanosleep 230 115
clock_gettime 228 113|clock_getres 229 114|gettimeofday 96 169|getpid 39 172|getppid 110 173
gettid 186 178|getuid 102 174|geteuid 107 175|getgid 104 176|getegid 108 177|getgroups 115 158
getresuid 118 148|getresgid 120 150|uname 63 160|fcntl 72 25|flock 73 32|fsync 74 82
fdatasync 75 83|truncate 76 45|ftruncate 77 46|getdents64 217 61|getcwd 79 17|chdir 80 49
fchdir 81 50|fchmod 91 52|fchmodat 268 53|mkdirat 258 34|unlinkat 263 35|renameat 264 38
renameat2 316 276|symlinkat 266 36|readlinkat 267 78|openat 257 56|faccessat 269 48
faccessat2 439 439|newfstatat 262 79|statx 332 291|statfs 137 43|fstatfs 138 44|utimensat 280 88
umask 95 166|getrlimit 97 163|getrusage 98 165|sysinfo 99 179|times 100 153|sched_yield 24 124
sched_getaffinity 204 123|getcpu 309 168|set_robust_list 273 99|get_robust_list 274 100
rseq 334 293|futex 202 98|futex_waitv 449 449|set_tid_address 218 96|exit 60 93|exit_group 231 94
sigaltstack 131 132|rt_sigpending 127 136|rt_sigtimedwait 128 137|restart_syscall 219 128
getrandom 318 278|membarrier 324 283|ppoll 271 73|pselect6 270 72|sendfile 40 71
copy_file_range 326 285|getpriority 140 141|sched_getparam 143 121|sched_getscheduler 145 120
sched_get_priority_max 146 125|sched_get_priority_min 147 126|msync 26 227|fadvise64 221 223
getitimer 36 102|setitimer 38 103|open 2 -1|stat 4 -1|lstat 6 -1|access 21 -1|dup2 33 -1
pipe 22 -1|select 23 -1|poll 7 -1|mkdir 83 -1|rmdir 84 -1|rename 82 -1|unlink 87 -1
readlink 89 -1|symlink 88 -1|chmod 90 -1|getpgrp 111 -1|time 201 -1|arch_prctl 158 -1|creat 85 -1
"""
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
# Calls that depend on an argument: (x86-64, AArch64), which argument, how it is held, value.
_ASKED = (
    ((56, 220), 0, "has", 0x10000),  # clone, of threads only: CLONE_THREAD
    ((16, 29), 1, "is", 0x5401),  # ioctl TCGETS, for isatty
    ((16, 29), 1, "is", 0x5451),  # ioctl FIOCLEX
    ((157, 167), 0, "is", 15),  # prctl PR_SET_NAME, which names a thread
    ((302, 261), 0, "is", 0),  # prlimit64 of oneself: a hard limit can't be raised
)
_CLONE3 = (435, 435)
_CAPSET, _UNSHARE, _PIVOT_ROOT = (126, 91), (272, 97), (155, 41)
_MOUNT_SETATTR, _SECCOMP, _LANDLOCK = 442, (317, 277), (444, 445, 446)

_LOAD, _EQUAL, _HAS, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000

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


def seccomp_filter(machine: str) -> bytes:
    """The filter as a BPF program: allowed calls pass, all others fail with EPERM.

    Args:
        machine: "x86_64" or "aarch64", as `platform.machine()` says.
    """
    column, arch = _MACHINES[machine]

    def line(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("HBBI", code, yes, no, value)

    program = [
        line(_LOAD, 4),  # the calling convention: another one has other numbers
        line(_EQUAL, arch, 1, 0),
        line(_RETURN, _KILL),
        line(_LOAD, 0),  # the number of the call
    ]
    for entry in _CALLS.replace("\n", "|").strip("|").split("|"):
        number = int(entry.split()[1 + column])
        if number >= 0:
            program += [line(_EQUAL, number, 0, 1), line(_RETURN, _ALLOW)]
    for numbers, argument, held, value in _ASKED:
        program += [
            line(_EQUAL, numbers[column], 0, 4),
            line(_LOAD, 16 + 8 * argument),  # its lower half: both machines are little-endian
            line(_EQUAL if held == "is" else _HAS, value, 0, 1),
            line(_RETURN, _ALLOW),
            line(_LOAD, 0),
        ]
    # The C library makes threads by clone3, and by clone where that is not there.
    program += [line(_EQUAL, _CLONE3[column], 0, 1), line(_RETURN, _ERRNO | errno.ENOSYS)]
    program.append(line(_RETURN, _ERRNO | errno.EPERM))
    return b"".join(program)


def confine_calls() -> None:
    """Puts the filter on this process and all of its threads, for good.

    Raises:
        KernelError: The kernel can't, or there is no table for this machine.
    """
    _machine()
    program = seccomp_filter(platform.machine())
    kept = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(kept))
    _call("seccomp", _SECCOMP[_machine()], 1, 1, ctypes.create_string_buffer(fprog))


def no_new_rights() -> None:
    """No program that this process starts gains rights by its owner or its capabilities."""
    _done(_libc.prctl(38, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")


def undumpable() -> None:
    """Other processes of the same user can't attach to this one or read its memory."""
    _done(_libc.prctl(4, 0, 0, 0, 0), "PR_SET_DUMPABLE")


def die_with_parent() -> None:
    """This process is killed when the one that started it ends."""
    _done(_libc.prctl(1, 9, 0, 0, 0), "PR_SET_PDEATHSIG")


def drop_capabilities() -> None:
    """Takes every capability from this process, and from what it may ever become."""
    for capability in range(64):
        if _libc.prctl(24, capability, 0, 0, 0) < 0:
            break  # past the last one, or the right to drop them is gone already
    header = struct.pack("Ii", 0x20080522, 0)
    _call("capset", _CAPSET[_machine()], ctypes.create_string_buffer(header), bytes(24))


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
