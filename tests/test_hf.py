from __future__ import annotations

import dataclasses
import gc
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes import tiny
from speceyes.answerer import SpeculativeAnswerer
from speceyes.calibration import Scoring, calibrate
from speceyes.errors import CalibrationError, ConfigError, ImageError, InputError
from speceyes.gate import SeparabilityGate
from speceyes.models import HFModel
from speceyes.models._rgb import to_rgb
from speceyes.models.hf.pixels import ProcessorPixels, QwenPixels, pixels_of
from speceyes.models.hf.stopping import Detokenizer, Row, StopStrings, end_ids
from speceyes.pipeline import SpecPipeline
from speceyes.protocols import VisionLanguageModel
from speceyes.types import Completion, Conversation, Message, Sampling
from support.random_models import FAMILIES, Family, batch_of, build, save, tokenizer

GREEDY = Sampling(max_tokens=12, top_k=8)


def picture(seed: int, width: int = 120, height: int = 90) -> Image.Image:
    """Blocks of random colours, which look different to a model with random weights."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)


def ask(*content: str | Image.Image, **more: Any) -> Conversation:
    return Conversation((Message("user", content),), **more)


MIXED = (
    ask(picture(0), "What colour is the square?"),
    ask("No image here."),
    ask(picture(1, 40, 200), picture(2), "Which of the two is red?"),
    ask(picture(3, 300, 100), "?"),
    Conversation(
        (
            Message("system", ("You are a helpful assistant.",)),
            Message("user", (picture(4), "Where is the cup?")),
            Message("assistant", ("<think>I look closer.</think>",)),
            Message("user", ("<tool_response>", picture(5, 60, 60), "</tool_response> Answer.")),
        )
    ),
)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    chosen: Family = request.param
    return chosen


@pytest.fixture(scope="module")
def model(family: Family) -> HFModel:
    return HFModel(*build(family), name=family)


@pytest.fixture
def fresh(family: Family) -> HFModel:
    """A model of its own for tests that change it."""
    return HFModel(*build(family), name=family)


def full_forward(model: HFModel, conversation: Conversation, answer: tuple[int, ...]) -> Any:
    """float32[n, V]: log-probabilities of an answer from one pass over prompt and answer, by
    the processor and the model alone."""
    processor, net = model.processor, model.net
    images = [to_rgb(image) for image in conversation.images]
    text = processor.apply_chat_template(
        [
            {
                "role": message.role,
                "content": [
                    {"type": "text", "text": p} if isinstance(p, str) else {"type": "image"}
                    for p in message.content
                ],
            }
            for message in conversation.messages
        ],
        add_generation_prompt=True,
    )
    sized = [image.resize(model.seen_size(image)) for image in images]
    inputs = processor(text=[text], images=sized or None, return_tensors="pt", do_resize=False)
    ids = torch.tensor([answer])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], ids], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["mm_token_type_ids"] = torch.cat(
        [torch.as_tensor(inputs["mm_token_type_ids"]), torch.zeros_like(ids)], dim=1
    )
    net.model.rope_deltas = None
    with torch.no_grad():
        logits = net(**inputs).logits[0, -len(answer) - 1 : -1]
    return logits.float().log_softmax(dim=-1)


# --- what is returned ---------------------------------------------------------------------


def test_it_is_a_vision_language_model(model: HFModel, family: Family) -> None:
    assert isinstance(model, VisionLanguageModel)
    assert model.name == family
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)


def test_no_conversation_no_completion(model: HFModel) -> None:
    assert model.generate([], GREEDY) == []


def test_a_batch_gives_each_row_what_it_gives_alone(model: HFModel) -> None:
    together = model.generate(MIXED, GREEDY)
    alone = [model.generate([conversation], GREEDY)[0] for conversation in MIXED]
    assert len({c.text for c in together}) == len(MIXED), "the rows must differ to show anything"
    for one, other in zip(together, alone, strict=True):
        assert one.error is None
        assert (one.text, one.token_ids, one.finish) == (other.text, other.token_ids, other.finish)
        assert one.prompt_tokens == other.prompt_tokens > 0
        np.testing.assert_allclose(one.top_logprobs, other.top_logprobs, atol=1e-4)


def test_the_image_matters(model: HFModel) -> None:
    first, second = model.generate(
        [ask(picture(0), "Colour?"), ask(picture(9), "Colour?")], Sampling(max_tokens=1, top_k=8)
    )
    assert np.abs(first.top_logprobs - second.top_logprobs).max() > 1e-3


@pytest.mark.parametrize("index", range(len(MIXED)))
def test_top_k_is_that_of_a_full_forward(model: HFModel, index: int) -> None:
    [completion] = model.generate([MIXED[index]], GREEDY)
    logprobs = full_forward(model, MIXED[index], completion.token_ids)
    assert completion.top_logprobs.shape == (len(completion.token_ids), GREEDY.top_k)
    expected = logprobs.topk(GREEDY.top_k, dim=-1).values.numpy()
    np.testing.assert_allclose(completion.top_logprobs, expected, atol=1e-4)
    # Greedy whatever the checkpoint's generation config says (it samples and penalises).
    assert logprobs.argmax(dim=-1).tolist() == list(completion.token_ids)


def test_the_users_objects_are_left_as_they_were(family: Family) -> None:
    net, processor = build(family)
    before = net.generation_config.to_dict()
    side = processor.tokenizer.padding_side
    HFModel(net, processor).generate(MIXED[:2], Sampling(max_tokens=2))
    assert net.generation_config.to_dict() == before
    assert processor.tokenizer.padding_side == side


def test_order_and_length_when_batches_are_sorted_and_cut(family: Family) -> None:
    net, processor = build(family)
    texts = ["word " * n for n in (30, 1, 17, 3, 25, 8, 2)]
    conversations = [ask(picture(i), text) for i, text in enumerate(texts)]
    wide = HFModel(net, processor, max_batch=16).generate(conversations, GREEDY)
    narrow = HFModel(net, processor, max_batch=2).generate(conversations, GREEDY)
    assert [c.token_ids for c in wide] == [c.token_ids for c in narrow]
    assert [c.prompt_tokens for c in wide] == [c.prompt_tokens for c in narrow]
    assert len({c.prompt_tokens for c in wide}) == len(texts)


def test_sorting_saves_padding(family: Family) -> None:
    net, processor = build(family)
    widths: list[int] = []
    model = HFModel(net, processor, max_batch=2)
    assert model.driver.name == "qwen_vl_adapter"  # checked, before passes are looked at
    net.model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    long, short = ask("word " * 200), ask("word")
    model.generate([long, short, long, short], Sampling(max_tokens=1))
    assert widths[0] < widths[1], "the two short ones share a batch"


# --- where an answer ends -----------------------------------------------------------------


def speech_of(model: HFModel) -> Detokenizer:
    tokenizer = model.processor.tokenizer
    return Detokenizer(tokenizer, end_ids(model.net, tokenizer))


def test_length_and_no_logprobs(model: HFModel) -> None:
    [completion] = model.generate([MIXED[0]], Sampling(max_tokens=3))
    assert completion.finish == "length"
    assert len(completion.token_ids) == 3
    assert completion.top_logprobs.shape == (0, 0)
    assert completion.first_token == {}


def test_every_end_of_sequence_id_ends_a_row(fresh: HFModel) -> None:
    net, processor = fresh.net, fresh.processor
    [free] = fresh.generate([MIXED[0]], GREEDY)
    seventh, fourth = free.token_ids[6], free.token_ids[3]
    assert fourth not in free.token_ids[:3]
    for config, value in (
        (net.generation_config, [399, fourth]),
        (net.config, fourth),
        (net.config.get_text_config(), fourth),
    ):
        old = getattr(config, "eos_token_id", None)
        config.eos_token_id = value
        [cut] = HFModel(net, processor).generate([MIXED[0]], GREEDY)
        config.eos_token_id = old
        assert cut.finish == "stop"
        assert cut.token_ids == free.token_ids[:3], "the end-of-sequence token is left out"
        np.testing.assert_array_equal(cut.top_logprobs, free.top_logprobs[:3])
    ends = speech_of(fresh).ends
    vocab = processor.tokenizer.get_vocab()
    assert {vocab["<|im_end|>"], vocab["<|endoftext|>"]} <= ends
    assert seventh not in ends


def test_end_of_sequence_first_gives_an_empty_answer(fresh: HFModel) -> None:
    [free] = fresh.generate([MIXED[0]], GREEDY)
    fresh.net.generation_config.eos_token_id = [free.token_ids[0]]
    ended = HFModel(fresh.net, fresh.processor)
    first, other = ended.generate([MIXED[0], MIXED[1]], GREEDY)
    assert (first.text, first.token_ids, first.finish) == ("", (), "stop")
    assert first.top_logprobs.shape == (0, 0)
    assert other.token_ids, "its neighbour goes on"


def test_a_stop_string_that_straddles_tokens(model: HFModel) -> None:
    free = model.generate(MIXED, Sampling(max_tokens=24, top_k=4))
    detokenizer = speech_of(model)
    tried = 0
    for row, whole in enumerate(free):
        pieces = [detokenizer.piece(token) for token in whole.token_ids]
        for i in range(4, len(pieces) - 1):
            left, right = pieces[i], pieces[i + 1]
            if "\ufffd" in left + right or len(left) < 1 or len(right) < 2:
                continue
            stop = left[-1] + right[0]
            others = [c.text for n, c in enumerate(free) if n != row]
            end = whole.text.find(stop) + len(stop)
            if whole.text[:end] != "".join(pieces[: i + 1]) + right[0]:
                continue  # it occurs earlier
            cut = model.generate(MIXED, Sampling(max_tokens=24, top_k=4, stop=(stop, "\u4e2d")))
            assert cut[row].text == whole.text[:end]
            assert cut[row].finish == "stop"
            assert cut[row].token_ids == whole.token_ids[: i + 2], "the completing token is kept"
            np.testing.assert_allclose(
                cut[row].top_logprobs, whole.top_logprobs[: i + 2], atol=1e-4
            )
            for n, text in zip([n for n in range(len(free)) if n != row], others, strict=True):
                if stop not in text:
                    assert cut[n].token_ids == free[n].token_ids, "one row stops no other"
            tried += 1
            break
    assert tried >= 2


def test_the_last_token_allowed_may_complete_a_stop_string(model: HFModel) -> None:
    [free] = model.generate([MIXED[0]], Sampling(max_tokens=16))
    pieces = [speech_of(model).piece(token) for token in free.token_ids]
    n, last = next(
        (n, piece)
        for n, piece in enumerate(pieces, 1)
        if n > 2 and "\ufffd" not in piece and piece not in "".join(pieces[: n - 1])
    )
    [cut] = model.generate([MIXED[0]], Sampling(max_tokens=n, stop=(last,)))
    assert (cut.finish, cut.token_ids) == ("stop", free.token_ids[:n])


TOKENIZER = tokenizer()
WORDS = ["a </answer> b", "</tool_call>\n", "é", "中文", "<answer>", " ", "\n\n", "x", "</", "🙂"]


@settings(max_examples=150)
@given(
    parts=st.lists(st.sampled_from(WORDS), max_size=8),
    stop=st.sampled_from(["</answer>", "</tool_call>", "中文", "\n\n", "🙂", "é中", " b", ">"]),
    special=st.integers(0, 12),
)
def test_stop_strings_are_met_as_soon_as_the_whole_text_has_one(
    parts: list[str], stop: str, special: int
) -> None:
    """The cheap look at the tail finds what decoding everything at every step finds."""
    ids = TOKENIZER("".join(parts), add_special_tokens=False)["input_ids"]
    ids.insert(special, TOKENIZER.convert_tokens_to_ids("<|vision_start|>"))
    detokenizer = Detokenizer(TOKENIZER, frozenset())
    stops = StopStrings((stop, "never"), detokenizer)
    expected = next((n for n in range(1, len(ids) + 1) if stop in detokenizer.text(ids[:n])), None)
    row = Row()
    met = next((n for n, t in enumerate(ids, 1) if row.take(t, frozenset(), stops)), None)
    assert met == expected
    if met is not None:
        whole = detokenizer.text(ids)
        assert row.text(stops) == whole[: whole.find(stop) + len(stop)]
        assert row.ids == ids[:met]


def test_a_special_token_can_be_a_stop_string() -> None:
    detokenizer = Detokenizer(TOKENIZER, frozenset())
    stops = StopStrings(("<|vision_end|>",), detokenizer)
    row = Row()
    for token in TOKENIZER("blue<|vision_end|>")["input_ids"]:
        row.take(token, detokenizer.ends, stops)
    assert (row.finish, row.text(stops)) == ("stop", "blue<|vision_end|>")


# --- the first token ----------------------------------------------------------------------


def test_first_token_sums_ids_of_one_text(model: HFModel) -> None:
    sampling = Sampling(max_tokens=1, first_token=True)
    for conversation, completion in zip(MIXED, model.generate(MIXED, sampling), strict=True):
        probabilities = full_forward(model, conversation, (0,))[0].exp()
        best = probabilities.topk(64)
        expected: dict[str, float] = {}
        for token, p in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            text = TOKENIZER.decode([token], skip_special_tokens=True)
            if text:
                expected[text] = expected.get(text, 0.0) + p
        assert completion.first_token == pytest.approx(expected, abs=1e-5)
        values = list(completion.first_token.values())
        assert values == sorted(values, reverse=True)
        assert "" not in completion.first_token
        # Bytes that are no character by themselves share one text.
        broken = [t for t in best.indices.tolist() if TOKENIZER.decode([t]) == "\ufffd"]
        assert len(broken) > 1


def test_first_token_does_not_change_the_answer(model: HFModel) -> None:
    with_it = model.generate(MIXED, Sampling(max_tokens=6, first_token=True, top_k=3))
    without = model.generate(MIXED, Sampling(max_tokens=6, top_k=3))
    assert [c.token_ids for c in with_it] == [c.token_ids for c in without]
    assert all(max(c.first_token.values()) <= 1 for c in with_it)


# --- conversations ------------------------------------------------------------------------


def test_prefill_is_continued(model: HFModel) -> None:
    [free] = model.generate([MIXED[0]], Sampling(max_tokens=8, top_k=4))
    head = speech_of(model).text(free.token_ids[:3])
    conversation = Conversation(MIXED[0].messages, prefill=head)
    same = TOKENIZER(head)["input_ids"] == list(free.token_ids[:3])
    [rest] = model.generate([conversation], Sampling(max_tokens=5, top_k=4))
    assert rest.prompt_tokens == free.prompt_tokens + len(TOKENIZER(head)["input_ids"])
    if same:  # else the prefill is cut into other tokens than were generated
        assert rest.token_ids == free.token_ids[3:]
    assert rest.text != free.text


def test_prefill_in_tokens_of_the_answer_gives_the_rest_of_it(model: HFModel) -> None:
    found = 0
    for conversation in MIXED:
        [free] = model.generate([conversation], Sampling(max_tokens=8))
        for cut in range(1, 6):
            head = speech_of(model).text(free.token_ids[:cut])
            if TOKENIZER(head)["input_ids"] == list(free.token_ids[:cut]):
                begun = Conversation(conversation.messages, prefill=head)
                [rest] = model.generate([begun], Sampling(max_tokens=8 - cut))
                assert rest.token_ids == free.token_ids[cut:]
                found += 1
    assert found


def test_a_prefill_shows_its_images_as_the_template_does(model: HFModel) -> None:
    """As Thyme goes on in its turn after what its code has shown."""
    begun = ("<think>Closer.<sandbox_output>", picture(7, 56, 56), "</sandbox_output> So")
    conversation = Conversation(MIXED[0].messages, prefill=begun)
    [with_image] = model.generate([conversation], GREEDY)
    assert with_image.error is None
    said = Conversation((*MIXED[0].messages, Message("assistant", begun)))
    ended = model.prompt(said).text.partition("So<|im_end|>")[0]
    prompt = model.prompt(conversation)
    assert prompt.text == ended + "So"
    assert [image.size for image in prompt.images] == [
        model.seen_size(image) for image in conversation.images
    ]
    other = (begun[0], picture(8, 56, 56), begun[2])
    [changed] = model.generate([Conversation(MIXED[0].messages, prefill=other)], GREEDY)
    assert not np.array_equal(changed.top_logprobs, with_image.top_logprobs)  # it is looked at


def test_a_template_without_images_in_turns_can_not_continue_after_one(fresh: HFModel) -> None:
    fresh.processor.chat_template = "{{ messages[0].role }}"
    conversation = Conversation(MIXED[1].messages, prefill=("a", picture(7), "b"))
    [completion] = fresh.generate([conversation], GREEDY)
    assert "doesn't show images between texts" in (completion.error or "")


def test_tools_reach_the_chat_template(model: HFModel) -> None:
    tool = {"type": "function", "function": {"name": "zoom", "parameters": {"type": "object"}}}
    plain, told = ask("Hello."), ask("Hello.", tools=(tool,))
    one, other = model.generate([plain, told], Sampling(max_tokens=1, top_k=4))
    extra = "<|im_start|>system\n# Tools\n<tools>\n" + str(tool).replace("'", '"') + "\n</tools>"
    added = len(TOKENIZER(extra + "<|im_end|>\n")["input_ids"])
    assert abs(other.prompt_tokens - one.prompt_tokens - added) <= 2


# --- sampling -----------------------------------------------------------------------------


def test_sampling_is_reproducible_by_seed(model: HFModel) -> None:
    def run(seed: int | None, rows: int = 3) -> list[tuple[int, ...]]:
        sampling = Sampling(max_tokens=8, temperature=1.5, seed=seed, top_k=4)
        return [c.token_ids for c in model.generate([MIXED[0]] * rows, sampling)]

    assert run(7) == run(7)
    assert run(7) != run(8)
    assert len(set(run(7))) == 3, "equal conversations in one call get different answers"
    assert run(7, rows=1)[0] == run(7)[0], "a row's draws don't depend on its neighbours"
    assert run(None) != run(None)


def test_draws_do_not_depend_on_the_batch_size(family: Family) -> None:
    net, processor = build(family)
    sampling = Sampling(max_tokens=6, temperature=1.0, seed=3)
    wide = HFModel(net, processor, max_batch=8).generate(MIXED, sampling)
    narrow = HFModel(net, processor, max_batch=2).generate(MIXED, sampling)
    assert [c.token_ids for c in wide] == [c.token_ids for c in narrow]


def test_draws_leave_the_global_generator_alone(model: HFModel) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    model.generate([MIXED[0]], Sampling(max_tokens=3, temperature=1.0, seed=1))
    assert torch.rand(1) == expected


def test_draws_follow_the_distribution(model: HFModel) -> None:
    sampling = Sampling(max_tokens=1, temperature=1.3, seed=0)
    n = 600
    drawn = np.array([c.token_ids[0] for c in model.generate([MIXED[1]] * n, sampling) if c.text])
    p = (full_forward(model, MIXED[1], (0,))[0] / 1.3).softmax(dim=-1).numpy()
    for token in p.argsort()[-4:]:
        if int(token) in speech_of(model).ends:
            continue
        assert abs((drawn == token).sum() / n - p[token]) < 5 * np.sqrt(p[token] / n)
    assert (p[drawn] > 0).all()


def test_logprobs_are_the_models_own_at_any_temperature(model: HFModel) -> None:
    sampling = Sampling(max_tokens=6, temperature=1.5, seed=5, top_k=400)
    [completion] = model.generate([MIXED[0]], sampling)
    logprobs = full_forward(model, MIXED[0], completion.token_ids)
    expected = logprobs.sort(dim=-1, descending=True).values.numpy()
    np.testing.assert_allclose(completion.top_logprobs, expected, atol=1e-4)


# --- what goes wrong ----------------------------------------------------------------------


def test_a_row_that_cannot_be_prepared_hurts_no_other(model: HFModel) -> None:
    good = model.generate(MIXED, GREEDY)
    bad = [
        ask(Image.new("RGB", (4000, 8)), "An image far too thin."),
        ask(picture(0), "The text writes <|image_pad|> itself."),
        Conversation((Message("user", ("x", 3)),)),  # type: ignore[arg-type]
        ask(picture(0), "word " * 6000),
    ]
    mixed = [bad[0], MIXED[0], bad[1], MIXED[1], MIXED[2], bad[2], MIXED[3], MIXED[4], bad[3]]
    done = model.generate(mixed, GREEDY)
    cut = HFModel(model.net, model.processor, max_batch=2)
    again = cut.generate(mixed, GREEDY)
    assert [c.token_ids for c in again] == [c.token_ids for c in done]
    assert [c.error is not None for c in done] == [c in bad for c in mixed]
    assert [c.token_ids for c in done if c.error is None] == [c.token_ids for c in good]
    assert "thin" not in str(done[0].error) and "200 times as long" in str(done[0].error)
    assert "<|image_pad|>" in str(done[2].error)
    assert "tokens" in str(done[8].error) and "4096" in str(done[8].error)
    assert all(c.finish == "error" and "\n" not in str(c.error) for c in done if c.error)


@pytest.mark.parametrize("place", ["text", "prefill", "reasoning", "long"])
def test_half_a_character_is_the_querys_own_fault(model: HFModel, place: str) -> None:
    half = "What is " + chr(0xD83D) + "?"
    odd = {
        "text": ask(picture(0), half),
        "prefill": dataclasses.replace(ask(picture(0), "What?"), prefill=half),
        "reasoning": Conversation(
            (
                *ask(picture(0), "What?").messages,
                Message("assistant", (f"<think>{half}</think>{half}",)),
                Message("user", ("And?",)),
            )
        ),
        "long": ask(picture(0), half * 40_000),
    }[place]
    fine = ask(picture(0), "What?")
    if place != "long":
        assert model.too_long(odd) is None
    bad, good = model.generate([odd, fine], GREEDY)
    assert bad.fault == "text" and "half a surrogate pair" in str(bad.error)
    assert good.error is None
    assert good.token_ids == model.generate([fine], GREEDY)[0].token_ids


class Refusing:
    """Raises in the model's forward pass where `when(batch rows, input ids)` says so."""

    def __init__(self, model: HFModel, when: Any, error: BaseException) -> None:
        self.sizes: list[int] = []
        self._hook = model.net.model.register_forward_pre_hook(self, with_kwargs=True)
        self._when, self._error = when, error

    def __call__(self, module: Any, args: Any, kwargs: Any) -> None:
        ids = kwargs["input_ids"]
        self.sizes.append(ids.shape[0])
        if self._when(ids):
            raise self._error

    def stop(self) -> None:
        self._hook.remove()


