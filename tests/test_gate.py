"""The gate: its decisions, and what it must never accept by accident."""

from __future__ import annotations

import dataclasses
import math
import pickle

import hypothesis.extra.numpy as hnp
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from speceyes.errors import ConfigError, InputError
from speceyes.gate import SeparabilityGate
from speceyes.scoring import scales, scores
from speceyes.types import Completion, Verdict

K = 8
AGGREGATES = scores.AGGREGATES

rows = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.integers(K, 12)),
    elements=st.floats(-60, 60, width=32),
).map(lambda x: x - np.float32(60))  # log-probabilities are not positive
spread_rows = st.builds(
    lambda seed, n, scale: -np.abs(np.random.default_rng(seed).normal(9, scale, (n, K + 2))),
    st.integers(0, 2**32),
    st.integers(1, 12),
    st.floats(0.5, 5),
).map(lambda x: x.astype(np.float32))
thresholds = st.floats(0, 1)


def draft(top: npt.ArrayLike, **kwargs: object) -> Completion:
    array = np.asarray(top, dtype=np.float32)
    return Completion("red", tuple(range(len(array))), array, **kwargs)  # type: ignore[arg-type]


def clear(n: int = 3, k: int = 64, margin: float = 40.0) -> npt.NDArray[np.float32]:
    """n tokens that any sensible threshold accepts."""
    competitors = np.linspace(-margin, -margin - 5, k - 1)
    return np.tile(np.concatenate([[-0.01], competitors]), (n, 1)).astype(np.float32)


def near(score: float) -> list[float]:
    """The representable thresholds around a score."""
    around = {score, math.nextafter(score, 0), math.nextafter(score, 1)}
    around |= {math.nextafter(t, 0) for t in around} | {math.nextafter(t, 1) for t in around}
    return sorted(t for t in around if 0 <= t < 1)


@given(
    rows | spread_rows, st.sampled_from(AGGREGATES), st.sampled_from(scores.FORMULAS), thresholds
)
def test_decides_on_the_raw_scale_as_on_the_sigmoid(
    top: npt.NDArray[np.float32],
    aggregate: scores.Aggregate,
    formula: scores.Formula,
    threshold: float,
) -> None:
    """Not only far from the score: at each representable threshold next to it, too."""
    open_gate = SeparabilityGate(0, top_k=K, aggregate=aggregate, formula=formula)
    score = open_gate.score(top, logprobs=True)
    assert 0 <= score <= 1
    for t in [threshold, *near(score)]:
        ceiling = scales.sigmoid(math.sqrt(K - 1))
        if t == 1 or (formula == "paper" and aggregate != "log" and t >= ceiling - 1e-15):
            continue
        verdict = dataclasses.replace(open_gate, threshold=t)(draft(top))
        assert verdict.accepted == (score >= t)
        assert (verdict.score, verdict.threshold, verdict.reason) == (score, t, "")
        assert len(verdict.token_scores) == len(top)


@given(spread_rows, st.floats(1e-3, 0.5), st.booleans())
def test_the_formulas_decide_alike_under_min_after_mapping(
    top: npt.NDArray[np.float32], away: float, above: bool
) -> None:
    """Threshold a little above or below the score; only eps may part the two, and it is less."""
    cut = scores.largest(top, K)
    raw = float(scores.separability(cut).min())
    assume(cut[:, 1:].std(axis=1).min() > 0.1 and raw < 40)
    threshold = scales.sigmoid(raw * (1 + away if above else 1 - away))
    code = SeparabilityGate(threshold, top_k=K)
    paper = SeparabilityGate(
        scales.map_threshold(threshold, to="paper", top_k=K), top_k=K, formula="paper"
    )
    assert code(draft(top)).accepted == paper(draft(top)).accepted == (not above)


@given(rows, st.sampled_from(AGGREGATES))
def test_columns_over_k_and_their_order_do_not_matter(
    top: npt.NDArray[np.float32], aggregate: scores.Aggregate
) -> None:
    gate = SeparabilityGate(0.7, top_k=K, aggregate=aggregate)
    ranked = -np.sort(-top, axis=1)
    expected = gate(draft(ranked[:, :K]))
    assert gate(draft(ranked)) == gate(draft(ranked[:, ::-1])) == expected
    assert expected.separability == scores.raw_scores([top], K, aggregate)[0]


def test_never_saturates() -> None:
    """From S = 28 on the sigmoid is 1 in float32, where no threshold could part two answers."""
    assert np.float32(1) / (np.float32(1) + np.exp(np.float32(-0.6 * 28))) == 1
    gate = SeparabilityGate(scales.sigmoid(35.0), top_k=64)
    low, high = gate(draft(clear(margin=47))), gate(draft(clear(margin=58)))
    assert low.separability is not None and high.separability is not None
    assert 28 < low.separability < 35 < high.separability
    assert (low.accepted, high.accepted) == (False, True)
    assert low.score is not None and np.float32(low.score) == 1


