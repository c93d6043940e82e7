"""Queries are loaded, and their images resized, a batch ahead of the models.

Pillow lets other threads run while it decodes and resizes, so that this work hides behind the
models' own. The iterable itself is only ever read in the caller's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar, final

from speceyes.journey import Source

Loaded = TypeVar("Loaded")


def offered(parts: Iterable[Any], name: str) -> tuple[Callable[..., Any], ...]:
    """The method of that name of each model of the parts that has it, once a model.

    Example:
        >>> offered([None, object()], "prepare")
        ()
    """
    models = {id(m): m for m in (getattr(part, "model", None) for part in parts)}
    methods = (getattr(model, name, None) for model in models.values())
    return tuple(method for method in methods if callable(method))


@final
class Ahead(Generic[Loaded]):
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
        """Whether there is no further batch."""
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
                    self._pool = ThreadPoolExecutor(1, thread_name_prefix="speceyes-ahead")
                self._coming = self._pool.submit(self._load, taken)
        return loaded

    def close(self) -> None:
        """Ends the thread, once it is through with the image it is at."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
