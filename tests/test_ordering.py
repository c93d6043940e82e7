"""The order of judge and draft changes what is spent, never what is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes.errors import ConfigError
from speceyes.journey import Ticket
from speceyes.ordering import LOOKED_AT, Order, Ordering
from speceyes.pipeline import SpecPipeline
from speceyes.types import Completion, Judgement, Query, Timings, Verdict

DOT = Image.new("RGB", (32, 32))


class Funnel:
    """Judge, answerer and gate that were told what to say about each query, and count calls."""

    def __init__(self, plan: Sequence[tuple[bool, bool]]) -> None:
        self.plan = plan
        self.judged = self.drafted = 0

    def judge(self, queries: Sequence[Query]) -> list[Judgement]:
        self.judged += len(queries)
        return [Judgement(self.plan[int(q.id)][0]) for q in queries]

    def answer(self, queries: Sequence[Query]) -> list[Completion]:
        self.drafted += len(queries)
        return [Completion(f"answer {q.id}", (1,)) for q in queries]

    def gate(self, draft: Completion) -> Verdict:
        return Verdict(self.plan[int(draft.text.split()[1])][1], 0.5, 0.5, 0.5)

    def pipe(self, order: Order, batch: int) -> SpecPipeline:
        return SpecPipeline(
            judge=self.judge, answerer=self.answer, gate=self.gate, batch_size=batch, order=order
        )


@given(
    plan=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80),
    batch=st.integers(1, 20),
)
@settings(max_examples=60, deadline=None)
def test_every_order_accepts_the_same(plan: list[tuple[bool, bool]], batch: int) -> None:
    queries = [Query("Which?", (DOT,), id=str(i)) for i in range(len(plan))]
    wanted = [None if tools or not passed else f"answer {i}"
              for i, (tools, passed) in enumerate(plan)]  # fmt: skip
    for order in get_args(Order):
        funnel = Funnel(plan)
        results = funnel.pipe(order, batch)(queries)
        assert [result.answer for result in results] == wanted
        assert all((result.error is None) == (result.answer is not None) for result in results)
        if order == "judge_first":
            assert (funnel.judged, funnel.drafted) == (len(plan), sum(not t for t, _ in plan))
        elif order == "draft_first":
            assert (funnel.judged, funnel.drafted) == (sum(p for _, p in plan), len(plan))
        elif order == "concurrent":
            assert (funnel.judged, funnel.drafted) == (len(plan), len(plan))


def batch(judge_s: float, draft_s: float, let_through: float, accepted: float) -> list[Ticket]:
    n = LOOKED_AT
    found = []
    for i in range(n):
        found.append(
            Ticket(
                i,
                Query("Which?", (DOT,)),
                0.0,
                Judgement(i >= let_through * n),
                Completion("red"),
                Verdict(i < accepted * n, 0.5, 0.5, 0.5),
                Timings(judge=judge_s, draft=draft_s, gate=0.0),
            )
        )
    return found


@pytest.mark.parametrize(
    ("judge_s", "draft_s", "let_through", "accepted", "cheaper"),
    [
        (1.0, 1.0, 0.9, 0.2, "draft_first"),
        (1.0, 1.0, 0.2, 0.9, "judge_first"),
        (5.0, 1.0, 0.5, 0.5, "draft_first"),
        (1.0, 5.0, 0.5, 0.5, "judge_first"),
    ],
)
def test_auto_takes_the_cheaper_order(
    judge_s: float, draft_s: float, let_through: float, accepted: float, cheaper: Any
) -> None:
    ordering = Ordering("auto")
    assert ordering.now == "judge_first", "until enough was seen"
    ordering.run(
        batch(judge_s, draft_s, let_through, accepted), lambda tickets: None, lambda tickets: None
    )
    first = judge_s + let_through * draft_s
    second = draft_s + accepted * judge_s
    assert cheaper == ("judge_first" if first < second else "draft_first")
    assert ordering.now == cheaper


def test_a_failed_judge_means_the_agent_in_every_order() -> None:
    def broken(queries: Sequence[Query]) -> list[Judgement]:
        raise RuntimeError("no such luck")

    funnel = Funnel([(False, True)] * 3)
    queries = [Query("Which?", (DOT,), id=str(i)) for i in range(3)]
    for order in get_args(Order):
        pipe = SpecPipeline(judge=broken, answerer=funnel.answer, gate=funnel.gate, order=order)
        for result in pipe(queries):
            assert result.answer is None
            assert "no such luck" in str(result.error)


def test_an_unknown_order_is_refused() -> None:
    funnel = Funnel([])
    with pytest.raises(ConfigError, match="order='gate_first'"):
        funnel.pipe("gate_first", 1)  # type: ignore[arg-type]
