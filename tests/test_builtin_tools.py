"""The built-in tools beside zoom and rotate: grid, flip, adjust, colour, search, OCR."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont
from PIL.Image import Image

from speceyes.dialects.hermes import HermesDialect
from speceyes.errors import ConfigError, ToolError
from speceyes.tools import (
    BUILT_IN,
    Adjust,
    CropGrid,
    Flip,
    ImageSearch,
    Ocr,
    PixelColour,
    Tools,
)
from speceyes.tools.colour import NAMES, name_of
from speceyes.types import Observation, ToolCall

NOISE = PILImage.fromarray(np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8))
HAS_OCR = all(importlib.util.find_spec(name) for name in ("rapidocr", "onnxruntime"))


def run(tool: Any, images: list[Image] | Image = NOISE, **arguments: Any) -> Observation:
    images = images if isinstance(images, list) else [images]
    return Tools([tool]).run(ToolCall(tool.name, arguments), images)


def error(tool: Any, images: list[Image] | Image = NOISE, **arguments: Any) -> str:
    seen = run(tool, images, **arguments)
    assert seen.error is not None and seen.content == ()
    return seen.error


@pytest.mark.parametrize("tool", [CropGrid(), Flip(), Adjust(), PixelColour()])
def test_every_one_names_an_image_that_is_not_there(tool: Any) -> None:
    given_to = {
        "image_grid_tool": {"rows": 1, "columns": 1},
        "image_flip_tool": {"direction": "vertical"},
        "image_adjust_tool": {"contrast": 2},
        "pixel_colour_tool": {"point_2d": [0, 0]},
    }[tool.name]
    assert error(tool, img_idx=3, **given_to) == "img_idx=3 is not an image; use 0 to 0"
    with pytest.raises(ToolError, match="img_idx=True"):
        tool([NOISE], {"img_idx": True, **given_to})
    assert run(tool, [PILImage.new("L", (9, 9)), NOISE], img_idx=1, **given_to).source == 1


def test_the_names_make_tools_with_names_of_their_own() -> None:
    names = [name for name in BUILT_IN if HAS_OCR or name != "ocr"]
    tools = Tools([name for name in names if name != "python"])
    assert {"image_grid_tool", "image_flip_tool", "pixel_colour_tool"} <= {t.name for t in tools}
    with pytest.raises(ConfigError, match="no tool is named 'paint'; built in are: zoom"):
        Tools(["paint"])


# --- grid ------------------------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 50), st.integers(1, 50))
def test_a_grid_tiles_the_image(rows: int, columns: int, width: int, height: int) -> None:
    image = NOISE.crop((0, 0, width, height))
    seen = run(CropGrid(), image, rows=rows, columns=columns)
    if width < columns or height < rows:
        assert seen.error is not None and "too few" in seen.error
        return
    crops = seen.images
    assert len(crops) == rows * columns and len(seen.content) == 2 * len(crops)
    together = np.concatenate(
        [
            np.concatenate([np.asarray(crop) for crop in crops[row * columns :][:columns]], axis=1)
            for row in range(rows)
        ]
    )
    assert np.array_equal(together, np.asarray(image))
    for axis in (0, 1):
        sides = [crop.size[axis] for crop in crops]
        assert max(sides) - min(sides) <= 1


def test_a_grid_of_a_part() -> None:
    seen = run(CropGrid(), rows=1, columns=2, bbox_2d=[10, 20, 30, 50])
    assert (
        seen.box == (10, 20, 30, 50) and seen.content[2] == "Row 1, column 2, at [20, 20, 30, 50]:"
    )
    assert seen.images[1].tobytes() == NOISE.crop((20, 20, 30, 50)).tobytes()


def test_grids_that_can_not_be() -> None:
    assert "25 crops; at most 16" in error(CropGrid(), rows=5, columns=5)
    assert "at least 1 is needed" in error(CropGrid(), rows=0, columns=5)
    assert "at most 4 are allowed" in error(CropGrid(max_crops=4), rows=2, columns=3)
    assert "columns must be given" in error(CropGrid(), rows=1)
    assert "outside the image" in error(CropGrid(), rows=1, columns=1, bbox_2d=[200, 0, 300, 9])
    with pytest.raises(ToolError, match="rows=True"):
        CropGrid()([NOISE], {"rows": True, "columns": 1})
    with pytest.raises(ConfigError, match="max_crops=0"):
        CropGrid(0)


# --- flip and adjust -------------------------------------------------------------------------


def test_a_flip_moves_pixels_only() -> None:
    pixels = np.asarray(NOISE)
    flipped = run(Flip(), direction="horizontal").images[0]
    assert np.array_equal(np.asarray(flipped), pixels[:, ::-1])
    flipped = run(Flip(), direction="vertical").images[0]
    assert np.array_equal(np.asarray(flipped), pixels[::-1])
    assert "one of these is needed: 'horizontal', 'vertical'" in error(Flip(), direction="left")
    with pytest.raises(ToolError, match="direction=None"):
        Flip()([NOISE], {})


def test_a_factor_of_one_changes_nothing() -> None:
    same = run(Adjust(), brightness=1, contrast=1.0, sharpness=1).images[0]
    assert same.tobytes() == NOISE.tobytes()


def test_factors_do_what_they_say() -> None:
    pixels = np.asarray(NOISE, dtype=float)
    dark = np.asarray(run(Adjust(), brightness=0.5).images[0], dtype=float)
    assert np.abs(dark - pixels / 2).max() <= 1
    flat = np.asarray(run(Adjust(), contrast=0.2).images[0], dtype=float)
    assert flat.std() == pytest.approx(pixels.std() * 0.2, rel=0.05)
    assert np.asarray(run(Adjust(), contrast=0).images[0]).std() == 0
    blurred = np.asarray(run(Adjust(), sharpness=0).images[0], dtype=float)
    sharp = np.asarray(run(Adjust(), sharpness=3).images[0], dtype=float)
    assert blurred.std() < pixels.std() < sharp.std()


def test_a_part_is_adjusted_as_if_it_stood_alone() -> None:
    part = run(Adjust(), contrast=2, bbox_2d=[5, 6, 45, 46])
    alone = run(Adjust(), NOISE.crop((5, 6, 45, 46)), contrast=2)
    assert part.box == (5, 6, 45, 46) and alone.box is None
    assert part.images[0].tobytes() == alone.images[0].tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16", "F"])
def test_any_kind_of_image_can_be_adjusted(mode: str) -> None:
    seen = run(Adjust(), PILImage.new(mode, (8, 8)), brightness=2)
    assert seen.images[0].mode == "RGB"


def test_factors_that_are_none() -> None:
    assert "at least one of brightness, contrast, sharpness" in error(Adjust())
    assert "at most 10" in error(Adjust(), brightness=11)
    assert "at least 0" in error(Adjust(), sharpness=-1)
    with pytest.raises(ToolError, match="brightness=nan"):
        Adjust()([NOISE], {"brightness": float("nan")})
    with pytest.raises(ConfigError, match="max_factor"):
        Adjust(max_factor=float("inf"))


# --- colour ----------------------------------------------------------------------------------


def test_every_named_colour_is_called_by_its_name() -> None:
    assert [name_of(rgb) for rgb in NAMES.values()] == list(NAMES)


@pytest.mark.parametrize("name", ["red", "yellow", "white", "black", "purple", "orange", "cyan"])
def test_css_colours_are_called_by_their_names(name: str) -> None:
    text = run(PixelColour(), PILImage.new("RGB", (9, 9), name), point_2d=[4, 4]).content[0]
    assert f" is {name}: " in str(text)


@given(st.integers(0, 90), st.integers(0, 60))
def test_a_pixel_is_read_where_it_is(x: int, y: int) -> None:
    text = str(run(PixelColour(), point_2d=[x, y]).content[0])
    at = (min(x, 89), min(y, 59))  # the far edge belongs to the last pixel
    assert f"RGB {NOISE.getpixel(at)}" in text and f"({at[0]}, {at[1]})" in text


def test_the_mean_of_a_part() -> None:
    seen = run(PixelColour(), bbox_2d=[10, 10, 40, 30])
    mean = np.asarray(NOISE)[10:30, 10:40].reshape(-1, 3).mean(axis=0)
    assert f"RGB {tuple(round(float(v)) for v in mean)}" in str(seen.content[0])
    assert seen.box == (10, 10, 40, 30)


def test_what_shows_through_lies_on_white() -> None:
    half = PILImage.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert "white" in str(run(PixelColour(), half, point_2d=[1, 1]).content[0])


def test_places_without_a_colour() -> None:
    assert error(PixelColour()) == "give either point_2d or bbox_2d"
    assert "either" in error(PixelColour(), point_2d=[1, 1], bbox_2d=[0, 0, 9, 9])
    assert error(PixelColour(), point_2d=[91, 1]) == "x=91 is outside the image (0 to 90)"
    assert error(PixelColour(), point_2d=[1, -1]) == "y=-1 is outside the image (0 to 60)"
    for bad in ([float("nan"), 1], [True, 1], [10**400, 1], "here"):
        with pytest.raises(ToolError, match="two finite numbers"):
            PixelColour()([NOISE], {"point_2d": bad})


@given(st.integers(20, 400), st.integers(20, 400), st.floats(0.1, 0.9), st.floats(0.1, 0.9))
def test_points_and_boxes_go_through_the_dialects_space(
    width: int, height: int, across: float, down: float
) -> None:
    """A dot is found where a dialect of 0 to 1000 points, whatever the image's size."""
    image = PILImage.new("RGB", (width, height), "white")
    x, y = int(across * width), int(down * height)
    image.putpixel((x, y), (255, 0, 0))
    dialect = HermesDialect()
    assert dialect.profile.scale is not None
    point = [(x + 0.5) / width * dialect.profile.scale, (y + 0.5) / height * dialect.profile.scale]
    located = dialect.locate(
        ToolCall("pixel_colour_tool", {"point_2d": point}), [image], [(28, 28)]
    )
    assert " is red: " in str(Tools("colour").run(located, [image]).content[0])
    box = [v * dialect.profile.scale for v in (0.0, 0.0, 1.0, 1.0)]
    for tool, arguments in ((CropGrid(), {"rows": 1, "columns": 1}), (Adjust(), {"contrast": 1})):
        call = ToolCall(tool.name, {"bbox_2d": box, **arguments})
        seen = Tools([tool]).run(dialect.locate(call, [image], [(28, 28)]), [image])
        assert seen.images[0].size == image.size


