"""`speceyes eval`: all arms on a benchmark, in a folder that survives a kill."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from speceyes.errors import ConfigError, InputError

if TYPE_CHECKING:
    from speceyes.evaluation.arms import Ground
    from speceyes.evaluation.benchmarks import Samples
    from speceyes.evaluation.runs import Run
    from speceyes.protocols import VisionLanguageModel

ABOUT = """\
Runs every arm on the same samples of a benchmark, on the same warmed-up models, in turns, and
writes each answer into the folder of the run. A run that was stopped, however, goes on where it
was when the same command is given again. The gate's threshold is chosen on a calibration split
that shares no image with the test split. Without --large and --small the bundled pair answers.

  speceyes eval scenes --limit 300 --out run
  speceyes eval vstar --folder data/vstar_bench --large ChenShawn/DeepEyes-7B \\
      --small Qwen/Qwen3-VL-2B-Instruct --out run
  speceyes report run"""

DEFAULT_ARMS: Final = "agent,draft,min,bottom20,mean,log"


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is asked to do, models aside.

    Args:
        arms: Names of arms of the test phase.
        batch_size: See `Ground`.
        seed: Of the options' order and of the split.
        calibration_share: Share of the samples for calibration; 0 needs a threshold.
        threshold: The gate's, 0 to 1, of all aggregates; None chooses one for each.
        sweep_batch: Batch sizes to run the agent and the funnel at.
        sweep_limit: Samples of each of those runs.
    """

    arms: tuple[str, ...]
    batch_size: int = 16
    seed: int = 0
    calibration_share: float = 0.3
    threshold: float | None = None
    sweep_batch: tuple[int, ...] = ()
    sweep_limit: int = 64

    def __post_init__(self) -> None:
        if not 0 <= self.calibration_share < 1:
            raise ConfigError(
                f"calibration share {self.calibration_share}; it must be from 0 to below 1"
            )
        if self.calibration_share == 0 and self.threshold is None:
            raise ConfigError("without a calibration split there must be a --threshold")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold {self.threshold}; it must be from 0 to 1")
        if min((self.batch_size, self.sweep_limit, *self.sweep_batch)) < 1:
            raise ConfigError("batch sizes and limits must be at least 1")


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the command to an argparse sub-parser set.

    Args:
        commands: The set.
        shared: Options that all commands have.
    """
    one = commands.add_parser(
        "eval",
        parents=[shared],
        help="run all arms on a benchmark and write down every answer",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument(
        "benchmark",
        metavar="BENCHMARK",
        help="vstar, hr-bench-4k, hr-bench-8k, pope, jsonl, scenes, or the path of one",
    )
    one.add_argument("--folder", type=Path, metavar="DIR", help="where the benchmark's files are")
    one.add_argument("--split", metavar="NAME", help="only this category of the benchmark")
    one.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run's folder")
    one.add_argument("--large", metavar="MODEL", help="the agent: a Hugging Face name or a folder")
    one.add_argument("--small", metavar="MODEL", help="the drafter: a name or a folder")
    one.add_argument(
        "--looker",
        metavar="MODEL",
        help="a small model that calls tools, for the arms deep, cascade and specreason; "
        "default: the bundled one, beside the bundled pair",
    )
    one.add_argument("--dialect", default="deepeyes", help="how the agent writes tool calls")
    one.add_argument(
        "--arms",
        default=DEFAULT_ARMS,
        metavar="LIST",
        help="with commas; agent and draft are always run; also min-small-judge, min-no-judge, "
        "specreason, transfer, deep and cascade; default: %(default)s",
    )
    for name, default, what in (
        ("limit", None, "samples in all; default: the whole benchmark, 200 of the scenes"),
        ("batch-size", 16, "queries drafted together and trajectories alive; default: 16"),
        ("seed", 0, "of the options' order and the split; default: 0"),
        ("k", None, "K of the gate; default: 64, or the bundled pair's"),
        ("record-k", 128, "log-probabilities recorded a token, for sweeps; default: 128"),
        ("max-steps", 6, "turns of the agent; default: 6"),
        ("max-tokens", 512, "new tokens of a turn; default: 512"),
        ("draft-tokens", 20, "new tokens of a draft; default: 20"),
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
        "--parity",
        action="store_true",
        help="the published order of options and prompts; in V* the first option is then right",
    )
    one.add_argument("--quiet", action="store_true", help="no progress bar")
    one.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs it; the exit code."""
    from speceyes.evaluation import arms, benchmarks
    from speceyes.evaluation.eval_report import brief

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
    for bad in loaded.bad:
        print(f"left out: {bad.name}: {bad.reason}", file=sys.stderr)
    ground, models = _ground(options)
    if any(entry.parity_prompt is not None for entry in loaded.samples.entries):
        ground = replace(ground, bare=True)
    fixed = {
        "plan": {name: getattr(plan, name) for name in plan.__dataclass_fields__},
        "benchmark": {
            "name": options.benchmark,
            "split": options.split,
            "limit": options.limit,
            "parity": options.parity,
            "samples": _samples_hash(loaded.samples),
            "n": len(loaded.samples),
            "bad": [[bad.name, bad.reason] for bad in loaded.bad],
        },
        "models": models,
        "ground": _settings(ground),
    }
    done = evaluate(
        loaded.samples,
        ground,
        plan,
        folder=options.out,
        fixed=fixed,
        progress=None if options.quiet else sys.stderr,
    )
    print(brief(done))
    print(f"\nspeceyes report {options.out} makes the tables and the page")
    return 0


