"""`speceyes tune`: the best setting of a funnel under a promise, from a user's own questions."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from speceyes.checks import listed
from speceyes.cli import models
from speceyes.cli.failures import resumable, say_failures
from speceyes.cli.options import add_max_failures, add_speech, at_least_one, command
from speceyes.errors import ConfigError, InputError
from speceyes.models.by_name import is_address

if TYPE_CHECKING:
    from speceyes.evaluation.benchmarks import Samples
    from speceyes.evaluation.context import EvalContext
    from speceyes.pipeline.model_settings import ModelSettings
    from speceyes.pipeline.settings import FunnelSettings
    from speceyes.tuning.choice import Choice
    from speceyes.tuning.observed import Drafted, Observed

ABOUT = """\
Chooses judge, resolution, ladder, K, aggregate, span and thresholds together: the least expected
cost under a risk target, from your own questions on your own models or engines. What each part says
and costs is recorded once a query; given again, the command goes on where it was stopped, and
another target or price needs no new answers. Questions without answers do: the agent's own then are
the reference, and the promise is about drafts that differ from it.

  speceyes tune scenes --limit 1000 --out tuned
  speceyes tune questions.jsonl --large http://gpu1:8000/v1 --small http://gpu2:8000/v1 --out tuned
  speceyes tune questions.jsonl --prices prices.json --by money --out tuned
  speceyes serve --settings tuned/settings.json

