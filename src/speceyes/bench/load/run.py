"""A load test from its questions to its report."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any, Final

from speceyes.bench.load import report as load_report
from speceyes.bench.load.client import LoadClient, Outcome, offer, sampled, saturate
from speceyes.bench.load.requests import LoadRequest, Prompt, PromptSet, draw_requests
from speceyes.bench.load.server import (
    KEY,
    LoadedServer,
    counted,
    resident,
    settled,
    tell,
)
from speceyes.encoded import data_url
from speceyes.environment import machine
from speceyes.evaluation.failures import plain

AT_ONCE: Final = 48
"""Requests under way while the capacity is measured."""
EVERY_S: Final = 0.25
"""Seconds between two looks at the server's memory."""
PROMPTS: Final = 24
"""Different questions."""


async def load(
    options: argparse.Namespace,
    loads: Sequence[float],
    planned: Sequence[LoadRequest],
    kinds: Sequence[str],
    prompts: PromptSet,
    server: LoadedServer,
) -> tuple[dict[str, Any], list[tuple[int, Outcome]]]:
    """The report, and every request's outcome with the number of its step."""
    client = LoadClient(server.urls, prompts, key=os.environ.get(KEY))
    before = counted(server)
    tell("measuring what it can do ...")
    # Each question once before anything is measured: engines keep what they have seen of images,
    # and the steps ask these questions over and over.
    first = await saturate(client, draw_requests(PROMPTS, share=0), 1)
    alone = await saturate(client, draw_requests(2 * PROMPTS, share=0), 1)
    warm = draw_requests(
        max(4 * AT_ONCE, options.requests // 20), share=options.faults, kinds=kinds
    )
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
    here = machine()
    failed = [load_report.failures("requests one at a time", [*first, *alone])]
    for step in steps:
        failed.append(load_report.failures(f"requests at load {step.load:g}", step.outcomes))
    report = {
        "about": {
            "requests": options.requests,
            "faults": {"share": options.faults, "kinds": kinds, "stall_s": options.stall},
            "server": ", ".join(options.url) or f"the {options.pair} pair",
            "machine": f"{here['system']}, {here['cpus']} CPUs",
        },
        "capacity_per_s": whole,
        "alone": {**load_report.costs(alone), "latency_s": _mean([x.latency for x in alone])},
        "full": {**load_report.costs(full), "per_s": capacity, "at_once": AT_ONCE},
        "steps": rows,
        "ends": load_report.ends(asked),
        "memory_mib": load_report.flat(steps),
        "counted": ended,
        "failures": plain(failed),
        "problems": load_report.problems(sent, ended),
    }
    return report, [(at, one) for at, step in enumerate(steps) for one in step.outcomes]


def prompt_set_of(pair: str) -> PromptSet:
    """Requests to send."""
    from PIL import Image

    if pair == "scripted":
        pictures = [Image.new("RGB", (96, 64), (7 * n % 256, 90, 160)) for n in range(PROMPTS)]
        return PromptSet(
            [Prompt("Which number?", data_url(one)) for one in pictures], numbered=True
        )
    from speceyes.tiny.scenes import questions

    scenes = [item.query for item in questions("heldout", PROMPTS)]
    return PromptSet(
        [Prompt(one.question, data_url(one.images[0])) for one in scenes], numbered=False
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
