"""E[L], the seconds that a query is expected to take, from what was measured of its parts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from speceyes.types import Result


@final
@dataclass(frozen=True, slots=True)
class CostParts:
    """Sums over a run of one arm, in seconds and queries.

    Args:
        queries: How many were answered.
        judge: Seconds of all judgements.
        drafted: Queries that were drafted.
        draft: Seconds of all drafts and their gating.
        fell_back: Queries that the agent answered.
        fallback: Seconds of the agent. Where the judge has read the prompt, the agent finds it
            read, so that a fallback costs less than the agent alone on the same query.
        wall: Seconds of the whole run.
    """

    queries: int
    judge: float
    drafted: int
    draft: float
    fell_back: int
    fallback: float
    wall: float

    @classmethod
    def of(cls, results: Iterable[Result], wall: float) -> CostParts:
        """Parts of a run's results.

        Args:
            results: What the arm gave.
            wall: Seconds that it took.
        """
        found = [(one.timings, one.route) for one in results]
        drafts = [t.draft + (t.gate or 0.0) for t, _ in found if t.draft is not None]
        agent = [t.fallback for t, _ in found if t.fallback is not None]
        judge = sum(t.judge or 0.0 for t, _ in found)
        return cls(len(found), judge, len(drafts), sum(drafts), len(agent), sum(agent), wall)

    @classmethod
    def pooled(cls, runs: Iterable[CostParts]) -> CostParts:
        """Several runs as one."""
        names = cls.__dataclass_fields__
        sums = {name: 0.0 for name in names}
        for run in runs:
            for name in names:
                sums[name] += getattr(run, name)
        return cls(**sums)  # type: ignore[arg-type]

    @property
    def outside(self) -> float:
        """Seconds a query outside all phases; 0 where phases ran beside each other."""
        return max(0.0, self.wall - self.judge - self.draft - self.fallback) / self.queries

    @property
    def expected(self) -> float:
        """E[L] = c_J + beta c_S + (1 - beta alpha) L + o, seconds.

        beta is the share of drafted queries and 1 - beta alpha that of fallbacks, L what a fallback
        costs behind the judge's reading, and o what lies outside all phases.

        Example:
            >>> round(CostParts(10, 1.0, 8, 1.6, 4, 8.0, 11.0).expected, 3)
            1.1
        """
        c_judge = self.judge / self.queries
        beta, c_draft = self.drafted / self.queries, self.draft / max(1, self.drafted)
        falls, agent = self.fell_back / self.queries, self.fallback / max(1, self.fell_back)
        return c_judge + beta * c_draft + falls * agent + self.outside
