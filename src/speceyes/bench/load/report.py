"""Findings of a load test: each step's figures, and whether every request got its one end."""

from __future__ import annotations

import csv
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from speceyes.bench.load.client import Outcome
from speceyes.bench.load.requests import BUSY, EXPECTED, GONE, PLAIN
from speceyes.evaluation import plots
from speceyes.evaluation.failures import Failures
from speceyes.evaluation.page import plain_page

QUANTILES: Final = (50, 95, 99)
MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Step:
    """Requests that were sent at one load.

    Args:
        load: Offered requests a second over the measured capacity.
        rate: Offered requests a second.
        seconds: From the first to the last reply.
        outcomes: One a request.
        memory: Bytes that the server held, each time it was looked at.
    """

    load: float
    rate: float
    seconds: float
    outcomes: Sequence[Outcome]
    memory: Sequence[float] = ()


def figures(step: Step) -> dict[str, Any]:
    """A step's figures: requests a second, seconds of plain requests that were answered, shares.

    A percentile of fewer than two answers is None.
    """
    plain = [one for one in step.outcomes if one.request.kind == PLAIN]
    answered = [one.latency for one in plain if one.kind == "answer"]
    span = max((one.planned for one in step.outcomes), default=0.0)
    count = len(step.outcomes)
    found: dict[str, Any] = {
        "load": step.load,
        "rate": step.rate,
        "offered_per_s": (count - 1) / span if span and count > 1 else None,
        "answered_per_s": sum(one.kind == "answer" for one in step.outcomes) / step.seconds,
        "requests": count,
        "plain": len(plain),
        "answered": len(answered),
    }
    for quantile in QUANTILES:
        value = float(np.percentile(answered, quantile)) if len(answered) > 1 else None
        found[f"p{quantile}_s"] = value
    found["mean_s"] = statistics.fmean(answered) if answered else None
    for name, status in (("full", 429), ("late", 504)):
        found[f"share_{name}"] = _share(one.status == status for one in plain)
    found["sent_late_p99_s"] = float(np.percentile([one.late for one in step.outcomes], 99))
    found["memory_mib"] = step.memory[-1] / MIB if step.memory else None
    return found


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else 0.0


def ends(outcomes: Sequence[Outcome]) -> dict[str, dict[str, int]]:
    """Number of requests of each kind by their end.

    Example:
        >>> from speceyes.bench.load.requests import LoadRequest
        >>> ends([Outcome(LoadRequest(0), "answer", 200), Outcome(LoadRequest(1), "error", 429)])
        {'plain': {'200': 1, '429': 1}}
    """
    table: dict[str, Counter[str]] = {}
    for one in outcomes:
        word = {"left": "left", "broken": f"broken: {one.code}"}.get(one.kind, str(one.status))
        table.setdefault(one.request.kind, Counter())[word] += 1
    return {kind: dict(sorted(found.items())) for kind, found in sorted(table.items())}


def problems(
    outcomes: Sequence[Outcome],
    counted: Mapping[str, float] | None,
    expected: Mapping[str, frozenset[int]] = EXPECTED,
) -> list[str]:
    """Problems, a line each; none where every request had exactly the end it should.

    Args:
        outcomes: Of all requests.
        counted: What the server itself counted: its responses and gone clients ("responses"), and
            what it still held afterwards ("in_flight", "waiting"); None where it wasn't asked.
        expected: Statuses of each kind of request, besides those of a full server.
    """
    found = []
    broken = [one for one in outcomes if one.kind == "broken"]
    for code, n in Counter(one.code for one in broken).most_common():
        found.append(f"{n} requests got neither one answer nor one error: {code}")
    for one in outcomes:
        if one.kind == "broken" or one.request.kind == GONE:
            continue
        if one.status not in expected[one.request.kind] | BUSY:
            found.append(
                f"request {one.request.number} ({one.request.kind}) got {one.status} {one.code}"
            )
    wrong = [one.request.number for one in outcomes if one.right is False]
    if wrong:
        found.append(f"{len(wrong)} answers are not those of their questions, as in {wrong[:5]}")
    numbers = Counter(one.id for one in outcomes if one.id is not None)
    twice = sum(n > 1 for n in numbers.values())
    if twice:
        found.append(f"{twice} answers came twice")
    if counted is not None:
        if counted["responses"] != len(outcomes):
            found.append(
                f"the server counted {counted['responses']:.0f} ends of {len(outcomes)} requests"
            )
        for name in ("in_flight", "waiting"):
            if counted[name]:
                found.append(f"{name}: {counted[name]:.0f} requests are still held at the end")
    return found


def failures(name: str, outcomes: Sequence[Outcome]) -> Failures:
    """Plain requests that got no answer, those aside that a full server turned away.

    Args:
        name: What was sent, in messages.
        outcomes: Of all requests.
    """
    plain = [one for one in outcomes if one.request.kind == PLAIN]
    failed = [one for one in plain if one.kind != "answer" and one.status not in BUSY]
    first = f"{failed[0].status} {failed[0].code}" if failed else ""
    return Failures(name, len(failed), len(plain), first)


