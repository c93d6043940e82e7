"""Files made to keep a decoder busy are refused before they are decoded, and ordinary ones aren't.

`python tests/test_slow_images.py` prints what was tried and what held, and seconds a megapixel of
the slowest files that are decoded.
"""

from __future__ import annotations

import struct
import sys
import time
import tracemalloc
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFile

from speceyes.errors import ImageError
from speceyes.images import load_image

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
from support.slow_files import (
    behind_start,
    bmp,
    chunk,
    encoded,
    exif,
    plain,
    png_with,
    segment,
    slow_files,
    with_scans,
)

SLOW = slow_files()


@pytest.mark.parametrize("name", SLOW)
def test_slow_files_are_refused_before_they_are_decoded(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoded(*args: Any) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    data, told = SLOW[name]
    assert len(data) < 2_000_000
    with pytest.raises(ImageError, match=told):
        load_image(data)


@pytest.mark.parametrize(
    "data",
    [
        with_scans(64, 20),
        with_scans(64, 10, subsampling=0),
        plain("JPEG", optimize=True, restart_marker_blocks=1),
        plain("JPEG", exif=Image.Exif(), icc_profile=bytes(600_000)),
        behind_start(segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(60_000)) * 160),
        behind_start(segment(0xE2, b"MPF\0" + b"\xff" * 9000)),
        behind_start(segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\0" * 400) * 4),
        plain("JPEG") + b"\xff" * 100_000,
        png_with(*(chunk(b"tEXt", b"parameters\0" + bytes([65]) * 3000) for _ in range(20))),
        png_with(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(50_000)))),
        png_with(*[chunk(b"zTXt", b"a\0\0" + zlib.compress(b"text"))] * 60),
        encoded(Image.effect_noise((400, 400), 100), "PNG", compress_level=0),
        encoded(Image.effect_noise((400, 400), 100), "TIFF", compression="tiff_lzw"),
        encoded(Image.effect_noise((400, 400), 100), "TIFF", compression="jpeg"),
        encoded(Image.new("1", (400, 400)), "TIFF", compression="group4"),
        encoded(Image.new("RGB", (300, 300)), "TIFF", tiffinfo={278: 1}),
        encoded(Image.new("RGB", (300, 300)), "TIFF", big_tiff=True),
        encoded(Image.new("P", (64, 64)), "GIF", comment=b"made by hand" * 1000),
        encoded(Image.effect_noise((400, 400), 100), "WEBP", lossless=True),
        bmp(4, 4, b"\4\1\0\0" * 4 + b"\0\1"),
    ],
    ids=range(20),
)
def test_files_that_encoders_write_are_decoded(data: bytes) -> None:
    assert min(load_image(data).size) >= 4


def test_exif_that_costs_too_much_is_not_read() -> None:
    data = png_with(chunk(b"eXIf", exif(1025, 900_000)))
    assert load_image(data).size == (64, 64)
    text = b"\nexif\n9\n" + exif(1025, 20_000).hex().encode()
    assert load_image(
        png_with(chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)))
    ).size == (64, 64)


@pytest.mark.parametrize("written", ["%41", "%2B", "%%", " A", "%u0041", "\u00e9"])
def test_a_written_out_data_url_costs_no_more_memory_than_its_text(written: str) -> None:
    url = "data:image/png;base64," + written * (3_000_000 // len(written))
    tracemalloc.start()
    try:
        with pytest.raises(ImageError):
            load_image(url)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * len(url)


def slowest() -> dict[str, bytes]:
    """Files within all limits that take the longest for their size."""
    noise = Image.effect_noise((2000, 2000), 100).convert("RGB")
    blocks = zlib.compress(bytes(1), 0)[:2] + _empty_blocks(580_000)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1250, 1250, 8, 6, 0, 0, 0))
    return {
        "jpeg, 31 scans of all colours": with_scans(2000, 21, subsampling=0),
        "jpeg of noise, quality 100": encoded(noise, "JPEG", quality=100, subsampling=0),
        "png of noise": encoded(noise, "PNG", compress_level=1),
        "png of empty blocks": b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", blocks),
        "webp of noise": encoded(noise, "WEBP", quality=100, method=0),
        "webp of noise, lossless": encoded(noise, "WEBP", lossless=True, quality=0, method=0),
        "tiff of noise, deflate": encoded(noise, "TIFF", compression="tiff_adobe_deflate"),
        "bmp of run lengths": bmp(700, 700, b"\1\5" * 490_000),
        "gif of noise": encoded(noise.convert("P"), "GIF"),
    }


def _empty_blocks(count: int) -> bytes:
    """Blocks of deflate with code tables and no content, 90 bits each."""
    lengths = {18: 1, 1: 1}
    order = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1)
    fields = [(0, 1), (2, 2), (0, 5), (0, 5), (14, 4)]
    fields += [(lengths.get(one, 0), 3) for one in order]
    fields += [(1, 1), (127, 7), (1, 1), (107, 7), (0, 1), (0, 1), (0, 1)]
    value = at = 0
    for number, bits in fields:
        value |= number << at
        at += bits
    four = value | value << at | value << 2 * at | value << 3 * at
    return four.to_bytes(at // 2, "little") * (count // 4)


def main() -> int:
    held = 0
    for name, (data, _) in SLOW.items():
        start = time.perf_counter()
        try:
            load_image(data)
            said = "DECODED"
        except ImageError:
            said, held = "refused", held + 1
        spent = time.perf_counter() - start
        sys.stdout.write(
            f"{name:44s} {len(data) / 1000:8.0f} kB  {said} after {spent * 1000:6.1f} ms\n"
        )
    sys.stdout.write(f"slow files: {len(SLOW)} tried, {held} held\n\n")
    for name, data in slowest().items():
        start = time.perf_counter()
        with suppress(ImageError):
            load_image(data)
        spent = time.perf_counter() - start
        pixels = {"png of empty blocks": 1250 * 1250, "bmp of run lengths": 490_000}
        of = pixels.get(name, 4_000_000) / 1e6
        sys.stdout.write(f"{name:44s} {len(data) / 1e6:8.2f} MB  {spent / of:6.2f} s a megapixel\n")
    return held != len(SLOW)


if __name__ == "__main__":
    raise SystemExit(main())
