"""Comparison of gates: `python -m speceyes.bench.gate_table --n 1000`.

How drafts are recorded and scored is in `gate_rows`; here are their intervals, and the tables of
docs/gate.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from speceyes import tiny
from speceyes.bench.gate_rows import Floats, Row, measure
from speceyes.errors import InputError
from speceyes.evaluation.intervals import risk_coverage
from speceyes.models.hf import HFModel
from speceyes.scoring.ranking import auroc

Interval: TypeAlias = tuple[float, float, float]

RESAMPLES: Final = 1000


def areas(scores: Floats, right: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """(AUROC, area under the risk-coverage curve).

    Raises:
        InputError: All drafts are right, or all wrong.
    """
    return auroc(scores, right), float(risk_coverage(scores, right)[1].mean())


def bootstrapped(
    row: Row, against: Row | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Interval, Interval] | None:
    """AUROC and AURC with 95% percentile intervals over queries.

    Args:
        row: A gate.
        against: Another on the same queries; the differences then (row less against), resampled
            in pairs.
        resamples: How often the queries are drawn anew; draws of one kind only are left out.
        seed: Seed of the draws, so that all gates see the same.

    Returns:
        ((AUROC, low, high), (AURC, low, high)); None where all drafts are right, or all wrong.
    """
    random = np.random.default_rng(seed)
    n = row.right.size

    def figures(at: npt.NDArray[np.int_]) -> tuple[float, float] | None:
        right = row.right[at]
        if right.all() or not right.any():
            return None
        first = areas(row.scores[at], right)
        if against is None:
            return first
        other = areas(against.scores[at], right)
        return first[0] - other[0], first[1] - other[1]

    whole = figures(np.arange(n))
    if whole is None:
        return None
    drawn = (figures(random.integers(0, n, n)) for _ in range(resamples))
    kept = np.array([pair for pair in drawn if pair is not None])
    low, high = np.percentile(kept, [2.5, 97.5], axis=0)
    return (
        (whole[0], float(low[0]), float(high[0])),
        (whole[1], float(low[1]), float(high[1])),
    )


def table(rows: Sequence[Row], *, resamples: int = RESAMPLES) -> Iterator[str]:
    """Markdown lines: each gate overall, and its difference from the first."""
    yield "| gate | AUROC | less the default's | AURC | a draft | a verdict |"
    yield "|---|---|---|---|---|---|"
    for one in rows:
        found = bootstrapped(one, resamples=resamples)
        if found is None:
            raise InputError("all drafts are right, or all wrong: there is nothing to tell apart")
        gained = None if one is rows[0] else bootstrapped(one, rows[0], resamples=resamples)
        apart = "" if gained is None else _shown(gained[0], sign=True)
        yield (
            f"| {one.name} | {_shown(found[0])} | {apart} | {_shown(found[1])} "
            f"| {1e3 * one.draft_s:.1f} ms | {1e6 * one.gate_s:.0f} us |"
        )


def by_kind(
    rows: Sequence[Row], *, least: int = 5, resamples: int = RESAMPLES // 2
) -> Iterator[str]:
    """Markdown lines: AUROC by kind of question, where there are `least` right and wrong each."""
    kinds = np.array(rows[0].kinds)
    shown = [
        kind
        for kind in sorted(set(rows[0].kinds))
        if min((right := rows[0].right[kinds == kind]).sum(), (~right).sum()) >= least
    ]
    if not shown:
        yield f"no kind has {least} right and {least} wrong drafts"
        return
    yield (
        "| gate | "
        + " | ".join(
            f"{kind} ({int(rows[0].right[kinds == kind].sum())} of {int((kinds == kind).sum())})"
            for kind in shown
        )
        + " |"
    )
    yield "|---" * (len(shown) + 1) + "|"
    for one in rows:
        cells = []
        for kind in shown:
            at = kinds == kind
            part = Row(one.name, one.scores[at], one.right[at], (), 0.0, 0.0)
            found = bootstrapped(part, resamples=resamples)
            cells.append("" if found is None else _shown(found[0], digits=2))
        yield f"| {one.name} | " + " | ".join(cells) + " |"


def _shown(found: Interval, *, digits: int = 3, sign: bool = False) -> str:
    form = f"{'+' if sign else ''}.{digits}f"
    value, low, high = (format(x, form) for x in found)
    return f"{value} ({low} to {high})"


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the tables of docs/gate.md."""
    parser = argparse.ArgumentParser(
        prog="python -m speceyes.bench.gate_table",
        description="Compares gates on recorded drafts of the bundled small model.",
    )
    parser.add_argument("--n", type=int, default=1000, help="held-out queries; %(default)s")
    parser.add_argument("--calibration", type=int, help="calibration queries; as many as --n")
    parser.add_argument("--batch", type=int, default=32, help="queries a batch; %(default)s")
    parser.add_argument(
        "--scale", type=float, default=0.03, help="of the second look's sides; %(default)s"
    )
    parser.add_argument(
        "--resamples", type=int, default=RESAMPLES, help="draws an interval; %(default)s"
    )
    parser.add_argument("--small", type=Path, default=tiny.SMALL, help="the drafter's folder")
    parser.add_argument("--large", type=Path, default=tiny.LARGE, help="the judge's folder")
    args = parser.parse_args(argv)
    if min(args.n, args.batch, args.calibration or 1, args.resamples) < 1:
        parser.error("--n, --calibration, --batch and --resamples must be at least 1")
    rows, options, notes = measure(
        lambda: HFModel.from_pretrained(args.small),
        HFModel.from_pretrained(args.large),
        n=args.n,
        calibration=args.calibration or args.n,
        batch=args.batch,
        scale=args.scale,
    )
    for title, lines in (
        (f"Open questions, {args.n} held out", table(rows, resamples=args.resamples)),
        (
            "AUROC by kind of question (right drafts of all)",
            by_kind(rows, resamples=max(1, args.resamples // 2)),
        ),
        (
            f"Questions with options, {args.n} held out",
            table(options, resamples=args.resamples),
        ),
    ):
        sys.stdout.write(f"\n{title}\n\n" + "\n".join(lines) + "\n")
    sys.stdout.write("\n" + "\n".join(f"{name}: {note}" for name, note in notes.items()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
