"""A real vLLM serving the tiny pair gives what `HFModel` gives; `transformers serve` is refused.

Run by `python tests/engines/vllm_cpu.py pytest -m engine tests/test_engine_vllm.py`, which starts
the servers. With `-s`, the figures that docs/engines.md quotes are printed.
"""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest

from speceyes import ScheduleConfig, SpecPipeline, tiny
from speceyes.errors import ConfigError
from speceyes.gate import SeparabilityGate
from speceyes.models import HFModel, OpenAIModel
from speceyes.models.openai import QwenResize
from speceyes.scoring.scores import separability
from speceyes.tiny.scenes import questions
from speceyes.types import Conversation, Message, Query, Result, Sampling

URLS = {
    name: os.environ.get(f"SPECEYES_SERVED_{name.upper()}", "")
    for name in ("large", "small", "transformers")
}
QUERIES = 200
SEEN = {"large": QwenResize(28, 10_160, 15_735), "small": QwenResize(20, 5_184, 8_028)}
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        not all(URLS.values()), reason="started by tests/engines/vllm_cpu.py, with its servers"
    ),
]


@pytest.fixture(scope="module")
def near() -> dict[str, HFModel]:
    return {
        "large": HFModel.from_pretrained(tiny.LARGE),
        "small": HFModel.from_pretrained(tiny.SMALL),
    }


@pytest.fixture(scope="module")
def far() -> Iterator[dict[str, OpenAIModel]]:
    made = {
        "large": OpenAIModel(URLS["large"], seen=SEEN["large"], top_k=20),
        "small": OpenAIModel(URLS["small"], seen=SEEN["small"], top_k=64),
    }
    yield made
    for model in made.values():
        model.close()


def asked(n: int) -> list[Conversation]:
    return [
        Conversation((Message("user", (*item.query.images, item.query.text)),))
        for item in questions("heldout", n)
    ]


@pytest.mark.parametrize(("size", "k"), [("small", 64), ("small", 9), ("large", 20)])
def test_scores_are_the_models_own(
    size: str, k: int, near: dict[str, HFModel], far: dict[str, OpenAIModel]
) -> None:
    sampling = Sampling(max_tokens=20, top_k=k)
    conversations = asked(24)
    apart = []
    for ours, theirs in zip(
        near[size].generate(conversations, sampling),
        far[size].generate(conversations, sampling),
        strict=True,
    ):
        assert theirs.error is None
        assert (theirs.text, theirs.token_ids) == (ours.text, ours.token_ids)
        assert (theirs.finish, theirs.prompt_tokens) == (ours.finish, ours.prompt_tokens)
        np.testing.assert_allclose(theirs.top_logprobs, ours.top_logprobs, atol=1e-3)
        scores = [separability(each.top_logprobs) for each in (ours, theirs)]
        np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)
        apart.append(
            (
                np.abs(ours.top_logprobs - theirs.top_logprobs).max(initial=0),
                np.abs(scores[0] - scores[1]).max(initial=0),
            )
        )
    widest = np.max(apart, axis=0)
    tell(f"{size}, K={k}: log-probabilities {widest[0]:.2g} nats, separability {widest[1]:.2g}")


def funnel(models: dict[str, HFModel] | dict[str, OpenAIModel]) -> SpecPipeline:
    chosen = tiny.settings()
    return SpecPipeline.from_pretrained(
        models["large"],
        models["small"],
        tools=["zoom"],
        gate=SeparabilityGate(
            chosen["threshold"], top_k=chosen["top_k"], aggregate=chosen["aggregate"]
        ),
        # By default what a call to an engine takes would decide some routes.
        schedule=ScheduleConfig(speculate="always"),
    )


