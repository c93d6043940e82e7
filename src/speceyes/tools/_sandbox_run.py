"""Running a program elsewhere: it is sent, its output is read up to its limits, it is ended."""

from __future__ import annotations

import json
import logging
import os
import secrets
import selectors
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from speceyes.errors import ToolError
from speceyes.tools._sandbox_values import Limits, Outcome, Produced, Program

_log = logging.getLogger(__name__)

_INSIDE = ("_sandbox_calls", "_sandbox_kernel", "_sandbox_worker", "_sandbox_enter")
_SETUP_FAILED = 125
_LONGEST_PATH = 1024
_LATE = "it took longer than {:g} s"


@cache
def inside() -> str:
    """The source of what runs inside, as one program for `python -c`."""
    here = Path(__file__).parent
    sources = {f"speceyes.tools.{name}": (here / f"{name}.py").read_text() for name in _INSIDE}
    return (
        "import sys, types\n"
        "for name in ('speceyes', 'speceyes.tools'):\n"
        "    sys.modules[name] = types.ModuleType(name)\n"
        f"for name, source in {sources!r}.items():\n"
        "    module = sys.modules[name] = types.ModuleType(name)\n"
        "    setattr(sys.modules['speceyes.tools'], name.rpartition('.')[2], module)\n"
        "    exec(compile(source, name, 'exec'), module.__dict__)\n"
        "module.main()\n"
    )


