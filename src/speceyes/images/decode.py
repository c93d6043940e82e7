"""Encoded files to RGB: limits are checked on the header, before a pixel is decoded.

What Pillow says about a broken file goes to the log at DEBUG and never into an error: such texts
have carried heap addresses to clients (CVE-2026-22778).
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from typing import Final

from PIL import Image as PILImage
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from speceyes.errors import ImageError
from speceyes.images.deferred import at_a_scale, deferred, smaller, whole_size
from speceyes.images.headers import format_of, gif_header, tile_size
from speceyes.images.limits import ImageLimits
from speceyes.images.rgb import upright_rgb
from speceyes.images.slow import slow
from speceyes.images.tiff_walk import slow_tiff
from speceyes.types import Image

logger = logging.getLogger(__name__)

_COLOURS: Final = frozenset("1 L LA P PA RGB RGBA RGBX CMYK YCbCr I;16 I F".split())
# Pillow's classes are called directly: Image.open holds its own, process-wide opinion on sizes,
# which it gives as a warning. A JPEG that carries further pictures (MPO) is read as its first.
_OPENERS: dict[str, Callable[[io.BytesIO], ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
}


def check_size(size: tuple[int, int], what: str, limits: ImageLimits) -> None:
    """Lets (width, height) within the limits pass.

    Raises:
        ImageError: A side is too short, or there are too many pixels.
    """
    width, height = size
    if min(size) < limits.min_side:
        raise ImageError(
            f"{what} is {width} x {height} pixels; each side needs min_side={limits.min_side}"
        )
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{what} is {width} x {height} pixels, more than max_pixels={limits.max_pixels}; "
            "shrink it, or raise the limit with ImageLimits(max_pixels=...)"
        )


def decode(data: bytes, what: str, limits: ImageLimits, views: Sequence[int] = ()) -> Image:
    """The image in an encoded file: its header is read first, limits next, pixels last.

    Args:
        data: The file's bytes.
        what: Names the image in errors.
        limits: Limits of the image.
        views: Most pixels of smaller views that are looked at first; see `load_image`.

    Raises:
        ImageError: It can't be read, or is outside the limits.
    """
    image = opened(data, what, limits)
    size, seen = seen_small(image, what, views)
    if seen:
        return deferred(size, seen, lambda: _decoded(opened(data, what, limits), what, limits))
    return _decoded(image, what, limits)


def _decoded(image: Image, what: str, limits: ImageLimits) -> Image:
    check_size(image.size, what, limits)
    return _upright(image, what, ours=True)


def seen_small(image: Image, what: str, most: Sequence[int]) -> tuple[tuple[int, int], list[Image]]:
    """(width, height) of an opened file, upright, and its views; none where it has to be decoded in
    full for them, and then it is left as it was.

    Args:
        image: The opened file; a JPEG that has views is used up.
        what: Names the image in errors.
        most: Most pixels of each view; empty for no views.

    Raises:
        ImageError: It can't be decoded.
    """
    if not most or not isinstance(image, JpegImageFile):
        return image.size, []
    size = whole_size(image)
    if not at_a_scale(image, most):
        return size, []
    return size, smaller(_upright(image, what, ours=True), size, most)


def opened(data: bytes, what: str, limits: ImageLimits) -> Image:
    """An encoded file within the limits, none of its pixels decoded yet: `upright` does that.

    Args:
        data: The file's bytes.
        what: Names the image in errors.
        limits: Limits of the image.

    Raises:
        ImageError: It can't be read, or is outside the limits.
    """
    kind = format_of(data)
    if kind not in limits.formats:
        raise ImageError(
            f"{what} is of format {kind}; allowed are: {', '.join(limits.formats)}. Convert it, "
            "or decode it yourself and pass the PIL image"
        )
    why, frames = slow_tiff(data, limits.max_frames) if kind == "TIFF" else (slow(data, kind), 1)
    if why is not None:
        raise ImageError(f"{what} {why}, so that it is not decoded; save the image again")
    _check_frames(frames, what, limits)
    if kind == "GIF":  # Pillow would count its frames by reading all of them
        size, frames = gif_header(data, limits.max_frames)
        if frames == 0:
            raise ImageError(f"{what} is a GIF without a frame; save the image again")
        _check_frames(frames, what, limits)
        check_size(size, what, limits)
    try:
        image = _OPENERS[kind](io.BytesIO(data))
        if kind in ("PNG", "WEBP"):
            frames = int(getattr(image, "n_frames", 1))
        tile = tile_size(image) if isinstance(image, TiffImageFile) else (1, 1)
    except PILImage.DecompressionBombError:
        raise ImageError(
            f"{what} is larger than Pillow allows in this process; shrink it, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS as well as ImageLimits(max_pixels=...)"
        ) from None
    except Exception:  # whatever a decoder trips over in a broken file
        logger.debug("%s: broken header", what, exc_info=True)
        raise ImageError(f"{what} has a broken {kind} header; save the image again") from None
    _check_frames(frames, what, limits)
    check_size(image.size, what, limits)
    check_size((max(tile[0], image.width), max(tile[1], image.height)), what, limits)
    return image


def _check_frames(frames: int, what: str, limits: ImageLimits) -> None:
    if frames > limits.max_frames:
        raise ImageError(
            f"{what} has more than max_frames={limits.max_frames} frames; pass one frame of it"
        )


def upright(image: Image, what: str, limits: ImageLimits) -> Image:
    """An opened image as RGB, decoded, its EXIF orientation applied.

    Raises:
        ImageError: It can't be decoded, or is outside the limits.
    """
    check_size(image.size, what, limits)
    return _upright(image, what)


def _upright(image: Image, what: str, *, ours: bool = False) -> Image:
    try:
        return upright_rgb(image, what, ours=ours)
    except ImageError:
        raise
    except Exception:
        logger.debug("%s can't be decoded", what, exc_info=True)
        why = "it is truncated, damaged or closed"
        if image.mode not in _COLOURS:
            why += f", or of a mode ({image.mode}) without RGB colours"
        raise ImageError(f"{what} can't be decoded: {why}; save it again as PNG or JPEG") from None