def test_the_funnel_takes_the_same_routes(
    near: dict[str, HFModel], far: dict[str, OpenAIModel]
) -> None:
    queries: list[Query] = [item.query for item in questions("heldout", QUERIES)]
    local: list[Result] = funnel(near)(queries)
    remote: list[Result] = funnel(far)(queries)
    assert [result.error for result in remote] == [None] * QUERIES
    assert [result.route for result in remote] == [result.route for result in local]
    assert [result.answer for result in remote] == [result.answer for result in local]
    assert {result.route for result in remote} == {"draft", "agent"}
    judged, scored = [], []
    for theirs, ours in zip(remote, local, strict=True):
        assert theirs.judgement is not None and ours.judgement is not None
        judged.append(abs((theirs.judgement.p_tools or 0) - (ours.judgement.p_tools or 0)))
        assert (theirs.verdict is None) == (ours.verdict is None)
        if theirs.verdict is not None and ours.verdict is not None:
            scores = (theirs.verdict.separability, ours.verdict.separability)
            assert scores[0] is not None and scores[1] is not None
            scored.append(abs(scores[0] - scores[1]))
        if theirs.trajectory is not None and ours.trajectory is not None:
            steps = list(zip(theirs.trajectory.steps, ours.trajectory.steps, strict=True))
            assert [a.text for a, _ in steps] == [b.text for _, b in steps]
            assert [a.prompt_tokens for a, _ in steps] == [b.prompt_tokens for _, b in steps]
    assert max(judged) < 1e-3 and max(scored) < 1e-3
    drafted = sum(result.route == "draft" for result in remote)
    tell(
        f"{QUERIES} queries, {drafted} by draft: p(tools) {max(judged):.2g}, "
        f"separability {max(scored):.2g} apart at most"
    )


def test_a_server_with_fewer_log_probabilities_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"than the engine returns \(20\).*--max-logprobs 64"):
        OpenAIModel(URLS["large"], top_k=64)
    with pytest.raises(ConfigError, match=r"than the engine returns \(64\).*--max-logprobs 65"):
        OpenAIModel(URLS["small"], top_k=65)


def test_transformers_serve_is_refused_as_it_drops_them() -> None:
    """It answers 200, without a word on what it left out."""
    with pytest.raises(ConfigError, match=r"returned no log-probabilities.*Use one that returns"):
        OpenAIModel(URLS["transformers"], str(tiny.SMALL), top_k=9)
    model = OpenAIModel(URLS["transformers"], str(tiny.SMALL))
    said = Conversation((Message("user", ("Hello",)),))
    [plain] = model.generate([said], Sampling(max_tokens=4))
    assert plain.error is None  # it does answer
    [row] = model.generate([said], Sampling(max_tokens=4, top_k=9))
    assert "returned no log-probabilities" in (row.error or "") and row.text == ""
    model.close()


def counted(url: str, what: str) -> float:
    """One of the engine's own counts."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url.removesuffix("/v1") + "/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    found = [float(line.split()[-1]) for line in lines if line.startswith(what + "{")]
    assert found, f"the engine has no count {what}"
    return sum(found)


def test_a_row_that_is_dropped_ends_in_the_engine() -> None:
    url, under_way = URLS["small"], "vllm:num_requests_running"
    model = OpenAIModel(url, extra_body={"ignore_eos": True})
    before = counted(url, "vllm:generation_tokens_total")
    session = model.session(Sampling(max_tokens=1900))
    assert session is not None
    session.add(0, Conversation((Message("user", ("Count.",)),)))
    until = time.monotonic() + 60
    while counted(url, under_way) != 1:
        assert time.monotonic() < until
    session.drop(0)
    while counted(url, under_way) != 0:
        assert time.monotonic() < until
    made = counted(url, "vllm:generation_tokens_total") - before
    session.close()
    model.close()
    tell(f"dropped: after {made:.0f} of 1900 tokens")
    assert 0 < made < 1900


def test_a_judge_takes_what_a_capped_server_has(
    near: dict[str, HFModel], far: dict[str, OpenAIModel]
) -> None:
    sampling = Sampling(max_tokens=1, first_token=True)
    [ours], [theirs] = (models["large"].generate(asked(1), sampling) for models in (near, far))
    assert theirs.error is None
    for said, chance in theirs.first_token.items():
        assert chance == pytest.approx(ours.first_token.get(said, 0.0), abs=1e-4)


def test_tokens_that_are_drawn_keep_the_k_largest(far: dict[str, OpenAIModel]) -> None:
    """At a temperature the drawn token is listed too; it must not push the K-th out."""
    conversation = Conversation((Message("user", ("zx",)),))  # not what it was trained on
    hot = Sampling(max_tokens=1, top_k=19, temperature=2.0, seed=3)
    [greedy] = far["large"].generate([conversation], Sampling(max_tokens=1, top_k=19))
    drawn = far["large"].generate([conversation] * 32, hot)
    assert [row.error for row in drawn] == [None] * 32
    assert any(row.token_ids != greedy.token_ids for row in drawn)
    for row in drawn:
        np.testing.assert_allclose(row.top_logprobs, greedy.top_logprobs, atol=1e-3)


def tell(figures: str) -> None:
    print(figures)  # noqa: T201  (shown by -s)
