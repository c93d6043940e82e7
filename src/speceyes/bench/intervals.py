"""Coverage of the intervals of a speed gain, by simulated runs on disturbed machines.

`python -m speceyes.bench.intervals` prints the table of docs/evaluation.md. A run is cut
into rounds as `speceyes eval` cuts it, its arms take turns as they do there, and the seconds of a
batch are those of its slowest query times what the machine is slowed by at that moment: by drift
over the whole run, by bursts of other work that last from less than a turn to several rounds, or
by both.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from speceyes.evaluation.rounds import ratio, round_size
from speceyes.evaluation.turn import order_of


@final
@dataclass(frozen=True, slots=True)
class Machine:
    """Disturbances of a simulated run.

    Args:
        name: For the table.
        drift: By what factor the machine is slower at the end of the run than at its start.
        bursts: Bursts of other work that a run sees on average.
        length: Mean length of a burst, in turns of an arm.
        slowed: By what factor a burst slows the machine.
    """

    name: str
    drift: float = 1.0
    bursts: float = 0.0
    length: float = 1.0
    slowed: float = 1.0


MACHINES: Final = (
    Machine("quiet"),
    Machine("drift, twice as slow at the end", drift=2.0),
    Machine("short bursts", bursts=8, length=0.5, slowed=2.0),
    Machine("bursts of a turn", bursts=6, length=1.0, slowed=2.0),
    Machine("long bursts", bursts=3, length=8.0, slowed=2.5),
    Machine("drift and bursts", drift=1.7, bursts=6, length=2.0, slowed=2.0),
)


def simulated(
    random: np.random.Generator, machine: Machine, n: int, batch_size: int, gain: float, arms: int
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of each round (float64[rounds] each) in the first arm and in the second.

    Args:
        random: The source of chance.
        machine: What disturbs it.
        n: Queries.
        batch_size: Of the arms.
        gain: True ratio of the first arm's seconds to the second's.
        arms: Arms that take turns; the other ones take as long as the first.
    """
    size = round_size(n, batch_size)
    hard = random.lognormal(0.0, 0.6, n)
    rounds = [hard[at : at + size] for at in range(0, n, size)]
    work = np.array(
        [
            sum(part[i : i + batch_size].max() for i in range(0, len(part), batch_size))
            for part in rounds
        ]
    )
    turns = len(rounds) * arms
    starts = random.uniform(0, turns, random.poisson(machine.bursts))
    ends = starts + random.exponential(machine.length, len(starts))
    slow = np.linspace(1.0, machine.drift, turns)
    for start, end in zip(starts, ends, strict=True):
        at = np.arange(turns)
        inside = np.clip(np.minimum(at + 1, end) - np.maximum(at, start), 0, 1)
        slow *= 1 + (machine.slowed - 1) * inside
    slow *= random.lognormal(0.0, 0.04, turns)
    seconds = np.zeros((2, len(rounds)))
    for number in range(len(rounds)):
        for place, arm in enumerate(order_of(range(arms), number)):
            if arm < 2:
                own = work[number] / (gain if arm == 1 else 1.0)
                own *= random.lognormal(0.0, 0.1)
                seconds[arm, number] = own * slow[number * arms + place]
    return seconds[0], seconds[1]


def coverage(
    machine: Machine,
    *,
    n: int = 200,
    batch_size: int = 16,
    gain: float = 1.3,
    arms: int = 4,
    runs: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """(share of simulated runs whose 95 % interval holds the true gain, mean relative width).

    The two arms' noise is alike, so that the ratio of expected seconds is the gain itself.

    Args:
        machine: What disturbs it.
        n: Queries a run.
        batch_size: Of the arms.
        gain: The true gain.
        arms: Arms that take turns.
        runs: Simulated runs.
        seed: Of the source of chance.
    """
    random = np.random.default_rng(seed)
    held, widths = 0, []
    for _ in range(runs):
        top, bottom = simulated(random, machine, n, batch_size, gain, arms)
        value, low, high = ratio(top, bottom)
        if low is None or high is None:
            continue
        held += low <= gain <= high
        widths.append((high - low) / value)
    return held / max(len(widths), 1), float(np.mean(widths)) if widths else 0.0


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; the exit code is 1 where an interval holds the truth too rarely."""
    parser = argparse.ArgumentParser(
        prog="python -m speceyes.bench.intervals",
        description="Coverage of the 95 % intervals of a speed gain, by simulation.",
    )
    parser.add_argument("--runs", type=int, default=2000, help="simulated runs; %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="seed; %(default)s")
    options = parser.parse_args(argv)
    lines = ["| machine | queries | rounds | holds the truth | width |", "|---|--:|--:|--:|--:|"]
    worst = 1.0
    for machine in MACHINES:
        for n in (42, 60, 200, 1000):
            held, width = coverage(machine, n=n, runs=options.runs, seed=options.seed)
            rounds = -(-n // round_size(n, 16))
            worst = min(worst, held)
            lines.append(f"| {machine.name} | {n} | {rounds} | {held:.1%} | {width:.0%} |")
    lines += ["", f"At worst {worst:.1%} of intervals hold the truth; 95 % are meant to."]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if worst >= 0.93 else 1


if __name__ == "__main__":
    sys.exit(main())
