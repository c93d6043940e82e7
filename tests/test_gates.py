"""The other gates: bounds, invariances, what they refuse, and what can be promised of them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes import tiny
from speceyes.answerer import SpeculativeAnswerer
from speceyes.bench import gate_rows, gate_table
from speceyes.calibration import Scoring, calibrate
from speceyes.errors import CalibrationError, ConfigError, InputError
from speceyes.gate import SeparabilityGate
from speceyes.gates import (
    AnswerSpanGate,
    ConsistentAnswerer,
    EntropyGate,
    GroupConfidenceGate,
    JudgedAnswerer,
    JudgeGate,
    LogisticGate,
    MarginGate,
    ProbabilityOnlyGate,
    Reordered,
    Smaller,
    answer_span,
    certify,
    fit_logistic,
)
from speceyes.gates.consistency import meaning
from speceyes.judge import ToolJudge
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import SpecPipeline
from speceyes.scoring.ranking import auroc
from speceyes.types import Completion, Query, Result

DOT = Image.new("RGB", (64, 64))
K = 6
GATES: dict[str, Any] = {
    "margin": MarginGate(),
    "log margin": MarginGate(scale="log"),
    "mean margin": MarginGate(aggregate="mean"),
    "entropy": EntropyGate(top_k=K),
    "entropy and tail": EntropyGate(top_k=K, tail="mass"),
    "group": GroupConfidenceGate(top_k=K, window=2),
    "pro": ProbabilityOnlyGate(top_k=K),
    "pro sum": ProbabilityOnlyGate(top_k=K, aggregate="sum"),
}
BOUNDS = {
    "margin": (0, 1),
    "log margin": (0, math.inf),
    "mean margin": (0, 1),
    "entropy": (0, 1),
    "entropy and tail": (0, 1),
    "group": (math.log(K) - 1e-6, math.inf),
    "pro": (-math.inf, 0),
    "pro sum": (-math.inf, 0),
}
every_gate = pytest.mark.parametrize("name", GATES)


@st.composite
def log_rows(draw: st.DrawFn, n: int | None = None) -> np.ndarray:
    """float64[n, K + 2] log-probabilities of a vocabulary of that size, descending."""
    tokens = draw(st.integers(1, 6)) if n is None else n
    value = st.floats(-30, 30, allow_nan=False, width=32)
    logits = np.array(
        draw(st.lists(st.lists(value, min_size=K + 2, max_size=K + 2), min_size=tokens,
                      max_size=tokens)))  # fmt: skip
    rows = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return -np.sort(-rows, axis=1)


def draft(rows: Any, text: str = "red", **fields: Any) -> Completion:
    return Completion(text, tuple(range(len(rows))), rows, **fields)


@every_gate
@settings(max_examples=25)
@given(rows=log_rows())
def test_a_score_is_within_its_scale_and_is_what_the_verdict_compares(
    name: str, rows: np.ndarray
) -> None:
    gate = GATES[name]
    low, high = BOUNDS[name]
    one = draft(rows)
    raw = gate.score(one.top_logprobs)
    assert low <= raw <= high
    found = gate(one)
    assert found.separability == raw and 0 <= found.score <= 1
    assert len(found.token_scores) == len(rows)
    assume(low <= raw < high)
    reached = dataclasses.replace(gate, threshold=max(raw, gate.least))(one)
    assert reached.accepted and reached.score >= reached.threshold
    if (above := math.nextafter(raw, math.inf)) <= high:
        assert not dataclasses.replace(gate, threshold=above)(one).accepted
    assert dataclasses.replace(gate, threshold=gate.least)(one).accepted


@every_gate
@settings(max_examples=15)
@given(rows=log_rows(), seed=st.integers(0, 9))
def test_the_order_within_a_row_does_not_matter(name: str, rows: np.ndarray, seed: int) -> None:
    mixed = np.random.default_rng(seed).permuted(rows, axis=1)
    assert GATES[name].score(mixed) == GATES[name].score(rows)


@pytest.mark.parametrize("name", ["log margin", "entropy"])
@settings(max_examples=15)
@given(rows=log_rows(), shift=st.floats(-50, 50))
def test_a_constant_added_to_a_row_does_not_matter(
    name: str, rows: np.ndarray, shift: float
) -> None:
    assert GATES[name].score(rows + shift) == pytest.approx(GATES[name].score(rows), abs=1e-9)


@pytest.mark.parametrize("name", ["margin", "entropy and tail", "group", "pro"])
def test_scores_of_probabilities_refuse_logits(name: str) -> None:
    logits = np.linspace(9.0, 1.0, K)[None]
    with pytest.raises(InputError, match="sum to more than 1"):
        GATES[name].score(logits)
    assert "logits" in GATES[name](draft(logits)).reason


@pytest.mark.parametrize("name", [g for g in GATES if g not in ("mean margin", "group")])
@settings(max_examples=20)
@given(rows=log_rows(), more=log_rows(n=1))
def test_one_more_token_never_helps_under_the_worst_token(
    name: str, rows: np.ndarray, more: np.ndarray
) -> None:
    gate = GATES[name]
    assert gate.score(np.vstack([rows, more])) <= gate.score(rows) + 1e-12


@pytest.mark.parametrize("name", [g for g in GATES if not g.startswith("pro")])
@settings(max_examples=20)
@given(
    first=st.floats(0.3, 0.9),
    gain=st.floats(0.01, 0.09),
    shares=st.lists(st.floats(0.1, 1), min_size=K - 1, max_size=K - 1),
)
def test_mass_moved_to_the_first_token_never_lowers_the_score(
    name: str, first: float, gain: float, shares: list[float]
) -> None:
    """The others keep their proportions. PRO isn't here: its K adapts, and it falls at a jump."""
    parts = np.array(shares) / sum(shares)
    assume((parts * (1 - first)).max() < first)

    def rows(chance: float) -> np.ndarray:
        return np.log(np.concatenate([[chance], parts * (1 - chance)]))[None]

    assert GATES[name].score(rows(first + gain)) >= GATES[name].score(rows(first)) - 1e-12


