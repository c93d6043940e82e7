"""A running gate keeps its promise: arming anew, late, lost and failed audits, serving."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes.answerer import SpeculativeAnswerer
from speceyes.bench.promises import running
from speceyes.bench.promises.running import draft, made
from speceyes.calibration import Calibration, GateMonitor, WatchedGate, calibrate
from speceyes.calibration.arming import share_of_delta
from speceyes.errors import CalibrationError, ConfigError
from speceyes.fallback import AgenticFallback
from speceyes.gate import SeparabilityGate
from speceyes.gates.margin import MarginGate
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import SpecPipeline
from speceyes.pipeline.audit import Auditor
from speceyes.pipeline.config import ScheduleConfig
from speceyes.server.thresholds import with_threshold
from speceyes.types import Query, Trajectory
from support.served import asking, pipeline, serving

DOT = Image.new("RGB", (32, 32))
OLD, NEW = made(6.0), made(14.0, seed=1)


@pytest.mark.parametrize(
    "experiment",
    [
        running.rearming,
        lambda: running.old_audits(20),
        lambda: running.many_armings(200, 6, 200),
        lambda: running.bursts(4, 500),
        lambda: running.predictable(2500),
        running.lost_audits,
    ],
)
def test_what_was_promised_of_a_running_gate_is_kept(experiment: Any) -> None:
    found = experiment()
    assert found.kept, found


# --- arming anew ------------------------------------------------------------------------------


def test_a_gate_never_decides_by_half_a_calibration() -> None:
    """Another thread re-arms all the time: each verdict is wholly of one calibration."""
    monitor = GateMonitor.from_calibration(OLD, seed=0)
    gate = WatchedGate(SeparabilityGate.from_calibration(OLD), monitor)
    ended = threading.Event()

    def rearm() -> None:
        for i in range(150):
            monitor.rearm((OLD, NEW)[i % 2])
        ended.set()

    thread = threading.Thread(target=rearm)
    thread.start()
    thresholds = {OLD.threshold: True, NEW.threshold: False}
    middle = draft(9.0)
    while not ended.is_set():
        verdict = gate(middle)
        assert verdict.accepted is thresholds[verdict.threshold]
    thread.join()
    assert monitor.arming.number == 151


def test_a_tripped_gate_opens_with_the_new_threshold_only() -> None:
    monitor = GateMonitor.from_calibration(OLD)
    gate = WatchedGate(SeparabilityGate.from_calibration(OLD), monitor)
    for _ in range(20):
        monitor.audit(True)
    assert not gate(draft(30.0)).accepted
    monitor.rearm(NEW)
    assert gate(draft(30.0)).accepted and not gate(draft(9.0)).accepted
    assert gate.threshold == NEW.threshold


def test_a_request_s_own_threshold_follows_the_arming_and_never_loosens_it() -> None:
    monitor = GateMonitor.from_calibration(OLD)
    gate = WatchedGate(SeparabilityGate.from_calibration(OLD), monitor)
    strict = with_threshold(gate, 0.9999)
    assert not strict(draft(9.0)).accepted and strict(draft(30.0)).accepted
    monitor.rearm(NEW)
    assert not strict(draft(9.0)).accepted and strict.threshold == 0.9999
    for _ in range(20):
        monitor.audit(True)
    assert not strict(draft(30.0)).accepted


def test_armings_are_numbered_and_spend_delta() -> None:
    monitor = GateMonitor.from_calibration(OLD, delta=0.05)
    parts = [monitor.arming.delta]
    for i in range(2000):
        if i < 5:
            monitor.rearm(NEW)
        parts.append(share_of_delta(0.05, i + 2))
    assert monitor.arming.number == 6 and monitor.arming.delta == parts[5]
    assert all(a > b for a, b in itertools.pairwise(parts)) and sum(parts) < 0.05
    again = GateMonitor.from_json(monitor.to_json())
    assert again.arming == monitor.arming  # not a fresh delta after each restart


def test_outcomes_without_a_name_settle_the_oldest_also_over_armings() -> None:
    monitor = GateMonitor.from_calibration(OLD, share=1.0)
    for _ in range(16):
        monitor.observe(9.0)
    monitor.rearm(NEW)
    for _ in range(16):
        monitor.audit(True)
    assert (monitor.audits, monitor.tripped) == (0, False)
    monitor.audit(True)
    assert monitor.audits == 1


def test_a_query_that_the_old_gate_decided_is_not_observed() -> None:
    monitor = GateMonitor.from_calibration(OLD, share=1.0)
    number = monitor.arming.number
    monitor.rearm(NEW)
    assert monitor.observe(9.0, arming=number) is None
    assert monitor.observe(20.0, arming=monitor.arming.number) is not None


def test_a_calibration_of_other_drafts_arms_nothing() -> None:
    import dataclasses

    monitor = GateMonitor.from_calibration(OLD)
    other = dataclasses.replace(NEW, scoring=dataclasses.replace(NEW.scoring, model="another"))
    with pytest.raises(CalibrationError, match="another"):
        monitor.rearm(other)
    assert monitor.arming.number == 1
    with pytest.raises(CalibrationError, match="another calibration"):
        WatchedGate(SeparabilityGate.from_calibration(NEW), monitor)


def test_a_gate_that_no_calibration_makes_is_shut_by_one() -> None:
    monitor = GateMonitor.from_calibration(OLD)
    gate = WatchedGate(MarginGate(), monitor)
    monitor.rearm(NEW)
    with pytest.raises(CalibrationError, match="MarginGate"):
        gate(draft(9.0))


# --- the pipeline -----------------------------------------------------------------------------


def same(query: Query, first: str, second: str) -> bool:
    return first == second


def piped(auditor: Auditor | None, agent: Any = "<answer>red</answer>", **options: Any) -> Any:
    model = agent if hasattr(agent, "generate") else ScriptedModel(agent)
    return SpecPipeline(
        answerer=SpeculativeAnswerer(ScriptedModel("red", margin=12.0)),
        gate=SeparabilityGate(0.98),
        fallback=AgenticFallback(model, tools=["zoom"]) if not callable(agent) else agent,
        auditor=auditor,
        **options,
    )


def test_a_pipeline_has_one_gate() -> None:
    monitor = GateMonitor(0.05)
    pipe = piped(Auditor(monitor, same))
    assert pipe.gate is pipe.gate and isinstance(pipe.gate, WatchedGate)
    with pytest.raises(ConfigError, match="another monitor"):
        SpecPipeline(
            answerer=pipe.answerer,
            gate=pipe.gate,
            fallback=pipe.fallback,
            auditor=Auditor(GateMonitor(0.05), same),
        )


def test_a_pipeline_is_armed_anew_for_its_own_drafts_only() -> None:
    answerer = SpeculativeAnswerer(ScriptedModel("red", name="small", margin=12.0), top_k=4)
    random = np.random.default_rng(0)
    scores = random.gamma(4, 3, 800)

    def calibrated(**changes: Any) -> Any:
        from speceyes.calibration import Scoring

        scoring = Scoring(**{"model": "small", "prompt_hash": answerer.prompt_hash} | changes)
        return calibrate(scores, scores < 4, scoring, labels="differs_from_agent")

    first = calibrated(top_k=4)
    pipe = SpecPipeline(
        answerer=answerer,
        gate=SeparabilityGate.from_calibration(first),
        fallback=AgenticFallback(ScriptedModel("<answer>red</answer>"), tools=["zoom"]),
        auditor=Auditor(GateMonitor.from_calibration(first), same),
    )
    with pytest.raises(ConfigError, match="top_k"):
        pipe.rearm(calibrated(top_k=8))
    with pytest.raises(CalibrationError):
        pipe.rearm(calibrated(top_k=4, model="large"))
    assert pipe.auditor is not None and pipe.auditor.monitor.arming.number == 1
    pipe.rearm(calibrated(top_k=3))
    assert pipe.gate.gate.top_k == 3 and pipe.auditor.monitor.arming.number == 2
    with pytest.raises(ConfigError, match="no monitor"):
        piped(None).rearm(first)


def test_audits_whose_run_breaks_count_as_disagreements() -> None:
    class Broken:
        """An agent whose runs break, not its rows."""

        name = "broken"
        max_batch = 4
        model = dialect = None

        def begin(self) -> Any:
            raise OSError("the engine is gone")

    monitor = GateMonitor(0.9, share=1.0)
    pipe = piped(Auditor(monitor, same))
    object.__setattr__(pipe.parts, "fallback", Broken())
    results = pipe([(DOT, f"Which? {i}") for i in range(50)])
    assert {r.route for r in results} == {"draft"}
    assert (monitor.audits, monitor.disagreements) == (50, 50)


def test_a_hung_audit_ends_with_its_time_and_the_run_with_it() -> None:
    """The agent hangs on one query: everything else is answered and told, and the run ends."""
    freed = threading.Event()

    def agent(query: Query) -> str:
        if "3" in query.question:
            freed.wait(30)
        return "red"

    monitor = GateMonitor(0.9, share=1.0)

    def clock() -> float:
        return 0.0 if monitor.audits < 7 else 1000.0

    auditor = Auditor(monitor, same, timeout_s=20, clock=clock)
    pipe = piped(auditor, AgenticFallback.from_callable(agent, concurrency=8))
    results = pipe([(DOT, f"Which? {i}") for i in range(8)])
    freed.set()
    assert len(results) == 8 and (monitor.audits, monitor.disagreements) == (8, 1)


def test_a_consumer_that_takes_its_time_makes_no_audit_late() -> None:
    now = [0.0]
    monitor = GateMonitor(0.9, share=1.0)
    auditor = Auditor(monitor, same, timeout_s=10, clock=lambda: now[0])
    number = auditor.observe(None, True)
    now[0] += 100
    auditor.extend(100)
    auditor.expire()
    assert number is not None and auditor.runs(number)
    now[0] += 11
    auditor.expire()
    assert not auditor.runs(number) and monitor.disagreements == 1
    auditor.report(number, Query("?", (DOT,)), "red", Trajectory((), "red", "answered"))
    assert monitor.audits == 1  # what comes too late changes nothing


@settings(max_examples=50, deadline=None)
@given(
    risk=st.sampled_from(["selective", "overall"]),
    plan=st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 9)), max_size=60),
)
def test_evidence_is_that_of_the_order_of_drawing_however_outcomes_come(
    risk: Any, plan: list[tuple[bool, bool, int]]
) -> None:
    straight, late = (GateMonitor(0.1, risk=risk, share=0.5, seed=3) for _ in range(2))
    held: list[tuple[int, bool, Any]] = []
    for accepted, bad, delay in plan:
        first, second = straight.observe(None, accepted), late.observe(None, accepted)
        assert first == second
        if first is not None:
            straight.audit(bad, first)
            held.append((delay, bad, second))
    for _, bad, one in sorted(held, key=lambda row: row[0]):
        late.audit(bad, one)
    assert late.to_json() == straight.to_json()


def test_draws_are_the_system_s_own_also_after_a_restart() -> None:
    def draws(monitor: GateMonitor) -> list[bool]:
        return [monitor.observe(None) is not None for _ in range(200)]

    assert draws(GateMonitor(0.05, share=0.5)) != draws(GateMonitor(0.05, share=0.5))
    saved = GateMonitor(0.05, share=0.5).to_json()
    assert draws(GateMonitor.from_json(saved)) != draws(GateMonitor.from_json(saved))
    assert draws(GateMonitor(0.05, share=0.5, seed=1)) == draws(
        GateMonitor(0.05, share=0.5, seed=1)
    )


def test_other_labels_and_promises_in_expectation_are_not_taken_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scores = np.random.default_rng(0).gamma(4, 3, 500)
    wrong = calibrate(scores, scores < 3, running.SCORING)
    crc = calibrate(
        scores,
        scores < 3,
        running.SCORING,
        risk="overall",
        delta=None,
        labels="differs_from_agent",
    )
    GateMonitor.from_calibration(OLD)
    GateMonitor.from_calibration(wrong, audits="wrong")
    assert not caplog.records
    GateMonitor.from_calibration(wrong)
    assert "another risk than the promise" in caplog.text
    with pytest.raises(CalibrationError, match="tolerance"):
        GateMonitor.from_calibration(crc, tolerance=0.0)
    caplog.clear()
    assert GateMonitor.from_calibration(crc).target == pytest.approx(0.075)
    assert "in expectation" in caplog.text
    assert GateMonitor.from_calibration(crc, tolerance=0.01).target == pytest.approx(0.06)


# --- the server -------------------------------------------------------------------------------


def test_serve_watches_a_calibrated_gate_unless_told_not_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from speceyes.cli import parser
    from speceyes.cli.serve import auditor_of

    file = tmp_path / "gate.json"
    OLD.save(file)

    def chosen(*more: str) -> Auditor | None:
        options = parser().parse_args(["serve", "--calibration", str(file), *more])
        return auditor_of(options, Calibration.load(file))

    found = chosen("--audit-share", "0.2", "--tolerance", "0.01")
    assert found is not None and found.monitor.share == 0.2
    assert found.monitor.target == pytest.approx(0.06)
    assert found.monitor.arming.calibration == OLD
    said = capsys.readouterr().err
    assert "audits 20%" in said and "warning" not in said
    assert chosen("--no-monitor") is None
    scores = np.random.default_rng(0).gamma(4, 3, 500)
    calibrate(scores, scores < 3, running.SCORING).save(file)
    assert chosen() is not None and "warning" in capsys.readouterr().err
    calibrate(scores, scores < 1e9, running.SCORING).save(file)
    assert chosen() is None


def test_a_server_is_armed_anew_and_goes_on_counting() -> None:
    pipe = pipeline(margin=8.0)
    answerer: Any = pipe.answerer
    import dataclasses

    scoring = dataclasses.replace(
        running.SCORING,
        model=answerer.model.name,
        prompt_hash=answerer.prompt_hash,
        top_k=answerer.top_k,
    )
    old, new = (dataclasses.replace(one, scoring=scoring) for one in (OLD, NEW))
    watched = SpecPipeline(
        judge=pipe.judge,
        answerer=pipe.answerer,
        gate=SeparabilityGate.from_calibration(old),
        fallback=pipe.fallback,
        auditor=Auditor(GateMonitor.from_calibration(old), same),
        schedule=ScheduleConfig(),
    )
    monitor = watched.auditor.monitor  # type: ignore[union-attr]
    with serving(watched) as served:

        def renew(**parts: Any) -> None:
            work = served.service.renew(**parts)
            asyncio.run_coroutine_threadsafe(work, served.service.loop).result(60)

        assert served.ask()["speceyes"]["threshold"] == pytest.approx(old.threshold)
        renew(gate=SeparabilityGate.from_calibration(new))
        assert served.service.pipe.auditor is watched.auditor
        assert monitor.arming.number == 2
        assert served.ask()["speceyes"]["threshold"] == pytest.approx(new.threshold)
        with pytest.raises(ConfigError, match="no calibration"):
            renew(gate=SeparabilityGate(0.9))
        strict = asking()
        strict["speceyes"] = {"threshold": 0.99999999}
        assert served.post(strict).json()["speceyes"]["threshold"] == 0.99999999


def test_a_tripped_gate_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    auditor = Auditor(GateMonitor(0.05, share=1.0), same)
    numbers = [auditor.observe(None, True) for _ in range(12)]
    with caplog.at_level(logging.WARNING, logger="speceyes.pipeline.audit"):
        for number in numbers:
            assert number is not None
            auditor.fail(number, "gone")
    assert caplog.text.count("the gate is shut") == 1


@pytest.mark.parametrize("tolerance", ["0.1", True, -0.1, 1.5, float("nan"), float("inf"), [0.1]])
@pytest.mark.parametrize("delta", [0.1, None])
def test_a_tolerance_that_is_no_share_is_refused_and_changes_nothing(
    tolerance: Any, delta: float | None
) -> None:
    rng = np.random.default_rng(0)
    scores = rng.gamma(4, 2, 200)
    found = calibrate(scores, np.zeros(200), OLD.scoring, risk="overall", delta=delta)
    watch = GateMonitor.from_calibration(found, tolerance=0.01)
    with pytest.raises(ConfigError):
        GateMonitor.from_calibration(found, tolerance=tolerance)
    with pytest.raises(ConfigError):
        watch.rearm(found, tolerance=tolerance)
    assert watch.arming.number == 1


def test_armings_of_before_are_counted_and_kept() -> None:
    watch = GateMonitor.from_calibration(OLD, delta=0.1, armings=2)
    assert watch.arming.number == 3 and watch.arming.delta == share_of_delta(0.1, 3)
    again = GateMonitor.from_json(watch.to_json())
    assert again.arming == watch.arming
    again.rearm(NEW)
    assert again.arming.number == 4
    for wrong in (-1, True, 1.5, "1", None):
        with pytest.raises(ConfigError, match="armings"):
            GateMonitor(0.05, armings=wrong)  # type: ignore[arg-type]


def test_parts_of_delta_are_a_basel_sum() -> None:
    assert share_of_delta(0.05, 1) == pytest.approx(0.05 / 1.6449340668)
    for number in (2, 3, 10):
        assert share_of_delta(0.05, number) == pytest.approx(share_of_delta(0.05, 1) / number**2)
    assert 0.0499 < sum(share_of_delta(0.05, k) for k in range(1, 2000)) < 0.05


def test_outcomes_behind_an_open_audit_count_after_a_restart() -> None:
    """The open audit's runner is gone, so it is left out; what was told behind it is not."""
    watch = GateMonitor(0.05, share=1.0)
    first, second, third = (watch.observe(7.0) for _ in range(3))
    assert first is not None and second is not None and third is not None
    watch.audit(True, second)
    watch.leave_out(third)
    again = GateMonitor.from_json(watch.to_json())
    plain = GateMonitor(0.05, share=1.0)
    plain.audit(True)
    assert again.evidence == pytest.approx(plain.evidence) and again.bounds == plain.bounds
    assert (again.audits, again.disagreements) == (1, 1)


def test_an_audit_that_was_never_drawn_or_is_settled_is_not_wanted() -> None:
    auditor = Auditor(GateMonitor(0.05, share=1.0), lambda query, draft, agent: draft == agent)
    assert not auditor.begin(99) and not auditor.runs(99)
    number = auditor.observe(7.0, True)
    assert number is not None and auditor.begin(number) and auditor.runs(number)
    auditor.fail(number, "it broke")
    assert not auditor.begin(number) and not auditor.runs(number)
    assert (auditor.monitor.audits, auditor.monitor.disagreements) == (1, 1)
