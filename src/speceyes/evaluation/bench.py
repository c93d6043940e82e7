"""What each way of running costs, side by side on the same queries in one run.

The arms take turns, each repeat in another order, and every arm starts with nothing kept from
another. A gain is the ratio of two arms' seconds within one repeat; the median over repeats is
shown with the least and the greatest. Answers are compared with the reference schedule's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from speceyes.errors import ConfigError
from speceyes.values import Query, Result

if TYPE_CHECKING:
    from speceyes.gate import SeparabilityGate
    from speceyes.models.hf import HFModel

REFERENCE, AGENT, FUNNEL = "reference schedule", "agent, batched", "speceyes"


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of running.

    Args:
        name: Shown in the table.
        run: Answers all queries.
        models: What it runs on; each counts what it computes.
    """

    name: str
    run: Callable[[Sequence[Query]], Sequence[Result]]
    models: tuple[HFModel, ...]


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
        answers: Answer and route by query.
    """

    seconds: float
    forward_s: float | None
    read: int
    reused: int
    decoded: int
    padding: int
    answers: tuple[tuple[str | None, str], ...]


def arms(
    large: HFModel, small: HFModel, gate: SeparabilityGate, *, tools: Sequence[str], batch: int
) -> list[Arm]:
    """The arms: the paper's ways, ours, and ours with one thing switched off each.

    Args:
        large: The agent.
        small: The drafter.
        gate: The gate.
        tools: The agent's tools.
        batch: Queries judged and drafted together, and trajectories alive at once.
    """
    from speceyes.answerer import SpeculativeAnswerer
    from speceyes.fallback import AgenticFallback
    from speceyes.judge import ToolJudge
    from speceyes.ordering import Order
    from speceyes.pipeline import Schedule, SpecPipeline

    def funnel(
        name: str,
        strong: HFModel,
        quick: HFModel,
        *,
        alive: int = batch,
        schedule: Schedule = "auto",
        order: Order = "judge_first",
    ) -> Arm:
        pipe = SpecPipeline(
            judge=ToolJudge(strong, tools=tools),
            answerer=SpeculativeAnswerer(quick, top_k=gate.top_k),
            gate=gate,
            fallback=AgenticFallback(strong, tools=tools, max_batch=alive),
            batch_size=batch,
            order=order,
            schedule=schedule,
        )
        return Arm(name, pipe, (strong, quick))

    def agent(name: str, model: HFModel, alive: int) -> Arm:
        fallback = AgenticFallback(model, tools=tools, max_batch=alive)
        return Arm(name, SpecPipeline(fallback=fallback, batch_size=batch), (model,))

    return [
        agent("agent, one by one, as published", large.reference(), 1),
        agent("agent, one by one", large.sharing(), 1),
        agent(AGENT, large.sharing(), batch),
        funnel(REFERENCE, large.sharing(), small.sharing(), schedule="sequential"),
        funnel(FUNNEL, large.sharing(), small.sharing()),
        funnel("... nothing kept", large.sharing(cache_bytes=0), small.sharing(cache_bytes=0)),
        funnel("... fallback one by one", large.sharing(), small.sharing(), alive=1),
        funnel("... loading overlapped", large.sharing(), small.sharing(), schedule="overlapped"),
        funnel("... drafting first", large.sharing(), small.sharing(), order="draft_first"),
    ]


def measure(
    ways: Sequence[Arm],
    queries: Sequence[Query],
    *,
    repeats: int = 3,
    warm_up: int = 8,
    step: Callable[[str], None] | None = None,
) -> dict[str, list[Measured]]:
    """Runs every arm `repeats` times.

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
    found: dict[str, list[Measured]] = {way.name: [] for way in ways}
    for way in ways:
        way.run(queries[:warm_up])
    for repeat in range(repeats):
        turn = repeat * (1 + len(ways) // max(repeats, 2)) % len(ways)
        for way in (*ways[turn:], *ways[:turn]):
            found[way.name].append(_once(way, queries))
            if step is not None:
                step(way.name)
    return found


def _once(way: Arm, queries: Sequence[Query]) -> Measured:
    for model in way.models:
        model.forget()
    before = [model.spent for model in way.models]
    start = time.perf_counter()
    results = way.run(queries)
    seconds = time.perf_counter() - start
    after = [model.spent for model in way.models]

    def grew(name: str) -> Any:
        pairs = zip(before, after, strict=True)
        return sum(getattr(b, name) - getattr(a, name) for a, b in pairs)

    return Measured(
        seconds=seconds,
        forward_s=grew("forward_s") or None,
        read=grew("read"),
        reused=grew("reused"),
        decoded=grew("decoded"),
        padding=grew("padding"),
        answers=tuple((result.answer, result.route) for result in results),
    )


def summarise(found: Mapping[str, Sequence[Measured]], queries: int) -> dict[str, Any]:
    """The runs as figures, ready for JSON: a dictionary by arm.

    `gain` and `against_agent` are [median, least, greatest] of the ratios within a repeat, of
    the reference schedule's seconds and the batched agent's to the arm's. `same` is the share
    of queries with the reference schedule's answer (for agents, of those that it sent there).
    """

    def ratios(base: str, name: str) -> list[float] | None:
        if base not in found:
            return None
        all_of = [b.seconds / o.seconds for b, o in zip(found[base], found[name], strict=True)]
        return [statistics.median(all_of), min(all_of), max(all_of)]

    table: dict[str, Any] = {}
    wanted = found[REFERENCE][0].answers if REFERENCE in found else ()
    for name, runs in found.items():
        seconds = statistics.median(run.seconds for run in runs)
        inside = [run.forward_s / run.seconds for run in runs if run.forward_s is not None]
        last = runs[-1]
        alone = all(route != "draft" for _, route in last.answers)
        same = [
            mine[0] == other[0]
            for mine, other in zip(last.answers, wanted, strict=True)
            if not alone or other[1] != "draft"
        ]
        read = last.read + last.padding
        table[name] = {
            "ms_per_query": 1e3 * seconds / queries,
            "queries_per_s": queries / seconds,
            "gain": ratios(REFERENCE, name),
            "against_agent": ratios(AGENT, name),
            "same": sum(same) / len(same) if same else None,
            "outside_forwards": 1 - statistics.median(inside) if inside else None,
            "tokens_read": last.read,
            "tokens_reused": last.reused,
            "tokens_decoded": last.decoded,
            "padding": last.padding / read if read else None,
        }
    return table


def markdown(table: Mapping[str, Any]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| way | ms a query | over reference | over batched agent | same answers "
        "| outside forwards | tokens read + reused | padding |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in table.items():
        cells = [
            name,
            f"{row['ms_per_query']:.1f}",
            _ratio(row["gain"]),
            _ratio(row["against_agent"]),
            _share(row["same"], 1),
            _share(row["outside_forwards"], 0),
            f"{row['tokens_read']} + {row['tokens_reused']}" if row["tokens_read"] else "",
            _share(row["padding"], 0),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _ratio(found: Sequence[float] | None) -> str:
    return "" if found is None else f"{found[0]:.2f}x ({found[1]:.2f} to {found[2]:.2f})"


def _share(value: float | None, digits: int) -> str:
    return "" if value is None else f"{100 * value:.{digits}f} %"
