"""Token separability: against the published formula, and what it must not depend on."""

from __future__ import annotations

import math
import warnings

import hypothesis.extra.numpy as hnp
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from speceyes.errors import InputError
from speceyes.scoring import scales, scores

Floats = npt.NDArray[np.float64]
AGGREGATES = scores.AGGREGATES
FORMULAS = scores.FORMULAS
K = 8
U32 = 2.0**-24
U64 = 2.0**-53

logit = st.floats(-60, 60, width=32)
rows = hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(K, 20)), elements=logit)
spread_rows = st.builds(
    lambda seed, n, width, scale: (
        np.random.default_rng(seed).normal(0, scale, (n, width)).astype(np.float32)
    ),
    st.integers(0, 2**32),
    st.integers(1, 12),
    st.integers(K, 20),
    st.floats(0.1, 20),
)
"""Rows as models give them; `rows` seeks out ties and extremes."""
tokens = st.lists(st.floats(0, 1e4), min_size=1, max_size=40)
aggregates = st.sampled_from(AGGREGATES)
formulas = st.sampled_from(FORMULAS)


# The published computation, written down on its own: float32 throughout, loops, no numpy
# reductions. torch adds in pairs or lanes, so the sum here is taken in pairs as well.


def _sum32(values: list[np.float32]) -> np.float32:
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return np.float32(_sum32(values[:half]) + _sum32(values[half:]))


def _published_token(row: list[np.float32], k: int) -> np.float32:
    ranked = sorted(row, reverse=True)[:k]
    top, competitors = ranked[0], ranked[1:]
    count = np.float32(len(competitors))
    mean = np.float32(_sum32(competitors) / count)
    squares = [np.float32((c - mean) * (c - mean)) for c in competitors]
    std = np.float32(np.sqrt(_sum32(squares) / count))
    return np.float32((top - mean) / (std + np.float32(1e-6)))


def _published(logits: npt.NDArray[np.float32], k: int, mode: str) -> float:
    if mode == "log":
        greedy = []
        for row in logits:
            weights = [np.float32(np.exp(v - max(row))) for v in row]
            greedy.append(np.float32(np.log(np.float32(1) / _sum32(weights))))
        return float(np.exp(_sum32(greedy) / np.float32(len(greedy))))
    each = sorted(_published_token(list(row), k) for row in logits)
    if mode == "min":
        raw = each[0]
    elif mode == "mean":
        raw = np.float32(_sum32(each) / np.float32(len(each)))
    else:
        lowest = each[: max(1, math.floor(0.2 * len(each)))]
        raw = np.float32(_sum32(lowest) / np.float32(len(lowest)))
    return float(np.float32(1) / (np.float32(1) + np.float32(np.exp(-np.float32(0.6) * raw))))


def _slack(array: npt.NDArray[np.floating], delta: float, top_k: int = K) -> float:
    """How far S of any token can move when each value moves by delta (docs/gate.md)."""
    top = scores.largest(array, top_k)
    spread = top[:, 1:].std(axis=1) + scores.EPS
    raw = scores.separability(top)
    if (spread <= 2 * delta).any():
        return math.inf
    return float(((2 + raw) * delta / (spread - delta)).max() * 1.01 + 1e-12 * (1 + raw.max()))


def _unit(raw: float, aggregate: str) -> float:
    return scales.to_unit(raw, log=aggregate == "log")


def _raw(array: npt.ArrayLike, aggregate: scores.Aggregate = "min", **kwargs: object) -> float:
    each = scores.token_scores(array, K, aggregate, **kwargs)  # type: ignore[arg-type]
    return scores.combine(each, aggregate)


@pytest.mark.parametrize("mode", AGGREGATES)
@pytest.mark.parametrize("n", [1, 4, 5, 9, 10, 20])
def test_agrees_with_the_published_formula(mode: scores.Aggregate, n: int) -> None:
    rng = np.random.default_rng(n)
    logits = (rng.normal(0, 4, (n, 300)) + 12 * (rng.random((n, 300)) < 0.01)).astype(np.float32)
    each = scores.token_scores(logits, 64, mode)
    ours = _unit(scores.combine(each, mode), mode)
    assert abs(ours - _published(logits, 64, mode)) <= 1e-5


