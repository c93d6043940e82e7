from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speceyes.bench.promises import measures
from speceyes.errors import InputError
from speceyes.evaluation.intervals import auroc_interval
from speceyes.evaluation.statistics import (
    auroc,
    cluster_interval,
    mcnemar_exact,
    paired_bootstrap_ratio,
    percentile,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        # Roots of |p - k/n| = z sqrt(p (1 - p) / n), solved by hand for k = 0 and k = n:
        # z^2 / (n + z^2) with z = 1.959964.
        (0, 10, 0.0, 3.841459 / 13.841459),
        (10, 10, 10 / 13.841459, 1.0),
        # Newcombe (1998), Statistics in Medicine 17, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_against_published_values(k: int, n: int, low: float, high: float) -> None:
    got = wilson_interval(k, n)
    assert got == pytest.approx((low, high), abs=6e-5)


@given(st.integers(1, 5000), st.data())
def test_wilson_bounds_solve_their_equation(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    low, high = wilson_interval(k, n)
    assert 0 <= low <= k / n <= high <= 1
    z = 1.959963984540054
    for bound, outermost in ((low, 0.0), (high, 1.0)):
        if bound != outermost:
            deviation = abs(k / n - bound)
            assert deviation == pytest.approx(z * math.sqrt(bound * (1 - bound) / n), rel=1e-6)
    assert wilson_interval(n - k, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_wilson_knows_nothing_without_trials_and_widens_with_confidence() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    narrow, wide = wilson_interval(40, 50, 0.8), wilson_interval(40, 50, 0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


@pytest.mark.parametrize("arguments", [(3, 2), (-1, 2), (0, -1), (1, 2, 0.0), (1, 2, 1.0)])
def test_wilson_refuses_impossible_counts(arguments: tuple[float, ...]) -> None:
    with pytest.raises(InputError):
        wilson_interval(*arguments)  # type: ignore[arg-type]


def test_percentile_is_linear_between_neighbours() -> None:
    assert percentile([10.0, 20.0, 30.0], 0) == 10.0
    assert percentile([30.0, 10.0, 20.0], 100) == 30.0
    assert percentile([10.0, 20.0], 95) == pytest.approx(19.5)
    for values, q in (([], 50), ([1.0, math.nan], 50), ([1.0], 101)):
        with pytest.raises(InputError):
            percentile(values, q)


def test_bootstrap_ratio_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(7)
    covered = 0
    for trial in range(200):
        base = random.gamma(2.0, 1.0, 60)
        ratio, low, high = paired_bootstrap_ratio(
            base * 3 + random.gamma(1.0, 1.0, 60), base, resamples=200, seed=trial
        )
        assert low <= ratio <= high
        covered += low <= 3.5 <= high  # E[a] / E[b] = (3 * 2 + 1) / 2
    assert 175 <= covered <= 200


def test_bootstrap_keeps_pairs_together() -> None:
    seconds = np.array([0.01, 5.0, 0.2, 9.0])
    ratio, low, high = paired_bootstrap_ratio(2 * seconds, seconds)
    assert (ratio, low, high) == pytest.approx((2.0, 2.0, 2.0))
    assert paired_bootstrap_ratio(seconds, seconds[::-1], seed=3) == paired_bootstrap_ratio(
        seconds, seconds[::-1], seed=3
    )


@pytest.mark.parametrize(
    ("a", "b"),
    [([1.0], [1.0, 2.0]), ([], []), ([1.0], [0.0]), ([-1.0], [1.0]), ([math.nan], [1.0])],
)
def test_bootstrap_refuses_what_has_no_ratio(a: list[float], b: list[float]) -> None:
    with pytest.raises(InputError):
        paired_bootstrap_ratio(a, b)
    with pytest.raises(InputError, match="resamples"):
        paired_bootstrap_ratio([1.0], [1.0], resamples=0)


scored = st.lists(
    st.tuples(st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0, math.inf]), st.booleans()),
    min_size=2,
    max_size=30,
).filter(lambda rows: len({label for _, label in rows}) == 2)


@given(scored)
def test_auroc_is_the_share_of_pairs_won(rows: list[tuple[float, bool]]) -> None:
    right = [s for s, label in rows if label]
    wrong = [s for s, label in rows if not label]
    won = sum(1.0 if r > w else 0.5 if r == w else 0.0 for r in right for w in wrong)
    scores, labels = [s for s, _ in rows], [label for _, label in rows]
    assert auroc(scores, labels) == pytest.approx(won / (len(right) * len(wrong)))
    assert auroc(scores, [not label for label in labels]) == pytest.approx(
        1 - auroc(scores, labels)
    )


def test_auroc_refuses_one_sided_and_nan() -> None:
    for scores, labels in (([1.0, 2.0], [True, True]), ([math.nan, 1.0], [True, False]), ([], [])):
        with pytest.raises(InputError):
            auroc(scores, labels)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),  # twice the tail is more than 1
        (0, 1, 1.0),
        (0, 6, 2 / 64),
        (1, 9, 22 / 1024),
        (10, 25, 0.016689),  # sum of C(35, 0..10) = 286 715 943 of 2^35, twice
    ],
)
def test_mcnemar_exact(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar_exact(only_a, only_b) == pytest.approx(p, rel=1e-3)
    assert mcnemar_exact(only_b, only_a) == mcnemar_exact(only_a, only_b)


def test_mcnemar_stands_large_counts_and_refuses_negative_ones() -> None:
    assert 0.0 < mcnemar_exact(4000, 4200) < 0.05
    with pytest.raises(InputError):
        mcnemar_exact(-1, 2)


@pytest.mark.parametrize("experiment", [measures.same_arms, measures.forecast])
def test_what_was_promised_of_measures_is_kept(experiment: Any) -> None:
    found = experiment()
    assert found.kept, found


# --- shares in clusters, and areas near 1 -----------------------------------------------------


def covered(share: float, each: int, images: int, alike: float, runs: int = 300) -> float:
    """How often the cluster interval holds the truth; rows of an image are alike that often."""
    random = np.random.default_rng(0)
    clusters = np.repeat(np.arange(images), each).tolist()
    hits = 0
    for _ in range(runs):
        whole = np.repeat(random.random(images) < share, each)
        own = random.random(images * each) < share
        right = np.where(random.random(images * each) < alike, whole, own)
        low, high = cluster_interval(right, clusters)
        hits += low <= share <= high
    return hits / runs


@pytest.mark.parametrize(
    ("share", "each", "images", "alike"),
    [(0.8, 6, 60, 1.0), (0.8, 6, 60, 0.5), (0.95, 4, 100, 1.0), (0.5, 3, 30, 0.0)],
)
def test_the_interval_of_clustered_rows_covers(
    share: float, each: int, images: int, alike: float
) -> None:
    assert covered(share, each, images, alike) >= 0.92
    if alike == 1.0:  # what Wilson's does on rows that repeat
        random, n = np.random.default_rng(0), images * each
        hits = [int(each * random.binomial(images, share)) for _ in range(300)]
        inside = [low <= share <= high for low, high in (wilson_interval(k, n) for k in hits)]
        assert np.mean(inside) < 0.8


def test_clusters_of_one_are_wilsons_and_all_alike_counts_clusters() -> None:
    assert cluster_interval([True] * 9 + [False], range(10)) == wilson_interval(9, 10)
    low, high = cluster_interval([True] * 60, [i // 6 for i in range(60)])
    assert high == 1.0 and low < wilson_interval(10, 10)[0] < wilson_interval(60, 60)[0]
    assert cluster_interval([True] * 5, ["one"] * 5) == (0.0, 1.0)
    with pytest.raises(InputError, match="clusters"):
        cluster_interval([True], [])


@pytest.mark.parametrize(("apart", "n"), [(2.0, 60), (3.0, 40), (4.0, 30), (5.0, 30)])
def test_the_interval_of_an_area_near_1_covers(apart: float, n: int) -> None:
    random, truth = np.random.default_rng(1), NormalDist().cdf(apart / math.sqrt(2))
    right = [True] * n + [False] * n
    hits = 0
    for _ in range(250):
        scores = np.concatenate([random.normal(apart, 1, n), random.normal(0, 1, n)])
        _, low, high = auroc_interval(scores, right)
        hits += low <= truth <= high
    assert hits / 250 >= 0.92
