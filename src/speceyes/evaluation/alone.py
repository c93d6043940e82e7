"""Arms of one model: the agent alone, and the small model alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from speceyes.evaluation.turn import Stream
from speceyes.types import Query, Result, Timings

if TYPE_CHECKING:
    from speceyes.answerer import SpeculativeAnswerer
    from speceyes.fallback import AgenticFallback


def agent_arm(agent: AgenticFallback) -> Stream:
    """The agent alone; one by one where its `max_batch` is 1."""

    def stream(queries: Iterable[Query]) -> Iterator[Result]:
        held: dict[int, str] = {}

        def noted() -> Iterator[Query]:
            for at, query in enumerate(queries):
                held[at] = query.id
                yield query

        for at, way, seconds in agent.stream(noted()):
            yield Result(
                held.pop(at),
                way.answer,
                "error" if way.stop == "error" else "agent",
                trajectory=way,
                timings=Timings(fallback=seconds),
                error=None if way.answer is not None else way.error or f"stopped: {way.stop}",
            )

    return stream


def draft_arm(answerer: SpeculativeAnswerer, batch_size: int) -> Stream:
    """The small model alone: every draft is the answer."""

    def stream(queries: Iterable[Query]) -> Iterator[Result]:
        source = iter(queries)
        while batch := list(islice(source, batch_size)):
            for query, draft in zip(batch, answerer(batch), strict=True):
                answer = None if draft.error else draft.text.strip()
                yield Result(
                    query.id,
                    answer,
                    "error" if draft.error else "draft",
                    draft=draft,
                    error=draft.error,
                )

    return stream
