"""`speceyes bench --serve`: a server under rising load, among faults of every kind."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from typing import Final

from speceyes.cli.failures import say_failures
from speceyes.errors import ConfigError
from speceyes.evaluation.failures import Failures

REQUESTS: Final = 10_000
LOADS: Final = (0.25, 0.5, 0.75, 0.9, 1.0, 1.25)
SHARE: Final = 0.01
PAIRS: Final = ("tiny", "scripted")
KEY: Final = "SPECEYES_API_KEY"


def extend(bench: argparse.ArgumentParser) -> None:
    """Adds `--serve` to the parser of `speceyes bench`."""
    usual: Callable[[argparse.Namespace], int] = bench.get_default("run")
    one = bench.add_argument_group(
        "a server under load",
        "10,000 requests at rising load, 1 %% of them of each kind of fault; fails where one of "
        "them got no end, or more than one",
    )
    one.add_argument("--serve", action="store_true", help="start a server, and load it")
    one.add_argument(
        "--requests", type=int, default=REQUESTS, metavar="N", help="default: %(default)s"
    )
    one.add_argument(
        "--loads",
        default=",".join(f"{load:g}" for load in LOADS),
        metavar="LIST",
        help="steps, as shares of the capacity that is measured first; default: %(default)s",
    )
    one.add_argument(
        "--pair",
        choices=PAIRS,
        default="tiny",
        help="the bundled models, or scripted ones that cost nothing, so that the server itself "
        "is measured; default: %(default)s",
    )
    one.add_argument(
        "--faults",
        type=float,
        default=SHARE,
        metavar="SHARE",
        help="of requests, for each kind; default: %(default)s",
    )
    one.add_argument(
        "--stall", type=float, default=0.2, metavar="S", help="of a slow engine; default: 0.2"
    )
    one.add_argument(
        "--queue", type=int, default=256, metavar="N", help="the server's; default: %(default)s"
    )
    one.add_argument(
        "--url",
        action="append",
        default=[],
        metavar="URL",
        help="load this running server instead, with the bundled scenes, as nobody else does; "
        f"repeat for several in turn; its key is read from {KEY}",
    )
    one.add_argument("--rate", type=float, metavar="R", help="requests a second that are load 1")
    bench.set_defaults(run=lambda options: run(options) if options.serve else usual(options))


def run(options: argparse.Namespace) -> int:
    """Runs it; the exit code."""
    import asyncio

    from speceyes.bench.load import report as load_report
    from speceyes.bench.load.client import place
    from speceyes.bench.load.requests import ENGINE_FAULTS, FAULTS, draw_requests
    from speceyes.bench.load.run import load, prompt_set_of
    from speceyes.bench.load.server import started

    loads = _loads(options.loads)
    if options.requests < len(loads):
        raise ConfigError(f"--requests {options.requests}; at least one for each of {len(loads)}")
    if not (math.isfinite(options.stall) and options.stall >= 0):
        raise ConfigError(f"--stall {options.stall}; it must be at least 0 seconds")
    kinds = [kind for kind in FAULTS if not options.url or kind not in ENGINE_FAULTS]
    planned = draw_requests(options.requests, share=options.faults, kinds=kinds)
    urls = [place(url) and url.rstrip("/").removesuffix("/v1") for url in options.url]
    prompts = prompt_set_of(options.pair if not options.url else "tiny")
    with started(options, urls) as server:
        report, found = asyncio.run(load(options, loads, planned, kinds, prompts, server))
    report["said"] = said = (
        f"{options.requests} requests, {report['about']['server']}, "
        f"{report['about']['machine']}; load 1 is {report['capacity_per_s']:.1f} requests a second"
    )
    code = say_failures(Failures(**one) for one in report["failures"])
    _say(load_report.table(report["steps"]))
    _say(f"\n{load_report.ends_table(report['ends'])}\n\n{said}")
    memory = report["memory_mib"]
    if memory is not None:
        _say(
            f"memory of the server: {memory['first']:.0f} MiB over the first step, "
            f"{memory['last']:.0f} over the last, {memory['most']:.0f} at most"
        )
    for line in report["problems"]:
        _say(f"WRONG: {line}")
    if not report["problems"]:
        _say("every request had its one answer or its one error")
    if options.out is not None:
        if options.out.suffix == ".json":
            options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        else:
            load_report.write(options.out, report, found)
            _say(f"figures, requests and plot: {options.out / 'load.html'}")
    return 1 if report["problems"] else code


def _loads(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(math.isfinite(load) and 0 < load <= 10 for load in found):
        raise ConfigError(f"--loads {text!r}; shares of the capacity, such as 0.5,1,1.25")
    return found


def _say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
