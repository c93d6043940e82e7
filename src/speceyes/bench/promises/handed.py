"""Experiments on what is handed over: files, labels of another kind, copies, categories, arms, and
answers to grade.
"""

from __future__ import annotations

import dataclasses
import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from PIL import Image

from speceyes.bench.guarantees import surprising
from speceyes.bench.promises.experiment import Experiment
from speceyes.bench.promises.labels import (
    BAD,
    DELTA,
    LEVELS,
    SCORES,
    SCORING,
    TARGET,
)
from speceyes.calibration import (
    Calibration,
    GateMonitor,
    SequentialCalibration,
    calibrate,
    calibrate_groups,
)
from speceyes.errors import CalibrationError
from speceyes.evaluation.benchmarks.sample import Entry, Samples, split
from speceyes.evaluation.grading import is_correct
from speceyes.images.similarity import content_key, look

_OPTIONS: Final = ("red", "green", "blue")
GRADED: Final[tuple[tuple[str, str, tuple[str, ...], bool], ...]] = (
    ("No image was provided.", "no", (), False),
    ("I cannot see the image", "no", (), False),
    ("No doubt, yes", "yes", (), True),
    ("A. red? No, wait. C.", "C", _OPTIONS, True),
    ("The color is blue, not red.", "blue", (), True),
    ("The color is blue, not red.", "red", (), False),
    ("True", "yes", (), True),
    ("The clock shows 7:30.", "7:30", (), True),
    ("It says STOP.", "stop", (), True),
    ("Final answer: B\nConfidence: 80%", "B", _OPTIONS, True),
)
"""(answer, gold, options, whether it is right)."""


def as_many_more_as_told(repeats: int = 120, most: int = 600) -> Experiment:
    """Labels are added as many as "labels needed" says, until a threshold is certified, of drafts
    that are all a little worse than the target: whatever is certified exceeds it.
    """
    before = after = 0
    for seed in range(repeats):
        random = np.random.default_rng([seed, 43])
        scores, bad = random.choice(SCORES, most), random.random(most) < 1.02 * TARGET
        n = 45
        while n <= most:
            found = calibrate(scores[:n], bad[:n], SCORING, target=TARGET, delta=DELTA)
            if found.certified or found.labels_needed is None:
                before += found.certified
                break
            n += found.labels_needed
        labelling = SequentialCalibration(SCORING, target=TARGET, delta=DELTA)
        for score, wrong in zip(scores.tolist(), bad.tolist(), strict=True):
            labelling.add(score, wrong)
        after += labelling.threshold is not None
    return Experiment(
        f"as many more labels as are said to be needed, until certified, at most {most}",
        f"<= {DELTA:.0%} exceeded",
        f"{before / repeats:.1%}",
        f"{after / repeats:.1%}",
        not surprising(after, repeats, DELTA),
    )


def another_judge(repeats: int = 100, n: int = 1500) -> Experiment:
    """An arm without the judge takes the threshold that was certified behind it."""
    hard = np.linspace(0.9, 0.3, LEVELS)  # how often the judge sends a query to the agent
    behind = BAD * (1 - 0.8 * hard)  # it sends most of those that would have been bad

    def risk(raw: float | None, bad: np.ndarray) -> float:
        passed = np.zeros(LEVELS, bool) if raw is None else raw <= SCORES
        return float(bad[passed].sum()) / max(1, int(passed.sum()))

    before = after = 0
    for seed in range(repeats):
        random = np.random.default_rng([seed, 37])
        level = random.integers(0, LEVELS, n)
        passes = random.random(n) > hard[level]
        bad = random.random(n) < np.where(passes, behind[level], BAD[level])
        judged = calibrate(
            SCORES[level], bad, SCORING, let_through=passes, target=TARGET, delta=DELTA
        )
        own = calibrate(SCORES[level], bad, SCORING, target=TARGET, delta=DELTA)
        unjudged = (1 - hard) * behind + hard * BAD
        before += risk(judged.raw_threshold, unjudged) > TARGET
        after += risk(own.raw_threshold, unjudged) > TARGET
    return Experiment(
        "an arm without the judge, on the threshold certified behind it, or on its own",
        f"<= {DELTA:.0%} exceeded",
        f"{before / repeats:.1%}",
        f"{after / repeats:.1%}",
        not surprising(after, repeats, DELTA),
    )