@settings(max_examples=40)
@given(rows=log_rows(n=1), alpha=st.floats(0, 1))
def test_pro_bounds_the_entropy_from_below(rows: np.ndarray, alpha: float) -> None:
    """The whole vocabulary is there, so that its entropy is known."""
    chances = np.exp(rows[0])
    entropy = -(chances * rows[0]).sum()
    uncertainty = -ProbabilityOnlyGate(top_k=rows.shape[1], alpha=alpha).score(rows)
    assert -1e-12 <= uncertainty <= entropy + 1e-9
    if alpha == 0:  # everything is kept
        assert uncertainty == pytest.approx(entropy, abs=1e-9)


def test_pro_keeps_the_first_token_in_any_case() -> None:
    rows = np.log([[0.4, 0.3, 0.2, 0.1]])
    alone = ProbabilityOnlyGate(top_k=4, alpha=0.9).score(rows)
    assert alone == pytest.approx(math.log(0.4))
    two = ProbabilityOnlyGate(top_k=4, alpha=0.25).score(rows)
    assert two == pytest.approx(math.log(0.3) + 0.4 * math.log(0.4 / 0.3))


def test_formulas_by_hand() -> None:
    chances = np.array([[0.7, 0.2, 0.05, 0.05], [0.4, 0.3, 0.2, 0.1]])
    rows = np.log(chances)
    assert MarginGate().score(rows) == pytest.approx(0.1)
    assert MarginGate(aggregate="mean").score(rows) == pytest.approx(0.3)
    assert MarginGate(scale="log").score(rows) == pytest.approx(math.log(4 / 3))
    entropy = [-(p * np.log(p)).sum() / math.log(4) for p in chances]
    assert EntropyGate(top_k=4).score(rows) == pytest.approx(1 - max(entropy))
    tailed = np.array([0.7, 0.2, 0.1])
    expected = 1 + (tailed * np.log(tailed)).sum() / math.log(3)
    assert EntropyGate(top_k=2, tail="mass").score(rows[:1]) == pytest.approx(expected)
    confidence = -rows.mean(axis=1)
    assert GroupConfidenceGate(top_k=4, window=1).score(rows) == pytest.approx(min(confidence))
    # A draft that is shorter than the window is one group.
    assert GroupConfidenceGate(top_k=4, window=9).score(rows) == pytest.approx(confidence.mean())