def costs(outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    """Costs that the answers' `speceyes` fields tell: shares and of seconds a query in each phase.

    Returns:
        beta, alpha, c_judge, c_draft, l_tools, l_rejected as in `speceyes.pipeline.efficiency`,
        the spread of the agent's time (standard deviation over mean), and the tokens that drafts
        and the agent wrote; None where there is nothing to tell it from.
    """
    hows = [one.how for one in outcomes if one.kind == "answer" and one.how is not None]
    judged = [how for how in hows if how["needs_tools"] is not None]
    drafted = [how for how in hows if how["score"] is not None]

    def mean(of: Iterable[Mapping[str, Any]], phase: str) -> float | None:
        values = [how["timings"][phase] for how in of if how["timings"][phase] is not None]
        return statistics.fmean(values) if values else None

    tools = [how for how in judged if how["needs_tools"]]
    rejected = [how for how in drafted if how["route"] == "agent" and not how["needs_tools"]]
    agent = [t for how in hows if (t := how["timings"]["fallback"]) is not None]

    def written(phase: str) -> float | None:
        counts = [pair[1] for how in hows if (pair := how.get("tokens", {}).get(phase))]
        return statistics.fmean(counts) if counts else None

    whole = sum(agent)
    return {
        "beta": _share(not how["needs_tools"] for how in judged) if judged else None,
        "alpha": _share(how["route"] == "draft" for how in drafted) if drafted else None,
        "c_judge": mean(judged, "judge"),
        "c_draft": mean(drafted, "draft"),
        "l_tools": mean(tools, "fallback"),
        "l_rejected": mean(rejected, "fallback"),
        "spread": statistics.pstdev(agent) * len(agent) / whole if whole else None,
        "draft_tokens": written("draft"),
        "agent_tokens": written("agent"),
    }


def flat(steps: Sequence[Step]) -> dict[str, float] | None:
    """Memory of the server, MiB: over the first step, over the last, the most, and what
    it grew by from the one to the other (medians). None where it couldn't be read.
    """
    seen = [step.memory for step in steps if step.memory]
    if not seen:
        return None
    first, last = statistics.median(seen[0]) / MIB, statistics.median(seen[-1]) / MIB
    most = max(max(values) for values in seen) / MIB
    return {"first": first, "last": last, "most": most, "grew": last - first}


def table(steps: Sequence[Mapping[str, Any]]) -> str:
    """The steps as a Markdown table."""
    lines = [
        "| load | offered /s | answered /s | p50 ms | p95 ms | p99 ms | 429 | 504 | memory MiB |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for one in steps:
        cells = [
            f"{one['load']:g}",
            _number(one["offered_per_s"], 1),
            _number(one["answered_per_s"], 1),
            *(_number(one[f"p{q}_s"], 0, 1e3) for q in QUANTILES),
            f"{100 * one['share_full']:.1f} %",
            f"{100 * one['share_late']:.1f} %",
            _number(one["memory_mib"], 0),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ends_table(found: Mapping[str, Mapping[str, int]]) -> str:
    """The ends of each kind as a Markdown table."""
    words = sorted({word for row in found.values() for word in row})
    lines = [f"| request | {' | '.join(words)} |", "|---|" + "--:|" * len(words)]
    for kind, row in found.items():
        lines.append(f"| {kind} | {' | '.join(str(row.get(word, '')) for word in words)} |")
    return "\n".join(lines)


def _number(value: float | None, digits: int, times: float = 1.0) -> str:
    return "" if value is None else f"{times * value:.{digits}f}"


def plot(steps: Sequence[Mapping[str, Any]], capacity: float) -> str:
    """Percentiles of latency over offered load, as SVG; empty where nothing was answered."""
    seen = [one for one in steps if one["p50_s"]]
    if not seen:
        return ""
    curves = {f"p{q}": [(one["rate"], one[f"p{q}_s"]) for one in seen] for q in QUANTILES}
    across, mark = "offered requests a second", (capacity, "capacity")
    # Below the capacity latencies are tens of milliseconds and above it seconds.
    return plots.lines(curves, across, "latency, s", dots=True, log_y=True, mark=mark)


def write(out: Path, report: Mapping[str, Any], outcomes: Sequence[tuple[int, Outcome]]) -> None:
    """Writes the report: `load.json`, `load.csv` (steps), `requests.csv`, `load.svg`, `load.html`.

    Args:
        out: The folder; made if need be.
        report: What `speceyes bench --serve` prints.
        outcomes: (number of its step, outcome) of every request.
    """
    out.mkdir(parents=True, exist_ok=True)
    steps = report["steps"]
    (out / "load.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    with (out / "load.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, list(steps[0]))
        rows.writeheader()
        rows.writerows(steps)
    with (out / "requests.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow("step number kind end status code planned_s late_s latency_s route".split())
        for at, one in outcomes:
            route = None if one.how is None else one.how["route"]
            times = (f"{value:.6f}" for value in (one.planned, one.late, one.latency))
            request = one.request
            lines.writerow(
                (at, request.number, request.kind, one.kind, one.status, one.code, *times, route)
            )
    svg = plot(steps, report["capacity_per_s"])
    text = f"{table(steps)}\n\n{ends_table(report['ends'])}"
    page = plain_page("speceyes bench --serve", report["said"], [("latency", svg, text)])
    (out / "load.svg").write_text(plots.standalone(svg) if svg else "", encoding="utf-8")
    (out / "load.html").write_text(page, encoding="utf-8")
