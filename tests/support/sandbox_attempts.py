"""Attempts to get out of the sandbox, or to harm what is around it: programs as an attacker
would write them. Each prints BROKEN where it got what it wanted; most raise on the way.
"""

from __future__ import annotations

# What the programs are given: SECRET, a file of the host that all may read; FOLDER, a folder of
# the host that all may write to; PORT, a server on the host's loopback; UNIX, a socket file;
# ABSTRACT, an abstract socket; OUTSIDE, the process id of the test; MODEL, a file of model
# weights; HOMEDIR, the user's home.
CALL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    print("BROKEN", result)
"""

ATTEMPTS: dict[str, str] = {
    # --- starting something ---
    "os.system": "import os\nif os.system('echo BROKEN') == 0: print('BROKEN')",
    "subprocess": "import subprocess; print('BROKEN', subprocess.run(['/bin/ls']))",
    "a shell": "import os; print('BROKEN', os.popen('id').read() or 1/0)",
    "execve": "import os; os.execv('/usr/bin/python3', ['python3', '-c', 'print(\"BROKEN\")'])",
    "the loader as a program": "import os; os.execv('/lib64/ld-linux-x86-64.so.2', ['ld', '/x'])",
    "posix_spawn": "import os; os.posix_spawn('/bin/sh', ['sh'], {}); print('BROKEN')",
    "fork": "import os\nif os.fork() >= 0: print('BROKEN')",
    "fork by system call": CALL + "call(57)",
    "clone3": CALL + "call(435, bytes(88), 88)",
    "fork bomb": "import os\nwhile True:\n    os.fork(); print('BROKEN')",
    "multiprocessing": (
        "import multiprocessing as m\np = m.get_context('fork').Process(target=print)\n"
        "p.start(); print('BROKEN')"
    ),
    "thread bomb": (
        "import threading, time\nfor _ in range(5000):\n"
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nprint('BROKEN')"
    ),
    # --- the network ---
    "a socket": "import socket; socket.create_connection(('1.1.1.1', 53), 1); print('BROKEN')",
    "the host's loopback": (
        "import socket; socket.create_connection(('127.0.0.1', PORT), 1); print('BROKEN')"
    ),
    "a server of its own": "import socket; socket.create_server(('', 0)); print('BROKEN')",
    "names": "import socket; print('BROKEN', socket.getaddrinfo('localhost', 80))",
    "urllib": "import urllib.request as u; print('BROKEN', u.urlopen(f'http://127.0.0.1:{PORT}'))",
    "a Unix socket": (
        "import socket; socket.socket(socket.AF_UNIX).connect(UNIX); print('BROKEN')"
    ),
    "an abstract socket": (
        "import socket; socket.socket(socket.AF_UNIX).connect(ABSTRACT); print('BROKEN')"
    ),
    "a raw socket": (
        "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW); print('BROKEN')"
    ),
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, 3, 0); print('BROKEN')",
    "socketpair": "import socket; socket.socketpair(); print('BROKEN')",
    # --- reading ---
    "/etc/passwd": "print('BROKEN', open('/etc/passwd').read())",
    "/etc/shadow": "print('BROKEN', open('/etc/shadow').read())",
    "a file of the host": "print('BROKEN', open(SECRET).read())",
    "a folder of the host": "import os; print('BROKEN', os.listdir(FOLDER))",
    "the model's weights": "print('BROKEN', len(open(MODEL, 'rb').read()))",
    "the home folder": "import os; print('BROKEN', os.listdir(HOMEDIR))",
    "/proc of the host": "print('BROKEN', open('/proc/%d/cmdline' % OUTSIDE).read())",
    "processes listed": "import os; print('BROKEN', os.listdir('/proc'))",
    "memory of itself by /proc": "print('BROKEN', open('/proc/self/mem', 'rb').read(1))",
    "the root by /proc": "import os; print('BROKEN', os.listdir('/proc/1/root'))",
    "the parent's environment": (
        "import os; print('BROKEN', open('/proc/%d/environ' % os.getppid(), 'rb').read())"
    ),
    "secrets in the environment": ("import os; print('BROKEN', os.environ['SPECEYES_SECRET'])"),
    "/sys": "import os; print('BROKEN', os.listdir('/sys'))",
    "devices": "print('BROKEN', open('/dev/mem', 'rb').read(1))",
    "a disk": "print('BROKEN', open('/dev/vda', 'rb').read(1))",
    "shared memory of the host": "import os; print('BROKEN', os.listdir('/dev/shm'))",
    "files that were left open": (
        "import os\nfor fd in range(3, 1024):\n"
        "    try: data = os.pread(fd, 9, 0)\n    except OSError: continue\n"
        # Its own inputs it may have open.
        "    if not data.startswith(b'\\x89PNG'): print('BROKEN', fd, data)\n"
        "raise OSError"
    ),
    "dot dot": "print('BROKEN', open('../' * 40 + SECRET.lstrip('/')).read())",
    "a link out": "import os; os.symlink(SECRET, 'a.txt'); print('BROKEN', open('a.txt').read())",
    # --- writing ---
    "a file in a folder of the host": "open(FOLDER + '/planted', 'w'); print('BROKEN')",
    "the inputs": "open('image_1.png', 'r+b').write(b'x'); print('BROKEN')",
    "the inputs, replaced": (
        "import os; p = os.path.realpath('image_1.png'); os.unlink(p); print('BROKEN')"
    ),
    "the library": "import os; open(os.__file__, 'a').write('x'); print('BROKEN')",
    "a module for the next one": (
        "import os, numpy\n"
        "open(os.path.dirname(numpy.__file__) + '/planted.py', 'w'); print('BROKEN')"
    ),
    "a hard link": "import os; os.link(os.__file__, 'a'); print('BROKEN')",
    "a device node": "import os, stat; os.mknod('n', 0o600 | stat.S_IFBLK, 1); print('BROKEN')",
    "a pipe with a name": "import os; os.mkfifo('p'); print('BROKEN')",
    "another owner": "import os; os.chown('.', 0, 0) or os.chown('.', 1, 1); print('BROKEN')",
    "root": "import os; os.setuid(0); os.setresuid(0, 0, 0); print('BROKEN')",
    # --- the processes outside ---
    "a signal to the test": "import os; os.kill(OUTSIDE, 0); print('BROKEN')",
    "a signal to the parent": "import os; os.kill(os.getppid(), 9); print('BROKEN')",
    "a signal to all": "import os; os.kill(-1, 9); print('BROKEN')",
    "a signal by queue": CALL + "call(129, OUTSIDE, 9, bytes(128))",
    "a process by descriptor": CALL + "call(434, OUTSIDE, 0)",
    "ptrace": CALL + "call(101, 16, OUTSIDE, 0, 0)",
    "memory of another": CALL + "call(310, OUTSIDE, bytes(16), 1, bytes(16), 1, 0)",
    "a group of its own": "import os; os.setsid(); print('BROKEN')",
    "priority": "import os; os.setpriority(os.PRIO_PROCESS, OUTSIDE, 19); print('BROKEN')",
    "limits of another": CALL + "call(302, OUTSIDE, 7, None, bytes(16))",
    "limits raised": ("import resource as r; r.setrlimit(r.RLIMIT_AS, (-1, -1)); print('BROKEN')"),
    # --- the kernel ---
    "mount": CALL + "call(165, b'tmpfs', b'/sandbox', b'tmpfs', 0, None)",
    "bind mount": CALL + "call(165, b'/usr', b'/sandbox', None, 4096, None)",
    "remount the root": CALL + "call(165, None, b'/', None, 32, None)",
    "umount": CALL + "call(166, b'/inputs', 2)",
    "a new mount by descriptor": CALL + "call(430, b'tmpfs', 0)",
    "chroot": "import os; os.mkdir('r'); os.chroot('r'); print('BROKEN')",
    "pivot_root": CALL + "call(155, b'.', b'.')",
    "namespaces again": CALL + "call(272, 0x10000000)",
    "another namespace": CALL + "call(308, 0, 0)",
    "keyctl": CALL + "call(250, 0, -3, 0)",
    "a key": CALL + "call(248, b'user', b'a', b'b', 1, -3)",
    "bpf": CALL + "call(321, 0, bytes(128), 128)",
    "perf": CALL + "call(298, bytes(128), 0, -1, -1, 0)",
    "io_uring": CALL + "call(425, 8, bytes(256))",
    "userfaultfd": CALL + "call(323, 0)",
    "memfd": CALL + "call(319, b'a', 0)",
    "shared memory of System V": CALL + "call(29, 0, 4096, 0o1600)",
    "message queues": CALL + "call(68, 0, 0o1600)",
    "a module": CALL + "call(313, 0, b'', 0)",
    "kexec": CALL + "call(246, 0, 0, None, 0)",
    "reboot": CALL + "call(169, 0xfee1dead, 672274793, 0, None)",
    "the clock": "import time; time.clock_settime(time.CLOCK_REALTIME, 0); print('BROKEN')",
    "the host's name": "import socket; socket.sethostname('x'); print('BROKEN')",
    "swap": CALL + "call(167, b'/sandbox', 0)",
    "personality": CALL + "call(135, 0x0040000)",
    "32-bit calls": CALL + "call(0x40000000 + 39)",
    "seccomp off": CALL + "call(317, 0, 0, None)",
    "typing into a terminal": ("import fcntl; fcntl.ioctl(0, 0x5412, b'x'); print('BROKEN')"),
    "a handle of a file": CALL + "call(304, -100, bytes(128), 0)",
    # --- Python's own ways ---
    "dunder tricks": (
        "found = [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'Popen']\n"
        "import subprocess\nprint('BROKEN', subprocess.Popen(['/bin/sh', '-c', 'echo hi']))"
    ),
    "frames of the caller": (
        "import sys\nf, seen = sys._getframe(), ''\n"
        "while f: seen += str(f.f_globals) + str(f.f_locals); f = f.f_back\n"
        "print('BROKEN') if 'SPECEYES_' + 'SECRET' in seen else 1/0"
    ),
    "the garbage collector": (
        "import gc\nfound = [o for o in gc.get_objects() if isinstance(o, dict) and "
        "o.get('SPECEYES_SECRET')]\nprint('BROKEN') if found else 1/0"
    ),
    "the package itself": "import speceyes; print('BROKEN', speceyes.__file__)",
    "other packages": "import torch; print('BROKEN')",
    "seccomp by ctypes": CALL + "print('BROKEN') if libc.prctl(22, 0) == 0 else 1/0",
    "capabilities": CALL + "print('BROKEN') if libc.prctl(24, 0) == 0 else 1/0",
}

# Those that use up something. Told is what the model is told.
FLOODS: dict[str, tuple[str, str]] = {
    "endless loop": ("while True: pass", "took longer than|killed"),
    "endless sleep": ("import time\ntime.sleep(3600)", "took longer than"),
    "an alarm ignored": (
        "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
        "while True: pass",
        "took longer than|killed",
    ),
    "output closed": (
        "import os, time\nos.close(1); os.close(2)\ntime.sleep(3600)",
        "took longer than",
    ),
    "memory bomb": ("held = [bytearray(1 << 26) for _ in range(10_000)]", "MemoryError"),
    "memory bomb in one": ("bytearray(1 << 44)", "MemoryError"),
    "a number without end": ("9 ** 9 ** 9", "took longer than|killed|MemoryError"),
    "a regular expression": (
        "import re\nre.match('(a+)+$', 'a' * 64 + 'b')",
        "took longer than|killed",
    ),
    "recursion": ("def f(): f()\nf()", "RecursionError"),
    "recursion in C": (
        "import sys\nsys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**6): x = [x]\nrepr(x)",
        "crashed|killed|MemoryError|RecursionError",
    ),
    "standard output": ("while True: print('x' * 10_000)", "printed over"),
    "standard error": (
        "import sys\nwhile True: sys.stderr.write('x' * 10_000)",
        "printed over",
    ),
    "one large file": (
        "f = open('f', 'wb')\nwhile True: f.write(bytes(1 << 20)); f.flush()",
        "large|File too large|No space",
    ),
    "many files": (
        "for n in range(10**6): open(str(n), 'wb').write(bytes(1 << 16))",
        "No space",
    ),
    "a decompression bomb": (
        "import zlib\nz = zlib.compress(bytes(1 << 28))\n"
        "held = [zlib.decompress(z) for _ in range(99)]",
        "MemoryError|took longer|killed",
    ),
    "a crash": ("import ctypes; ctypes.string_at(0)", "crashed .SIGSEGV."),
    "an end": ("import os; os._exit(0)", "ended itself"),
    "abort": ("import os; os.abort()", "crashed|ended itself"),
    "descriptors": ("import os\nwhile True: os.dup(0)", "Too many open files"),
    "a locked lock": (
        "import threading\nl = threading.Lock(); l.acquire(); l.acquire()",
        "took longer than",
    ),
}
