"""Images as text: base64, and addresses that hold the whole image."""

from __future__ import annotations

import base64
import io
from typing import Any

from speceyes.types import Image


def in_base64(image: Image, kind: str = "PNG", **options: Any) -> str:
    """The image as a file, in base64.

    Args:
        image: In a mode that the format has.
        kind: A format that Pillow writes.
        **options: Of that format; see `PIL.Image.Image.save`.
    """
    file = io.BytesIO()
    image.save(file, kind, **options)
    return base64.b64encode(file.getvalue()).decode("ascii")


def data_url(image: Image, kind: str = "PNG", **options: Any) -> str:
    """The same as a data URL (RFC 2397).

    Example:
        >>> from PIL import Image
        >>> data_url(Image.new("RGB", (8, 8)))[:22]
        'data:image/png;base64,'
    """
    return f"data:image/{kind.lower()};base64,{in_base64(image, kind, **options)}"