@pytest.fixture
def refuse(model: HFModel) -> Iterator[Any]:
    made: list[Refusing] = []

    def start(when: Any, error: BaseException, target: HFModel = model) -> Refusing:
        made.append(Refusing(target, when, error))
        return made[-1]

    yield start
    for refusing in made:
        refusing.stop()


def test_a_row_that_the_model_refuses_is_singled_out(model: HFModel, refuse: Any) -> None:
    good = model.generate(MIXED, GREEDY)

    def guilty(ids: torch.Tensor) -> bool:
        return any("cup" in TOKENIZER.decode(row) for row in ids)

    model.forget()  # or the guilty words would not be read again
    refuse(guilty, ValueError("this one can't be run\nand more"))
    done = model.generate(MIXED, GREEDY)
    assert [c.error is None for c in done] == [True, True, True, True, False]
    assert done[4] == Completion.failed("ValueError: this one can't be run")
    for one, other in zip(done[:4], good[:4], strict=True):
        assert one.token_ids == other.token_ids


def test_out_of_memory_halves_the_batch_and_remembers(
    fresh: HFModel, refuse: Any, caplog: pytest.LogCaptureFixture
) -> None:
    good = fresh.generate(MIXED, GREEDY)
    seen = refuse(lambda ids: ids.shape[0] > 2, torch.OutOfMemoryError("CUDA out of memory"), fresh)
    done = fresh.generate(MIXED, GREEDY)
    assert [c.token_ids for c in done] == [c.token_ids for c in good]
    assert fresh.max_batch == 2
    assert "out of memory with 5 rows" in caplog.text
    seen.sizes.clear()
    fresh.generate(MIXED, GREEDY)
    assert max(seen.sizes) == 2, "the smaller size is kept"


