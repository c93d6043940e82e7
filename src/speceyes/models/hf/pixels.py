"""Images as a Hugging Face model sees them: its colours and its size.

The Qwen-VL families are resized as their authors do it, by the rule of qwen-vl-utils, under
the checkpoint's own limits, and the processor is told not to resize again. Of that package
only the arithmetic is used: none of its functions that open files or URLs is ever called,
and nothing but a PIL image gets here. Other families are resized by their own processor.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as PILImage

from speceyes.errors import ImageError
from speceyes.images.pixel_cache import strips
from speceyes.models._rgb import to_rgb
from speceyes.types import Image

logger = logging.getLogger(__name__)

_SIZES_KEPT = 4096


class Pixels(Protocol):
    """Preparation of one processor's images."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Options that the processor needs because of what `ready` did."""
        ...

    def ready(self, image: Image) -> Image:
        """The image in RGB, as the processor shall get it."""
        ...

    def size(self, image: Image) -> tuple[int, int]:
        """(width, height) in pixels as the model sees the image."""
        ...


def pixels_of(image_processor: Any) -> Pixels:
    """The way of a checkpoint's image processor.

    Args:
        image_processor: The `image_processor` of a Hugging Face processor.
    """
    family = type(image_processor).__name__
    if family.startswith("Qwen2VLImageProcessor") and getattr(image_processor, "do_resize", True):
        try:
            rule = importlib.import_module("qwen_vl_utils").smart_resize
        except ImportError:
            logger.info("qwen-vl-utils is not installed: the processor does the resizing")
        else:
            return QwenPixels(
                rule=rule,
                factor=image_processor.patch_size * image_processor.merge_size,
                min_pixels=image_processor.size["shortest_edge"],
                max_pixels=image_processor.size["longest_edge"],
                resample=image_processor.resample,
            )
    return ProcessorPixels(image_processor)


def _channels(pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
    """uint8[1, colours, height, width] of uint8[height, width, colours], not copied."""
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


@final
@dataclass(frozen=True, slots=True)
class QwenPixels:
    """Qwen2-VL, Qwen2.5-VL, Qwen3-VL and their descendants.

    Args:
        rule: `smart_resize(height, width, factor=, min_pixels=, max_pixels=)` of qwen-vl-utils.
        factor: Pixels a merged vision token is wide and high (patch size times merge size).
        min_pixels: Fewest pixels after resizing, from the checkpoint.
        max_pixels: Most pixels after resizing, from the checkpoint.
        resample: The checkpoint's PIL resampling filter; None for PIL's default, bicubic.
    """

    rule: Any
    factor: int
    min_pixels: int
    max_pixels: int
    resample: int | None = None

    @property
    def options(self) -> Mapping[str, Any]:
        """The processor must not resize again."""
        return {"do_resize": False}

    def ready(self, image: Image) -> Image:
        """The image in RGB, resized by Pillow."""
        rgb = to_rgb(image)
        size = self.size(rgb)
        resample = None if self.resample is None else PILImage.Resampling(int(self.resample))
        return rgb if rgb.size == size else rgb.resize(size, resample)

    def quick(self, image: Image) -> Image:
        """Result of `ready`, faster; where much is shrunk, some values differ by a few levels.

        torch resizes bytes by Pillow's algorithm with the processor's wide instructions: eight
        to ten times as fast on a photo of a million pixels. On scenes 4 values in 10,000 differ
        by one level; on noise, at some sizes, 1 in 5 by up to four. It is how
        transformers' own torchvision processors resize. Where little is shrunk, Pillow is fast
        enough.
        """
        if not self.shrinks(image):
            return self.ready(image)
        width, height = self.size(image)
        # Rows are shortened strip by strip and columns then, as torch does it in one piece, so that
        # the result doesn't depend on where strips end.
        short = [self._scaled(_channels(strip), len(strip), width) for strip in strips(image)]
        out = self._scaled(torch.cat(short, dim=2) if len(short) > 1 else short[0], height, width)
        return PILImage.fromarray(out[0, :3].permute(1, 2, 0).contiguous().numpy())

    def _scaled(self, values: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """uint8[1, colours, height, width] of another size."""
        return torch.nn.functional.interpolate(
            values, size=(height, width), mode=self._filter, antialias=True, align_corners=False
        )

    def shrinks(self, image: Image) -> bool:
        """True where `quick` shrinks an image by its own way, to half of each side or less."""
        width, height = self.size(image)
        known = self._filter is not None and image.mode == "RGB"
        return known and image.width >= 2 * width and image.height >= 2 * height

    @property
    def _filter(self) -> str | None:
        """Torch's name of the filter; None where it has none."""
        names = {None: "bicubic", 3: "bicubic", 2: "bilinear"}
        return names.get(None if self.resample is None else int(self.resample))

    def size(self, image: Image) -> tuple[int, int]:
        """(width, height) after resizing, multiples of `factor`.

        Raises:
            ImageError: The image is more than 200 times as long as wide, or has no pixels.
        """
        if min(image.size) < 1:
            raise ImageError(f"the image is {image.width} x {image.height} pixels: it is empty")
        try:
            height, width = self.rule(
                image.height,
                image.width,
                factor=self.factor,
                min_pixels=self.min_pixels,
                max_pixels=self.max_pixels,
            )
        except ValueError as exc:
            raise ImageError(
                f"an image of {image.width} x {image.height} pixels can't be seen by this model "
                f"({exc}): crop it to less than 200 times as long as wide"
            ) from exc
        # The rule rounds the short side of a very thin image down to nothing where the budget
        # of pixels is small; one row of tokens is the least that there is.
        return max(width, self.factor), max(height, self.factor)


@final
@dataclass(frozen=True, slots=True)
class ProcessorPixels:
    """Any other family: its own processor resizes.

    Args:
        image_processor: Called on one image to find out the size it gives.
    """

    image_processor: Any
    _sizes: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict, repr=False)

    @property
    def options(self) -> Mapping[str, Any]:
        """None: the processor works as it always does."""
        return {}

    def ready(self, image: Image) -> Image:
        """The image in RGB, in its own size."""
        return to_rgb(image)

    def size(self, image: Image) -> tuple[int, int]:
        """(width, height) of the pixels that the processor hands to the model.

        Where it hands over tiles, or something else that one size doesn't describe, it is the
        image's own size.
        """
        if image.size not in self._sizes:
            if len(self._sizes) >= _SIZES_KEPT:
                self._sizes.clear()
            self._sizes[image.size] = self._measured(image)
        return self._sizes[image.size]

    def _measured(self, image: Image) -> tuple[int, int]:
        out = self.image_processor([to_rgb(image)], return_tensors="pt")
        grid = out.get("image_grid_thw")
        patch = getattr(self.image_processor, "patch_size", None)
        if grid is not None and isinstance(patch, int):
            return int(grid[0][2]) * patch, int(grid[0][1]) * patch
        values = out.get("pixel_values")
        if values is not None and values.ndim == 4 and values.shape[0] == 1:
            return int(values.shape[3]), int(values.shape[2])
        return image.size
