"""`speceyes plan`: from queries a second to replicas, and to the time that a query takes."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speceyes.cli.options import command

if TYPE_CHECKING:
    from speceyes.bench.plan.forecast import Costs, Fleet, Forecast

ABOUT = """\
Says how many replicas of each model a rate of queries takes, how busy they are, and how long a
query takes. What a query costs is measured beforehand, where nothing else is under way:

  speceyes bench --serve --url http://127.0.0.1:8000 --out load
  speceyes plan --from load/load.json --rate 20 --p95 3
  speceyes plan --from tuned/tune.json --rate 20
  speceyes plan --rate 20 --beta 0.8 --alpha 0.7 --judge 0.05 --draft 0.04 --agent 1.2

docs/scaling.md has the arithmetic, and how far it was from a scripted and from a real engine."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to an argparse sub-parser set."""
    one = command(commands, "plan", help="from queries per second to replicas", description=ABOUT)
    one.add_argument("--rate", type=float, required=True, metavar="R", help="queries a second")
    costs = one.add_argument_group("a query's costs, seconds where nothing else is under way")
    costs.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help="load.json of speceyes bench --serve, tune.json of speceyes tune, or summary.json of "
        "speceyes demo; what is given besides replaces what is in it",
    )
    for option, name, what in (
        ("beta", "beta", "share that the judge leaves to a draft"),
        ("alpha", "alpha", "share of drafts that are accepted"),
        ("judge", "c_judge", "c_J, a judgement"),
        ("draft", "c_draft", "c_S, a draft"),
        ("agent", "l_tools", "L_agent, the agent where tools are needed"),
        ("agent-rejected", "l_rejected", "the agent on rejected drafts; default: as --agent"),
        ("spread", "spread", "standard deviation of the agent's time over its mean; default: 0.5"),
        ("draft-tokens", "draft_tokens", "tokens of a judgement by the small model and a draft"),
        ("agent-tokens", "agent_tokens", "tokens that the agent writes, all turns together"),
    ):
        costs.add_argument(f"--{option}", dest=name, type=float, metavar="X", help=what)
    costs.add_argument(
        "--small-judge",
        action="store_true",
        default=None,
        help="the small model judges; default: as --from says, else the large one",
    )
    engines = one.add_argument_group("engines and servers")
    engines.add_argument(
        "--slots", type=int, default=16, metavar="N", help="calls at once in a replica; default: 16"
    )
    engines.add_argument(
        "--gain",
        type=float,
        metavar="G",
        help="work of a replica with all slots full over that of one with a single call; default: "
        "as --from measured it, else 4",
    )
    engines.add_argument(
        "--batch-size", type=int, default=16, metavar="B", help="of a server; default: 16"
    )
    engines.add_argument(
        "--shared", action="store_true", help="both models have the same replicas, such as one GPU"
    )
    wanted = one.add_argument_group("what is wanted")
    wanted.add_argument("--p95", type=float, metavar="S", help="at most so many seconds")
    wanted.add_argument(
        "--busy",
        type=float,
        default=0.7,
        metavar="U",
        help="most of what a part can do; default: %(default)s, the rest is head-room",
    )
    for name in ("large", "small", "servers"):
        wanted.add_argument(
            f"--{name}", type=int, metavar="N", help="take this many, and say what they do"
        )
    one.add_argument(
        "--queries",
        type=int,
        default=6000,
        metavar="N",
        help="how many the fleet is played with, event by event, for the times; default: "
        "%(default)s",
    )
    one.add_argument("--json", action="store_true", help="print it as JSON")
    one.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs it; the exit code."""
    from speceyes.bench.plan.forecast import Costs, Fleet, forecast, read_costs
    from speceyes.bench.plan.sizing import sized

    told, gain = ({}, None) if options.source is None else read_costs(options.source)
    for one in dataclasses.fields(Costs):
        value = getattr(options, one.name)
        if value is not None:
            told = {**told, one.name: value}
    if told.get("l_rejected") is None:
        told = {name: value for name, value in told.items() if name != "l_rejected"}
    costs = Costs.of(told)
    if options.gain is not None:
        gain = options.gain
    gain = min(4.0 if gain is None else gain, float(options.slots))
    fixed = [name for name in ("large", "small", "servers") if getattr(options, name) is not None]
    fleet = Fleet(
        options.large or 1,
        0 if options.shared else (options.small or 1),
        options.servers or 1,
        options.slots,
        gain,
        options.batch_size,
    )
    if fixed:
        found = forecast(costs, options.rate, fleet, queries=options.queries)
    else:
        wanted = {"busy": options.busy, "p95": options.p95, "queries": options.queries}
        fleet, found = sized(costs, options.rate, fleet, **wanted)
    if options.json:
        plain: dict[str, Any] = {
            "rate": options.rate,
            "costs": dataclasses.asdict(costs),
            "fleet": dataclasses.asdict(fleet),
            "forecast": dataclasses.asdict(found),
        }
        sys.stdout.write(json.dumps(_finite(plain), indent=2) + "\n")
    else:
        sys.stdout.write(_text(costs, options.rate, fleet, found))
    return 0 if found.stable else 1


def _finite(value: Any) -> Any:
    """The same without what JSON can't say."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    return value


def _text(costs: Costs, rate: float, fleet: Fleet, found: Forecast) -> str:
    lines = [
        f"{rate:g} queries a second: {costs.large:.3g} s of the large model and "
        f"{costs.small:.3g} s of the small one a query, alone "
        f"(beta {costs.beta:.2f}, alpha {costs.alpha:.2f})",
        f"replicas of the large model   {fleet.large}   busy {_share(found.busy_large)}"
        + ("   with the small one's work" if not fleet.small else ""),
    ]
    if fleet.small:
        lines.append(
            f"replicas of the small model   {fleet.small}   busy {_share(found.busy_small)}"
        )
    lines.append(f"speceyes serve processes      {fleet.servers}   busy {_share(found.busy_front)}")
    if not found.stable:
        lines.append("this is more than it can do: queries would wait without end")
        return "\n".join(lines) + "\n"
    head = f"{'seconds':<24}{'mean':>9}{'p50':>9}{'p95':>9}{'drafted':>9}{'by agent':>10}"
    lines.append(head)
    values = (found.mean, found.p50, found.p95, found.drafted)
    cells = "".join(f"{value:>9.3g}" for value in values)
    lines.append(f"{'expected':<24}{cells}{found.by_agent:>10.3g}")
    return "\n".join(lines) + "\n"


def _share(value: float) -> str:
    return "unknown" if value != value else f"{100 * value:.0f} %"
