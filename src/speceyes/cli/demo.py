"""`speceyes demo`: the funnel against the agent alone, on the bundled tiny pair."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from speceyes import tiny
from speceyes.cli import models
from speceyes.cli.failures import say_failures
from speceyes.cli.options import (
    add_device,
    add_threshold,
    at_least_one,
    at_least_zero,
    command,
)
from speceyes.models.by_name import load_model

ABOUT = """\
Runs five arms on held-out synthetic scenes and prints them side by side: the funnel and the agent,
both in batches and one query at a time, and the small model alone. Writes into the folder
  results.jsonl   every answer of every arm, graded, a line each
  summary.json    all figures
  report.html     the same to look at, with every query; needs no network
Ctrl-C stops the run and keeps what was finished. Where every query of an arm failed, that is said
first, and the exit code is 1."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to an argparse sub-parser set."""
    one = command(
        commands,
        "demo",
        help="the funnel against the agent alone, on the bundled tiny pair",
        description=ABOUT,
    )
    one.add_argument(
        "--queries",
        type=at_least_one,
        default=120,
        metavar="N",
        help="how many; default: %(default)s",
    )
    one.add_argument(
        "--out",
        type=Path,
        default=Path("speceyes-demo"),
        metavar="DIR",
        help="folder for the files, made if need be; default: ./%(default)s",
    )
    one.add_argument(
        "--batch-size", type=at_least_one, default=16, metavar="B", help="default: %(default)s"
    )
    one.add_argument(
        "--start",
        type=at_least_zero,
        default=0,
        metavar="I",
        help="number of the first held-out query; another one gives other scenes",
    )
    one.add_argument(
        "--judge",
        choices=("draft", "large"),
        default="draft",
        help="draft: the small model judges in its draft, which answers or asks for a closer look "
        "(the default); large: the agent's model judges first, as in the paper, which costs more",
    )
    one.add_argument("--quiet", action="store_true", help="no progress bars")
    add_device(one)
    add_threshold(one)
    one.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs it; the exit code."""
    in_draft = options.judge == "draft"
    settings = models.bundled_settings("draft" if in_draft else None)
    if options.threshold is not None:
        settings["threshold"] = options.threshold
    print("loading the bundled tiny pair ...", file=sys.stderr)
    from speceyes.answerer import SpeculativeAnswerer
    from speceyes.environment import versions_line
    from speceyes.evaluation.demo import Demo
    from speceyes.evaluation.failures import Failures
    from speceyes.evaluation.summary import table
    from speceyes.fallback import AgenticFallback
    from speceyes.gate import SeparabilityGate
    from speceyes.judge import ToolJudge
    from speceyes.pipeline import ScheduleConfig, SpecPipeline
    from speceyes.tiny.scenes import questions

    drafter = tiny.SMALL_JUDGE if in_draft else tiny.SMALL
    large, small = (load_model(path, options.device) for path in (tiny.LARGE, drafter))
    size = options.batch_size
    judge = None if in_draft else ToolJudge(large, tools=["zoom"])
    answerer = SpeculativeAnswerer(
        small, top_k=settings["top_k"], tools=["zoom"], may_look=in_draft
    )
    gate = SeparabilityGate(**settings)
    agent = AgenticFallback(large, tools=["zoom"], max_batch=size)
    alone = AgenticFallback(large, tools=["zoom"], max_batch=1)
    demo = Demo(
        pipeline=SpecPipeline(
            judge=judge,
            answerer=answerer,
            gate=gate,
            fallback=agent,
            schedule=ScheduleConfig(batch_size=size),
        ),
        one_by_one=SpecPipeline(
            judge=judge,
            answerer=answerer,
            gate=gate,
            fallback=alone,
            schedule=ScheduleConfig(batch_size=1),
        ),
        again=True,
        agent=alone,
        agent_batched=agent,
        answerer=SpeculativeAnswerer(small, top_k=settings["top_k"]),
        gate=gate,
        batch_size=size,
        out=options.out,
        notes={"models": {"large": large.name, "small": small.name}, "start": options.start},
        progress=None if options.quiet else sys.stderr,
    )
    print(
        f"{options.queries} held-out queries, five arms; the agent thinks, zooms and answers, "
        "the funnel spares it where it can",
        file=sys.stderr,
    )
    try:
        summary = demo(
            questions("heldout", options.queries, start=options.start),
            total=options.queries,
            warm_up=questions("calibration", 8),
        )
    except KeyboardInterrupt:
        print(f"\nspeceyes: what was finished is in {options.out}", file=sys.stderr)
        raise
    failures = [Failures(**one) for one in summary["failures"]]
    failed = say_failures(failures)
    if not all(one.whole for one in failures):  # figures of nothing at all would only mislead
        print(table(summary))
        print(f"\n{versions_line()}")
    print(f"results, summary and page: {options.out / 'report.html'}")
    return failed
