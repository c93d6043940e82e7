"""Images and parts of them that a call is about: the arguments that most tools share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from speceyes.errors import ToolError
from speceyes.tools.zoom import _four_numbers, _span
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
    x0, y0, x1, y1 = _four_numbers(arguments["bbox_2d"])
    left, right = _span(x0, x1, image.width, min_side)
    top, bottom = _span(y0, y1, image.height, min_side)
    return left, top, right, bottom