@given(rows | spread_rows)
def test_agrees_per_token_as_far_as_float32_reaches(logits: npt.NDArray[np.float32]) -> None:
    """Float32 itself errs by a few roundings of the largest logit, magnified by 1 / std."""
    slack = _slack(logits, 8 * U32 * float(np.abs(logits).max()))
    assume(slack < math.inf)
    ours = scores.token_scores(logits, K)
    theirs = np.array([_published_token(list(row), K) for row in logits], dtype=np.float64)
    assert (np.abs(ours - theirs) <= slack + 1e-5 * np.abs(ours)).all()


def test_agrees_with_torch() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch says while it is imported is its own affair
        torch = pytest.importorskip("torch")
    logits = np.random.default_rng(0).normal(0, 3, (50, 500)).astype(np.float32)
    top = torch.topk(torch.from_numpy(logits), 64, dim=-1).values
    rest = top[:, 1:]
    theirs = (top[:, 0] - rest.mean(-1)) / (rest.std(-1, unbiased=False) + 1e-6)
    np.testing.assert_allclose(scores.token_scores(logits, 64), theirs.numpy(), rtol=1e-5)
    greedy = torch.log_softmax(torch.from_numpy(logits), -1).max(-1).values
    np.testing.assert_allclose(scores.token_scores(logits, 64, "log"), greedy.numpy(), rtol=1e-5)


def test_by_hand() -> None:
    # Competitors 1, 0, -1: mean 0, population std sqrt(2/3); with the top-1: mean 2.
    row = [[8.0, 1.0, 0.0, -1.0]]
    code = 8 / (math.sqrt(2 / 3) + 1e-6)
    paper = 6 / (math.sqrt((36 + 1 + 4 + 9) / 4) + 1e-6)
    assert scores.separability(row)[0] == pytest.approx(code, rel=1e-14)
    assert scores.separability(row, "paper")[0] == pytest.approx(paper, rel=1e-14)


@given(rows, formulas, st.floats(-1e4, 1e4))
@example(np.array([[5, 0, 0, 0, 0, 0, 0, -1]], np.float32), "code", 9999.0)  # as an engine's floor
def test_a_constant_per_token_changes_nothing(
    logits: npt.NDArray[np.float32], formula: scores.Formula, constant: float
) -> None:
    base = logits.astype(np.float64)
    shifts = constant * np.linspace(-1, 1, len(base))[:, None]
    moved = base + shifts
    before = scores.token_scores(base, K, formula=formula)
    after = scores.token_scores(moved, K, formula=formula)
    # The addition itself rounds; the printed formula is never steeper than the code's.
    assert np.abs(after - before).max() <= _slack(base, U64 * float(np.abs(moved).max()))
    lower = scores.token_scores(base, K, "log", logprobs=False)
    again = scores.token_scores(moved, K, "log", logprobs=False)
    np.testing.assert_allclose(again, lower, atol=4 * U64 * float(np.abs(moved).max() + 60))


@given(spread_rows, st.floats(1e-3, 1e3), aggregates.filter(lambda a: a != "log"))
def test_positive_scaling_changes_nothing_but_through_eps(
    logits: npt.NDArray[np.float32], factor: float, aggregate: scores.Aggregate
) -> None:
    base = logits.astype(np.float64)
    spread = scores.largest(base, K)[:, 1:].std(axis=1).min()
    before, after = _raw(base, aggregate), _raw(base * factor, aggregate)
    bound = scores.EPS / (spread * min(1.0, factor))  # docs/gate.md
    assert abs(after - before) <= before * bound * 1.001 + _slack(base, 60 * 4 * U64)