def test_a_group_is_the_least_confident_run() -> None:
    def row(gap: float) -> list[float]:
        top = -math.log1p(3 * math.exp(-gap))
        return [top, *[top - gap] * 3]

    rows = np.array([row(g) for g in (9, 9, 2, 3, 9, 9, 1, 9)])
    confidence = -rows.mean(axis=1)
    runs = [confidence[i : i + 2].mean() for i in range(7)]
    assert GroupConfidenceGate(top_k=4, window=2).score(rows) == pytest.approx(min(runs))
    assert min(runs) == pytest.approx(confidence[2:4].mean())


@every_gate
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"error": "gone", "finish": "error"}, "gone"),
        ({"finish": "length"}, "token limit"),
        ({"finish": "rejected"}, "another threshold"),
        ({"token_ids": (), "top_logprobs": np.zeros((0, 0))}, "no tokens"),
        ({"top_logprobs": np.zeros((0, 0))}, "no log-probabilities"),
        ({"top_logprobs": [[-0.1]]}, "1 columns"),
        ({"top_logprobs": [[math.nan, *[-5.0] * K]]}, "NaN"),
        ({"top_logprobs": [[math.inf, *[-5.0] * K]]}, "finite"),
        ({"top_logprobs": [[-0.1, *[-math.inf] * K]]}, "masked"),
        ({"top_logprobs": [[-0.1, *[-9999.0] * K]]}, "masked"),
        ({"top_logprobs": [[-0.1, *[float(np.finfo(np.float32).min)] * K]]}, "masked"),
    ],
)
def test_what_can_not_be_scored_is_rejected_with_a_reason(
    name: str, change: dict[str, Any], reason: str
) -> None:
    whole = draft(np.log([[0.9, *[0.01] * K]]))
    gate = dataclasses.replace(GATES[name], threshold=GATES[name].least)
    assert gate(whole).accepted
    found = gate(dataclasses.replace(whole, **change))
    assert not found.accepted and found.score is None and found.separability is None
    assert reason in found.reason


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MarginGate(1.5), "threshold=1.5"),
        (lambda: MarginGate(top_k=1), "two sides"),
        (lambda: MarginGate(scale="odds"), "scale='odds'"),  # type: ignore[arg-type]
        (lambda: MarginGate(aggregate="max"), "aggregate='max'"),  # type: ignore[arg-type]
        (lambda: EntropyGate(-0.1), "threshold=-0.1"),
        (lambda: EntropyGate(top_k=1), "no entropy"),
        (lambda: EntropyGate(tail="cut"), "tail='cut'"),  # type: ignore[arg-type]
        (lambda: GroupConfidenceGate(math.nan), "threshold=nan"),
        (lambda: GroupConfidenceGate(window=0), "window=0"),
        (lambda: ProbabilityOnlyGate(0.5), "threshold=0.5"),
        (lambda: ProbabilityOnlyGate(alpha=2), "alpha=2"),
        (lambda: ProbabilityOnlyGate(top_k=0), "top_k=0"),
        (lambda: ProbabilityOnlyGate(top_k=True), "top_k=True"),
        (lambda: JudgeGate(7), "threshold=7"),
        (lambda: Smaller(1.0), "strictly"),
        (lambda: Reordered(0), "by=0"),
        (lambda: ConsistentAnswerer(3, Smaller()), "can't be called"),  # type: ignore[arg-type]
        (lambda: AnswerSpanGate(MarginGate(), 3), "decode=3"),  # type: ignore[arg-type]
        (lambda: JudgedAnswerer(print, None), "judge=None"),  # type: ignore[arg-type]
        (lambda: LogisticGate((MarginGate(),), (), 0, (), (), (), ()), "1 gates and 0 numbers"),
    ],
)
def test_arguments_that_can_not_work_say_so(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@every_gate
@pytest.mark.parametrize("margin", [2.0, 40.0])
def test_every_gate_works_in_a_pipeline(name: str, margin: float) -> None:
    gate = GATES[name]
    one = SpeculativeAnswerer(ScriptedModel("dark red", margin=margin), top_k=K)
    threshold = gate.score(one([Query("Which?", (DOT,))])[0].top_logprobs)
    sure = SpeculativeAnswerer(ScriptedModel("dark red", margin=15.0), top_k=K)
    gate = dataclasses.replace(gate, threshold=threshold)
    [result] = SpecPipeline(answerer=sure, gate=gate)([Query("Which?", (DOT,))])
    assert result.route == ("draft" if margin < 15 else "error")
    assert Result.from_json(result.to_json()).verdict == result.verdict


# Answer spans.

SPANS = {
    "red": "red",
    "Red.": "Red",
    "The answer is red.": "red",
    "So, the final answer is: **blue**": "blue",
    "It's a cat": "a cat",
    "The collar of the small dog is dark red.": "dark red",
    "<answer>7</answer>": "7",
    "I think.<answer> The answer is (B) </answer>": "B",
    "The answer is": "The answer is",
    "...": "...",
    "": "",
    "island": "island",
    "There are 3 boats": "3 boats",
}


@pytest.mark.parametrize(("text", "span"), SPANS.items())
def test_the_answer_is_found(text: str, span: str) -> None:
    start, end = answer_span(text)
    assert text[start:end] == span


@settings(max_examples=50)
@given(st.text(max_size=40))
def test_a_span_lies_within_its_text_and_is_empty_only_for_no_text(text: str) -> None:
    start, end = answer_span(text)
    assert 0 <= start <= end <= len(text)
    assert (start == end) == (text == "")


WORDS = ("The", " answer", " is", " dark", " red", ".")


def spoken(ids: Sequence[int]) -> str:
    return "".join(WORDS[i] for i in ids)


@settings(max_examples=40)
@given(torn=st.sets(st.integers(0, 5)))
def test_only_the_answers_tokens_count(torn: set[int]) -> None:
    clear, weak = [-0.01, -7.0, -8.0, -9.0], [-0.7, -0.8, -4.0, -4.5]
    rows = [weak if i in torn else clear for i in range(6)]
    gate = AnswerSpanGate(SeparabilityGate(0.98, top_k=4), spoken)
    found = gate(draft(rows, "".join(WORDS)))
    assert found.accepted == (not torn & {3, 4})
    assert len(found.token_scores) == 2 and found.threshold == gate.threshold == 0.98
    assert gate.score([clear]) == SeparabilityGate(0.98, top_k=4).score([clear])


def test_a_calibration_of_whole_drafts_is_refused() -> None:
    made = calibrate([9.0] * 60, [0] * 60, Scoring("small", "ab12", top_k=4))
    with pytest.raises(CalibrationError, match="whole drafts"):
        AnswerSpanGate(SeparabilityGate.from_calibration(made), spoken)


def test_bytes_of_a_character_in_several_tokens() -> None:
    pieces = [b"It is ", "é".encode()[:1], "é".encode()[1:] + b"t", "é.".encode()]

    def decode(ids: Sequence[int]) -> str:
        return b"".join(pieces[i] for i in ids).decode(errors="replace")

    rows = np.log([[0.9 - 0.1 * i, 0.05, 0.02] for i in range(4)])
    cut = AnswerSpanGate(MarginGate(), decode).cut(draft(rows, "It is été."))
    assert cut.text == "été" and cut.token_ids == (1, 2, 3)
    assert np.array_equal(cut.top_logprobs, np.float32(rows)[1:])


def test_a_decoder_of_another_model_rejects_and_raises_nothing() -> None:
    rows = np.log([[0.9, 0.05], [0.9, 0.05]])
    found = AnswerSpanGate(MarginGate(0.0), spoken)(draft(rows, "something else"))
    assert not found.accepted and "tokenizer's own decode" in found.reason
    broken = AnswerSpanGate(MarginGate(0.0), lambda ids: str(1 / 0))(draft(rows, "x"))
    assert not broken.accepted and "ZeroDivisionError" in broken.reason
    failed = AnswerSpanGate(MarginGate(0.0), spoken)(Completion.failed("gone"))
    assert "gone" in failed.reason


# Consistency.


def test_both_looks_count_where_they_agree() -> None:
    def margin(asked: Any) -> float:
        return 12.0 if asked.images[0].width == 64 else 4.0

    small = SpeculativeAnswerer(ScriptedModel("dark red", margin=margin), top_k=8)
    twice = ConsistentAnswerer(small, Smaller(0.5))
    [one] = twice([Query("Which?", (DOT,))])
    assert one.text == "dark red" and len(one.token_ids) == len(one.top_logprobs) == 4
    scores = SeparabilityGate(top_k=8)(one).token_scores
    assert scores == pytest.approx((12, 12, 4, 4), abs=1e-4)
    [first] = ConsistentAnswerer(small, Smaller(0.5), rows="first")([Query("Which?", (DOT,))])
    assert len(first.token_ids) == 2
    assert twice.top_k == 8 and twice.model is small.model
    assert twice.prompt_hash not in (None, small.prompt_hash)


def test_options_in_another_order_are_the_same_options() -> None:
    def asked_first(conversation: Any, sampling: Any) -> str:
        text = conversation.messages[-1].text
        return "A" if "(A) red" in text else "B"  # red under whatever letter it stands

    query = Query("Which?", (DOT,), ("red", "blue"))
    small = SpeculativeAnswerer(ScriptedModel(asked_first), top_k=8)
    assert ConsistentAnswerer(small, Reordered())([query])[0].error is None
    # One that likes a letter gives itself away.
    stubborn = SpeculativeAnswerer(ScriptedModel("A"), top_k=8)
    [one] = ConsistentAnswerer(stubborn, Reordered())([query])
    assert one.error == "two looks disagree: 'A' and 'A'"
    assert "disagree" in SeparabilityGate(0.0, top_k=8)(one).reason


def test_meanings() -> None:
    choices = ("red", "Dark  blue", "a")
    same = ["(b)", "B", "b.", "B) dark blue", "Dark blue.", "DARK BLUE"]
    assert {meaning(text, choices) for text in same} == {"dark blue"}
    assert meaning("A", choices) == "a"  # an option's own text comes before its letter
    assert meaning("E", choices) == "e" and meaning("b) green", choices) == "b) green"
    assert meaning(" Yes. ") == "yes"


def test_one_bad_row_of_two_looks_stays_alone() -> None:
    def said(conversation: Any, sampling: Any) -> str:
        text = conversation.messages[-1].text
        if "broken" in text and conversation.images[0].width < 64:
            raise RuntimeError("gone")
        return "red"

    def view(query: Query) -> Query:
        if "unseen" in query.question:
            raise ValueError("no view")
        return Smaller(0.5)(query)

    small = SpeculativeAnswerer(ScriptedModel(said), top_k=8)
    queries = [Query(q, (DOT,)) for q in ("fine", "broken", "unseen", "fine too")]
    drafts = ConsistentAnswerer(small, view)(queries)
    assert [d.error is None for d in drafts] == [True, False, False, True]
    assert "gone" in str(drafts[1].error) and "no view" in str(drafts[2].error)
    long = SpeculativeAnswerer(ScriptedModel("a b c d"), top_k=8, max_tokens=2)
    assert ConsistentAnswerer(long, Smaller())(queries[:1])[0].finish == "length"


# The judge's probability.


def test_the_judges_opinion_travels_on_the_draft() -> None:
    judge = ToolJudge(ScriptedModel({"sky": "no", "": "yes"}), dialect=None)
    drafts = JudgedAnswerer(SpeculativeAnswerer(ScriptedModel("blue"), top_k=8), judge)
    pipe = SpecPipeline(answerer=drafts, gate=JudgeGate(0.9))
    results = pipe([Query("Which is the sky's?", (DOT,)), Query("And the dog's?", (DOT,))])
    assert [r.route for r in results] == ["draft", "error"]
    assert [r.verdict.score for r in results if r.verdict] == [1.0, 0.0]
    again = Result.from_json(results[0].to_json()).draft
    assert again is not None and JudgeGate(0.9)(again).accepted
    assert drafts.top_k == 8 and drafts.prompt_hash == drafts.answerer.prompt_hash


@pytest.mark.parametrize("said", ["maybe", RuntimeError("gone")])
def test_a_judge_that_can_not_be_read_accepts_nothing(said: Any) -> None:
    judge = ToolJudge(ScriptedModel(said), dialect=None)
    drafts = JudgedAnswerer(SpeculativeAnswerer(ScriptedModel("blue")), judge)
    found = JudgeGate(0.0)(drafts([Query("Which?", (DOT,))])[0])
    assert not found.accepted and "no judge's opinion" in found.reason


def test_no_opinion_makes_an_answer_of_nothing() -> None:
    judge = ToolJudge(ScriptedModel("no"), dialect=None)
    for said in ("", RuntimeError("gone"), "word " * 50):
        drafts = JudgedAnswerer(SpeculativeAnswerer(ScriptedModel(said)), judge)
        assert not JudgeGate(0.0)(drafts([Query("Which?", (DOT,))])[0]).accepted


# The mix.


def labelled(n: int, seed: int) -> tuple[list[Completion], np.ndarray]:
    """Drafts whose chance to be right depends on the margin of the top two."""
    random = np.random.default_rng(seed)
    drafts, right = [], []
    for _ in range(n):
        logits = np.sort(random.normal(0, 2, 12))[::-1]
        rows = (logits - np.logaddexp.reduce(logits))[None]
        drafts.append(draft(rows))
        right.append(random.random() < 1 / (1 + math.exp(-3 * (rows[0, 0] - rows[0, 1] - 0.7))))
    return drafts, np.array(right)


MIXED = (MarginGate(scale="log"), EntropyGate(top_k=K), SeparabilityGate(top_k=K))


def test_the_fit_is_the_minimum_and_agrees_with_a_search() -> None:
    drafts, right = labelled(300, 0)
    gate = fit_logistic(MIXED[:1], drafts, right, ridge=2.0)
    raw = np.array([MIXED[0](d).separability for d in drafts])
    x = (np.clip(raw, gate.low[0], gate.high[0]) - gate.centre[0]) / gate.spread[0]

    def loss(bias: float, weight: float) -> float:
        odds = bias + weight * x
        return float((np.logaddexp(0, odds) - right * odds).sum() + weight**2)

    least = loss(gate.bias, gate.weights[0])
    for step in (1e-3, 0.1, 1.0):
        for db, dw in ((step, 0), (-step, 0), (0, step), (0, -step), (step, step)):
            assert loss(gate.bias + db, gate.weights[0] + dw) > least


def test_a_mix_ranks_unseen_drafts_as_its_cross_validation_says() -> None:
    gate = fit_logistic(MIXED, *labelled(700, 1))
    drafts, right = labelled(700, 2)
    found = auroc([gate(d).separability or 0.0 for d in drafts], right)
    assert found == pytest.approx(gate.auroc, abs=0.05)
    assert gate.n == 700 and gate.top_k == K
    one = drafts[0]
    assert gate.score(one.top_logprobs) == gate(one).separability
    chances = np.array([gate(d).separability for d in drafts])
    for low, high in ((0.0, 0.5), (0.5, 1.01)):  # it is a probability
        at = (chances >= low) & (chances < high)
        assert right[at].mean() == pytest.approx(chances[at].mean(), abs=0.1)


def test_labels_that_say_nothing_leave_no_auroc() -> None:
    drafts, right = labelled(800, 3)
    shuffled = np.random.default_rng(0).permutation(right)
    assert fit_logistic(MIXED, drafts, shuffled).auroc == pytest.approx(0.5, abs=0.08)


def test_drafts_that_separate_cleanly_and_constant_scores_do_not_break_the_fit() -> None:
    drafts, _ = labelled(100, 4)
    raw = np.array([MIXED[0](d).separability for d in drafts])
    gate = fit_logistic([MIXED[0], JudgeGateOfOne()], drafts, raw > np.median(raw), ridge=1e-3)
    assert gate.auroc > 0.99 and all(map(math.isfinite, (*gate.weights, gate.bias)))
    assert gate.weights[1] == pytest.approx(0, abs=1e-9)


class JudgeGateOfOne:
    def __call__(self, completion: Completion) -> Any:
        return JudgeGate(0.5)(dataclasses.replace(completion, notes={"p(tools)": 0.25}))


def test_a_mix_rejects_what_a_part_can_not_score_and_says_what_it_needs() -> None:
    drafts, right = labelled(60, 5)
    gate = fit_logistic(MIXED, [*drafts, Completion("x")], [*right, True])
    assert gate.n == 60
    assert "no tokens" in gate(Completion("x")).reason
    with pytest.raises(InputError, match="no tokens"):
        gate.score(np.zeros((0, K)))
    with pytest.raises(InputError, match="at least 5 right and 5 wrong"):
        fit_logistic(MIXED, drafts, [True] * 60)
    with pytest.raises(InputError, match="one each"):
        fit_logistic(MIXED, drafts, right[:-1])
    with pytest.raises(ConfigError, match="no gates"):
        fit_logistic([], drafts, right)


# Certificates.


def test_certificates_hold_as_often_as_they_promise() -> None:
    gate = MarginGate(scale="log")
    target, delta, broken, certified = 0.15, 0.2, 0, 0
    pool, right = labelled(2500, 6)
    raw = np.array([gate(d).separability for d in pool])
    random = np.random.default_rng(0)
    for _ in range(30):
        drawn = random.choice(len(pool), 250, replace=False)
        found = certify(gate, [pool[i] for i in drawn], ~right[drawn], target=target, delta=delta)
        if found.threshold is None:
            continue
        certified += 1
        accepted = raw >= found.threshold
        broken += bool((~right[accepted]).mean() >= target)
        assert accepted[drawn].sum() == found.accepted
    counted = dataclasses.replace(gate, threshold=found.threshold or 0.0)
    assert [counted(d).accepted for d in pool[:50]] == (raw[:50] >= counted.threshold).tolist()
    assert certified > 10
    # 30 splits at delta = 0.2: more than 13 failures has a chance below 1 in 1,000.
    assert broken <= 13


def test_a_certificate_counts_what_the_judge_keeps_back_and_says_what_it_promises() -> None:
    drafts, right = labelled(400, 7)
    none = certify(MarginGate(), drafts, [True] * 400)
    assert none.threshold is None and "no threshold" in none.statement
    through = np.arange(400) % 2 == 0
    half = certify(MarginGate(), drafts, [False] * 400, let_through=through)
    assert (half.n, half.accepted, half.threshold) == (400, 200, 0.0)
    assert "less than 0.05" in half.statement
    all_of_pro = certify(ProbabilityOnlyGate(top_k=K), drafts, [False] * 400)
    assert all_of_pro.threshold == -math.inf
    with pytest.raises(ConfigError, match="calibrate"):
        certify(SeparabilityGate(), drafts, ~right)
    with pytest.raises(InputError, match="one each"):
        certify(MarginGate(), drafts, [True])


# The table.


@pytest.mark.exhaustive  # its rows, intervals and mixes are tested one by one
def test_the_table_is_made_of_recorded_drafts(capsys: pytest.CaptureFixture[str]) -> None:
    if not tiny.LARGE.is_dir():
        pytest.skip("the tiny pair's weights are not in this checkout")
    assert gate_table.main(["--n", "28", "--batch", "14", "--resamples", "20"]) == 0
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if line.startswith("| min separability")]
    overall = rows[0].split("|")
    assert 0.5 < float(overall[2].split()[0]) <= 1.0
    assert out.count("logistic mix") >= 2 and "two orders agree" in out
    assert "tokens a draft: " in out


