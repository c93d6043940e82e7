"""The cost of EXIF data, looked at before Pillow reads it.

Pillow copies the value of every tag, and tags may all point to the same megabytes.
"""

from __future__ import annotations

import struct
from typing import Final

MAX_TAGS: Final = 1024
"""In the first directory; cameras write some twenty."""

_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}


def costly(exif: bytes) -> bool:
    """True where reading it would copy more than all of it, a few times over.

    Args:
        exif: From its byte order on, with or without "Exif" before it.
    """
    if exif[:6] == b"Exif\0\0":
        exif = exif[6:]
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return False  # nothing that can be read
    at = struct.unpack_from(f"{order}L", exif, 4)[0]
    if at + 2 > len(exif):
        return False
    tags = struct.unpack_from(f"{order}H", exif, at)[0]
    tags = min(tags, (len(exif) - at - 2) // 12)
    if tags > MAX_TAGS:
        return True
    copied = 0
    for number in range(tags):
        kind, count = struct.unpack_from(f"{order}HL", exif, at + 4 + 12 * number)
        copied += min(_SIZES.get(kind, 0) * count, len(exif))
    return copied > 4 * len(exif) + 65536
