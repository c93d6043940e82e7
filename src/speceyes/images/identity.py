"""Images told apart by their pixels, and boxes carried from one size to another."""

from __future__ import annotations

import hashlib

from speceyes.errors import ImageError
from speceyes.types import Box, Image, ImageRef


def fingerprint(image: Image) -> str:
    """SHA-256 (hex) over mode, size and pixels, and over palette and transparent colour where
    there are any.

    Two images agree only where all of these do; a hash of the pixels alone takes a 2 by 8 image
    for an 8 by 2 one (CVE-2025-46722). For an RGB image it is `ImageRef.of(image).sha256`.

    Example:
        >>> from PIL import Image
        >>> fingerprint(Image.new("RGB", (2, 8))) == fingerprint(Image.new("RGB", (8, 2)))
        False
    """
    digest = ImageRef.of(image).sha256
    colours = image.getpalette("RGBA") if image.palette is not None else None
    clear = image.info.get("transparency")
    if colours is None and clear is None:
        return digest
    return hashlib.sha256(f"{digest}:{colours}:{clear}".encode()).hexdigest()


def map_box(box: Box, from_size: tuple[int, int], to_size: tuple[int, int]) -> Box:
    """A box in pixels of an image, in pixels of the same image at another size; not clamped.

    Args:
        box: left, top, right, bottom in pixels, origin at the top left.
        from_size: (width, height) that the box refers to.
        to_size: (width, height) that it shall refer to.

    Raises:
        ImageError: A side is not positive.

    Example:
        >>> map_box((10, 10, 20, 30), (100, 100), (200, 50))
        (20.0, 5.0, 40.0, 15.0)
    """
    if min(*from_size, *to_size) <= 0:
        raise ImageError(f"sizes {from_size} and {to_size}; every side must be positive")
    across, down = to_size[0] / from_size[0], to_size[1] / from_size[1]
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down