def other_labels() -> Experiment:
    """A monitor of another kind of label, and of a promise in expectation without tolerance."""
    scores = np.full(400, 9.0)
    heard: list[str] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    log, ear = logging.getLogger("speceyes"), Listening(logging.WARNING)
    log.addHandler(ear)
    try:
        GateMonitor.from_calibration(calibrate(scores, np.zeros(400), SCORING, labels="wrong"))
    finally:
        log.removeHandler(ear)
    mean = calibrate(
        scores, np.zeros(400), SCORING, risk="overall", delta=None, labels="differs_from_agent"
    )
    refused = _refused(lambda: GateMonitor.from_calibration(mean, tolerance=0.0))
    return Experiment(
        "a monitor whose audits mean another thing than labels; one in expectation, tolerance 0",
        "both said",
        "neither",
        f"{'warned' if heard else 'nothing said'}, {'refused' if refused else 'taken'}",
        bool(heard) and refused,
    )


def edited_file() -> Experiment:
    """A calibration's file says that 138 of 138 accepted drafts were bad."""
    made = calibrate(np.full(400, 9.0), np.zeros(400), SCORING)
    text = json.dumps({**json.loads(made.to_json()), "accepted": 138, "bad": 138})
    refused = _refused(lambda: Calibration.from_json(text))
    return Experiment(
        "a file with 138 bad drafts of 138 accepted, target 5%",
        "refused",
        "loaded",
        "refused" if refused else "loaded",
        refused,
    )


def unseen_category() -> Experiment:
    """A query of a category without labels."""
    found = calibrate_groups(np.full(60, 9.0), np.zeros(60), SCORING, ["colour"] * 60)
    certified = found["count"].certified
    return Experiment(
        "a category that had no labels",
        "to the agent",
        "KeyError",
        "accepts drafts" if certified else "to the agent",
        not certified,
    )


def copies(images: int = 60) -> Experiment:
    """Copies of an image, in a split for calibration: on the other side they leak."""
    random, entries = np.random.default_rng(41), list[Entry]()
    for number in range(images):
        rough = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        image = Image.fromarray(rough).resize((160, 120), Image.Resampling.BICUBIC)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=75)
        for kind, one in {
            "itself": image,
            "JPEG": Image.open(file),
            "half": image.resize((80, 60)),
            "cropped": image.crop((2, 2, 158, 118)),
            "mirrored": image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        }.items():
            key = content_key(one)
            known = (f"{number}-{kind}", "?", (), "a", "k", key, "b", ())
            entries.append(Entry(*known, image_keys=(key,), looks=(look(one),)))

    def apart(given: list[Entry]) -> int:
        first = {one.id for one in split(Samples(given), 0.5)[0].entries}
        sides = [one.id in first for one in given]
        return sum(len(set(sides[at : at + 5])) > 1 for at in range(0, len(given), 5))

    blind = [dataclasses.replace(one, looks=()) for one in entries]
    before, after = apart(blind), apart(entries)
    return Experiment(
        f"of {images} images, those with a copy (JPEG, half size, 2 pixels cropped, mirrored) on "
        "the other side of a split",
        "0",
        f"{before}",
        f"{after}",
        after == 0,
    )


def graded() -> Experiment:
    """Answers that were graded wrong."""
    wrong = [
        said for said, gold, options, right in GRADED if is_correct(said, gold, options) != right
    ]
    return Experiment(
        f'{len(GRADED)} answers: refusals on gold "no", corrections, contrasts, times, signs',
        "graded right",
        "none",
        f"{len(GRADED) - len(wrong)}",
        not wrong,
    )


def _refused(load: Callable[[], object]) -> bool:
    try:
        load()
    except CalibrationError:
        return True
    return False


def experiments() -> Iterator[Experiment]:
    """All of them."""
    yield other_labels()
    yield copies()
    yield as_many_more_as_told()
    yield edited_file()
    yield unseen_category()
    yield another_judge()
    yield graded()