def test_the_comparison_includes_the_threshold() -> None:
    top = clear(1, margin=8.0)
    score = SeparabilityGate(0).score(top)
    assert 0.9 < score < 1
    assert SeparabilityGate(score)(draft(top)).accepted
    assert not SeparabilityGate(math.nextafter(score, 1))(draft(top)).accepted


def test_a_raw_threshold_that_is_the_score_to_the_bit() -> None:
    assert SeparabilityGate(0.98).raw_threshold == pytest.approx(6.486, abs=5e-4)
    assert SeparabilityGate(0.98, aggregate="log").raw_threshold == pytest.approx(math.log(0.98))
    assert SeparabilityGate(0.98, sharpness=0.3).raw_threshold == pytest.approx(12.973, abs=5e-4)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_the_ends_of_the_dial(aggregate: scores.Aggregate) -> None:
    sure, unsure = np.zeros((2, 64)), np.full((2, 64), -80.0)
    sure[:, 1:] = clear(2, margin=200.0)[:, 1:]  # a greedy probability of exactly 1
    for top in (sure, unsure):
        assert SeparabilityGate(0, aggregate=aggregate)(draft(top)).accepted
        assert not SeparabilityGate(1.0, aggregate=aggregate)(draft(top)).accepted
    assert SeparabilityGate(math.nextafter(1, 0), aggregate=aggregate)(draft(sure)).accepted


def test_one_unclear_token_is_enough_for_min_alone() -> None:
    top = clear(10)
    top[4] = np.linspace(-3, -4, 64)
    accepted = {a: SeparabilityGate(0.98, aggregate=a)(draft(top)).accepted for a in AGGREGATES}
    assert accepted == {"min": False, "mean": True, "bottom20": True, "log": False}


def _with(value: float, column: int) -> npt.NDArray[np.float32]:
    top = clear()
    top[1, column] = value
    return top


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        (Completion.failed("CUDA went away"), "the draft failed: CUDA went away"),
        (draft(clear(), error="half of it is missing"), "half of it is missing"),
        (draft(clear(), finish="length"), "cut at its token limit"),
        (draft(clear(), finish="error"), "finish='error'"),
        (draft(clear(), finish="tool_calls"), "finish='tool_calls'"),
        (Completion("", ()), "is empty"),
        (draft(np.zeros((0, 64))), "is empty"),
        (Completion("red", (1, 2)), "no log-probabilities; .* Sampling(top_k=64)"),
        (draft(_with(math.nan, 0)), "row 1 holds NaN"),
        (draft(_with(math.nan, 63)), "row 1 holds NaN"),
        (draft(_with(math.inf, 0)), "row 1 holds inf"),
        (draft(_with(math.inf, 30)), "row 1 holds inf"),
        (draft(np.full((2, 64), -math.inf)), "row 0: .* masked"),
    ],
)
def test_is_rejected_with_its_reason(
    completion: Completion, reason: str, aggregate: scores.Aggregate
) -> None:
    """Even by a gate that accepts whatever can be scored."""
    verdict = SeparabilityGate(0, aggregate=aggregate)(completion)
    assert not verdict.accepted
    assert (verdict.score, verdict.separability, verdict.token_scores) == (None, None, ())
    parts = reason.split(" .* ")
    assert all(part in verdict.reason for part in parts), verdict.reason


@pytest.mark.parametrize("aggregate", ["min", "mean", "bottom20"])
@pytest.mark.parametrize(
    ("top", "reason"),
    [
        (clear(k=63), "63 columns, but top_k=64"),
        (clear(k=1), "1 columns, but top_k=64"),
        (_with(-math.inf, 63), "1 of the top 64 tokens are masked"),
        (_with(-9999.0, 63), "1 of the top 64 tokens are masked"),
        (np.where(np.arange(64) > 0, -9999.0, clear()), "63 of the top 64 tokens are masked"),
        (np.where(np.arange(64) > 0, -math.inf, clear()), "63 of the top 64 tokens are masked"),
    ],
)
def test_what_has_no_k_competitors_is_rejected(
    top: npt.NDArray[np.float32], reason: str, aggregate: scores.Aggregate
) -> None:
    verdict = SeparabilityGate(0, aggregate=aggregate)(draft(top))
    assert not verdict.accepted and reason in verdict.reason
    # "log" needs the greedy probability alone, and that is there.
    assert SeparabilityGate(0.5, aggregate="log")(draft(top)).accepted


def test_log_refuses_logits_in_a_completion() -> None:
    verdict = SeparabilityGate(0, aggregate="log")(draft([[12.0, 3.0], [-0.1, -3.0]]))
    assert not verdict.accepted and "no log-probability" in verdict.reason


