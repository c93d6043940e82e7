"""The funnel over HTTP gives what it gives with the same models in the process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from speceyes import SpecPipeline, tiny
from speceyes.gate import SeparabilityGate
from speceyes.models import HFModel, OpenAIModel
from speceyes.models.openai import QwenResize
from speceyes.tiny.scenes import Item, questions
from speceyes.types import Conversation, Message, Result, Sampling
from support.engine_server import Behaviour, serving

pytestmark = pytest.mark.skipif(
    not tiny.LARGE.is_dir(), reason="the tiny pair's weights are not in this checkout"
)

SEEN = {"large": QwenResize(28, 10_160, 15_735), "small": QwenResize(20, 5_184, 8_028)}
Served = tuple[str, Behaviour]
QUERIES = 6


@pytest.fixture(scope="module")
def pair() -> dict[str, HFModel]:
    return {
        "large": HFModel.from_pretrained(tiny.LARGE),
        "small": HFModel.from_pretrained(tiny.SMALL),
    }


@pytest.fixture
def served(pair: dict[str, HFModel]) -> Iterator[Served]:
    with serving(pair) as found:
        yield found


def items() -> list[Item]:
    return list(questions("heldout", QUERIES))


def funnel(large: Any, small: Any) -> SpecPipeline:
    chosen = tiny.settings()
    return SpecPipeline.from_pretrained(
        large,
        small,
        tools=["zoom"],
        gate=SeparabilityGate(
            chosen["threshold"], top_k=chosen["top_k"], aggregate=chosen["aggregate"]
        ),
    )


@pytest.fixture(scope="module")
def local(pair: dict[str, HFModel]) -> list[Result]:
    return funnel(pair["large"], pair["small"])([item.query for item in items()])


@pytest.mark.parametrize("kind", ["vllm", "sglang", "openai"])
def test_the_funnel_over_http_is_the_funnel_in_the_process(
    kind: str, pair: dict[str, HFModel], local: list[Result]
) -> None:
    with serving(pair, kind=kind) as (url, behaviour):
        large = OpenAIModel(url, "large", seen=SEEN["large"])
        small = OpenAIModel(url, "small", seen=SEEN["small"], top_k=tiny.settings()["top_k"])
        assert large.engine == small.engine == kind
        remote = funnel(large, small)([item.query for item in items()])
        assert behaviour.connections <= 2 + 2 * 16  # and not one a request
        large.close(), small.close()
    assert [r.error for r in remote] == [None] * QUERIES
    assert [r.answer for r in remote] == [r.answer for r in local]
    assert [r.route for r in remote] == [r.route for r in local]
    assert {r.route for r in remote} == {"draft", "agent"}
    for far, near in zip(remote, local, strict=True):
        assert far.judgement is not None and near.judgement is not None
        assert far.judgement.p_tools == pytest.approx(near.judgement.p_tools, abs=1e-4)
        assert (far.verdict is None) == (near.verdict is None)
        if far.verdict is not None and near.verdict is not None:
            assert far.verdict.separability == pytest.approx(near.verdict.separability, abs=1e-3)
            assert far.draft is not None and near.draft is not None
            assert far.draft.text == near.draft.text
            assert far.draft.prompt_tokens == near.draft.prompt_tokens
            assert len(far.draft.token_ids) == len(near.draft.token_ids)
            np.testing.assert_allclose(far.draft.top_logprobs, near.draft.top_logprobs, atol=1e-4)
        if far.trajectory is not None and near.trajectory is not None:
            pairs = list(zip(far.trajectory.steps, near.trajectory.steps, strict=True))
            assert [f.text for f, _ in pairs] == [n.text for _, n in pairs]
            assert [f.prompt_tokens for f, _ in pairs] == [n.prompt_tokens for _, n in pairs]
            # Where the engine tells no tokens, its count is taken, with the end or without.
            slack = 1 if kind == "openai" else 0
            assert all(abs(f.tokens - n.tokens) <= slack for f, n in pairs)


def test_tokens_come_with_their_ids_where_the_engine_tells_them(
    served: Served, pair: dict[str, HFModel]
) -> None:
    model = OpenAIModel(served[0], "large", seen=SEEN["large"])
    asked = funnel(pair["large"], pair["small"]).fallback
    assert asked is not None
    [item] = questions("heldout", 1)
    turn = asked.dialect.open(item.query, tuple(asked.tools))
    sampling = Sampling(max_tokens=64, stop=asked.dialect.stop, top_k=4)
    [far], [near] = model.generate([turn], sampling), pair["large"].generate([turn], sampling)
    assert (far.text, far.token_ids, far.finish) == (near.text, near.token_ids, near.finish)
    model.close()


def test_an_image_is_encoded_once_for_all_its_requests(served: Served) -> None:
    model = OpenAIModel(served[0], "small")
    [item] = questions("heldout", 1)
    ask = Conversation((Message("user", (*item.query.images, "What is it?")),))
    model.generate([ask] * 6, Sampling(max_tokens=1))
    model.generate([ask.then(Message("assistant", ("a",)))] * 2, Sampling(max_tokens=1))
    assert model.images_encoded == 1
    first = served[1].bodies[0]["messages"][0]["content"][0]["image_url"]["url"]
    assert first.startswith("data:image/png;base64,")
    model.close()


def test_a_turn_that_has_begun_is_continued(served: Served, pair: dict[str, HFModel]) -> None:
    [item] = questions("heldout", 1)
    said = (Message("user", (*item.query.images, item.query.question)),)
    begun = Conversation(said, prefill="<think>It is ")
    sampling = Sampling(max_tokens=12)
    model = OpenAIModel(served[0], "large")
    [far], [near] = model.generate([begun], sampling), pair["large"].generate([begun], sampling)
    assert far.text == near.text
    assert served[1].bodies[-1]["add_generation_prompt"] is False
    shown = Conversation(said, prefill=("Here: ", item.query.images[0], " I see "))
    [far], [near] = model.generate([shown], sampling), pair["large"].generate([shown], sampling)
    assert (far.text, far.error) == (near.text, None)
    plain = OpenAIModel(served[0], "large", engine="openai")
    refused, fine = plain.generate([begun, Conversation(said)], sampling)
    assert "isn't known to continue" in (refused.error or "")
    assert fine.error is None
    model.close(), plain.close()


def test_draws_differ_by_row_and_repeat_by_seed(served: Served) -> None:
    model = OpenAIModel(served[0], "small")
    [item] = questions("heldout", 1)
    ask = Conversation((Message("user", (*item.query.images, "What do you see?")),))
    sampling = Sampling(max_tokens=8, temperature=3.0, seed=7, top_k=4)
    one, two = (model.generate([ask] * 4, sampling) for _ in range(2))
    assert [c.token_ids for c in one] == [c.token_ids for c in two]
    assert len({completion.text for completion in one}) > 1
    assert served[1].bodies[-1]["top_logprobs"] == 5  # the drawn token can push one out
    assert all(completion.top_logprobs.shape[1] == 4 for completion in one)
    model.close()
