"""Images of requests: from data URLs, and from hosts that the operator has named."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final
from urllib.parse import urlsplit

from speceyes.errors import ImageError
from speceyes.images.decode import opened, upright
from speceyes.images.fetch import fetch
from speceyes.images.sources import read_data_url
from speceyes.server.limits import ServerLimits
from speceyes.server.refusal import Refusal
from speceyes.types import Image

_log = logging.getLogger(__name__)

_ADVICE = re.compile(r"; (?:shrink|save|pass|encode)|\. Convert|, or raise")

FETCH_S = 10.0
"""Seconds for one image from another host, redirects included."""
_PIXEL_S = 50e-9  # that decoding one is expected to take


@final
@dataclass(frozen=True, slots=True)
class Picture:
    """An image of a request: its URL, and the field that holds it."""

    url: str
    where: str


def check_source(url: str, where: str, limits: ServerLimits) -> None:
    """Refuses, before anything is read, what isn't an image inside the request or on a host that
    is allowed. There is no way from here to a file.

    Raises:
        Refusal: 400, naming the field and what would be allowed.

    Example:
        >>> check_source("data:image/png;base64,AA==", "url", ServerLimits())
    """
    if url[:5].lower() == "data:":
        return
    scheme = url.partition(":")[0].lower()
    if scheme not in ("http", "https"):
        raise Refusal(
            400,
            f"{where} must be a data URL (data:image/png;base64,...); paths and other kinds of "
            "URLs are never read",
            code="image_source_refused",
            param=where,
        )
    if not (limits.domains or limits.private_domains):
        raise Refusal(
            400,
            f"{where} is an http(s) URL, and this server fetches none; send the image itself as "
            "data:image/png;base64,...",
            code="image_source_refused",
            param=where,
        )
    if not _allowed(url, limits):
        raise _foreign(where)


def _allowed(url: str, limits: ServerLimits) -> bool:
    """True where its host is named, as the parser that the connection uses reads it."""
    try:
        return (urlsplit(url).hostname or "") in limits.domains | limits.private_domains
    except ValueError:
        return False


def _foreign(where: str) -> Refusal:
    return Refusal(
        400,
        f"{where} points to a host that this server doesn't fetch from; send the image itself as "
        "data:image/png;base64,...",
        code="image_source_refused",
        param=where,
    )


def load_images(
    pictures: Iterable[Picture],
    limits: ServerLimits,
    images: dict[Picture, Image],
    reserve: Callable[[int], None] = lambda pixels: None,
) -> Iterator[float]:
    """Loads the images of a request, in steps; see `speceyes.server.loading`.

    All are opened, and their pixels reserved together, before one of them is decoded.

    Args:
        pictures: Data URLs, or http(s) ones of allowed hosts; each is loaded once.
        limits: Limits of each image.
        images: Gets the images.
        reserve: Called with the pixels of all.

    Raises:
        Refusal: 400 for an image that can't be used. A decoder's own words stay here.
    """
    sources = list(dict.fromkeys(pictures))
    for one in sources:
        check_source(one.url, one.where, limits)
    closed: dict[Picture, Image] = {}
    for one in sources:
        with _named(one):
            closed[one] = opened(_bytes_of(one.url, limits), "the image", limits.image)
        yield 0.0
    reserve(sum(image.width * image.height for image in closed.values()))
    for one in sources:
        image = closed.pop(one)
        yield image.width * image.height * _PIXEL_S
        with _named(one):
            images[one] = upright(image, "the image", limits.image)


def _bytes_of(url: str, limits: ServerLimits) -> bytes:
    if url[:5].lower() == "data:":
        return read_data_url(url, limits.image.max_bytes)
    return fetch(
        url,
        max_bytes=limits.image.max_bytes,
        timeout_s=FETCH_S,
        allow_hosts=limits.private_domains,
        only_hosts=limits.domains | limits.private_domains,
    )


@contextmanager
def _named(one: Picture) -> Iterator[None]:
    """Tells the client of an image that can't be used, by its field."""
    try:
        yield
    except ImageError as exc:
        inside = one.url[:5].lower() == "data:"
        why = _for_client(str(exc)) if inside else "the image can't be fetched or used"
        _log.info("an image was refused")
        raise Refusal(400, f"{one.where}: {why}", code="bad_image", param=one.where) from None


def _for_client(why: str) -> str:
    """An `ImageError` without its advice to whoever writes Python, or what was sent."""
    if why.startswith("the data URL begins"):
        return "only data:image/...;base64,... is read"
    return _ADVICE.split(why)[0]