def test_out_of_memory_on_one_row_says_so(fresh: HFModel, refuse: Any) -> None:
    error = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
    refuse(lambda ids: ids.shape[1] > 150, error, fresh)
    short, long = ask("word"), ask("word " * 200)
    done = fresh.generate([short, long, short], Sampling(max_tokens=2))
    assert [c.error is None for c in done] == [True, False, True]
    assert "out of memory on cpu" in str(done[1].error)
    assert done[1].fault == "length", "asking again is of no use"


def test_a_row_that_fits_once_what_was_kept_is_forgotten_is_answered(
    fresh: HFModel, refuse: Any
) -> None:
    good = fresh.generate(MIXED[:1], GREEDY)
    full = iter([True])
    refuse(lambda ids: next(full, False), torch.OutOfMemoryError("CUDA out of memory"), fresh)
    done = fresh.generate(MIXED[:1], GREEDY)
    assert done[0].error is None and done[0].token_ids == good[0].token_ids


def test_ctrl_c_is_not_swallowed(fresh: HFModel, refuse: Any) -> None:
    refusing = refuse(lambda ids: True, KeyboardInterrupt(), fresh)
    with pytest.raises(KeyboardInterrupt):
        fresh.generate(MIXED, GREEDY)
    refusing.stop()
    assert fresh.generate(MIXED[:1], GREEDY)[0].error is None, "and nothing is left locked"
    assert fresh.net.generation_config.repetition_penalty == 1.3


