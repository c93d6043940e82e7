"""Images of requests: from data URLs, and from hosts that the operator has named."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final
from urllib.parse import urlsplit

from speceyes.errors import ImageError
from speceyes.images.decoding_pool import Cancellation, DecodingPool, DecodingStopped
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
_WHAT = "the image"


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
    if _inside(url):
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
    pool: DecodingPool,
    cancellation: Cancellation,
    reserve: Callable[[int], None] = lambda pixels: None,
    *,
    views: Sequence[int] = (),
    deadline: float = math.inf,
) -> Iterator[float]:
    """Loads the images of a request, in steps; see `speceyes.server.loading`.

    The heads of all are looked at, and their pixels reserved together, before one of them is
    decoded; both in processes that can be killed.

    Args:
        pictures: Data URLs, or http(s) ones of allowed hosts; each is loaded once.
        limits: Limits of each image.
        images: Gets the images.
        pool: Decodes them.
        cancellation: Ends the decoding that is under way.
        reserve: Called with the pixels of all.
        views: Most pixels of the smaller views that the models look at first.
        deadline: Of the request, in `time.monotonic` seconds.

    Raises:
        Refusal: 400 for an image that can't be used, 503 where there is no process to decode it.
            A decoder's own words stay here.
    """
    sources = list(dict.fromkeys(pictures))
    for one in sources:
        check_source(one.url, one.where, limits)
    files: dict[Picture, tuple[bytes, int]] = {}
    for one in sources:
        if not _inside(one.url):
            yield FETCH_S
        with _named(one, cancellation):
            data = _bytes_of(one.url, limits)
            width, height = pool.size(data, _WHAT, limits.image, cancellation=cancellation)
            files[one] = data, width * height
        yield 0.0
    reserve(sum(pixels for _, pixels in files.values()))
    for one in sources:
        data, pixels = files.pop(one)
        yield pixels * _PIXEL_S
        with _named(one, cancellation):
            images[one] = pool.decode(
                data,
                _WHAT,
                limits.image,
                cancellation=cancellation,
                views=views,
                deadline=deadline,
            )


def _inside(url: str) -> bool:
    """True where the image itself stands in the request."""
    return url[:5].lower() == "data:"


def _bytes_of(url: str, limits: ServerLimits) -> bytes:
    if _inside(url):
        return read_data_url(url, limits.image.max_bytes)
    return fetch(
        url,
        max_bytes=limits.image.max_bytes,
        timeout_s=FETCH_S,
        allow_hosts=limits.private_domains,
        only_hosts=limits.domains | limits.private_domains,
    )


@contextmanager
def _named(one: Picture, cancellation: Cancellation) -> Iterator[None]:
    """Tells the client of an image that can't be used, by its field."""
    try:
        yield
    except ImageError as exc:
        inside = _inside(one.url)
        why = _for_client(str(exc)) if inside else "the image can't be fetched or used"
        _log.info("an image was refused")
        raise Refusal(400, f"{one.where}: {why}", code="bad_image", param=one.where) from None
    except DecodingStopped as exc:
        if not cancellation.cancelled:
            _log.warning("%s", exc)
        raise Refusal(
            503,
            f"{one.where}: the image could not be decoded at this moment; try again",
            code="decoding_stopped",
            param=one.where,
            headers={"Retry-After": "1"},
        ) from None


def _for_client(why: str) -> str:
    """An `ImageError` without its advice to whoever writes Python, or what was sent."""
    if why.startswith("the data URL begins"):
        return "only data:image/...;base64,... is read"
    return _ADVICE.split(why)[0]
