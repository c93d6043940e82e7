"""Experiments on calibration: rows of one image, repeated use, labelling until it is certified."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from speceyes.bench.guarantees import surprising
from speceyes.bench.promises.experiment import Experiment
from speceyes.calibration import Calibration, Scoring, SequentialCalibration, Setting, calibrate
from speceyes.calibration.many import calibrate_many
from speceyes.gates.joint_thresholds import Chosen, RecordedDrafts, choose_thresholds

SCORING: Final = Scoring("small", "ab12")
DELTA, TARGET = 0.1, 0.05
LEVELS: Final = 200
Floats = npt.NDArray[np.float64]

# A population of few score levels, so that the true risk of a threshold is a sum.
SCORES: Final = np.linspace(1.0, 12.0, LEVELS)
BAD: Final = 0.45 * np.exp(-0.28 * (SCORES - 1.0))


def drawn(random: np.random.Generator, n: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """N independent queries: raw scores and labels."""
    level = random.integers(0, LEVELS, n)
    return SCORES[level], random.random(n) < BAD[level]


def true_risk(raw_threshold: float | None, *, selective: bool = False) -> float:
    """The overall risk of a threshold, or the selective one; 0 where nothing is accepted."""
    passed = np.zeros(LEVELS, bool) if raw_threshold is None else raw_threshold <= SCORES
    share = max(1, int(passed.sum())) if selective else LEVELS
    return float(BAD[passed].sum()) / share


def exceeded(
    repeats: int,
    once: Callable[[np.random.Generator], float | None],
    *,
    selective: bool = False,
    target: float = TARGET,
) -> int:
    """Times that the threshold found has a risk above the target."""
    return sum(
        true_risk(once(np.random.default_rng([seed, 7])), selective=selective) > target
        for seed in range(repeats)
    )


def _row(name: str, before: int, after: int, repeats: int) -> Experiment:
    return Experiment(
        name,
        f"<= {DELTA:.0%} exceeded",
        f"{before / repeats:.1%}",
        f"{after / repeats:.1%}",
        not surprising(after, repeats, DELTA),
    )


def _raw(found: Calibration) -> float | None:
    return found.raw_threshold


def rows_of_one_image(each: int = 4, repeats: int = 200, images: int = 300) -> Experiment:
    """Each image's rows are right or wrong together."""

    def once(keyed: bool) -> Callable[[np.random.Generator], float | None]:
        def find(random: np.random.Generator) -> float | None:
            scores, bad = drawn(random, images)
            keys = [str(i) for i in range(images)] * each if keyed else None
            found = calibrate(
                np.tile(scores, each),
                np.tile(bad, each),
                SCORING,
                risk="overall",
                target=TARGET,
                delta=DELTA,
                image_key=keys,
            )
            return _raw(found)

        return find

    return _row(
        f"{each} rows of each image",
        exceeded(repeats, once(False)),
        exceeded(repeats, once(True)),
        repeats,
    )


def best_of_many(settings: int = 20, repeats: int = 40, n: int = 200) -> list[Experiment]:
    """The most accepting of many settings, each as good as the other, on the same labels."""

    def scored(random: np.random.Generator) -> tuple[dict[str, Setting], Any]:
        # Each setting scores other drafts; the labels of all are known.
        made = {}
        for name in range(settings):
            scores, bad = drawn(random, n)
            made[str(name)] = Setting(scores, SCORING, bad=bad)
        return made, np.zeros(n)

    def naive(random: np.random.Generator) -> float | None:
        made, _ = scored(random)
        found = [
            calibrate(s.scores, s.bad, SCORING, risk="overall", target=TARGET, delta=DELTA)  # type: ignore[arg-type]
            for s in made.values()
        ]
        return _raw(max(found, key=lambda one: one.accepted))

    def corrected(correction: Any) -> Callable[[np.random.Generator], float | None]:
        def find(random: np.random.Generator) -> float | None:
            made, labels = scored(random)
            many = calibrate_many(
                made, labels, correction=correction, risk="overall", target=TARGET, delta=DELTA
            )
            return _raw(many.chosen)

        return find

    before = exceeded(repeats, naive)
    return [
        _row(
            f"the best of {settings} settings, {correction}",
            before,
            exceeded(repeats, corrected(correction)),
            repeats,
        )
        for correction in ("bonferroni", "split")
    ]


def until_certified(repeats: int = 60, most: int = 1000, step: int = 50) -> Experiment:
    """Labels are added until a threshold is certified."""

    def naive(random: np.random.Generator) -> float | None:
        scores, bad = drawn(random, most)
        for n in range(step, most + 1, step):
            found = calibrate(
                scores[:n], bad[:n], SCORING, risk="overall", target=TARGET, delta=DELTA
            )
            if found.certified and found.accepted > 0.5 * n:
                return _raw(found)
        return None

    def sequential(random: np.random.Generator) -> float | None:
        scores, bad = drawn(random, most)
        labelling = SequentialCalibration(SCORING, risk="overall", target=TARGET, delta=DELTA)
        for score, wrong in zip(scores.tolist(), bad.tolist(), strict=True):
            labelling.add(score, wrong)
        return _raw(labelling.calibration())

    return _row(
        f"calibrating every {step} labels until half of the drafts are accepted, at most {most}",
        exceeded(repeats, naive),
        exceeded(repeats, sequential),
        repeats,
    )


def cascade_rows(each: int = 6, repeats: int = 120, images: int = 120) -> Experiment:
    """Thresholds of a cascade, where each image has several rows."""

    def risk(found: Chosen) -> float | None:
        return found.setting[0] if found.certified else None

    def once(keyed: bool) -> Callable[[np.random.Generator], float | None]:
        def find(random: np.random.Generator) -> float | None:
            scores, bad = drawn(random, images)
            keys = [i for i in range(images)] * each if keyed else None
            drafts = RecordedDrafts(
                np.tile(scores, each)[:, None], np.tile(bad, each)[:, None], (1.0,), 20.0, keys
            )
            return risk(choose_thresholds(drafts, target=2 * TARGET, delta=DELTA, size=40))

        return find

    return _row(
        f"a cascade's threshold, {each} rows of each image",
        exceeded(repeats, once(False), selective=True, target=2 * TARGET),
        exceeded(repeats, once(True), selective=True, target=2 * TARGET),
        repeats,
    )


def experiments() -> Iterator[Experiment]:
    """All of them."""
    for each in (1, 2, 4, 6):
        yield rows_of_one_image(each)
    yield cascade_rows()
    for settings in (5, 20, 36):
        yield from best_of_many(settings)
    yield until_certified()
