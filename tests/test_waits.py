"""Operations of a pass, counted: what would make a GPU wait, copy twice or record anew."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from speceyes import tiny
from speceyes.dialects import dialect
from speceyes.models import HFModel
from speceyes.tiny.scenes import questions
from speceyes.tools import Tools
from speceyes.types import Conversation, Message, Sampling

pytestmark = pytest.mark.skipif(
    not tiny.LARGE.is_dir(), reason="the tiny pair's weights are not in this checkout"
)

WAITS = ("aten.is_nonzero.default", "aten.item.default")
"""What asks the device for a value, and waits for it."""
COPIES = ("aten.clone.default", "aten.cat.default", "aten.copy_.default")


class Operations(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def large() -> HFModel:
    return HFModel.from_pretrained(tiny.LARGE)


def turns(model: HFModel, n: int, words: int = 0) -> list[Conversation]:
    """First turns of an agent, which go on for a while; row i has i times so many words more."""
    spoken, tools = dialect("auto", model), tuple(Tools(["zoom"]))
    found = []
    for i, item in enumerate(questions("heldout", n)):
        asked = spoken.open(item.query, tools)
        first, last = asked.messages[0], asked.messages[-1]
        more = Message("user", (*last.content, " please" * words * i))
        found.append(Conversation((first, more)))
    return found


def counted(model: HFModel, conversations: list[Conversation], steps: int) -> list[Counter[str]]:
    """Operations of each of the first steps of a session; the first reads the prompts."""
    model.forget()
    session = model.session(Sampling(max_tokens=8, top_k=9))
    assert session is not None
    for key, conversation in enumerate(conversations):
        session.add(key, conversation)
    found = []
    for _ in range(steps):
        with Operations() as operations:
            session.step()
        found.append(operations.found)
    session.close()
    return found


@pytest.mark.parametrize("words", [0, 3])
def test_a_step_asks_the_device_for_nothing_but_its_tokens(large: HFModel, words: int) -> None:
    large.driver  # noqa: B018 - its check comes first
    _, *steps = counted(large, turns(large, 4, words), 4)
    for step in steps:
        layers = large.config.get_text_config().num_hidden_layers
        assert step["aten.scaled_dot_product_attention.default"] == layers
        assert [step[name] for name in WAITS] == [0, 0]
        assert step["aten._local_scalar_dense.default"] == 0
    rows_of_one_length = counted(large, turns(large, 1), 2)[1]
    # No mask is made where there is nothing to hide.
    assert rows_of_one_length["aten.le.Tensor"] == 0


def test_reading_prompts_asks_nothing_beyond_what_images_need(large: HFModel) -> None:
    plain = [
        Conversation((Message("user", ("Say something." + " please" * 3 * i,)),)) for i in range(3)
    ]
    for asked in (plain, plain[:1]):
        read = counted(large, asked, 1)[0]
        assert [read[name] for name in WAITS] == [0, 0]


def test_ragged_rows_give_what_they_give_alone(large: HFModel) -> None:
    asked = [*turns(large, 3, 5), Conversation((Message("user", ("Say something.",)),))]
    sampling = Sampling(max_tokens=6, top_k=9)
    together = large.generate(asked, sampling)
    for one, wanted in zip(asked, together, strict=True):
        large.forget()
        [alone] = large.generate([one], sampling)
        assert alone.token_ids == wanted.token_ids
        assert np.allclose(alone.top_logprobs, wanted.top_logprobs, atol=1e-4)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_masks_say_the_same_to_every_attention(attention: str, large: HFModel) -> None:
    other = HFModel.from_pretrained(tiny.LARGE, attn_implementation=attention)
    asked = turns(large, 3, 4)
    sampling = Sampling(max_tokens=5, top_k=9)
    for mine, wanted in zip(
        other.generate(asked, sampling), large.generate(asked, sampling), strict=True
    ):
        assert mine.token_ids == wanted.token_ids
        assert np.allclose(mine.top_logprobs, wanted.top_logprobs, atol=1e-3)


def test_scores_of_rows_that_end_together_come_to_the_host_at_once(
    large: HFModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[tuple[int, ...]] = []
    cpu = torch.Tensor.cpu

    def noted(self: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
        copies.append(tuple(self.shape))
        return cpu(self, *args, **more)

    asked = [Conversation((Message("user", ("Say something.",)),))] * 6
    large.forget()
    monkeypatch.setattr(torch.Tensor, "cpu", noted)
    large.generate(asked, Sampling(max_tokens=3, top_k=9))
    # Equal rows end at once.
    assert len(copies) == 1 and copies[0][0] % 6 == 0 and copies[0][1] == 9


def test_what_goes_on_is_copied_into_its_slot_once(large: HFModel) -> None:
    asked = turns(large, 4)

    def bytes_written(work: Callable[[], object]) -> int:
        written = 0

        class Copies(TorchDispatchMode):
            def __torch_dispatch__(
                self, func: Any, types: Any, args: Any = (), kwargs: Any = None
            ) -> Any:
                nonlocal written
                out = func(*args, **(kwargs or {}))
                if str(func) in COPIES and out.dim() == 5:  # [layers, 2, heads, tokens, width]
                    written += out.numel() * out.element_size()
                return out

        with Copies():
            work()
        return written

    tokens = sum(one.prompt_tokens for one in large.generate(asked, Sampling(max_tokens=1)))
    large.forget()
    session = large.session(Sampling(max_tokens=8))
    assert session is not None
    for key, conversation in enumerate(asked):
        session.add(key, conversation)
    written = bytes_written(session.step)
    text = large.config.get_text_config()
    states = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * 4 * tokens
    # From the room of the pass, which the layers fill one by one, straight into the slots.
    assert 0.9 * states < written <= 1.01 * states
    session.close()


class Recorded:
    """A forward pass in the place of a compiled one, which tells what it was run over."""

    def __init__(self, net: Any) -> None:
        self.forward = net.forward
        self.slots: list[torch.Tensor] = []
        """Keys of the first layer, that a CUDA graph would have been recorded over, a call each."""
        self.spoils = False
        """True where what is said has no finite numbers."""

    def __call__(self, **named: Any) -> Any:
        self.slots.append(named.get("cache", named.get("past_key_values")).layers[0].keys)
        said = self.forward(**named)
        if self.spoils:
            said.logits.fill_(float("nan"))
        return said


@pytest.fixture
def steps(large: HFModel, monkeypatch: pytest.MonkeyPatch) -> tuple[HFModel, Recorded]:
    """The model with such steps, which keeps no conversation; and the steps."""
    made: list[Recorded] = []

    def compiled(net: Any) -> Recorded:
        made.append(Recorded(net))
        return made[-1]

    monkeypatch.setattr("speceyes.models.hf.model.compiled", compiled)
    model = large.sharing(cache_bytes=0, compile=True)
    return model, made[0]


SIX = Sampling(max_tokens=6, top_k=9)


def test_compiled_steps_of_later_batches_find_their_slots_where_they_were(
    large: HFModel, steps: tuple[HFModel, Recorded]
) -> None:
    model, recorded = steps
    asked = turns(large, 4)
    wanted = [one.token_ids for one in large.generate(asked, SIX)]
    for _ in range(3):
        assert [one.token_ids for one in model.generate(asked, SIX)] == wanted
    assert len(recorded.slots) >= 9
    assert len({keys.data_ptr() for keys in recorded.slots}) == 1
    kept = weakref.ref(recorded.slots[-1])
    recorded.slots.clear()
    assert kept() is not None
    model.forget()
    gc.collect()
    assert kept() is None


def test_slots_of_a_row_without_finite_numbers_are_not_used_again(
    large: HFModel, steps: tuple[HFModel, Recorded]
) -> None:
    model, recorded = steps
    asked = turns(large, 1)
    recorded.spoils = True
    assert model.generate(asked, SIX)[0].error is not None
    spoilt = recorded.slots[-1]  # held, so that its address can't be given to others
    recorded.spoils = False
    [after] = model.generate(asked, SIX)
    assert after.token_ids == large.generate(asked, SIX)[0].token_ids
    assert recorded.slots[-1].data_ptr() != spoilt.data_ptr()
