"""Image as every engine is shown it: its colours, and nothing but PIL images."""

from __future__ import annotations

from PIL import Image as PILImage

from speceyes.errors import InputError
from speceyes.types import Image


def checked(image: Image) -> Image:
    """The image itself.

    Raises:
        InputError: Not a PIL image. Paths and URLs are never opened here.
    """
    if not isinstance(image, PILImage.Image):
        raise InputError(
            f"got a {type(image).__name__} as an image; only PIL images are allowed here: "
            "load paths, bytes and URLs with speceyes.load_image first"
        )
    return image


def to_rgb(image: Image) -> Image:
    """The image in RGB, what is transparent on white, as the Qwen families do it.

    Raises:
        InputError: Not a PIL image. Paths and URLs are never opened here.
    """
    checked(image)
    if image.mode == "RGB":
        return image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = PILImage.new("RGBA", image.size, (255, 255, 255, 255))
        return PILImage.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
