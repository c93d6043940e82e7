"""Latencies by `speceyes plan` beside those that the scripted engine then has.

    python -m speceyes.bench.roofline.latency --image 640x480,2246x1582 --judge small

A plan goes by costs of queries one at a time and by the throughput at saturation, as `speceyes
bench --serve` measures both. Here they are measured in virtual time, and then queries come at times
of chance at shares of that throughput.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from speceyes.bench.plan.forecast import Costs, Fleet, Forecast, forecast
from speceyes.bench.planned import RoutePlan
from speceyes.bench.roofline.workload import RooflineWorkload, play, times_of_chance
from speceyes.pipeline.costs import efficiency
from speceyes.types import Result

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


def latencies(
    workload: RooflineWorkload, loads: Sequence[float] = LOADS, *, runs: int = 1
) -> list[Latency]:
    """Planned and measured latencies of a workload at shares of its throughput.

    Args:
        workload: The queries; both models share its accelerator.
        loads: Shares, each above 0 and below 1.
        runs: How often each load is offered, at other times of chance: a single run at a high load
            is of few busy periods.

    Raises:
        ConfigError: The queries are too few to tell what each phase costs.
    """
    tried = dataclasses.replace(workload.routes, seed=workload.routes.seed + 1)
    pilot = dataclasses.replace(workload, routes=tried)
    few = dataclasses.replace(workload, routes=dataclasses.replace(tried, n=ALONE))
    alone_run = play(few, at_once=1).results
    found = efficiency(alone_run)
    small_judge = workload.judge == "small"
    written = _written(alone_run, small_judge)
    names = ("beta", "alpha", "c_judge", "c_draft", "l_tools", "l_rejected")
    alone = {name: getattr(found, name) for name in names}
    alone["c_judge"] = alone["c_judge"] or 0.0
    alone["beta"] = 1.0 if alone["beta"] is None else alone["beta"]
    costs = Costs.of({**alone, **written, "spread": _SPREAD, "small_judge": small_judge})
    most = 1 / play(pilot).steady_s
    slots = workload.batch
    gain = min(float(slots), max(1.0, most * (costs.large + costs.small)))
    fleet = Fleet(1, 0, 1, slots, gain, slots)
    made = []
    for load in loads:
        results = [
            one
            for seed in range(runs)
            for one in _amid(play(workload, rate=load * most, seed=seed).results)
        ]
        spent = np.array([one.timings.latency or 0.0 for one in results])
        drafted = np.array([one.route == "draft" for one in results])
        made.append(
            Latency(
                load,
                forecast(costs, _offered(load * most, workload.routes.n, runs), fleet),
                float(spent.mean()),
                float(np.percentile(spent, 95)),
                float(spent[drafted].mean()) if drafted.any() else float("nan"),
                float(spent[~drafted].mean()) if not drafted.all() else float("nan"),
            )
        )
    return made


def _written(results: Sequence[Result], small_judge: bool) -> dict[str, float]:
    """Tokens that the small model writes for a draft, and a judgement of its own, and the agent."""
    judged = [one.judgement.completion for one in results if small_judge and one.judgement]
    small = [len(said.token_ids) for said in (*judged, *(one.draft for one in results)) if said]
    agent = [one.trajectory.tokens for one in results if one.trajectory is not None]
    fronts = max(1, sum(one.draft is not None for one in results))
    return {
        "draft_tokens": sum(small) / fronts,
        "agent_tokens": sum(agent) / len(agent) if agent else 0.0,
    }


def _offered(rate: float, n: int, runs: int) -> float:
    """Queries a second that came in the time that is looked at, by chance more or fewer."""
    first, last = n // 10, n - n // 10 - 1
    found = []
    for seed in range(runs):
        came = list(itertools.islice(times_of_chance(rate, seed), n))
        found.append((last - first) / (came[last] - came[first]))
    return sum(found) / runs


def _amid(results: Sequence[Result]) -> list[Result]:
    """Those in whose time the load was as it is said: not the first tenth that came, which found
    nothing under way, nor the last, after which none came.
    """
    came = sorted(results, key=lambda one: one.query_id)
    return came[len(came) // 10 : len(came) - len(came) // 10]


def table(found: Sequence[Latency]) -> str:
    """Markdown table, a line a rate."""
    lines = ["| load | mean s: planned, measured | off | by draft | by the agent | p95 |"]
    lines.append("|--:|--:|--:|--:|--:|--:|")
    for one in found:
        told = one.told
        pairs = (
            (told.mean, one.mean),
            (told.drafted, one.drafted),
            (told.by_agent, one.by_agent),
            (told.p95, one.p95),
        )
        mean, *others = (f"{a:.2f}, {b:.2f}" for a, b in pairs)
        cells = [f"{100 * one.load:.0f} %", mean, f"{100 * one.off:+.0f} %", *others]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table of one workload."""
    made = argparse.ArgumentParser(prog="python -m speceyes.bench.roofline.latency")
    made.add_argument("--image", default="2246x1582", metavar="WxH", help="several with commas")
    made.add_argument("--judge", choices=("large", "small", "none"), default="small")
    made.add_argument("--batch-size", type=int, default=16, metavar="B")
    made.add_argument("--queries", type=int, default=1000, metavar="N", help="at each load")
    made.add_argument("--runs", type=int, default=1, metavar="R", help="so many times")
    options = made.parse_args(arguments)
    routes = RoutePlan(
        options.queries, beta=0.8, alpha=0.7, turn_tokens=100, draft_tokens=6, depth=1
    )
    for image in options.image.split(","):
        width, height = map(int, image.split("x"))
        size, batch = (width, height), options.batch_size
        workload = RooflineWorkload(image, routes, size, options.judge, batch)
        sys.stdout.write(
            f"{image}, {batch} at once\n\n{table(latencies(workload, runs=options.runs))}\n\n"
        )
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
