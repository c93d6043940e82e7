"""A JPEG's segments and scans, counted in one pass over its bytes, as libjpeg finds them.

A decoder goes over all coefficients once a scan, whatever the scan holds; it collects the metadata
of segments by copying; and it begins anew at each run of fill bytes that isn't all there. A file
of half a megabyte can keep one busy for minutes so.
"""

from __future__ import annotations

import re
from typing import Final

from speceyes.images.exif import costly

MAX_SCANS: Final = 32
"""Encoders write up to a dozen or so."""
MAX_SEGMENTS: Final = 1024
"""Of any kind; 255 hold the largest colour profile, some 160 a phone's map of depths."""
MAX_FILL: Final = 4096
"""Bytes 0xFF before markers over the whole file, and bytes before the first scan in no segment."""
MAX_RESOURCES: Final = 4096
"""Of Photoshop, which are read one by one; programs write a few dozen."""

_EXIF_SEGMENTS = 2
_MARK = re.compile(rb"\xff[\x01-\xcf\xd8-\xff]")  # neither a stuffed 0xFF nor a restart
_FILL = re.compile(rb"\xff*")
_FRAMES = frozenset((0xC0, 0xC1, 0xC2))
_OTHER_FRAMES = frozenset((0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))


def slow_jpeg(data: bytes, start: int = 0, stop: int | None = None) -> str | None:
    """The reason for which a JPEG is not decoded; None where its time is bounded by its pixels.

    Args:
        data: The file, or one that holds it.
        start: Where it begins in there.
        stop: Where it ends; None for the end of data.
    """
    at, end = start, len(data) if stop is None else stop
    scans = segments = fill = frames = resources = 0
    exif: list[bytes] = []
    while (found := _MARK.search(data, at, end)) is not None:
        if not scans:
            fill += found.start() - at
        at, kind = found.end(), data[found.end() - 1]
        if kind == 0xFF:
            run = _FILL.match(data, at, end)
            assert run is not None
            fill += 1 + len(run[0])
            at = run.end() - 1
            if fill <= MAX_FILL:
                continue
        if fill > MAX_FILL:
            return f"has more than {MAX_FILL} bytes that fill it up"
        if kind == 0xD9:
            break
        if kind in (0x01, 0xD8):  # without content
            segments += 1
        elif kind in _OTHER_FRAMES:
            return "is coded arithmetically, without loss or in layers, which is not read"
        else:
            segments += 1
            length = int.from_bytes(data[at : at + 2], "big")
            if kind == 0xE1 and data[at + 2 : at + 8] == b"Exif\0\0":
                exif.append(data[at + 8 : min(at + length, end)])
            if kind == 0xED:
                resources += data.count(b"8BIM", at, min(at + length, end))
            at += max(length, 2)
            frames += kind in _FRAMES
            scans += kind == 0xDA
        if frames > 1:
            return "has several frame headers"
        if scans > MAX_SCANS:
            return f"has more than {MAX_SCANS} scans"
        if segments > MAX_SEGMENTS:
            return f"has more than {MAX_SEGMENTS} segments"
        if resources > MAX_RESOURCES:
            return f"has more than {MAX_RESOURCES} resources of Photoshop"
    if len(exif) > _EXIF_SEGMENTS or costly(b"".join(exif)):
        return "has EXIF data of a size that no camera writes"
    return None
