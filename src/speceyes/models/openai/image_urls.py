"""Images as data URLs, each encoded once."""

from __future__ import annotations

import math
import threading
from concurrent.futures import Future
from typing import Literal, TypeAlias, final

from PIL import Image as PILImage

from speceyes.bounded_cache import BoundedCache
from speceyes.encoded import data_url
from speceyes.images.pixel_cache import pixel_key
from speceyes.models._rgb import checked, to_rgb
from speceyes.types import Image

ImageFormat: TypeAlias = Literal["png", "jpeg"]


def sent_size(image: Image, max_pixels: int | None) -> tuple[int, int]:
    """(width, height) in pixels at which an image is sent; its own where it isn't larger.

    Example:
        >>> sent_size(PILImage.new("RGB", (400, 100)), 10_000)
        (200, 50)
    """
    width, height = image.size
    if max_pixels is None or width * height <= max_pixels:
        return width, height
    shrink = math.sqrt(max_pixels / (width * height))
    return max(1, math.floor(width * shrink)), max(1, math.floor(height * shrink))


@final
class ImageUrls:
    """Cache of data URLs by an image's content.

    Args:
        limit: Bytes of URLs that are kept, the least recently used given up first.
        image_format: "png", which loses nothing, or "jpeg", which is smaller for photos.
        quality: Of JPEG, 1 to 95; colours are not subsampled.
        max_pixels: Larger images are shrunk to so many pixels; None for none.
    """

    def __init__(
        self, limit: int, image_format: ImageFormat, quality: int, max_pixels: int | None = None
    ) -> None:
        self._format, self._quality = image_format, quality
        self._max_pixels = max_pixels
        self._kept = BoundedCache[bytes, str](limit, len)
        self._encoding: dict[bytes, Future[str]] = {}
        self._lock = threading.Lock()
        self.encoded = 0

    @property
    def kept_bytes(self) -> int:
        """Size of the URLs that are kept."""
        return self._kept.used

    def __call__(self, image: Image) -> str:
        """The image in RGB as a data URL, what is transparent on white.

        Raises:
            InputError: Not a PIL image. Paths and URLs are never opened here.
        """
        key = pixel_key(checked(image))
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                return found
            encoding = self._encoding.get(key)
            mine = encoding is None
            if encoding is None:
                encoding = self._encoding[key] = Future()
        if mine:
            try:
                url = self._encode(image)
                self._kept.put(key, url)
                encoding.set_result(url)
            except BaseException as exc:
                encoding.set_exception(exc)
                raise
            finally:
                with self._lock:
                    del self._encoding[key]
        return encoding.result()

    def clear(self) -> None:
        """Gives up what is kept."""
        self._kept.clear()

    def _encode(self, image: Image) -> str:
        with self._lock:
            self.encoded += 1
        rgb = to_rgb(image)
        size = sent_size(image, self._max_pixels)
        if size != rgb.size:
            rgb = rgb.resize(size, PILImage.Resampling.BICUBIC)
        if self._format == "png":
            return data_url(rgb, "PNG", compress_level=1, icc_profile=None)
        return data_url(rgb, "JPEG", quality=self._quality, subsampling=0, icc_profile=None)