def test_intervals_of_the_table_hold_their_value_and_pairs_cancel() -> None:
    random = np.random.default_rng(0)
    right = random.random(200) < 0.6
    scores = random.normal(0, 1, 200) + right
    one = gate_rows.Row("one", scores, right, ("a",) * 200, 0.0, 0.0)
    found = gate_table.bootstrapped(one, resamples=200)
    assert found is not None
    for value, low, high in found:
        assert low <= value <= high
    assert found[0][0] == auroc(scores, right)
    same = gate_table.bootstrapped(one, dataclasses.replace(one, scores=2 * scores), resamples=50)
    assert same == ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    sure = dataclasses.replace(one, right=np.ones(200, bool))
    assert gate_table.bootstrapped(sure) is None
    with pytest.raises(InputError, match="nothing to tell apart"):
        list(gate_table.table([sure]))


def test_notes_of_a_draft_are_no_tokens() -> None:
    """A mapping that JSON can carry, under names that no tokenizer writes."""
    judge = ToolJudge(ScriptedModel("no"), dialect=None)
    answerer = SpeculativeAnswerer(ScriptedModel("yes"), top_k=8)
    [one] = JudgedAnswerer(answerer, judge)([Query("Is it?", (DOT,))])
    assert json.loads(json.dumps(dict(one.notes))) == {"p(tools)": 0.0}
