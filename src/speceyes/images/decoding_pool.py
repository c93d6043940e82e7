"""Processes that decode strangers' images, so that what goes wrong there can be ended.

A decoder in this process can't be stopped, and holds its memory, and often the interpreter's lock,
for as long as a file makes it. One in a process of its own is killed when its time is over, and
another takes its place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, TypeAlias, TypeVar, final

from PIL import Image as PILImage

from speceyes.errors import ConfigError, ImageError, SpecEyesError
from speceyes.images.decoding_process import band_rows
from speceyes.images.deferred import deferred
from speceyes.images.limits import DEFAULT_LIMITS, ImageLimits
from speceyes.types import Image

CPU_S: Final = 2.0
"""Seconds of a processor that any file may take."""
CPU_S_PER_MEGAPIXEL: Final = 0.5
"""More for each million pixels; encoders' own files take 0.24 at most, mostly a tenth of that."""
GRACE_S: Final = 0.5
"""Seconds that a process has to be done once nobody waits for it."""
_LINE: Final = 1 << 16
_ENDED_S: Final = 10.0
_START: Final = (
    "import json,sys;sys.path[:]=json.loads(sys.argv[1]);"
    "from speceyes.images.decoding_process import main;main()"
)
_Out = TypeVar("_Out")
_Read: TypeAlias = Callable[[dict[str, Any], IO[bytes]], _Out]
"""Takes what a process says of an image, its size being within the limits, and its pixels."""


class DecodingStopped(SpecEyesError, RuntimeError):
    """Decoding was cancelled, or no process could do it; the image may be in order."""


class _Ended(Exception):
    """A process ended in the middle, for no reason that lies in the image."""