# --- search ----------------------------------------------------------------------------------


def test_a_search_gets_words_and_the_part() -> None:
    asked: list[Any] = []

    def search(words: str, image: Image) -> Iterator[Any]:
        asked.append((words, image))
        for at in range(100):
            yield (f"{at}", PILImage.new("RGB", (at + 1, 1)))

    seen = run(ImageSearch(search, max_results=2), query="cup", bbox_2d=[1, 2, 11, 22])
    assert seen.content[0::2] == ("0", "1") and [i.size for i in seen.images] == [(1, 1), (2, 1)]
    (words, part), *_ = asked
    assert words == "cup" and part.tobytes() == NOISE.crop((1, 2, 11, 22)).tobytes()
    part.paste("red", (0, 0, 10, 20))  # a search may draw on what it gets
    assert run(ImageSearch(lambda words, image: [words]), query="x").content == ("x",)


def test_searches_that_find_nothing_or_fail() -> None:
    assert run(ImageSearch(lambda *_: [])).content == ("Nothing was found.",)
    assert "a int; it gives text" in error(ImageSearch(lambda *_: [3]))  # type: ignore[list-item, return-value]

    def broken(words: str, image: Image) -> list[str]:
        raise ConnectionError("no line")

    assert "ConnectionError: no line" in error(ImageSearch(broken))
    with pytest.raises(ConfigError, match="search is a str"):
        ImageSearch("x")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="max_results=0"):
        ImageSearch(lambda *_: [], max_results=0)


