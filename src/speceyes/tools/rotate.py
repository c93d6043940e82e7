"""Rotate: turn an image, for what is written or lies askew."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from PIL import Image as PILImage

from speceyes.errors import ConfigError, ToolError
from speceyes.tools._places import INDEX, image_at
from speceyes.types import Image, Observation

_PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "angle": {
            "type": "number",
            "description": "Degrees to turn the image by, counter-clockwise.",
        },
        "img_idx": INDEX,
    },
    "required": ["angle"],
}
_QUARTERS = {
    90: PILImage.Transpose.ROTATE_90,
    180: PILImage.Transpose.ROTATE_180,
    270: PILImage.Transpose.ROTATE_270,
}


@dataclass(frozen=True, slots=True)
class Rotate:
    """Turns any earlier image counter-clockwise; nothing is cut off.

    The result is as large as the turned image needs, its corners are white. Quarter turns move
    pixels and don't change them; other angles interpolate (bicubic). DeepEyes' training
    environment has this tool, under this name.

    Args:
        max_pixels: Most pixels of a result; a long narrow image grows a lot when it is turned.

    Raises:
        ConfigError: max_pixels is below 1.

    Example:
        >>> from PIL import Image
        >>> Rotate()([Image.new("RGB", (40, 20))], {"angle": 90}).images[0].size
        (20, 40)
    """

    stateless: ClassVar[bool] = True
    bounded: ClassVar[bool] = True
    reads: ClassVar[Literal["image"]] = "image"

    max_pixels: int = 89_478_485
    name: str = "image_rotate_tool"
    description: str = "Rotates an image counter-clockwise by an angle in degrees."

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise ConfigError(f"max_pixels={self.max_pixels}; it must be at least 1")

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of `angle` and `img_idx`."""
        return _PARAMETERS

    def __call__(self, images: Sequence[Image], arguments: Mapping[str, Any]) -> Observation:
        """The turned image.

        Args:
            images: Every image so far, full resolution.
            arguments: `angle` in degrees, counter-clockwise; `img_idx` (default 0).

        Raises:
            ToolError: The angle is no finite number, the image isn't there, or it would become
                too large.
        """
        index, image = image_at(images, arguments)
        angle = arguments.get("angle")
        if isinstance(angle, bool) or not isinstance(angle, int | float):
            raise ToolError("angle must be a number of degrees")
        if not abs(angle) < math.inf:
            raise ToolError(f"angle={angle} is not finite; give degrees")
        turn = float(angle % 360)
        if turn in _QUARTERS:
            return Observation((image.transpose(_QUARTERS[int(turn)]),), source=index)
        sine, cosine = abs(math.sin(math.radians(turn))), abs(math.cos(math.radians(turn)))
        width = image.width * cosine + image.height * sine
        height = image.width * sine + image.height * cosine
        if width * height > self.max_pixels:
            raise ToolError(
                f"turned by {turn:g} degrees the image would have {width:.0f} x {height:.0f} "
                "pixels, which is too large; zoom in first, or turn by 90, 180 or 270"
            )
        turned = image.convert("RGB").rotate(
            turn, PILImage.Resampling.BICUBIC, expand=True, fillcolor="white"
        )
        return Observation((turned,), source=index)
