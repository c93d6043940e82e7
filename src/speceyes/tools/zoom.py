"""Zoom: crop a box out of an image at full resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from speceyes.errors import ConfigError
from speceyes.tools._places import BOX, INDEX, image_at, within
from speceyes.types import Image, Observation

_PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "bbox_2d": {**BOX, "description": "The box to look at: [left, top, right, bottom]."},
        "label": {"type": "string", "description": "What is in the box."},
        "img_idx": INDEX,
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
        index, image = image_at(images, arguments)
        box = within(image, arguments.get("bbox_2d"), self.min_side)
        return Observation((image.crop(box),), box=box, source=index)
