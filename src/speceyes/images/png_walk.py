"""A PNG's chunks, counted in one pass that looks at their heads alone.

Pillow handles each chunk in Python, and unpacks each compressed text and colour profile to a
megabyte, whatever it is for.
"""

from __future__ import annotations

from typing import Final

MAX_PACKED: Final = 64
"""Compressed texts and colour profiles."""
_SPARE_CHUNKS = 1024
_CHUNK_BYTES = 1024  # of pictures' own data, on average at least; encoders write 8192 or more
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def slow_png(data: bytes) -> str | None:
    """The reason for which a PNG is not decoded; None where its time is bounded by its pixels."""
    at, chunks, packed, stored = 8, 0, 0, 0
    most = _SPARE_CHUNKS + len(data) // _CHUNK_BYTES
    raw = _raw_bytes(data)
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        chunks += 1
        if kind in (b"zTXt", b"iTXt", b"iCCP"):
            packed += 1
        elif kind == b"IDAT":
            stored += length
        if chunks > most:
            return f"has more than {most} chunks"
        if packed > MAX_PACKED:
            return f"has more than {MAX_PACKED} compressed texts and profiles"
        if raw is not None and stored > raw + raw // 8 + 65536:
            return "has more compressed data than its pixels can need"
        if kind == b"IEND":
            break
        at += 12 + length
    return None


def _raw_bytes(data: bytes) -> int | None:
    """Bytes of its rows before they are compressed; None where its first chunk is no header."""
    if data[12:16] != b"IHDR" or len(data) < 29:
        return None
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
    bits = data[24] * _CHANNELS.get(data[25], 4)
    rows = height * ((width * bits + 7) // 8 + 1)
    # An interlaced picture is seven, whose rows each have a byte more.
    return rows + (height * 2 + width * 2 + 14 if data[28] else 0)
