"""A key of 16 bytes for an image's pixels, by which work done on it is found again.

Reading 3 MB of pixels out of Pillow and hashing them takes two milliseconds, and an agent asks
about the same image at every turn. `frozen` gives an image of our own that keeps both: Pillow
copies the pixels of an image marked read-only before it writes to them, so that what is kept
outlives no change.
"""

from __future__ import annotations

import ctypes
import struct
import threading
import weakref
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from speceyes.types import Image

_KEPT = "_speceyes_kept"
_MOST_HELD = 1 << 28
"""Bytes of pixels that are held beside their images, over all images; the oldest go first."""


@dataclass(slots=True, weakref_slot=True, eq=False)
class _Kept:
    """Key, bytes and smaller views of a frozen image, as long as its pixels are these."""

    core: Any = None
    digest: bytes = b""
    data: bytes | None = None
    views: dict[tuple[int, int], Image] = field(default_factory=dict)


_held: deque[weakref.ref[_Kept]] = deque()
_lock = threading.Lock()


def _hold(kept: _Kept, data: bytes) -> None:
    """Keeps the bytes of an image, and gives up the oldest ones where that is too much."""
    if len(data) > _MOST_HELD:
        return
    with _lock:
        kept.data = data
        _held.append(weakref.ref(kept))
        alive = [one for ref in _held if (one := ref()) is not None and one.data is not None]
        total = sum(len(one.data or b"") for one in alive)
        for one in alive:
            if total <= _MOST_HELD:
                break
            total -= len(one.data or b"")
            one.data = None
        _held.clear()
        _held.extend(weakref.ref(one) for one in alive if one.data is not None)


def pixel_key(image: Image) -> bytes:
    """64 bits over all pixels (SipHash under this process's own key), the size and the mode.

    It is good within one process only, and nobody outside can make two images share one.

    Args:
        image: Any PIL image. Where it came from `frozen`, it is hashed once.

    Example:
        >>> from PIL import Image
        >>> red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
        >>> pixel_key(red) == pixel_key(red.copy()), pixel_key(red) == pixel_key(blue)
        (True, False)
    """
    kept = _kept(image)
    if kept is not None and kept.digest:
        return kept.digest
    data = _data(image)
    # The same indices are other colours under another palette.
    palette = bytes(image.getpalette() or ()) if image.mode == "P" else b""
    digest = struct.pack(">qII", hash((data, image.mode, image.size, palette)), *image.size)
    if kept is not None:
        kept.digest = digest
    return digest


def views(image: Image) -> dict[tuple[int, int], Image] | None:
    """Smaller views of these very pixels by their (width, height), to be read and added to; None
    where the image isn't frozen, so that nothing can be kept with it.
    """
    kept = _kept(image)
    return None if kept is None else kept.views


def pixels(image: Image) -> npt.NDArray[np.uint8]:
    """uint8[height, width, 3] of an RGB image; not to be written to."""
    data = _data(image)
    # torch warns of arrays that can't be written to, once a process and for all threads, so this
    # one says that it can. The buffer stays alive through the array's base.
    buffer = (ctypes.c_uint8 * len(data)).from_address(_address(data))
    buffer.owner = data  # type: ignore[attr-defined]
    return np.ctypeslib.as_array(buffer).reshape(image.height, image.width, 3)


def _address(data: bytes) -> int:
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


def _data(image: Image) -> bytes:
    kept = _kept(image)
    held = None if kept is None else kept.data
    if held is not None:
        return held
    data = image.tobytes()
    if kept is not None:
        _hold(kept, data)
    return data


def _kept(image: Image) -> _Kept | None:
    """Key and bytes kept for these very pixels; None where the image isn't frozen."""
    kept: _Kept | None = getattr(image, _KEPT, None)
    if kept is not None and getattr(image, "undecoded", False):
        return kept
    if kept is not None and (kept.core is not image.im or not image.readonly):
        kept.core, kept.digest, kept.data, kept.views = image.im, b"", None, {}
        image.readonly = 1
    return kept


def defer(image: Image) -> None:
    """Lets an image of our own, whose pixels aren't there yet, keep views of them; it tells
    `undecoded` until it has called `decoded`.
    """
    setattr(image, _KEPT, _Kept())


def decoded(image: Image) -> None:
    """The pixels of such an image are there now, and what it keeps is about them."""
    getattr(image, _KEPT).core = image.im


def frozen(image: Image, *, ours: bool = False) -> Image:
    """The image with its pixels and fingerprint kept from their first use on.

    Args:
        image: A PIL image.
        ours: Nobody else holds it, so that it need not be copied.

    Returns:
        A copy, unless the image is ours or frozen already. The copy is needed because an
        `ImageDraw` that a user still holds would draw past the mark.
    """
    if getattr(image, _KEPT, None) is not None:
        return image
    kept = image if ours else image.copy()
    kept.load()
    setattr(kept, _KEPT, _Kept())
    return kept
