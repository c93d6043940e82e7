"""A whole evaluation: calibration split, thresholds, all arms on the test split, sweeps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from speceyes.errors import ConfigError, InputError
from speceyes.evaluation.failures import MOST_FAILURES, Failures, check_share, counted

if TYPE_CHECKING:
    from speceyes.evaluation.benchmarks import Samples
    from speceyes.evaluation.context import EvalContext
    from speceyes.evaluation.runs import Run


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """Settings of a run, models aside.

    Args:
        arms: Names of arms of the test phase.
        batch_size: See `EvalContext`.
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


def parts(samples: Samples, plan: Plan) -> tuple[Samples, Samples]:
    """The samples for calibration and for the test, with no picture in both.

    Raises:
        InputError: There are too few pictures for two parts.
    """
    from speceyes.evaluation import benchmarks

    calibration, test = benchmarks.split(samples, plan.calibration_share, plan.seed)
    if plan.calibration_share and not (len(calibration) and len(test)):
        pictures = len({entry.image_key for entry in samples.entries})
        raise InputError(
            f"{len(samples)} sample{'s' * (len(samples) > 1)} on {pictures} "
            f"picture{'s' * (pictures > 1)} can't be "
            "split into calibration and test, because no picture may be in both: give more "
            "pictures, another --calibration-share, or --calibration-share 0 with a --threshold"
        )
    return calibration, test


def evaluate(
    samples: Samples,
    context: EvalContext,
    plan: Plan,
    *,
    folder: Path,
    fixed: dict[str, Any],
    progress: Any = None,
    max_failures: float = MOST_FAILURES,
) -> Run:
    """Runs what is missing in the folder and returns the whole run.

    Args:
        samples: The benchmark's.
        context: Models and settings; its thresholds are replaced by those chosen.
        plan: What is asked for.
        folder: The run's.
        fixed: For the manifest; see `manifest.begin`.
        progress: Where to draw the bar; None draws none.
        max_failures: Largest share of an arm's queries that may fail on the calibration split for
            a threshold to be chosen there.

    Raises:
        TooManyFailures: More of them failed.
        ConfigError: The folder holds another run, or is being written.
        InputError: A phase has no samples.
    """
    from speceyes.evaluation import arms as known
    from speceyes.evaluation.arms import BASELINE, DRAFT, FUNNEL
    from speceyes.evaluation.eval_progress import Progress
    from speceyes.evaluation.harness import Phase, run_phase
    from speceyes.evaluation.runs import CALIBRATION, TEST, Writer
    from speceyes.evaluation.sweep import chosen_thresholds

    calibration, test = parts(samples, plan)
    judges = ("large", "small") if "min-small-judge" in plan.arms else ("large",)
    phases = []
    needed = dict.fromkeys(name for one in plan.arms for name in known.arm(one).needs)
    ruled = context.rule is not None
    own = [a for a in plan.arms if known.arm(a).needs or (known.arm(a).labelled and not ruled)]
    if own and not len(calibration):
        raise ConfigError(
            f"arms {', '.join(own)} have thresholds of "
            "their own, which are chosen on a calibration split: give --calibration-share"
        )
    if len(calibration):
        phases.append(Phase(CALIBRATION, calibration, (BASELINE, DRAFT, *needed), context, judges))
    labelled = replace(context, labelled=calibration)
    phases.append(Phase(TEST, test, plan.arms, labelled, judges, pictures=True, again=True))
    for size in plan.sweep_batch:
        phases.append(
            Phase(
                f"batch-{size}",
                test[: plan.sweep_limit],
                (BASELINE, FUNNEL),
                replace(context, batch_size=size),
            )
        )
    with (
        Writer(folder, fixed) as writer,
        Progress(progress, sum(map(len, phases))) as bar,
    ):
        for phase in phases:
            if phase.name != CALIBRATION:
                learnt = failures(writer.run(), CALIBRATION)
                check_share(learnt, max_failures, "threshold is chosen")
                found = chosen_thresholds(writer.run())
                phase = replace(phase, context=replace(phase.context, thresholds=found))
            run_phase(writer, phase, bar)
        return writer.run()


def failures(run: Run, phase: str) -> list[Failures]:
    """Failed queries of each arm in a phase of a run.

    Args:
        run: The run.
        phase: "calibration", "test" or "batch-N".
    """
    arms = dict.fromkeys(block.arm for block in run.blocks if block.phase == phase and block.n)
    return [
        one
        for arm in arms
        for one in counted(f"{arm}, {phase} split", (r.result for r in run.of(phase, arm)))
    ]