@given(rows, st.floats(-100, 100, width=32))
@example(np.full((2, K), -1.0, np.float32), 0.0)
def test_score_takes_logits_logprobs_and_top_k(
    logits: npt.NDArray[np.float32], shift: float
) -> None:
    logits = np.hstack([logits, logits[:, :1] - 200]).astype(np.float64)  # wider than K
    peak = logits.max(axis=1, keepdims=True)
    logprobs = logits - peak - np.log(np.exp(logits - peak).sum(axis=1, keepdims=True))
    kept = -np.sort(-logprobs, axis=1)[:, :K]
    for aggregate in AGGREGATES:
        gate = SeparabilityGate(top_k=K, aggregate=aggregate)
        forms = [gate.score(logits + shift), gate.score(logprobs), gate.score(kept)]
        forms += [gate.score(logits, logprobs=False), gate.score(logprobs, logprobs=True)]
        # The slope of score in S is at most 0.15 and S moves by (2 + S) / (std + eps) roundings.
        spread = kept[:, 1:].std(axis=1).min() + 1e-6
        assert max(forms) - min(forms) <= 1e-11 + 1e-12 / spread


def test_score_is_told_what_log_gets() -> None:
    gate = SeparabilityGate(top_k=4, aggregate="log")
    wide = np.log([[0.4, 0.2, 0.1, 0.05, 0.05]])  # cut, but wider than K: sums to 0.8
    assert gate.score(wide, logprobs=True) == pytest.approx(0.4)
    assert gate.score(wide, logprobs=False) == pytest.approx(0.5)
    whole = np.array([[2.0, 1.0, 0.0]])  # a vocabulary of three
    assert gate.score(whole, logprobs=False) == pytest.approx(1 / (1 + 1 / math.e + math.e**-2))
    with pytest.raises(InputError, match="logprobs=False"):
        gate.score(whole)


def test_score_raises_where_a_draft_is_rejected() -> None:
    gate = SeparabilityGate(top_k=4)
    for bad in (np.zeros((0, 4)), np.zeros((1, 3)), [[math.nan] * 4], [[math.inf, 0, 0, 0]]):
        with pytest.raises(InputError):
            gate.score(bad)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"threshold": -0.01}, "threshold=-0.01; .* from 0 to 1"),
        ({"threshold": 1.01}, "threshold=1.01"),
        ({"threshold": math.nan}, "threshold=nan"),
        ({"threshold": "0.98"}, "threshold='0.98'"),
        ({"threshold": True}, "threshold=True"),
        ({"aggregate": "median"}, "aggregate='median'; use one of min, mean, bottom20, log"),
        ({"formula": "other"}, "formula='other'; use one of code, paper"),
        ({"top_k": 2}, "top_k=2; 'min' needs at least 3"),
        ({"top_k": 0, "aggregate": "log"}, "top_k=0; 'log' needs at least 1"),
        ({"top_k": 64.0}, r"top_k=64\.0; it must be a whole number"),
        ({"top_k": True}, "top_k=True"),
        ({"sharpness": 0}, "sharpness=0;"),
        ({"sharpness": math.inf}, "sharpness=inf"),
        ({"threshold": 0.995, "formula": "paper"}, "out of reach: at top_k=64 .* 0.991"),
    ],
)
def test_arguments_that_cannot_work(arguments: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        SeparabilityGate(**arguments)  # type: ignore[arg-type]


def test_the_ceiling_of_the_paper_matters_where_it_is() -> None:
    assert SeparabilityGate(0.9914, formula="paper").raw_threshold < math.sqrt(63)
    assert SeparabilityGate(0.995, formula="paper", aggregate="log").threshold == 0.995
    assert not SeparabilityGate(1, formula="paper")(draft(clear())).accepted


def test_is_a_value() -> None:
    gate = SeparabilityGate(0.9, top_k=np.int64(8), aggregate="mean")
    assert gate == SeparabilityGate(np.float64(0.9), top_k=8, aggregate="mean")
    assert pickle.loads(pickle.dumps(gate)) == gate and hash(gate) == hash(gate)
    assert dataclasses.replace(gate, threshold=0.5).raw_threshold == pytest.approx(0, abs=1e-15)
    with pytest.raises(dataclasses.FrozenInstanceError):
        gate.threshold = 0.1  # type: ignore[misc]
    with pytest.raises(TypeError):
        SeparabilityGate(0.9, 8)  # type: ignore[misc]


def test_the_verdict_holds_plain_numbers() -> None:
    verdict = SeparabilityGate(0.98)(draft(clear()))
    assert verdict == Verdict(True, verdict.score, verdict.separability, 0.98, verdict.token_scores)
    assert type(verdict.accepted) is bool
    assert {type(verdict.score), type(verdict.separability)} == {float}
    assert {type(s) for s in verdict.token_scores} == {float}
    assert verdict.separability == min(verdict.token_scores)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_only_the_least_of_all_tokens_can_end_a_draft_early(aggregate: scores.Aggregate) -> None:
    gate = SeparabilityGate(0.7, top_k=8, aggregate=aggregate)
    assert (gate.floor is not None) == (aggregate == "min")
    if gate.floor is not None:
        assert (gate.floor.separability, gate.floor.top_k) == (gate.raw_threshold, 8)
    for everything in (0.0, 1.0):
        assert SeparabilityGate(everything, top_k=8, aggregate=aggregate).floor is None
    assert gate.needed_top_k == (1 if aggregate == "log" else 8)
