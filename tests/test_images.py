"""Loading images: every way in, every kind of file, every limit, and http(s)."""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from speceyes.errors import ConfigError, ImageError
from speceyes.images import ImageLimits, fingerprint, load_image, map_box
from speceyes.images import fetch as fetching
from speceyes.types import ImageRef

RED, BLUE = (250, 10, 20), (10, 20, 250)


def scene(width: int = 40, height: int = 24, mode: str = "RGB") -> Image.Image:
    """Blue with a red top left quarter, so that every turn of it looks different."""
    image = Image.new("RGB", (width, height), BLUE)
    image.paste(RED, (0, 0, width // 2, height // 2))
    return image.convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def near(pixel: Any, wanted: tuple[int, int, int], by: int = 12) -> bool:
    return all(abs(a - b) <= by for a, b in zip(pixel, wanted, strict=True))


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


# --- ways in -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_a_files_pixels_are_decoded_once_and_not_copied(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(scene(), kind)
    wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    copied: list[Image.Image] = []
    monkeypatch.setattr(Image.Image, "copy", lambda image: copied.append(image))
    image = load_image(data)
    assert type(image) is Image.Image and image.mode == "RGB" and image.info == {}
    assert (np.asarray(image) == wanted).all() and not copied


def test_an_opened_file_that_a_user_holds_is_not_shared() -> None:
    theirs = Image.open(io.BytesIO(encoded(scene())))
    image = load_image(theirs)
    before = fingerprint(image)
    theirs.paste((1, 2, 3), (0, 0, 9, 9))
    assert fingerprint(image) == before != fingerprint(theirs)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_format_gives_the_same_picture(kind: str, tmp_path: Path) -> None:
    data = encoded(scene(), kind)
    path = tmp_path / "no_suffix_at_all"  # the content says what it is, not the name
    path.write_bytes(data)
    url = "data:image/x;base64," + base64.b64encode(data).decode()
    for source in (data, bytearray(data), memoryview(data), path, str(path), url):
        image = load_image(source)
        assert type(image) is Image.Image
        assert image.mode == "RGB" and image.size == (40, 24) and image.info == {}
        assert near(image.getpixel((5, 5)), RED, 40) and near(image.getpixel((35, 20)), BLUE, 40)


def test_data_urls_as_they_are_found() -> None:
    plain = base64.b64encode(encoded(scene())).decode()
    folded = "\n".join(plain[i : i + 76] for i in range(0, len(plain), 76))
    for url in (
        f"DATA:image/png;BASE64,{plain}",
        f"data:image/png;charset=utf-8;base64,{folded}",
        f"data:image/png;base64,{plain.rstrip('=')}",
        "data:image/png;base64," + plain.replace("+", "%2B").replace("=", "%3D"),
    ):
        assert load_image(url).size == (40, 24)


@pytest.mark.parametrize(
    "url",
    [
        "data:",
        "data:image/png",
        "data:image/png;base64",
        "data:image/png;base64,",
        "data:image/png;base64,%%%",
        "data:image/png;base64,é",
        "data:image/png,rawbytes",
        "data:text/html;base64,PGI+",
        "data:image/svg+xml;base64," + base64.b64encode(b"<svg xmlns=''/>").decode(),
        "data:image/png;base64," + "A" * 5,
        "data:image/" + ";" * 100_000 + "x",
    ],
)
def test_broken_data_urls(url: str) -> None:
    with pytest.raises(ImageError) as caught:
        load_image(url)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "form",
    [
        "data:image/png;base64,{}", " data:image/png;base64,{}\n", '"data:image/png;base64,{}"',
        "\ufeffdata:image/png;base64,{}", "data:;base64,{}", "data:image/png;charset=x;base64,{}",
        "data:application/octet-stream;base64,{}", "{}", " {}\n", "'{}'", '"{}"',
        "image/png;base64,{}", "base64,{}", ";base64,{}", ' "image/jpeg;base64,{}"',
    ],
)  # fmt: skip
def test_an_encoded_image_is_read_as_text_and_as_bytes(form: str) -> None:
    text = form.format(base64.b64encode(encoded(scene())).decode())
    assert load_image(text).size == scene().size
    if "\ufeff" not in form and '"' not in form:
        assert load_image(text.encode()).size == scene().size
        assert load_image(bytearray(text.encode())).size == scene().size


def test_a_plain_rgb_image_is_not_copied_and_any_other_is_left_alone() -> None:
    plain = scene()
    assert load_image(plain) is plain
    grey = scene(mode="L")
    assert load_image(grey).mode == "RGB" and grey.mode == "L"


def test_a_lazy_pil_image_is_decoded_here(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(scene()))
    with Image.open(path) as lazy:
        image = load_image(lazy)
    assert type(image) is Image.Image and near(image.getpixel((1, 1)), RED)
    whole = encoded(scene(400, 400))
    with pytest.raises(ImageError, match="can't be decoded"):
        load_image(Image.open(io.BytesIO(whole[: len(whole) // 2])))


@pytest.mark.parametrize(
    ("array", "pixel"),
    [
        (np.full((6, 8, 3), (1, 2, 3), dtype=np.uint8), (1, 2, 3)),
        (np.full((6, 8, 3), (1, 2, 3), dtype=np.uint8)[::-1, ::-1], (1, 2, 3)),
        (np.full((6, 8, 4), (9, 9, 9, 0), dtype=np.uint8), (255, 255, 255)),
        (np.full((6, 8), 7, dtype=np.uint8), (7, 7, 7)),
        (np.full((6, 8, 1), 7, dtype=np.uint8), (7, 7, 7)),
        (np.full((6, 8), True), (255, 255, 255)),
        (np.full((6, 8), 65535, dtype=np.uint16), (255, 255, 255)),
        (np.full((6, 8, 3), 32768, dtype=">u2"), (128, 128, 128)),
        (np.full((6, 8, 3), 0.5), (128, 128, 128)),
        (np.full((6, 8), 1.0, dtype=np.float16), (255, 255, 255)),
    ],
)
def test_arrays(array: np.ndarray[Any, Any], pixel: tuple[int, int, int]) -> None:
    image = load_image(array)
    assert image.size == (8, 6) and image.mode == "RGB" and image.getpixel((3, 3)) == pixel


def test_an_array_may_change_after_it_was_loaded() -> None:
    for shape in ((6, 8, 3), (6, 8, 4), (6, 8)):
        array = np.full(shape, 255, dtype=np.uint8)
        image = load_image(array)
        array[:] = 0
        assert image.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((3, 64, 64), dtype=np.uint8), "transpose"),
        (np.zeros((8, 8, 2), dtype=np.uint8), "not an image"),
        (np.zeros((1, 8, 8, 3), dtype=np.uint8), "not an image"),
        (np.zeros(64, dtype=np.uint8), "not an image"),
        (np.zeros((0, 8, 3), dtype=np.uint8), "min_side"),
        (np.zeros((8, 8), dtype=np.int64), "astype"),
        (np.zeros((8, 8), dtype=complex), "astype"),
        (np.full((8, 8), 200.0), "0 to 1"),
        (np.full((8, 8), -0.1), "0 to 1"),
        (np.full((8, 8), np.nan), "0 to 1"),
    ],
)
def test_arrays_that_are_refused(array: np.ndarray[Any, Any], told: str) -> None:
    with pytest.raises(ImageError, match=told):
        load_image(array)


@pytest.mark.parametrize("source", [None, 3, ["a.png"], object(), io.BytesIO(b"x")])
def test_what_is_no_source_at_all(source: Any) -> None:
    with pytest.raises(ImageError, match=f"from a {type(source).__name__}"):
        load_image(source)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_paths_that_are_no_images(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for source, told in (
        (tmp_path / "missing.png", "No such file"),
        (tmp_path, "not a regular file"),
        (pipe, "not a regular file"),  # would wait for a writer for ever
        ("/dev/zero", "not a regular file"),  # has no end
        ("a\0b", "not a path"),
        ("x" * 100_000, "name too long"),
        ("", "No such file"),
    ):
        with pytest.raises(ImageError, match=re.compile(told, re.IGNORECASE)) as caught:
            load_image(source)
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.com/a.png", "gopher://x/"])
def test_other_schemes_are_refused_even_where_urls_are_allowed(url: str) -> None:
    with pytest.raises(ImageError, match="are not read"):
        load_image(url, allow_urls=True)


# --- kinds of files ------------------------------------------------------------------------


def test_cmyk_jpeg() -> None:
    image = load_image(encoded(scene(mode="CMYK"), "JPEG", quality=95))
    assert near(image.getpixel((3, 3)), RED, 30) and near(image.getpixel((35, 20)), BLUE, 30)


def test_palette_with_and_without_transparency() -> None:
    palette = scene().quantize(2)
    clear = palette.getpixel((0, 0))
    assert near(load_image(encoded(palette)).getpixel((3, 3)), RED)
    for kind in ("PNG", "GIF"):
        image = load_image(encoded(palette, kind, transparency=clear))
        assert image.getpixel((3, 3)) == (255, 255, 255)
        assert near(image.getpixel((35, 20)), BLUE)
    shares = bytes([0] * 256)  # an alpha of its own for each colour
    assert load_image(encoded(palette, transparency=shares)).getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_laid_on_white(mode: str) -> None:
    image = Image.new(mode, (8, 8))  # black, clear
    image.putalpha(Image.new("L", (8, 8), 51))  # a fifth of it there
    assert near(load_image(image).getpixel((0, 0)), (204, 204, 204), 1)
    assert near(load_image(encoded(image)).getpixel((0, 0)), (204, 204, 204), 1)


def test_one_colour_declared_transparent() -> None:
    for image, clear in (
        (Image.new("RGB", (8, 8), RED), RED),
        (Image.new("L", (8, 8), 7), 7),
        (Image.new("1", (8, 8)), 0),
        (Image.fromarray(np.full((8, 8), 500, dtype=np.uint16)), 500),
    ):
        loaded = load_image(encoded(image, transparency=clear))
        assert loaded.getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_greys_are_scaled_not_clipped(kind: str) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    image = load_image(encoded(Image.fromarray(ramp), kind))
    got = np.asarray(image)[:, :, 0].astype(float)
    assert np.abs(got - ramp / 257).max() <= 0.5
    assert np.asarray(image).shape == (64, 64, 3)


def test_sixteen_bit_colours() -> None:
    row = b"\0" + struct.pack(">3H", 0x1234, 0xFFFF, 0) * 8
    assert near(load_image(png(8, 8, 16, 2, row * 8)).getpixel((0, 0)), (0x12, 255, 0), 1)


def test_wide_whole_numbers_and_floats() -> None:
    wide = Image.fromarray(np.full((8, 8), 65535, dtype=np.int32))
    assert load_image(encoded(wide, "TIFF")).getpixel((0, 0)) == (255, 255, 255)
    for value in (-1, 65536):
        with pytest.raises(ImageError, match="0 to 65535"):
            load_image(Image.fromarray(np.full((8, 8), value, dtype=np.int32)))
    half = Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32))
    assert load_image(encoded(half, "TIFF")).getpixel((0, 0)) == (128, 128, 128)
    with pytest.raises(ImageError, match="0 to 1"):
        load_image(Image.fromarray(np.full((8, 8), 128, dtype=np.float32)))


def test_one_bit() -> None:
    image = load_image(encoded(scene(mode="L").point(lambda v: 255 * (v > 60)).convert("1")))
    assert set(np.unique(np.asarray(image))) <= {0, 255} and image.mode == "RGB"


@pytest.mark.parametrize("mode", ["HSV", "YCbCr"])
def test_other_colour_spaces(mode: str) -> None:
    assert near(load_image(scene(mode=mode)).getpixel((3, 3)), RED, 12)


def test_a_lazy_image_whose_file_was_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(scene()))
    with Image.open(path) as lazy:
        pass
    with pytest.raises(ImageError, match="closed"):
        load_image(lazy)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several_and_their_cap(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), (40 * i, 255 - 40 * i, 0)) for i in range(5)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert near(load_image(data).getpixel((8, 8)), (0, 255, 0), 10)
    assert load_image(data, limits=ImageLimits(max_frames=5)).size == (16, 16)
    with pytest.raises(ImageError, match="max_frames=4"):
        load_image(data, limits=ImageLimits(max_frames=4))


