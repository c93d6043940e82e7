"""Pixel colour: what colour a point has, or a part of an image has on average."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from PIL import Image as PILImage
from PIL import ImageStat

from speceyes.errors import ToolError
from speceyes.tools._places import BOX, INDEX, image_at, region_of
from speceyes.types import Image, Observation

NAMES: Mapping[str, tuple[int, int, int]] = {
    "black": (0, 0, 0),
    "dark grey": (64, 64, 64),
    "grey": (128, 128, 128),
    "light grey": (200, 200, 200),
    "white": (255, 255, 255),
    "red": (220, 20, 20),
    "dark red": (120, 10, 10),
    "pink": (255, 160, 190),
    "orange": (255, 140, 0),
    "brown": (120, 70, 30),
    "beige": (225, 205, 165),
    "yellow": (250, 230, 30),
    "olive": (115, 115, 20),
    "green": (20, 150, 40),
    "light green": (130, 230, 130),
    "dark green": (10, 75, 25),
    "cyan": (30, 220, 230),
    "teal": (0, 120, 120),
    "blue": (30, 60, 220),
    "light blue": (130, 185, 245),
    "dark blue": (10, 20, 100),
    "purple": (125, 40, 150),
    "magenta": (235, 30, 200),
}
"""The everyday names that a colour is given, by the nearest of these in CIE Lab."""

_PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "point_2d": {
            "type": "array",
            "items": {"type": "number"},
            "minItems": 2,
            "maxItems": 2,
            "description": "The point to look at: [x, y].",
        },
        "bbox_2d": {**BOX, "description": "Or the part: [left, top, right, bottom]."},
        "img_idx": INDEX,
    },
    "required": [],
}


@dataclass(frozen=True, slots=True)
class PixelColour:
    """Tells the colour of a pixel, or the mean colour of a box: its values and its name.

    What shows through is taken to lie on white.

    Example:
        >>> from PIL import Image
        >>> sky = Image.new("RGB", (50, 40), (40, 70, 210))
        >>> PixelColour()([sky], {"point_2d": [10, 10]}).content
        ('The pixel at (10, 10) is blue: RGB (40, 70, 210), #2846d2.',)
    """

    stateless: ClassVar[bool] = True
    bounded: ClassVar[bool] = True
    reads: ClassVar[Literal["image"]] = "image"

    name: str = "pixel_colour_tool"
    description: str = "Measures the colour at a point, or the mean colour of a part of an image."

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of `point_2d`, `bbox_2d` and `img_idx`."""
        return _PARAMETERS

    def __call__(self, images: Sequence[Image], arguments: Mapping[str, Any]) -> Observation:
        """The colour in words.

        Args:
            images: Every image so far, full resolution.
            arguments: Either `point_2d` or `bbox_2d`, in pixels of the image; `img_idx`
                (default 0).

        Raises:
            ToolError: Neither or both are given, they lie outside the image, or the image isn't
                there.
        """
        index, image = image_at(images, arguments)
        point, box = arguments.get("point_2d"), arguments.get("bbox_2d")
        if (point is None) == (box is None):
            raise ToolError("give either point_2d or bbox_2d")
        if point is not None:
            x, y = _pixel(point, image)
            place, region = f"The pixel at ({x}, {y}) is", (x, y, x + 1, y + 1)
        else:
            region = region_of(image, arguments)
            place = f"The part {list(region)} is on average"
        red, green, blue = _mean(image.crop(region))
        text = f"{place} {name_of((red, green, blue))}: RGB ({red}, {green}, {blue}), "
        return Observation(
            (text + f"#{red:02x}{green:02x}{blue:02x}.",),
            box=None if point is not None else region,
            source=index,
        )


def name_of(rgb: tuple[int, int, int]) -> str:
    """The everyday name of a colour: the nearest of `NAMES` in CIE Lab (CIE 1976 distance).

    Example:
        >>> name_of((250, 10, 10)), name_of((127, 127, 127))
        ('red', 'grey')
    """
    at = _lab(rgb)
    return min(NAMES, key=lambda name: math.dist(at, _lab(NAMES[name])))


def _lab(rgb: tuple[int, int, int]) -> tuple[float, float, float]:
    """CIE Lab of an sRGB colour (0 to 255), under D65, by IEC 61966-2-1 and CIE 15."""
    linear = [
        v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in rgb)
    ]
    weights = (
        (0.4124 / 0.95047, 0.3576 / 0.95047, 0.1805 / 0.95047),
        (0.2126, 0.7152, 0.0722),
        (0.0193 / 1.08883, 0.1192 / 1.08883, 0.9505 / 1.08883),
    )
    x, y, z = (
        t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29
        for t in (sum(w * v for w, v in zip(row, linear, strict=True)) for row in weights)
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def _pixel(point: Any, image: Image) -> tuple[int, int]:
    """The pixel that a point lies in; its right and lower edges count as inside."""
    numbers = [
        float(v)
        for v in (point if isinstance(point, list | tuple) else ())
        if isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9
    ]
    if len(numbers) != 2:
        raise ToolError("point_2d must be two finite numbers [x, y]")
    for at, size, axis in zip(numbers, image.size, "xy", strict=True):
        if not 0 <= at <= size:
            raise ToolError(f"{axis}={at:g} is outside the image (0 to {size})")
    x, y = (min(int(at), size - 1) for at, size in zip(numbers, image.size, strict=True))
    return x, y


def _mean(part: Image) -> tuple[int, int, int]:
    if part.has_transparency_data:
        over = part.convert("RGBA")
        part = PILImage.alpha_composite(PILImage.new("RGBA", over.size, "white"), over)
    red, green, blue = (round(v) for v in ImageStat.Stat(part.convert("RGB")).mean)
    return red, green, blue
