"""Experiments on promises beyond labels of queries to come: the agent's answers, drift, cost."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from speceyes.bench.guarantees import surprising
from speceyes.bench.promises.experiment import Experiment
from speceyes.bench.promises.labels import (
    BAD,
    DELTA,
    LEVELS,
    SCORES,
    SCORING,
    TARGET,
    drawn,
)
from speceyes.calibration import calibrate, calibrate_relative, calibrate_shifted, price
from speceyes.errors import CalibrationError

_DIFFERS = 0.6 * np.exp(-0.15 * (SCORES - 1.0))
_WORSE, _BETTER = 0.45, 0.2
"""Parts of the differing drafts that are worse than the agent, and better."""


def _lost(raw_threshold: float | None, credit: bool) -> float:
    passed = np.zeros(LEVELS, bool) if raw_threshold is None else raw_threshold <= SCORES
    each = _WORSE - (_BETTER if credit else 0.0)
    return float((_DIFFERS * each)[passed].sum()) / LEVELS


def relative(credit: bool, repeats: int = 100, n: int = 1200, share: float = 0.2) -> Experiment:
    """The agent answers all queries, and a fifth of those where the draft differs has gold."""
    before = after = 0
    accepted = alone = 0.0
    for seed in range(repeats):
        random = np.random.default_rng([seed, 19])
        level = random.integers(0, LEVELS, n)
        scores, differs = SCORES[level], random.random(n) < _DIFFERS[level]
        kind = random.random(n)
        worse = kind < _WORSE
        better = ~worse & (kind < _WORSE + _BETTER)
        gold = differs & (random.random(n) < share)
        found = calibrate_relative(
            scores,
            differs,
            np.where(gold, worse, np.nan),
            SCORING,
            better=np.where(gold, better, np.nan) if credit else None,
            target=TARGET,
            delta=DELTA,
        )
        after += _lost(found.raw_threshold, credit) > TARGET
        accepted += found.accepted / n / repeats
        # Without a correction: the share among the gold answers is taken for that of all.
        order = np.argsort(-scores, kind="stable")
        lost = np.cumsum((gold & worse)[order])
        if credit:
            lost = lost - np.cumsum((gold & better)[order])
        mean = lost / np.maximum(1, np.cumsum(gold[order]))
        fits = np.flatnonzero(np.cumsum(differs[order]) / n * mean <= TARGET)
        before += bool(fits.size) and _lost(float(scores[order][fits[-1]]), credit) > TARGET
        # By a calibration that knows as many gold answers of queries drawn at random.
        few = np.arange(max(1, int(gold.sum())))
        only = calibrate(
            scores[few],
            (differs & worse)[few],
            SCORING,
            risk="overall",
            target=TARGET,
            delta=DELTA,
        )
        alone += only.accepted / few.size / repeats
    what = "accuracy lost against the agent" if credit else "drafts worse than the agent"
    return Experiment(
        f"{what}: {n} answers of it, gold for {share:.0%} of where they differ",
        f"<= {DELTA:.0%} exceeded",
        f"{before / repeats:.1%} (shares taken as they are; with as many random gold answers alone "
        f"{alone:.0%} accepted)",
        f"{after / repeats:.1%}, {accepted:.0%} accepted",
        not surprising(after, repeats, DELTA) and (credit or accepted > alone),
    )


def drifted(repeats: int = 100, n: int = 1500) -> Experiment:
    """Scores move after labels were made; drafts of one score are as often bad as they were."""
    weights = np.exp(-((SCORES - 5) ** 2) / 8)
    weights /= weights.sum()

    def fresh(random: np.random.Generator) -> np.ndarray:
        return random.choice(SCORES, n, p=weights)

    def over(raw: float | None) -> bool:
        passed = np.zeros(LEVELS, bool) if raw is None else raw <= SCORES
        return float((weights * BAD)[passed].sum()) > TARGET

    before = after = 0
    accepted = 0.0
    for seed in range(repeats):
        random = np.random.default_rng([seed, 23])
        scores, bad = drawn(random, n)
        old = calibrate(scores, bad, SCORING, risk="overall", target=TARGET, delta=DELTA)
        before += over(old.raw_threshold)
        found = calibrate_shifted(
            scores, bad, fresh(random), SCORING, risk="overall", target=TARGET, delta=DELTA
        )
        after += over(found.raw_threshold)
        accepted += found.accepted / found.n / repeats
    return Experiment(
        "scores have moved since labels were made",
        f"<= {DELTA:.0%} exceeded",
        f"{before / repeats:.1%}",
        f"{after / repeats:.1%}, {accepted:.0%} accepted",
        not surprising(after, repeats, DELTA) and accepted > 0.1,
    )


def beyond_labels(repeats: int = 20) -> Experiment:
    """New scores lie where nothing was labelled."""
    refused = 0
    for seed in range(repeats):
        random = np.random.default_rng([seed, 29])
        scores, bad = drawn(random, 600)
        try:
            calibrate_shifted(scores, bad, 40 + random.gamma(4, 2, 600), SCORING)
        except CalibrationError:
            refused += 1
    return Experiment(
        "new scores lie where nothing was labelled",
        "said",
        f"0 of {repeats}",
        f"{refused} of {repeats}",
        refused == repeats,
    )


def paid(repeats: int = 200, n: int = 400) -> Experiment:
    """A funnel that costs just what the agent alone costs must not be certified as cheaper."""
    # At the threshold that is found, judging and drafting cost just what is saved.
    before = after = certified = 0
    for seed in range(repeats):
        random = np.random.default_rng([seed, 31])
        scores, bad = drawn(random, n)
        found = calibrate(scores, bad, SCORING, risk="overall", target=TARGET, delta=DELTA / 2)
        raw = found.raw_threshold
        assert raw is not None
        share = float((raw <= SCORES).mean())  # of all queries, accepted at this threshold
        agent = random.gamma(4, 0.25, n).clip(0, 4)
        own = np.full(n, share * 1.0)
        at_par = price(found, scores, own, agent, most=4.0, delta=DELTA / 2)
        after += at_par.worth_it
        before += at_par.measured is not None and at_par.measured < 1
        certified += price(found, scores, own / 4, agent, most=4.0, delta=DELTA / 2).worth_it
    return Experiment(
        "a threshold that costs as much as the agent alone is called cheaper",
        f"<= {DELTA / 2:.0%}",
        f"{before / repeats:.1%} (by its mean)",
        f"{after / repeats:.1%}; at a quarter of that cost {certified / repeats:.0%}",
        not surprising(after, repeats, DELTA / 2) and certified > repeats / 2,
    )


def experiments() -> Iterator[Experiment]:
    """All of them."""
    yield relative(False)
    yield relative(True)
    yield drifted()
    yield beyond_labels()
    yield paid()
