"""Smaller views of images, for phases that need not see all of them."""

from __future__ import annotations

import dataclasses
import math

from PIL import Image as PILImage

from speceyes.images.pixel_cache import frozen, views
from speceyes.types import Image, Query

_GAP = 3.0
"""How far a quick first pass may shrink before the last one, as a multiple of the final size: at 3
the result can't be told from one without it (Pillow's `reducing_gap`)."""


def reduced_size(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """(width, height) of the largest image of the same shape with at most `max_pixels` pixels.

    Example:
        >>> reduced_size(4000, 3000, 480_000), reduced_size(30, 20, 480_000)
        ((800, 600), (30, 20))
    """
    if width * height <= max_pixels:
        return width, height
    scale = math.sqrt(max_pixels / (width * height))
    across, down = max(1, int(width * scale)), max(1, int(height * scale))
    # A side that can't get below one pixel leaves more to the other than it may have.
    return min(across, max(1, max_pixels // down)), min(down, max(1, max_pixels // across))


def reduced(query: Query, max_pixels: int | None) -> Query:
    """The query on images of at most `max_pixels` pixels each; itself where none is larger.

    A view is made once for an image that `frozen` gave and kept with it, so that judge and drafter
    share it.

    Args:
        query: The query.
        max_pixels: Most pixels, width times height; None leaves images as they are.
    """
    if max_pixels is None or all(im.width * im.height <= max_pixels for im in query.images):
        return query
    images = tuple(_reduced(image, max_pixels) for image in query.images)
    return dataclasses.replace(query, images=images)


def shrunk(image: Image, size: tuple[int, int]) -> Image:
    """The image in that size, as all smaller views are made."""
    return image.resize(size, PILImage.Resampling.BICUBIC, reducing_gap=_GAP)


def _reduced(image: Image, max_pixels: int) -> Image:
    size = reduced_size(image.width, image.height, max_pixels)
    if size == image.size:
        return image
    kept = views(image)
    view = None if kept is None else kept.get(size)
    if view is None:
        view = frozen(shrunk(image, size), ours=True)
        if kept is not None:
            kept[size] = view
    return view
