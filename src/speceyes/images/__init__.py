"""Images: from any source to RGB pixels, within limits. See docs/images.md."""

from speceyes.images.identity import fingerprint, map_box
from speceyes.images.limits import DEFAULT_LIMITS, FORMATS, ImageLimits
from speceyes.images.load import ImageSource, load_image
from speceyes.images.similarity import content_key

__all__ = [
    "DEFAULT_LIMITS",
    "FORMATS",
    "ImageLimits",
    "ImageSource",
    "content_key",
    "fingerprint",
    "load_image",
    "map_box",
]
