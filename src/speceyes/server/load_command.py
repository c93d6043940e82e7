"""`speceyes bench --serve`: a server under rising load, among faults of every kind."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from speceyes.errors import ConfigError
from speceyes.server import load_report
from speceyes.server.load_client import LoadClient, Outcome, offer, place, sampled, saturate
from speceyes.server.load_server import (
    KEY,
    LoadedServer,
    counted,
    resident,
    settled,
    started,
    tell,
)
from speceyes.server.load_shots import ENGINE_FAULTS, FAULTS, Card, Deck, Shot, data_url, shots
from speceyes.server.load_target import PAIRS

REQUESTS: Final = 10_000
LOADS: Final = (0.25, 0.5, 0.75, 0.9, 1.0, 1.25)
SHARE: Final = 0.01
AT_ONCE: Final = 48
"""Requests under way while the capacity is measured."""
EVERY_S: Final = 0.25
"""Seconds between two looks at the server's memory."""
CARDS: Final = 24
"""Different questions."""


def extend(bench: argparse.ArgumentParser, usual: Callable[[argparse.Namespace], int]) -> None:
    """Adds `--serve` to `speceyes bench`.

    Args:
        bench: Its parser.
        usual: What it runs without `--serve`.
    """
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
    loads = _loads(options.loads)
    if options.requests < len(loads):
        raise ConfigError(f"--requests {options.requests}; at least one for each of {len(loads)}")
    if not (math.isfinite(options.stall) and options.stall >= 0):
        raise ConfigError(f"--stall {options.stall}; it must be at least 0 seconds")
    kinds = [kind for kind in FAULTS if not options.url or kind not in ENGINE_FAULTS]
    planned = shots(options.requests, share=options.faults, kinds=kinds)
    urls = [place(url) and url.rstrip("/").removesuffix("/v1") for url in options.url]
    deck = _deck(options.pair if not options.url else "tiny")
    with started(options, urls) as server:
        report, found = asyncio.run(_loaded(options, loads, planned, kinds, deck, server))
    report["said"] = said = (
        f"{options.requests} requests, {report['about']['server']}, "
        f"{report['about']['machine']}; load 1 is {report['capacity_per_s']:.1f} requests a second"
    )
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
    return 1 if report["problems"] else 0


async def _loaded(
    options: argparse.Namespace,
    loads: Sequence[float],
    planned: Sequence[Shot],
    kinds: Sequence[str],
    deck: Deck,
    server: LoadedServer,
) -> tuple[dict[str, Any], list[tuple[int, Outcome]]]:
    """The report, and every request's outcome with the number of its step."""
    client = LoadClient(server.urls, deck, key=os.environ.get(KEY))
    before = counted(server)
    tell("measuring what it can do ...")
    # Each question once before anything is measured: engines keep what they have seen of images,
    # and the steps ask these questions over and over.
    first = await saturate(client, shots(CARDS, share=0), 1)
    alone = await saturate(client, shots(2 * CARDS, share=0), 1)
    warm = shots(max(4 * AT_ONCE, options.requests // 20), share=options.faults, kinds=kinds)
    begun = time.perf_counter()
    full = await saturate(client, warm, AT_ONCE)
    capacity = len(full) / (time.perf_counter() - begun)
    whole = capacity if options.rate is None else options.rate
    steps: list[load_report.Step] = []
    for at, load in enumerate(loads):
        part = planned[at * len(planned) // len(loads) : (at + 1) * len(planned) // len(loads)]
        tell(f"load {load:g}: {len(part)} requests at {load * whole:.1f} a second")
        begun = time.perf_counter()
        outcomes, memory = await sampled(
            lambda: resident(server.pid), EVERY_S, offer(client, part, load * whole, seed=at)
        )
        seconds = time.perf_counter() - begun
        values = [value for _, value in memory]
        steps.append(load_report.Step(load, load * whole, seconds, outcomes, values))
    sent = [*first, *alone, *full, *(one for step in steps for one in step.outcomes)]
    ended = await asyncio.to_thread(settled, server, before, len(sent))
    rows = [load_report.figures(step) for step in steps]
    asked = [one for step in steps for one in step.outcomes]
    report = {
        "about": {
            "requests": options.requests,
            "faults": {"share": options.faults, "kinds": kinds, "stall_s": options.stall},
            "server": ", ".join(options.url) or f"the {options.pair} pair",
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        },
        "capacity_per_s": whole,
        "alone": {**load_report.costs(alone), "latency_s": _mean([x.latency for x in alone])},
        "full": {**load_report.costs(full), "per_s": capacity, "at_once": AT_ONCE},
        "steps": rows,
        "ends": load_report.ends(asked),
        "memory_mib": load_report.flat(steps),
        "counted": ended,
        "problems": load_report.problems(sent, ended),
    }
    return report, [(at, one) for at, step in enumerate(steps) for one in step.outcomes]


def _deck(pair: str) -> Deck:
    """What is asked."""
    from PIL import Image

    if pair == "scripted":
        pictures = [Image.new("RGB", (96, 64), (7 * n % 256, 90, 160)) for n in range(CARDS)]
        return Deck([Card("Which number?", data_url(one)) for one in pictures], numbered=True)
    from speceyes.tiny.scenes import questions

    scenes = [item.query for item in questions("heldout", CARDS)]
    return Deck([Card(one.question, data_url(one.images[0])) for one in scenes], numbered=False)


def _loads(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(math.isfinite(load) and 0 < load <= 10 for load in found):
        raise ConfigError(f"--loads {text!r}; shares of the capacity, such as 0.5,1,1.25")
    return found


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
