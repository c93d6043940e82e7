"""Break-even of reasoning transfer from measured paces, beside what a run took."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from speceyes.errors import SpecEyesError
from speceyes.evaluation.arms import BASELINE
from speceyes.evaluation.context import EvalContext
from speceyes.evaluation.runs import TEST, Record, Run
from speceyes.evaluation.sweep import costs
from speceyes.strategies import Pace, break_even, questions
from speceyes.strategies.break_even import pace
from speceyes.types import Query

FILE: Final = "break_even.json"
"""In the run's folder."""
ALONE: Final = ("large-reasoning", BASELINE)
"""Arms in which the large model reasons by itself, the first that was run."""


def transfer_costs(
    run: Run, context: EvalContext, query: Query, arm: str = "transfer"
) -> dict[str, Any] | None:
    """Both sides of the rule with this run's means, and the seconds that it took.

    Args:
        run: With the arm, and one in which the large model reasons by itself.
        context: Its models, whose paces are measured now, one query at a time.
        query: Answered at length for it.
        arm: Of reasoning transfer.

    Returns:
        `small` and `large` (paces), `tokens`, `predicted` seconds of both sides and `measured`
        seconds of the same queries, those in which reasoning was transferred; None where there
        are none, or a pace can't be told.
    """
    if not context.without_tools:
        return None
    alone = next((a for a in ALONE if run.of(TEST, a)), None)
    rows = [r for r in run.of(TEST, arm) if _steps(r) >= 3]
    if alone is None or not rows:
        return None
    beside = {r.result.query_id: r for r in run.of(TEST, alone)}
    rows = [r for r in rows if r.result.query_id in beside]
    asked = questions.reasoning(query)
    try:
        small, large = pace(context.small, asked), pace(context.large, asked)
    except SpecEyesError:
        return None
    return held_together(run, rows, [beside[r.result.query_id] for r in rows], small, large)


def held_together(
    run: Run, rows: Sequence[Record], alone: Sequence[Record], small: Pace, large: Pace
) -> dict[str, Any]:
    """As `transfer_costs`, from the records of the same queries in both arms."""
    written = fmean(_tokens(r)[1] for r in rows)
    answered = fmean(_tokens(r)[-1] for r in rows)
    by_itself = fmean(sum(_tokens(r)) for r in alone)
    rule = break_even(small, large, reasoning=written, answer=answered, alone=by_itself)
    spent = [costs(run.of(TEST, group[0].arm), run.blocks) for group in (rows, alone)]
    seconds = [
        fmean(one[r.result.query_id] for r in group)
        for one, group in zip(spent, (rows, alone), strict=True)
    ]
    return {
        "queries": len(rows),
        "small": asdict(small),
        "large": asdict(large),
        "tokens": {"reasoning": written, "answer": answered, "alone": by_itself},
        "predicted": {"transferred": rule.transferred, "alone": rule.alone, "least": rule.least},
        "measured": {"transferred": seconds[0], "alone": seconds[1]},
    }


def _steps(record: Record) -> int:
    way = record.result.trajectory
    return 0 if way is None else len(way.steps)


def _tokens(record: Record) -> list[int]:
    way = record.result.trajectory
    return [0] if way is None else [step.tokens for step in way.steps]


def write(found: Mapping[str, Any] | None, folder: Path) -> None:
    """Keeps the figures in the run's folder, for reports."""
    if found is not None:
        (folder / FILE).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def lines(folder: Path) -> list[str]:
    """The kept figures in words; none where there are none."""
    path = folder / FILE
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    small, large, tokens = found["small"], found["large"], found["tokens"]
    said, took = found["predicted"], found["measured"]
    return [
        f"Where reasoning was transferred ({found['queries']} queries), the small model wrote "
        f"{tokens['reasoning']:.1f} tokens and the large one {tokens['answer']:.1f}; by itself it "
        f"writes {tokens['alone']:.1f}. One query at a time a token costs the small one "
        f"{1e3 * small['decoded']:.2f} ms and the large one {1e3 * large['decoded']:.2f} ms "
        f"({1e3 * large['read']:.3f} ms to read). So the transfer should take "
        f"{1e3 * said['transferred']:.1f} ms against {1e3 * said['alone']:.1f} ms, and pays from "
        f"{said['least']:.1f} tokens on. In this run's batches, first answers included, a query "
        f"took {1e3 * took['transferred']:.1f} ms against {1e3 * took['alone']:.1f} ms."
    ]
