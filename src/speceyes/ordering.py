"""Which of judge and draft comes first; local to one run.

A draft is accepted where the judge needs no tools and the gate lets it pass, so that the order
changes what is spent and never what is accepted. With c_J and c_S the seconds of a judgement and
a draft, beta the share that the judge lets through and a the share that the gate lets pass,
judging first costs c_J + beta c_S a query, drafting first c_S + a c_J.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeAlias, final

from speceyes.journey import Ticket

Order: TypeAlias = Literal["judge_first", "draft_first", "concurrent", "auto"]
Phase: TypeAlias = Callable[[Sequence[Ticket]], None]

LOOKED_AT = 32
"""Queries after which "auto" decides, and decides anew with each batch."""


@final
class Ordering:
    """Runs judge and draft on batches, in one order or in the cheaper one.

    Args:
        order: See `SpecPipeline`.
    """

    def __init__(self, order: Order) -> None:
        self.order: Order = order
        self._judged = self._let_through = self._drafted = self._accepted = 0
        self._judge_s = self._draft_s = 0.0

    @property
    def now(self) -> Order:
        """The order that the next batch is run in."""
        if self.order != "auto":
            return self.order
        if min(self._judged, self._drafted) < LOOKED_AT:
            return "judge_first"
        c_judge, c_draft = self._judge_s / self._judged, self._draft_s / self._drafted
        let_through = self._let_through / self._judged
        accepted = self._accepted / self._drafted
        judging_first = c_judge + let_through * c_draft
        return "judge_first" if judging_first <= c_draft + accepted * c_judge else "draft_first"

    def run(self, tickets: Sequence[Ticket], judge: Phase, draft: Phase) -> None:
        """Lets both phases write down on the tickets what they say.

        Args:
            tickets: One batch.
            judge: Judges those it is given.
            draft: Drafts those it is given, and holds the drafts against the gate.
        """
        order = self.now
        if order == "draft_first":
            draft(tickets)
            judge([ticket for ticket in tickets if ticket.accepted])
        elif order == "concurrent":
            with ThreadPoolExecutor(1, thread_name_prefix="speceyes-judge") as pool:
                judging = pool.submit(judge, tickets)
                draft(tickets)
                judging.result()
        else:
            judge(tickets)
            draft([ticket for ticket in tickets if ticket.wants_draft])
        if self.order == "auto":
            for ticket in tickets:
                self._note(ticket)

    def _note(self, ticket: Ticket) -> None:
        if ticket.judgement is not None:
            self._judged += 1
            self._let_through += not ticket.judgement.needs_tools
            self._judge_s += ticket.timings.judge or 0.0
        if ticket.verdict is not None:
            self._drafted += 1
            self._accepted += ticket.verdict.accepted
            self._draft_s += (ticket.timings.draft or 0.0) + (ticket.timings.gate or 0.0)
