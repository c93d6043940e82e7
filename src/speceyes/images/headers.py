"""Format, frames and size of an encoded image, read without decoding it.

Pillow counts the frames of a GIF by visiting every one, which a hostile file makes arbitrarily
slow; this stops at a cap.
"""

from __future__ import annotations

import re

from PIL.TiffImagePlugin import TiffImageFile

_MAGIC = (
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"RIFF....WEBP", "WEBP"),
    (rb"GIF8[79]a", "GIF"),
    (rb"BM", "BMP"),
    (rb"II[*+]\0|MM\0[*+]", "TIFF"),
    (rb"....ftyp(?:avif|avis)", "AVIF"),
    (rb"....ftyp(?:heic|heix|hevc|heim|mif1|msf1)", "HEIC"),
    (rb"%PDF", "PDF"),
    (rb"\s*<(?:\?xml|svg)", "SVG or XML"),
    (rb"(?i:\s*<(?:!doctype|html|head|body))", "HTML"),
)
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF tags
_MAX_BLOCKS = 1_000_000  # of a GIF; a file of 64 MiB that isn't hostile has a quarter of these


def format_of(data: bytes) -> str:
    """The format by its first bytes, not by a name; "unknown" where they say nothing."""
    start = data[:256]
    return next((kind for magic, kind in _MAGIC if re.match(magic, start, re.DOTALL)), "unknown")


def gif_header(data: bytes, cap: int) -> tuple[tuple[int, int], int]:
    """Size of a GIF and its frames, counted to cap + 1 at most.

    A first frame that sticks out of the canvas widens it, as in Pillow. Blocks beyond the
    first `_MAX_BLOCKS` are not looked at; frames that come later than these don't count.
    """
    width, height = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    at, frames, blocks = 13, 0, 0
    if len(data) > 10 and data[10] & 0x80:
        at += 3 << ((data[10] & 7) + 1)
    while at < len(data) and frames <= cap and blocks < _MAX_BLOCKS:
        block = data[at]
        blocks += 1
        if block == 0x2C and at + 10 <= len(data):  # a frame: 9 bytes, palette, 1 byte, data
            x, y, w, h = (int.from_bytes(data[at + i : at + i + 2], "little") for i in (1, 3, 5, 7))
            if frames == 0:
                width, height = max(width, x + w), max(height, y + h)
            frames += 1
            at += 11 + (3 << ((data[at + 9] & 7) + 1) if data[at + 9] & 0x80 else 0)
        elif block == 0x21:  # an extension: 1 byte of kind, data
            at += 2
        elif block == 0x3B:
            break
        else:  # stray bytes between blocks, which decoders skip
            at += 1
            continue
        while at < len(data) and data[at] and blocks < _MAX_BLOCKS:
            at += data[at] + 1
            blocks += 1
        at += 1
    return (width, height), frames


def tile_size(image: TiffImageFile) -> tuple[int, int]:
    """Size of a TIFF's tiles, (1, 1) where it has none.

    They may be larger than the image, and memory is taken for a whole one.
    """
    return int(image.tag_v2.get(_TILE_WIDTH, 1)), int(image.tag_v2.get(_TILE_LENGTH, 1))