def test_scores_that_are_not_numbers_fail_their_row_only(fresh: HFModel) -> None:
    def spoil(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        if output.shape[0] > 1:
            output[1] = float("nan")
        return output

    good = {c.text for c in fresh.generate(MIXED[:3], GREEDY)}
    fresh.net.lm_head.register_forward_hook(spoil)
    for sampling in (GREEDY, Sampling(max_tokens=12)):
        fresh.forget()
        done = fresh.generate(MIXED[:3], sampling)
        failed = [c for c in done if c.error is not None]
        assert len(failed) >= 1 and all("not finite" in str(c.error) for c in failed)
        assert {c.text for c in done if c.error is None} < good


def test_what_no_row_can_have_is_refused(model: HFModel) -> None:
    with pytest.raises(ConfigError, match=r"top_k=401 is more than the vocabulary .*400"):
        model.generate(MIXED, Sampling(top_k=401))
    with pytest.raises(ConfigError, match="empty string"):
        model.generate(MIXED, Sampling(stop=("",)))
    [whole] = model.generate(MIXED[:1], Sampling(top_k=400, max_tokens=2))
    np.testing.assert_allclose(np.exp(whole.top_logprobs).sum(axis=1), 1, atol=1e-5)


def test_parts_that_are_missing_are_named(family: Family) -> None:
    net, processor = build(family)
    with pytest.raises(ConfigError, match="image_processor"):
        HFModel(net, processor.tokenizer)
    with pytest.raises(ConfigError, match="max_batch=0"):
        HFModel(net, processor, max_batch=0)
    processor.chat_template = None
    with pytest.raises(ConfigError, match="chat template"):
        HFModel(net, processor)


# --- what it costs ------------------------------------------------------------------------


def test_memory_grows_by_k_a_step_and_not_by_the_vocabulary(fresh: HFModel) -> None:
    vocabulary, rows, steps = 400, 4, 40
    live: list[int] = []

    def wide() -> int:
        gc.collect()
        seen = [t for t in gc.get_objects() if type(t) is torch.Tensor]
        return sum(t.numel() for t in seen if t.shape[-1:] == (vocabulary,))

    def count(module: Any, args: Any, output: Any) -> None:
        live.append(wide() - others if len(live) in (2, steps - 1) else 0)

    fresh.net.generation_config.eos_token_id = None
    endless = HFModel(fresh.net, fresh.processor)
    assert endless.driver.reason == ""  # checked, before passes are counted
    others = wide()
    fresh.net.lm_head.register_forward_hook(count)
    conversations = [ask(f"word {i}") for i in range(rows)]
    done = endless.generate(conversations, Sampling(max_tokens=steps, top_k=8))
    assert len(live) == max(len(c.token_ids) for c in done) == steps
    assert live[-1] <= live[2] <= 4 * rows * vocabulary
    for completion in done:
        n = len(completion.token_ids)
        assert completion.top_logprobs.shape == (n, 8)
        assert completion.top_logprobs.base is None, "no row keeps the batch alive"


def test_threads_take_turns(model: HFModel) -> None:
    expected = [c.token_ids for c in model.generate(MIXED, GREEDY)]
    found: dict[int, list[tuple[int, ...]]] = {}

    def work(n: int) -> None:
        found[n] = [c.token_ids for c in model.generate(MIXED, GREEDY)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[n] == expected for n in range(4))


def test_it_runs_inside_inference_mode(model: HFModel) -> None:
    expected = model.generate(MIXED[:2], GREEDY)
    with torch.inference_mode():
        assert model.generate(MIXED[:2], GREEDY) == expected


# --- images -------------------------------------------------------------------------------


@settings(max_examples=60)
@given(width=st.integers(1, 700), height=st.integers(1, 700))
def test_seen_size_is_the_grid_that_the_model_gets(width: int, height: int) -> None:
    for family in FAMILIES:
        model = HFModel(*_built(family))
        image = Image.new("RGB", (width, height))
        conversation = ask(image, "?")
        if max(width, height) > 200 * min(width, height):
            with pytest.raises(ImageError, match="200 times"):
                model.seen_size(image)
            continue
        seen = model.seen_size(image)
        inputs, _ = batch_of(model, model.prompt(conversation))
        patch = model.processor.image_processor.patch_size
        assert seen == tuple(int(n) * patch for n in inputs["image_grid_thw"][0].tolist()[:0:-1])
        assert all(side % (2 * patch) == 0 for side in seen)


_BUILT: dict[Family, tuple[Any, Any]] = {}


def _built(family: Family) -> tuple[Any, Any]:
    if family not in _BUILT:
        _BUILT[family] = build(family)
    return _BUILT[family]


@pytest.mark.parametrize("size", [(120, 90), (640, 480), (1024, 1024), (60, 400), (112, 112)])
def test_pixels_are_those_of_qwen_vl_utils(family: Family, size: tuple[int, int]) -> None:
    """The same as the authors' own code gives; the stock processor's differ by rounding."""
    from qwen_vl_utils import fetch_image

    net, processor = _built(family)
    model = HFModel(net, processor)
    images = processor.image_processor
    image = picture(0, *size)
    inputs, _ = batch_of(model, model.prompt(ask(image, "?")))
    theirs = fetch_image(
        {
            "image": image,
            "min_pixels": images.size["shortest_edge"],
            "max_pixels": images.size["longest_edge"],
        },
        image_patch_size=images.patch_size,
    )
    exact = images([theirs], do_resize=False, return_tensors="pt")
    assert torch.equal(inputs["pixel_values"], exact["pixel_values"])
    stock = images([image], return_tensors="pt")
    assert torch.equal(inputs["image_grid_thw"], stock["image_grid_thw"])
    levels = (inputs["pixel_values"] - stock["pixel_values"]).abs() * 127.5
    assert levels.max() < 16 and levels.mean() < 0.1


def test_a_very_thin_image_under_a_small_budget_is_seen(model: HFModel) -> None:
    image = picture(0, 2000, 20)
    width, height = model.seen_size(image)
    assert min(width, height) > 0
    [completion] = model.generate([ask(image, "?")], Sampling(max_tokens=1))
    assert completion.error is None


def test_the_checkpoints_own_limits_are_kept(family: Family) -> None:
    net, processor = build(family, min_pixels=64 * 64, max_pixels=96 * 96)
    model = HFModel(net, processor)
    assert np.prod(model.seen_size(picture(0, 3000, 2000))) <= 96 * 96
    assert np.prod(model.seen_size(picture(0, 5, 5))) >= 64 * 64


def test_colours_are_brought_to_rgb() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert to_rgb(clear).getpixel((0, 0)) == (255, 255, 255), "transparent is white, not red"
    palette = Image.new("P", (4, 4), 0)
    palette.info["transparency"] = 0
    assert to_rgb(palette).getpixel((0, 0)) == (255, 255, 255)
    for mode in ("L", "CMYK", "1", "P", "LA"):
        assert to_rgb(Image.new(mode, (3, 3))).mode == "RGB"
    image = Image.new("RGB", (3, 3))
    assert to_rgb(image) is image


@pytest.mark.parametrize("source", ["https://example.org/a.png", "file:///etc/passwd", b"x", None])
def test_nothing_but_pil_images_gets_near_a_loader(source: Any, model: HFModel) -> None:
    with pytest.raises(InputError, match="only PIL images"):
        to_rgb(source)
    done = model.generate([ask(picture(0), "?")], Sampling(max_tokens=1))
    assert done[0].error is None


def test_other_families_are_sized_by_their_processor(family: Family) -> None:
    from transformers import CLIPImageProcessor, SiglipImageProcessor

    assert isinstance(pixels_of(_built(family)[1].image_processor), QwenPixels)
    square = pixels_of(SiglipImageProcessor(size={"height": 64, "width": 64}))
    assert isinstance(square, ProcessorPixels)
    assert square.size(picture(0, 300, 100)) == (64, 64)
    assert square.options == {}
    crop = pixels_of(CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32))
    assert crop.size(picture(0, 300, 100)) == (32, 32)
    # The same grid by running the Qwen processor as by computing it.
    images = _built(family)[1].image_processor
    run, computed = ProcessorPixels(images), pixels_of(images)
    for size in ((300, 100), (50, 400), (112, 112)):
        assert run.size(picture(0, *size)) == computed.size(picture(0, *size))


