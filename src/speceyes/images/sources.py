"""The bytes of an encoded image in a file, a data URL or a base64 text, never more than allowed."""

from __future__ import annotations

import base64
import binascii
import errno
import os
import re
import stat

from speceyes.errors import ImageError
from speceyes.images.headers import format_of

_FROM_URL = bytes.maketrans(b"-_", b"+/")
_WRITTEN_OUT = {"%2B": "+", "%2F": "/", "%3D": "=", "%0A": "", "%0D": "", "%20": ""}
_AROUND = " \t\r\n\f\v\ufeff\"'"
_HEADLESS = re.compile(r"(?i)(?:image/[a-z0-9.+-]{1,30})?;?base64,")
_BLANKS = b" \t\n\r\f\v"


def short(source: str | os.PathLike[str]) -> str:
    """A path or a text as errors show it, at most 120 characters."""
    text = os.fsdecode(source)
    return text if len(text) <= 120 else text[:117] + "..."


def check_bytes(size: int, what: str, max_bytes: int) -> None:
    """Lets a number of bytes within the limit pass.

    Raises:
        ImageError: There are none, or more than allowed.
    """
    if size == 0:
        raise ImageError(f"{what} is empty (0 bytes); pass an encoded image")
    if size > max_bytes:
        raise ImageError(
            f"{what} has more than max_bytes={max_bytes} bytes; shrink it, or raise the "
            "limit with ImageLimits(max_bytes=...)"
        )


def read_file(source: str | os.PathLike[str], max_bytes: int) -> bytes:
    """All of a regular file.

    Raises:
        ImageError: It can't be read, isn't a regular file, or is empty or too long.
    """
    what = short(source)
    try:
        # Without O_NONBLOCK, opening a pipe waits for its writer for ever.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        handle = os.open(source, flags)
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "not a path"
        if isinstance(exc, OSError) and exc.errno == errno.ENAMETOOLONG:
            raise ImageError(
                f"{what!r} can't be opened ({why}); pass the path of an image, its bytes, or its "
                "base64 alone or as data:image/...;base64,..."
            ) from None
        raise ImageError(f"{what!r} can't be opened ({why}); pass the path of an image") from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ImageError(f"{what!r} is not a regular file; pass the path of an image")
        with os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
    except OSError as exc:
        raise ImageError(f"{what!r} can't be read ({exc.strerror})") from None
    finally:
        os.close(handle)
    check_bytes(len(data), what, max_bytes)
    return data


def read_data_url(source: str, max_bytes: int) -> bytes:
    """The bytes in a `data:image/...;base64,...` URL, or in one that leaves the type open.

    Raises:
        ImageError: It is another kind of URL, not valid base64, or empty or too long.
    """
    what = "the data URL"
    head, comma, body = source.partition(",")
    kind = head[:200].lower().replace(" ", "")
    untold = kind in ("data:;base64", "data:application/octet-stream;base64")
    if not (untold or (comma and kind.startswith("data:image/") and kind.endswith(";base64"))):
        raise ImageError(f"{what} begins {short(head)!r}; data:image/...;base64,... is read")
    return from_base64(body, what, max_bytes)


def unquoted(source: str) -> str:
    """A source without the blanks, the mark of byte order and the quotes around a data URL or
    base64; a data URL that lost its "data:" has it again.

    Example:
        >>> unquoted(' "data:image/png;base64,AAAA" ')
        'data:image/png;base64,AAAA'
        >>> unquoted("image/png;base64,AAAA")
        'data:image/png;base64,AAAA'
    """
    start = source[:64].lstrip(_AROUND)
    if start[:5].lower() == "data:" and source[:5].lower() != "data:":
        return source.strip(_AROUND)
    if headless := _HEADLESS.match(start):
        kind = "" if headless[0][:1] == ";" or "/" in headless[0] else ";"
        return f"data:{kind}{source.strip(_AROUND)}"
    if source[:1] in "\"'" and is_base64(start):
        return source.strip(_AROUND)
    return source.strip() if source[:1].isspace() else source


def encoded_text(data: bytes) -> str | None:
    """The text that bytes are where they hold a data URL or base64 instead of a file; else None."""
    if not (start := data[:64].lstrip()).isascii():
        return None
    text = start.decode().lstrip(_AROUND)
    if text[:5].lower() == "data:" or _HEADLESS.match(text) or is_base64(text):
        return data.decode("ascii", "replace")
    return None


def is_base64(source: str) -> bool:
    """True for the base64 of an image's file, by what its first characters decode to.

    Example:
        >>> is_base64("iVBORw0KGgoAAAANSUhEUgAAAEAAAAAw"), is_base64("/data/photo.png")
        (True, False)
    """
    start = source[:32]
    if len(start) < 32 or not re.fullmatch(r"[A-Za-z0-9+/_-]+", start):
        return False
    return format_of(base64.b64decode(start.encode().translate(_FROM_URL))) != "unknown"


def from_base64(text: str, what: str, max_bytes: int) -> bytes:
    """The bytes of a base64 text, percent signs of a URL undone.

    Raises:
        ImageError: It is not valid base64, or empty or too long.
    """
    check_bytes(len(text) // 2, what, max_bytes)  # roughly, before it is decoded, then exactly
    # Base64 has three signs that a URL writes out; undoing others, one by one, would take forty
    # times the memory of the text.
    if not text.isascii():
        raise ImageError(f"{what} is not valid base64; encode it with base64.b64encode")
    if "%" in text:
        for written, sign in _WRITTEN_OUT.items():
            text = text.replace(written, sign).replace(written.lower(), sign)
    raw = text.encode().translate(_FROM_URL, _BLANKS)
    try:
        data = base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except binascii.Error:
        raise ImageError(f"{what} is not valid base64; encode it with base64.b64encode") from None
    check_bytes(len(data), what, max_bytes)
    return data
