"""Attempts at what Landlock doesn't govern, or didn't in earlier kernels: modes, times, owners and
attributes of files, their length, signals that the kernel sends on somebody's behalf, and what
else reaches out of a process by a call that looks harmless.

Each is one attempt; it prints BROKEN where it got what it wanted. They are run in one program. One
that succeeds does no harm beyond the files that are made for it.
"""

from __future__ import annotations

from support.sandbox_attempts import CALL

_FCNTL = "import fcntl, os\nr, w = os.pipe()\n"
_OUT = (
    "import os, stat\n"
    "def same(path): os.chmod(path, stat.S_IMODE(os.stat(path).st_mode)); print('BROKEN')\n"
)
# Numbers of system calls are those of x86-64. SECRET and the others are as in sandbox_attempts.
_LINK = "import os\nif not os.path.lexists('way'): os.symlink(SECRET, 'way')\n"
_SAID = "; print('BROKEN')"

ATTRIBUTES: dict[str, str] = {
    # --- modes ---
    "chmod": _OUT + "os.chmod(SECRET, 0o4755)" + _SAID,
    "chmod by call": CALL + "call(90, SECRET.encode(), 0o4755)",
    "chmod of a folder": _OUT + "same(FOLDER)",
    "chmod of the home": _OUT + "same(HOMEDIR)",
    "chmod of the parent": _OUT + "os.chmod('..', 0)" + _SAID,
    "chmod of the root": _OUT + "same('/')",
    "chmod of the library": _OUT + "same(os.__file__)",
    "chmod of the weights": _OUT + "same(MODEL)",
    "chmod of a device": _OUT + "same('/dev/null')",
    "chmod of an input": _OUT + "os.chmod(os.path.realpath('image_1.png'), 0o666)" + _SAID,
    "chmod by a link": _LINK + "os.chmod('way', 0o4755)" + _SAID,
    "chmod from a folder": _OUT + "os.chdir(FOLDER); os.chmod('secret.txt', 0)" + _SAID,
    "fchmod": _OUT + "same(os.open(os.__file__, os.O_RDONLY))",
    "fchmod of an open path": _OUT + "os.fchmod(os.open(SECRET, os.O_PATH), 0o666)" + _SAID,
    "fchmodat": CALL + "call(268, -100, SECRET.encode(), 0o4755)",
    "fchmodat by descriptor": (
        CALL + "call(268, os.open(FOLDER, os.O_PATH), b'secret.txt', 0o4755)"
    ),
    "fchmodat2": CALL + "call(452, -100, SECRET.encode(), 0o4755, 0)",
    "fchmodat2 of an open path": (
        CALL + "call(452, os.open(SECRET, os.O_PATH), b'', 0o4755, 0x1000)"
    ),
    "chmod by /proc": (
        _OUT + "os.chmod('/proc/self/fd/%d' % os.open(SECRET, os.O_PATH), 0o4755)" + _SAID
    ),
    "chmod of /proc": _OUT + "same('/proc/%d/cwd' % OUTSIDE)",
    # --- times ---
    "utime": _OUT + "os.utime(SECRET, (1, 1))" + _SAID,
    "utime of a folder": _OUT + "os.utime(FOLDER, (1, 1))" + _SAID,
    "utime by a link": _LINK + "os.utime('way', (1, 1))" + _SAID,
    "utime of an input": _OUT + "os.utime('image_1.png', (1, 1))" + _SAID,
    "utime by descriptor": _OUT + "os.utime(os.open('image_1.png', 0), (1, 1))" + _SAID,
    "utime by call": CALL + "call(132, SECRET.encode(), bytes(16))",
    "utimes": CALL + "call(235, SECRET.encode(), bytes(32))",
    "futimesat": CALL + "call(261, -100, SECRET.encode(), bytes(32))",
    "utimensat": CALL + "call(280, -100, SECRET.encode(), bytes(32), 0)",
    "utimensat of an open path": (
        CALL + "call(280, os.open(SECRET, os.O_PATH), b'', bytes(32), 0x1000)"
    ),
    "utimensat to now": CALL + "call(280, -100, SECRET.encode(), None, 0)",
    # --- owners ---
    "chown": _OUT + "os.chown(SECRET, os.getuid(), os.getgid())" + _SAID,
    "lchown": CALL + "call(94, SECRET.encode(), -1, -1)",
    "fchown": CALL + "call(93, os.open(os.__file__, 0), -1, -1)",
    "fchownat": CALL + "call(260, os.open(SECRET, os.O_PATH), b'', -1, -1, 0x1000)",
    # --- attributes ---
    "setxattr": CALL + "call(188, SECRET.encode(), b'user.x', b'y', 1, 0)",
    "lsetxattr": CALL + "call(189, SECRET.encode(), b'user.x', b'y', 1, 0)",
    "fsetxattr": CALL + "call(190, os.open('image_1.png', 0), b'user.x', b'y', 1, 0)",
    "setxattrat": CALL + "call(463, -100, SECRET.encode(), 0, b'user.x', bytes(16), 16)",
    "removexattr": CALL + "call(197, SECRET.encode(), b'security.capability')",
    "capabilities of a file": (
        CALL + "call(188, SECRET.encode(), b'security.capability', bytes(20), 20, 0)"
    ),
    "an access list": (
        CALL + "call(188, SECRET.encode(), b'system.posix_acl_access', bytes(28), 28, 0)"
    ),
    "flags of a file": (
        _FCNTL + "fcntl.ioctl(os.open(os.__file__, 0), 0x40086602, bytes(8))" + _SAID
    ),
    "flags of XFS": (
        _FCNTL + "fcntl.ioctl(os.open(os.__file__, 0), 0x401C5820, bytes(28))" + _SAID
    ),
    "flags by path": CALL + "call(469, -100, SECRET.encode(), bytes(32), 32, 0)",
    "a clone of a file": (
        _FCNTL + "f = open('c', 'wb')\n"
        "fcntl.ioctl(f.fileno(), 0x40049409, os.open(os.__file__, 0))" + _SAID
    ),
    # --- lengths ---
    "truncate": _OUT + "os.truncate(SECRET, 0)" + _SAID,
    "truncate by call": CALL + "call(76, SECRET.encode(), 0)",
    "truncate of an input": _OUT + "os.truncate('image_1.png', 0)" + _SAID,
    "truncate by a link": _LINK + "os.truncate('way', 0)" + _SAID,
    "ftruncate of what is read": _OUT + "os.ftruncate(os.open('image_1.png', 0), 0)" + _SAID,
    "emptied by opening": _OUT + "os.open('image_1.png', os.O_RDONLY | os.O_TRUNC)" + _SAID,
    "emptied by opening outside": _OUT + "os.open(SECRET, os.O_RDONLY | os.O_TRUNC)" + _SAID,
    "emptied, opened for nothing": _OUT + "os.open(SECRET, 3 | os.O_TRUNC)" + _SAID,
    "opened for nothing": _OUT + "os.open(SECRET, 3)" + _SAID,
    "opened for nothing by call": CALL + "call(2, SECRET.encode(), 3)",
    "openat2": (
        CALL + "import struct; call(437, -100, SECRET.encode(), struct.pack('QQQ', 2, 0, 0), 24)"
    ),
    "creat": CALL + "call(85, SECRET.encode(), 0o666)",
    "fallocate": CALL + "call(285, os.open('own', os.O_RDWR | os.O_CREAT), 3, 0, 1)",
    # --- links and names ---
    "link out": _OUT + "os.link(SECRET, 'taken')" + _SAID,
    "link in": _OUT + "open('mine', 'w'); os.link('mine', FOLDER + '/planted')" + _SAID,
    "linkat of an open path": (
        CALL + "call(265, os.open(SECRET, os.O_PATH), b'', -100, b'taken', 0x1000)"
    ),
    "rename out": _OUT + "os.rename(SECRET, 'taken')" + _SAID,
    "rename in": _OUT + "open('mine', 'w'); os.rename('mine', FOLDER + '/planted')" + _SAID,
    "rename over": _OUT + "open('mine', 'w'); os.rename('mine', SECRET)" + _SAID,
    "exchange": CALL + "open('mine', 'w'); call(316, -100, b'mine', -100, SECRET.encode(), 2)",
    "its own folder moved": _OUT + "os.rename(os.getcwd(), FOLDER + '/planted')" + _SAID,
    "unlink": _OUT + "os.unlink(SECRET)" + _SAID,
    "rmdir": _OUT + "os.rmdir(FOLDER)" + _SAID,
    "mkdir": _OUT + "os.mkdir(FOLDER + '/planted')" + _SAID,
    "mkdir by descriptor": (
        _OUT + "os.mkdir('planted', dir_fd=os.open(FOLDER, os.O_PATH))" + _SAID
    ),
    "symlink": _OUT + "os.symlink('/', FOLDER + '/planted')" + _SAID,
    "mknod": _OUT + "os.mknod(FOLDER + '/planted')" + _SAID,
    "mknod of a file here": CALL + "call(133, b'node', 0o100644, 0)",
    "mkfifo": _OUT + "os.mkfifo(FOLDER + '/planted')" + _SAID,
    "a file without a name": _OUT + "os.open(FOLDER, os.O_TMPFILE | os.O_RDWR)" + _SAID,
    # --- signals by the kernel ---
    "owner": _FCNTL + "fcntl.fcntl(r, fcntl.F_SETOWN, OUTSIDE)" + _SAID,
    "owner, a group": _FCNTL + "fcntl.fcntl(r, fcntl.F_SETOWN, -OUTSIDE)" + _SAID,
    "owner, of another kind": _FCNTL + "fcntl.fcntl(r, 15, bytes(4) + bytes(4))" + _SAID,
    "signal of choice": _FCNTL + "fcntl.fcntl(r, 10, 9)" + _SAID,
    "asynchronous": _FCNTL + "fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC)" + _SAID,
    "asynchronous, by opening": _OUT + "os.open('own', os.O_ASYNC | os.O_CREAT)" + _SAID,
    "asynchronous by ioctl": _FCNTL + "fcntl.ioctl(r, 0x5452, b'\\1\\0\\0\\0')" + _SAID,
    "owner by ioctl": _FCNTL + "fcntl.ioctl(r, 0x8901, OUTSIDE.to_bytes(4, 'little'))" + _SAID,
    "lease": _FCNTL + "fcntl.fcntl(os.open(os.__file__, 0), 1024, 0)" + _SAID,
    "notices of a folder": _FCNTL + "fcntl.fcntl(os.open('.', 0), 1026, 2)" + _SAID,
    "a timer that signals": CALL + "call(222, 0, bytes(64), bytes(8))",
    "a queue that signals": CALL + "call(240, b'q', 66, 0o600, None)",
    "signal to a thread": CALL + "call(200, OUTSIDE, 0)",
    "signal to a thread of a group": CALL + "call(234, OUTSIDE, OUTSIDE, 0)",
    "signal queued to a thread": CALL + "call(297, OUTSIDE, OUTSIDE, 15, bytes(128))",
    # --- others ---
    "a large pipe": _FCNTL + "fcntl.fcntl(r, 1031, 1 << 20)" + _SAID,
    "death with the parent undone": CALL + "call(157, 1, 0)",
    "dumpable again": CALL + "call(157, 4, 1)",
    "another keeper of children": CALL + "call(157, 36, 1)",
    "a thread with mounts of its own": CALL + "call(56, 0x10000 | 0x100 | 0x800 | 0x20000)",
    "a descriptor of another": CALL + "call(438, 3, 0, 0)",
    "watching files": CALL + "call(294, 0)",
    "watching all files": CALL + "call(300, 0, 0)",
    "comparing processes": CALL + "call(312, OUTSIDE, OUTSIDE, 0, 0, 0)",
    "processors of another": CALL + "call(203, OUTSIDE, 8, b'\\1' + bytes(7))",
    "priority of input and output": CALL + "call(251, 1, OUTSIDE, 0)",
    "advice on another's memory": CALL + "call(440, 3, bytes(16), 1, 21, 0)",
    "a mount's attributes": CALL + "call(442, -100, b'/', 0, bytes(32), 32)",
    "robust locks of another": CALL + "call(274, OUTSIDE, bytes(8), bytes(8))",
    "synchronising all": CALL + "call(306, os.open('.', 0))",
    "accounting": CALL + "call(163, b'own')",
    "limits of disks": CALL + "call(179, 0x800002, b'/dev/vda', 0, bytes(128))",
}
