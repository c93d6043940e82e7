"""Encoded images that would keep a decoder busy, each of them small."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable
from typing import Any

from PIL import Image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(kind: str, side: int = 64, **options: Any) -> bytes:
    mode = "P" if kind == "GIF" else "RGB"
    return encoded(Image.new(mode, (side, side)), kind, **options)


def with_scans(side: int, more: int, **options: Any) -> bytes:
    """A progressive JPEG whose last scan is there `more` times more."""
    data = plain("JPEG", side, progressive=True, **options)
    start, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:end] + data[start:end] * more + b"\xff\xd9"


def behind_start(filling: bytes) -> bytes:
    """A JPEG with something right behind its first marker."""
    return b"\xff\xd8" + filling + plain("JPEG")[2:]


def segment(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, kind, len(body) + 2) + body


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(*chunks: bytes) -> bytes:
    """A PNG with chunks before its pixels."""
    data = plain("PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def exif(tags: int, bytes_each: int) -> bytes:
    """EXIF whose tags all name the same bytes."""
    entries = (struct.pack(">HHLL", 1000 + n, 7, bytes_each, 0) for n in range(tags))
    body = b"MM\0*\0\0\0\x08" + struct.pack(">H", tags) + b"".join(entries) + bytes(4)
    return body + bytes(max(0, bytes_each - len(body)))


def tiff(entries: Iterable[tuple[int, int, int, int]], body: bytes = b"") -> bytes:
    """A TIFF of one page; entries are (tag, type, count, value), and the body is at offset 8."""
    found = {256: 64, 257: 64, 258: 8, 259: 1, 262: 1, 277: 1}
    table = {tag: (tag, 3, 1, value) for tag, value in found.items()}
    table |= {entry[0]: entry for entry in entries}
    rows = b"".join(struct.pack("<HHLL", *table[tag]) for tag in sorted(table))
    head = b"II*\0" + struct.pack("<L", 8 + len(body))
    return head + body + struct.pack("<H", len(table)) + rows + bytes(4)


def bmp(width: int, height: int, runs: bytes) -> bytes:
    """A BMP of run lengths."""
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    head += bytes(1024)
    return (
        b"BM" + struct.pack("<IHHI", 14 + len(head) + len(runs), 0, 0, 14 + len(head)) + head + runs
    )


def slow_files() -> dict[str, tuple[bytes, str]]:
    """Name to a file that must not be decoded, and what the error says of it."""
    megabyte = zlib.compress(bytes(1_000_000), 9)
    baseline = plain("JPEG")
    start, end = baseline.rindex(b"\xff\xda"), baseline.rindex(b"\xff\xd9")
    blank = plain("WEBP")[12:] + (b"abcd" + bytes(4)) * 20_001
    gif = plain("GIF")
    first = gif.index(b"\x2c", 13)
    arithmetic = baseline.replace(b"\xff\xc0", b"\xff\xc9", 1)
    strip = with_scans(64, 90)
    many = struct.pack("<L", 8) * 300
    stored = b"\x78\x01" + b"\0\0\0\xff\xff" * 30_000  # empty blocks
    small = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    return {
        "jpeg, last scan 1,000 times": (with_scans(64, 1000), "scans"),
        "jpeg, first scan of a baseline 100 times": (
            baseline[:end] + baseline[start:end] * 100 + b"\xff\xd9",
            "scans",
        ),
        "jpeg, scans between restarts": (
            with_scans(64, 2)[:-2] + (segment(0xDD, b"\0\1") + segment(0xDA, bytes(6))) * 40,
            "scans",
        ),
        "jpeg of 0xFF": (b"\xff\xd8" + b"\xff" * 1_000_000, "fill it up"),
        "jpeg, 0xFF within a scan": (
            baseline[: end - 4] + b"\xff" * 100_000 + b"\0" + baseline[end - 4 :],
            "fill it up",
        ),
        "jpeg, pairs of 0xFF": (behind_start(b"\xff\xff\0" * 5000), "fill it up"),
        "jpeg, zeros after the start": (
            b"\xff\xd8" + segment(0xFE, b"") + bytes(9000) + baseline[2:],
            "fill it up",
        ),
        "jpeg, many APP1": (behind_start(segment(0xE1, b"Exif\0\0") * 900), "EXIF"),
        "jpeg, many resources": (
            behind_start(
                segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\0" * 5000) * 2
            ),
            "resources",
        ),
        "jpeg, many APP13": (behind_start(segment(0xED, b"Photoshop 3.0\0") * 1100), "segments"),
        "jpeg, many comments": (behind_start(segment(0xFE, b"") * 2000), "segments"),
        "jpeg, many TEM": (behind_start(b"\xff\x01" * 2000), "segments"),
        "jpeg, tables between scans": (
            baseline[:end] + segment(0xC4, b"") * 2000 + b"\xff\xd9",
            "segments",
        ),
        "jpeg, EXIF of overlapping tags": (
            behind_start(segment(0xE1, b"Exif\0\0" + exif(1025, 40_000))),
            "EXIF",
        ),
        "jpeg, EXIF in three segments": (behind_start(segment(0xE1, b"Exif\0\0") * 3), "EXIF"),
        "jpeg, arithmetic": (arithmetic, "arithmetically"),
        "jpeg, lossless": (baseline.replace(b"\xff\xc0", b"\xff\xc3", 1), "without loss"),
        "jpeg, two frames": (
            baseline[:end] + segment(0xC0, b"\x08\0\x40\0\x40\1\1\x11\0") + baseline[end:],
            "frame headers",
        ),
        "png, empty chunks": (png_with(chunk(b"abCd") * 3000), "chunks"),
        "png, empty IDAT": (png_with(chunk(b"IDAT") * 3000), "chunks"),
        "png, chunks behind the pixels": (
            plain("PNG")[:-12] + chunk(b"teXt") * 3000 + chunk(b"IEND"),
            "chunks",
        ),
        "png, colour profiles": (png_with(chunk(b"iCCP", b"a\0\0" + megabyte) * 65), "compressed"),
        "png, zTXt": (png_with(chunk(b"zTXt", b"a\0\0" + megabyte) * 65), "compressed"),
        "png, iTXt": (
            png_with(chunk(b"iTXt", b"a\0\1\0\0\0" + megabyte) * 65),
            "compressed",
        ),
        "png, empty blocks of deflate": (
            b"\x89PNG\r\n\x1a\n" + small + chunk(b"IDAT", stored) + chunk(b"IEND"),
            "pixels can need",
        ),
        "gif, comments": (
            gif[:first] + b"\x21\xfe" + b"\1a" * 30_000 + b"\0" + gif[first:],
            "blocks before",
        ),
        "gif, stray bytes": (gif[:first] + b"\1" * 30_000 + gif[first:], "blocks before"),
        "gif, extensions": (gif[:first] + b"\x21\xff\0" * 30_000 + gif[first:], "blocks before"),
        "webp, empty chunks": (
            b"RIFF" + struct.pack("<I", 4 + len(blank)) + b"WEBP" + blank,
            "chunks",
        ),
        "bmp, runs of many pixels": (bmp(1000, 1000, b"\1\5" * 100), "run lengths"),
        "bmp, more runs than pixels": (bmp(64, 64, b"\1\5" * 20_000), "run lengths"),
        "tiff, tags that overlap": (
            tiff([(40_000 + n, 7, 90_000, 8) for n in range(50)], bytes(100_000)),
            "more bytes than there are",
        ),
        "tiff, many tags": (
            tiff([(300 + n, 3, 1, 0) for n in range(5000)]),
            "tags",
        ),
        "tiff, strips of a row": (tiff([(257, 4, 1, 70_000), (278, 4, 1, 1)]), "pieces"),
        "tiff, offsets": (tiff([(273, 4, 70_000, 8), (279, 4, 1, 8)], bytes(280_000)), "pieces"),
        "tiff, tiles of a pixel": (
            tiff([(256, 4, 1, 400), (257, 4, 1, 400), (322, 3, 1, 1), (323, 3, 1, 1)]),
            "pieces",
        ),
        "tiff, the same strip 300 times": (
            tiff(
                [(273, 4, 300, 8), (279, 4, 300, 1208), (259, 3, 1, 8)],
                many + struct.pack("<L", 900) * 300,
            ),
            "longer than the file",
        ),
        "tiff, strips without lengths": (
            tiff([(273, 4, 300, 8), (259, 3, 1, 8)], many),
            "how long its pieces",
        ),
        "tiff, a tag twice": (
            tiff([(258, 3, 1, 8)]).replace(
                struct.pack("<HHLL", 262, 3, 1, 1), struct.pack("<HHLL", 257, 3, 1, 9)
            ),
            "twice",
        ),
        "tiff, scans in its JPEG": (
            tiff([(259, 3, 1, 7), (273, 4, 1, 8), (279, 4, 1, len(strip))], strip),
            "scans",
        ),
        "tiff, LZMA": (tiff([(259, 3, 1, 34925)]), "34925"),
        "tiff, empty blocks of deflate": (
            tiff([(259, 3, 1, 8), (273, 4, 1, 8), (279, 4, 1, len(stored))], stored),
            "pixels can need",
        ),
        "tiff, pages in a row": (_pages(1001), "max_frames"),
        "tiff, pages over each other": (b"II*\0" + b"\x08\0\0\0" + b"\x01\x20" * 30_000, "tags"),
    }


def _pages(count: int) -> bytes:
    """Pages without tags, one after the other."""
    rows = (struct.pack("<HL", 0, 8 + 6 * (number + 1)) for number in range(count))
    return b"II*\0" + struct.pack("<L", 8) + b"".join(rows)
