"""`speceyes bench`: what each way of running costs on this machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from speceyes.errors import ConfigError
from speceyes.evaluation.bench import arms, markdown, measure, summarise


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the command to an argparse sub-parser set.

    Args:
        commands: The set.
        shared: Options that all commands have.
    """
    bench = commands.add_parser(
        "bench",
        parents=[shared],
        help="measure the funnel, the agent, and the paper's schedule side by side",
        description=(
            "Answers the same held-out scenes with the bundled pair in every way: the agent, "
            "the schedule of the paper's code, speceyes, and speceyes with one thing switched "
            "off each. Prints a Markdown table of ratios within one run."
        ),
    )
    bench.add_argument("--queries", type=int, default=96, metavar="N", help="default: %(default)s")
    bench.add_argument("--repeats", type=int, default=3, metavar="N", help="default: %(default)s")
    bench.add_argument(
        "--batch-size", type=int, default=16, metavar="N", help="default: %(default)s"
    )
    bench.add_argument(
        "--arms", metavar="TEXT", help="only arms with one of these comma-separated texts in them"
    )
    bench.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON too")
    bench.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs it; the exit code."""
    from speceyes import tiny
    from speceyes.gate import SeparabilityGate
    from speceyes.models.hf import HFModel
    from speceyes.tiny.scenes import questions

    for name in ("queries", "repeats", "batch_size"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1")
    settings = tiny.settings()
    top_k = int(settings["top_k"])
    threshold = settings["threshold"] if options.threshold is None else options.threshold
    gate = SeparabilityGate(float(threshold), top_k=top_k, aggregate=settings["aggregate"])
    large, small = (
        HFModel.from_pretrained(path, device=options.device) for path in (tiny.LARGE, tiny.SMALL)
    )
    ways = arms(large, small, gate, tools=["zoom"], batch=options.batch_size)
    if options.arms:
        wanted = [part.strip() for part in options.arms.split(",")]
        ways = [way for way in ways if any(part in way.name for part in wanted)]
        if not ways:
            raise ConfigError(f"--arms {options.arms!r} names no arm")
    print(f"drawing {options.queries} scenes ...", file=sys.stderr)
    queries = [item.query for item in questions("heldout", options.queries)]

    def told(name: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {name}", file=sys.stderr)

    found = measure(ways, queries, repeats=options.repeats, step=told)
    table = summarise(found, len(queries))
    print(markdown(table))
    about = {
        "queries": len(queries),
        "repeats": options.repeats,
        "batch_size": options.batch_size,
        "device": str(large.device),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "peak_memory_mib": _peak_mib(),
        "versions": {n: metadata.version(n) for n in ("torch", "transformers", "pillow")},
    }
    print("\n" + ", ".join(f"{k} {v}" for k, v in about.items() if k != "versions"))
    if options.out is not None:
        text = json.dumps({"about": about, "arms": table}, indent=2)
        options.out.write_text(text + "\n", encoding="utf-8")
    return 0


def _peak_mib() -> int | None:
    """The process's largest memory so far; None where the system doesn't tell."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20
