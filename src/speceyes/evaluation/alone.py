"""Arms of one part: the agent alone, the small model alone, a judge alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from speceyes.evaluation.turn import Stream
from speceyes.types import Query, Result, Route, Timings

if TYPE_CHECKING:
    from speceyes.answerer import SpeculativeAnswerer
    from speceyes.fallback import AgenticFallback
    from speceyes.judge import ToolJudge


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


def judge_arm(
    judge: ToolJudge, batch_size: int, answerer: SpeculativeAnswerer | None = None
) -> Stream:
    """A judge alone: results carry its word and no answer.

    Args:
        judge: The judge.
        batch_size: Queries that are judged together.
        answerer: Drafts what the judge lets through, as behind a judge that reads for both.
    """

    def stream(queries: Iterable[Query]) -> Iterator[Result]:
        source = iter(queries)
        while batch := list(islice(source, batch_size)):
            judged = judge(batch)
            if answerer is not None:
                answerer([q for q, j in zip(batch, judged, strict=True) if not j.needs_tools])
            for query, said in zip(batch, judged, strict=True):
                error = None if said.completion is None else said.completion.error
                route: Route = "error" if error else "agent"
                yield Result(query.id, None, route, judgement=said, error=error)

    return stream
