"""Images and parts of them that a call is about: the arguments that most tools share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from speceyes.errors import ToolError
from speceyes.types import Image

INDEX: Mapping[str, Any] = {
    "type": "integer",
    "minimum": 0,
    "description": "Which image, 0 being the first; crops count on. Default 0.",
}

BOX: Mapping[str, Any] = {
    "type": "array",
    "items": {"type": "number"},
    "minItems": 4,
    "maxItems": 4,
    "description": "The part to look at: [left, top, right, bottom]. Default: all of it.",
}


def image_at(images: Sequence[Image], arguments: Mapping[str, Any]) -> tuple[int, Image]:
    """The image that `img_idx` names, with its number.

    Raises:
        ToolError: There is no such image.
    """
    index = arguments.get("img_idx", 0)
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(images):
        raise ToolError(f"img_idx={index!r} is not an image; use 0 to {len(images) - 1}")
    return index, images[index]


def region_of(
    image: Image, arguments: Mapping[str, Any], min_side: int = 1
) -> tuple[int, int, int, int]:
    """The part that `bbox_2d` names, in whole pixels within the image; all where it isn't given.

    Args:
        image: The image that the box refers to.
        arguments: The call's.
        min_side: Smallest side, pixels; a smaller box grows around its centre.

    Raises:
        ToolError: The box isn't four finite numbers, or lies outside the image.
    """
    if arguments.get("bbox_2d") is None:
        return 0, 0, image.width, image.height
    return within(image, arguments["bbox_2d"], min_side)


def within(image: Image, box: Any, min_side: int) -> tuple[int, int, int, int]:
    """A box as a call has it, in whole pixels within the image: ordered, clamped, and grown around
    its centre to `min_side` pixels a side where the image is that large.

    Raises:
        ToolError: It isn't four finite numbers, or lies outside the image.
    """
    x0, y0, x1, y1 = _four_numbers(box)
    left, right = _span(x0, x1, image.width, min_side)
    top, bottom = _span(y0, y1, image.height, min_side)
    return left, top, right, bottom


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
