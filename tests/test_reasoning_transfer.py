"""The small model's reasoning in the large model's prompt."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from random_models import FAMILIES, Family, build
from speceyes import tiny
from speceyes.errors import ConfigError
from speceyes.models import HFModel
from speceyes.models.scripted import ScriptedModel, scripted_logprobs
from speceyes.strategies import ReasoningTransfer
from speceyes.strategies.reasoning_transfer import pays, same_words
from speceyes.tiny.scenes import questions
from speceyes.types import Completion, Conversation, Message, Query, Sampling

DOT = Image.new("RGB", (48, 48))
THOUGHT = "The wall is grey. The ball lies left. It is blue. Its edge is white."


def small(answer: Any = "red", thought: Any = THOUGHT, second: str = "blue") -> ScriptedModel:
    def reasoned(conversation: Conversation, sampling: Sampling) -> Any:
        return second if conversation.prefill else thought

    return ScriptedModel({"step by step": reasoned, "": answer}, name="small")


def large(first: Any = "green", again: Any = "blue") -> ScriptedModel:
    return ScriptedModel({"Somebody looked": again, "": first}, name="large")


def ask(run: ReasoningTransfer, n: int = 1) -> list[Any]:
    return run([Query(f"Which colour? {i}", (DOT,), id=str(i)) for i in range(n)])


def test_agreement_is_the_answer_and_nothing_is_reasoned() -> None:
    run = ReasoningTransfer(large("Red."), small("the red"))
    [result] = ask(run)
    assert (result.answer, result.route) == ("Red.", "draft")
    assert len(result.trajectory.steps) == 1
    found = run.transferred
    assert (found.queries, found.agreed, found.written) == (1, 1, 0)
    assert found.large_decoded == 1 and found.small_decoded == 2 and found.large_read > 0


def test_disagreement_hands_the_reasoning_over() -> None:
    seen: list[str] = []

    def again(conversation: Conversation, sampling: Sampling) -> str:
        seen.append(conversation.messages[-1].text)
        return "blue"

    run = ReasoningTransfer(large(again=again), small())
    [result] = ask(run)
    assert (result.answer, result.route) == ("blue", "agent")
    assert THOUGHT in seen[0] and "Which colour? 0" in seen[0]
    assert [step.text for step in result.trajectory.steps] == ["green", THOUGHT, "blue"]
    assert run.transferred.written == run.transferred.kept == len(THOUGHT.split())


@pytest.mark.parametrize(
    ("keep", "wanted"),
    [
        ("all", THOUGHT),
        ("last", "It is blue. Its edge is white."),
        ("likeliest", "The wall is grey. It is blue."),
    ],
)
def test_what_is_kept_of_the_reasoning(keep: Any, wanted: str) -> None:
    seen: list[str] = []

    def again(conversation: Conversation, sampling: Sampling) -> str:
        seen.append(conversation.messages[-1].text)
        return "blue"

    sure = {"The wall is grey.": -0.1, "The ball lies left.": -3.0, "It is blue.": -0.2}
    rows = [
        [value]
        for part in THOUGHT.split(". ")
        for value in [sure.get(part.rstrip(".") + ".", -2.0)] * len(part.split())
    ]
    thought = Completion(THOUGHT, tuple(range(len(rows))), np.array(rows, np.float32))
    run = ReasoningTransfer(large(again=again), small(thought=thought), keep=keep, sentences=2)
    ask(run)
    notes = seen[0].split("trust what you see.\n")[1].split("\nAnswer with")[0]
    assert notes == wanted
    assert run.transferred.kept <= run.transferred.written


def test_a_second_answer_of_the_small_model_can_settle_it() -> None:
    run = ReasoningTransfer(large("blue", "never asked"), small("red"), two_stage=True)
    [result] = ask(run)
    assert (result.answer, result.route, run.transferred.reasoned) == ("blue", "agent", 1)
    run = ReasoningTransfer(large("green", "blue"), small("red"), two_stage=True)
    assert ask(run)[0].answer == "blue" and run.transferred.reasoned == 0


@pytest.mark.parametrize("broken", ["small", "reasoning", "again", "large"])
def test_whatever_fails_the_large_models_answer_stands(broken: str) -> None:
    gone = RuntimeError("gone")
    strong = large(gone if broken == "large" else "green", gone if broken == "again" else "blue")
    quick = small(gone if broken == "small" else "red", gone if broken == "reasoning" else THOUGHT)
    results = ask(ReasoningTransfer(strong, quick), 3)
    # Without reasoning the large one is asked once more as before, and says what it said.
    wanted = {"small": "blue", "reasoning": "green", "again": "green", "large": "blue"}[broken]
    assert [r.answer for r in results] == [wanted] * 3
    gone_both = ReasoningTransfer(large(gone, gone), small())
    assert {r.route for r in ask(gone_both, 2)} == {"error"}


def test_an_image_that_cannot_be_read_is_its_own() -> None:
    run = ReasoningTransfer(large("red"), small("red"), batch_size=2)
    results = run([(DOT, "?"), (b"no image", "?"), (DOT, "?")])
    assert [r.route for r in results] == ["draft", "error", "draft"]


@given(
    words=st.lists(st.tuples(*[st.sampled_from(["red", "blue", "", "!"])] * 4), max_size=12),
    batch=st.integers(1, 5),
    two_stage=st.booleans(),
    keep=st.sampled_from(["all", "last", "likeliest"]),
)
@settings(max_examples=60, deadline=None)
def test_no_query_is_lost_and_every_answer_was_the_large_models(
    words: list[tuple[str, str, str, str]], batch: int, two_stage: bool, keep: Any
) -> None:
    def told(i: int, at: int) -> Any:
        return RuntimeError("no") if words[i][at] == "!" else words[i][at]

    n = len(words)
    strong = ScriptedModel(
        {f"#{i}.": {"Somebody looked": told(i, 1), "": told(i, 0)} for i in range(n)}
    )
    quick = ScriptedModel(
        {f"#{i}.": {"step by step": told(i, 3), "": told(i, 2)} for i in range(n)}
    )
    run = ReasoningTransfer(strong, quick, batch_size=batch, two_stage=two_stage, keep=keep)
    results = run([Query(f"#{i}.", (DOT,), id=str(i)) for i in range(n)])
    assert [r.query_id for r in results] == [str(i) for i in range(n)]
    for i, result in enumerate(results):
        said = {words[i][0], words[i][1]} - {"", "!"}
        assert result.answer in said if result.error is None else result.answer is None
        if result.route == "draft":
            assert words[i][0] == words[i][2] == result.answer
    assert run.transferred.queries == n


def test_arguments_that_are_none() -> None:
    for options, message in (
        ({"verify": "vote"}, "verify='vote'"),
        ({"keep": "first"}, "keep='first'"),
        ({"sentences": 0}, "sentences=0"),
        ({"verify": "likelihood"}, "can't tell how likely"),
        ({"keep": "attended"}, "small can't tell what it attends to"),
    ):
        with pytest.raises(ConfigError, match=message):
            ReasoningTransfer(large(), small(), **options)  # type: ignore[arg-type]


def test_words_and_the_rule_of_break_even() -> None:
    query = Query("?", (DOT,))
    assert same_words(query, "A red ball!", "red ball") and not same_words(query, "", "")
    rates = {"small_rate": 100.0, "read_rate": 5000.0, "large_rate": 30.0, "answer_tokens": 5.0}
    assert pays(reasoning_tokens=100, kept_tokens=100, own_tokens=100, **rates)
    assert not pays(reasoning_tokens=400, kept_tokens=400, own_tokens=100, **rates)


# --- likelihoods of given answers -------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_likelihood_is_what_the_logits_say(family: Family) -> None:
    net, processor = build(family)
    model = HFModel(net, processor)
    rng = np.random.default_rng(0)
    asked, answers = [], ["red", "a small blue square", " ", "What colour"]
    for i in range(4):
        image = Image.fromarray(rng.integers(0, 256, (50 + 20 * i, 60, 3), np.uint8))
        asked.append(Conversation((Message("user", (image, "What colour is it?" * (i + 1))),)))
    for _ in range(2):  # the second time over what was kept
        found = model.likelihoods(asked, answers)
        assert found[2] is None
        for i in (0, 1, 3):
            said = processor.tokenizer(answers[i], add_special_tokens=False)["input_ids"]
            inputs, [length] = model._prompter.batch([model._prompter.prompt(0, asked[i])])
            ids = torch.cat((inputs["input_ids"], torch.tensor([said])), dim=1)
            inputs["input_ids"] = ids
            inputs["attention_mask"] = torch.ones_like(ids)
            if "mm_token_type_ids" in inputs:
                more = torch.zeros(1, len(said), dtype=inputs["mm_token_type_ids"].dtype)
                types = torch.cat((inputs["mm_token_type_ids"], more), dim=1)
                inputs["mm_token_type_ids"] = types
            with torch.no_grad():
                logits = net(**inputs).logits[0, length - 1 : -1].log_softmax(dim=-1)
            wanted = logits.gather(1, torch.tensor(said)[:, None]).mean().item()
            assert found[i] == pytest.approx(wanted, abs=1e-4)
        model.generate(asked, Sampling(max_tokens=3))


# --- what is attended to ------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cache_bytes", [0, None])
def test_attention_is_what_the_whole_pass_gives(family: Family, cache_bytes: int | None) -> None:
    net, processor = build(family)
    model = HFModel(net, processor, cache_bytes=cache_bytes)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (56, 84, 3), np.uint8))
    asked = Conversation((Message("user", (image, "What colour is it?")),))
    parts, lead = ["What colour is", "the small square", "left of"], " the large circle?"
    before = net.config.get_text_config()._attn_implementation
    for _ in range(2):  # the second time over what was kept
        [found] = model.attended([asked], [parts], lead)
        model.generate([asked], Sampling(max_tokens=2))
    assert net.config.get_text_config()._attn_implementation == before

    said = dataclasses.replace(asked, prefill=" ".join(parts) + lead)
    inputs, [length] = model._prompter.batch([model._prompter.prompt(0, said)])
    net.set_attn_implementation("eager")
    with torch.no_grad():
        weights = net(**inputs, output_attentions=True).attentions
    whole = torch.stack([one[0, :, -1].mean(dim=0) for one in weights]).mean(dim=0)
    assert len(whole) == length
    texts = [" ".join(parts[:k]) for k in range(4)]
    ends = [
        model._prompter.batch([model._prompter.prompt(0, dataclasses.replace(asked, prefill=t))])[1]
        for t in texts
    ]
    wanted = [float(whole[a[0] : b[0]].sum()) for a, b in itertools.pairwise(ends)]
    assert found == pytest.approx(wanted, abs=1e-5) and sum(found) < 1


def test_what_cannot_be_read_has_no_attention_and_all_of_it_is_handed_over() -> None:
    net, processor = build("qwen3_vl")
    model = HFModel(net, processor)
    asked = Conversation((Message("user", (Image.new("RGB", (4000, 2)), "?")),))
    assert model.attended([asked], [["a", "b"]]) == [None]
    with pytest.raises(ConfigError, match="can't tell what it attends to"):
        model.reference().attended([asked], [["a", "b"]])

    class Blind:
        """Looks at one sentence only, where it can tell."""

        name, tells_attention = "blind", True

        def __init__(self, told: Any) -> None:
            self.inner, self.told = small(), told
            self.seen_size, self.generate = self.inner.seen_size, self.inner.generate

        def attended(self, conversations: Any, parts: Any, lead: str) -> Any:
            if isinstance(self.told, Exception):
                raise self.told
            assert parts == [THOUGHT.replace(". ", ".|").split("|")] and "answer" in lead
            return [self.told]

    for told, kept in (
        ([0.1, 0.0, 0.6, 0.2], "It is blue. Its edge is white."),
        (None, THOUGHT),
        (RuntimeError("gone"), THOUGHT),
    ):
        seen: list[str] = []

        def again(conversation: Conversation, sampling: Sampling, seen: Any = seen) -> str:
            seen.append(conversation.messages[-1].text)
            return "blue"

        run = ReasoningTransfer(large(again=again), Blind(told), keep="attended", sentences=2)
        [result] = ask(run)
        assert result.answer == "blue" and f"trust what you see.\n{kept}\n" in seen[0]


def test_the_bundled_small_model_tells_what_it_attends_to() -> None:
    big, quick = HFModel.from_pretrained(tiny.LARGE), HFModel.from_pretrained(tiny.SMALL)
    [item] = questions("heldout", 1)
    asked = Conversation((Message("user", (*item.query.images, item.query.text)),))
    [found] = quick.attended([asked], [["It is a large bar.", "It is red.", "row 2"]], "\nSo")
    assert len(found) == 3 and all(0 < one < 1 for one in found)
    run = ReasoningTransfer(big, quick, keep="attended", sentences=1)
    assert run([item.query])[0].query_id == item.query.id


def test_verification_by_likelihood_on_the_bundled_pair() -> None:
    big, quick = HFModel.from_pretrained(tiny.LARGE), HFModel.from_pretrained(tiny.SMALL)
    queries = [item.query for item in questions("heldout", 8)]
    strict = ReasoningTransfer(big, quick, verify="likelihood", likely=0.0)
    loose = ReasoningTransfer(big, quick, verify="likelihood", likely=-1e6)
    for run in (strict, loose):
        assert all(r.error is None or r.answer is None for r in run(queries))
    assert strict.transferred.agreed == 0 and loose.transferred.agreed >= 6


def test_scripted_rows_have_the_columns_that_are_read() -> None:
    assert scripted_logprobs(3, 1).shape == (3, 1)