def test_the_several_pictures_of_a_phone_are_read_as_the_first() -> None:
    data = encoded(scene(), "MPO", save_all=True, append_images=[Image.new("RGB", (40, 24))])
    image = load_image(data, limits=ImageLimits(max_frames=1))
    assert near(image.getpixel((3, 3)), RED, 40)


def test_a_gif_of_a_million_frames_is_refused_at_once() -> None:
    head = encoded(Image.new("P", (8, 8)), "GIF")[:-1]
    data = head + (b"\x2c" + struct.pack("<4HB", 0, 0, 1, 1, 0) + b"\x02\x00") * 1_000_000 + b";"
    begin = time.thread_time()
    with pytest.raises(ImageError, match="max_frames"):
        load_image(data)
    assert time.thread_time() - begin < 5


def test_gifs_with_no_frame_or_endless_blocks() -> None:
    for data in (b"GIF89a", b"GIF89a" + bytes(20_000_000), b"GIF89a" + b"\1" * 20_000_000):
        with pytest.raises(ImageError, match=r"without a frame|pixels|blocks before"):
            load_image(data)


def turned(exif_value: int) -> tuple[bytes, Image.Image]:
    upright = scene(40, 24)
    exif = Image.Exif()
    exif[0x0112] = exif_value
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[exif_value]
    stored = upright if undo is None else upright.transpose(undo)
    return encoded(stored, "JPEG", exif=exif, quality=95), upright


