"""Adjust: brightness, contrast and sharpness, for what is dark, flat or blurred."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from PIL import ImageEnhance

from speceyes.errors import ConfigError, ToolError
from speceyes.tools._places import BOX, INDEX, image_at, region_of
from speceyes.types import Image, Observation

_STEPS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "sharpness": ImageEnhance.Sharpness,
}


@dataclass(frozen=True, slots=True)
class Adjust:
    """Changes an image's brightness, then contrast, then sharpness, each by a factor.

    1 changes nothing, 0 gives a black, an evenly grey or a blurred image, 2 twice the effect.
    The result is RGB.

    Args:
        max_factor: Largest factor.

    Raises:
        ConfigError: max_factor isn't a finite number of at least 1.

    Example:
        >>> from PIL import Image
        >>> dark = Image.new("RGB", (8, 8), (10, 20, 30))
        >>> Adjust()([dark], {"brightness": 2}).images[0].getpixel((0, 0))
        (20, 40, 60)
    """

    stateless: ClassVar[bool] = True
    bounded: ClassVar[bool] = True
    reads: ClassVar[Literal["image"]] = "image"

    max_factor: float = 10.0
    name: str = "image_adjust_tool"
    description: str = "Changes an image's brightness, contrast or sharpness by factors."

    def __post_init__(self) -> None:
        if not 1 <= self.max_factor < math.inf:
            raise ConfigError(f"max_factor={self.max_factor}; a number of at least 1 is needed")

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of `brightness`, `contrast`, `sharpness`, `bbox_2d` and `img_idx`."""
        factors = {
            key: {
                "type": "number",
                "minimum": 0,
                "maximum": self.max_factor,
                "description": f"Factor of the {key}: 1 leaves it as it is, 2 doubles it.",
            }
            for key in _STEPS
        }
        return {
            "type": "object",
            "properties": {**factors, "bbox_2d": BOX, "img_idx": INDEX},
            "required": [],
        }

    def __call__(self, images: Sequence[Image], arguments: Mapping[str, Any]) -> Observation:
        """The changed image, or the part of it.

        Args:
            images: Every image so far, full resolution.
            arguments: At least one of `brightness`, `contrast` and `sharpness`, 0 to
                `max_factor`; `bbox_2d` in pixels of the image; `img_idx` (default 0).

        Raises:
            ToolError: No factor is given or one is out of range, the box lies outside the
                image, or the image isn't there.
        """
        index, image = image_at(images, arguments)
        given = {key: arguments[key] for key in _STEPS if arguments.get(key) is not None}
        if not given:
            raise ToolError(f"give at least one of {', '.join(_STEPS)}")
        for key, factor in given.items():
            number = isinstance(factor, int | float) and not isinstance(factor, bool)
            if not (number and 0 <= factor <= self.max_factor):
                raise ToolError(
                    f"{key}={factor!r}; a number from 0 to {self.max_factor:g} is needed"
                )
        box = region_of(image, arguments)
        changed = image.crop(box).convert("RGB")
        for key, factor in given.items():  # in the order of _STEPS, whatever the model's
            changed = _STEPS[key](changed).enhance(float(factor))
        whole = box == (0, 0, image.width, image.height)
        return Observation((changed,), box=None if whole else box, source=index)