def evaluate(
    samples: Samples,
    ground: Ground,
    plan: Plan,
    *,
    folder: Path,
    fixed: dict[str, Any],
    progress: Any = None,
) -> Run:
    """Runs what is missing in the folder and returns the whole run.

    Args:
        samples: The benchmark's.
        ground: Models and settings; its thresholds are replaced by those chosen.
        plan: What is asked for.
        folder: The run's.
        fixed: For the manifest; see `manifest.begin`.
        progress: Where to draw the bar; None draws none.

    Raises:
        ConfigError: The folder holds another run, or is being written.
        InputError: A phase has no samples.
    """
    from speceyes.evaluation import arms as known
    from speceyes.evaluation import benchmarks
    from speceyes.evaluation.arms import BASELINE, DRAFT, FUNNEL
    from speceyes.evaluation.eval_progress import Progress
    from speceyes.evaluation.harness import Phase, run_phase
    from speceyes.evaluation.runs import CALIBRATION, TEST, Writer
    from speceyes.evaluation.sweep import chosen_thresholds

    calibration, test = benchmarks.split(samples, plan.calibration_share, plan.seed)
    judges = ("large", "small") if "min-small-judge" in plan.arms else ("large",)
    phases = []
    needed = dict.fromkeys(name for one in plan.arms for name in known.arm(one).needs)
    if needed and not len(calibration):
        raise ConfigError(
            f"arms {', '.join(a for a in plan.arms if known.arm(a).needs)} have thresholds of "
            "their own, which are chosen on a calibration split: give --calibration-share"
        )
    if len(calibration):
        phases.append(Phase(CALIBRATION, calibration, (BASELINE, DRAFT, *needed), ground, judges))
    phases.append(Phase(TEST, test, plan.arms, ground, judges, pictures=True))
    for size in plan.sweep_batch:
        phases.append(
            Phase(
                f"batch-{size}",
                test[: plan.sweep_limit],
                (BASELINE, FUNNEL),
                replace(ground, batch_size=size),
            )
        )
    with (
        Writer(folder, fixed) as writer,
        Progress(progress, sum(map(len, phases))) as bar,
    ):
        for phase in phases:
            if phase.name != CALIBRATION:
                found = chosen_thresholds(writer.run())
                phase = replace(phase, ground=replace(phase.ground, thresholds=found))
            run_phase(writer, phase, bar)
        return writer.run()


def _asked(options: argparse.Namespace) -> list[str]:
    return [name.strip() for name in options.arms.split(",") if name.strip()]


def _settings(ground: Ground) -> dict[str, Any]:
    kept = (
        "top_k",
        "record_k",
        "batch_size",
        "tools",
        "dialect",
        "max_steps",
        "max_tokens",
        "draft_tokens",
        "parity",
        "bare",
    )
    found = {name: getattr(ground, name) for name in kept}
    return {**found, "prompt_hash": ground.answerer(ground.top_k).prompt_hash}


def _samples_hash(samples: Samples) -> str:
    """Of ids, images, questions, options and answers, in order."""
    from speceyes.evaluation.benchmarks.sample import rank

    return rank(
        *(f"{e.id}\n{e.image_key}\n{e.question}\n{e.choices}\n{e.answer}" for e in samples.entries)
    )[:16]


def _numbers(text: str | None) -> tuple[int, ...]:
    if not text:
        return ()
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as exc:
        raise ConfigError(
            f"--sweep-batch {text!r}; it must be numbers with commas, such as 1,4,16"
        ) from exc


def _ground(options: argparse.Namespace) -> tuple[Ground, dict[str, Any]]:
    """Models, loaded, with their settings; and what the manifest says of them."""
    from speceyes import tiny
    from speceyes.evaluation import arms
    from speceyes.evaluation.arms import Ground
    from speceyes.evaluation.manifest import model_files

    if (options.large is None) != (options.small is None):
        raise ConfigError("name both --large and --small, or neither for the bundled pair")
    bundled = options.large is None
    names = (str(tiny.LARGE), str(tiny.SMALL)) if bundled else (options.large, options.small)
    top_k = int(tiny.settings()["top_k"]) if bundled else 64
    top_k = top_k if options.k is None else options.k
    large = _load(names[0], options.device)
    small = large if names[0] == names[1] else _load(names[1], options.device)
    looks = {
        "specreason",
        *(a for a in _asked(options) if arms.arm(a).needs or a == arms.DEEP),
    }
    looker = options.looker or (str(tiny.SMALL_ZOOM) if bundled else None)
    looker = looker if looks.intersection(_asked(options)) else None
    vocabulary = getattr(getattr(small, "config", None), "get_text_config", lambda: None)()
    most = getattr(vocabulary, "vocab_size", None) or options.record_k
    ground = Ground(
        large,
        small,
        {},
        top_k,
        max(top_k, min(options.record_k, most)),
        batch_size=options.batch_size,
        dialect=options.dialect,
        max_steps=options.max_steps,
        max_tokens=options.max_tokens,
        draft_tokens=options.draft_tokens,
        parity=options.parity,
        looker=None if looker is None else _load(looker, options.device),
    )
    loaded = [("large", large, names[0]), ("small", small, names[1])]
    if looker is not None and ground.looker is not None:
        loaded.append(("looker", ground.looker, looker))
    models = {
        role: {
            "name": model.name,
            "revision": getattr(model, "revision", None),
            "files": model_files(name),
            "dtype": str(getattr(model, "dtype", "")),
            "device": str(getattr(model, "device", "")),
        }
        for role, model, name in loaded
    }
    return ground, models


def _load(name: str, device: str | None) -> VisionLanguageModel:
    from speceyes.models.hf import HFModel

    try:
        return HFModel.from_pretrained(name, device=device)
    except OSError as exc:
        raise InputError(f"model {name!r} can't be loaded: {exc}") from exc