# --- loading ------------------------------------------------------------------------------


def test_from_pretrained_gives_what_the_object_gives(family: Family, tmp_path: Path) -> None:
    directory = save(family, tmp_path / "tiny-checkpoint")
    loaded = HFModel.from_pretrained(directory, device="cpu", local_files_only=True)
    assert loaded.name == "tiny-checkpoint"
    assert loaded.dtype == torch.float32
    expected = HFModel(*_built(family)).generate(MIXED, GREEDY)
    for one, other in zip(loaded.generate(MIXED, GREEDY), expected, strict=True):
        assert one.token_ids == other.token_ids
        np.testing.assert_allclose(one.top_logprobs, other.top_logprobs, atol=1e-4)
    half = HFModel.from_pretrained(directory, device="cpu", dtype="bfloat16", name="half")
    assert (half.name, half.dtype) == ("half", torch.bfloat16)
    assert all(c.error is None for c in half.generate(MIXED, GREEDY))
    eager = HFModel.from_pretrained(directory, device="cpu", attn_implementation="eager")
    assert [c.token_ids for c in eager.generate(MIXED, GREEDY)] == [c.token_ids for c in expected]


def test_what_cannot_be_loaded_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="could not be loaded") as caught:
        HFModel.from_pretrained(tmp_path, local_files_only=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="dtype='float7' is not one"):
        HFModel.from_pretrained(tmp_path, dtype="float7", device="cpu")
    with pytest.raises(ConfigError, match="device='nowhere' is not one"):
        HFModel.from_pretrained(tmp_path, device="nowhere")


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests what happens without a GPU")
def test_cuda_without_a_gpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="finds no CUDA GPU"):
        HFModel.from_pretrained(tmp_path, device="cuda")


