"""`speceyes eval`: all arms on a benchmark, in a folder that survives a kill."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from speceyes.checks import listed
from speceyes.cli import models
from speceyes.cli.failures import resumable, say_failures
from speceyes.cli.options import add_max_failures, add_speech, add_threshold, command
from speceyes.errors import ConfigError
from speceyes.models.by_name import is_address

if TYPE_CHECKING:
    from speceyes.evaluation.context import EvalContext
    from speceyes.pipeline.settings import FunnelSettings
    from speceyes.protocols import VisionLanguageModel
    from speceyes.strategies.questions import Place

ABOUT = """\
Runs every arm on the same samples of a benchmark, on the same warmed-up models, in turns, and
writes each answer into the folder of the run. A run that was stopped, however, goes on where it
was when the same command is given again. The gate's threshold is chosen on a calibration split
that shares no image with the test split. Without --large and --small the bundled pair answers;
puzzles are answered without tools, by the bundled pair that reasons.

  speceyes eval scenes --limit 300 --out run
  speceyes eval vstar --folder data/vstar_bench --large ChenShawn/DeepEyes-7B \\
      --small Qwen/Qwen3-VL-2B-Instruct --out run
  speceyes report run"""

RECORD_K: Final = 128
DEFAULT_ARMS: Final = "agent,draft,min,bottom20,mean,log"
PUZZLE_ARMS: Final = "large-short,small-short,small-reasoning,transfer,transfer-calibrated"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to an argparse sub-parser set."""
    one = command(
        commands,
        "eval",
        help="run all arms on a benchmark and write down every answer",
        description=ABOUT,
    )
    one.add_argument(
        "benchmark",
        metavar="BENCHMARK",
        help="a benchmark by name (vstar, hr-bench-4k, pope, treebench, zoombench, blink, scenes "
        "...; docs/benchmarks.md has all), or the path of its files",
    )
    one.add_argument("--folder", type=Path, metavar="DIR", help="where the benchmark's files are")
    one.add_argument("--split", metavar="NAME", help="only this category of the benchmark")
    one.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run's folder")
    one.add_argument("--large", metavar="MODEL", help=f"the agent: {models.MODEL_HELP}")
    one.add_argument("--small", metavar="MODEL", help="the drafter, likewise")
    one.add_argument(
        "--agent",
        metavar="MODULE:FUNCTION",
        help="an agent of your own in place of the large model, a function of a query that "
        "returns its answer; then --small alone is named, which also judges",
    )
    one.add_argument(
        "--looker",
        metavar="MODEL",
        help="a small model that calls tools, for the arms deep, cascade and specreason; "
        "default: the bundled one, beside the bundled pair",
    )
    one.add_argument(
        "--settings",
        type=Path,
        metavar="FILE",
        help='what speceyes tune wrote, as the arm "tuned": what was foreseen is held against what '
        "is measured here, on questions that it wasn't tuned on",
    )
    one.add_argument(
        "--prices",
        type=Path,
        metavar="FILE",
        help="money per million tokens of each model, so that reports tell money as well as time",
    )
    models.add_loading(one)
    add_threshold(one)
    add_speech(one)
    one.add_argument(
        "--arms",
        metavar="LIST",
        help="with commas; agent and draft are always run; also min-small-judge, min-no-judge, "
        "min-one-pass (the drafter answers or asks to look closer), min-ladder (drafts on "
        "--rung-pixels first), "
        "agent-one and min-one (one query at a time), agent-paper and min-paper (the paper's "
        "schedule, whose speed is over its own agent), agent-no-tools (what tools contribute), "
        "one-pass=MODEL (a rival that answers in one pass, named like --large; also several), "
        "specreason, deep and cascade; in words alone large-short, large-reasoning, small-short, "
        "small-reasoning, transfer, transfer-two-stage, transfer-likely, transfer-sure, "
        "transfer-calibrated, transfer-credible, transfer-SELECTOR-PERCENT, such as "
        "transfer-attended-50, and "
        f"transfer-calibrated-SELECTOR-PERCENT; default: {DEFAULT_ARMS}, and "
        f"for puzzles by the bundled pair {PUZZLE_ARMS}",
    )
    one.add_argument(
        "--heads",
        metavar="LIST",
        help="the small model's attention heads for transfer-attended, as layer.head with commas, "
        "such as 2.1,3.0; default: all, or the bundled pair's",
    )
    one.add_argument(
        "--notes-in",
        choices=("prompt", "turn"),
        help="where transfer gives the large model the small one's reasoning: in its prompt, or as "
        "a turn that it began; default: prompt, and for the bundled pair what its settings say",
    )
    one.add_argument(
        "--credible",
        type=float,
        metavar="NATS",
        help="least mean log-probability that the large model must give to the small one's "
        "reasoning, in the arm transfer-credible; default: the bundled pair's",
    )
    one.add_argument(
        "--without-tools",
        action="store_true",
        help="the agent is the large model's own written reasoning, and only arms in words run",
    )
    for name, default, what in (
        ("limit", None, "samples in all; default: the whole benchmark, 200 of the scenes"),
        ("batch-size", 16, "queries drafted together and trajectories alive; default: 16"),
        ("seed", 0, "of the options' order and the split; default: 0"),
        ("k", None, "K of the gate; default: 64, or the bundled pair's"),
        ("record-k", None, "log-probabilities recorded a token; default: 128, K of an engine"),
        ("max-steps", None, "turns of the agent; default: its profile's"),
        ("max-tokens", None, "new tokens of a turn; default: its profile's"),
        ("draft-tokens", 20, "new tokens of a draft; default: 20"),
        ("rung-pixels", None, "most pixels of the first drafts of the arm min-ladder"),
        ("one-pass-tokens", 1024, "new tokens of a one-pass model; default: 1024"),
        ("sweep-limit", 64, "test samples at each batch size of --sweep-batch; default: 64"),
    ):
        one.add_argument(f"--{name}", type=int, default=default, metavar="N", help=what)
    one.add_argument(
        "--calibration-share",
        type=float,
        default=0.3,
        metavar="S",
        help="share of the samples that thresholds are chosen on; default: %(default)s",
    )
    one.add_argument(
        "--sweep-batch", metavar="LIST", help="batch sizes to run as well, such as 1,2,4,8"
    )
    one.add_argument(
        "--ablations",
        action="store_true",
        help="the paper's ablations in one go: adds the arms min-small-judge and min-no-judge and, "
        "unless --sweep-batch is given, batches of 1 to 32, and draws threshold, K, batch and "
        "judge as SVG files in the run's folder",
    )
    one.add_argument(
        "--parity",
        action="store_true",
        help="the published order of options and prompts; in V* the first option is then right",
    )
    add_max_failures(one, "threshold is chosen and nothing concluded")
    one.add_argument("--quiet", action="store_true", help="no progress bar")
    one.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs it; the exit code."""
    from speceyes.evaluation import ablations, arms, benchmarks, transfer_costs
    from speceyes.evaluation.ablations import BATCHES
    from speceyes.evaluation.analysis import figures
    from speceyes.evaluation.benchmarks.sample import samples_hash
    from speceyes.evaluation.eval_report import brief
    from speceyes.evaluation.evaluate import Plan, evaluate, failures, parts
    from speceyes.evaluation.failures import check_share
    from speceyes.evaluation.prices import Prices
    from speceyes.evaluation.runs import TEST, check_folder
    from speceyes.evaluation.spending import save_prices
    from speceyes.tuning.after import after

    if _reasoners(options):
        options.without_tools = True
    settings = None if options.settings is None else _settled(options)
    prices = None if options.prices is None else Prices.load(options.prices)
    if options.ablations:
        if options.without_tools:
            raise ConfigError("--ablations with --without-tools: they are of the funnel")
        options.sweep_batch = options.sweep_batch or ",".join(map(str, BATCHES))
    plan = Plan(
        arms.chosen(_asked(options)),
        options.batch_size,
        options.seed,
        options.calibration_share,
        options.threshold,
        _numbers(options.sweep_batch),
        options.sweep_limit,
    )
    loaded = benchmarks.load(
        options.benchmark,
        folder=options.folder,
        split=options.split,
        limit=options.limit,
        seed=options.seed,
        parity=options.parity,
    )
    loaded.check()
    for line in loaded.left_out():
        print(f"left out: {line}", file=sys.stderr)
    parts(loaded.samples, plan)
    if options.without_tools:
        tooled = [n for n in plan.arms[2:] if not arms.arm(n).words]
        if tooled:
            raise ConfigError(
                f"--without-tools can't run {', '.join(tooled)}: name arms that work in words "
                "alone, such as transfer"
            )
    check_folder(options.out)
    context, about = _context(options, settings)
    if any(entry.parity_prompt is not None for entry in loaded.samples.entries):
        context = replace(context, bare=True)
    fixed = {
        "plan": {name: getattr(plan, name) for name in plan.__dataclass_fields__},
        "benchmark": {
            "name": options.benchmark,
            "split": options.split,
            "limit": options.limit,
            "parity": options.parity,
            "samples": samples_hash(loaded.samples),
            "n": len(loaded.samples),
            "bad": [[bad.name, bad.reason] for bad in loaded.bad],
        },
        "models": about,
        "context": _settings(context),
    }
    if settings is not None:
        fixed["tuned"] = {**json.loads(settings.to_json()), "forecast": None}
    with resumable(options.out):
        done = evaluate(
            loaded.samples,
            context,
            plan,
            folder=options.out,
            fixed=fixed,
            progress=None if options.quiet else sys.stderr,
            max_failures=options.max_failures,
        )
    found = failures(done, TEST)
    code = say_failures(found)
    check_share(found, options.max_failures, "conclusion")
    if prices is not None:
        save_prices(options.out, prices)
    print(brief(done))
    if settings is not None:
        print("\n".join(("", *after(done, settings))))
    if "transfer" in plan.arms:
        found_costs = transfer_costs.transfer_costs(done, context, loaded.samples[0].query)
        transfer_costs.write(found_costs, options.out)
        print("\n".join(("", *transfer_costs.lines(options.out))))
    if options.ablations:
        drawn = ablations.write(figures(done), options.out / "ablations")
        print(f"\n{options.out / 'ablations'}: {', '.join(file.name for file in drawn)}")
    print(f"\nspeceyes report {options.out} makes the tables and the page")
    return code


def _settled(options: argparse.Namespace) -> FunnelSettings:
    """The settings, which the run's other options then follow.

    Raises:
        ConfigError: The file can't be read, or an option contradicts it.
    """
    from speceyes.pipeline.settings import FunnelSettings

    found = FunnelSettings.load(options.settings)
    set_here = ("k", "max_steps", "max_tokens", "threshold", "tools", "profile", "texts", "agent")
    given = [f"--{name.replace('_', '-')}" for name in set_here if getattr(options, name)]
    if given or options.dialect != "auto":
        raise ConfigError(
            f"--settings brings its own {', '.join(given) or '--dialect'}: leave these out"
        )
    if found.small is None or found.gate is None:
        raise ConfigError(
            f"{options.settings} leaves speculation off, so that there is nothing to evaluate: "
            f"{found.forecast.get('statement', 'it has no drafter')}"
        )
    options.large = options.large or found.large.source
    options.small = options.small or found.small.source
    options.k, options.threshold = max(3, found.gate.top_k), found.gate.threshold
    options.calibration_share = 0.0
    options.max_steps, options.max_tokens = found.agent.max_steps, found.agent.max_tokens
    options.draft_tokens = found.draft.max_tokens
    options.tools, options.dialect = ",".join(found.tools), found.dialect
    options.profile, options.texts = found.agent.profile, found.texts
    options.arms = options.arms or "tuned"
    if "tuned" not in listed(options.arms):
        options.arms += ",tuned"
    return found


def _asked(options: argparse.Namespace) -> list[str]:
    from speceyes.evaluation.ablations import JUDGES

    default = PUZZLE_ARMS if _reasoners(options) else DEFAULT_ARMS
    asked = listed(default if options.arms is None else options.arms)
    return [*asked, *(one for one in JUDGES if options.ablations and one not in asked)]


def _reasoners(options: argparse.Namespace) -> bool:
    """True where the bundled pair that reasons answers."""
    named = options.large or options.small or options.agent
    return options.benchmark == "puzzles" and not named


def _settings(context: EvalContext) -> dict[str, Any]:
    kept = (
        "top_k",
        "record_k",
        "batch_size",
        "tools",
        "dialect",
        "profile",
        "texts",
        "max_steps",
        "max_tokens",
        "draft_tokens",
        "one_pass_tokens",
        "rung",
        "parity",
        "bare",
        "without_tools",
        "heads",
        "place",
        "credible",
    )
    found = {name: getattr(context, name) for name in kept}
    for name in ("profile", "texts"):  # objects where they come from a settings file
        if not isinstance(found[name], str | None):
            found[name] = repr(found[name])
    return {**found, "prompt_hash": context.answerer(context.top_k).prompt_hash}


def _numbers(text: str | None) -> tuple[int, ...]:
    if not text:
        return ()
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as exc:
        raise ConfigError(
            f"--sweep-batch {text!r}; it must be numbers with commas, such as 1,4,16"
        ) from exc


def _heads(text: str | None) -> tuple[tuple[int, int], ...]:
    """Layers and heads, counted from 0."""
    found = [
        re.fullmatch(r"(\d+)\.(\d+)", part.strip()) for part in (text or "").split(",") if part
    ]
    if None in found:
        raise ConfigError(f"--heads {text!r}; it must be layer.head with commas, such as 2.1,3.0")
    return tuple((int(one[1]), int(one[2])) for one in found if one is not None)


def callable_named(text: str) -> Callable[..., Any]:
    """The function that "module:function" names; modules in the working folder are found too.

    Raises:
        ConfigError: There is none.
    """
    module, _, name = text.partition(":")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        found = getattr(importlib.import_module(module), name) if module and name else None
    except (ImportError, AttributeError) as exc:
        raise ConfigError(f"--agent {text!r}: {exc}") from exc
    finally:
        sys.path.remove(folder)
    if not callable(found):
        raise ConfigError(f"--agent {text!r}; it must be MODULE:FUNCTION, such as my_agent:answer")
    result: Callable[..., Any] = found
    return result


def _rivals(
    options: argparse.Namespace, known: Mapping[str, VisionLanguageModel]
) -> dict[str, VisionLanguageModel]:
    """The models of one-pass arms by name; one that is loaded already isn't loaded again."""
    from speceyes.evaluation.rivals import PREFIX

    asked = [a.removeprefix(PREFIX) for a in _asked(options) if a.startswith(PREFIX)]
    return {
        name: known[name] if name in known else models.load_named(name, options, "one-pass")
        for name in dict.fromkeys(asked)
    }


