"""A key of 16 bytes for an image's pixels, by which work done on it is found again.

An agent asks about the same image at every turn. `frozen` gives an image of our own that keeps its
key, and what was made of its pixels: Pillow copies the pixels of an image marked read-only before
it writes to them, so that what is kept outlives no change.

Pixels are read where Pillow has them, by Arrow's C data interface (Pillow 11.2), and copied only
where it can't be: an image of more than 16 MB lies in several blocks, and is read in strips.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from speceyes.types import Image

_KEPT = "_speceyes_kept"
_STRIP: Final = 1 << 20
"""Pixels of a strip; what is copied of it then stays in the processor's cache."""
_PART: Final = 1 << 16
"""Pixels that are hashed at a time."""
_FOURTH: Final = np.frombuffer(b"\0\0\0\xff", np.uint32)[0]


@dataclass(slots=True, eq=False)
class _Kept:
    """Key and smaller views of a frozen image, as long as its pixels are these."""

    core: Any = None
    digest: bytes = b""
    views: dict[tuple[int, int], Image] = field(default_factory=dict)
    made: dict[Hashable, Any] = field(default_factory=dict)
    undecoded: bool = False
    """The pixels aren't there yet, and what is kept is about those that will be."""


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
    # The same indices are other colours under another palette.
    palette = bytes(image.getpalette() or ()) if image.mode == "P" else b""
    # Packed, for the hash of a tuple of numbers has no key.
    parts = b"".join(struct.pack("q", hash(part)) for part in _parts(image))
    number = hash(parts + palette + f"{image.mode}:{image.size}".encode())
    digest = struct.pack(">qII", number, *image.size)
    if kept is not None:
        kept.digest = digest
    return digest


def views(image: Image) -> dict[tuple[int, int], Image] | None:
    """Smaller views of these very pixels by their (width, height), to be read and added to; None
    where the image isn't frozen, so that nothing can be kept with it.
    """
    kept = _kept(image)
    return None if kept is None else kept.views


def made_of(image: Image) -> dict[Hashable, Any] | None:
    """Things made of these very pixels, under keys of whoever made it, to be read and added to;
    None where the image isn't frozen, so that nothing can be kept with it.
    """
    kept = _kept(image)
    return None if kept is None else kept.made


def strips(image: Image) -> Iterator[npt.NDArray[np.uint8]]:
    """uint8[rows, width, 3 or 4] of an RGB image from the top down, together all of it; a fourth
    value means nothing. Not to be written to, and no longer good once the image is written to.
    """
    image.load()
    whole = _in_place(image)
    if whole is not None:
        yield whole
        return
    rows = max(1, _STRIP // _PART) * max(1, _PART // max(1, image.width))
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(image.height, top + rows)))
        there = _in_place(strip)
        yield _array(strip.tobytes(), strip) if there is None else there


class _ArrowArray(ctypes.Structure):
    """`ArrowArray` of https://arrow.apache.org/docs/format/CDataInterface.html."""


_ArrowArray._fields_ = [
    *((name, ctypes.c_int64) for name in ("length", "null_count", "offset")),
    *((name, ctypes.c_int64) for name in ("n_buffers", "n_children")),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]
_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _in_place(image: Image) -> npt.NDArray[np.uint8] | None:
    """uint8[height, width, 4] where Pillow has the pixels of an RGB image: a list of four bytes a
    pixel, as it says of `Image.__arrow_c_array__`. None where they don't lie in one piece, or this
    Pillow doesn't tell.
    """
    export = getattr(image, "__arrow_c_array__", None)
    if image.mode != "RGB" or export is None:
        return None
    try:
        _, capsule = export()
    except ValueError:
        return None
    told = ctypes.cast(_pointer_of(capsule, b"arrow_array"), ctypes.POINTER(_ArrowArray)).contents
    n = 4 * image.width * image.height
    if told.length * 4 != n or told.n_children != 1:
        return None
    values = told.children[0].contents
    if values.length != n or values.offset or told.offset or values.n_buffers != 2:
        return None
    return _view(values.buffers[1], n, capsule).reshape(image.height, image.width, 4)


def _array(data: bytes, image: Image) -> npt.NDArray[np.uint8]:
    address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
    return _view(address, len(data), data).reshape(image.height, image.width, 3)


def _view(address: int, n: int, owner: object) -> npt.NDArray[np.uint8]:
    """uint8[n] at an address, good as long as its owner lives, which it keeps alive."""
    # torch warns of arrays that can't be written to, once a process and for all threads, so this
    # one says that it can.
    buffer = (ctypes.c_uint8 * n).from_address(address)
    buffer.owner = owner  # type: ignore[attr-defined]
    return np.ctypeslib.as_array(buffer)


def _parts(image: Image) -> Iterator[bytes]:
    """All pixels in parts that don't depend on how Pillow holds them."""
    if image.mode != "RGB":
        yield image.tobytes()
        return
    rows = max(1, _PART // max(1, image.width))
    for strip in strips(image):
        for top in range(0, len(strip), rows):
            part = strip[top : top + rows]
            if part.shape[2] == 4:  # the fourth differs by where the image came from
                part = part.view(np.uint32) | _FOURTH
            yield part.tobytes()


def _kept(image: Image) -> _Kept | None:
    """Entry that is kept for these very pixels; None where the image isn't frozen."""
    kept: _Kept | None = getattr(image, _KEPT, None)
    if kept is not None and kept.undecoded:
        return kept
    if kept is not None and (kept.core is not image.im or not image.readonly):
        kept.core, kept.digest, kept.views, kept.made = image.im, b"", {}, {}
        image.readonly = 1
    return kept


def defer(image: Image) -> None:
    """Lets an image of our own, whose pixels aren't there until it calls `decoded`, keep views of
    them.
    """
    setattr(image, _KEPT, _Kept(undecoded=True))


def decoded(image: Image) -> None:
    """The pixels of such an image are there now, and what it keeps is about them."""
    kept: _Kept = getattr(image, _KEPT)
    kept.core, kept.undecoded = image.im, False


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
