"""A share of accepted drafts goes through the agent as well; a broken promise shuts the gate."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flat_options import grouped
from speceyes.answerer import SpeculativeAnswerer
from speceyes.calibration import Arming, Audit, GateMonitor, WatchedGate
from speceyes.errors import ConfigError
from speceyes.evaluation.grading import same_answer
from speceyes.fallback import AgenticFallback
from speceyes.gate import SeparabilityGate
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import SpecPipeline
from speceyes.pipeline.audit import Auditor
from speceyes.types import Query, Trajectory
from test_session import Shuffled

DOT = Image.new("RGB", (32, 32))


def same(query: Query, draft: str, agent: str) -> bool:
    return same_answer(draft, agent, query.choices)


def pipe(auditor: Auditor | None, agent: Any, **options: Any) -> SpecPipeline:
    small = ScriptedModel("red", margin=lambda c: 2.0 if "unsure" in c.messages[-1].text else 12.0)
    model = agent if hasattr(agent, "generate") else ScriptedModel(agent)
    return SpecPipeline(
        answerer=SpeculativeAnswerer(small),
        gate=SeparabilityGate(0.98),
        fallback=AgenticFallback(model, tools=["zoom"], max_batch=3),
        auditor=auditor,
        **grouped(batch_size=5, **options),
    )


def queries(n: int, unsure_every: int = 4) -> list[Query]:
    kinds = ["unsure" if i % unsure_every == 0 else "clear" for i in range(n)]
    return [Query(f"{kind} {i}", (DOT,), id=str(i)) for i, kind in enumerate(kinds)]


class Ledger:
    """A monitor that audits everything, never trips, and writes down what counts, in its order."""

    def __init__(self) -> None:
        self.arming = Arming(1, 0.5, "selective", 0.05)
        self.standing = self.arming, False
        self.tripped = False
        self.drawn = 0
        self.outcomes: dict[int, bool | None] = {}

    @property
    def told(self) -> list[bool]:
        ordered = (self.outcomes[number] for number in sorted(self.outcomes))
        return [outcome for outcome in ordered if outcome is not None]

    def observe(
        self, score: float | None, accepted: bool, *, arming: int | None = None
    ) -> Audit | None:
        self.drawn += accepted
        return Audit(self.drawn, 1) if accepted else None

    def audit(self, disagreed: bool, audit: Audit) -> None:
        self.outcomes[audit.number] = disagreed

    def leave_out(self, audit: Audit) -> None:
        self.outcomes[audit.number] = None


@pytest.mark.parametrize("schedule", ["batched", "overlapped"])
def test_audited_queries_are_answered_by_draft_and_every_audit_is_told(schedule: Any) -> None:
    monitor = GateMonitor(0.2, share=0.5)
    results = pipe(Auditor(monitor, same), "<answer>Red.</answer>", schedule=schedule)(queries(120))
    assert [r.query_id for r in results] == [str(i) for i in range(120)]
    drafts = [r for r in results if r.route == "draft"]
    assert len(drafts) == 90 and all(r.trajectory is None for r in drafts)
    assert 25 <= monitor.audits <= 65
    assert monitor.disagreements == 0 and not monitor.tripped


def test_a_broken_promise_shuts_the_gate(caplog: pytest.LogCaptureFixture) -> None:
    monitor = GateMonitor(0.05, share=0.5)
    made = pipe(Auditor(monitor, same), "<answer>blue</answer>", schedule="batched")
    with caplog.at_level(logging.WARNING, logger="speceyes.pipeline.audit"):
        results = made(queries(200))
    assert monitor.tripped
    assert caplog.text.count("the gate is shut") == 1
    late = results[-60:]
    assert {r.route for r in late} == {"agent"} and {r.answer for r in late} == {"blue"}
    rejected = next(r for r in late if r.query_id == "197")
    assert rejected.verdict is not None and "tripped" in rejected.verdict.reason


def test_an_agent_without_an_answer_never_makes_a_draft_look_safe() -> None:
    ledger = Ledger()
    pipe(Auditor(ledger, same), RuntimeError("the agent is down"))(queries(20))  # type: ignore[arg-type]
    assert ledger.told == [True] * 15


def test_what_cannot_be_compared_does_not_agree() -> None:
    def broken(query: Query, draft: str, agent: str) -> bool:
        raise ValueError("no")

    ledger = Ledger()
    pipe(Auditor(ledger, broken), "<answer>red</answer>")(queries(8))  # type: ignore[arg-type]
    assert ledger.told == [True] * 6


@given(
    agree=st.lists(st.booleans(), min_size=1, max_size=25),
    order=st.lists(st.integers(0, 20), min_size=1, max_size=8).filter(any),
)
@settings(max_examples=30, deadline=None)
def test_outcomes_come_in_the_order_in_which_audits_were_drawn(
    agree: list[bool], order: list[int]
) -> None:
    """However the agent's turns end: what agrees may take more of them than what doesn't."""
    zoom = '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 9, 9]}}'
    script = {
        f"#{i}.": [*[zoom + "</tool_call>"] * (i % 3), f"<answer>{'red' if a else 'blue'}</answer>"]
        for i, a in enumerate(agree)
    }
    ledger = Ledger()
    made = pipe(Auditor(ledger, same), Shuffled(script, order))  # type: ignore[arg-type]
    results = made([Query(f"clear #{i}.", (DOT,)) for i in range(len(agree))])
    assert all(r.route == "draft" for r in results)
    assert ledger.told == [not a for a in agree]


def test_a_stream_that_is_closed_gives_its_audits_up_and_the_next_goes_on() -> None:
    ledger = Ledger()
    made = pipe(Auditor(ledger, same), "<answer>red</answer>", schedule="batched")  # type: ignore[arg-type]
    stream = made.stream(queries(40, unsure_every=1000))
    for _ in range(3):
        next(stream)
    stream.close()
    before = len(ledger.told)
    made(queries(10, unsure_every=1000))
    assert len(ledger.told) >= before + 9


def test_threads_may_share_an_auditor() -> None:
    auditor = Auditor(GateMonitor(0.3, share=1.0), same)

    def work() -> None:
        for i in range(200):
            number = auditor.observe(9.0, True)
            assert number is not None
            if i % 5 == 0:
                auditor.give_up(number)
            else:
                query = Query("Which?", (DOT,))
                auditor.report(number, query, "red", Trajectory((), "red", "answered"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert auditor.monitor.audits == 4 * 160 and auditor.monitor.disagreements == 0


def test_an_auditor_needs_something_to_audit_and_somebody_to_do_it() -> None:
    auditor = Auditor(GateMonitor(0.05), same)
    with pytest.raises(ConfigError, match="needs drafts to audit, and a fallback"):
        SpecPipeline(
            answerer=SpeculativeAnswerer(ScriptedModel("red")),
            gate=SeparabilityGate(0.9),
            auditor=auditor,
        )
    with pytest.raises(ConfigError, match="can't be called"):
        Auditor(GateMonitor(0.05), "equal")  # type: ignore[arg-type]


def test_a_gate_that_is_watched_by_the_same_monitor_is_not_wrapped_again() -> None:
    monitor = GateMonitor(0.05)
    gate = WatchedGate(SeparabilityGate(0.98), monitor)
    agent = AgenticFallback(ScriptedModel("<answer>red</answer>"), tools=["zoom"])
    made = SpecPipeline(
        answerer=SpeculativeAnswerer(ScriptedModel("red")),
        gate=gate,
        fallback=agent,
        auditor=Auditor(monitor, same),
    )
    assert made.gate is gate


def test_audits_that_pile_up_are_done_before_more_queries() -> None:
    """Every draft is audited while every second query needs the agent: nothing grows."""
    held: list[int] = []

    ledger = Ledger()
    auditor = Auditor(ledger, same)  # type: ignore[arg-type]
    made = pipe(auditor, "<answer>red</answer>", schedule="batched")

    def source() -> Any:
        for i in range(300):
            held.append(i)
            yield Query(f"{'unsure' if i % 2 else 'clear'} {i}", (DOT,), id=str(i))

    worst = 0
    done: Sequence[Any] = []
    for n, _ in enumerate(made.stream(source())):
        worst = max(worst, len(held) // 2 - len(ledger.told))
        done = range(n + 1)
    assert len(done) == 300 and len(ledger.told) == 150
    assert worst < 40


@pytest.mark.parametrize("begun", [False, True])
def test_an_audit_is_late_from_its_deadline_on(begun: bool) -> None:
    """From when it was drawn, and again from when the agent takes it up."""
    now = [5.0]
    auditor = Auditor(GateMonitor(0.5, share=1.0), same, timeout_s=0.5, clock=lambda: now[0])
    number = auditor.observe(None, True)
    assert number == 1
    now[0] = 5.25
    if begun:
        assert auditor.begin(number)
    end = 5.75 if begun else 5.5
    for now[0], runs in ((end - 1e-9, True), (end, False)):
        auditor.expire()
        assert auditor.runs(number) is runs
    assert (auditor.monitor.audits, auditor.monitor.disagreements) == (1, 1)
    assert auditor.observe(None, False) is None
    assert not auditor.begin(number) and not auditor.begin(99), "it isn't wanted any more"


@pytest.mark.parametrize("timeout", [0, -1.0, "9", None, True, float("nan")])
def test_a_timeout_is_above_nothing(timeout: Any) -> None:
    with pytest.raises(ConfigError, match="timeout_s"):
        Auditor(GateMonitor(0.5), same, timeout_s=timeout)


@pytest.mark.parametrize("answer", [None, "red", "blue"])
def test_only_an_answer_that_agrees_is_no_disagreement(answer: str | None) -> None:
    ledger = Ledger()
    auditor = Auditor(ledger, same)  # type: ignore[arg-type]
    number = auditor.observe(None, True)
    assert number is not None
    auditor.report(number, Query("?", (DOT,)), "red", Trajectory((), answer, "max_steps"))
    assert ledger.told == [answer != "red"]