LATE = (
    "import sys, speceyes.models as m; "
    "assert 'HFModel' in dir(m) and 'ScriptedModel' in m.__all__; "
    "assert not {'torch', 'transformers'} & set(sys.modules); "
    "m.ScriptedModel; assert 'torch' not in sys.modules"
)
THEN = (
    "; m.HFModel; assert {'torch', 'transformers'} <= set(sys.modules); "
    "assert 'qwen_vl_utils' not in sys.modules"
)


@pytest.mark.parametrize(
    "code", [LATE, pytest.param(LATE + THEN, marks=pytest.mark.exhaustive)], ids=["late", "then"]
)
def test_models_are_imported_late(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_on_cuda_in_half_precision(family: Family, tmp_path: Path, dtype: str) -> None:
    directory = save(family, tmp_path / "tiny")
    cuda = HFModel.from_pretrained(directory, device="cuda", dtype=dtype)
    cpu = HFModel.from_pretrained(directory, device="cpu")
    assert (cuda.device.type, cuda.dtype) == ("cuda", getattr(torch, dtype))
    sampling = Sampling(max_tokens=12, top_k=8, first_token=True)
    done = cuda.generate(MIXED, sampling)
    assert all(c.error is None and c.top_logprobs.dtype == np.float32 for c in done)
    for one, other in zip(done, cpu.generate(MIXED, sampling), strict=True):
        # The first step has the same prompt on both; later ones part where scores are close.
        np.testing.assert_allclose(one.top_logprobs[0], other.top_logprobs[0], atol=0.3)
    drawn = Sampling(max_tokens=6, temperature=1.0, seed=1)
    assert cuda.generate(MIXED, drawn) == cuda.generate(MIXED, drawn)


# --- which weights ------------------------------------------------------------------------------


def test_a_revision_tells_weights_apart_and_nothing_else(tmp_path: Path) -> None:
    net, processor = build(FAMILIES[0])
    one, copy, other = tmp_path / "one", tmp_path / "copy", tmp_path / "other"
    for folder in (one, copy):
        net.save_pretrained(folder)
        processor.save_pretrained(folder)
    named = HFModel.from_pretrained(one).revision
    assert named is not None and re.fullmatch(r"files-[0-9a-f]{16}", named)
    assert HFModel.from_pretrained(copy, name="else").revision == named
    with torch.no_grad():
        net.lm_head.weight[0, 0] += 1
    net.save_pretrained(other)
    processor.save_pretrained(other)
    assert HFModel.from_pretrained(other).revision != named
    made = HFModel(*build(FAMILIES[0]))
    assert made.revision is None


def test_a_gate_refuses_drafts_of_other_weights_of_the_same_name() -> None:
    small = HFModel.from_pretrained(tiny.SMALL)
    assert small.revision is not None
    answerer = SpeculativeAnswerer(small, top_k=20)
    for revision in (small.revision, "files-0000000000000000"):
        scoring = Scoring(small.name, answerer.prompt_hash, top_k=20, revision=revision)
        gate = SeparabilityGate.from_calibration(calibrate([9.0] * 60, [0] * 60, scoring))
        if revision == small.revision:
            assert SpecPipeline(answerer=answerer, gate=gate).gate is gate
        else:
            with pytest.raises(CalibrationError, match="its revision is"):
                SpecPipeline(answerer=answerer, gate=gate)
