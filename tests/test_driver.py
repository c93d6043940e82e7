"""What runs a model's rows: the adapter where it gives what `generate` gives, else `generate`."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from PIL import Image

from speceyes.models import HFModel
from speceyes.models.hf import model as hf_model
from speceyes.models.hf.qwen_vl_adapter import QwenVLAdapter
from speceyes.types import Completion, Conversation, Message, Sampling
from support.random_models import FAMILIES, build

GREEDY = Sampling(max_tokens=6, top_k=8)
ASKED = [
    Conversation((Message("user", ("What colour is it?",)),)),
    Conversation((Message("user", (Image.linear_gradient("L").convert("RGB"), "And this?")),)),
    Conversation((Message("user", (Image.new("RGB", (90, 60), "teal"), "Is it red?")),)),
]


class _Changed:
    """A model as a release of transformers might change it, as far as the adapter sees it."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __call__(self, **named: Any) -> Any:
        return self._inner(**named)

    @property
    def model(self) -> Any:
        return _ChangedInside(self._inner.model, self)

    def features(self, *args: Any, **named: Any) -> Any:
        return self._inner.model.get_image_features(*args, **named)

    def positions(self, *args: Any, **named: Any) -> Any:
        return self._inner.model.get_rope_index(*args, **named)


class _ChangedInside:
    def __init__(self, inner: Any, outer: _Changed) -> None:
        self._inner, self._outer = inner, outer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def get_image_features(self, *args: Any, **named: Any) -> Any:
        return self._outer.features(*args, **named)

    def get_rope_index(
        self, input_ids: Any = None, mm_token_type_ids: Any = None, **named: Any
    ) -> Any:
        return self._outer.positions(input_ids, mm_token_type_ids, **named)


class MissingAttribute(_Changed):
    def features(self, *args: Any, **named: Any) -> Any:
        raise AttributeError("'Qwen3VLModel' object has no attribute 'get_image_features'")


class ChangedSignature(_Changed):
    def __call__(self, *, logits_wanted: Any = None, **named: Any) -> Any:
        if "logits_to_keep" in named:
            raise TypeError("forward() got an unexpected keyword argument 'logits_to_keep'")
        return self._inner(**named)


class OtherShapes(_Changed):
    def features(self, *args: Any, **named: Any) -> Any:
        found = super().features(*args, **named)
        found.pooler_output = torch.cat(list(found.pooler_output))
        return found


class WrongNumbers(_Changed):
    def positions(self, *args: Any, **named: Any) -> Any:
        positions, delta = super().positions(*args, **named)
        positions = positions.clone()
        positions[1:] = positions[:1]  # every patch of an image at one place
        return positions, delta


class Raising(_Changed):
    def __call__(self, **named: Any) -> Any:
        raise RuntimeError("a kernel isn't there any more")


BREAKAGES = [MissingAttribute, ChangedSignature, OtherShapes, WrongNumbers, Raising]


def break_it(monkeypatch: pytest.MonkeyPatch, how: type[_Changed]) -> None:
    monkeypatch.setattr(hf_model, "QwenVLAdapter", lambda model: QwenVLAdapter(how(model)))


def same(found: Completion, wanted: Completion) -> None:
    assert found.error is None and found.token_ids == wanted.token_ids
    assert found.text == wanted.text
    assert abs(found.top_logprobs - wanted.top_logprobs).max() < 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_that_gives_what_generate_gives_drives_the_model(family: Any) -> None:
    model = HFModel(*build(family))
    found = model.driver
    assert (found.name, found.reason) == ("qwen_vl_adapter", "")
    assert found.transformers and found.torch
    assert model.sharing().driver.name == "qwen_vl_adapter"
    assert model.reference().driver.name == "generate"
    assert "reference" in model.reference().driver.reason


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("how", BREAKAGES)
def test_a_broken_adapter_costs_speed_and_no_answer(
    family: Any,
    how: type[_Changed],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    net, processor = build(family)
    wanted = HFModel(net, processor, reference=True).generate(ASKED, GREEDY)
    break_it(monkeypatch, how)
    model = HFModel(net, processor, name="mine")
    for _ in range(2):
        for one, other in zip(model.generate(ASKED, GREEDY), wanted, strict=True):
            same(one, other)
    assert model.driver.name == "generate" and model.driver.reason
    assert model.session(GREEDY) is None
    assert model.sharing().driver.name == "generate"
    [said] = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert "mine" in said and model.driver.reason in said
    assert f"transformers {model.driver.transformers}" in said
    assert f"torch {model.driver.torch}" in said


def test_what_fails_only_later_is_answered_by_generate(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    net, processor = build(FAMILIES[0])
    wanted = HFModel(net, processor, reference=True).generate(ASKED, GREEDY)
    model = HFModel(net, processor)
    assert model.driver.name == "qwen_vl_adapter"
    session = model.session(GREEDY)
    assert session is not None
    monkeypatch.setattr(QwenVLAdapter, "prefill", lambda *_: {}["a name that moved"])
    for key, conversation in enumerate(ASKED):
        session.add(key, conversation)
    done: dict[int, Completion] = {}
    while len(session):
        done.update(session.step())
    for key, other in enumerate(wanted):
        same(done[key], other)
    for one, other in zip(model.generate(ASKED, GREEDY), wanted, strict=True):
        same(one, other)
    assert model.driver.name == "generate" and "KeyError" in model.driver.reason


def test_what_fails_for_every_row_is_said_at_once_from_then_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    net, processor = build(FAMILIES[0])
    model = HFModel(net, processor)
    assert model.driver.name == "qwen_vl_adapter"
    passes: list[int] = []

    def moved(*args: Any, **named: Any) -> Any:
        passes.append(1)
        raise AttributeError("'Output' object has no attribute 'to_tuple'")

    hook = net.model.register_forward_pre_hook(moved)
    try:
        done = model.generate(ASKED * 4, GREEDY)
        assert all(one.error and "to_tuple" in one.error for one in done)
        before = len(passes)
        later = model.generate(ASKED * 4, GREEDY)
        assert len(passes) == before, "the model is not tried again"
    finally:
        hook.remove()
    for one in later:
        assert one.error and "to_tuple" in one.error and "transformers " in one.error
    errors = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert len(errors) == 1 and errors[0].exc_info


def test_a_row_that_fails_by_itself_ends_nobody_elses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = HFModel(*build(FAMILIES[0]))
    odd = Conversation((Message("user", (object(), "?")),))  # type: ignore[arg-type]
    for _ in range(2):
        assert all(one.error for one in model.generate([odd, odd], GREEDY))
        assert model.generate(ASKED[:1], GREEDY)[0].error is None
