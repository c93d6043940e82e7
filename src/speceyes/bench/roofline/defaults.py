"""Speed of a pipeline with its default schedule over the scripted engine, beside the agent alone.

    python -m speceyes.bench.roofline.defaults

Eight workloads, each through `SpecPipeline.from_pretrained` as a user builds it: the agent alone,
the agent alone on other queries of the kind (what chance does), the default, and
`speculate="always"`. Virtual time, so that every run comes out the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, final

from speceyes.bench.roofline.workload import (
    MAGNIFY,
    House,
    PlannedSpeech,
    Played,
    RooflineWorkload,
    eight,
)
from speceyes.pipeline import (
    AgentConfig,
    DraftConfig,
    JudgeConfig,
    ScheduleConfig,
    SpecPipeline,
)

How: TypeAlias = Literal["agent", "default", "always"]
_BATCH: Final = 16


def play_built(workload: RooflineWorkload, how: How) -> Played:
    """Runs a workload through a pipeline of `from_pretrained`.

    Args:
        workload: The queries and the models.
        how: "agent" for the agent alone; "default" for what a pipeline does that isn't told
            whether to speculate; or "always".
    """
    speech = PlannedSpeech(workload.routes, workload.spread)
    house = House(workload, speech, speech)
    pixels = workload.draft_pixels
    pipe = SpecPipeline.from_pretrained(
        house.large,
        None if how == "agent" else house.small,
        dialect="deepeyes",
        judge=JudgeConfig(None if workload.judge == "none" else workload.judge),
        draft=DraftConfig(max_pixels=None if pixels is None else pixels // MAGNIFY**2),
        agent=AgentConfig(max_steps=max(6, workload.routes.depth + 1), max_batch=workload.batch),
        schedule=ScheduleConfig(
            min(_BATCH, workload.batch), speculate="always" if how == "always" else None
        ),
    )
    parts = dataclasses.replace(pipe.parts, clock=house.clock)
    return house.play(parts, overlap=pipe.parts.overlaps)


@final
@dataclass(frozen=True, slots=True)
class Speeds:
    """Throughput of a workload over that of the agent alone.

    Args:
        name: The workload's.
        again: Of the agent alone on other queries of the kind.
        default: Of the pipeline as it is built.
        always: Of one that speculates on every query.
        speculated: How many of the queries the default speculated on.
        queries: Of how many.
    """

    name: str
    again: float
    default: float
    always: float
    speculated: int
    queries: int


def speeds(workload: RooflineWorkload) -> Speeds:
    """Measures a workload."""
    others = dataclasses.replace(workload.routes, seed=workload.routes.seed + 1)
    agent = play_built(workload, "agent").seconds
    again = play_built(dataclasses.replace(workload, routes=others), "agent").seconds
    default, always = (play_built(workload, how) for how in ("default", "always"))
    return Speeds(
        workload.name,
        agent / again,
        agent / default.seconds,
        agent / always.seconds,
        sum(not one.straight for one in default.results),
        len(default.results),
    )


def table(found: Iterable[Speeds]) -> str:
    """Markdown table, a line a workload."""
    lines = ["| workload | agent on other queries | default | `always` | speculated on |"]
    lines.append("|---|--:|--:|--:|--:|")
    for one in found:
        times = (f"{x:.2f}x" for x in (one.again, one.default, one.always))
        lines.append(f"| {' | '.join([one.name, *times])} | {one.speculated} of {one.queries} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Prints the table."""
    made = argparse.ArgumentParser(prog="python -m speceyes.bench.roofline.defaults")
    made.add_argument("--queries", type=int, default=1000, metavar="N", help="of each workload")
    made.add_argument("--batch-size", type=int, default=_BATCH, metavar="B", help="of the agent")
    options = made.parse_args(arguments)
    found = map(speeds, eight(options.queries, options.batch_size))
    sys.stdout.write(table(found) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
