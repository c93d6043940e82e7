"""The order of the phases: no query is lost, none is answered without a model, and no schedule,
order or interleaving changes a decision.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes.calibration import GateMonitor
from speceyes.errors import ConfigError
from speceyes.fallback import AgenticFallback
from speceyes.pipeline import ScheduleConfig, SpecPipeline
from speceyes.pipeline.audit import Auditor
from speceyes.pipeline.parts import Parts
from speceyes.pipeline.request import RequestState
from speceyes.pipeline.route import Facts, Order, Policy, accepted, next_phase, outcome
from speceyes.pipeline.scheduler import Lane, Scheduler
from speceyes.types import Completion, Judgement, Query, Result, Trajectory, Verdict

DOT = Image.new("RGB", (32, 32))


@dataclass(frozen=True)
class Truth:
    """What the phases will say about one query."""

    tools: bool
    judge_fails: bool
    text: str
    draft_fails: bool
    passes: bool
    agent: str | None
    agent_fails: bool
    audited: bool

    @property
    def by_draft(self) -> bool:
        spoken = bool(self.text.strip()) and not self.draft_fails
        return not (self.tools or self.judge_fails) and self.passes and spoken

    def judgement(self) -> Judgement:
        if self.judge_fails:
            return Judgement(True, reason="the judge failed")
        return Judgement(self.tools)

    def draft(self) -> Completion:
        return Completion.failed("down") if self.draft_fails else Completion(self.text)

    def verdict(self) -> Verdict:
        spoken = bool(self.text.strip()) and not self.draft_fails
        return Verdict(self.passes and spoken, 0.5, 0.5, 0.9)

    def trajectory(self) -> Trajectory:
        if self.agent_fails:
            return Trajectory((), None, "error", "the agent is down")
        stop = "answered" if self.agent is not None else "max_steps"
        return Trajectory((), self.agent, stop)  # type: ignore[arg-type]


truths = st.builds(
    Truth,
    tools=st.booleans(),
    judge_fails=st.booleans(),
    text=st.sampled_from(["red", " blue ", "", "  "]),
    draft_fails=st.booleans(),
    passes=st.booleans(),
    agent=st.sampled_from(["green", None]),
    agent_fails=st.booleans(),
    audited=st.booleans(),
)
policies = st.builds(
    Policy,
    judges=st.booleans(),
    drafts=st.booleans(),
    has_agent=st.booleans(),
    order=st.sampled_from(get_args(Order)),
).filter(lambda policy: policy.drafts or policy.has_agent)


def walk(truth: Truth, policy: Policy, direct: bool = False) -> tuple[list[str], Facts, Facts]:
    """Phases of a query to its end, the facts at its answer, and at its end."""
    facts, phases, at_answer = Facts(direct=direct), [], Facts()
    for _ in range(12):
        phase = next_phase(facts, policy)
        phases.append(phase)
        if phase == "done":
            return phases, at_answer, facts
        if phase == "judge":
            facts = _with(facts, judgement=truth.judgement())
        elif phase == "draft":
            facts = _with(facts, draft=truth.draft())
        elif phase == "gate":
            facts = _with(facts, verdict=truth.verdict())
        elif phase in ("agent", "audit"):
            facts = _with(facts, trajectory=truth.trajectory())
        else:
            at_answer = facts
            by_draft = outcome(facts).route == "draft"
            audited = truth.audited and by_draft and policy.has_agent
            facts = _with(facts, answered=True, audited=audited)
    raise AssertionError(f"it never ends: {phases}")


def _with(facts: Facts, **more: object) -> Facts:
    return replace(facts, **more)  # type: ignore[arg-type]


@given(truths, policies, st.booleans())
def test_every_query_ends_after_each_phase_at_most_once(
    truth: Truth, policy: Policy, direct: bool
) -> None:
    phases, _, _ = walk(truth, policy, direct)
    assert phases.count("answer") == 1 and phases[-1] == "done"
    assert len(set(phases)) == len(phases)
    if not policy.judges:
        assert "judge" not in phases
    if not policy.drafts or direct:
        assert not {"judge", "draft", "gate"} & set(phases)
    if not policy.has_agent:
        assert not {"agent", "audit"} & set(phases)


@given(truths, policies, st.booleans())
def test_none_is_answered_without_a_model_having_answered(
    truth: Truth, policy: Policy, direct: bool
) -> None:
    phases, facts, _ = walk(truth, policy, direct)
    ended = outcome(facts)
    if ended.answer is None:
        assert ended.error
    elif ended.route == "draft":
        assert truth.by_draft or (not policy.judges and truth.passes)
        assert facts.draft is not None and ended.answer == facts.draft.text.strip() != ""
        assert facts.verdict is not None and facts.verdict.accepted
        assert not policy.judges or facts.judgement == Judgement(False)
    else:
        assert ended.route == "agent" and "agent" in phases
        assert facts.trajectory is not None and ended.answer == facts.trajectory.answer


@given(truths, st.booleans(), st.booleans())
def test_the_order_changes_what_is_spent_and_never_what_is_decided(
    truth: Truth, judges: bool, has_agent: bool
) -> None:
    ended = []
    for order in get_args(Order):
        _, facts, _ = walk(truth, Policy(judges, True, has_agent, order))
        one = outcome(facts)
        ended.append((one.route, one.answer))
    assert len(set(ended)) == 1


@given(truths, policies)
def test_an_audit_changes_no_answer(truth: Truth, policy: Policy) -> None:
    _, facts, _ = walk(truth, policy)
    answered = outcome(facts)
    phases, facts, end = walk(_audited(truth, True), policy)
    assert outcome(facts) == answered
    assert ("audit" in phases) == (answered.route == "draft" and policy.has_agent)
    assert end.trajectory is None or "agent" in phases or "audit" in phases


def _audited(truth: Truth, audited: bool) -> Truth:
    return replace(truth, audited=audited)


@given(truths, policies, st.sampled_from(["judge", "draft", "gate", "agent"]))
def test_a_request_that_cannot_be_carried_out_ends_at_once(
    truth: Truth, policy: Policy, at: str
) -> None:
    facts = Facts(judgement=truth.judgement() if at != "judge" else None, failure="expired")
    assert next_phase(facts, policy) == "answer"
    assert outcome(facts).error == "expired"
    assert next_phase(_with(facts, answered=True, audited=True), policy) == "done"


# --- the scheduler carries out what the route says ---------------------------------------------


class Phases:
    """Parts that were told what to say about each query."""

    def __init__(self, plan: Sequence[Truth]) -> None:
        self.plan = plan
        self.judged = self.drafted = 0

    def _of(self, query: Query) -> Truth:
        return self.plan[int(query.id)]

    def judge(self, queries: Sequence[Query]) -> list[Judgement]:
        self.judged += len(queries)
        return [self._of(query).judgement() for query in queries]

    def answer(self, queries: Sequence[Query]) -> list[Completion]:
        self.drafted += len(queries)
        drafts = [(query, self._of(query).draft()) for query in queries]
        return [
            Completion(d.text, (int(q.id),), [[0.0]], error=d.error, finish=d.finish)  # type: ignore[arg-type]
            for q, d in drafts
        ]

    def gate(self, draft: Completion) -> Verdict:
        return self.plan[draft.token_ids[0]].verdict()

    def agent(self, query: Query) -> Trajectory:
        return self._of(query).trajectory()

    def parts(self, judges: bool, schedule: ScheduleConfig, auditor: Auditor | None) -> Parts:
        return Parts(
            judge=self.judge if judges else None,
            answerer=self.answer,
            gate=self.gate,
            fallback=AgenticFallback.from_callable(self.agent),
            auditor=auditor,
            schedule=schedule,
        )


def decided(result: Result) -> tuple[str, str | None]:
    return result.route, result.answer


def one_at_a_time(plan: Sequence[Truth], judges: bool) -> list[tuple[str, str | None]]:
    """Decisions by the route alone, a query at a time."""
    found = []
    for truth in plan:
        _, facts, _ = walk(truth, Policy(judges, True, True))
        ended = outcome(facts)
        found.append((ended.route, ended.answer))
    return found


@given(
    plan=st.lists(truths, min_size=1, max_size=24),
    judges=st.booleans(),
    order=st.sampled_from(get_args(Order)),
    batch=st.integers(1, 7),
    overlap=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_no_schedule_or_order_changes_a_decision(
    plan: list[Truth], judges: bool, order: Order, batch: int, overlap: bool
) -> None:
    parts = Phases(plan).parts(judges, ScheduleConfig(batch, order, overlap), None)
    pipe = SpecPipeline(
        judge=parts.judge,
        answerer=parts.answerer,
        gate=parts.gate,
        fallback=parts.fallback,
        schedule=parts.schedule,
    )
    results = pipe([Query("Which?", (DOT,), id=str(i)) for i in range(len(plan))])
    assert [int(result.query_id) for result in results] == list(range(len(plan)))
    assert [decided(result) for result in results] == one_at_a_time(plan, judges)


@given(
    plan=st.lists(truths, min_size=1, max_size=20),
    judges=st.booleans(),
    order=st.sampled_from(get_args(Order)),
    batch=st.integers(1, 5),
    audited=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=80, deadline=None)
def test_no_interleaving_of_lanes_and_submissions_changes_a_decision(
    plan: list[Truth], judges: bool, order: Order, batch: int, audited: bool, seed: int
) -> None:
    monitor = GateMonitor(0.5, share=1.0)  # audits whatever is accepted
    auditor = Auditor(monitor, lambda *_: True) if audited else None
    parts = Phases(plan).parts(judges, ScheduleConfig(batch, order), auditor)
    noted: list[RequestState] = []
    scheduler = Scheduler(parts, on_result=noted.append)
    left = [RequestState(Query("?", (DOT,), id=str(i)), "ab"[i % 2]) for i in range(len(plan))]
    chance = random.Random(seed)
    lanes: tuple[Lane, ...] = ("speculative", "agent", "both")
    found: dict[int, tuple[str, str | None]] = {}
    for turn in itertools.count():
        assert turn < 2000, "something waits for ever"
        if left and chance.random() < 0.5:
            scheduler.submit([left.pop() for _ in range(min(len(left), chance.randint(1, 4)))])
        for request in scheduler.step(chance.choice(lanes)):
            assert int(request.query.id) not in found, "a result came twice"
            assert request in noted, "notes are taken before a result is delivered"
            found[int(request.query.id)] = decided(request.deliver())
        if not (left or scheduler.has_work()):
            break
    assert [found[i] for i in range(len(plan))] == one_at_a_time(plan, judges)
    assert len(noted) == len(plan), "each result is noted once, audits left out"
    by_draft = sum(route == "draft" for route, _ in found.values())
    assert monitor.audits == (by_draft if audited else 0)


@given(plan=st.lists(truths, min_size=1, max_size=40), batch=st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_judging_first_drafts_less_and_drafting_first_judges_less(
    plan: list[Truth], batch: int
) -> None:
    queries = [Query("Which?", (DOT,), id=str(i)) for i in range(len(plan))]
    for order in get_args(Order):
        phases = Phases(plan)
        pipe = SpecPipeline(
            judge=phases.judge,
            answerer=phases.answer,
            gate=lambda draft: Verdict(len(draft.text) > 3, 0.5, 0.5, 0.5),
            schedule=ScheduleConfig(batch, order),
        )
        pipe(queries)
        let_through = sum(not truth.judgement().needs_tools for truth in plan)
        passed = sum(len(truth.text) > 3 and not truth.draft_fails for truth in plan)
        if order == "judge_first":
            assert (phases.judged, phases.drafted) == (len(plan), let_through)
        else:
            accepted = sum(
                len(t.text) > 3 and bool(t.text.strip()) and not t.draft_fails for t in plan
            )
            assert phases.drafted == len(plan)
            assert phases.judged == accepted <= passed


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(ConfigError, match="order='gate_first'"):
        ScheduleConfig(order="gate_first")  # type: ignore[arg-type]


def test_a_closed_scheduler_finishes_what_it_took_and_takes_no_more() -> None:
    plan = [Truth(False, False, "red", False, True, "green", False, True)] * 3
    auditor = Auditor(GateMonitor(0.05, share=1.0), lambda *_: True)
    scheduler = Scheduler(Phases(plan).parts(False, ScheduleConfig(), auditor))
    requests = [RequestState(Query("?", (DOT,), id=str(i))) for i in range(3)]
    scheduler.submit(requests)
    scheduler.close()
    with pytest.raises(ConfigError, match="closed"):
        scheduler.submit(requests)
    assert len(scheduler.step()) == 3
    assert not scheduler.has_work(), "audits that were not begun are given up"


# --- ends, in words -------------------------------------------------------------------------------

RED = Completion(" red ")
NO_TOOLS, TOOLS = Judgement(False), Judgement(True, reason="small print")
PASSED, BELOW = Verdict(True, 0.99, 9.0, 0.9), Verdict(False, 0.5, 2.0, 0.9)
EMPTY = Verdict(False, 0.5, 2.0, 0.9, reason="the draft is empty")


@pytest.mark.parametrize(
    ("facts", "route", "answer", "error"),
    [
        (Facts(failure="cancelled", trajectory=Trajectory((), "x", "answered")),
         "error", None, "cancelled"),
        (Facts(trajectory=Trajectory((), "green", "answered")), "agent", "green", None),
        (Facts(trajectory=Trajectory((), "green", "error", "it broke off")),
         "error", None, "the agent failed: it broke off"),
        (Facts(trajectory=Trajectory((), None, "error")),
         "error", None, "the agent failed: no reason given"),
        (Facts(trajectory=Trajectory((), None, "max_steps")),
         "agent", None, "the agent gave no answer within 0 turns"),
        (Facts(trajectory=Trajectory((), None, "max_steps", "it went in circles")),
         "agent", None, "it went in circles"),
        (Facts(judgement=NO_TOOLS, draft=RED, verdict=PASSED), "draft", "red", None),
        (Facts(draft=RED, verdict=PASSED), "draft", "red", None),
        (Facts(judgement=NO_TOOLS, draft=RED, verdict=PASSED,
               trajectory=Trajectory((), "green", "answered")), "agent", "green", None),
        (Facts(judgement=TOOLS), "error", None,
         "the judge sends it to the agent (small print), and this pipeline has no fallback"),
        (Facts(judgement=Judgement(True), draft=RED, verdict=PASSED), "error", None,
         "the judge sends it to the agent, and this pipeline has no fallback"),
        (Facts(direct=True), "error", None,
         "it was to go to the agent directly, and this pipeline has no fallback"),
        (Facts(judgement=NO_TOOLS, draft=RED, verdict=BELOW), "error", None,
         "the draft's score 0.5 is below 0.9, and this pipeline has no fallback"),
        (Facts(judgement=NO_TOOLS, draft=Completion(""), verdict=EMPTY), "error", None,
         "the draft was rejected: the draft is empty, and this pipeline has no fallback"),
    ],
)  # fmt: skip
def test_each_end_has_its_route_and_its_reason(
    facts: Facts, route: str, answer: str | None, error: str | None
) -> None:
    found = outcome(facts)
    assert (found.route, found.answer, found.error) == (route, answer, error)


@pytest.mark.parametrize("order", get_args(Order))
@pytest.mark.parametrize("rungs", [1, 2, 3])
def test_a_rejected_draft_goes_up_each_rung_and_then_to_the_agent(order: Order, rungs: int) -> None:
    policy = Policy(judges=True, drafts=True, has_agent=True, order=order, rungs=rungs)
    facts = Facts(judgement=NO_TOOLS, draft=RED, verdict=BELOW)
    assert next_phase(facts, policy) == ("draft" if rungs > 1 else "agent"), (
        "it begins at the first"
    )
    for rung in range(rungs - 1):
        assert next_phase(_with(facts, rung=rung), policy) == "draft"
    assert next_phase(_with(facts, rung=rungs - 1), policy) == "agent"
    last = _with(facts, rung=rungs - 1, verdict=PASSED)
    assert next_phase(last, policy) == "answer"
    assert next_phase(_with(last, verdict=None), policy) == "gate"
    unjudged = _with(last, judgement=None)
    assert next_phase(unjudged, policy) == "judge"


def test_a_draft_is_accepted_only_where_nothing_speaks_against_it() -> None:
    whole = Facts(judgement=NO_TOOLS, draft=RED, verdict=PASSED)
    assert accepted(whole) and accepted(_with(whole, judgement=None))
    for against in ({"judgement": TOOLS}, {"draft": None}, {"verdict": None}, {"verdict": BELOW},
                    {"direct": True}):  # fmt: skip
        assert not accepted(_with(whole, **against))


def test_a_failure_ends_a_query_wherever_it_is() -> None:
    policy = Policy(judges=True, drafts=True, has_agent=True)
    for facts in (Facts(), Facts(judgement=TOOLS), Facts(judgement=NO_TOOLS, draft=RED)):
        assert next_phase(_with(facts, failure="expired"), policy) == "answer"
        late = _with(facts, failure="expired", answered=True, audited=True)
        assert next_phase(late, policy) == "done"


@pytest.mark.parametrize("lane", get_args(Lane))
def test_whoever_fails_to_take_note_harms_no_result(
    lane: Lane, caplog: pytest.LogCaptureFixture
) -> None:
    plan = [
        Truth(i % 2 == 0, False, "red", False, i % 3 > 0, "blue", False, False) for i in range(6)
    ]

    def fails(request: RequestState) -> None:
        raise ZeroDivisionError("a secret")

    scheduler = Scheduler(Phases(plan).parts(True, ScheduleConfig(2), None), on_result=fails)
    scheduler.submit([RequestState(Query("?", (DOT,), id=str(i)), "a") for i in range(len(plan))])
    lanes = (lane, "both") if lane == "both" else (lane, "speculative", "agent")
    found = {}
    while scheduler.has_work():
        for one in lanes:
            for request in scheduler.step(one):
                found[int(request.query.id)] = decided(request.deliver())
    assert [found[i] for i in range(len(plan))] == one_at_a_time(plan, True)
    assert caplog.text.count("taken note of: ZeroDivisionError") == len(plan)
    assert "a secret" not in caplog.text