@final
class Cancellation:
    """Ends the decoding that it was given to, in any thread and at any moment.

    Example:
        >>> cancellation = Cancellation()
        >>> cancellation.cancel()
        >>> cancellation.cancelled
        True
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.cancelled = False

    def cancel(self) -> None:
        """Kills the process that decodes, unless it is done within `GRACE_S`; what is decoded under
        it from now on is not begun.
        """
        with self._lock:
            self.cancelled = True
            process = self._process
        if process is not None:
            self._end_soon(process)

    def over(self, process: subprocess.Popen[bytes] | None) -> None:
        """Names the process that it ends; None for none any more."""
        with self._lock:
            self._process = process
            late = self.cancelled
        if late and process is not None:
            self._end_soon(process)

    def _end_soon(self, process: subprocess.Popen[bytes]) -> None:
        """To start another takes longer than to decode what is small: else whoever asks and leaves
        would have processes started all the time.
        """
        timer = threading.Timer(GRACE_S, self._kill, (process,))
        timer.daemon = True
        timer.name = "image-decoding-end"
        timer.start()

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            if self._process is process:
                process.kill()


@final
class DecodingPool:
    """Processes that decode images: started when they are needed, kept until it is closed.

    A process has neither torch nor models, sees one file at a time, and is replaced where it was
    killed. Threads may share a pool; where all processes are at work they wait.

    Args:
        processes: Most processes.

    Raises:
        ConfigError: It is less than one.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> PILImage.new("RGB", (64, 48), "red").save(file, "PNG")
        >>> with DecodingPool(1) as pool:
        ...     pool.decode(file.getvalue()).getpixel((0, 0))
        (255, 0, 0)
    """

    def __init__(self, processes: int = 2) -> None:
        if processes < 1:
            raise ConfigError(f"processes={processes}; at least 1 is needed")
        self._free = threading.Semaphore(processes)
        self._lock = threading.Lock()
        self._idle: list[subprocess.Popen[bytes]] = []
        self._all: set[subprocess.Popen[bytes]] = set()
        self._closed = False
        # Where it is forgotten, and where the interpreter exits before it was closed.
        weakref.finalize(self, _end_all, self._all)

    def __enter__(self) -> DecodingPool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """Its processes' ids."""
        with self._lock:
            return tuple(one.pid for one in self._all)

    def close(self) -> None:
        """Ends its processes, also those at work."""
        with self._lock:
            self._closed = True
            self._idle.clear()
        _end_all(self._all)

    def size(
        self,
        data: bytes,
        what: str = "the image",
        limits: ImageLimits = DEFAULT_LIMITS,
        *,
        cancellation: Cancellation | None = None,
    ) -> tuple[int, int]:
        """Width and height in pixels by the file's head, within the limits; see `decode`."""
        return self._asked(data, what, limits, cancellation or Cancellation(), _size)

    def decode(
        self,
        data: bytes,
        what: str = "the image",
        limits: ImageLimits = DEFAULT_LIMITS,
        *,
        timeout_s: float | None = None,
        cancellation: Cancellation | None = None,
        views: Sequence[int] = (),
        deadline: float = math.inf,
    ) -> Image:
        """The image in an encoded file as RGB, upright.

        Args:
            data: The file.
            what: Names the image in errors.
            limits: Limits of the image.
            timeout_s: Seconds after which it is stopped, `GRACE_S` later at the most; None for as
                long as its pixels may take.
            cancellation: Stops it.
            views: Most pixels of smaller views that are looked at first. A JPEG is then decoded at
                a scale that serves them, and in full, by this pool, when its own pixels are asked
                for; see `load_image`.
            deadline: In `time.monotonic` seconds: when that is stopped.

        Raises:
            ImageError: It can't be read, is outside the limits, or takes more of a processor than
                `CPU_S` and `CPU_S_PER_MEGAPIXEL` allow.
            DecodingStopped: It was cancelled, its time was over, or no process could be had.
        """
        cancellation = cancellation or Cancellation()

        def whole() -> Image:
            rest = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
            return self.decode(data, what, limits, timeout_s=rest)

        timer = threading.Timer(timeout_s or 0.0, cancellation.cancel)
        timer.daemon = True
        if timeout_s is not None:
            timer.start()
        try:
            return self._asked(
                data, what, limits, cancellation, partial(_image, whole=whole), tuple(views)
            )
        finally:
            timer.cancel()

    def _asked(
        self,
        data: bytes,
        what: str,
        limits: ImageLimits,
        cancellation: Cancellation,
        read: _Read[_Out],
        views: tuple[int, ...] | None = None,
    ) -> _Out:
        """Reply of a process about an image; where one ends by itself, another is asked."""
        head = {
            "bytes": len(data),
            "what": what,
            "limits": dataclasses.asdict(limits),
            "decode": views is not None,
            "views": views,
            "cpu_s": CPU_S,
            "cpu_s_per_megapixel": CPU_S_PER_MEGAPIXEL,
        }
        line = json.dumps(head).encode() + b"\n"
        with self._free:
            try:
                return self._once(line, data, what, limits, cancellation, read)
            except _Ended:
                pass
            try:
                return self._once(line, data, what, limits, cancellation, read)
            except _Ended as exc:
                raise DecodingStopped(f"the process that decoded {what} ended: {exc}") from None

    def _once(
        self,
        line: bytes,
        data: bytes,
        what: str,
        limits: ImageLimits,
        cancellation: Cancellation,
        read: _Read[_Out],
    ) -> _Out:
        if cancellation.cancelled:
            raise DecodingStopped(f"decoding {what} was stopped before it began")
        process = self._taken()
        cancellation.over(process)
        whole = False
        try:
            found = read(*_exchange(process, line, data, limits))
            whole = True
            if cancellation.cancelled:
                raise DecodingStopped(f"decoding {what} was stopped")
            return found
        except ImageError:
            whole = True  # said by the process, which goes on
            raise
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            raise self._broken(process, what, cancellation) from None
        finally:
            cancellation.over(None)
            self._given(process, whole=whole)

    def _taken(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise DecodingStopped("the pool of decoding processes is closed")
            while self._idle:
                process = self._idle.pop()
                if process.poll() is None:
                    return process
                self._all.discard(process)  # ended meanwhile, by whatever
                _end(process)
            try:
                process = _started()
            except OSError as exc:
                raise DecodingStopped(f"no process can be started to decode: {exc}") from exc
            self._all.add(process)
            return process

    def _given(self, process: subprocess.Popen[bytes], *, whole: bool) -> None:
        with self._lock:
            if whole and not self._closed:
                self._idle.append(process)
                return
            self._all.discard(process)
        _end(process)

    def _broken(
        self, process: subprocess.Popen[bytes], what: str, cancellation: Cancellation
    ) -> Exception:
        """The error for an exchange that came to no end."""
        try:
            status = process.wait(_ENDED_S)
        except subprocess.TimeoutExpired:  # it says what it shouldn't, and goes on
            return _Ended("it doesn't answer as it should")
        if cancellation.cancelled or self._closed:
            return DecodingStopped(f"decoding {what} was stopped")
        if status < 0:
            name = signal.Signals(-status).name
            if name == "SIGPROF":
                return ImageError(
                    f"{what} takes more time to decode than its pixels should; save the image again"
                )
            if name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE"):
                return ImageError(f"{what} ends its decoder; save the image again")
        return _Ended(f"status {status}")


def _started() -> subprocess.Popen[bytes]:
    """A process with this one's modules, and neither its options nor its open files."""
    own = str(Path(__file__).resolve().parents[2])  # found by an import hook, it may be missing
    path = [*sys.path, *([] if own in sys.path else [own])]
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _START, json.dumps(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _exchange(
    process: subprocess.Popen[bytes], line: bytes, data: bytes, limits: ImageLimits
) -> tuple[dict[str, Any], IO[bytes]]:
    """Sends a request; what comes back, and the pipe of what follows.

    Raises:
        ImageError: The process says so.
        OSError, EOFError, ValueError: It says nothing sensible, or has ended.
    """
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(line)
    process.stdin.write(data)
    process.stdin.flush()
    reply = process.stdout.readline(_LINE)
    if not reply.endswith(b"\n"):
        raise EOFError
    said = json.loads(reply)
    if "error" in said:
        raise ImageError(str(said["error"]))
    width, height = (int(side) for side in said["size"])
    if min(width, height) < 1 or width * height > limits.max_pixels:
        raise EOFError  # a decoder that was taken over
    return {**said, "size": (width, height)}, process.stdout


def _size(said: dict[str, Any], pixels: IO[bytes]) -> tuple[int, int]:
    size: tuple[int, int] = said["size"]
    return size


def _image(said: dict[str, Any], pixels: IO[bytes], whole: Callable[[], Image]) -> Image:
    """The image, or one that has its views."""
    size: tuple[int, int] = said["size"]
    sizes = [(int(across), int(down)) for across, down in said["views"]]
    if any(not (1 <= w <= size[0] and 1 <= h <= size[1]) for w, h in sizes):
        raise EOFError  # a decoder that was taken over
    if sizes:
        return deferred(size, [_pixels(one, pixels) for one in sizes], whole)
    return _pixels(size, pixels)


def _pixels(size: tuple[int, int], pixels: IO[bytes]) -> Image:
    width, height = size
    image = PILImage.new("RGB", size)
    rows = band_rows(width)
    for top in range(0, height, rows):
        many = min(rows, height - top)
        band = pixels.read(3 * width * many)
        if len(band) < 3 * width * many:
            raise EOFError
        image.paste(PILImage.frombytes("RGB", (width, many), band), (0, top))
    return image


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills a process and closes its pipes, from which nobody reads any longer than that takes."""
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_ENDED_S)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was left to write has nobody to read it
                pipe.close()


def _end_all(processes: set[subprocess.Popen[bytes]]) -> None:
    for process in list(processes):
        process.kill()
    for process in list(processes):
        _end(process)
        processes.discard(process)