docs/worth_it.md says when it is worth it."""

SETTINGS: Final = "settings.json"
SUMMARY: Final = "tune.json"
LEDGER: Final = "ledger.jsonl"
KS: Final = (8, 16, 32, 64)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to an argparse sub-parser set."""
    one = command(
        commands, "tune", help="find the best setting under a risk target", description=ABOUT
    )
    one.add_argument(
        "questions",
        metavar="QUESTIONS",
        help="a JSONL file (docs/howto/your-data.md), or a benchmark by name or path",
    )
    one.add_argument("--folder", type=Path, metavar="DIR", help="where the benchmark's files are")
    one.add_argument("--split", metavar="NAME", help="only this category, or split of the scenes")
    one.add_argument(
        "--limit", type=at_least_one, metavar="N", help="questions; default: all, 200 of the scenes"
    )
    one.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run's folder")
    one.add_argument("--large", metavar="MODEL", help=f"the agent: {models.MODEL_HELP}")
    one.add_argument("--small", metavar="MODEL", help="the drafter, likewise")
    models.add_loading(one)
    add_speech(one)
    promise = one.add_argument_group("the promise")
    promise.add_argument(
        "--target", type=float, default=0.05, metavar="R", help="the risk; default: %(default)s"
    )
    promise.add_argument(
        "--delta",
        type=float,
        default=0.1,
        metavar="D",
        help="one minus the confidence, of the whole choice; default: %(default)s",
    )
    promise.add_argument(
        "--risk",
        choices=("selective", "overall"),
        default="selective",
        help='"selective": bad ones among accepted drafts; "overall": drafts accepted and bad '
        "among all queries; default: %(default)s",
    )
    promise.add_argument(
        "--labels",
        choices=("wrong", "worse_than_agent", "differs_from_agent"),
        help="what makes a draft bad; default: wrong, or differs_from_agent without answers",
    )
    promise.add_argument(
        "--correction",
        choices=("split", "bonferroni"),
        default="split",
        help='how the choice is paid for: "split" chooses on one half of the images and certifies '
        'on the other, "bonferroni" divides delta by the number of settings; default: %(default)s',
    )
    tried = one.add_argument_group("what is tried, each a list with commas")
    tried.add_argument(
        "--judges",
        default="none,small,large",
        metavar="LIST",
        help="of none, small, large and draft (a drafter that answers or says that it must look "
        "closer); large@262144 sees so many pixels; default: %(default)s",
    )
    tried.add_argument(
        "--pixels",
        metavar="LIST",
        help="pixels of drafts, such as full,1048576,262144; default: full, half and a quarter",
    )
    tried.add_argument(
        "--no-ladder",
        action="store_true",
        help="don't try a first draft on fewer pixels in front of that on more",
    )
    tried.add_argument("--ks", metavar="LIST", help="K of the gate; default: those of 8 to 64")
    tried.add_argument(
        "--aggregates", default="min,bottom20,mean,log", metavar="LIST", help="default: %(default)s"
    )
    tried.add_argument(
        "--spans",
        metavar="LIST",
        help="whole, answer: tokens that are scored; default: both, on an engine whole",
    )
    tried.add_argument(
        "--judge-thresholds", default="0.5", metavar="LIST", help="default: %(default)s"
    )
    costs = one.add_argument_group("costs")
    costs.add_argument(
        "--prices",
        type=Path,
        metavar="FILE",
        help="JSON or TOML: money per million tokens of input, cached_input and output, for large "
        "and small",
    )
    costs.add_argument(
        "--by", choices=("time", "money"), default="time", help="what is to be least; default: time"
    )
    costs.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="what time is told by: the wall, or CPU seconds of this process, for models that run "
        "here on a CPU which other programs use too; default: wall",
    )
    costs.add_argument(
        "--batch-size",
        type=at_least_one,
        default=16,
        metavar="B",
        help="queries drafted together, and trajectories alive, as you serve; default: %(default)s",
    )
    for name, default, what in (
        ("max-steps", None, "turns of the agent; default: its profile's"),
        ("max-tokens", None, "new tokens of a turn; default: its profile's"),
        ("draft-tokens", 20, "new tokens of a draft; default: 20"),
        ("record-k", None, "log-probabilities recorded a token; default: the largest K tried"),
    ):
        costs.add_argument(f"--{name}", type=at_least_one, default=default, metavar="N", help=what)
    one.add_argument(
        "--no-check",
        action="store_true",
        help="don't run the chosen funnel as a whole on a quarter of the questions",
    )
    one.add_argument("--seed", type=int, default=0, metavar="N", help="of splits; default: 0")
    add_max_failures(one, "setting is chosen")
    one.add_argument("--quiet", action="store_true", help="no progress bar")
    one.add_argument("--json", action="store_true", help="print the summary as JSON")
    one.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs it; the exit code is 0 also where the funnel is better left off."""
    from speceyes.evaluation import benchmarks
    from speceyes.evaluation.failures import counted
    from speceyes.evaluation.prices import Prices
    from speceyes.evaluation.runs import check_folder
    from speceyes.gates.span import decode_of
    from speceyes.scoring.scores import AGGREGATES
    from speceyes.tuning.candidates import SPANS, grid, judge_named
    from speceyes.tuning.observed import engine_seconds, observed
    from speceyes.tuning.page import checked_line, engine_lines, lines, summary
    from speceyes.tuning.recording import check, record, resolutions

    prices = None if options.prices is None else Prices.load(options.prices)
    if options.by == "money" and prices is None:
        raise ConfigError("--by money needs --prices FILE")
    asked = listed(options.judges)
    judges = list(dict.fromkeys(map(judge_named, asked)))
    thresholds = _numbers("--judge-thresholds", options.judge_thresholds, float)
    pixels = _pixels(options.pixels)
    aggregates = listed(options.aggregates)
    _check_list("--aggregates", aggregates, AGGREGATES)
    if options.spans is not None:
        _check_list("--spans", listed(options.spans), SPANS)
    loaded = benchmarks.load(
        options.questions,
        folder=options.folder,
        split=options.split,
        limit=options.limit,
        seed=options.seed,
        labels=False,
    )
    loaded.check()
    for line in loaded.left_out():
        print(f"left out: {line}", file=sys.stderr)
    samples = loaded.samples
    labelled = _labelled(samples, options.labels)
    labels = options.labels or ("wrong" if labelled else "differs_from_agent")
    check_folder(options.out)
    context, names = _context(options)
    pixels = pixels or resolutions(samples, context.small)
    recorded = [one for one in judges if one[0] not in ("none", "draft") and one != ("small", None)]
    looks = pixels if ("draft", None) in judges else []
    if ("small", None) in judges:
        recorded += [("small", at) for at in pixels]
    place: dict[str, Any] = {
        "folder": options.out,
        "fixed": _fixed(options, samples, context, names),
        "progress": None if options.quiet else sys.stderr,
    }
    with resumable(options.out):
        done = record(
            samples,
            context,
            list(dict.fromkeys(recorded)),
            pixels,
            looks=looks,
            **place,
            max_failures=options.max_failures,
        )
    code = say_failures(
        [
            one
            for arm in dict.fromkeys(block.arm for block in done.blocks)
            for one in counted(arm, (r.result for r in done.records if r.arm == arm))
        ]
    )
    found = observed(
        done,
        list(dict.fromkeys(recorded)),
        pixels,
        looks=looks,
        decode=decode_of(context.small),
        clock=options.clock,
    )
    spans = listed(options.spans or ("whole" if found.decode is None else "whole,answer"))
    candidates = grid(
        asked,
        pixels,
        [k for k in _ks(options, context.top_k) if k <= found.most_k],
        aggregates=aggregates,  # type: ignore[arg-type]
        spans=spans,  # type: ignore[arg-type]
        judge_thresholds=thresholds,
    )
    choice = _chosen(options, found, candidates, context, labels, prices)
    made = _settings(options, choice, found, context, names)
    checked = None
    if choice.on and not options.no_check:
        with resumable(options.out):
            n, whole = check(samples, context, made, **place, clock=options.clock)
        choice = choice.put_right(found, whole)
        checked = dict(zip(("questions", "gain", "low", "high"), (n, *whole.gain), strict=True))
        made = _settings(options, choice, found, context, names)
        made = replace(made, forecast={**made.forecast, "checked": checked})
    made.save(options.out / SETTINGS)
    engines = engine_seconds(done)
    told = {**summary(choice, found, prices), "checked": checked, "engines": engines}
    text = json.dumps(told, indent=1)
    (options.out / SUMMARY).write_text(text + "\n", encoding="utf-8")
    print(text if options.json else "\n".join(lines(choice, found, prices, labelled=labelled)))
    if not options.json:
        if checked is not None:
            print(checked_line(checked))
        if engines:
            print("\n" + "\n".join(engine_lines(engines)))
        _say_tries(options, choice, found)
        print(f"\n{options.out / SETTINGS}: for ask, eval, serve and mcp, behind --settings")
    return code


def _labelled(samples: Samples, labels: str | None) -> bool:
    """True where the questions have answers.

    Raises:
        InputError: Some have and some have not, or labels are asked for that need them.
    """
    without = [entry.id for entry in samples.entries if not entry.answer.strip()]
    labelled = not without
    if without and len(without) < len(samples) and labels != "differs_from_agent":
        raise InputError(
            f"{len(without)} of {len(samples)} questions have no answer (the first is "
            f"{without[0]!r}): give all of them one, or pass --labels differs_from_agent"
        )
    if without and labels not in (None, "differs_from_agent"):
        raise InputError(f"--labels {labels} needs answers, and the questions have none")
    return labelled


def _numbers(option: str, text: str, kind: type[Any]) -> list[Any]:
    try:
        found = [kind(part) for part in listed(text)]
    except ValueError:
        found = []
    if not found:
        raise ConfigError(f"{option} {text!r}; it must be numbers with commas")
    if kind is float and not all(0 <= one <= 1 for one in found):
        raise ConfigError(f"{option} {text!r}; they must lie from 0 to 1")
    return list(dict.fromkeys(found))


def _pixels(text: str | None) -> list[int | None]:
    """Resolutions; all pixels are always among them, since drafts are recorded so."""
    if text is None:
        return []
    given = [part for part in listed(text) if part != "full"]
    most = _numbers("--pixels", ",".join(given), int) if given else []
    if any(one < 1 for one in most):
        raise ConfigError(f"--pixels {text!r}; they must be full, or at least 1")
    return [None, *most]


def _ks(options: argparse.Namespace, own: int) -> list[int]:
    if options.ks is None:
        most = own if is_address(options.small or "") else max(own, *KS)
        return sorted({own, *(k for k in KS if k <= most)})
    found: list[int] = _numbers("--ks", options.ks, int)
    if any(k < 3 for k in found):
        raise ConfigError(f"--ks {options.ks!r}; K must be at least 3")
    return found


def _check_list(option: str, given: Sequence[str], known: Sequence[str]) -> None:
    unknown = [one for one in given if one not in known]
    if unknown or not given:
        raise ConfigError(f"{option} {','.join(unknown)}; it takes some of {', '.join(known)}")


def _context(
    options: argparse.Namespace,
) -> tuple[EvalContext, dict[str, ModelSettings]]:
    """Models, loaded, with their settings."""
    from speceyes.evaluation.context import EvalContext
    from speceyes.pipeline.model_settings import ModelSettings
    from speceyes.tuning.candidates import judge_named

    judges = {judge_named(one)[0] for one in listed(options.judges)}
    judging = bool(judges & {"small", "draft"})
    *names, bundled = models.named_pair(options.large, options.small, judging=judging)
    if names[1].lower() == "none":
        raise ConfigError("--small none: there is nothing to tune without a drafter")
    own = models.bundled_settings() if bundled else models.DEFAULT_GATE
    top_k = int(own["top_k"])
    engine = is_address(names[1])
    most = max(_ks(options, top_k)) if options.record_k is None else options.record_k
    small = models.load_named(names[1], options, "small", top_k=most if engine else None)
    same = names[0] == names[1] and models.model_arguments(
        options, "small"
    ) == models.model_arguments(options, "large")
    large = small if same else models.load_named(names[0], options, "large")
    most = min(most, models.vocabulary_size(small) or most)
    context = EvalContext(
        large,
        small,
        {},
        min(top_k, most),
        most,
        **models.context_fields(options, large),
    )
    told = {
        role: ModelSettings.of(model, name, _loading(options, role, name))
        for role, model, name in (("large", large, names[0]), ("small", small, names[1]))
    }
    return context, told


def _loading(options: argparse.Namespace, role: str, name: str) -> dict[str, Any]:
    found = models.model_arguments(options, role)
    if not is_address(name):
        given = {
            "dtype": options.dtype,
            "min_pixels": options.model_min_pixels,
            "max_pixels": options.model_max_pixels,
        }
        found = {**{key: value for key, value in given.items() if value is not None}, **found}
    return found


def _fixed(
    options: argparse.Namespace,
    samples: Samples,
    context: EvalContext,
    told: dict[str, ModelSettings],
) -> dict[str, Any]:
    """Options that may not change between starts. No answer depends on promise and prices."""
    from speceyes.evaluation.benchmarks.sample import samples_hash
    from speceyes.evaluation.manifest import model_files

    kept = ("record_k", "batch_size", "tools", "profile", "texts", "max_steps", "max_tokens")
    return {
        "tune": True,
        "benchmark": {
            "name": options.questions,
            "split": options.split,
            "limit": options.limit,
            "samples": samples_hash(samples),
            "n": len(samples),
        },
        "models": {
            role: {
                "name": one.name,
                "revision": one.revision,
                "sees": [list(size) for size in one.sees],
                "files": model_files(one.source),
            }
            for role, one in told.items()
        },
        "context": {
            **{name: getattr(context, name) for name in kept},
            "dialect": options.dialect,
            "draft_tokens": context.draft_tokens,
            "prompt_hash": context.answerer(context.top_k).prompt_hash,
        },
    }


def _chosen(
    options: argparse.Namespace,
    found: Observed,
    candidates: list[Any],
    context: EvalContext,
    labels: str,
    prices: Any,
) -> Choice:
    from speceyes.calibration import Scoring
    from speceyes.calibration.many import choosing_rows
    from speceyes.judge import DRAFT_JUDGES, NO_JUDGE, behind_ladder
    from speceyes.protocols import HasRevision, offers
    from speceyes.tuning.choice import choose
    from speceyes.tuning.ladders import with_ladders

    small = context.small
    revision = small.revision if offers(small, HasRevision) else None
    hashes = {
        (look, at): make(context.top_k, at).prompt_hash
        for look, make, drafts in (
            (False, context.answerer, found.drafts),
            (True, context.looking_answerer, found.looks),
        )
        for at in drafts
    }

    def scoring(one: Any) -> Scoring:
        return Scoring(
            small.name,
            hashes[one.draft],
            top_k=one.top_k,
            aggregate=one.aggregate,
            revision=revision,
        )

    def judge(one: Any) -> str:
        rungs = [] if one.rung is None else [one.rung]
        if one.judge in (NO_JUDGE, DRAFT_JUDGES):
            return behind_ladder(one.judge, rungs)
        made = context.judge(one.judge, one.judge_pixels)
        assert made is not None
        made.threshold = one.judge_threshold
        return behind_ladder(made.identity, rungs)

    def bad(drafts: Drafted) -> Any:
        if labels == "wrong":
            return ~drafts.right
        if labels == "worse_than_agent":
            return ~drafts.right & found.right
        return drafts.differs

    if not options.no_ladder and options.correction == "split":
        chose = choosing_rows(len(found), list(found.image_keys), options.seed)
        candidates = with_ladders(found, candidates, bad, chose, options.target)
    return choose(
        found,
        candidates,
        scoring,
        judge,
        lambda one: found.answering(one, bad),
        by=options.by,
        prices=prices,
        correction=options.correction,
        delta=options.delta,
        seed=options.seed,
        risk=options.risk,
        target=options.target,
        labels=labels,
    )


def _settings(
    options: argparse.Namespace,
    choice: Choice,
    found: Observed,
    context: EvalContext,
    told: dict[str, ModelSettings],
) -> FunnelSettings:
    """The settings of the choice: the funnel, or the agent alone where that is better."""
    from datetime import UTC, datetime

    from speceyes.dialects import Profile
    from speceyes.pipeline import AgentConfig, DraftConfig, JudgeConfig, Rung, ScheduleConfig
    from speceyes.pipeline.model_settings import GateSettings
    from speceyes.pipeline.settings import FunnelSettings
    from speceyes.texts import Texts
    from speceyes.tuning.page import forecast_dict

    best = choice.best
    one, made = best.candidate, best.calibration
    gate = None
    if choice.on:
        assert made.threshold is not None
        gate = GateSettings(made.threshold, made.scoring.top_k, one.aggregate, one.span, made)
    return FunnelSettings(
        told["large"],
        told["small"] if choice.on else None,
        gate,
        JudgeConfig(
            None if one.judge == "none" else one.judge, one.judge_threshold, one.judge_pixels
        ),
        DraftConfig(
            max_tokens=context.draft_tokens,
            max_pixels=one.draft_pixels,
            ladder=() if one.rung is None else (Rung(*one.rung),),
        ),
        AgentConfig(
            options.max_steps,
            options.max_tokens,
            options.batch_size,
            None if options.profile is None else Profile.load(options.profile),
        ),
        ScheduleConfig(batch_size=options.batch_size, speculate="auto"),
        context.tools,
        options.dialect,
        None if options.texts is None else Texts.load(options.texts),
        {
            "on": choice.on,
            "by": choice.by,
            "clock": options.clock,
            "statement": made.statement,
            "questions": len(found),
            "beta": best.beta,
            "accepted": best.accepted,
            "time": forecast_dict(best.time),
            "money": None if best.money is None else forecast_dict(best.money),
        },
        datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _say_tries(options: argparse.Namespace, choice: Choice, found: Observed) -> None:
    """Says how often these questions have been tuned on: the best of several is no promise."""
    from speceyes.calibration import Ledger, labels_hash

    ledger = Ledger(options.out / LEDGER)
    used = labels_hash(list(found.ids))
    spent = ledger.note(choice.best.calibration, used)
    if (tries := len(ledger.entries(used))) > 1:
        print(
            f"\n{tries} choices were made on these questions ({ledger.path}). Each holds with its "
            f"own confidence; whoever keeps the best of them has {100 * (1 - spent):g}%"
        )
