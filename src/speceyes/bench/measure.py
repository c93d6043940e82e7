"""Costs of each way of running, side by side on the same queries in one run.

The arms take turns, in an order that balances who comes after whom (see `order_of`), and every arm
starts with nothing kept from another. A gain is the ratio of two arms' seconds within one repeat;
the median over repeats is shown with its interval (`median_interval`). Answers are compared with
the reference schedule's.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from speceyes.bench.arms import AGENT, FUNNEL, REFERENCE, Arm
from speceyes.bench.expected import CostParts
from speceyes.bench.memory import Peak
from speceyes.errors import ConfigError
from speceyes.evaluation.failures import FailureCount, Failures, merged
from speceyes.evaluation.prices import Prices, Usage
from speceyes.evaluation.turn import Turn, forget, order_of
from speceyes.types import Query, Result

AGAIN: Final = ", again"
"""End of the name of the arm's second turn: the same arm, so that its speed over the first is 1."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One repeat of one arm.

    Args:
        seconds: Wall time for all queries.
        forward_s: Of these, seconds within the models' forward passes; None where uncounted.
        read: Prompt tokens read.
        reused: Prompt tokens known from before.
        decoded: Tokens decoded.
        padding: Tokens computed for nothing.
        answers: Answer and route of each query, in the order of their ids.
        peak: Most bytes in use (see `bench_memory.Peak`); None where the system doesn't tell.
        grew: Of these, bytes that were not in use before.
        cpu_s: Seconds of the CPU, of all threads together: hardly disturbed by other processes.
        parts: Seconds by phase, by the results' own timings, which `predicted` is made of.
        failures: Failed queries, and failed judgements and drafts among the others.
        usage: Tokens of each model, the large one first.
    """

    seconds: float
    forward_s: float | None
    read: int
    reused: int
    decoded: int
    padding: int
    answers: tuple[tuple[str | None, str], ...]
    peak: int | None = None
    grew: int | None = None
    cpu_s: float | None = None
    parts: CostParts | None = None
    failures: tuple[Failures, ...] = ()
    usage: tuple[Usage, ...] = ()


def measure(
    ways: Sequence[Arm],
    queries: Sequence[Query],
    *,
    repeats: int = 3,
    warm_up: int = 8,
    step: Callable[[str], None] | None = None,
) -> dict[str, list[Measured]]:
    """Runs every arm `repeats` times, and one of them (the funnel, else the first) twice as often.

    Args:
        ways: The arms.
        queries: What each of them answers.
        repeats: How often; each begins with another arm.
        warm_up: Queries that every arm answers before its clock first starts.
        step: Told the name of each run that is finished.

    Raises:
        ConfigError: repeats is below 1, or there is no query.
    """
    if repeats < 1 or not queries:
        raise ConfigError(f"repeats={repeats}, {len(queries)} queries; both must be at least 1")
    names = [way.name for way in ways]
    twice = ways[names.index(FUNNEL) if FUNNEL in names else 0]
    found: dict[str, list[Measured]] = {name: [] for name in (*names, twice.name + AGAIN)}
    for way in ways:
        once(way, queries[:warm_up])
    for repeat in range(repeats):
        for way in order_of((*ways, replace(twice, name=twice.name + AGAIN)), repeat):
            found[way.name].append(once(way, queries))
            if step is not None:
                step(way.name)
    return found


def once(way: Arm, queries: Iterable[Query]) -> Measured:
    """One run of an arm, which starts with nothing kept and keeps nothing afterwards.

    Args:
        way: The arm.
        queries: What it answers; pulled as it goes on, so that they need not all be held.
    """
    with Peak(way.models[0].device) as peak:
        turn = Turn(way.models)
        results = []
        failed = FailureCount(way.name)
        timed = []
        for one, _ in turn.run(way.run, queries):
            results.append((one.query_id, one.answer, one.route))
            failed.add(one)
            timed.append(Result(one.query_id, None, one.route, timings=one.timings))
        seconds, cpu, _ = turn.took
        counted = turn.spent
    forget(way.models)  # what one arm keeps must not take the memory of another
    results.sort(key=lambda one: one[0])
    grew_by = None if peak.most is None or peak.before is None else peak.most - peak.before

    def grew(name: str) -> Any:
        return sum(counts[name] for counts in counted)

    return Measured(
        seconds=seconds,
        forward_s=grew("forward_s") or None,
        read=grew("read"),
        reused=grew("reused"),
        decoded=grew("decoded"),
        padding=grew("padding"),
        answers=tuple((answer, route) for _, answer, route in results),
        peak=peak.most,
        grew=grew_by,
        cpu_s=cpu,
        parts=CostParts.of(timed, seconds),
        failures=tuple(failed.found),
        usage=tuple(
            Usage(int(one["read"] + one["reused"]), int(one["reused"]), int(one["decoded"]))
            for one in counted
        ),
    )


def failures(found: Mapping[str, Sequence[Measured]]) -> list[Failures]:
    """Failed queries by arm, over all repeats."""
    return merged(run.failures for runs in found.values() for run in runs)


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """An interval of the median that assumes nothing of how the values are spread.

    Between the k-th smallest and the k-th largest of n values the median lies with probability
    1 - 2 P(fewer than k heads in n tosses). k is the largest for which that is at least 95 %.
    Below six values there is none, and the least and the greatest are given.

    Returns:
        (low, high, coverage); coverage from 0 to 1.

    Example:
        >>> median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        (1.0, 6.0, 0.96875)
        >>> median_interval([1.0, 2.0, 3.0])
        (1.0, 3.0, 0.75)
    """
    ordered, n = sorted(values), len(values)
    k, outside = 1, 1.0
    while k <= n // 2 and 2 * (outside + math.comb(n, k)) / 2**n <= 0.05:
        outside += math.comb(n, k)
        k += 1
    return ordered[k - 1], ordered[n - k], max(0.0, 1 - 2 * outside / 2**n)


def interval_note(repeats: int) -> str:
    """Meaning of the numbers in parentheses."""
    _, _, coverage = median_interval(range(repeats))
    if coverage >= 0.95:
        return f"medians over {repeats} repeats, with an interval of {coverage:.0%} for each"
    few = "least and greatest in parentheses: too few for an interval of 95 %"
    return f"medians over {repeats} repeats, {few}" if repeats > 1 else "one run each"


def summarise(
    found: Mapping[str, Sequence[Measured]], queries: int, prices: Prices | None = None
) -> dict[str, Any]:
    """The runs as figures, ready for JSON: a dictionary by arm.

    `gain` and `against_agent` are [median, low, high] of the ratios within a repeat, of
    the reference schedule's seconds and the batched agent's to the arm's. `same` is the share
    of queries with the reference schedule's answer (for agents, of those that it sent there).
    `predicted` is the gain over the batched agent by the cost model: the agent's seconds a query
    over E[L] (`CostParts.expected`), both from the first half of the repeats; it is to be held
    against the median gain of the others (`later`), which it knows nothing of. With prices `money`
    is what a thousand queries cost by the tokens of both models, and `currency` its name.
    """

    def ratios(base: str, name: str) -> list[float] | None:
        if base not in found:
            return None
        all_of = [b.seconds / o.seconds for b, o in zip(found[base], found[name], strict=True)]
        low, high, _ = median_interval(all_of)
        return [statistics.median(all_of), low, high]

    def predicted(name: str) -> float | None:
        if AGENT not in found:
            return None
        half = (len(found[name]) + 1) // 2
        mine, agent = (
            [run.parts for run in found[one][:half] if run.parts is not None]
            for one in (name, AGENT)
        )
        if len(mine) < half or len(agent) < half:
            return None
        spent = CostParts.pooled(mine).expected
        return CostParts.pooled(agent).expected / spent if spent > 0 else None

    def later(name: str) -> float | None:
        if AGENT not in found or len(found[name]) < 2:
            return None
        half = (len(found[name]) + 1) // 2
        pairs = zip(found[AGENT][half:], found[name][half:], strict=True)
        return statistics.median(a.seconds / b.seconds for a, b in pairs)

    table: dict[str, Any] = {}
    wanted = found[REFERENCE][0].answers if REFERENCE in found else None
    for name, runs in found.items():
        seconds = statistics.median(run.seconds for run in runs)
        inside = [run.forward_s / run.seconds for run in runs if run.forward_s is not None]
        last = runs[-1]
        alone = all(route != "draft" for _, route in last.answers)
        same = [
            mine[0] == other[0]
            for mine, other in zip(last.answers, wanted or last.answers, strict=True)
            if not alone or other[1] != "draft"
        ]
        read = last.read + last.padding
        cpu = [run.cpu_s for run in runs if run.cpu_s is not None]
        table[name] = {
            "ms_per_query": 1e3 * seconds / queries,
            "cpu_ms_per_query": 1e3 * statistics.median(cpu) / queries if cpu else None,
            "queries_per_s": queries / seconds,
            "gain": ratios(REFERENCE, name),
            "against_agent": ratios(AGENT, name),
            "predicted": predicted(name),
            "later": later(name),
            **_money(last, queries, prices),
            "same": sum(same) / len(same) if same and wanted is not None else None,
            "outside_forwards": 1 - statistics.median(inside) if inside else None,
            "tokens_read": last.read,
            "tokens_reused": last.reused,
            "tokens_decoded": last.decoded,
            "padding": last.padding / read if read else None,
            "peak_bytes": max((run.peak for run in runs if run.peak is not None), default=None),
            "grew_bytes": max((run.grew for run in runs if run.grew is not None), default=None),
        }
    return table


def _money(run: Measured, queries: int, prices: Prices | None) -> dict[str, Any]:
    """Money of a thousand queries; nothing without prices, or of an arm of one model."""
    if prices is None or len(run.usage) != 2:
        return {}
    large, small = run.usage
    spent = prices.of("large", large) + prices.of("small", small)
    return {"money": 1000 * spent / queries, "currency": prices.currency}


def over_itself(found: Mapping[str, Sequence[Measured]]) -> str | None:
    """Speed of the arm that took two turns over itself, in words; None where none did."""
    again = next((name for name in found if name.endswith(AGAIN)), None)
    if again is None:
        return None
    name = again.removesuffix(AGAIN)
    pairs = list(zip(found[again], found[name], strict=True))
    speeds = [second.seconds / first.seconds for second, first in pairs if first.seconds > 0]
    if not speeds:
        return None
    low, high, _ = median_interval(speeds)
    return (
        f"{name} over itself (A/A), which is 1: {statistics.median(speeds):.2f}x "
        f"({low:.2f} to {high:.2f})"
    )


def markdown(table: Mapping[str, Any]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| way | ms a query | over reference | over batched agent | predicted, then measured "
        "| same answers | outside forwards | tokens read + reused | padding | peak memory |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in table.items():
        cells = [
            name,
            f"{row['ms_per_query']:.1f}",
            _ratio(row["gain"]),
            _ratio(row["against_agent"]),
            _forecast(row),
            _share(row["same"], 1),
            _share(row["outside_forwards"], 0),
            f"{row['tokens_read']} + {row['tokens_reused']}" if row["tokens_read"] else "",
            _share(row["padding"], 0),
            _memory(row),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    paid = {name: row for name, row in table.items() if "money" in row}
    if paid:
        currency = next(iter(paid.values()))["currency"]
        lines += ["", f"| way | {currency} a thousand queries |", "|---|--:|"]
        lines += [f"| {name} | {row['money']:.4g} |" for name, row in paid.items()]
    return "\n".join(lines)


def _ratio(found: Sequence[float] | None) -> str:
    return "" if found is None else f"{found[0]:.2f}x ({found[1]:.2f} to {found[2]:.2f})"


def _forecast(row: Mapping[str, Any]) -> str:
    if row["predicted"] is None or row["later"] is None:
        return ""
    return f"{row['predicted']:.2f}x, {row['later']:.2f}x"


def _share(value: float | None, digits: int) -> str:
    return "" if value is None else f"{100 * value:.{digits}f} %"


def _memory(row: Mapping[str, Any]) -> str:
    if row["peak_bytes"] is None:
        return ""
    return f"{row['peak_bytes'] / 2**20:,.0f} MiB (+{row['grew_bytes'] / 2**20:,.0f})"
