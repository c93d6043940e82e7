"""Queries in, results out, a batch at a time: what strategies of fixed stages have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol, TypeVar

from speceyes.errors import InputError, describe
from speceyes.images import ImageLimits
from speceyes.pipeline.request import given_id, given_question, to_query
from speceyes.types import Query, Result, Timings


class Pending(Protocol):
    """A query under way in a batch."""

    @property
    def query(self) -> Query:
        """The query."""
        ...

    def result(self, spent: Timings) -> Result:
        """Its result, once its batch has been worked on."""
        ...


State = TypeVar("State", bound=Pending)


def run_batches(
    queries: Iterable[Any],
    size: int,
    limits: ImageLimits,
    begin: Callable[[Query], State],
    work: Callable[[Sequence[State]], None],
) -> Iterator[Result]:
    """Results in order; queries are pulled a batch at a time.

    Args:
        queries: What `SpecPipeline` takes, each.
        size: Queries in a batch.
        limits: What images are loaded under.
        begin: Makes the state of a query.
        work: Takes a batch of states to their ends. It answers for each query's failures.

    A query that can't be read is an "error" result of its own.
    """
    source = enumerate(queries)
    while batch := list(islice(source, size)):
        start = time.perf_counter()
        states: dict[int, State] = {}
        failed: dict[int, Result] = {}
        for at, item in batch:
            try:
                query = to_query(item, number=at, limits=limits, allow_urls=False)
                states[at] = begin(query)
            except Exception as exc:  # noqa: BLE001 - a query's failure is its own
                reason = str(exc) if isinstance(exc, InputError) else describe(exc)
                name, asked = given_id(item) or str(at), given_question(item)
                failed[at] = Result(name, None, "error", error=reason, question=asked)
        if states:
            work(list(states.values()))
        seconds = time.perf_counter() - start
        spent = Timings(fallback=seconds / max(1, len(states)), latency=seconds)
        for at, _ in batch:
            yield failed[at] if at in failed else states[at].result(spent)
