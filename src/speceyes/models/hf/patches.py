"""Pixels of images as a Qwen-VL vision tower takes them: normalized, and cut into patches.

It is what `Qwen2VLImageProcessor` of transformers does to images that are in their size already,
for one image at a time and without its checks, which cost a tiny model more than its own work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import torch

from speceyes.types import Image

_NAMES: Final = ("Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast")


@final
@dataclass(frozen=True, slots=True)
class Patches:
    """The last steps of one image processor.

    Args:
        patch: Pixels a patch is wide and high.
        merge: Patches a vision token is wide and high.
        frames: How often a still image is repeated.
        mean: float32[3, 1, 1], of each colour, 0 to 255.
        std: The same.
    """

    patch: int
    merge: int
    frames: int
    mean: torch.Tensor
    std: torch.Tensor

    @classmethod
    def of(cls, image_processor: Any) -> Patches | None:
        """Those of an image processor; None where it does something else."""
        whole = all(
            getattr(image_processor, f"do_{step}", False) for step in ("rescale", "normalize")
        )
        if type(image_processor).__name__ not in _NAMES or not whole:
            return None
        scale = float(image_processor.rescale_factor)
        mean, std = (
            torch.tensor(values, dtype=torch.float32)[:, None, None] * (1.0 / scale)
            for values in (image_processor.image_mean, image_processor.image_std)
        )
        return cls(
            int(image_processor.patch_size),
            int(image_processor.merge_size),
            int(image_processor.temporal_patch_size),
            mean,
            std,
        )

    def __call__(self, images: Sequence[Image]) -> tuple[torch.Tensor, torch.Tensor]:
        """Patches of RGB images whose sides are multiples of patch times merge.

        Returns:
            float32[patches of all images, 3 * frames * patch * patch], and int64[images, 3], the
            (frames, patches down, patches across) of each: 1 frame.
        """
        found = [self._of(np.array(image)) for image in images]
        step = self.patch
        grids = [(1, image.height // step, image.width // step) for image in images]
        return torch.cat(found), torch.tensor(grids)

    def _of(self, pixels: Any) -> torch.Tensor:
        values = (torch.from_numpy(pixels).permute(2, 0, 1).float() - self.mean) / self.std
        colours, height, width = values.shape
        side = self.merge * self.patch
        cut = (
            colours,
            height // side,
            self.merge,
            self.patch,
            width // side,
            self.merge,
            self.patch,
        )
        # [down, across, down in a token, across in it, colour, row, column]
        patches = values.reshape(cut).permute(1, 4, 2, 5, 0, 3, 6)
        repeated = patches.unsqueeze(5).expand(
            *patches.shape[:5], self.frames, self.patch, self.patch
        )
        return repeated.reshape(height * width // self.patch**2, -1)
