"""Zoom: crop a box out of an image at full resolution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from speceyes.errors import ConfigError, ToolError
from speceyes.types import Image, Observation

_PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "bbox_2d": {
            "type": "array",
            "items": {"type": "number"},
            "minItems": 4,
            "maxItems": 4,
            "description": "The box to look at: [left, top, right, bottom].",
        },
        "label": {"type": "string", "description": "What is in the box."},
        "img_idx": {
            "type": "integer",
            "minimum": 0,
            "description": "Which image, 0 being the first; crops count on. Default 0.",
        },
    },
    "required": ["bbox_2d"],
}


@dataclass(frozen=True, slots=True)
class Zoom:
    """Crops a box out of any earlier image, at that image's full resolution.

    The box is put in order, clamped to the image and grown, around its centre and within the
    image, to at least `min_side` pixels a side.

    Args:
        min_side: Smallest side of a crop, pixels of the image that is cropped; DeepEyes asks
            for 28, one merged vision token.

    Raises:
        ConfigError: min_side is below 1.

    Example:
        >>> from PIL import Image
        >>> Zoom()([Image.new("RGB", (200, 100))], {"bbox_2d": [190, 50, 260, 52]}).box
        (172, 37, 200, 65)
    """

    stateless: ClassVar[bool] = True
    kept: ClassVar[bool] = False
    bounded: ClassVar[bool] = True
    reads: ClassVar[Literal["image"]] = "image"

    min_side: int = 28
    name: str = "image_zoom_in_tool"
    description: str = "Zooms in on a part of an image by cropping it out at full resolution."

    def __post_init__(self) -> None:
        if self.min_side < 1:
            raise ConfigError(f"min_side={self.min_side}; it must be at least 1 pixel")

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of `bbox_2d`, `label` and `img_idx`."""
        return _PARAMETERS

    def __call__(self, images: Sequence[Image], arguments: Mapping[str, Any]) -> Observation:
        """The crop, with its place in the source.

        Args:
            images: Every image so far, full resolution.
            arguments: `bbox_2d` in pixels of the image it refers to, `img_idx` (default 0).

        Raises:
            ToolError: The box lies outside the image, isn't four finite numbers, or names an
                image that isn't there.
        """
        index = arguments.get("img_idx", 0)
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(images):
            raise ToolError(f"img_idx={index!r} is not an image; use 0 to {len(images) - 1}")
        image = images[index]
        x0, y0, x1, y1 = _four_numbers(arguments.get("bbox_2d"))
        left, right = _span(x0, x1, image.width, self.min_side)
        top, bottom = _span(y0, y1, image.height, self.min_side)
        box = (left, top, right, bottom)
        return Observation((image.crop(box),), box=box, source=index)


def _four_numbers(box: Any) -> list[float]:
    """The box as floats. NaN would pass every comparison in `_span`, infinity has no centre."""
    try:
        if isinstance(box, list | tuple) and len(box) == 4:
            numbers = [float(v) for v in box if isinstance(v, int | float)]
            if len(numbers) == 4 and all(math.isfinite(v) for v in numbers):
                return numbers
    except OverflowError:  # a whole number of hundreds of digits
        pass
    raise ToolError("bbox_2d must be four finite numbers [left, top, right, bottom]")


def _span(a: float, b: float, size: int, min_side: int) -> tuple[int, int]:
    """One side of the box: ordered, clamped to [0, size], at least min(min_side, size) long."""
    low, high = min(a, b), max(a, b)
    if not (high > 0 and low < size):
        raise ToolError(f"the box spans {low:.0f} to {high:.0f}, outside the image (0 to {size})")
    start, end = round(max(low, 0)), round(min(high, size))
    need = min(min_side, size)
    if end - start < need:
        start = min(max(round((low + high) / 2 - need / 2), 0), size - need)
        end = start + need
    return start, end