@given(rows, st.randoms(use_true_random=False), aggregates)
def test_the_order_within_a_row_changes_nothing(
    logits: npt.NDArray[np.float32], random: object, aggregate: scores.Aggregate
) -> None:
    shuffled = np.array([random.sample(list(r), len(r)) for r in logits])  # type: ignore[attr-defined]
    before, after = (_raw(x, aggregate, logprobs=False) for x in (logits, shuffled))
    # S sorts first, so it is the same to the last bit; log adds up the row as it comes.
    assert after == (pytest.approx(before, abs=1e-12) if aggregate == "log" else before)


@given(rows, formulas, st.floats(1e-3, 1e3))
def test_rises_with_the_margin_of_the_top(
    logits: npt.NDArray[np.float32], formula: scores.Formula, more: float
) -> None:
    top = scores.largest(logits, K)
    raised = top.copy()
    raised[:, 0] += more
    before, after = (scores.separability(x, formula) for x in (top, raised))
    if formula == "code":
        assert (after > before).all()
    else:  # its ceiling makes it flat in the end
        assert (after >= before * (1 - 4 * U64)).all()
        assert (after < math.sqrt(K - 1)).all()


@given(tokens)
def test_min_bottom20_mean_are_in_order(values: list[float]) -> None:
    low, bottom, mean = (scores.combine(values, a) for a in ("min", "bottom20", "mean"))
    assert low == min(values)
    assert low <= bottom <= mean <= max(values) * (1 + 4 * U64)
    assert mean == pytest.approx(math.fsum(values) / len(values), rel=1e-12, abs=1e-300)


@given(tokens, st.floats(0, 1e4))
def test_a_further_token_never_raises_min(values: list[float], more: float) -> None:
    assert scores.combine([*values, more], "min") <= scores.combine(values, "min")


@given(st.integers(1, 400))
def test_bottom20_takes_the_floor_of_a_fifth(n: int) -> None:
    values = np.random.default_rng(n).permutation(n).astype(np.float64)
    count = max(1, math.floor(0.2 * n))
    expected = sum(range(count)) / count
    assert scores.combine(values, "bottom20") == pytest.approx(expected, rel=1e-12)


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    normalised: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normalised


@given(rows, aggregates, formulas)
def test_top_k_logprobs_give_the_score_of_the_full_logits(
    logits: npt.NDArray[np.float32], aggregate: scores.Aggregate, formula: scores.Formula
) -> None:
    logprobs = _log_softmax(logits.astype(np.float64))
    kept = np.sort(logprobs, axis=1)[:, ::-1][:, :K]
    for cut, unit in ((kept, U64), (kept.astype(np.float32), U32)):
        full = _raw(logits, aggregate, formula=formula, logprobs=False)
        theirs = _raw(cut, aggregate, formula=formula, logprobs=True)
        delta = 4 * unit * (float(np.abs(logprobs).max()) + 60)
        slack = delta if aggregate == "log" else _slack(logits, delta)
        assert abs(theirs - full) <= slack


def test_ties_give_a_large_but_finite_score() -> None:
    """With no spread at all, eps alone stands below the margin; no margin is no score."""
    assert scores.token_scores([[3.0, 1.0, 1.0, 1.0]], 4)[0] == pytest.approx(2e6)
    assert scores.token_scores([[1.0, 1.0, 1.0, 1.0]], 4)[0] == 0.0
    assert scores.token_scores([[1 / 3] * 63 + [0.7]], 64)[0] == pytest.approx((0.7 - 1 / 3) / 1e-6)


def test_float16_and_whole_numbers_are_read_exactly() -> None:
    row = np.array([[8, 1, 0, -1]])
    for dtype in (np.float16, np.float64, np.int32):
        assert scores.token_scores(row.astype(dtype), 4) == scores.token_scores(row, 4)


def test_log_of_logits_far_out_is_stable() -> None:
    logits = np.array([[5000.0, 4000.0, 0.0, -5000.0, -math.inf]])
    assert scores.token_scores(logits, 4, "log")[0] == 0.0
    assert scores.token_scores([[-1e5] * 5], 4, "log")[0] == pytest.approx(-math.log(5))


