"""System calls that a sandboxed program may make, and the seccomp filter that refuses the others.

Needs the standard library only, for it runs where the package can't be imported.
"""

from __future__ import annotations

import errno
import struct

# Every system call that a program which works on images may make, with its numbers on x86-64 and
# on AArch64 (-1: not there). All others are refused with EPERM: among them are those that make
# processes, open sockets, signal, trace, mount, load into the kernel or reach its key rings, and
# those that change a file's mode, times, owner or attributes by its name, or its length: Landlock
# doesn't govern these, truncation not before Linux 6.2.
_CALLS = """
read 0 63|write 1 64|close 3 57|fstat 5 80|lseek 8 62|mmap 9 222|mprotect 10 226|munmap 11 215
brk 12 214|rt_sigaction 13 134|rt_sigprocmask 14 135|rt_sigreturn 15 139|pread64 17 67
pwrite64 18 68|readv 19 65|writev 20 66|preadv 295 69|pwritev 296 70|madvise 28 233|mremap 25 216
mincore 27 232|dup 32 23|dup3 292 24|pipe2 293 59|nanosleep 35 101|clock_nanosleep 230 115
clock_gettime 228 113|clock_getres 229 114|gettimeofday 96 169|getpid 39 172|getppid 110 173
gettid 186 178|getuid 102 174|geteuid 107 175|getgid 104 176|getegid 108 177|getgroups 115 158
getresuid 118 148|getresgid 120 150|uname 63 160|flock 73 32|fsync 74 82
fdatasync 75 83|ftruncate 77 46|getdents64 217 61|getcwd 79 17|chdir 80 49
fchdir 81 50|mkdirat 258 34|unlinkat 263 35|renameat 264 38
renameat2 316 276|symlinkat 266 36|readlinkat 267 78|faccessat 269 48
faccessat2 439 439|newfstatat 262 79|statx 332 291|statfs 137 43|fstatfs 138 44
umask 95 166|getrlimit 97 163|getrusage 98 165|sysinfo 99 179|times 100 153|sched_yield 24 124
sched_getaffinity 204 123|getcpu 309 168|set_robust_list 273 99
rseq 334 293|futex 202 98|futex_waitv 449 449|set_tid_address 218 96|exit 60 93|exit_group 231 94
sigaltstack 131 132|rt_sigpending 127 136|rt_sigtimedwait 128 137|restart_syscall 219 128
getrandom 318 278|membarrier 324 283|ppoll 271 73|pselect6 270 72|sendfile 40 71
copy_file_range 326 285|getpriority 140 141|sched_getparam 143 121|sched_getscheduler 145 120
sched_get_priority_max 146 125|sched_get_priority_min 147 126|msync 26 227|fadvise64 221 223
getitimer 36 102|setitimer 38 103|stat 4 -1|lstat 6 -1|access 21 -1|dup2 33 -1
pipe 22 -1|select 23 -1|poll 7 -1|mkdir 83 -1|rmdir 84 -1|rename 82 -1|unlink 87 -1
readlink 89 -1|symlink 88 -1|getpgrp 111 -1|time 201 -1|arch_prctl 158 -1|creat 85 -1
"""
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""`platform.machine()` to the column of its numbers and what the kernel calls it."""

_WHOLE = 0xFFFFFFFF
_THREAD, _NAMESPACES = 0x10000, 0x7E020080  # CLONE_THREAD, every CLONE_NEW*
_TRUNCATES, _ASYNC = 0x200, 0x2000  # O_TRUNC, O_ASYNC
# Opened for reading alone, a file can be emptied all the same where Landlock doesn't govern that;
# opened for neither reading nor writing (3), it asks for no right of Landlock's.
_OPENED = ((_TRUNCATES | _ASYNC | 3, 0), (_ASYNC | 3, 1), (_ASYNC | 3, 2))
# Duplicates, flags and locks. Not F_SETOWN, F_SETSIG, F_SETLEASE and F_NOTIFY, which have the
# kernel send signals to others, nor F_SETPIPE_SZ, which takes its memory.
_CONTROLS = (0, 1, 2, 3, 5, 6, 7, 36, 37, 38, 1030, 1032, 1034)
# Calls that depend on their arguments: (x86-64, AArch64), and what must hold of all these:
# which argument, the mask of its lower half, the value of what the mask leaves.
_ASKED: tuple[tuple[tuple[int, int], tuple[tuple[int, int, int], ...]], ...] = (
    ((56, 220), ((0, _THREAD | _NAMESPACES, _THREAD),)),  # clone
    ((16, 29), ((1, _WHOLE, 0x5401),)),  # ioctl TCGETS, for isatty
    ((16, 29), ((1, _WHOLE, 0x5451),)),  # ioctl FIOCLEX
    ((157, 167), ((0, _WHOLE, 15),)),  # prctl PR_SET_NAME, which names a thread
    ((302, 261), ((0, _WHOLE, 0),)),  # prlimit64 of oneself: a hard limit can't be raised
    *(((257, 56), ((2, mask, value),)) for mask, value in _OPENED),  # openat
    *(((2, -1), ((1, mask, value),)) for mask, value in _OPENED),  # open
    *(((72, 25), ((1, _WHOLE, what),)) for what in _CONTROLS),  # fcntl
    ((72, 25), ((1, _WHOLE, 4), (2, _ASYNC, 0))),  # fcntl F_SETFL
)
_CLONE3 = (435, 435)

_LOAD, _AND, _EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000


def seccomp_filter(machine: str) -> bytes:
    """The filter as a BPF program: allowed calls pass, all others fail with EPERM.

    Args:
        machine: "x86_64" or "aarch64", as `platform.machine()` says.
    """
    column, arch = MACHINES[machine]
    program = [
        _line(_LOAD, 4),  # the calling convention: another one has other numbers
        _line(_EQUAL, arch, 1, 0),
        _line(_RETURN, _KILL),
        _line(_LOAD, 0),  # the number of the call
    ]
    for entry in _CALLS.replace("\n", "|").strip("|").split("|"):
        number = int(entry.split()[1 + column])
        if number >= 0:
            program += [_line(_EQUAL, number, 0, 1), _line(_RETURN, _ALLOW)]
    for numbers, conditions in _ASKED:
        if numbers[column] >= 0:
            program += _asked(numbers[column], conditions)
    # The C library makes threads by clone3, and by clone where that is not there.
    program += [_line(_EQUAL, _CLONE3[column], 0, 1), _line(_RETURN, _ERRNO | errno.ENOSYS)]
    program.append(_line(_RETURN, _ERRNO | errno.EPERM))
    return b"".join(program)


def _line(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """One instruction; a comparison skips `yes` or `no` of those that follow."""
    return struct.pack("HBBI", code, yes, no, value)


def _asked(number: int, conditions: tuple[tuple[int, int, int], ...]) -> list[bytes]:
    """Instructions that allow a call where all conditions hold, and else go on to the next."""
    length = 3 * len(conditions) + 2
    lines = [_line(_EQUAL, number, 0, length)]
    for at, (argument, mask, value) in enumerate(conditions):
        lines += [
            _line(_LOAD, 16 + 8 * argument),  # both machines are little-endian
            _line(_AND, mask),
            _line(_EQUAL, value, 0, length - 3 * at - 4),
        ]
    return [*lines, _line(_RETURN, _ALLOW), _line(_LOAD, 0)]
