"""Phase II, and the scripted model that stands in for engines in the tests."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from speceyes import prompts
from speceyes.answerer import SpeculativeAnswerer
from speceyes.errors import ConfigError, InputError, ModelError
from speceyes.gate import SeparabilityGate
from speceyes.models.rows import generate_rows, retry_per_row
from speceyes.models.scripted import ScriptedModel, scripted_logprobs
from speceyes.protocols import VisionLanguageModel
from speceyes.types import Completion, Conversation, Message, Query, Sampling
from support.models import FakeModel

PICTURE = Image.new("RGB", (64, 48), "red")


def ask(number: int = 0, choices: tuple[str, ...] = ()) -> Query:
    return Query(f"Which colour? #{number}", (PICTURE,), choices)


def user(text: str) -> Conversation:
    return Conversation((Message("user", (PICTURE, text)),))


# --- the answerer -----------------------------------------------------------------------------


def test_drafts_come_back_in_order_with_top_k_log_probabilities() -> None:
    model = ScriptedModel({"#0": "red", "#1": "dark blue"})
    drafts = SpeculativeAnswerer(model, top_k=8)([ask(1), ask(0)])
    assert [draft.text for draft in drafts] == ["dark blue", "red"]
    assert [draft.top_logprobs.shape for draft in drafts] == [(2, 8), (1, 8)]


def test_it_keeps_nothing_between_calls() -> None:
    answerer = SpeculativeAnswerer(ScriptedModel({"#0": "red", "#1": "blue"}), top_k=4)
    first = answerer([ask(0), ask(1)])
    assert answerer([ask(1)]) == [first[1]]
    assert answerer([]) == []
    assert answerer([ask(0), ask(1)]) == first


def test_the_prompt_is_images_question_instruction() -> None:
    answerer = SpeculativeAnswerer(ScriptedModel("a"), system="Be brief.")
    asked = answerer.conversation(Query("Which?", (PICTURE, PICTURE), ("red", "blue")))
    assert [m.role for m in asked.messages] == ["system", "user"]
    assert asked.messages[1].content == (
        PICTURE,
        PICTURE,
        f"Which?\n(A) red\n(B) blue\n{prompts.CHOICE}",
    )
    plain = SpeculativeAnswerer(ScriptedModel("a")).conversation(ask())
    assert plain.messages[0].content == (PICTURE, f"Which colour? #0\n{prompts.DRAFT}")
    assert len(plain.messages) == 1


def test_the_prompt_hash_changes_with_every_prompt() -> None:
    model = ScriptedModel("a")
    made = [
        SpeculativeAnswerer(model),
        SpeculativeAnswerer(model, system="x"),
        SpeculativeAnswerer(model, prompt="x"),
        SpeculativeAnswerer(model, choice_prompt="x"),
    ]
    assert len({answerer.prompt_hash for answerer in made}) == 4
    assert made[0].prompt_hash == SpeculativeAnswerer(ScriptedModel("b"), top_k=9).prompt_hash


def test_a_failure_is_that_drafts_own() -> None:
    model = ScriptedModel({"#1": ModelError("no memory"), "": "red"})
    drafts = SpeculativeAnswerer(model)([ask(0), ask(1), ask(2)])
    assert [draft.text for draft in drafts] == ["red", "", "red"]
    assert drafts[1].error == "ModelError: no memory"


@pytest.mark.parametrize("arguments", [{"top_k": 0}, {"max_tokens": 0}])
def test_numbers_below_one_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="=0; it must be at least 1"):
        SpeculativeAnswerer(ScriptedModel("a"), **arguments)  # type: ignore[arg-type]


def test_a_long_draft_is_cut_and_says_so() -> None:
    model = ScriptedModel("one two three four five")
    [cut] = SpeculativeAnswerer(model, max_tokens=3)([ask()])
    assert (cut.text, cut.finish, len(cut.token_ids)) == ("one two three", "length", 3)


# --- retry per row --------------------------------------------------------------------------------


def poisoned(batch: Sequence[Conversation]) -> Exception | None:
    guilty = any("poison" in c.messages[0].text for c in batch)
    return RuntimeError("CUDA error") if guilty else None


def test_a_batch_that_raises_is_asked_again_one_by_one() -> None:
    batch = [user("a"), user("poison"), user("b")]
    model = FakeModel(lambda c, _: c.messages[0].text, fails=poisoned)
    said = generate_rows(model, batch, Sampling())
    assert [c.text for c in said] == ["a", "", "b"]
    assert said[1].error == "RuntimeError: CUDA error"


def test_lost_rows_are_found_again() -> None:
    batch = [user("a"), user("b"), user("c")]
    model = FakeModel(
        lambda c, _: c.messages[0].text, changes=lambda said: said[1:] if len(said) > 1 else said
    )
    said = generate_rows(model, batch, Sampling())
    assert [c.text for c in said] == ["a", "b", "c"]


@given(st.lists(st.integers(-3, 3), max_size=8))
def test_retrying_keeps_order_and_length(rows: list[int]) -> None:
    found = retry_per_row(lambda batch: [6 // row for row in batch], rows, lambda why: why)
    assert [isinstance(out, str) for out in found] == [row == 0 for row in rows]
    assert [out for out in found if not isinstance(out, str)] == [6 // r for r in rows if r]


# --- the scripted model -----------------------------------------------------------------------


def test_it_is_a_vision_language_model() -> None:
    model = ScriptedModel("a", name="stand-in")
    assert isinstance(model, VisionLanguageModel)
    assert model.name == "stand-in"
    assert model.seen_size(PICTURE) == (64, 48)
    assert ScriptedModel("a", seen=lambda image: (28, 28)).seen_size(PICTURE) == (28, 28)


def test_a_list_answers_turn_by_turn_and_repeats_its_last() -> None:
    model = ScriptedModel(["first", "second"])
    conversation = user("go")
    said = []
    for _ in range(3):
        [completion] = model.generate([conversation], Sampling())
        said.append(completion.text)
        conversation = conversation.then(
            Message("assistant", (completion.text,)), Message("user", ("and?",))
        )
    assert said == ["first", "second", "second"]


def test_scripts_nest_and_callables_see_the_sampling() -> None:
    model = ScriptedModel({"how many": lambda c, s: [str(s.max_tokens)], "": "else"})
    said = model.generate([user("how many?"), user("?")], Sampling(max_tokens=9))
    assert [c.text for c in said] == ["9", "else"]
    assert [c.prompt_tokens for c in said] == [3, 2]  # words and images


def test_no_key_is_a_failure_of_that_row() -> None:
    said = ScriptedModel({"red": "yes"}).generate([user("red"), user("blue")], Sampling())
    assert [c.error is None for c in said] == [True, False]
    assert "none of the keys" in (said[1].error or "")


@given(st.text(max_size=60), st.integers(1, 12))
def test_tokens_are_counted_as_engines_count_them(text: str, max_tokens: int) -> None:
    [said] = ScriptedModel(text).generate([user("?")], Sampling(max_tokens=max_tokens))
    assert text.startswith(said.text)
    assert len(said.token_ids) <= max_tokens
    if said.finish == "stop":
        assert said.text == text
        assert len(said.token_ids) < max_tokens
    else:
        assert (said.finish, len(said.token_ids)) == ("length", max_tokens)


@given(st.text("ab <>/", max_size=30))
def test_a_stop_string_ends_the_text_and_stays(text: str) -> None:
    [said] = ScriptedModel(text).generate([user("?")], Sampling(stop=("</a>", "b>")))
    ends = [text.find(s) + len(s) for s in ("</a>", "b>") if s in text]
    assert said.text == (text[: min(ends)] if ends else text)
    assert said.finish == "stop"


def test_delay_is_a_batchs_not_a_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    ScriptedModel("a", delay_s=0.05).generate([user("?")] * 20, Sampling())
    assert slept == [0.05]
    with pytest.raises(ConfigError, match="delay_s"):
        ScriptedModel("a", delay_s=-1)


@given(n=st.integers(0, 5), k=st.integers(3, 80), margin=st.floats(math.sqrt(3), 60))
def test_scripted_log_probabilities_have_the_separability_asked_for(
    n: int, k: int, margin: float
) -> None:
    rows = scripted_logprobs(n, k, margin)
    assert rows.shape == (n, k)
    assert rows.dtype == np.float32
    assert (np.diff(rows, axis=1) <= 0).all()
    assert np.exp(rows.astype(np.float64)).sum(axis=1) == pytest.approx(np.ones(n), abs=1e-4)
    wide = rows.astype(np.float64)
    found = (wide[:, 0] - wide[:, 1:].mean(axis=1)) / wide[:, 1:].std(axis=1)
    assert found == pytest.approx(np.full(n, margin), rel=1e-4)


def test_a_margin_for_each_token_is_what_the_gate_sees() -> None:
    rows = scripted_logprobs(3, 16, [12.0, 2.0, 9.0])
    draft = Completion("a b c", (1, 2, 3), rows)
    verdict = SeparabilityGate(0.98, top_k=16)(draft)
    assert verdict.token_scores == pytest.approx((12.0, 2.0, 9.0), rel=1e-4)
    assert not verdict.accepted


@pytest.mark.parametrize(
    ("n", "k", "margin"), [(-1, 3, 9), (1, 0, 9), (1, 3, 1.7), (1, 3, math.nan)]
)
def test_impossible_log_probabilities_are_refused(n: int, k: int, margin: float) -> None:
    with pytest.raises(InputError):
        scripted_logprobs(n, k, margin)


def test_margins_may_depend_on_the_conversation() -> None:
    model = ScriptedModel("red", margin=lambda c: 3.0 if "hard" in c.messages[0].text else 12.0)
    gate = SeparabilityGate(0.98, top_k=8)
    said = model.generate([user("hard"), user("easy")], Sampling(top_k=8))
    assert [gate(c).accepted for c in said] == [False, True]
