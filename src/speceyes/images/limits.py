"""Limits of an image, checked before it is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from speceyes.errors import ConfigError

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats of files that can be read."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits of an image.

    Args:
        max_bytes: Most bytes of an encoded image.
        max_pixels: Most pixels, width times height. The default is Pillow's own bound, a quarter
            of a GiB of RGB; above it Pillow may warn when a tool crops the image.
        max_frames: Most frames of an animation or pages of a TIFF; the first is loaded.
        min_side: Shortest side in pixels. Image processors take an axis of 1 or 3 for colours.
        formats: Formats that may be read, some of "PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF".

    Raises:
        ConfigError: A limit is below 1, or a format isn't one of these.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 89_478_485
    max_frames: int = 1000
    min_side: int = 4
    formats: tuple[str, ...] = FORMATS

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_frames", "min_side"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name}={value!r}; it must be a whole number of at least 1")
        allowed = ", ".join(FORMATS)
        if not self.formats:
            raise ConfigError(f"formats is empty; pass a tuple with some of: {allowed}")
        for name in self.formats:
            if name not in FORMATS:
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


DEFAULT_LIMITS: Final = ImageLimits()
