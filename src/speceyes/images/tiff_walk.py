"""A TIFF's directories, read without following what their tags point to.

Tags may name the same bytes any number of times, pages may lie over each other, and a picture may
be cut into millions of strips; each is then handled in Python, or read from the file again.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from speceyes.images.jpeg_walk import slow_jpeg

MAX_TAGS: Final = 4096
MAX_PIECES: Final = 65_536
"""Strips or tiles."""

_SIZES: Final = {
    **{1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4},
    **{16: 8, 17: 8, 18: 8},
}
_CODES: Final = {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q"}
_JPEG = 7
# None, three of CCITT, LZW, JPEG, deflate (by both its numbers), PackBits, Zstandard. LZMA may ask
# for 4 GB of memory in its header.
_COMPRESSIONS: Final = frozenset((1, 2, 3, 4, 5, _JPEG, 8, 32946, 32773, 50000))
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _ROWS = 256, 257, 258, 259, 277, 278
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_OFFSETS, _COUNTS = (273, 324), (279, 325)
_LOOKED_AT: Final = frozenset(
    (_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _ROWS, _TILE_WIDTH, _TILE_HEIGHT, *_OFFSETS)
) | frozenset(_COUNTS)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Byte order, and the sizes that a BigTIFF doubles."""

    order: str
    big: bool

    @property
    def entry(self) -> int:
        return 20 if self.big else 12

    def number(self, data: bytes, at: int) -> int:
        """An offset or a count of values; 0 behind the end."""
        return _at(data, at, self.order + ("Q" if self.big else "L"))

    def tags(self, data: bytes, at: int) -> tuple[int, int]:
        """Tags of a directory, and where the first of them is."""
        count = _at(data, at, self.order + ("Q" if self.big else "H"))
        return count, at + (8 if self.big else 2)


def slow_tiff(data: bytes, max_frames: int) -> tuple[str | None, int]:
    """The reason for which a TIFF is not decoded, and its pages.

    Args:
        data: The file.
        max_frames: Pages are counted to one more than these.

    Returns:
        (None where its time is bounded by its pixels, pages).
    """
    order = "<" if data[:2] == b"II" else ">"
    layout = _Layout(order, _at(data, 2, order + "H") == 43)
    first = layout.number(data, 8 if layout.big else 4)
    at, seen = first, set[int]()
    while 0 < at < len(data) and at not in seen and len(seen) <= max_frames:
        seen.add(at)
        count, start = layout.tags(data, at)
        if count > MAX_TAGS:
            return f"has a page with more than {MAX_TAGS} tags", len(seen)
        at = layout.number(data, start + count * layout.entry)
    return _slow_page(data, first, layout), max(len(seen), 1)


def _slow_page(data: bytes, at: int, layout: _Layout) -> str | None:
    count, start = layout.tags(data, at)
    found: dict[int, Sequence[int]] = {}
    held = 0
    for number in range(count):
        entry = start + number * layout.entry
        tag, kind = _at(data, entry, layout.order + "H"), _at(data, entry + 2, layout.order + "H")
        values = layout.number(data, entry + 4)
        size = values * _SIZES.get(kind, 1)
        value = entry + (12 if layout.big else 8)
        if size > (8 if layout.big else 4):
            held += size
            value = layout.number(data, value)
        if held > len(data) + 65536:
            return "has tags that name more bytes than there are"
        if tag not in _LOOKED_AT:
            continue
        if tag in found:
            return f"has tag {tag} twice"
        if values > MAX_PIECES:
            return f"is cut into more than {MAX_PIECES} pieces"
        found[tag] = _values(data, value, kind, values, layout.order)
    return _slow_pieces(data, found)


def _slow_pieces(data: bytes, found: dict[int, Sequence[int]]) -> str | None:
    """The reason for which a page of these tags is not decoded."""

    def one(tag: int, default: int) -> int:
        values = found.get(tag, ())
        return values[0] if values and values[0] else default

    compression = one(_COMPRESSION, 1)
    if compression not in _COMPRESSIONS:
        return f"is compressed in a way (number {compression}) that is not read"
    width, height = one(_WIDTH, 1), one(_HEIGHT, 1)
    if found.keys() & {_TILE_WIDTH, _TILE_HEIGHT, _OFFSETS[1]}:
        size = one(_TILE_WIDTH, width), one(_TILE_HEIGHT, height)
        pieces = -(-width // size[0]) * -(-height // size[1])
        pixels = pieces * size[0] * size[1]
    else:
        pieces, pixels = -(-height // one(_ROWS, height)), width * height
    offsets = next((found[tag] for tag in _OFFSETS if tag in found), ())
    counts = next((found[tag] for tag in _COUNTS if tag in found), ())
    if max(pieces, len(offsets)) > MAX_PIECES:
        return f"is cut into more than {MAX_PIECES} pieces"
    if sum(counts) > len(data) + 65536:
        return "has pieces that together are longer than the file"
    raw = pixels * max(found.get(_BITS) or (1,)) * one(_SAMPLES, 1) // 8
    if compression != 1 and sum(counts) > raw * 3 // 2 + 1024 * pieces + 65536:
        return "has more compressed data than its pixels can need"
    if compression != 1 and len(counts) < len(offsets) and len(offsets) > 1:
        return "does not say how long its pieces are"
    if compression == _JPEG:
        for start, length in zip(offsets, counts or [len(data)], strict=False):
            if start < len(data) and (why := slow_jpeg(data, start, start + length)) is not None:
                return f"holds a JPEG that {why}"
    return None


def _values(data: bytes, at: int, kind: int, count: int, order: str) -> Sequence[int]:
    code = _CODES.get(kind)
    if code is None or at + count * _SIZES[kind] > len(data):
        return ()
    return struct.unpack_from(f"{order}{count}{code}", data, at)


def _at(data: bytes, at: int, code: str) -> int:
    """The number there; 0 behind the end."""
    if at + struct.calcsize(code) > len(data):
        return 0
    return int(struct.unpack_from(code, data, at)[0])