def run(
    command: Sequence[str],
    program: Program,
    setup: Mapping[str, Any],
    name: str,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Runs a program by a command that starts what `inside` is the source of.

    Args:
        command: The command, looked for on the PATH.
        program: The program.
        setup: The rest of the job: where it runs, and how it is confined.
        name: The executor's, for errors.
        environment: The command's; nothing but a PATH of the system's folders if None.

    Raises:
        ToolError: The command doesn't start, or can't set up what was asked of it.
    """
    limits, boundary = program.limits, f"\n{secrets.token_hex(16)}\n"
    job = {
        "code": program.code,
        "before": program.before,
        "inputs": [(file, len(data)) for file, data in program.files.items()],
        "variables": program.variables,
        "clamp": program.clamp,
        "boundary": boundary,
        "limits": {key: getattr(limits, key) for key in limits.__slots__}
        | {"cpu_s": int(-(-limits.time_s // 1))},
        **setup,
    }
    sent = b"".join([json.dumps(job).encode(), b"\n", *program.files.values()])
    found = shutil.which(command[0]) or command[0]
    try:
        process = subprocess.Popen(
            [found, *command[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.defpath} if environment is None else environment,
            cwd="/",
            start_new_session=True,
            close_fds=True,
        )
    except OSError as exc:
        raise ToolError(f"{name}: {command[0]} can't be started ({exc.strerror})") from exc
    deadline = time.monotonic() + limits.time_s
    try:
        out, err, why = _talk(process, sent, boundary.encode(), limits, deadline)
        if why is None:
            try:  # an output that is closed is not an end
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                why = _LATE.format(limits.time_s)
    finally:
        _end(process, first_asked=setup["mounts"] is not None)
    if process.returncode == _SETUP_FAILED and why is None:
        said = err.decode(errors="replace")[-500:] or "it did not say why"
        raise ToolError(f"the sandbox ({name}) could not be set up: {said}")
    return outcome_of(out, err, boundary.encode(), why or _ended_by(process.returncode), limits)


def _end(process: subprocess.Popen[bytes], *, first_asked: bool) -> None:
    """Kills the process and all that it started, and waits for it."""
    if first_asked and process.poll() is None:
        process.terminate()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            _log.warning("a sandbox didn't end when asked to; it is killed")
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()
    # What it started is dead or dying; whoever inherits such processes takes a moment to notice.
    until = time.monotonic() + 2.0
    while time.monotonic() < until and _group_lives(process.pid):
        time.sleep(0.005)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # what was left to be sent
                _log.debug("a pipe closed with something in it")


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        _log.debug("processes of group %d have another user", group)
    return True


def _talk(
    process: subprocess.Popen[bytes],
    sent: bytes,
    boundary: bytes,
    limits: Limits,
    deadline: float,
) -> tuple[bytes, bytes, str | None]:
    """Sends the job and reads what comes, until both outputs end.

    Returns:
        Standard output, standard error, and why the program must be ended, if it must.
    """
    assert process.stdin and process.stdout and process.stderr
    out, err, waiting = bytearray(), bytearray(), memoryview(sent)
    bounded_from = -1
    with selectors.DefaultSelector() as selector:
        for pipe, way in ((process.stdin, selectors.EVENT_WRITE), (process.stdout, 1),
                          (process.stderr, 1)):  # fmt: skip
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, way)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return bytes(out), bytes(err), _LATE.format(limits.time_s)
            for key, _ in selector.select(left):
                if key.fileobj is process.stdin:
                    try:
                        waiting = waiting[os.write(key.fd, waiting[: 1 << 16]) :]
                    except BrokenPipeError:
                        waiting = waiting[:0]
                    if not waiting:
                        selector.unregister(process.stdin)
                        process.stdin.close()
                    continue
                came = os.read(key.fd, 1 << 16)
                if not came:
                    selector.unregister(key.fileobj)
                    continue
                stream = out if key.fileobj is process.stdout else err
                stream += came
                if stream is out and bounded_from < 0:
                    bounded_from = out.find(boundary, max(0, len(out) - len(came) - len(boundary)))
                printed = bounded_from if bounded_from >= 0 else len(out)
                if max(printed, len(err)) > limits.output_bytes:
                    return bytes(out), bytes(err), f"it printed over {limits.output_bytes} bytes"
                if len(out) - printed > limits.image_bytes + (1 << 20):
                    return bytes(out), bytes(err), "what it made is too large"
    return bytes(out), bytes(err), None


def _ended_by(code: int | None) -> str | None:
    """Why a process ended that says nothing itself; None where it came to its end."""
    if code is None or code == 0:
        return None
    number = -code if code < 0 else code - 128
    if number == signal.SIGKILL or number == signal.SIGXCPU:
        return "it was killed: too much processor time or memory"
    if number == signal.SIGXFSZ:
        return "it wrote too large a file"
    if 0 < number < 65:
        return f"it crashed ({signal.Signals(number).name})" if number < 32 else "it crashed"
    return f"it ended itself with status {code}"


def outcome_of(out: bytes, err: bytes, boundary: bytes, why: str | None, limits: Limits) -> Outcome:
    """Outcome of a program by what came out of its process, none of which is trusted.

    Args:
        out: Standard output: what it printed, the boundary, and the worker's report of it.
        err: Standard error.
        boundary: What the report begins with; drawn anew for each run.
        why: Reason why the process was ended; None where it ended by itself.
        limits: Most that is taken of texts and images.
    """
    at = out.find(boundary)
    printed = out[: at if at >= 0 else len(out)][: limits.output_bytes]
    stdout = printed.decode(errors="replace")
    stderr = err[: limits.output_bytes].decode(errors="replace")
    if why is None and at < 0:
        why = "it ended itself before its last line"
    if why is not None:
        return Outcome(stdout, stderr, f"the program was ended: {why}", ended=True)
    try:
        error, images = _read_tail(out[at + len(boundary) :], limits)
    except (ValueError, TypeError, LookupError, OverflowError, struct.error, RecursionError):
        return Outcome(stdout, stderr, "the program spoilt its own result", ended=True)
    return Outcome(stdout, stderr, error, images)


def _read_tail(tail: bytes, limits: Limits) -> tuple[str | None, tuple[Produced, ...]]:
    (length,) = struct.unpack(">I", tail[:4])
    if length > 1 << 19:
        raise ValueError(length)
    head = json.loads(tail[4 : 4 + length])
    error, at, images = head["error"], 4 + length, []
    if error is not None:
        error = _text(error, limits.output_bytes)
    for entry in head["images"][: limits.images]:
        size, data = entry["size"], None
        if type(size) is not int or size > limits.image_bytes:
            raise ValueError(size)
        if size >= 0:
            data = tail[at : at + size]
            at += size
            if len(data) != size:
                raise ValueError(size)
        images.append(Produced(_text(entry["path"], _LONGEST_PATH), entry["new"] is True, data))
    return error, tuple(images)


def _text(said: object, most: int) -> str:
    """A text that can be encoded again: a program may name files by halves of characters.

    Raises:
        ValueError: It is none, or too long.
    """
    if not isinstance(said, str) or len(said) > most:
        raise ValueError(said)
    return said.encode(errors="replace").decode()
