"""Experiments on a running gate: arming anew, late and lost audits, predictable draws."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from speceyes.bench.guarantees import surprising
from speceyes.bench.promises.experiment import Experiment
from speceyes.calibration import Calibration, GateMonitor, Scoring, WatchedGate, calibrate
from speceyes.calibration.arming import share_of_delta
from speceyes.gate import SeparabilityGate
from speceyes.pipeline.audit import Auditor
from speceyes.types import Completion, Query, Trajectory

SCORING = Scoring("small", "ab12", top_k=4)


def made(least_good: float, *, n: int = 2000, target: float = 0.05, seed: int = 0) -> Calibration:
    """A calibration whose drafts are right from a raw score on, and wrong below."""
    scores = np.random.default_rng(seed).gamma(4, 3, n)
    labels = "differs_from_agent"
    return calibrate(scores, scores < least_good, SCORING, target=target, labels=labels)  # type: ignore[arg-type]


def draft(score: float) -> Completion:
    """A draft of one token with (about) that raw score."""
    spread = np.array([1.0, 0.0, -1.0])
    top = score * (spread.std() + 1e-6) + spread.mean()
    rows = np.array([[top, *spread]])
    return Completion("red", (1,), rows - np.log(np.exp(rows).sum()))


def rearming() -> Experiment:
    """A stricter calibration must shut what the old one let through, at once."""
    old, new = made(6.0), made(14.0, seed=1)
    monitor = GateMonitor.from_calibration(old, seed=0)
    gate = WatchedGate(SeparabilityGate.from_calibration(old), monitor)
    first = gate(draft(8.0)).accepted
    monitor.rearm(new)
    now, high = gate(draft(8.0)).accepted, gate(draft(30.0)).accepted
    return Experiment(
        "a draft of score 8 after re-arming on a threshold above 13",
        "rejected",
        "accepted",
        "accepted" if now else "rejected",
        first and not now and high,
    )


def old_audits(repeats: int = 200) -> Experiment:
    """Audits of the old promise say nothing about the new one."""
    old, new = made(6.0), made(9.0, seed=1)
    tripped = 0
    for seed in range(repeats):
        monitor = GateMonitor.from_calibration(old, share=1.0, seed=seed)
        under_way = [monitor.observe(9.0) for _ in range(16)]
        monitor.rearm(new)
        for one in under_way:
            monitor.audit(True, one)
        tripped += monitor.tripped
    return Experiment(
        "16 audits under way at re-arming come back as disagreements",
        "no alarm",
        f"{repeats} of {repeats} alarms",
        f"{tripped} of {repeats} alarms",
        tripped == 0,
    )


def many_armings(streams: int = 400, armings: int = 10, audits: int = 400) -> Experiment:
    """False alarms over a whole life of armings, the risk always just what was promised."""
    from speceyes.bench.guarantees import first_alarm

    delta, target = 0.1, 0.1
    random = np.random.default_rng(0)
    alarms = {"anew": np.zeros(streams, bool), "spent": np.zeros(streams, bool)}
    for number in range(1, armings + 1):
        bad = random.random((audits, streams)) < target
        for name, part in (("anew", delta), ("spent", share_of_delta(delta, number))):
            alarms[name] |= first_alarm(bad, audits, target, part) <= audits
    return Experiment(
        f"false alarms over {armings} armings",
        f"<= {delta:.0%}",
        f"{alarms['anew'].mean():.1%} (delta given anew each time)",
        f"{alarms['spent'].mean():.1%}",
        not surprising(int(alarms["spent"].sum()), streams, delta),
    )


def bursts(repeats: int = 20, queries: int = 1500, burst: int = 16) -> Experiment:
    """Overall risk exactly as promised; audits are told many at a time, behind their queries."""
    told_late = at_once = 0
    target, share, accept = 0.05, 0.25, 0.2
    risk = target / accept
    for seed in range(repeats):
        random = np.random.default_rng(seed)
        late = GateMonitor(target, risk="overall", share=share, seed=seed)
        naive = GateMonitor(target, risk="overall", share=share, seed=seed)
        held: list[tuple[bool, object]] = []
        accepted, bad = random.random(queries) < accept, random.random(queries) < risk
        for i in range(queries):
            drawn = late.observe(None, bool(accepted[i]))
            again = naive.observe(None, bool(accepted[i]))
            if again is not None:
                naive.leave_out(again)
            if drawn is not None:
                held.append((bool(bad[i]), drawn))
            if len(held) == burst:
                for outcome, one in held[::-1]:
                    late.audit(outcome, one)  # type: ignore[arg-type]
                for outcome, _ in held:
                    naive.audit(outcome)  # after all that was good meanwhile
                held.clear()
        told_late += late.tripped
        at_once += naive.tripped
    return Experiment(
        f"overall risk just as promised, outcomes told {burst} at a time, last drawn first",
        "<= 5% alarms",
        f"{at_once / repeats:.0%} alarms",
        f"{told_late / repeats:.0%} alarms",
        not surprising(told_late, repeats, 0.05),
    )


def predictable(queries: int = 4000) -> Experiment:
    """An adversary who knows the draws of one start puts bad drafts only beside them."""
    known = GateMonitor(0.05, seed=0)
    audited = [known.observe(None) is not None for _ in range(queries)]
    passed = {}
    for name, seed in (("before", 0), ("after", None)):
        monitor = GateMonitor(0.05, seed=seed)
        passed[name] = 0
        for safe in audited:
            drawn = monitor.observe(None)
            if drawn is not None:
                monitor.audit(not safe, drawn)
            if monitor.tripped:
                break
            passed[name] += not safe
    bad = queries - sum(audited)
    return Experiment(
        f"{bad} bad drafts placed beside the audits of an earlier start",
        "found within 1,500",
        f"{passed['before']} passed unseen",
        f"{passed['after']} passed",
        passed["after"] < 1500,
    )


def lost_audits() -> Experiment:
    """Failed and hung audits count; those behind a hung one aren't held up."""
    now = [0.0]
    monitor = GateMonitor(0.5, share=1.0)
    auditor = Auditor(monitor, lambda *_: True, timeout_s=60, clock=lambda: now[0])
    numbers = [auditor.observe(None, True) for _ in range(50)]
    query, said = Query("?", (Image.new("RGB", (8, 8)),)), Trajectory((), "red", "answered")
    for number in numbers[2:]:  # the first hangs, the second fails
        assert number is not None
        auditor.report(number, query, "red", said)
    assert numbers[1] is not None
    auditor.fail(numbers[1], "the engine is gone")
    now[0] = 61.0
    auditor.observe(None, False)
    low, _ = monitor.bounds
    good = (monitor.audits, monitor.disagreements) == (50, 2)
    return Experiment(
        "50 audits, of which one hangs and one fails",
        "50 told, 2 bad",
        "0 told",
        f"{monitor.audits} told, {monitor.disagreements} bad",
        good and low >= 0,
    )


def experiments() -> Iterator[Experiment]:
    """All of them."""
    yield rearming()
    yield old_audits()
    yield many_armings()
    yield bursts()
    yield predictable()
    yield lost_audits()