GOOD = [9.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([9.0, math.nan, 2.0, 1.0], "row 1 holds NaN"),
        ([math.nan] * 4, "row 1 holds NaN"),
        ([math.inf, 3.0, 2.0, 1.0], "row 1 holds inf"),
        ([9.0, 3.0, 2.0, -math.inf], "1 of the top 4 tokens are masked"),
        ([-0.1, -3.0, -9999.0, -9999.0], "2 of the top 4 tokens are masked"),
        ([9.0, -math.inf, -math.inf, -math.inf], "3 of the top 4 tokens are masked"),
        ([-math.inf] * 4, "4 of the top 4 tokens are masked"),
        ([9.0, 3.0, 2.0, float(np.finfo(np.float64).min)], "1 of the top 4 tokens are masked"),
    ],
)
@pytest.mark.parametrize("formula", FORMULAS)
def test_what_cannot_be_scored_says_why(
    row: list[float], reason: str, formula: scores.Formula
) -> None:
    with pytest.raises(InputError, match=reason):
        scores.token_scores([GOOD, row], 4, formula=formula)
    assert np.isnan(scores.raw_scores([[GOOD, row]], 4, formula=formula))


def test_a_floor_is_one_among_log_probabilities_alone() -> None:
    row = [[-0.1, -3.0, -4.0, -9999.0]]
    for logprobs in (None, True):
        with pytest.raises(InputError, match="masked"):
            scores.token_scores(row, 4, logprobs=logprobs)
    assert scores.token_scores(row, 4, logprobs=False)[0] > 0
    assert scores.token_scores(np.add(row, 20), 4)[0] > 0


def test_the_lowest_float16_is_a_mask() -> None:
    row = np.array([[9.0, 3.0, 2.0, -65504.0]])
    assert scores.token_scores(row, 4)[0] > 0
    with pytest.raises(InputError, match="masked"):
        scores.token_scores(row.astype(np.float16), 4)


def test_masked_tokens_beyond_the_top_k_do_not_matter() -> None:
    masked = [*GOOD, -math.inf, -math.inf]
    assert scores.token_scores([masked], 4) == scores.token_scores([GOOD], 4)
    assert scores.token_scores([masked], 4, "log")[0] == pytest.approx(
        scores.token_scores([GOOD], 4, "log", logprobs=False)[0]
    )


