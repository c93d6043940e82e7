"""Loading of queries, and resizing of their images, a batch ahead of the models.

Pillow lets other threads run while it decodes and resizes, so that this work hides behind the
models' own. The iterable itself is only ever read in the caller's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar, final

Loaded = TypeVar("Loaded")


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
