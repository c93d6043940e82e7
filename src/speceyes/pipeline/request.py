"""Requests: read from what a user passes, loaded ahead of the models, and carried to a `Result`.

Images are loaded a batch ahead: Pillow lets other threads run while it decodes and resizes, so that
this work hides behind the models' own. The iterable itself is only ever read in the caller's
thread.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, final

from speceyes.errors import InputError, describe
from speceyes.images import DEFAULT_LIMITS, ImageLimits, load_image
from speceyes.images.pixel_cache import frozen
from speceyes.pipeline.config import InputConfig
from speceyes.pipeline.events import QueryTrace
from speceyes.pipeline.route import Facts, outcome
from speceyes.types import Completion, Image, Query, Result, Timings, Verdict

Loaded = TypeVar("Loaded")

CANCELLED = "nobody waits for it any more"

KEYS = ("image", "images", "question", "choices", "id")
"""What a query written as a mapping may hold."""


@final
@dataclass(slots=True, eq=False)
class RequestState:
    """A query that was accepted, from submission to answer.

    One thread at a time works on it; `cancelled` may be set, and `future` waited for, in any.

    Args:
        query: Its images loaded.
        client: On whose behalf; clients take turns (see `speceyes.pipeline.phases.FairQueue`).
        deadline: `time.monotonic` seconds after which no further phase is begun.
        facts: What is known of it.
        gate: A gate of its own, which is not looser than the pipeline's; None for that one.
        position: Its place among the queries of its run.
        since: When it was submitted or pulled, `time.perf_counter` seconds.
        trace: Tells observers of it; None where there are none.
        on_end: Called once, when nothing will be done for it any more.
        clock: Tells the time that `since` and `timings` go by, seconds.
    """

    query: Query
    client: str = ""
    deadline: float = math.inf
    facts: Facts = field(default_factory=Facts)
    gate: Callable[[Completion], Verdict] | None = None
    position: int = 0
    since: float = field(default_factory=time.perf_counter)
    trace: QueryTrace | None = None
    on_end: Callable[[], None] | None = None
    clock: Callable[[], float] = time.perf_counter
    queued_s: float = 0.0
    """Seconds from submission until a model took it up."""
    timings: Timings = field(default_factory=Timings)
    audit: int | None = None
    """Number of its audit; None where it isn't audited."""
    straight: int | None = None
    """Its number among those that were planned to go straight to the agent."""
    why_straight: Literal["", "costs", "probe"] = ""
    stage_alone: bool = True
    """True where nothing ran beside its judgement and its draft."""
    agent_alone: bool = True
    """True where nothing was judged or drafted while the agent worked on it."""
    joined_at: int | None = None
    """Batches that had been judged or drafted when the agent took it up; None where one was."""
    cancelled: bool = False
    future: Future[Result] = field(default_factory=Future)
    result: Result | None = None
    """What became of it; None while it is under way."""
    _delivered: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        # Cancelling is `cancelled`; the future itself belongs to whoever finishes the request.
        self.future.set_running_or_notify_cancel()

    @property
    def wanted(self) -> bool:
        """True where anybody would still get the answer."""
        return not self.cancelled and time.monotonic() < self.deadline

    def learn(self, **found: Any) -> None:
        """Adds what a phase found; names as in `Facts`."""
        for name, value in found.items():
            setattr(self.facts, name, value)

    def spent(self, **seconds: float) -> None:
        """Notes seconds of phases; names as in `Timings`."""
        self.timings = dataclasses.replace(self.timings, **seconds)

    def begin(self) -> None:
        """Notes that a model takes it up now."""
        self.queued_s = self.clock() - self.since

    def conclude(self) -> Result:
        """Settles what becomes of it, where its next phase is "answer"."""
        ended = outcome(self.facts)
        self.spent(latency=self.clock() - self.since)
        self.result = Result(
            query_id=self.query.id,
            answer=ended.answer,
            route=ended.route,
            judgement=self.facts.judgement,
            draft=self.facts.draft,
            verdict=self.facts.verdict,
            trajectory=self.facts.trajectory,
            timings=self.timings,
            error=ended.error,
            question=self.query.question,
            straight=self.why_straight or ("asked" if self.facts.direct else ""),
        )
        self.learn(answered=True)
        return self.result

    def deliver(self) -> Result:
        """Hands the result to whoever waits; a second time nothing happens."""
        assert self.result is not None
        with self._lock:
            first, self._delivered = not self._delivered, True
        if first:
            if self.trace is not None:
                self.trace.end(self.result)
            self.future.set_result(self.result)
            if self.on_end is not None:
                self.on_end()
        return self.result


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
