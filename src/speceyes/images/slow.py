"""Encoded images that would keep a decoder busy out of all proportion to their pixels.

Looked for in one pass over a file's heads, before anything is decoded, so that what is decoded
takes a time bounded by its pixels and bytes. docs/images.md states it, and
tests/test_slow_images.py makes such files.
"""

from __future__ import annotations

from typing import Final

from speceyes.images.jpeg_walk import slow_jpeg
from speceyes.images.png_walk import slow_png

_GIF_BLOCKS: Final = 20_000
"""Before the first picture: 5 MB of comments."""
_WEBP_CHUNKS: Final = 20_000
_BMP_RUNS: Final = 500_000
"""Pixels; such files are of days when a screen had 300,000."""


def slow(data: bytes, kind: str) -> str | None:
    """The reason for which a file is not decoded; None where its time is bounded by its pixels.

    Args:
        data: The file.
        kind: Its format. TIFF is looked at by `speceyes.images.tiff_walk`.
    """
    looks = {"JPEG": slow_jpeg, "PNG": slow_png, "GIF": _gif, "BMP": _bmp, "WEBP": _webp}
    return looks[kind](data) if kind in looks else None


def _gif(data: bytes) -> str | None:
    """Pillow reads what stands before the first picture block by block, in Python."""
    at, blocks = 13, 0
    if len(data) > 10 and data[10] & 0x80:
        at += 3 << ((data[10] & 7) + 1)
    while at < len(data) and data[at] not in (0x2C, 0x3B):
        blocks += 1
        if data[at] == 0x21:
            at += 2
            while at < len(data) and data[at] and blocks <= _GIF_BLOCKS:
                at += data[at] + 1
                blocks += 1
        at += 1
        if blocks > _GIF_BLOCKS:
            return f"has more than {_GIF_BLOCKS} blocks before its first picture"
    return None


def _bmp(data: bytes) -> str | None:
    """Run lengths are undone in Python, in two seconds or so a megapixel."""
    header = int.from_bytes(data[14:18], "little")
    if header < 40 or int.from_bytes(data[30:34], "little") not in (1, 2):
        return None
    width = int.from_bytes(data[18:22], "little", signed=True)
    height = abs(int.from_bytes(data[22:26], "little", signed=True))
    if width * height > _BMP_RUNS:
        return f"is a BMP of run lengths with more than {_BMP_RUNS} pixels"
    offset = int.from_bytes(data[10:14], "little")
    if len(data) - offset > 2 * width * height + 4 * height + 1024:
        return "has more run lengths than pixels"
    return None


def _webp(data: bytes) -> str | None:
    """Its chunks are kept in lists that are gone through for each."""
    at, chunks = 12, 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + (length & 1)
        chunks += 1
        if chunks > _WEBP_CHUNKS:
            return f"has more than {_WEBP_CHUNKS} chunks"
    return None
