"""Texts and images in the blocks of messages, in the forms of OpenAI, Anthropic, Google, Amazon,
LangChain and MCP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from PIL import Image as PILImage

from speceyes.images.headers import format_of
from speceyes.images.limits import FORMATS
from speceyes.images.sources import check_bytes, from_base64
from speceyes.types import Image

_TEXTS: Final = ("text", "input_text", "output_text", "text-plain")
_IMAGES: Final = ("image", "image_url", "input_image")
_NO_IMAGES: Final = (
    "audio/", "video/", "text/", "font/", "application/zip", "application/pdf", "application/gzip",
    "application/x-tar", "application/json", "application/xml", "application/vnd.",
)  # fmt: skip
"""Types that say for sure that a file isn't an image."""
_FILES: Final = ("media", "file", "input_file")


def block_text(block: Mapping[str, Any]) -> str | None:
    """The text of a block; None where it is of another kind.

    Example:
        >>> block_text({"type": "input_text", "text": "Red?"}), block_text({"type": "audio"})
        ('Red?', None)
    """
    kind = block.get("type")
    if kind in _TEXTS or (kind is None and isinstance(block.get("text"), str)):
        return str(block.get("text") or "")
    return None


def is_image_block(block: Mapping[str, Any]) -> bool:
    """True if a block says that it is an image, whether or not it can be read.

    Example:
        >>> is_image_block({"type": "input_image", "image_url": "data:image/png;base64,AAAA"})
        True
    """
    kind = block.get("type")
    if kind in _FILES:
        return str(block.get("mime_type") or block.get("mimeType") or "")[:6].lower() == "image/"
    return kind in _IMAGES or (kind is None and isinstance(block.get("image"), Mapping))


def block_image(block: Mapping[str, Any], max_bytes: int) -> bytes | str | Image | None:
    """Source in an image block: the bytes of a file, an address, or a PIL image; None where it
    holds none of them.

    Args:
        block: The block.
        max_bytes: Most bytes of the file.

    Raises:
        ImageError: Its base64 can't be decoded, or is empty or too long.
    """
    parts = [block]
    for name in ("image", "source", "image_url", "inline_data"):
        inner = parts[-1].get(name)
        if isinstance(inner, PILImage.Image):
            return inner
        if isinstance(inner, Mapping):
            parts.append(inner)
    for part in reversed(parts):
        for name in ("base64", "data", "bytes"):
            data = part.get(name)
            if isinstance(data, str | bytes | bytearray | memoryview) and len(data):
                return encoded_image(data, max_bytes)
    for part in reversed(parts):
        for name in ("url", "image_url", "image"):
            address = part.get(name)
            if isinstance(address, bytes | bytearray | memoryview):
                return encoded_image(address, max_bytes)
            if isinstance(address, str) and address.strip():
                return address.strip()
    return None


def encoded_image(data: str | bytes | bytearray | memoryview, max_bytes: int) -> bytes:
    r"""The bytes of an image's file, given as such, as base64, or as a data URL of whatever kind.

    Args:
        data: Base64 may be bytes too, and have any number of heads of data URLs.
        max_bytes: Most bytes of the file.

    Raises:
        ImageError: It is none of them, or empty or too long.

    Example:
        >>> encoded_image(b"data:application/octet-stream;base64,iVBORw0KGgo=", 100)
        b'\x89PNG\r\n\x1a\n'
    """
    if not isinstance(data, str):
        raw = bytes(data)
        check_bytes(len(raw), "the image", max_bytes * 2)
        if format_of(raw) != "unknown" or not raw.isascii():
            check_bytes(len(raw), "the image", max_bytes)
            return raw
        data = raw.decode("ascii")
    data = data.strip()
    while data[:5].lower() == "data:" and "," in data[:200]:
        data = data.partition(",")[2].lstrip()
    return from_base64(data, "the image's base64", max_bytes)


def shown_or_told(data: bytes, kind: str) -> bytes | str | None:
    r"""Content of a file for a reader: the bytes of an image that can be decoded, or a text; None
    where it is neither.

    Args:
        data: The file.
        kind: Its media type, which may be missing, vague or misspelt: then the bytes tell.

    Example:
        >>> shown_or_told(b"<svg/>", "image/svg+xml"), shown_or_told(b"PK\3\4", "")
        ('<svg/>', None)
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = None
    if text is not None and text.strip() and not any(c < " " and c not in "\t\n\r\f" for c in text):
        return text
    kind = kind.strip().lower()
    called = kind.startswith("image/") and "svg" not in kind
    shown = format_of(data) in FORMATS and not kind.startswith(_NO_IMAGES)
    return data if called or shown else None
