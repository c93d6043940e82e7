"""Queries from what a user passes: `Query`, mapping or tuple, with images from any source.

They are loaded a batch ahead of the models: Pillow lets other threads run while it decodes and
resizes, so that this work hides behind the models' own. The iterable itself is only ever read in
the caller's thread.
"""

from __future__ import annotations

import dataclasses
import difflib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar, final

from speceyes.errors import InputError, describe
from speceyes.images import DEFAULT_LIMITS, ImageLimits, load_image
from speceyes.images.pixel_cache import frozen
from speceyes.pipeline.config import InputConfig
from speceyes.types import Image, Query, Result, Timings

Loaded = TypeVar("Loaded")

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


def given_question(item: Any) -> str:
    """The question of a query that can't be read, as it can be written down; empty where it has
    none.
    """
    given = item.question if isinstance(item, Query) else ""
    if isinstance(item, Mapping):
        given = item.get("question", "")
    elif is_query_tuple(item):
        given = item[1]
    return given.encode(errors="replace").decode() if isinstance(given, str) else ""


def to_query(
    item: Any,
    *,
    number: int,
    limits: ImageLimits = DEFAULT_LIMITS,
    allow_urls: bool = False,
    views: Sequence[int] = (),
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
        views: See `load_image`.

    Raises:
        InputError: It isn't any of these, or the question is blank.
        ImageError: An image can't be read.

    Example:
        >>> from PIL import Image
        >>> to_query((Image.new("RGB", (64, 64)), "Is it dark?"), number=7).id
        '7'
    """
    if isinstance(item, Query):
        loaded = _load(item.images, limits, allow_urls, views)
        return dataclasses.replace(item, images=loaded, id=item.id or str(number))
    if isinstance(item, Mapping):
        # Rows of data sets have further columns; a slip of the pen is told from these.
        for key in item.keys() - set(KEYS):
            close = difflib.get_close_matches(str(key), KEYS, 1, 0.75)
            # Columns such as "idx" are common, and a query does well without an id.
            if close and close[0] not in (*item, "id"):
                raise InputError(
                    f"a query has no {key!r}: is {close[0]!r} meant? Its keys are {', '.join(KEYS)}"
                )
        if ("image" in item) == ("images" in item):
            raise InputError('a query needs "image" or "images", and not both')
        source = item["image"] if "image" in item else item["images"]
        question, choices = item.get("question"), item.get("choices")
        choices = () if choices is None else choices
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
    images = _load(sources, limits, allow_urls, views)
    return Query(question, images, tuple(choices), given_id(item) or str(number))


def query_or_failure(
    item: Any, config: InputConfig, *, number: int, since: float, views: Sequence[int] = ()
) -> Query | Result:
    """The query that an item stands for, or a result that says why it can't be read.

    Args:
        item: See `to_query`.
        config: What is taken as an image.
        number: The id of a query without one.
        since: When it was pulled, `time.perf_counter` seconds.
        views: See `load_image`.
    """
    try:
        return to_query(
            item, number=number, limits=config.limits, allow_urls=config.allow_urls, views=views
        )
    except Exception as exc:  # noqa: BLE001 - a query's failure is its own
        reason = str(exc) if isinstance(exc, InputError) else describe(exc)
        spent = Timings(latency=time.perf_counter() - since)
        return Result(
            given_id(item) or str(number),
            None,
            "error",
            timings=spent,
            error=reason,
            question=given_question(item),
        )


@final
class Source:
    """Pulls items from an iterable, a few at a time.

    An exception that the iterable raises ends it and is kept in `failure`, so that what was
    pulled before can be finished first.
    """

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = enumerate(items)
        self.exhausted = False
        self.failure: Exception | None = None

    def take(self, most: int) -> list[tuple[int, Any, float]]:
        """Up to `most` of (position, item, perf_counter seconds when it was pulled)."""
        taken: list[tuple[int, Any, float]] = []
        while len(taken) < most and not self.exhausted:
            try:
                at, item = next(self._items)
            except StopIteration:
                self.exhausted = True
            except Exception as exc:  # noqa: BLE001 - kept, and raised at the end
                self.exhausted, self.failure = True, exc
            else:
                taken.append((at, item, time.perf_counter()))
        return taken


@final
class Prefetch(Generic[Loaded]):
    """Batches of loaded queries, the next one in the making while this one is worked on.

    Args:
        source: Where queries come from.
        load: Makes a batch of what was pulled: (position, item, seconds) each.
        size: Queries a batch.
        threaded: Load the next batch in a thread; otherwise each when it is asked for.
    """

    def __init__(
        self,
        source: Source,
        load: Callable[[Sequence[tuple[int, Any, float]]], Loaded],
        size: int,
        *,
        threaded: bool,
    ) -> None:
        self._source, self._load, self._size = source, load, size
        self._threaded = threaded
        self._pool: ThreadPoolExecutor | None = None
        self._coming: Future[Loaded] | None = None

    @property
    def exhausted(self) -> bool:
        """True where there is no further batch."""
        return self._source.exhausted and self._coming is None

    def batch(self) -> Loaded:
        """The next batch. The one after it is pulled now and loaded meanwhile."""
        coming, self._coming = self._coming, None
        loaded = None if coming is None else coming.result()
        if loaded is None:
            loaded = self._load(self._source.take(self._size))
        if self._threaded and not self._source.exhausted:
            taken = self._source.take(self._size)
            if taken:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(1, thread_name_prefix="speceyes-prefetch")
                self._coming = self._pool.submit(self._load, taken)
        return loaded

    def close(self) -> None:
        """Ends the thread, once it is through with the image it is at."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def _load(
    sources: Sequence[Any], limits: ImageLimits, allow_urls: bool, views: Sequence[int]
) -> tuple[Image, ...]:
    """The images, each with its fingerprint kept, so that no phase reads all its pixels twice."""
    loaded = [load_image(one, limits=limits, allow_urls=allow_urls, views=views) for one in sources]
    return tuple(
        frozen(image, ours=image is not source)
        for image, source in zip(loaded, sources, strict=True)
    )


def _shown(item: Any) -> str:
    text = repr(item)
    return f"{type(item).__name__} {text if len(text) <= 80 else text[:77] + '...'}"
