from __future__ import annotations

import itertools
import math
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speceyes.bench.promises import measures
from speceyes.errors import InputError
from speceyes.evaluation.intervals import (
    aurc_interval,
    auroc_interval,
    difference_interval,
    mean_interval,
)
from speceyes.evaluation.statistics import (
    cluster_interval,
    mcnemar_clusters,
    mcnemar_exact,
    paired_bootstrap_ratio,
    percentile,
    wilson_interval,
)
from speceyes.scoring.ranking import auroc


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


# --- clusters -------------------------------------------------------------------------------------


def _clustered(
    random: np.random.Generator, sizes: list[int], alike: float, images: int = 60
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Each row's image, and a uniform number that rows of one image share as often as `alike`."""
    at = np.repeat(np.arange(images), random.choice(sizes, images))
    return at, _alike(random, at, alike)


def _alike(
    random: np.random.Generator, at: npt.NDArray[np.int64], alike: float
) -> npt.NDArray[np.float64]:
    shared = random.random(at.size) < alike
    return np.where(shared, random.random(int(at.max()) + 1)[at], random.random(at.size))


CLUSTERED = [([1], 0.0), ([3], 0.5), ([6], 1.0), ([1, 2, 3, 4, 5, 6], 1.0)]
HELD = 0.93 - 3 * (0.07 * 0.93 / 300) ** 0.5
"""Three standard errors of 300 runs below 93 %."""


@pytest.mark.parametrize(("sizes", "alike"), CLUSTERED)
@pytest.mark.parametrize("share", [0.5, 0.9, 0.97])
def test_shares_of_clustered_rows_are_covered(sizes: list[int], alike: float, share: float) -> None:
    random, held = np.random.default_rng(5), 0
    for _ in range(300):
        images, drawn = _clustered(random, sizes, alike)
        low, high = cluster_interval(drawn < share, images.tolist())
        held += low <= share <= high
    assert held / 300 >= HELD


@pytest.mark.parametrize(("sizes", "alike"), CLUSTERED)
@pytest.mark.parametrize(("one", "other"), [(0.9, 0.9), (0.9, 0.8), (0.99, 0.98)])
def test_differences_of_clustered_rows_are_covered(
    sizes: list[int], alike: float, one: float, other: float
) -> None:
    random, held = np.random.default_rng(6), 0
    for _ in range(300):
        images, drawn = _clustered(random, sizes, alike)
        again = _alike(random, images, alike)
        _, low, high = difference_interval(drawn < one, again < other, images.tolist())
        held += low <= one - other <= high
    assert held / 300 >= HELD


@pytest.mark.parametrize(("sizes", "alike"), CLUSTERED)
@pytest.mark.parametrize("apart", [1.0, 3.0, 4.5])
def test_areas_of_clustered_rows_are_covered_up_to_1(
    sizes: list[int], alike: float, apart: float
) -> None:
    normal, random, held = NormalDist(), np.random.default_rng(7), 0
    truth = normal.cdf(apart / 2**0.5)
    for _ in range(300):
        images, drawn = _clustered(random, sizes, alike)
        right = random.random(60)[images] < 0.6
        if alike == 0:
            right = random.random(images.size) < 0.6
        noise = np.array([normal.inv_cdf(min(max(x, 1e-9), 1 - 1e-9)) for x in drawn])
        _, low, high = auroc_interval(noise + apart * right, right, images.tolist())
        held += low <= truth <= high
    assert held / 300 >= HELD


def test_rows_that_are_clusters_of_their_own_change_no_area() -> None:
    scores, right = np.arange(40.0), np.arange(40) % 3 > 0
    assert auroc_interval(scores, right, range(40)) == auroc_interval(scores, right)
    wide = auroc_interval(np.repeat(scores, 4), np.repeat(right, 4), [i // 4 for i in range(160)])
    plain = auroc_interval(np.repeat(scores, 4), np.repeat(right, 4))
    assert wide[0] == plain[0] and wide[1] < plain[1] and wide[2] > plain[2]
    perfect = [0.0] * 40 + [1.0] * 40
    images = [i // 4 for i in range(80)]
    assert auroc_interval(perfect, np.array(perfect) > 0, images)[1] < 0.85
    assert auroc_interval(perfect, np.array(perfect) > 0, [0] * 80)[1:] == (0.0, 1.0)


def test_differences_that_cannot_be_are_refused_and_one_image_says_nothing() -> None:
    for one, other, images in (([], [], []), ([1], [1, 0], [0]), ([1, 0], [1, 1], [0])):
        with pytest.raises(InputError):
            difference_interval(one, other, images)
    with pytest.raises(InputError):
        auroc_interval([1.0, 2.0], [True, False], [0])
    assert difference_interval([1, 0, 1], [0, 0, 1], [5, 5, 5]) == (pytest.approx(1 / 3), -1, 1)


# --- rows that share an image ---------------------------------------------------------------------


def enumerated(gaps: list[int]) -> float:
    """P-value of the sum of clusters' differences, every way to turn their signs counted."""
    seen = abs(sum(gaps))
    sums = [
        abs(sum(s * g for s, g in zip(signs, gaps, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(gaps))
    ]
    return sum(one >= seen for one in sums) / len(sums)


def test_mcnemar_by_clusters_counts_every_way_in_which_clusters_change_places() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        n = int(rng.integers(1, 30))
        clusters = rng.integers(0, 9, n).tolist()
        one, other = rng.random(n) < 0.7, rng.random(n) < 0.4
        gaps = [
            int(sum(int(one[i]) - int(other[i]) for i in range(n) if clusters[i] == c))
            for c in sorted(set(clusters))
        ]
        found = mcnemar_clusters(one, other, clusters)
        assert found == pytest.approx(enumerated(gaps), abs=1e-12)
        assert found == pytest.approx(mcnemar_clusters(other, one, clusters), abs=1e-12)


def test_mcnemar_by_clusters_is_the_plain_test_where_each_row_has_one() -> None:
    for a, b in ((0, 0), (1, 9), (5, 5), (40, 12)):
        one, other = [True] * a + [False] * b + [True] * 7, [False] * a + [True] * b + [True] * 7
        assert mcnemar_clusters(one, other, range(a + b + 7)) == mcnemar_exact(a, b)


def test_mcnemar_keeps_its_level_where_an_image_has_six_rows() -> None:
    """Arms of one quality, right or wrong by whole images: a test of rows rejects too often."""
    rng, by_rows, by_images = np.random.default_rng(1), 0, 0
    images = np.repeat(np.arange(40), 6)
    for _ in range(400):
        one, other = (rng.random((2, 40)) < 0.7)[:, images]
        rows = mcnemar_exact(int((one & ~other).sum()), int((other & ~one).sum()))
        by_rows += rows <= 0.05
        by_images += mcnemar_clusters(one, other, images.tolist()) <= 0.05
    assert by_rows > 120 and by_images < 35


def test_mcnemar_with_many_rows_and_no_difference() -> None:
    same = [True] * 3000
    assert mcnemar_clusters(same, same, [i // 3 for i in range(3000)]) == 1.0
    apart = [i % 2 == 0 for i in range(3000)]
    flipped = [not one for one in apart]
    assert mcnemar_clusters(apart, flipped, [i // 4 for i in range(3000)]) == 1.0
    with pytest.raises(InputError, match="one each"):
        mcnemar_clusters(same, same, range(2999))


def test_bootstraps_draw_whole_images() -> None:
    """Six rows alike in each of 20 images: as wide as an interval of 20 rows, not of 120."""
    rng = np.random.default_rng(2)
    values = rng.gamma(2, 1, 20)
    images = np.repeat(np.arange(20), 6).tolist()
    alone = mean_interval(values.tolist())
    by_rows = mean_interval(np.repeat(values, 6).tolist())
    by_images = mean_interval(np.repeat(values, 6).tolist(), images)
    assert by_images == pytest.approx(alone)
    assert by_rows[2] - by_rows[1] < 0.6 * (alone[2] - alone[1])
    scores, right = rng.random(20), rng.random(20) < 0.7
    few = aurc_interval(np.repeat(scores, 6), np.repeat(right, 6), images)
    rows = aurc_interval(np.repeat(scores, 6), np.repeat(right, 6))
    assert few[0] == rows[0] and few[2] - few[1] > 1.5 * (rows[2] - rows[1])