@pytest.mark.parametrize("value", range(1, 9))
def test_exif_orientation_is_applied_once(value: int) -> None:
    data, upright = turned(value)
    image = load_image(data)
    assert image.size == upright.size
    assert np.abs(np.asarray(image).astype(int) - np.asarray(upright)).mean() < 6
    again = load_image(image)
    assert np.array_equal(np.asarray(again), np.asarray(image))
    pil = load_image(Image.open(io.BytesIO(data)))  # opened by the user, not turned yet
    assert np.array_equal(np.asarray(pil), np.asarray(image))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_orientation_in_other_formats(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = scene(40, 24).transpose(Image.Transpose.ROTATE_90)
    image = load_image(encoded(stored, kind, exif=exif))
    assert image.size == (40, 24) and near(image.getpixel((3, 3)), RED, 40)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_orientations_that_there_are_not(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert load_image(encoded(scene(), "JPEG", exif=exif)).size == (40, 24)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_damaged_exif_costs_the_orientation_only() -> None:
    data = encoded(scene(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    assert near(load_image(data).getpixel((3, 3)), RED, 40)


# --- broken and hostile files --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_anywhere_is_an_image_error_or_a_picture(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    refused = 0
    for length in range(0, len(data), max(1, len(data) // 60)):
        try:
            assert load_image(data[:length]).size == (48, 48)
        except ImageError:
            refused += 1
    assert refused > 30
    with pytest.raises(ImageError):
        load_image(data[: len(data) // 2])


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_flipped_bytes_never_raise_anything_else(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(WHOLE)))
    raw = bytearray(WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, min(len(raw) - 1, 400)))] = data.draw(st.integers(0, 255))
    try:
        image = load_image(bytes(raw), limits=ImageLimits(max_pixels=1_000_000))
        assert image.mode == "RGB"
    except ImageError:
        pass


WHOLE = {kind: encoded(scene(), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")} | {
    "APNG": encoded(scene(), "PNG", save_all=True, append_images=[scene(mode="L")]),
    "EXIF": turned(6)[0],
    "LZW": encoded(scene(), "TIFF", compression="tiff_lzw"),
    "PALETTE": encoded(scene(mode="P"), "PNG", transparency=3),
}


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", *(raw[:12] for raw in WHOLE.values())]))
def test_garbage_never_raises_anything_else(garbage: bytes, head: bytes) -> None:
    with pytest.raises(ImageError):
        load_image(head + garbage)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "empty"),
        (b"not an image at all, only text", "unknown"),
        (b"<!DOCTYPE html><html>404</html>", "HTML"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
    ],
)
def test_what_it_is_instead_is_said(data: bytes, told: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=told):
        load_image(data)
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=f"photo.jpg.*{told}"):
        load_image(path)


def test_header_that_claims_a_huge_picture() -> None:
    data = png(60_000, 60_000, 8, 2, b"\0" * 100)
    with pytest.raises(ImageError, match=r"60000 x 60000 pixels, more than max_pixels"):
        load_image(data)


def test_a_whole_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = png(10_000, 10_000, 1, 0, bytes(1251 * 10_000))  # 100 million pixels in 12 kB
    assert len(data) < 20_000
    decoded: list[str] = []
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: decoded.append("a pixel"))
    with pytest.raises(ImageError, match="10000 x 10000"):
        load_image(data)
    assert decoded == []


@pytest.mark.parametrize("side", [9_600, 13_300, 14_000])
def test_pillows_own_bomb_warning_and_error_stay_inside(side: int) -> None:
    """Between Pillow's warning and its error, and above both."""
    with pytest.raises(ImageError, match="max_pixels"):
        load_image(png(side, side, 1, 0, b""))


def test_more_pixels_where_they_are_allowed_without_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # a picture of 960 is above Pillow's bound
        assert load_image(encoded(scene(40, 24))).size == (40, 24)


def test_a_gif_whose_frame_is_larger_than_its_canvas() -> None:
    frame = b"\x2c" + struct.pack("<4HB", 0, 0, 30_000, 30_000, 0) + b"\x02\x00;"
    with pytest.raises(ImageError, match="30000 x 30000"):
        load_image(b"GIF89a" + struct.pack("<2H3B", 8, 8, 0, 0, 0) + frame)


def test_a_tiff_whose_tiles_are_larger_than_its_picture() -> None:
    tags = [
        (256, 8),
        (257, 8),
        (258, 8),
        (259, 1),
        (262, 1),
        (277, 1),
        (322, 40_000),
        (323, 40_000),
        (324, 200),
        (325, 64),
    ]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + body + bytes(300)
    with pytest.raises(ImageError, match="40000 x 40000"):
        load_image(data)


def test_pixels_beyond_those_that_the_header_claims() -> None:
    data = png(8, 8, 8, 0, bytes(10_000_000))
    assert load_image(data).getextrema() == ((0, 0),) * 3


def test_huge_text_chunks() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "a" * 10_000_000, zip=True)
    with pytest.raises(ImageError, match=r"header|decoded"):
        load_image(encoded(scene(), pnginfo=text))


def test_a_decoders_words_are_logged_and_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "a" * 5_000_000, zip=True)
    broken = [encoded(scene(), pnginfo=text), encoded(scene(400, 400), "JPEG")[:900]]
    for data in broken:
        caplog.clear()
        with caplog.at_level("DEBUG", logger="speceyes"), pytest.raises(ImageError) as caught:
            load_image(data)
        assert caught.value.__cause__ is None and caught.value.__suppress_context__
        inner = [record.exc_info[1] for record in caplog.records if record.exc_info]
        assert inner and str(inner[0]) not in str(caught.value)
        assert not re.search(r"0x[0-9a-f]+", str(caught.value))