_JUDGING: Final = frozenset({"min-small-judge", "min-one-pass", "min-ladder"})
"""Arms for which the bundled drafter that judges is taken."""


def _context(
    options: argparse.Namespace, settings: FunnelSettings | None = None
) -> tuple[EvalContext, dict[str, Any]]:
    """Models, loaded, with their settings; and what the manifest says of them."""
    from speceyes import tiny
    from speceyes.evaluation import arms
    from speceyes.evaluation.context import EvalContext
    from speceyes.evaluation.manifest import model_files
    from speceyes.evaluation.rivals import PREFIX
    from speceyes.protocols import HasDtype, HasRevision, RunsHere, offers
    from speceyes.strategies import TransferRule

    if options.agent is not None and options.large is None:
        # Only the drafter is named beside an agent of the user's own.
        names, bundled = [str(tiny.LARGE), options.small or str(tiny.SMALL)], options.small is None
    elif _reasoners(options):
        names, bundled = [str(tiny.REASONER_LARGE), str(tiny.REASONER_SMALL)], True
        if not all(map(os.path.isdir, names)):
            raise ConfigError(
                f"the bundled pair that reasons is not in {tiny.WEIGHTS}: install a released "
                "wheel, train it (docs/tiny.md), or name models with --large and --small"
            )
    else:
        judging = bool(_JUDGING.intersection(_asked(options)))
        *names, bundled = models.named_pair(options.large, options.small, judging=judging)
    if names[1].lower() == "none":
        raise ConfigError(
            "--small none: an evaluation compares the agent with drafts; name a model"
        )
    heads = _heads(options.heads)
    place: Place = options.notes_in or "prompt"
    rule, credible = None, options.credible
    if _reasoners(options):
        chosen = tiny.reasoner_settings()
        place = options.notes_in or chosen["place"]
        rule = TransferRule.from_dict(chosen["rule"])
        heads = heads or tuple(map(tuple, chosen["heads"]))
        credible = chosen["credible"] if credible is None else credible
    else:
        chosen = models.bundled_settings() if bundled else models.DEFAULT_GATE
    top_k = int(chosen["top_k"])
    top_k = top_k if options.k is None else options.k
    told: dict[str, Any] = {"large": {}, "small": {}}
    if settings is not None and settings.small is not None:
        from speceyes.pipeline.model_settings import loading_arguments

        told["large"] = loading_arguments(names[0], settings.large)
        told["small"] = loading_arguments(names[1], settings.small)
    small = models.load_named(names[1], options, "small", top_k=top_k, **told["small"])
    own = None if options.agent is None else callable_named(options.agent)
    if own is not None and options.large is None:
        names[0] = names[1]  # nothing is asked of a large model, and the small one judges
    large = small
    if names[0] != names[1]:
        large = models.load_named(names[0], options, "large", **told["large"])
    looks = {
        "specreason",
        *(a for a in _asked(options) if arms.arm(a).needs or a == arms.DEEP),
    }
    looker = options.looker or (str(tiny.SMALL_ZOOM) if bundled else None)
    looker = looker if looks.intersection(_asked(options)) else None
    # An engine returns few log-probabilities a token: as many as the gate reads were asked for.
    record_k = options.record_k or (top_k if is_address(names[1]) else RECORD_K)
    most = models.vocabulary_size(small) or record_k
    context = EvalContext(
        large,
        small,
        {},
        top_k,
        max(top_k, min(record_k, most)),
        **models.context_fields(options, large),
        one_pass_tokens=options.one_pass_tokens,
        rung=options.rung_pixels,
        rivals=_rivals(options, {names[0]: large, names[1]: small}),
        parity=options.parity,
        without_tools=options.without_tools,
        heads=heads,
        place=place,
        rule=rule,
        credible=credible,
        own=own,
        settings=settings,
        looker=None if looker is None else models.load_named(looker, options, "small"),
    )
    loaded = [("large", large, names[0]), ("small", small, names[1])]
    if looker is not None and context.looker is not None:
        loaded.append(("looker", context.looker, looker))
    loaded += [(f"{PREFIX}{name}", model, name) for name, model in context.rivals.items()]
    if own is not None:
        needed = {"transfer", "specreason", "deep", "cascade"}
        if bad := [name for name in _asked(options) if name.split("-")[0] in needed]:
            raise ConfigError(f"--agent with {', '.join(bad)}: these arms need a large model")
        loaded = [one for one in loaded if one[0] != "large"]
    about: dict[str, dict[str, Any]] = {
        role: {
            "name": model.name,
            "revision": model.revision if offers(model, HasRevision) else None,
            "files": model_files(name),
            "dtype": str(model.dtype) if offers(model, HasDtype) else "",
            "device": str(model.device) if offers(model, RunsHere) else "",
            "pixels": [options.model_min_pixels, options.model_max_pixels],
        }
        for role, model, name in loaded
    }
    if own is not None:
        about["large"] = {**dict.fromkeys(about["small"]), "name": options.agent, "files": {}}
    return context, about
