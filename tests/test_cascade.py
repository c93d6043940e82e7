"""Cascades: nothing is lost, nobody answers what no model said, and thresholds are the cheapest."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes.answerer import SpeculativeAnswerer
from speceyes.calibration import Scoring, calibrate
from speceyes.errors import CalibrationError, ConfigError, InputError
from speceyes.fallback import AgenticFallback
from speceyes.gate import SeparabilityGate
from speceyes.gates import MarginGate, RecordedDrafts, choose_thresholds
from speceyes.gates.joint_thresholds import cheapest, grid, outcome, outcomes
from speceyes.judge import ToolJudge
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import ScheduleConfig, SpecPipeline
from speceyes.strategies import Cascade, Drafter, drafter_of
from speceyes.types import Completion, Query, Result, Verdict

DOT = Image.new("RGB", (64, 64))
CLEAR, TORN = 12.0, 3.0


def step(answer: Any, margin: Any = CLEAR, name: str = "") -> Drafter:
    model = ScriptedModel(answer, margin=margin, name=name or "scripted")
    return Drafter(SpeculativeAnswerer(model, top_k=8), SeparabilityGate(0.98, top_k=8), name)


def agent(answer: Any = "<answer>agent</answer>") -> AgenticFallback:
    return AgenticFallback(ScriptedModel(answer), tools=["zoom"])


def query(text: str = "Which?", name: str = "") -> Query:
    return Query(text, (DOT,), id=name)


@pytest.mark.parametrize("sure", [0, 1, 2, None])
def test_the_first_sure_drafter_answers_and_the_result_says_which(sure: int | None) -> None:
    steps = [step(f"word{i}", CLEAR if i == sure else TORN, f"size {i}") for i in range(3)]
    [result] = Cascade(steps, fallback=agent())([query()])
    assert drafter_of(result) == sure
    assert result.answer == ("agent" if sure is None else f"word{sure}")
    assert result.route == ("agent" if sure is None else "draft")
    assert result.verdict is not None
    if sure is not None:
        assert result.verdict.reason == f"answered by drafter {sure + 1} of 3 (size {sure})"
    again = Result.from_json(result.to_json())
    assert drafter_of(again) == sure and again.verdict == result.verdict


def test_one_drafter_is_the_pipeline() -> None:
    def margin(asked: Any) -> float:
        return CLEAR if "clear" in asked.messages[-1].text else TORN

    parts = step("red", margin)
    queries = [query(q, q) for q in ("clear one", "torn", "clear two", "torn too")]
    plain = SpecPipeline(answerer=parts.answerer, gate=parts.gate, fallback=agent())(queries)
    stair = Cascade([parts], fallback=agent())(queries)
    for one, other in zip(plain, stair, strict=True):
        assert (one.query_id, one.answer, one.route) == (other.query_id, other.answer, other.route)


def test_a_drafter_is_asked_only_what_those_before_it_left() -> None:
    seen: list[list[int]] = [[], []]

    def asked(i: int) -> Any:
        def say(conversation: Any, sampling: Any) -> str:
            seen[i].append(int(conversation.messages[-1].text.split()[1]))
            return "red"

        return say

    def margin(conversation: Any) -> float:
        return CLEAR if int(conversation.messages[-1].text.split()[1]) % 2 else TORN

    steps = [step(asked(0), margin), step(asked(1), margin)]
    pipe = Cascade(steps, schedule=ScheduleConfig(4), fallback=agent())
    results = pipe([query(f"number {i} ?") for i in range(10)])
    assert sorted(seen[0]) == list(range(10)) and sorted(seen[1]) == [0, 2, 4, 6, 8]
    assert [drafter_of(r) for r in results] == [None, 0] * 5


SAID = st.sampled_from(["red", "", "   ", "word " * 30, "fail", "raise"])


@settings(max_examples=40, deadline=None)
@given(
    table=st.lists(
        st.lists(st.tuples(SAID, st.sampled_from([CLEAR, TORN])), min_size=3, max_size=3),
        max_size=7,
    ),
    by_agent=st.sampled_from(["<answer>agent</answer>", "", "fail", None]),
    mad=st.sampled_from(["", "accepts", "raises"]),
    batch=st.integers(1, 4),
)
def test_nothing_is_lost_and_nothing_is_made_up(
    table: list[list[tuple[str, float]]], by_agent: str | None, mad: str, batch: int
) -> None:
    """Any script, with engines that break their promise and gates that break theirs."""

    def script(i: int) -> Any:
        def say(conversation: Any, sampling: Any) -> str:
            said = table[int(conversation.messages[-1].text.split()[1])][i][0]
            if said == "fail":
                raise RuntimeError("gone")
            return f"{said}{i}" if said == "red" else said

        return say

    def margin(i: int) -> Any:
        return lambda asked: table[int(asked.messages[-1].text.split()[1])][i][1]

    def gate(completion: Completion) -> Verdict:
        if mad == "raises":
            raise ValueError("broken gate")
        if mad == "accepts":
            return Verdict(True, 1.0, 1.0, 0.0)
        return SeparabilityGate(0.98, top_k=8)(completion)

    def answerer(i: int) -> Any:
        inner = SpeculativeAnswerer(ScriptedModel(script(i), margin=margin(i)), top_k=8)

        def ask(queries: Any) -> Any:
            if any(table[int(q.question.split()[1])][i][0] == "raise" for q in queries):
                raise RuntimeError("the whole batch")
            return inner(queries)

        return ask

    said_by_agent = RuntimeError("gone") if by_agent == "fail" else by_agent
    fallback = None if by_agent is None else agent(said_by_agent)
    pipe = Cascade(
        [(answerer(i), gate) for i in range(3)], fallback=fallback, schedule=ScheduleConfig(batch)
    )
    results = pipe([query(f"number {i} ?", f"q{i}") for i in range(len(table))])
    assert [r.query_id for r in results] == [f"q{i}" for i in range(len(table))]
    for result, row in zip(results, table, strict=True):
        place = drafter_of(result)
        if result.route == "draft":
            assert place is not None
            said, margin_then = row[place]
            assert said not in ("", "   ", "fail", "raise") and mad != "raises"
            assert result.answer == (f"red{place}" if said == "red" else result.draft.text.strip())
            if not mad:
                assert margin_then == CLEAR and said == "red"
                assert all((s, m) != ("red", CLEAR) for s, m in row[:place])
        else:
            assert place is None
            assert (result.answer is None) == (result.error is not None)
            assert result.answer in (None, "agent") or by_agent == ""


@pytest.mark.parametrize("schedule", ["batched", "overlapped"])
def test_answers_do_not_depend_on_the_schedule(schedule: Any) -> None:
    def margin(asked: Any) -> float:
        return CLEAR if "sky" in asked.messages[-1].text else TORN

    steps = [step("blue", margin, "a"), step("green", TORN, "b")]
    queries = [query("Which is the sky's?", "0"), query("And the dog's?", "1")]
    judge = ToolJudge(ScriptedModel("no"), dialect=None)
    pipe = Cascade(
        steps,
        judge=judge,
        fallback=agent(),
        schedule=ScheduleConfig(1, overlap=schedule == "overlapped"),
    )
    results = sorted(pipe.stream(queries), key=lambda r: r.query_id)
    assert [(r.answer, drafter_of(r)) for r in results] == [("blue", 0), ("agent", None)]
    assert [r.answer for r in pipe(queries)] == ["blue", "agent"]


def test_one_query_is_one_result() -> None:
    pipe = Cascade([step("red")])
    assert pipe(DOT, "Which?").answer == "red"
    assert pipe(query()).answer == "red"
    with pytest.raises(InputError):
        pipe(DOT, " ")


def test_parts_that_do_not_fit_are_named() -> None:
    with pytest.raises(ConfigError, match="no drafters"):
        Cascade([])
    small = SpeculativeAnswerer(ScriptedModel("red"), top_k=4)
    with pytest.raises(ConfigError, match=r"drafter 2 of 2: .*top_k=4"):
        Cascade([step("red"), (small, SeparabilityGate(0.98, top_k=8))])
    made = calibrate([9.0] * 60, [0] * 60, Scoring("another", "ab12", top_k=4))
    with pytest.raises(CalibrationError, match="drafter 1 of 1"):
        Cascade([(small, SeparabilityGate.from_calibration(made))])


# Thresholds, chosen together.


def plain_outcome(
    drafts: RecordedDrafts, setting: tuple[float | None, ...]
) -> tuple[float, int, int]:
    """(cost, accepted, bad), a query at a time."""
    cost, accepted, bad = 0.0, 0, 0
    for scores, wrong in zip(drafts.scores, drafts.bad, strict=True):
        for i, threshold in enumerate(setting):
            if threshold is None:
                continue
            cost += drafts.costs[i]
            if scores[i] >= threshold:
                accepted, bad = accepted + 1, bad + int(wrong[i])
                break
        else:
            cost += drafts.agent
    return cost / len(drafts.scores), accepted, bad


@st.composite
def recordings(draw: st.DrawFn) -> RecordedDrafts:
    n, m = draw(st.integers(1, 8)), draw(st.integers(1, 3))
    scores = draw(
        st.lists(st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0, math.nan]), min_size=m, max_size=m),
                 min_size=n, max_size=n))  # fmt: skip
    bad = draw(st.lists(st.lists(st.booleans(), min_size=m, max_size=m), min_size=n, max_size=n))
    costs = tuple(draw(st.sampled_from([0.0, 1.0, 2.5])) for _ in range(m))
    return RecordedDrafts(np.array(scores), np.array(bad), costs, draw(st.sampled_from([0.5, 9.0])))


@settings(max_examples=60, deadline=None)
@given(drafts=recordings(), target=st.sampled_from([0.1, 0.34, 0.5]))
def test_the_search_agrees_with_brute_force(drafts: RecordedDrafts, target: float) -> None:
    """Over every threshold that tells the scores apart, since there are at most four."""
    every = list(itertools.product([None, 1.0, 2.0, 3.0, 4.0], repeat=len(drafts.costs)))
    least = math.inf
    for setting in every:
        cost, accepted, bad = plain_outcome(drafts, setting)
        found = outcome(drafts, setting)
        assert (found.accepted, found.bad) == (accepted, bad)
        assert found.cost == pytest.approx(cost)
        if bad <= target * accepted:
            least = min(least, cost)
    best = cheapest(drafts, target, size=4)
    assert best.cost == pytest.approx(least)
    assert best.bad <= target * best.accepted


def simulated(n: int, seed: int) -> RecordedDrafts:
    """Two drafters, the second larger, and questions that are hard for both at once."""
    random = np.random.default_rng(seed)
    ease = random.normal(0, 1, n)
    scores = np.stack([ease + random.normal(0, 0.6, n), ease + 0.7 + random.normal(0, 0.4, n)], 1)
    bad = random.random((n, 2)) < 1 / (1 + np.exp(2.5 * np.stack([ease, ease + 0.7], 1)))
    return RecordedDrafts(scores, bad, (0.5, 8.0), 30.0)


def test_the_promise_holds_as_often_as_it_says() -> None:
    pool = simulated(20_000, 0)
    random = np.random.default_rng(1)
    target, delta, broken, certified, cost = 0.1, 0.2, 0, 0, 0.0
    for i in range(40):
        drawn = random.choice(20_000, 500, replace=False)
        found = choose_thresholds(pool.part(drawn), target=target, delta=delta, size=6, seed=i)
        if not found.certified:
            assert set(found.setting) == {None}
            continue
        certified += 1
        truth = outcome(pool, found.setting)
        broken += truth.risk >= target
        cost += truth.cost
    assert certified >= 30
    # 40 draws at delta = 0.2: more than 16 failures has a chance below 1 in 1,000.
    assert broken <= 16
    assert cost / certified < 30.0


def test_two_drafters_are_cheaper_than_either_alone() -> None:
    pool = simulated(6000, 2)
    both = cheapest(pool, 0.1, size=12)
    alone = [
        cheapest(
            RecordedDrafts(pool.scores[:, [i]], pool.bad[:, [i]], (pool.costs[i],), pool.agent),
            0.1, size=12,
        ).cost for i in range(2)
    ]  # fmt: skip
    assert both.cost <= min(alone)
    assert None not in both.setting


def test_chosen_thresholds_make_a_cascade() -> None:
    found = choose_thresholds(simulated(1200, 3), target=0.1, size=6)
    assert found.certified and found.n == 600 and found.tested >= 1
    gates = [MarginGate(max(t, 0.0), scale="log") for t in found.setting if t is not None]
    words = ("red", "blue")
    kept = [words[i] for i, t in enumerate(found.setting) if t is not None]
    steps = [
        (SpeculativeAnswerer(ScriptedModel(w, margin=9.0)), g)
        for w, g in zip(kept, gates, strict=True)
    ]
    assert Cascade(steps)([query()])[0].answer == kept[0]


def test_where_nothing_can_be_certified_the_agent_does_it_all() -> None:
    drafts = RecordedDrafts(np.ones((40, 2)), np.ones((40, 2), bool), (1.0, 2.0), 9.0)
    found = choose_thresholds(drafts)
    assert (found.setting, found.certified, found.cost) == ((None, None), False, 9.0)


def test_what_can_not_be_searched_says_so() -> None:
    ones, no = np.ones((3, 2)), np.zeros((3, 2), bool)
    for fields, message in (
        ((ones, no[:, :1], (1.0, 1.0), 1.0), "queries, drafters"),
        ((ones, no, (1.0,), 1.0), "1 costs for 2"),
        ((ones, no, (1.0, -1.0), 1.0), "from 0 up"),
        ((ones * math.inf, no, (1.0, 1.0), 1.0), "NaN"),
    ):
        with pytest.raises(InputError, match=message):
            RecordedDrafts(*fields)
    good = RecordedDrafts(ones, no, (1.0, 1.0), 9.0)
    with pytest.raises(InputError, match="2 drafters"):
        outcome(good, (1.0,))
    with pytest.raises(InputError, match="one part empty"):
        choose_thresholds(good, held_out=0.01)
    with pytest.raises(ConfigError, match="target"):
        choose_thresholds(good, target=0.0)
    wide = RecordedDrafts(np.random.default_rng(0).random((99, 4)), np.zeros((99, 4), bool),
                          (1.0,) * 4, 9.0)  # fmt: skip
    with pytest.raises(ConfigError, match="coarser grid"):
        outcomes(wide, grid(wide, 50))
