"""Latencies by `speceyes plan` beside those that the scripted engine then has.

    python -m speceyes.bench.roofline.latency --image 7680x5120 --judge small --queries 240

A plan goes by costs of queries one at a time and by the throughput at saturation, as `speceyes
bench --serve` measures both. Here they are measured in virtual time, and then queries come at times
of chance at shares of that throughput.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from speceyes.bench.plan.forecast import Costs, Fleet, Forecast, forecast
from speceyes.bench.planned import RoutePlan
from speceyes.bench.roofline.workload import RooflineWorkload, play
from speceyes.pipeline.costs import efficiency

LOADS: Final = (0.3, 0.6, 0.8)
ALONE: Final = 80
"""Queries, one at a time, by which costs are told."""
_SPREAD: Final = 0.3


@final
@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from submission to answer at one rate, planned and then measured.

    Args:
        load: Share of the throughput at saturation.
        told: What the plan says.
        mean: Measured mean.
        p95: Measured 95th percentile.
        drafted: Measured mean of queries answered by draft.
        by_agent: Measured mean of the others.
    """

    load: float
    told: Forecast
    mean: float
    p95: float
    drafted: float
    by_agent: float

    @property
    def off(self) -> float:
        """Relative error of the planned mean; above 0 where it is too long."""
        return self.told.mean / self.mean - 1


def latencies(workload: RooflineWorkload, loads: Sequence[float] = LOADS) -> list[Latency]:
    """Planned and measured latencies of a workload at shares of its throughput.

    Args:
        workload: The queries; both models share its accelerator.
        loads: Shares, each above 0 and below 1.

    Raises:
        ConfigError: The queries are too few to tell what each phase costs.
    """
    few = dataclasses.replace(workload, routes=dataclasses.replace(workload.routes, n=ALONE))
    found = efficiency(play(few, at_once=1).results)
    names = ("beta", "alpha", "c_judge", "c_draft", "l_tools", "l_rejected")
    alone = {name: getattr(found, name) for name in names}
    alone["c_judge"] = alone["c_judge"] or 0.0
    alone["beta"] = 1.0 if alone["beta"] is None else alone["beta"]
    costs = Costs.of({**alone, "spread": _SPREAD})
    most = 1 / play(workload).steady_s
    slots = workload.batch
    gain = min(float(slots), max(1.0, most * (costs.large + costs.small)))
    fleet = Fleet(1, 0, 1, slots, gain, min(16, slots))
    made = []
    for load in loads:
        results = play(workload, rate=load * most).results
        spent = np.array([one.timings.latency or 0.0 for one in results])
        drafted = np.array([one.route == "draft" for one in results])
        made.append(
            Latency(
                load,
                forecast(costs, load * most, fleet),
                float(spent.mean()),
                float(np.percentile(spent, 95)),
                float(spent[drafted].mean()) if drafted.any() else float("nan"),
                float(spent[~drafted].mean()) if not drafted.all() else float("nan"),
            )
        )
    return made


def table(found: Sequence[Latency]) -> str:
    """Markdown table, a line a rate."""
    lines = ["| load | mean s: planned, measured | by draft | by the agent | p95 |"]
    lines.append("|--:|--:|--:|--:|--:|")
    for one in found:
        told = one.told
        pairs = (
            (told.mean, one.mean),
            (told.drafted, one.drafted),
            (told.by_agent, one.by_agent),
            (told.p95, one.p95),
        )
        cells = [f"{100 * one.load:.0f} %", *(f"{a:.2f}, {b:.2f}" for a, b in pairs)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table of one workload."""
    made = argparse.ArgumentParser(prog="python -m speceyes.bench.roofline.latency")
    made.add_argument("--image", default="2246x1582", metavar="WxH")
    made.add_argument("--judge", choices=("large", "small", "none"), default="small")
    made.add_argument("--batch-size", type=int, default=16, metavar="B")
    made.add_argument("--queries", type=int, default=240, metavar="N")
    options = made.parse_args(arguments)
    width, height = map(int, options.image.split("x"))
    routes = RoutePlan(
        options.queries, beta=0.8, alpha=0.7, turn_tokens=100, draft_tokens=6, depth=1
    )
    workload = RooflineWorkload(
        options.image, routes, (width, height), options.judge, options.batch_size
    )
    sys.stdout.write(table(latencies(workload)) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
