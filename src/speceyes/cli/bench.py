"""`speceyes bench`: what each way of running costs on this machine."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from speceyes.checks import listed
from speceyes.cli import models
from speceyes.cli.failures import say_failures
from speceyes.cli.options import add_speech, add_threshold, at_least_one, command
from speceyes.errors import ConfigError

if TYPE_CHECKING:
    from speceyes.bench.planned import RoutePlan
    from speceyes.bench.sweep import Sweep
    from speceyes.bench.workloads import BundledWorkload, NamedWorkload, ShapedWorkload
    from speceyes.evaluation.failures import Failures

ROUTED = ("depth", "accept-rate")
"""Sweeps that need ways to be planned, which the bundled pair decides by itself."""
STAND_IN = "tiny-small,tiny-large"
FORESEEN = 192
"""Fewest queries that a forecast is held against: a few would say more of their lots than of it."""

ABOUT = """\
Answers the same queries in every way: the agent, the schedule of the paper's code, speceyes, and
speceyes with one thing switched off each. Prints a Markdown table of ratios within one run.

By default the bundled pair answers held-out scenes. --large and --small name others, also engines
by their addresses, which answer the same scenes. --shapes takes models of real sizes with
random weights instead, and plans what becomes of each query, so that time is true to these sizes.
--sweep changes one thing at a time and shows how cost grows."""


def add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    """Adds the command to an argparse sub-parser set.

    Returns:
        The command's parser, which `bench_serve` extends.
    """
    bench = command(
        commands,
        "bench",
        help="measure the funnel, the agent, and the paper's schedule side by side",
        description=ABOUT,
    )
    named = bench.add_argument_group(
        "models", 'after the "#" of an engine\'s address stands a name, where it serves several'
    )
    named.add_argument("--large", metavar="MODEL", help=f"the agent: {models.MODEL_HELP}")
    named.add_argument("--small", metavar="MODEL", help="the drafter, likewise")
    models.add_loading(named)
    add_speech(named)
    add_threshold(named)
    named.add_argument("--top-k", type=at_least_one, metavar="K", help="K of the gate; default: 64")
    for name, kind, default, what in (
        ("queries", int, 96, "how many"),
        ("repeats", int, 3, "how often; from six on there are intervals of 95 %%"),
        ("batch-size", int, 16, "queries judged and drafted together, and trajectories alive"),
    ):
        bench.add_argument(
            f"--{name}", type=kind, default=default, metavar="N", help=f"{what}; default: {default}"
        )
    bench.add_argument(
        "--arms", metavar="TEXT", help="only arms with one of these comma-separated texts in them"
    )
    bench.add_argument(
        "--sweep",
        metavar="LIST",
        help="batch, queries, depth, accept-rate, vocabulary, or several with commas; values as "
        'in "depth=0:2:4". By default two arms, the batched agent and speceyes',
    )
    bench.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="a folder for JSON, Markdown, pictures and a page, or one file that ends in .json",
    )
    shapes = bench.add_argument_group("real sizes with random weights")
    shapes.add_argument(
        "--shapes",
        metavar="SMALL,LARGE",
        help="qwen3-vl-2b,qwen2.5-vl-7b, or, to try it, " + STAND_IN,
    )
    planned: tuple[tuple[str, type, float, str], ...] = (
        ("beta", float, 0.8, "share of queries that the judge leaves to a draft"),
        ("alpha", float, 0.71, "share of drafts that the gate accepts"),
        ("depth", int, 2, "tool calls before the agent's answer"),
        ("turn-tokens", int, 64, "tokens of a turn of the agent"),
        ("draft-tokens", int, 8, "tokens of a draft"),
    )
    for name, real, preset, what in planned:
        shapes.add_argument(
            f"--{name}", type=real, default=preset, metavar="N", help=f"{what}; default: {preset}"
        )
    shapes.add_argument(
        "--image",
        default="2246x1582",
        metavar="WxH",
        help="size of the images in pixels; default: %(default)s, as V* has them",
    )
    bench.add_argument(
        "--prices",
        type=Path,
        metavar="FILE",
        help="money per million tokens of both models, as for tune, to tell money as well as time",
    )
    shapes.add_argument(
        "--roofline",
        metavar="ACCELERATOR",
        help="compute nothing: engines that take as long as an A100-40, H100 or H200 would, in "
        "virtual time; forecast and measurement for each choice of judge",
    )
    bench.set_defaults(run=run)
    return bench


def run(options: argparse.Namespace) -> int:
    """Runs it; the exit code."""
    _check_named(options)
    if options.roofline is not None:
        return _roofline(options)
    from speceyes.bench.measure import interval_note
    from speceyes.bench.sweep import parse
    from speceyes.environment import machine, versions
    from speceyes.evaluation.failures import plain

    for name in ("queries", "repeats", "batch_size"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1")
    sweeps = parse(options.sweep) if options.sweep else []
    if options.out is not None and options.out.suffix != ".json":
        options.out.mkdir(parents=True, exist_ok=True)
    here = machine()
    about: dict[str, Any] = {
        "queries": options.queries,
        "repeats": options.repeats,
        "batch_size": options.batch_size,
        "machine": f"{here['system']}, {here['cpus']} CPUs",
        "versions": versions(),
    }
    report: dict[str, Any] = {"about": about}
    failed: list[Failures] = []
    sections = [_arms(options, report, failed)] if not sweeps else []
    sections += [_sweep(options, sweep, report, failed) for sweep in sweeps]
    report["failures"] = plain(failed)
    code = say_failures(failed)
    for _, _, text in sections:
        print(f"{text}\n")
    said = ", ".join(f"{k} {v}" for k, v in about.items() if k != "versions")
    print(f"{said}; {interval_note(options.repeats)}")
    if options.out is not None:
        _write(options.out, report, said, sections)
    return code


def _roofline(options: argparse.Namespace) -> int:
    """Forecasts beside measurements over scripted engines."""
    from speceyes.bench.roofline.foresight import foresee, table
    from speceyes.bench.roofline.workload import RooflineWorkload
    from speceyes.tuning.roofline import ACCELERATORS

    known = {name.lower(): name for name in ACCELERATORS}
    if options.roofline.lower() not in known:
        raise ConfigError(
            f"--roofline {options.roofline!r}; it must be one of {', '.join(ACCELERATORS)}"
        )
    names = listed(options.shapes or "qwen3-vl-2b,qwen2.5-vl-7b")
    if len(names) != 2:
        raise ConfigError(f"--shapes {options.shapes!r} names {len(names)}; name two: small,large")
    # As many are measured as are tried.
    pilot = max(options.queries, FORESEEN, 12 * options.batch_size)
    routes, found = dataclasses.replace(_routes(options), n=pilot), []
    for judge in ("large", "small", "none"):
        _told(f"{judge} judge")
        workload = RooflineWorkload(
            options.image,
            routes,
            _size(options.image),
            judge,
            options.batch_size,
            accelerator=known[options.roofline.lower()],
            small=names[0],
            large=names[1],
        )
        found.append(foresee(workload, pilot=pilot))
    said = table(found)
    print(said)
    if options.out is not None:
        one_file = options.out.suffix == ".json"
        if not one_file:
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / "roofline.md").write_text(said + "\n", encoding="utf-8")
        to = options.out if one_file else options.out / "roofline.json"
        to.write_text(json.dumps([_plain(one) for one in found], indent=2) + "\n", encoding="utf-8")
    return 0


def _arms(
    options: argparse.Namespace, report: dict[str, Any], failed: list[Failures]
) -> tuple[str, str, str]:
    """The table of arms, as a section of the page; adds to the failures."""
    from speceyes.bench.measure import failures, markdown, measure, over_itself, summarise
    from speceyes.bench.workloads import ShapedWorkload, chosen
    from speceyes.evaluation import plots
    from speceyes.evaluation.prices import Prices

    workload = _workload(options, options.shapes)
    n = options.queries
    ways = chosen(workload.ways(batch=options.batch_size, n=n), options.arms)
    print(f"making {n} queries ...", file=sys.stderr)
    queries = (
        list(workload.queries(n)()) if isinstance(workload, ShapedWorkload) else workload.scenes(n)
    )
    measured = measure(ways, queries, repeats=options.repeats, step=_told)
    failed += failures(measured)
    prices = None if options.prices is None else Prices.load(options.prices)
    table = summarise(measured, n, prices)
    text = f"{markdown(table)}\n\n{over_itself(measured) or ''}".rstrip()
    report["arms"] = table
    _note(report["about"], workload, options.shapes)
    drawn = plots.stacked(
        {name: {"ms a query": row["ms_per_query"] / 1e3} for name, row in table.items()}
    )
    return "arms", drawn, text


def _sweep(
    options: argparse.Namespace, sweep: Sweep, report: dict[str, Any], failed: list[Failures]
) -> tuple[str, str, str]:
    """One sweep, as a section of the page; adds to the failures."""
    from speceyes.bench import memory as bench_memory
    from speceyes.bench import sweep as bench_sweep
    from speceyes.bench.workloads import points
    from speceyes.evaluation import plots

    place = report.setdefault("sweeps", {})
    across = bench_sweep.AXES[sweep.name]
    logarithmic = sweep.name in bench_sweep.LOGARITHMIC
    if sweep.name == "vocabulary":
        scored = bench_memory.scoring([int(value) for value in sweep.values])
        place[sweep.name] = {one.vocabulary: _plain(one) for one in scored}
        text = bench_memory.scoring_table(scored)
        heights = {
            float(one.vocabulary): {
                "speceyes": (one.peak or 0) / 2**20,
                "all logits kept": (one.peak_keeping_all or 0) / 2**20,
            }
            for one in scored
        }
        up = "MiB more while drafting"
    else:
        shapes = options.shapes or (STAND_IN if sweep.name in ROUTED else None)
        workload = _workload(options, shapes)
        made = points(
            workload, sweep, batch=options.batch_size, n=options.queries, only=options.arms
        )
        found, broken = bench_sweep.run(made, repeats=options.repeats, step=_told)
        failed += broken
        place[sweep.name] = {f"{value:g}": row for value, row in found.items()}
        text = bench_sweep.table(sweep.name, found)
        heights = {
            value: {arm: figures["ms_per_query"] for arm, figures in row.items()}
            for value, row in found.items()
        }
        up = "ms a query"
        _note(report["about"], workload, shapes)
    arms = list(next(iter(heights.values())))
    curves = {arm: [(value, row[arm]) for value, row in heights.items()] for arm in arms}
    drawn = plots.lines(curves, across, up, dots=True, log_x=logarithmic)
    return f"sweep-{sweep.name}", drawn, text


_NAMED: Final = ("tools", "profile", "texts", "top_k")
"""Options that go with named models alone."""


def _check_named(options: argparse.Namespace) -> None:
    """Raises: models are named beside what brings its own, or what needs them has none."""
    named = options.large is not None or options.small is not None
    own = "--shapes" if options.shapes else "--roofline" if options.roofline else None
    routed = [name for name in ROUTED if name in (options.sweep or "")]
    if named and routed:
        raise ConfigError(
            f"--sweep {routed[0]} plans what becomes of queries, which named models decide: "
            "leave --large and --small out, or sweep batch or queries"
        )
    if named and own:
        raise ConfigError(f"{own} brings its own models: leave --large and --small out")
    if named:
        models.named_pair(options.large, options.small)
        if (options.small or "").lower() == "none":
            raise ConfigError("--small none: a benchmark compares the agent with drafts")
        return
    given = [f"--{n.replace('_', '-')}" for n in _NAMED if getattr(options, n) is not None]
    given += ["--dialect"] if options.dialect != "auto" else []
    if given:
        raise ConfigError(f"{', '.join(given)} goes with --large and --small: name models")


def _workload(
    options: argparse.Namespace, shapes: str | None
) -> BundledWorkload | NamedWorkload | ShapedWorkload:
    if shapes:
        return _shaped(options, shapes)
    return _bundled(options) if options.large is None else _named(options)


def _named(options: argparse.Namespace) -> NamedWorkload:
    from speceyes.bench.arms import Speech
    from speceyes.bench.workloads import NamedWorkload
    from speceyes.gate import SeparabilityGate

    usual = models.DEFAULT_GATE
    threshold = usual["threshold"] if options.threshold is None else options.threshold
    gate = SeparabilityGate(threshold, top_k=options.top_k or usual["top_k"])
    large = models.load_named(options.large, options, "large")
    small = models.load_named(options.small, options, "small", top_k=gate.top_k)
    tools = models.tools_for(options, large)
    speech = Speech(tools, options.dialect, options.profile, options.texts)
    return NamedWorkload(large, small, gate, speech)


def _bundled(options: argparse.Namespace) -> BundledWorkload:
    from speceyes import tiny
    from speceyes.bench.workloads import BundledWorkload
    from speceyes.gate import SeparabilityGate
    from speceyes.models.hf import HFModel

    settings = models.bundled_settings()
    if options.threshold is not None:
        settings["threshold"] = options.threshold
    large, small = (
        HFModel.from_pretrained(path, device=options.device) for path in (tiny.LARGE, tiny.SMALL)
    )
    return BundledWorkload(large, small, SeparabilityGate(**settings))


def _shaped(options: argparse.Namespace, names: str) -> ShapedWorkload:
    from speceyes.bench.workloads import shaped

    return shaped(
        names,
        _routes(options),
        _size(options.image),
        device=options.device,
        dtype=options.dtype,
        batch=options.batch_size,
        tell=lambda line: print(line, file=sys.stderr),
    )


def _routes(options: argparse.Namespace) -> RoutePlan:
    from speceyes.bench.planned import RoutePlan

    return RoutePlan(
        options.queries,
        beta=options.beta,
        alpha=options.alpha,
        depth=options.depth,
        turn_tokens=options.turn_tokens,
        draft_tokens=options.draft_tokens,
    )


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) >= 32 for part in parts):
        raise ConfigError(f"--image {text!r}; it must be like 2246x1582, each side at least 32")
    return int(parts[0]), int(parts[1])


def _note(
    about: dict[str, Any],
    workload: BundledWorkload | NamedWorkload | ShapedWorkload,
    shapes: str | None,
) -> None:
    from speceyes.bench.workloads import NamedWorkload

    large, small = workload.models
    about["device"] = str(large.device)
    if isinstance(workload, NamedWorkload):
        about["models"] = f"{large.name} and {small.name}"
        return
    about["models"] = f"random weights ({shapes}, {large.dtype})" if shapes else "bundled pair"


def _told(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what}", file=sys.stderr)


def _plain(one: Any) -> dict[str, Any]:
    return {name: getattr(one, name) for name in type(one).__dataclass_fields__}


def _write(
    out: Path, report: dict[str, Any], said: str, sections: list[tuple[str, str, str]]
) -> None:
    from speceyes.bench.measure import interval_note
    from speceyes.evaluation import plots
    from speceyes.evaluation.page import plain_page

    whole = json.dumps(report, indent=2) + "\n"
    if out.suffix == ".json":
        out.write_text(whole, encoding="utf-8")
        return
    tables = "\n\n".join(f"## {name}\n\n{text}" for name, _, text in sections)
    note = interval_note(report["about"]["repeats"])
    page = plain_page("speceyes bench", f"{said}; {note}", sections)
    files = {"bench.json": whole, "bench.md": f"{tables}\n\n{said}; {note}\n", "bench.html": page}
    files |= {f"{name}.svg": plots.standalone(svg) for name, svg, _ in sections}
    for name, text in files.items():
        (out / name).write_text(text, encoding="utf-8")
    print(f"figures, tables and pictures: {out / 'bench.html'}")