@pytest.mark.parametrize(
    ("row", "logprobs", "reason"),
    [
        ([0.5, -1.0, -2.0, -3.0], None, "no log-probability"),
        ([0.5, -1.0, -2.0, -3.0], True, "no log-probability"),
        ([math.nan, -1.0, -2.0, -3.0], True, "NaN"),
        ([-0.1, -1.0, math.nan, -3.0], True, "NaN"),
        ([math.inf, -1.0, -2.0, -3.0], False, "inf"),
        ([-math.inf] * 4, True, "masked"),
    ],
)
def test_log_refuses_what_is_no_log_probability(
    row: list[float], logprobs: bool | None, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        scores.token_scores([row], 4, "log", logprobs=logprobs)


def test_log_needs_one_column_of_logprobs_and_rounding_above_zero_is_zero() -> None:
    assert scores.token_scores([[-0.25]], 64, "log").tolist() == [-0.25]
    assert scores.token_scores([[1e-4, -9.0]], 64, "log").tolist() == [0.0]
    assert scores.token_scores([[-0.1, -math.inf]], 64, "log").tolist() == [-0.1]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (np.zeros((2, 3)), "3 columns, but top_k=4"),
        (np.zeros(4), r"float64\[4\]"),
        (np.zeros((0, 4)), "no tokens"),
        ([[1.0, 2.0], [1.0]], "can't be read"),
        (np.zeros((2, 4), dtype=complex), "complex128"),
        ([["a"] * 4], "must be float"),
    ],
)
def test_wrong_shapes_are_told(bad: npt.ArrayLike, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        scores.token_scores(bad, 4)


def test_combine_needs_tokens() -> None:
    for bad in ([], [[1.0]]):
        with pytest.raises(InputError, match="n >= 1"):
            scores.combine(bad)


@given(
    st.lists(
        hnp.arrays(np.float32, st.tuples(st.integers(0, 30), st.integers(6, 12)), elements=logit),
        max_size=8,
    ),
    aggregates,
    formulas,
)
def test_raw_scores_is_the_scores_one_by_one(
    drafts: list[npt.NDArray[np.float32]], aggregate: scores.Aggregate, formula: scores.Formula
) -> None:
    one_by_one = []
    for draft in drafts:
        try:
            each = scores.token_scores(draft, K, aggregate, formula, logprobs=True)
            one_by_one.append(scores.combine(each, aggregate))
        except InputError:
            one_by_one.append(math.nan)
    together = scores.raw_scores(drafts, K, aggregate, formula)
    assert np.array_equal(together, one_by_one, equal_nan=True)


def test_raw_scores_goes_on_past_what_cannot_be_scored() -> None:
    good = np.array([GOOD])
    drafts = [good, np.zeros((0, 0)), good[:, :3], np.full((2, 4), np.nan), np.zeros(3), good]
    found = scores.raw_scores(drafts, 4)
    assert np.isnan(found).tolist() == [False, True, True, True, True, False]
    assert found[0] == found[5] == scores.token_scores(good, 4)[0]
    assert scores.raw_scores([]).shape == (0,)


def test_raw_scores_of_thousands_of_drafts_in_blocks() -> None:
    rng = np.random.default_rng(3)
    drafts = [rng.normal(0, 3, (int(n), 16)) for n in rng.integers(1, 12, 1000)]
    found = scores.raw_scores(drafts, 16, "bottom20")
    assert all(
        found[i] == scores.combine(scores.token_scores(drafts[i], 16), "bottom20")
        for i in range(0, 1000, 37)
    )


# The scales.

# Facts of the published code: sigmoid(0.6 s).
TABLE = {0.94: 4.586, 0.95: 4.907, 0.96: 5.297, 0.97: 5.793, 0.98: 6.486, 0.99: 7.659, 0.995: 8.822}


@pytest.mark.parametrize(("threshold", "raw"), TABLE.items())
def test_thresholds_on_the_raw_scale(threshold: float, raw: float) -> None:
    assert scales.inverse_sigmoid(threshold) == pytest.approx(raw, abs=6e-4)
    assert scales.to_raw(threshold, log=False) == pytest.approx(raw, abs=6e-4)
    assert scales.sigmoid(raw) == pytest.approx(threshold, abs=2e-5)


@given(st.floats(0, 1, exclude_min=True, exclude_max=True), st.floats(0.01, 100))
def test_the_sigmoid_and_its_inverse(score: float, sharpness: float) -> None:
    raw = scales.inverse_sigmoid(score, sharpness)
    near = max(5e-15, 4 * U64 * abs(raw) * sharpness)
    assert scales.sigmoid(raw, sharpness) == pytest.approx(score, rel=near, abs=5e-324)


def test_the_inverse_keeps_its_precision_around_a_half() -> None:
    assert scales.inverse_sigmoid(0.5 + 2.0**-34, 1.0) == pytest.approx(2.0**-32, rel=1e-14, abs=0)
    assert scales.inverse_sigmoid(0.5 - 2.0**-34, 1.0) == -scales.inverse_sigmoid(0.5 + 2.0**-34, 1)


def test_the_sigmoid_far_out() -> None:
    assert scales.sigmoid(1e308) == scales.sigmoid(math.inf) == 1.0
    assert scales.sigmoid(-1e308) == scales.sigmoid(-math.inf) == 0.0
    assert scales.sigmoid(-1200.0) == pytest.approx(math.exp(-720.0))
    assert scales.inverse_sigmoid(0.0) == -math.inf
    assert scales.inverse_sigmoid(1.0) == math.inf
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match="0 to 1"):
            scales.inverse_sigmoid(bad)
        with pytest.raises(InputError, match="0 to 1"):
            scales.to_raw(bad, log=True)


