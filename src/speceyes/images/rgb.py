"""Pixels of any mode or dtype as 8-bit RGB, upright."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from speceyes.errors import ImageError
from speceyes.images.exif import costly
from speceyes.types import Image

logger = logging.getLogger(__name__)

_ORIENTATION = 0x0112  # EXIF tag
_TURNS = {
    2: PILImage.Transpose.FLIP_LEFT_RIGHT,
    3: PILImage.Transpose.ROTATE_180,
    4: PILImage.Transpose.FLIP_TOP_BOTTOM,
    5: PILImage.Transpose.TRANSPOSE,
    6: PILImage.Transpose.ROTATE_270,
    7: PILImage.Transpose.TRANSVERSE,
    8: PILImage.Transpose.ROTATE_90,
}


def upright_rgb(image: Image, what: str, *, ours: bool = False) -> Image:
    """The decoded image as RGB with its EXIF orientation applied; itself where it is both.

    Args:
        image: Any mode that Pillow can turn to RGB.
        what: Names the image in errors.
        ours: It is a file that nobody else holds, so that its pixels are taken, not copied.

    Raises:
        ImageError: Its values are outside what can be scaled to 8 bits.
    """
    image.load()
    turn = _TURNS.get(_orientation(image))
    if ours and image.mode == "RGB" and not (image.has_transparency_data or image.readonly):
        rgb = image._new(image.im)
    else:
        rgb = _rgb(image, what)
    if turn is not None:
        rgb = rgb.transpose(turn)
    if rgb is not image:
        rgb.info = {}  # an EXIF orientation left there would be applied again
    return rgb


def lies_down(image: Image) -> bool:
    """True where standing upright exchanges an image's width and height."""
    return _orientation(image) >= 5


def _orientation(image: Image) -> int:
    try:
        if costly(_exif_of(image)):
            logger.debug("EXIF data that costs too much is not read")
            return 1
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata is no reason to refuse the picture
        logger.debug("EXIF data can't be read", exc_info=True)
        return 1


def _exif_of(image: Image) -> bytes:
    said = image.info.get("exif")
    if isinstance(said, bytes):
        return said
    told = image.info.get("Raw profile type exif")  # as ImageMagick writes it into a PNG's text
    return bytes.fromhex("".join(told.split("\n")[3:])) if isinstance(told, str) else b""


def _rgb(image: Image, what: str) -> Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey = np.asarray(image)
        if image.mode == "I":
            if grey.min() < 0 or grey.max() > 65535:
                raise ImageError(
                    f"{what} holds whole numbers from {grey.min()} to {grey.max()}; 0 to 65535 "
                    "is read: scale it first"
                )
            grey = grey.astype(np.uint16)
        scaled = to_uint8(grey, what)
        if isinstance(clear := image.info.get("transparency"), int):
            scaled = np.where(grey == clear, np.uint8(255), scaled)
        return PILImage.fromarray(scaled).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = PILImage.new("RGB", image.size, "white")
        white.paste(layer, mask=layer.getchannel("A"))
        return white
    if type(image) is PILImage.Image and image.mode == "RGB" and not image.info:
        return image
    return image.convert("RGB")


def to_uint8(array: npt.NDArray[Any], what: str) -> npt.NDArray[np.uint8]:
    """Greys or colours in 8 bits; scaled, never cut off."""
    scaled: npt.NDArray[np.uint8]
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        # 257 * 255 = 65535; a table needs no wider copy of the pixels.
        table = ((np.arange(65536) + 128) // 257).astype(np.uint8)
        scaled = table[array]
        return scaled
    if array.dtype.kind == "f":
        low, high = array.min(), array.max()
        if not (low >= 0 and high <= 1):
            raise ImageError(
                f"{what} holds floats from {low:.4g} to {high:.4g}; 0 to 1 is read: scale and "
                "clip them, or pass uint8"
            )
        scaled = np.rint(array * 255).astype(np.uint8)
        return scaled
    raise ImageError(
        f"{what} is of dtype {array.dtype}; uint8, uint16, bool and floats in [0, 1] are read: "
        "convert it, e.g. with .astype(numpy.uint8)"
    )
