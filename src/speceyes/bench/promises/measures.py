"""Experiments on intervals of what was measured, and on the forecast of a gain."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np

from speceyes.bench.promises.experiment import Experiment
from speceyes.evaluation.intervals import auroc_interval
from speceyes.evaluation.rounds import ratio
from speceyes.evaluation.statistics import cluster_interval, wilson_interval
from speceyes.pipeline.costs import CostModel, efficiency
from speceyes.types import Judgement, Result, Route, Timings, Verdict

YES, NO = Verdict(True, 0.99, 9.0, 0.98), Verdict(False, 0.5, 0.0, 0.98)


def area(apart: float, n: int, runs: int = 300) -> Experiment:
    """Areas under the curve near 1: DeLong's interval and the score interval."""
    random, truth = np.random.default_rng(1), NormalDist().cdf(apart / math.sqrt(2))
    right = np.array([True] * n + [False] * n)
    old = new = 0
    for _ in range(runs):
        above, below = random.normal(apart, 1, n), random.normal(0, 1, n)
        value, low, high = auroc_interval(np.concatenate([above, below]), right)
        new += low <= truth <= high
        won = (above[:, None] > below).mean(axis=1)
        lost = (above[:, None] > below).mean(axis=0)
        half = 1.96 * math.sqrt(float(won.var(ddof=1) + lost.var(ddof=1)) / n)
        old += value - half <= truth <= value + half
    return Experiment(
        f"interval of an area of {truth:.3f}, {n} right and {n} wrong",
        "95% cover",
        f"{old / runs:.0%} (DeLong)",
        f"{new / runs:.0%}",
        new / runs >= 0.92,
    )


def shares(each: int = 6, images: int = 60, share: float = 0.8, runs: int = 400) -> Experiment:
    """Shares whose rows come several an image."""
    random, n = np.random.default_rng(0), each * images
    clusters = np.repeat(np.arange(images), each).tolist()
    old = new = 0
    for _ in range(runs):
        right = np.repeat(random.random(images) < share, each)
        low, high = cluster_interval(right, clusters)
        new += low <= share <= high
        low, high = wilson_interval(int(right.sum()), n)
        old += low <= share <= high
    return Experiment(
        f"interval of a share, {each} rows of each image",
        "95% cover",
        f"{old / runs:.0%} (Wilson)",
        f"{new / runs:.0%}",
        new / runs >= 0.92,
    )


def same_arms(runs: int = 400) -> Experiment:
    """Two equal arms on a machine that drifts: 1 lies in the interval of their speed ratio."""
    random = np.random.default_rng(2)

    def covered(rounds: int, fixed: bool) -> float:
        held = 0
        for _ in range(runs):
            # A walk of the machine's speed over all turns, two a round.
            walk = np.exp(np.cumsum(random.normal(0.01, 0.03, 2 * rounds))).reshape(rounds, 2)
            if not fixed:
                walk[1::2] = walk[1::2, ::-1]
            spent = walk * random.lognormal(0, 0.02, walk.shape)
            _, low, high = ratio(spent[:, 0], spent[:, 1])
            held += low is not None and high is not None and low <= 1 <= high
        return held / runs

    before, after = covered(6, True), covered(15, False)
    return Experiment(
        "two equal arms on a machine that slows down",
        "95% hold 1",
        f"{before:.0%} (6 rounds, one order)",
        f"{after:.0%} (15 rounds, balanced)",
        after >= 0.9,
    )


def forecast() -> Experiment:
    """Speculation that loses time, where accepted queries are quick for the agent too."""
    random = np.random.default_rng(5)
    model, probed = CostModel(), CostModel()
    judge, draft, quick = 0.25, 0.12, 0.05
    for _ in range(120):
        slow = float(random.lognormal(0, 0.1))
        spent = Timings(judge=judge, draft=draft, gate=0.0)
        late = Timings(judge=judge, draft=draft, gate=0.0, fallback=slow)
        for one in (model, probed):
            one.note(Result("", "a", "draft", Judgement(False), None, YES, timings=spent))
            one.note(Result("", "a", "agent", Judgement(False), None, NO, timings=late))
        for cost in (slow + judge, quick):
            probed.note(Result("", "a", "agent", timings=Timings(fallback=cost)))
    truth = (1.0 + judge + quick) / 2 / (judge + draft + 0.5)
    naive = 1.0 / (judge + draft + 0.5)
    found, known = model.efficiency(), probed.efficiency()
    assert known.gain is not None
    return Experiment(
        f"a loss of {truth:.2f}x, accepted queries being quick for the agent",
        "never told as a gain",
        f"{naive:.2f}x",
        f"unknown without probes, {known.gain:.2f}x with",
        found.gain is None and abs(known.gain / truth - 1) < 0.1,
    )


def parts_of_a_forecast(queries: int = 400) -> Experiment:
    """A fallback finds the judge's reading paid for, and some time lies outside all phases."""
    random = np.random.default_rng(6)
    judge, draft, spared, outside = 0.010, 0.012, 0.63, 0.0022
    results, agent = [], []
    for _ in range(queries):
        alone = float(random.lognormal(-3.5, 0.3))
        accepted = random.random() < 0.5
        agent.append(alone)
        spent = Timings(
            judge=judge, draft=draft, gate=0.0, fallback=None if accepted else spared * alone
        )
        route: Route = "draft" if accepted else "agent"
        said = YES if accepted else NO
        results.append(Result("", "a", route, Judgement(False), None, said, timings=spent))
    fell = [one.timings.fallback for one in results if one.timings.fallback is not None]
    measured = judge + draft + sum(fell) / queries + outside
    naive = judge + draft + len(fell) / queries * sum(agent) / queries
    told = efficiency(results, seconds=measured * queries).speculated
    assert told is not None
    return Experiment(
        "E[L] where a fallback costs 0.63 of the agent alone and 2.2 ms lie outside all phases",
        "within 10%",
        f"{naive / measured - 1:+.0%}",
        f"{told / measured - 1:+.0%}",
        abs(told / measured - 1) < 0.1,
    )


def experiments() -> Iterator[Experiment]:
    """All of them."""
    for apart, n in ((2.5, 40), (3.5, 30), (4.5, 30)):
        yield area(apart, n)
    yield shares()
    yield same_arms()
    yield forecast()
    yield parts_of_a_forecast()