@given(
    st.floats(0, 1, exclude_min=True, exclude_max=True, allow_subnormal=True),
    st.booleans(),
    st.sampled_from([0.6, 0.05, 7.0]),
)
def test_the_raw_threshold_is_the_least_that_reaches(
    threshold: float, log: bool, sharpness: float
) -> None:
    raw = scales.to_raw(threshold, log=log, sharpness=sharpness)
    assert scales.to_unit(raw, log=log, sharpness=sharpness) >= threshold
    below = math.nextafter(raw, -math.inf)
    assert scales.to_unit(below, log=log, sharpness=sharpness) < threshold


@given(spread_rows, st.sampled_from([3, 5, 8]))
def test_the_map_between_the_formulas_is_exact(logits: npt.NDArray[np.float32], k: int) -> None:
    top = scores.largest(logits, k)
    spread = top[:, 1:].std(axis=1)
    code, paper = scores.separability(top), scores.separability(top, "paper")
    mapped = np.array([scales.paper_from_code(s, k) for s in code])
    np.testing.assert_allclose(mapped, paper, rtol=2 * scores.EPS / spread.min())


@given(st.floats(0, 100), st.integers(3, 200))
def test_the_map_goes_back(raw: float, k: int) -> None:
    paper = scales.paper_from_code(raw, k)
    assert paper < math.sqrt(k - 1)
    # Near the ceiling the printed scale is coarse: one of its last bits is worth this much.
    steep = (1 + raw * raw / k) * 8 * U64
    assert scales.code_from_paper(paper, k) == pytest.approx(raw, rel=max(1e-12, steep), abs=1e-300)


def test_the_printed_formula_has_a_ceiling() -> None:
    assert scales.paper_from_code(math.inf, 64) == math.sqrt(63)
    assert scales.sigmoid(math.sqrt(63)) == pytest.approx(0.9915, abs=5e-5)
    for beyond in (math.sqrt(63), 8.0, math.nan):
        with pytest.raises(InputError, match="below sqrt"):
            scales.code_from_paper(beyond, 64)
    with pytest.raises(InputError, match="below sqrt"):
        scales.map_threshold(0.995, to="code", top_k=64)
    assert scales.map_threshold(0.98, to="paper", top_k=64) == pytest.approx(0.952543, abs=1e-6)
    assert scales.map_threshold(0.952543, to="code", top_k=64) == pytest.approx(0.98, abs=1e-6)


@pytest.mark.parametrize("to", FORMULAS)
def test_the_ends_of_the_scale_map_to_themselves(to: scores.Formula) -> None:
    for end in (0.0, 0.25, 0.5, 1.0):
        assert scales.map_threshold(end, to=to, top_k=64) == end


# What the mutation run (`tests/support/mutants.py scores`) found unseen: numbers just on a limit.


def test_the_papers_scale_ends_before_its_bound() -> None:
    bound = math.sqrt(63)
    for raw in (bound, -bound):
        with pytest.raises(InputError, match="stays below"):
            scales.code_from_paper(raw, 64)


def test_rows_on_the_limit_of_what_a_model_gives_have_no_score() -> None:
    masked, huge = np.full((1, 12), -1e30), np.full((1, 12), -3.0)
    huge[0, 3] = 1e30
    for aggregate in AGGREGATES:
        how = {"top_k": K, "aggregate": aggregate, "logprobs": False}
        count = 1 if aggregate == "log" else K
        with pytest.raises(InputError, match=f"{count} of the top {count} tokens are masked"):
            scores.token_scores(masked, **how)
        with pytest.raises(InputError, match="a logit must be finite"):
            scores.token_scores(huge, **how)


def test_engines_floor_counts_only_where_the_row_may_be_log_probabilities() -> None:
    for top, scored in ((-50.0, True), (-49.9, False), (0.01, True), (0.0099, False)):
        row = np.full((1, K), -9999.5)
        row[0, 0], row[0, 1] = top, scores.ENGINE_FLOOR
        if scored:
            assert math.isfinite(scores.token_scores(row, top_k=K)[0])
        else:
            with pytest.raises(InputError, match="1 of the top 8 tokens are masked"):
                scores.token_scores(row, top_k=K)
