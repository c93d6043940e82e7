"""Runs each part of a funnel once over a user's questions, in a folder that survives a kill."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image as PILImage

from speceyes.evaluation.arms import BASELINE, DRAFT, JUDGED, LOOK_DRAFT, TUNED
from speceyes.evaluation.eval_progress import Progress
from speceyes.evaluation.failures import MOST_FAILURES, check_share, counted
from speceyes.evaluation.harness import Phase, run_phase
from speceyes.evaluation.rounds import round_size
from speceyes.evaluation.runs import Run, Writer
from speceyes.evaluation.sweep import Clock, seconds_of
from speceyes.images.reduced import reduced_size
from speceyes.texts import fingerprint
from speceyes.tuning.candidates import JudgeModel
from speceyes.tuning.forecast import AsAWhole
from speceyes.tuning.observed import CHECKED, RECORDED, TOGETHER, arm_of

if TYPE_CHECKING:
    from speceyes.evaluation.benchmarks import Samples
    from speceyes.evaluation.context import EvalContext
    from speceyes.pipeline.settings import FunnelSettings
    from speceyes.protocols import VisionLanguageModel

_LOOKED_AT: Final = 32
_PARTS: Final = (1 / 2, 1 / 4)
_CHEAPER: Final = 0.9
_QUARTER: Final = 4
_ROUNDS: Final = 8
"""Rounds that run as a whole at least: with five, Student's t makes intervals of little use."""


def resolutions(samples: Samples, small: VisionLanguageModel) -> list[int | None]:
    """Resolutions to draft at: all pixels that the model takes, a half, and a quarter of them.

    One at which the model would see the median image no smaller is left out.

    Args:
        samples: The questions; the first few are looked at.
        small: The drafter.
    """
    sizes = [
        image.size
        for at in range(min(len(samples), _LOOKED_AT))
        for image in samples[at].query.images
    ]
    seen = [small.seen_size(PILImage.new("L", size)) for size in sizes]
    whole = int(np.median([width * height for width, height in seen]))
    size = sizes[int(np.argsort([w * h for w, h in sizes])[len(sizes) // 2])]
    return [
        None,
        *(
            pixels
            for part in _PARTS
            if (pixels := round(whole * part)) > 0
            and cheaper(small, size, pixels, than=small.seen_size(PILImage.new("L", size)))
        ),
    ]


def cheaper(
    model: VisionLanguageModel, size: tuple[int, int], pixels: int, *, than: tuple[int, int]
) -> bool:
    """True where a model sees an image of a size smaller once it is reduced to so many pixels.

    Args:
        model: The model.
        size: (width, height) of the image.
        pixels: Most pixels that it is reduced to.
        than: (width, height) at which the model sees it otherwise.
    """
    width, height = model.seen_size(PILImage.new("L", reduced_size(*size, pixels)))
    return width * height < _CHEAPER * than[0] * than[1]


def record(
    samples: Samples,
    context: EvalContext,
    judges: Sequence[tuple[JudgeModel, int | None]],
    draft_pixels: Sequence[int | None],
    *,
    looks: Sequence[int | None] = (),
    folder: Path,
    fixed: dict[str, Any],
    progress: Any = None,
    max_failures: float = MOST_FAILURES,
) -> Run:
    """Runs what is missing in the folder and returns the whole run.

    The agent, each judge and the drafter at each resolution answer all questions, in turns, a round
    at a time. Judge and agent in a row answer a quarter of them once more, for what the agent is
    spared by an image that its own model has read to judge.

    Args:
        samples: The questions.
        context: Models and settings.
        judges: To ask, with their pixels.
        draft_pixels: Resolutions to draft at; the first is None, all pixels.
        looks: Resolutions to ask at for drafts that may ask to look closer.
        folder: The run's.
        fixed: What may not change between starts; see `manifest.begin`.
        progress: Where to draw the bar; None draws none.
        max_failures: Largest share of an arm's queries that may fail.

    Raises:
        TooManyFailures: More of them failed.
        ConfigError: The folder holds another run, or is being written.
        InputError: There are no samples.
    """
    arms = [BASELINE, *(arm_of(DRAFT, pixels) for pixels in draft_pixels)]
    arms += [arm_of(which, pixels) for which, pixels in judges]
    arms += [arm_of(LOOK_DRAFT, pixels) for pixels in looks]
    size = round_size(len(samples), context.batch_size)
    phases = [Phase(RECORDED, samples, tuple(arms), context, round=size)]
    if ("large", None) in judges:
        part = samples[: _quarter(len(samples), size)]
        phases.append(Phase(TOGETHER, part, (JUDGED,), context, round=size))
    with Writer(folder, fixed) as writer, Progress(progress, sum(map(len, phases))) as bar:
        for phase in phases:
            run_phase(writer, phase, bar)
        run = writer.run()
    failed = [
        one
        for phase in phases
        for arm in phase.arms
        for one in counted(arm, (row.result for row in run.of(phase.name, arm)))
    ]
    check_share(failed, max_failures, "setting is chosen")
    return run


def check(
    samples: Samples,
    context: EvalContext,
    settings: FunnelSettings,
    *,
    folder: Path,
    fixed: dict[str, Any],
    progress: Any = None,
    clock: Clock = "wall",
) -> tuple[int, AsAWhole]:
    """Runs a chosen funnel and the agent in turns on a quarter of the questions, or eight rounds.

    What parts cost by themselves leaves out what they do to each other; this doesn't.

    Args:
        samples: All questions.
        context: As for `record`.
        settings: What was chosen.
        folder: The run's.
        fixed: As for `record`.
        progress: Where to draw the bar; None draws none.
        clock: What seconds are told by.

    Returns:
        How many questions there were, and the seconds of each of their rounds: the first rounds of
        the recorded phase.
    """
    size = round_size(len(samples), context.batch_size)
    part = samples[: _quarter(len(samples), size)]
    # What was promised of the gate, and when, changes nothing about how the funnel runs.
    gate = settings.gate and dataclasses.replace(settings.gate, calibration=None)
    same = dataclasses.replace(settings, gate=gate, forecast={}, created="")
    name = f"{CHECKED}-{fingerprint(same.to_json())}"
    arms = (BASELINE, TUNED)
    phase = Phase(name, part, arms, dataclasses.replace(context, settings=settings), round=size)
    with Writer(folder, fixed) as writer, Progress(progress, len(phase)) as bar:
        run_phase(writer, phase, bar)
        run = writer.run()
    walls = {
        arm: {b.round: seconds_of(b, clock) for b in run.blocks if (b.phase, b.arm) == (name, arm)}
        for arm in arms
    }
    rounds = sorted(walls[BASELINE])
    return len(part), AsAWhole(
        tuple(rounds), *(tuple(walls[arm][r] for r in rounds) for arm in arms)
    )


def _quarter(n: int, size: int) -> int:
    """A quarter of n questions in whole rounds, enough of them for an interval where there are."""
    return min(n, max(n // _QUARTER // size, _ROUNDS) * size)
