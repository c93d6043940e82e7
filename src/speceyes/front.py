"""Judge, draft and gate on one batch: what happens to queries before the agent."""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias, final

from speceyes.answerer import SpeculativeAnswerer
from speceyes.isolation import describe, isolated
from speceyes.journey import Ticket
from speceyes.ordering import Order
from speceyes.types import Completion, Floor, Judgement, Query, Verdict

_log = logging.getLogger(__name__)

Judge: TypeAlias = Callable[[Sequence[Query]], Sequence[Judgement]]
Answerer: TypeAlias = Callable[[Sequence[Query]], Sequence[Completion]]
Gate: TypeAlias = Callable[[Completion], Verdict]


@final
class Front:
    """Writes down on tickets what judge, drafter and gate say.

    Args:
        judge: Phase I; None judges nothing.
        answerer: Phase II; None drafts nothing.
        gate: Phase III.
        order: See `SpecPipeline`.
        early: See `SpecPipeline`.
    """

    def __init__(
        self,
        judge: Judge | None,
        answerer: Answerer | None,
        gate: Gate | None,
        *,
        order: Order,
        early: bool,
    ) -> None:
        self._judge, self._answerer, self._gate = judge, answerer, gate
        self._order, self._early = order, early

    def judge(self, tickets: Sequence[Ticket]) -> None:
        """Phase I."""
        if self._judge is None or not tickets:
            return
        start = time.perf_counter()
        judgements = isolated(
            self._judge,
            [ticket.query for ticket in tickets],
            lambda reason: Judgement(True, reason=f"the judge failed: {reason}"),
        )
        seconds = time.perf_counter() - start
        for ticket, judgement in zip(tickets, judgements, strict=True):
            ticket.judgement = judgement
            ticket.spent(judge=seconds / len(tickets))
            if ticket.watch is not None:
                ticket.watch.phase("judge", seconds, judgement, len(tickets))

    def draft(self, tickets: Sequence[Ticket]) -> None:
        """Phases II and III."""
        if self._answerer is None or self._gate is None or not tickets:
            return
        start = time.perf_counter()
        queries = [ticket.query for ticket in tickets]
        drafts = isolated(self._asking(tickets), queries, Completion.failed)
        seconds = time.perf_counter() - start
        for ticket, draft in zip(tickets, drafts, strict=True):
            if draft.error is not None and not ticket.wants_draft:
                continue  # given up, since the judge was quicker
            if ticket.watch is not None:
                ticket.watch.phase("draft", seconds, draft, len(tickets))
            start = time.perf_counter()
            ticket.draft, ticket.verdict = draft, self._verdict(draft, ticket.gate)
            gating = time.perf_counter() - start
            ticket.spent(draft=seconds / len(tickets), gate=gating)
            if ticket.watch is not None:
                ticket.watch.phase("gate", gating, ticket.verdict)

    def _asking(
        self, tickets: Sequence[Ticket]
    ) -> Callable[[Sequence[Query]], Sequence[Completion]]:
        """The answerer, with what may end a draft early where it can be told."""
        assert self._answerer is not None
        if not (self._early and isinstance(self._answerer, SpeculativeAnswerer)):
            return self._answerer
        floor = getattr(self._gate, "floor", None)
        floor = floor if isinstance(floor, Floor) else None
        if self._order != "concurrent":
            return functools.partial(self._answerer, floor=floor)
        by_query = {id(ticket.query): ticket for ticket in tickets}

        def ask(queries: Sequence[Query]) -> Sequence[Completion]:
            mine = [by_query[id(query)] for query in queries]
            return answerer(
                queries,
                floor=floor,
                unwanted=lambda: [i for i, ticket in enumerate(mine) if not ticket.wants_draft],
            )

        answerer = self._answerer
        return ask

    def _verdict(self, draft: Completion, own: Gate | None) -> Verdict:
        """The gate's, or that of the query's own gate."""
        assert self._gate is not None
        verdict = _judged(self._gate, draft)
        if own is not None:
            mine = _judged(own, draft)
            # What the loosest gate rejects, none accepts; what it calls blank, it keeps blank.
            verdict = mine if verdict.accepted or not mine.accepted else verdict
        if verdict.accepted and (draft.error is not None or not draft.text.strip()):
            # No score makes an answer out of nothing, whichever gate gave it.
            reason = draft.error or "the draft is blank"
            return dataclasses.replace(verdict, accepted=False, reason=reason)
        return verdict


def _judged(gate: Gate, draft: Completion) -> Verdict:
    try:
        return gate(draft)
    except Exception as exc:  # noqa: BLE001 - a draft that can't be scored is rejected
        _log.warning("the gate failed: %s", describe(exc))
        threshold = float(getattr(gate, "threshold", float("nan")))
        return Verdict(False, None, None, threshold, reason=f"gate failed: {describe(exc)}")
