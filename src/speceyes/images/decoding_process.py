"""Process that decodes encoded images for its parent, one after the other, until its input ends.

On its standard input comes a line of JSON for each image, and the file's bytes behind it; on its
standard output goes a line of JSON, and behind it the pixels, in bands of whole rows. See
`speceyes.images.decoding_pool`, which starts it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import IO, Any, Final

from speceyes.errors import ImageError
from speceyes.free_memory import give_back_memory
from speceyes.images.decode import opened, seen_small, upright
from speceyes.images.limits import ImageLimits
from speceyes.types import Image

BAND_BYTES: Final = 4 << 20
"""Of pixels that are written together."""
_NICE: Final = 5  # the models and the server's loop come first
_MEMORY: Final = 1 << 30  # address space besides what the pixels need
_PIXEL_BYTES: Final = 24  # six copies in four colours, as much as any mode takes
_TRIM: Final = 1 << 20  # bytes of a file, or pixels


def band_rows(width: int) -> int:
    """Rows of a band.

    Example:
        >>> band_rows(4000)
        349
    """
    return max(1, BAND_BYTES // (3 * width))


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answers until there are no further requests."""
    while line := requests.readline():
        asked = json.loads(line)
        data = requests.read(asked["bytes"])
        if len(data) < asked["bytes"]:
            return
        said, pixels = _answer(asked, data)
        replies.write(json.dumps(said).encode() + b"\n")
        width, height = said.get("size", (0, 0))
        for one in pixels:
            for band in _bands(one):
                replies.write(band)
        replies.flush()
        large = len(data) >= _TRIM or (bool(pixels) and width * height >= _TRIM)
        pixels.clear()
        del data
        if large:
            give_back_memory()


def _answer(asked: dict[str, Any], data: bytes) -> tuple[dict[str, Any], list[Image]]:
    """Reply about an image, and its pixels, or those of its views, where they are wanted."""
    what, limits = asked["what"], ImageLimits(**asked["limits"])
    _bound_memory(limits.max_pixels)
    try:
        _bound_time(asked["cpu_s"])
        image = opened(data, what, limits)
        if not asked["decode"]:
            return {"size": image.size}, []
        megapixels = image.width * image.height / 1e6
        _bound_time(asked["cpu_s"] + asked["cpu_s_per_megapixel"] * megapixels)
        size, seen = seen_small(image, what, asked["views"])
        if seen:
            return {"size": size, "views": [one.size for one in seen]}, seen
        pixels = upright(image, what, limits)
        return {"size": pixels.size, "views": []}, [pixels]
    except ImageError as exc:
        return {"error": str(exc)}, []
    except MemoryError:
        return {"error": f"{what} takes more memory than its pixels should; save it again"}, []
    finally:
        _bound_time(0.0)


def _bands(image: Image) -> Iterator[bytes]:
    rows = band_rows(image.width)
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height))).tobytes()


def _bound_time(cpu_s: float) -> None:
    """Ends this process after so many seconds of a processor; 0 for never."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, cpu_s)  # its signal ends a process


def _bound_memory(pixels: int) -> None:
    """Keeps address space to what an image of so many pixels needs."""
    if sys.platform != "win32":
        import resource

        most, hard = _MEMORY + _PIXEL_BYTES * pixels, resource.getrlimit(resource.RLIMIT_AS)[1]
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (most if hard < 0 else min(most, hard), hard))


def main() -> None:
    """Serves standard input and output, and lets nothing else write there."""
    requests = os.fdopen(os.dup(0), "rb", 1 << 20)
    replies = os.fdopen(os.dup(1), "wb", 1 << 20)
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(quiet, stream)
    os.close(quiet)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    if sys.platform != "win32":
        import resource

        os.nice(_NICE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(BrokenPipeError):
        serve(requests, replies)
    os._exit(0)  # what could not be written is not tried again


if __name__ == "__main__":
    main()
