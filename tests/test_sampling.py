"""Nucleus, top-k, penalties and reasoning blocks, the same whatever drives the model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from speceyes.models import HFModel
from speceyes.models.hf.choosing import TokensSeen, drawn, generator, penalized
from speceyes.models.hf.stopping import Detokenizer, Row, StopStrings
from speceyes.types import Conversation, Message, Sampling
from support.random_models import FAMILIES, Family, build, tokenizer

TOKENIZER = tokenizer()
PICTURE = Image.linear_gradient("L").convert("RGB").resize((90, 60))
ASKED = [
    Conversation((Message("user", (PICTURE, "What colour is the small square?")),)),
    Conversation((Message("user", ("Is it a large circle? Yes or no.",)),)),
]


@pytest.fixture(scope="module", params=FAMILIES)
def both(request: pytest.FixtureRequest) -> tuple[HFModel, HFModel]:
    family: Family = request.param
    model = HFModel(*build(family))
    assert model.driver.name == "qwen_vl_adapter"
    return model, model.reference()


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=12, repetition_penalty=0.4),
        Sampling(max_tokens=12, repetition_penalty=1.4),
        Sampling(max_tokens=12, presence_penalty=1.5),
        Sampling(max_tokens=12, presence_penalty=-0.5, repetition_penalty=0.9, top_k=8),
        Sampling(max_tokens=12, temperature=1.2, top_p=0.7, seed=3),
        Sampling(max_tokens=12, temperature=1.2, sample_top_k=5, seed=3, repetition_penalty=1.2),
    ],
    ids=str,
)
def test_both_drivers_choose_the_same(both: tuple[HFModel, HFModel], sampling: Sampling) -> None:
    model, plain = both
    for one, other in zip(
        model.generate(ASKED, sampling), plain.generate(ASKED, sampling), strict=True
    ):
        assert one.error is other.error is None
        assert one.token_ids == other.token_ids
        np.testing.assert_allclose(one.top_logprobs, other.top_logprobs, atol=1e-3)


def test_a_penalty_changes_greedy_answers_and_not_what_is_told(
    both: tuple[HFModel, HFModel],
) -> None:
    model, _ = both
    plain = Sampling(max_tokens=16, top_k=8)
    # Below 1 it makes repetition likelier, which an untrained model shows at once.
    strong = dataclasses.replace(plain, presence_penalty=-2.0, repetition_penalty=0.4)
    [before] = model.generate(ASKED[:1], plain)
    [after] = model.generate(ASKED[:1], strong)
    assert len(set(after.token_ids)) < len(set(before.token_ids))
    # Log-probabilities are the model's own: those of the first token are the same.
    np.testing.assert_allclose(before.top_logprobs[0], after.top_logprobs[0], atol=1e-4)


def test_none_is_the_checkpoints_own_penalty(both: tuple[HFModel, HFModel]) -> None:
    model, _ = both
    config = model.net.generation_config
    was, config.repetition_penalty = config.repetition_penalty, 0.4
    try:
        [own] = model.generate(ASKED[:1], Sampling(max_tokens=12, repetition_penalty=None))
        [named] = model.generate(ASKED[:1], Sampling(max_tokens=12, repetition_penalty=0.4))
        [off] = model.generate(ASKED[:1], Sampling(max_tokens=12))
    finally:
        config.repetition_penalty = was
    assert own.token_ids == named.token_ids != off.token_ids


@given(
    seed=st.integers(0, 999),
    k=st.integers(0, 40),
    p=st.floats(0.05, 1.0),
    temperature=st.floats(0.2, 3.0),
)
@settings(max_examples=40, deadline=None)
def test_draws_stay_within_what_transformers_would_leave(
    seed: int, k: int, p: float, temperature: float
) -> None:
    scores = torch.randn(3, 50, generator=torch.Generator().manual_seed(seed)) * 3
    left = TemperatureLogitsWarper(temperature)(None, scores.double())
    if k:
        left = TopKLogitsWarper(k)(None, left)
    if p < 1:
        left = TopPLogitsWarper(p)(None, left)
    sampling = Sampling(temperature=temperature, top_p=p, sample_top_k=k)
    for round_ in range(5):
        chosen = drawn(scores, sampling, [generator(seed + 7 * round_ + i) for i in range(3)])
        assert left.gather(1, chosen).isfinite().all()


@given(seed=st.integers(0, 999), penalty=st.floats(0.5, 2.0))
@settings(max_examples=30, deadline=None)
def test_repetition_is_penalized_as_transformers_does(seed: int, penalty: float) -> None:
    random = torch.Generator().manual_seed(seed)
    scores = torch.randn(2, 30, generator=random)
    prompts = torch.randint(0, 30, (2, 6), generator=random)
    wanted = RepetitionPenaltyLogitsProcessor(penalty)(prompts, scores.clone())
    seen = [TokensSeen.of(row, 30) for row in prompts]
    found = penalized(scores, Sampling(repetition_penalty=penalty), seen)
    torch.testing.assert_close(found, wanted)


# --- reasoning blocks -------------------------------------------------------------------------


def said(text: str, stops: StopStrings, tail: str = "") -> str:
    row = Row(begun=stops.begins(tail))
    for token in TOKENIZER(text)["input_ids"]:
        if row.take(token, frozenset(), stops):
            break
    return row.text(stops)


@pytest.mark.parametrize(
    ("text", "tail", "wanted"),
    [
        ("<think>a </code> b</think> c </code> d", "", "<think>a </code> b</think> c </code>"),
        ("a </code> b</think> c </code> d", "<think>\n", "a </code> b</think> c </code>"),
        ("a </code> b", "<think>\n", "a </code> b"),
        ("a </code> b", "", "a </code>"),
        ("a </code> b", "<think> x </think>", "a </code>"),
        ("<think>a </code> b", "", "<think>a </code> b"),
        ("x</think></code> d", "<think>", "x</think></code>"),
    ],
)
def test_stop_strings_count_outside_of_reasoning(text: str, tail: str, wanted: str) -> None:
    detokenizer = Detokenizer(TOKENIZER, frozenset())
    assert said(text, StopStrings(("</code>",), detokenizer, "</think>"), tail) == wanted


def test_without_a_closing_tag_they_count_everywhere() -> None:
    stops = StopStrings(("</code>",), Detokenizer(TOKENIZER, frozenset()))
    assert said("<think>a </code> b</think>", stops, "<think>") == "<think>a </code>"


def test_a_prefill_that_begins_reasoning_is_seen(both: tuple[HFModel, HFModel]) -> None:
    for model in both:
        open_, closed = (
            Conversation(ASKED[1].messages, prefill=text)
            for text in ("<think> I look", "<think> I look </think>")
        )
        free = model.generate([open_, closed], Sampling(max_tokens=12))
        stops = tuple(one.text[3:5] for one in free)
        sampling = Sampling(max_tokens=12, stop=stops, stop_after="</think>")
        first, second = model.generate([open_, closed], sampling)
        assert first.text == free[0].text, "its block is open till the end"
        assert second.finish == "stop" and len(second.text) < len(free[1].text)
