"""Steps of fixed shapes, and batches as large as memory allows."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes import tiny
from speceyes.models import HFModel
from speceyes.models.hf.continuous_batch import bucket
from speceyes.models.hf.memory_fit import FIRST, MemoryFit
from speceyes.tiny.scenes import questions
from speceyes.types import Conversation, Message, Sampling
from support.random_models import FAMILIES, Family, build

GREEDY = Sampling(max_tokens=10, top_k=8)


def asked(seed: int) -> Conversation:
    pixels = np.random.default_rng(seed).integers(0, 256, (60, 40 + 20 * (seed % 3), 3), np.uint8)
    words = " ".join(["What colour is the small square?"] * (1 + seed % 3))
    return Conversation((Message("user", (Image.fromarray(pixels), words)),))


@given(n=st.integers(1, 5000), least=st.sampled_from([1, 128]))
def test_buckets_hold_what_they_are_asked_for_and_are_few(n: int, least: int) -> None:
    size = bucket(n, least)
    assert n <= size < max(2 * n, least + 1)
    assert (size // least).bit_count() == 1 and size % least == 0


@pytest.mark.parametrize("backend", ["eager", pytest.param(None, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("family", FAMILIES[:1])
def test_compiled_steps_give_what_plain_ones_give(
    family: Family, backend: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With "eager" all but the last step of compiling, which writes C++, is what users have."""
    if backend:
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    net, processor = build(family)
    plain, fast = HFModel(net, processor), HFModel(net, processor, compile=True)
    conversations = [asked(seed) for seed in range(3)]
    # Rows end at different steps, so that spare rows stand beside live ones.
    for one, other in zip(
        plain.generate(conversations, GREEDY), fast.generate(conversations, GREEDY), strict=True
    ):
        assert other.error is None
        assert (one.text, one.token_ids, one.finish) == (other.text, other.token_ids, other.finish)
        np.testing.assert_allclose(one.top_logprobs, other.top_logprobs, atol=1e-4)


# --- batches by memory ----------------------------------------------------------------------


@dataclass
class Device:
    """A device with so many bytes; batches of it need so many a token."""

    total: int
    a_token: int
    held: int = 0
    refused: int = 0
    largest: int = 0
    rows: list[int] = field(default_factory=list)

    def free(self) -> int:
        return self.total - self.held

    def run(self, fit: MemoryFit, waiting: int, tokens: int) -> None:
        while waiting:
            rows = min(waiting, fit.rows(tokens))
            if rows * tokens * self.a_token > self.free():
                self.refused += 1
                fit.shrink(max(1, rows // 2))
                continue
            fit.took(rows, tokens, rows * tokens * self.a_token)
            self.rows.append(rows)
            waiting -= rows


@given(
    room=st.integers(1, 400),
    batches=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 4000)), min_size=1, max_size=8),
    most=st.integers(1, 256),
)
@settings(max_examples=100, deadline=None)
def test_batches_grow_as_far_as_memory_goes_and_no_further(
    room: int, batches: list[tuple[int, int]], most: int
) -> None:
    longest = max(tokens for _, tokens in batches)
    device = Device(total=room * longest * 1000, a_token=1000)
    fit = MemoryFit(most, device.free)
    for waiting, tokens in batches:
        device.run(fit, waiting, tokens)
    assert max(device.rows) <= most
    # Nothing is known of the first batch; every later one fits.
    assert device.refused <= 3


def test_long_prompts_get_smaller_batches_and_short_ones_larger() -> None:
    device = Device(total=10**9, a_token=10_000)
    fit = MemoryFit(256, device.free)
    device.run(fit, 500, 500)
    assert device.rows[0] == FIRST and max(device.rows) == 160  # 0.8 GB at 5 MB a row
    assert fit.rows(5000) == 16 and fit.rows(100) == 256
    assert fit.rows() == fit.rows(500)
    device.held = 9 * 10**8
    assert fit.rows(500) == 16
    fit.shrink(3)
    assert fit.rows(1) == 3


def test_a_cpu_has_its_own_default_and_keeps_what_it_is_given() -> None:
    net, processor = build(FAMILIES[0])
    assert HFModel(net, processor).max_batch == 32
    assert HFModel(net, processor, max_batch=5).sharing().max_batch == 5


# --- on a GPU -------------------------------------------------------------------------------


@pytest.fixture
def cuda() -> str:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA GPU")
    return "cuda"


@pytest.mark.cuda
def test_compiled_steps_on_cuda_give_what_plain_ones_give(cuda: str) -> None:
    plain = HFModel.from_pretrained(tiny.LARGE, device=cuda, dtype="float32")
    fast = plain.sharing(compile=True)
    conversations = [
        Conversation((Message("user", (*item.query.images, item.query.text)),))
        for item in questions("heldout", 12)
    ]
    for batch in (conversations, conversations[:5], conversations[:1], conversations):
        for one, other in zip(
            plain.generate(batch, GREEDY), fast.generate(batch, GREEDY), strict=True
        ):
            assert other.error is None
            assert one.text == other.text
            np.testing.assert_allclose(one.top_logprobs, other.top_logprobs, atol=1e-3)


@pytest.mark.cuda
def test_batches_on_cuda_grow_by_what_they_took(cuda: str) -> None:
    model = HFModel.from_pretrained(tiny.SMALL, device=cuda)
    assert model.max_batch == FIRST
    for _ in range(3):
        done = model.generate([asked(seed) for seed in range(40)], GREEDY)
        assert all(one.error is None for one in done)
    assert model.max_batch > FIRST


@pytest.mark.cuda
def test_two_models_on_one_gpu_work_from_two_threads(cuda: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    models = [HFModel.from_pretrained(path, device=cuda) for path in (tiny.LARGE, tiny.SMALL)]
    conversations = [asked(seed) for seed in range(8)]
    alone = [model.generate(conversations, GREEDY) for model in models]
    for model in models:
        model.forget()
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda model: model.generate(conversations, GREEDY), models))
    for wanted, got in zip(alone, both, strict=True):
        assert [one.text for one in got] == [one.text for one in wanted]
