"""What the pipeline keeps of queries while they are under way; local to one run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, final

from speceyes.observing import Watch
from speceyes.types import Completion, Judgement, Query, Result, Route, Timings, Trajectory, Verdict


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
@dataclass(slots=True)
class Ticket:
    """A query under way and what the phases have said about it so far.

    Args:
        at: Its position among the queries.
        query: The query.
        since: When it was pulled, in perf_counter seconds.
        judgement: Phase I.
        draft: Phase II.
        verdict: Phase III.
        timings: Seconds by phase so far.
        audit: The number of its audit, where its answer is given and the agent is asked as well.
        gate: Decides on its draft instead of the pipeline's gate, which is not the stricter one.
        watch: Tells observers of it; None where there are none.
    """

    at: int
    query: Query
    since: float
    judgement: Judgement | None = None
    draft: Completion | None = None
    verdict: Verdict | None = None
    timings: Timings = field(default_factory=Timings)
    audit: int | None = None
    gate: Callable[[Completion], Verdict] | None = None
    watch: Watch | None = None

    def spent(self, **seconds: float) -> None:
        """Notes the seconds of phases, named as in `Timings`."""
        self.timings = dataclasses.replace(self.timings, **seconds)

    @property
    def wants_draft(self) -> bool:
        """Whether the judge, if there is one, left it to a draft."""
        return self.judgement is None or not self.judgement.needs_tools

    @property
    def accepted(self) -> bool:
        """Whether the gate has accepted its draft."""
        return self.verdict is not None and self.verdict.accepted

    def by_draft(self) -> tuple[int, Result] | None:
        """Its result where judge and gate agreed to the draft; None where they didn't."""
        if self.draft is None or not (self.accepted and self.wants_draft):
            return None
        return self._close("draft", self.draft.text.strip())

    def by_agent(self, trajectory: Trajectory, seconds: float) -> tuple[int, Result]:
        """Its result after the agent, whose share of time was `seconds`."""
        self.spent(fallback=seconds)
        if self.watch is not None:
            self.watch.phase("agent", self.watch.with_agent_s, trajectory)
        if trajectory.stop == "error":
            error = f"the agent failed: {trajectory.error or 'no reason given'}"
            return self._close("error", None, trajectory, error)
        if trajectory.answer is None:
            error = f"the agent gave no answer within {len(trajectory.steps)} turns"
            return self._close("agent", None, trajectory, error)
        return self._close("agent", trajectory.answer, trajectory)

    def unanswered(self) -> tuple[int, Result]:
        """Its result where it needs the agent and there is none."""
        if self.verdict is None or not self.wants_draft:
            reason = self.judgement.reason if self.judgement is not None else ""
            why = f"the judge sends it to the agent{f' ({reason})' if reason else ''}"
        elif self.verdict.reason:
            why = f"the draft was rejected: {self.verdict.reason}"
        else:
            why = f"the draft's score {self.verdict.score} is below {self.verdict.threshold}"
        return self._close("error", None, error=f"{why}, and this pipeline has no fallback")

    def _close(
        self,
        route: Route,
        answer: str | None,
        trajectory: Trajectory | None = None,
        error: str | None = None,
    ) -> tuple[int, Result]:
        self.spent(latency=time.perf_counter() - self.since)
        result = Result(
            query_id=self.query.id,
            answer=answer,
            route=route,
            judgement=self.judgement,
            draft=self.draft,
            verdict=self.verdict,
            trajectory=trajectory,
            timings=self.timings,
            error=error,
        )
        if self.watch is not None:
            self.watch.end(result)
        return self.at, result