# --- limits --------------------------------------------------------------------------------


def test_bytes_are_capped_for_every_encoded_source(tmp_path: Path) -> None:
    data = encoded(scene())
    path = tmp_path / "a.png"
    path.write_bytes(data)
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    exact, less = ImageLimits(max_bytes=len(data)), ImageLimits(max_bytes=len(data) - 1)
    for source in (data, bytearray(data), memoryview(data), path, url):
        assert load_image(source, limits=exact).size == (40, 24)
        with pytest.raises(ImageError, match="max_bytes"):
            load_image(source, limits=less)


def test_sides_and_pixels_are_capped_for_every_source() -> None:
    wide = scene(40, 24)
    sources = (wide, encoded(wide), np.asarray(wide))
    for source in sources:
        assert load_image(source, limits=ImageLimits(min_side=24, max_pixels=960)).size == (40, 24)
        with pytest.raises(ImageError, match="40 x 24 pixels; each side needs min_side=25"):
            load_image(source, limits=ImageLimits(min_side=25))
        with pytest.raises(ImageError, match="more than max_pixels=959"):
            load_image(source, limits=ImageLimits(max_pixels=959))
    with pytest.raises(ImageError, match="min_side"):
        load_image(encoded(Image.new("RGB", (100, 3))))


def test_formats_are_capped() -> None:
    only = ImageLimits(formats=("PNG",))
    assert load_image(encoded(scene()), limits=only).size == (40, 24)
    with pytest.raises(ImageError, match="of format JPEG; allowed are: PNG"):
        load_image(encoded(scene(), "JPEG"), limits=only)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_bytes": 0},
        {"max_pixels": -1},
        {"max_frames": 1.5},
        {"min_side": True},
        {"formats": ()},
        {"formats": ("EPS",)},
        {"formats": "PNG"},
    ],
)
def test_limits_that_can_not_work(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ImageLimits(**wrong)


# --- fingerprints and boxes ----------------------------------------------------------------


def test_fingerprints_tell_apart_what_has_the_same_bytes() -> None:
    raw = bytes(range(48))
    images = [
        Image.frombytes("RGB", (2, 8), raw),
        Image.frombytes("RGB", (8, 2), raw),
        Image.frombytes("L", (6, 8), raw),
        Image.frombytes("P", (6, 8), raw),
    ]
    images.append(images[3].copy())
    images[4].putpalette(bytes(reversed(range(256))) * 3)
    images.append(images[3].copy())
    images[5].info["transparency"] = 3
    assert len({fingerprint(image) for image in images}) == 6
    assert fingerprint(images[0]) == fingerprint(images[0].copy()) == ImageRef.of(images[0]).sha256


sizes = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
coordinate = st.floats(-1e4, 1e4)


@given(st.tuples(coordinate, coordinate, coordinate, coordinate), sizes, sizes)
def test_boxes_map_there_and_back(box: Any, a: tuple[int, int], b: tuple[int, int]) -> None:
    back = map_box(map_box(box, a, b), b, a)
    assert back == pytest.approx(box, rel=1e-9, abs=1e-9)
    assert map_box((0, 0, *a), a, b) == pytest.approx((0, 0, *b))


def test_boxes_need_sizes() -> None:
    with pytest.raises(ImageError, match="positive"):
        map_box((0, 0, 1, 1), (0, 5), (5, 5))


# --- http(s) -------------------------------------------------------------------------------

PICTURE = encoded(scene())


class Handler(BaseHTTPRequestHandler):
    """One path a behaviour."""

    seen: ClassVar[list[tuple[str, dict[str, str]]]] = []

    def log_message(self, *args: Any) -> None:
        pass

    def send(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.seen.append((self.path, dict(self.headers)))
        path = self.path.partition("?")[0]
        length = str(len(PICTURE))
        port = self.server.server_address[1]
        if path == "/ok.png":
            self.send(PICTURE, Content_Type="image/png", Content_Length=length)
        elif path == "/bytes":
            self.send(PICTURE, Content_Type="application/octet-stream")
        elif path == "/no-length":
            self.send(PICTURE, Content_Type="image/png")
        elif path == "/chunked":
            self.protocol_version = "HTTP/1.1"
            half = len(PICTURE) // 2
            parts = [PICTURE[:half], PICTURE[half:], b""]
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
            self.send(body, Content_Type="image/png", Transfer_Encoding="chunked")
        elif path == "/html":
            self.send(b"<html>", Content_Type="text/html; charset=utf-8")
        elif path == "/packed":
            self.send(PICTURE, Content_Type="image/png", Content_Encoding="gzip")
        elif path == "/cut":
            self.send(PICTURE[:50], Content_Type="image/png", Content_Length=length)
        elif path == "/claims-much":
            self.send(PICTURE, Content_Type="image/png", Content_Length=str(10**12))
        elif path == "/endless":
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(65536))
            except OSError:
                pass
        elif path == "/slow-head":
            for byte in itertools.cycle(b"X-Slow: 1\r\n"):
                try:
                    self.wfile.write(bytes([byte]))
                except OSError:
                    return
                time.sleep(0.05)
        elif path == "/slow-body":
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x")
                    time.sleep(0.05)
            except OSError:
                pass
        elif path.startswith("/hop"):
            left = int(path[4:])
            to = f"/hop{left - 1}" if left else "/ok.png"
            self.send(b"", 302, Location=to)
        elif path == "/to-file":
            self.send(b"", 302, Location="file:///etc/passwd")
        elif path == "/to-other-name":
            self.send(b"", 302, Location=f"http://localhost:{port}/ok.png")
        elif path == "/nowhere":
            self.send(b"", 302)
        else:
            self.send(b"", 404)


@pytest.fixture
def server() -> Iterator[str]:
    Handler.seen = []
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


HERE = frozenset({"127.0.0.1"})


def get(url: str, **options: Any) -> Image.Image:
    return load_image(url, allow_urls=True, **{"allow_hosts": HERE, **options})


@pytest.mark.parametrize("path", ["/ok.png", "/bytes", "/no-length", "/chunked", "/hop2", "/hop0"])
def test_an_image_is_fetched(server: str, path: str) -> None:
    image = get(server + path)
    assert near(image.getpixel((3, 3)), RED)
    sent = Handler.seen[0][1]
    assert sent["Accept-Encoding"] == "identity" and sent["Host"] == server[7:]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_https_checks_the_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    more = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(cert)]
    subprocess.run([*make.split(), *more, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    httpd.handle_error = lambda *_: None  # type: ignore[method-assign]  # handshakes that fail
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    port = httpd.server_address[1]
    names = frozenset({"localhost", "127.0.0.1"})
    try:
        with pytest.raises(ImageError, match="can't be fetched"):  # nobody vouches for it
            get(f"https://localhost:{port}/ok.png", allow_hosts=names)
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        assert get(f"https://localhost:{port}/ok.png", allow_hosts=names).size == (40, 24)
        assert Handler.seen[-1][1]["Host"] == f"localhost:{port}"
        with pytest.raises(ImageError, match="can't be fetched"):  # another name's certificate
            get(f"https://127.0.0.1:{port}/ok.png", allow_hosts=names)
        with pytest.raises(ImageError, match="from https to http"):
            get(f"https://localhost:{port}/to-other-name", allow_hosts=names)
        with pytest.raises(ImageError, match="longer than"):
            get(f"https://localhost:{port}/slow-body", allow_hosts=names, url_timeout_s=0.5)
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def test_urls_are_not_fetched_unless_asked_for(server: str) -> None:
    with pytest.raises(ImageError, match="allow_urls=True"):
        load_image(server + "/ok.png")
    assert Handler.seen == []


def test_the_own_machine_is_refused_by_default(server: str) -> None:
    port = server.rpartition(":")[2]
    for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"):
        with pytest.raises(ImageError, match=r"not public|can't be fetched"):
            load_image(f"http://{host}:{port}/ok.png", allow_urls=True)
    assert Handler.seen == []


@pytest.mark.parametrize(
    "host",
    [
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",  # where clouds hand out credentials
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "[::1]",
        "[::]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[fec0::1]",
        "[ff02::1]",
        "[::ffff:10.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::a00:1]",
        "[2002:7f00:1::]",
        "[2001:db8::1]",
    ],
)
def test_private_addresses_are_refused(host: str) -> None:
    with pytest.raises(ImageError, match="not public"):
        load_image(f"http://{host}/a.png", allow_urls=True, url_timeout_s=1)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"])
def test_public_addresses_are_not(address: str) -> None:
    assert fetching.is_public(address)


def test_the_name_is_looked_up_once_and_the_answer_is_kept(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that answers first with a public address and then with a private one."""
    port = int(server.rpartition(":")[2])
    answers = iter(["93.184.216.34", "127.0.0.1"])
    asked: list[str] = []
    went: list[Any] = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    def connect(address: Any, timeout: float) -> socket.socket:
        went.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(ImageError, match="can't be fetched"):
        load_image(f"http://rebind.example:{port}/ok.png", allow_urls=True)
    assert asked == ["rebind.example"] and went == [("93.184.216.34", port)]


def test_one_private_address_among_public_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        both = ("93.184.216.34", "10.0.0.7")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in both]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(ImageError, match="not public"):
        load_image("http://both.example/a.png", allow_urls=True)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/html", "type 'text/html'"),
        ("/packed", "compressed"),
        ("/cut", "too early"),
        ("/claims-much", "max_bytes"),
        ("/missing", "status 404"),
        ("/nowhere", "status 302"),
        ("/hop3", "more than 3 redirects"),
        ("/to-file", "not an http"),
        ("/to-other-name", "not public"),  # each hop is checked like the first
    ],
)
def test_answers_that_are_refused(server: str, path: str, told: str) -> None:
    with pytest.raises(ImageError, match=told):
        get(server + path)


def test_the_byte_cap_holds_while_it_streams(server: str) -> None:
    exact = ImageLimits(max_bytes=len(PICTURE))
    assert get(server + "/no-length", limits=exact).size == (40, 24)
    for path in ("/endless", "/no-length", "/ok.png"):
        with pytest.raises(ImageError, match="max_bytes"):
            get(server + path, limits=ImageLimits(max_bytes=len(PICTURE) - 1))


@pytest.mark.parametrize("path", ["/slow-head", "/slow-body"])
def test_the_time_limit_holds_against_a_trickle(server: str, path: str) -> None:
    with pytest.raises(ImageError, match=r"longer than 0\.4 s"):  # the trickle has no end
        get(server + path, url_timeout_s=0.4)


def test_secrets_in_a_url_are_not_shown(server: str) -> None:
    with pytest.raises(ImageError) as caught:
        get(server + "/missing?signature=hidden")
    assert "hidden" not in str(caught.value) and "/missing" in str(caught.value)
    with pytest.raises(ImageError) as caught:
        get("http://user:hidden@example.com/a.png")
    assert "hidden" not in str(caught.value) and "user name" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///a.png",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:x/",
        "http://[::1/",
        "http://127.0.0.1:0/",
        "http://exa mple/",
        "http://" + "a" * 300 + "/",
        "https://127.0.0.1:1/a.png",
    ],
)
def test_urls_that_can_not_be_fetched(url: str) -> None:
    with pytest.raises(ImageError):
        get(url)


def test_odd_paths_are_sent_as_they_must_be(server: str) -> None:
    for path in ("/ü bild.png?q=ä ö", "/%C3%BC.png", "/a\r\nHost: evil/x"):
        with pytest.raises(ImageError, match="status 404"):
            get(server + path)
    assert Handler.seen[0][0] == "/%C3%BC%20bild.png?q=%C3%A4%20%C3%B6"
    assert Handler.seen[1][0] == "/%C3%BC.png"
    assert all(headers["Host"] == server[7:] for _, headers in Handler.seen)


def test_a_text_for_a_set_of_hosts_is_an_error() -> None:
    with pytest.raises(ConfigError, match="set of names"):
        load_image("http://e.example/", allow_urls=True, allow_hosts="private.example")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="timeout_s"):
        load_image("http://e.example/", allow_urls=True, url_timeout_s=0)


@pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="counts files where Linux lists them"
)
def test_no_sockets_are_left_open(server: str) -> None:
    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = opened()
    for path in ("/ok.png", "/html", "/cut", "/missing", "/endless") * 3:
        with contextlib.suppress(ImageError):
            get(server + path, limits=ImageLimits(max_bytes=200_000))
    deadline = time.monotonic() + 60
    while opened() > before and time.monotonic() < deadline:
        time.sleep(0.02)  # the server's own ends close in their threads
    assert opened() <= before


# --- documentation -------------------------------------------------------------------------


def test_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photo.jpg").write_bytes(encoded(scene(400, 300), "JPEG"))
    text = (Path(__file__).parents[1] / "docs" / "images.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 3
    scope: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/images.md", "exec"), scope)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_base64_without_a_head_and_blanks_around_are_read(kind: str) -> None:
    data = encoded(scene(), kind)
    text = base64.b64encode(data).decode()
    url_safe = base64.urlsafe_b64encode(data).decode().rstrip("=")
    lines = "\n".join(text[at : at + 76] for at in range(0, len(text), 76))
    wanted = load_image(data)
    for source in (text, url_safe, lines, f"  {text}\n", f" data:image/x;base64,{text}"):
        assert fingerprint(load_image(source)) == fingerprint(wanted)


def test_base64_has_the_limits_of_a_file() -> None:
    text = base64.b64encode(encoded(scene(), "PNG")).decode()
    with pytest.raises(ImageError, match="max_bytes=50"):
        load_image(text, limits=ImageLimits(max_bytes=50))
    with pytest.raises(ImageError, match="not valid base64"):
        load_image(text[:-8] + "!!!!")
    # What only looks like it is a path, and an error of files.
    with pytest.raises(ImageError, match="can't be opened"):
        load_image("a" * 64)


def test_a_truncated_photo_is_not_blamed_on_its_colours() -> None:
    data = encoded(scene().resize((400, 300)), "JPEG")
    with pytest.raises(ImageError, match="truncated") as raised:
        load_image(data[: len(data) // 2])
    assert "mode" not in str(raised.value)


def test_torch_tensors_are_read_with_colours_first_or_last() -> None:
    torch = pytest.importorskip("torch")
    wanted = scene()
    last = torch.from_numpy(np.array(wanted))
    first = last.permute(2, 0, 1)
    for tensor in (last, first, first.float() / 255, (first / 255).requires_grad_()):
        assert fingerprint(load_image(tensor)) == fingerprint(wanted)
    assert load_image((first / 255).bfloat16()).size == wanted.size
    assert load_image(first[:1]).size == load_image(first[0]).size == wanted.size
    with pytest.raises(ImageError, match="is not an image"):
        load_image(first[None])
    with pytest.raises(ImageError, match="can't be read"):
        load_image(torch.empty((3, 8, 8), device="meta"))


def test_images_of_datasets_that_are_not_decoded_are_read(tmp_path: Path) -> None:
    data = encoded(scene(), "PNG")
    (tmp_path / "x.png").write_bytes(data)
    path = str(tmp_path / "x.png")
    for source in ({"bytes": data, "path": None}, {"bytes": None, "path": path}):
        assert load_image(source).size == scene().size
    with pytest.raises(ImageError, match="'bytes' or 'path'"):
        load_image({"url": "x"})
