"""Flip: an image mirrored, for what is seen in a mirror or through a pane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from PIL import Image as PILImage

from speceyes.errors import ToolError
from speceyes.tools._places import INDEX, image_at
from speceyes.types import Image, Observation

_WAYS = {
    "horizontal": PILImage.Transpose.FLIP_LEFT_RIGHT,
    "vertical": PILImage.Transpose.FLIP_TOP_BOTTOM,
}
_PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "direction": {
            "type": "string",
            "enum": list(_WAYS),
            "description": '"horizontal" swaps left and right, "vertical" top and bottom.',
        },
        "img_idx": INDEX,
    },
    "required": ["direction"],
}


@dataclass(frozen=True, slots=True)
class Flip:
    """Mirrors any earlier image; pixels are moved, not changed.

    Example:
        >>> from PIL import Image
        >>> image = Image.new("L", (2, 1))
        >>> image.putpixel((0, 0), 255)
        >>> Flip()([image], {"direction": "horizontal"}).images[0].getpixel((1, 0))
        255
    """

    stateless: ClassVar[bool] = True
    bounded: ClassVar[bool] = True
    reads: ClassVar[Literal["image"]] = "image"

    name: str = "image_flip_tool"
    description: str = "Mirrors an image."

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of `direction` and `img_idx`."""
        return _PARAMETERS

    def __call__(self, images: Sequence[Image], arguments: Mapping[str, Any]) -> Observation:
        """The mirrored image.

        Args:
            images: Every image so far, full resolution.
            arguments: `direction`, "horizontal" or "vertical"; `img_idx` (default 0).

        Raises:
            ToolError: The direction is another one, or the image isn't there.
        """
        index, image = image_at(images, arguments)
        way = arguments.get("direction")
        if not isinstance(way, str) or way not in _WAYS:
            raise ToolError(f"direction={way!r}; one of these is needed: {', '.join(_WAYS)}")
        return Observation((image.transpose(_WAYS[way]),), source=index)
