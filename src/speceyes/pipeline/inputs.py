"""Queries from what a user passes: `Query`, mapping or tuple, with images from any source."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from speceyes.errors import InputError
from speceyes.images import DEFAULT_LIMITS, ImageLimits, load_image
from speceyes.images.pixel_cache import frozen
from speceyes.types import Image, Query

KEYS = ("image", "images", "question", "choices", "id")
"""What a query written as a mapping may hold."""


def is_query_tuple(item: Any) -> bool:
    """True for one query written as a tuple: (image, question), or with choices third."""
    return isinstance(item, tuple) and len(item) in (2, 3) and isinstance(item[1], str)


def given_id(item: Any) -> str:
    """The id that a query was given, however it was written; empty where it has none."""
    given = item.id if isinstance(item, Query) else ""
    if isinstance(item, Mapping):
        given = item.get("id", "")
    return "" if given is None else str(given)


def to_query(
    item: Any, *, number: int, limits: ImageLimits = DEFAULT_LIMITS, allow_urls: bool = False
) -> Query:
    """The query that `item` stands for, its images loaded.

    Args:
        item: A `Query`; a mapping with "image" or "images", "question" and perhaps "choices" and
            "id"; or a tuple (image, question) or (image, question, choices). An image is anything
            that `load_image` takes, or a list of those.
        number: The id of a query without one.
        limits: What images are loaded under, those of a `Query` too: a PIL image may be a file
            that was merely opened. One that is plain RGB already is not copied.
        allow_urls: Whether http(s) addresses are fetched.

    Raises:
        InputError: It isn't any of these, or the question is blank.
        ImageError: An image can't be read.

    Example:
        >>> from PIL import Image
        >>> to_query((Image.new("RGB", (64, 64)), "Is it dark?"), number=7).id
        '7'
    """
    if isinstance(item, Query):
        loaded = _load(item.images, limits, allow_urls)
        return dataclasses.replace(item, images=loaded, id=item.id or str(number))
    if isinstance(item, Mapping):
        # Rows of data sets have further columns; a slip of the pen is told from these.
        for key in item.keys() - set(KEYS):
            close = difflib.get_close_matches(str(key), KEYS, 1, 0.75)
            if close and close[0] not in item:
                raise InputError(
                    f"a query has no {key!r}: is {close[0]!r} meant? Its keys are {', '.join(KEYS)}"
                )
        if ("image" in item) == ("images" in item):
            raise InputError('a query needs "image" or "images", and not both')
        source = item["image"] if "image" in item else item["images"]
        question, choices = item.get("question"), item.get("choices") or ()
    elif is_query_tuple(item):
        source, question, *rest = item
        choices = rest[0] if rest else ()
    else:
        raise InputError(
            f"{_shown(item)} is not a query; pass a Query, an (image, question) tuple or "
            'a mapping {"image": ..., "question": ...}'
        )
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"question={question!r} is blank: pass the question as text")
    if isinstance(choices, str) or not isinstance(choices, Sequence):
        raise InputError(f"choices={choices!r}; pass a list of texts")
    if not all(isinstance(choice, str) for choice in choices):
        raise InputError(f"choices={list(choices)!r}; every choice must be text")
    sources = list(source) if isinstance(source, list | tuple) else [source]
    images = _load(sources, limits, allow_urls)
    return Query(question, images, tuple(choices), given_id(item) or str(number))


def _load(sources: Sequence[Any], limits: ImageLimits, allow_urls: bool) -> tuple[Image, ...]:
    """The images, each with its fingerprint kept, so that no phase reads all its pixels twice."""
    loaded = [load_image(one, limits=limits, allow_urls=allow_urls) for one in sources]
    return tuple(
        frozen(image, ours=image is not source)
        for image, source in zip(loaded, sources, strict=True)
    )


def _shown(item: Any) -> str:
    text = repr(item)
    return f"{type(item).__name__} {text if len(text) <= 80 else text[:77] + '...'}"
