"""Safe loading of images: limits are checked on the header, before a pixel is decoded.

Every way in ends in a plain RGB image that stands upright (EXIF orientation applied), with
no file behind it. What Pillow says about a broken file goes to the log at DEBUG and never
into an error: such texts have carried heap addresses to clients (CVE-2026-22778).
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from speceyes._headers import format_of, gif_header, tiff_pages, tile_size
from speceyes._pixels import to_uint8, upright_rgb
from speceyes._sources import check_bytes, read_data_url, read_file, short
from speceyes.errors import ConfigError, ImageError
from speceyes.types import Box, Image, ImageRef

logger = logging.getLogger(__name__)

ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | Image | npt.NDArray[Any]"
)

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


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image may be, checked before it is decoded.

    Args:
        max_bytes: Most bytes of an encoded image.
        max_pixels: Most pixels, width times height. The default is Pillow's own bound, a quarter
            of a GiB of RGB; above it Pillow may warn when a tool crops the image.
        max_frames: Most frames of an animation or pages of a TIFF; the first is what is loaded.
        min_side: Shortest side in pixels. Image processors take an axis of 1 or 3 for colours.
        formats: Formats that may be read, some of "PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF".

    Raises:
        ConfigError: A limit is below 1, or a format isn't one of these.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 89_478_485
    max_frames: int = 1000
    min_side: int = 4
    formats: tuple[str, ...] = tuple(_OPENERS)

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_frames", "min_side"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name}={value!r}; it must be a whole number of at least 1")
        allowed = ", ".join(_OPENERS)
        if not self.formats:
            raise ConfigError(f"formats is empty; pass a tuple with some of: {allowed}")
        for name in self.formats:
            if name not in _OPENERS:
                raise ConfigError(
                    f"formats holds {name!r}; there are: {allowed}. Decode others yourself and "
                    "pass the PIL image"
                )
        object.__setattr__(self, "formats", tuple(self.formats))

    def within(self, other: ImageLimits) -> ImageLimits:
        """The stricter of both, in everything.

        Raises:
            ConfigError: No format is allowed by both.
        """
        return ImageLimits(
            min(self.max_bytes, other.max_bytes),
            min(self.max_pixels, other.max_pixels),
            min(self.max_frames, other.max_frames),
            max(self.min_side, other.min_side),
            tuple(name for name in self.formats if name in other.formats),
        )


DEFAULT_LIMITS = ImageLimits()


def load_image(
    source: ImageSource,
    *,
    limits: ImageLimits = DEFAULT_LIMITS,
    allow_urls: bool = False,
    allow_hosts: Set[str] = frozenset(),
    url_timeout_s: float = 10.0,
) -> Image:
    """The image as RGB, upright, decoded.

    Alpha is laid on white. 16-bit greys are scaled to 8 bits. Of an animation the first frame is
    taken; of a PIL image the frame it stands on. A PIL image that is plain RGB already is
    returned as it is, not copied.

    Args:
        source: A path; encoded bytes; a data URL; a PIL image; an array [H, W], [H, W, 1],
            [H, W, 3] or [H, W, 4] of uint8, uint16, bool, or floats in [0, 1]; an http(s) URL
            where `allow_urls` is given.
        limits: What is allowed.
        allow_urls: Whether http(s) URLs may be fetched. Hosts in private networks are refused.
        allow_hosts: Names of hosts that may be fetched from although their address is private.
        url_timeout_s: Seconds for the whole fetch.

    Raises:
        ImageError: It can't be read, or is outside the limits.

    Example:
        >>> import numpy as np
        >>> load_image(np.zeros((48, 64, 3), dtype=np.uint8)).size
        (64, 48)
    """
    if isinstance(source, PILImage.Image):
        return _finish(source, f"the PIL image of mode {source.mode}", limits)
    if isinstance(source, np.ndarray):
        return _from_array(source, limits)
    if isinstance(source, bytes | bytearray | memoryview):
        what = f"the image given as {type(source).__name__}"
        check_bytes(memoryview(source).nbytes, what, limits.max_bytes)
        return _decode(bytes(source), what, limits)
    if isinstance(source, str) and source[:5].lower() == "data:":
        return _decode(read_data_url(source, limits.max_bytes), "the data URL", limits)
    if isinstance(source, str) and (scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", source)):
        if scheme[1].lower() not in ("http", "https"):
            raise ImageError(f"{scheme[1]}:// URLs are not read; pass a path, or an http(s) URL")
        if not allow_urls:
            raise ImageError(
                f"{short(source)!r} is a URL, and URLs are not fetched unless asked for: "
                "pass allow_urls=True, or a file"
            )
        from speceyes._fetch import fetch, shown

        data = fetch(
            source, max_bytes=limits.max_bytes, timeout_s=url_timeout_s, allow_hosts=allow_hosts
        )
        return _decode(data, shown(source), limits)
    if isinstance(source, str | os.PathLike):
        return _decode(read_file(source, limits.max_bytes), short(source), limits)
    raise ImageError(
        f"an image can't be loaded from a {type(source).__name__}; pass a path, bytes, a data "
        "URL, a PIL image or a numpy array"
    )


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


def _check_size(size: tuple[int, int], what: str, limits: ImageLimits) -> None:
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


def _decode(data: bytes, what: str, limits: ImageLimits) -> Image:
    """Header first, limits next, pixels last."""
    kind = format_of(data)
    if kind not in limits.formats:
        raise ImageError(
            f"{what} is of format {kind}; allowed are: {', '.join(limits.formats)}. Convert it, "
            "or decode it yourself and pass the PIL image"
        )
    if kind == "GIF":  # Pillow would count its frames by reading all of them
        size, frames = gif_header(data, limits.max_frames)
        if frames == 0:
            raise ImageError(f"{what} is a GIF without a frame; save the image again")
        _check_frames(frames, what, limits)
        _check_size(size, what, limits)
    try:
        image = _OPENERS[kind](io.BytesIO(data))
        frames = int(getattr(image, "n_frames", 1)) if kind in ("PNG", "WEBP") else 1
        tile = (1, 1)
        if isinstance(image, TiffImageFile):
            frames, tile = tiff_pages(data, limits.max_frames), tile_size(image)
    except PILImage.DecompressionBombError:
        raise ImageError(
            f"{what} is larger than Pillow allows in this process; shrink it, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS as well as ImageLimits(max_pixels=...)"
        ) from None
    except Exception:  # whatever a decoder trips over in a broken file
        logger.debug("%s: broken header", what, exc_info=True)
        raise ImageError(f"{what} has a broken {kind} header; save the image again") from None
    _check_frames(frames, what, limits)
    _check_size(image.size, what, limits)
    _check_size((max(tile[0], image.width), max(tile[1], image.height)), what, limits)
    return _finish(image, what, limits)


def _check_frames(frames: int, what: str, limits: ImageLimits) -> None:
    if frames > limits.max_frames:
        raise ImageError(
            f"{what} has more than max_frames={limits.max_frames} frames; pass one frame of it"
        )


def _finish(image: Image, what: str, limits: ImageLimits) -> Image:
    _check_size(image.size, what, limits)
    try:
        return upright_rgb(image, what)
    except ImageError:
        raise
    except Exception:
        logger.debug("%s can't be decoded", what, exc_info=True)
        raise ImageError(
            f"{what} can't be decoded: it is truncated, damaged, closed, or of a mode "
            f"({image.mode}) without RGB colours; save it again as PNG or JPEG"
        ) from None


def _from_array(array: npt.NDArray[Any], limits: ImageLimits) -> Image:
    what = f"the array of shape {array.shape}"
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        hint = " (colours come last: array.transpose(1, 2, 0))" if array.ndim == 3 else ""
        raise ImageError(f"{what} is not an image; [H, W], [H, W, 3] or [H, W, 4] is read{hint}")
    _check_size((array.shape[1], array.shape[0]), what, limits)
    image = PILImage.fromarray(np.ascontiguousarray(to_uint8(array, what)))
    return _finish(image, what, limits)
