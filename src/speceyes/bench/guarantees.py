"""Simulation of the guarantees: splits of recorded drafts, and streams with and without drift.

`python -m speceyes.bench.guarantees` prints the tables of docs/guarantee.md; with `--promises` only
that of every promise, before and after its remedy, in some minutes; with `--no-promises` the rest.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from speceyes.calibration import evidence, risk, shift
from speceyes.calibration.binomial import binomial_cdf
from speceyes.calibration.record import Risk

Floats = npt.NDArray[np.float64]

KINDS: Final = ("graded", "treacherous", "tied", "constant", "all right", "all wrong")


@dataclass(frozen=True, slots=True)
class Pool:
    """Recorded drafts to split.

    Args:
        scores: float64[n] from 0 to 1, NaN where the judge sent the query to the agent.
        bad: bool[n].
    """

    scores: Floats
    bad: npt.NDArray[np.bool_]


def pool(kind: str, size: int = 50_000, seed: int = 0) -> Pool:
    """Drafts of one of the `KINDS`; about a fifth never gets to the gate.

    "graded": fewer errors at higher scores. "treacherous": the same, but the highest 3% are
    wrong one time in five, and a band in the middle is, too. "tied": as "graded", with five
    distinct scores. "constant": one score, an error rate of 3%.
    """
    random = np.random.default_rng(seed)
    scores = random.random(size)
    chance = 0.6 * np.exp(-6 * scores)
    if kind == "treacherous":
        chance = np.where((scores > 0.97) | (abs(scores - 0.6) < 0.03), 0.2, 0.5 * chance)
    elif kind == "tied":
        scores = np.floor(5 * scores) / 5
        chance = 0.6 * np.exp(-6 * scores)
    elif kind == "constant":
        scores, chance = np.full(size, 0.7), np.full(size, 0.03)
    elif kind == "all right":
        chance = np.zeros(size)
    elif kind == "all wrong":
        chance = np.ones(size)
    bad = random.random(size) < chance
    scores[random.random(size) < 0.2] = np.nan
    return Pool(scores, bad)


@dataclass(frozen=True, slots=True)
class Splits:
    """Results of many splits.

    Args:
        risks: float64[splits], the risk on the held-out drafts; 0 where nothing was certified.
        certified: bool[splits].
        coverage: float64[splits], the share of held-out queries that were accepted.
    """

    risks: Floats
    certified: npt.NDArray[np.bool_]
    coverage: Floats


def split(
    drafts: Pool,
    n: int,
    splits: int,
    kind: Risk,
    target: float,
    delta: float | None,
    *,
    seed: int = 0,
) -> Splits:
    """Calibrates on n random drafts and measures the risk on all others, many times.

    Args:
        drafts: The pool; the larger, the nearer the measured risk is to the true one.
        n: Labelled drafts in each split.
        splits: How many.
        kind: "selective" or "overall".
        target: The risk to stay under.
        delta: One minus the confidence; None for conformal risk control.
        seed: Of the splits.
    """
    random = np.random.default_rng(seed)
    there = ~np.isnan(drafts.scores)
    order = np.argsort(drafts.scores[there])
    rising = drafts.scores[there][order]
    bad_below = np.concatenate([[0], np.cumsum(drafts.bad[there][order])])
    size = drafts.scores.size
    risks, coverage = np.zeros(splits), np.zeros(splits)
    certified = np.zeros(splits, dtype=bool)
    for i in range(splits):
        drawn = random.choice(size, n, replace=False, shuffle=False)
        scores, bad = drafts.scores[drawn], drafts.bad[drawn]
        rungs = risk.ladder(scores, bad)
        if delta is None:
            passed = risk.crc(rungs, target)
        elif kind == "overall":
            passed = risk.overall(rungs, target, delta)
        else:
            start = risk.default_start(n, target, delta)
            passed = risk.selective(rungs, target, delta, start=start, random=random)
        threshold = risk.loosest(rungs, passed)
        if threshold is None:
            continue
        certified[i] = True
        below = int(np.searchsorted(rising, threshold, side="left"))
        accepted = rising.size - below - int(rungs.accepted[passed - 1])
        wrong = int(bad_below[-1] - bad_below[below]) - int(rungs.bad[passed - 1])
        coverage[i] = accepted / (size - n)
        risks[i] = wrong / (size - n if kind == "overall" else max(1, accepted))
    return Splits(risks, certified, coverage)


def first_alarm(
    bad: npt.NDArray[np.bool_] | Iterator[npt.NDArray[np.bool_]],
    rounds: int,
    target: float,
    delta: float,
) -> npt.NDArray[np.int64]:
    """Number of audits up to the alarm, or rounds + 1 where there is none.

    Args:
        bad: bool[rounds, streams], or rounds of bool[streams] as they come.
        rounds: How many audits.
        target: The promised risk.
        delta: Probability of a false alarm.
    """
    alarm: npt.NDArray[np.int64] | None = None
    wealth = np.zeros((0, 0))
    for j, row in zip(range(rounds), bad, strict=False):
        if alarm is None:
            alarm = np.full(row.size, rounds + 1)
            wealth = np.zeros((row.size, evidence.play(np.zeros((1, 1)), row[:1], 0, 0.5).shape[1]))
        wealth = evidence.play(wealth, row, j, target)
        rung = (wealth.sum(axis=1) + 1 / (j + 2) >= 1 / delta) & (alarm > rounds)
        alarm[rung] = j + 1
    return np.zeros(0, np.int64) if alarm is None else alarm


def first_shift_alarm(ranks: Iterator[Floats], rounds: int, delta: float) -> npt.NDArray[np.int64]:
    """Number of ranks float64[streams] up to the shift alarm, as in `first_alarm`."""
    alarm: npt.NDArray[np.int64] | None = None
    wealth, memory = np.zeros(0), np.zeros((0, 0))
    for j, row in zip(range(rounds), ranks, strict=False):
        if alarm is None:
            alarm = np.full(row.size, rounds + 1)
            wealth, memory = np.zeros(row.size), np.zeros((row.size, shift.CELLS))
        wealth, memory = shift.play(wealth, memory, row, j)
        rung = (wealth + 1 / (j + 2) >= 1 / delta) & (alarm > rounds)
        alarm[rung] = j + 1
    return np.zeros(0, np.int64) if alarm is None else alarm


def surprising(exceeded: int, splits: int, delta: float) -> bool:
    """True where so many failures are unlikely (1 in 1,000) where each has probability delta."""
    return 1 - binomial_cdf(exceeded - 1, splits, delta) < 1e-3


def _streams(
    random: np.random.Generator, streams: int, change: int, before: float, after: float
) -> Iterator[npt.NDArray[np.bool_]]:
    j = 0
    while True:
        yield random.random(streams) < (before if j < change else after)
        j += 1


def _ranks(random: np.random.Generator, streams: int) -> Iterator[Floats]:
    while True:
        yield random.random(streams)


def _split_table(splits: int, sizes: list[int]) -> Iterator[str]:
    yield "| drafts | promise | delta | n | certified | coverage | mean risk | exceeded |"
    yield "|---|---|---|---|---|---|---|---|"
    wrong = 0
    for name in KINDS:
        drafts = pool(name)
        for kind, target in (("selective", 0.05), ("overall", 0.05)):
            for delta in (0.05, 0.1) if kind == "selective" else (0.05, 0.1, None):
                for n in sizes:
                    found = split(drafts, n, splits, kind, target, delta, seed=n)  # type: ignore[arg-type]
                    exceeded = int((found.risks > target).sum())
                    if delta is not None:
                        fails = surprising(exceeded, splits, delta)
                    else:
                        spread = found.risks.std() / math.sqrt(splits)
                        fails = bool(found.risks.mean() > target + 3.1 * spread)
                    wrong += fails
                    yield (
                        f"| {name} | {kind} <= {target:g} | {'mean' if delta is None else delta} "
                        f"| {n} | {found.certified.mean():.1%} | {found.coverage.mean():.1%} "
                        f"| {found.risks.mean():.4f} | {exceeded / splits:.1%}"
                        f"{' FAILS' if fails else ''} |"
                    )
    yield f"\nRows that break their promise: {wrong}."


def _monitor_table(streams: int, rounds: int) -> Iterator[str]:
    random = np.random.default_rng(0)
    target = delta = 0.05
    quiet = first_alarm(_streams(random, streams, 0, target, target), rounds, target, delta)
    yield f"\nNo drift, risk at its target: {(quiet <= rounds).mean():.2%} of {streams} streams of "
    yield f"{rounds} audits raised an alarm; {delta:.0%} are promised."
    scores = first_shift_alarm(_ranks(random, streams // 4), 10 * rounds, delta)
    yield f"No shift: {(scores <= 10 * rounds).mean():.2%} of {streams // 4} streams of "
    yield f"{10 * rounds} scores raised an alarm.\n"
    yield "| risk before, promised | change at audit | risk after | delay: median | 90% | missed |"
    yield "|---|---|---|---|---|---|"
    for change in (0, 100, 1000):
        for after in (0.075, 0.1, 0.15, 0.2, 0.3, 0.5):
            stream = _streams(random, streams, change, 0.03, after)
            alarm = first_alarm(stream, change + rounds, target, delta)
            late = alarm[alarm > change] - change
            half, most = np.percentile(late, [50, 90])
            yield (
                f"| 3%, 5% | {change} | {after:.1%} | {half:.0f} | {most:.0f} "
                f"| {(late > rounds).mean():.1%} |"
            )


def main(argv: list[str] | None = None) -> int:
    """Prints the tables; the whole takes some minutes."""
    parser = argparse.ArgumentParser(
        prog="python -m speceyes.bench.guarantees",
        description="Measures how often the guarantees of speceyes.calibration fail, and how "
        "soon a monitor notices drift.",
    )
    parser.add_argument("--splits", type=int, default=2000, help="default: %(default)s")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[50, 100, 200, 500, 1000, 2000], metavar="N"
    )
    parser.add_argument("--streams", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--audits", type=int, default=3000, help="a stream; default: %(default)s")
    parser.add_argument(
        "--promises",
        action=argparse.BooleanOptionalAction,
        help="only the table of promises, before and after; or only the others",
    )
    chosen = parser.parse_args(argv)
    tables: list[Iterator[str]] = []
    if chosen.promises is not False:
        tables.append(_promises())
    if not chosen.promises:
        tables.append(_split_table(chosen.splits, chosen.sizes))
        tables.append(_monitor_table(chosen.streams, chosen.audits))
    kept = True
    for table in tables:
        for line in table:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            kept &= not line.endswith("| NO |")
    return 0 if kept or not chosen.promises else 1


def _promises() -> Iterator[str]:
    from speceyes.bench.promises import beyond, handed, labels, measures, running
    from speceyes.bench.promises.experiment import table

    head, rule, *_ = table([]).splitlines()
    yield from (head, rule)
    for group in (running, labels, handed, beyond, measures):
        for row in group.experiments():
            yield table([row]).splitlines()[-1]


if __name__ == "__main__":
    sys.exit(main())