def test_a_search_is_kept_only_where_it_is_said_to_be_stateless() -> None:
    asked: list[str] = []

    def search(words: str, image: Image) -> list[str]:
        asked.append(words)
        return [words]

    for stateless, times in ((False, 2), (True, 1)):
        asked.clear()
        tools = Tools([ImageSearch(search, stateless=stateless)])
        for _ in range(2):
            tools.run(ToolCall("image_search_tool", {"query": "a"}), [NOISE])
        assert len(asked) == times


# --- OCR -------------------------------------------------------------------------------------


def test_ocr_without_its_packages_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(ConfigError, match=r'pip install "speceyes\[ocr\]"'):
        Tools("ocr")


needs_ocr = pytest.mark.skipif(not HAS_OCR, reason="the extra 'ocr' is not installed")


def sign() -> Image:
    image = PILImage.new("RGB", (500, 300), "white")
    draw = ImageDraw.Draw(image)
    draw.text((40, 40), "EXIT 42 north", font=ImageFont.load_default(40), fill="black")
    draw.text((250, 200), "Bakery", font=ImageFont.load_default(40), fill="darkred")
    return image


@needs_ocr
def test_ocr_reads_what_is_written_and_where() -> None:
    tools = Tools([Ocr(threads=1)])
    seen = tools.run(ToolCall("ocr_tool", {}), [NOISE, sign()])
    assert seen.content == ("No text was found.",)
    lines = str(tools.run(ToolCall("ocr_tool", {"img_idx": 1}), [NOISE, sign()]).content[0])
    first, second = lines.split("\n")
    assert first.startswith("EXIT 42 north [") and second.startswith("Bakery [")
    left, top, right, bottom = map(int, second.split("[")[1].rstrip("]").split(","))
    assert 235 <= left <= 260 and 190 <= top <= 225 and right > 350 and bottom > 225


@needs_ocr
def test_ocr_of_a_part_tells_places_in_the_whole() -> None:
    ocr = Ocr(threads=1)
    whole = str(run(ocr, sign()).content[0]).split("\n")[1]
    part = str(run(ocr, sign(), bbox_2d=[200, 150, 500, 300]).content[0])
    assert part.startswith("Bakery [")
    for a, b in zip(
        *(text.split("[")[1].rstrip("]").split(",") for text in (whole, part)), strict=True
    ):
        assert abs(int(a) - int(b)) <= 12
    assert "1 more lines" in str(run(Ocr(threads=1, max_lines=1), sign()).content[0])


@needs_ocr
@pytest.mark.parametrize("options", [{"min_confidence": 2}, {"max_lines": 0}, {"threads": 0}])
def test_ocr_that_can_not_work(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Ocr(**options)
