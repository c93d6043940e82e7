"""The bundled pair, loaded as any checkpoint is, through the whole funnel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer

from speceyes import tiny
from speceyes.answerer import SpeculativeAnswerer
from speceyes.evaluation.grading import is_correct
from speceyes.fallback import AgenticFallback
from speceyes.gate import SeparabilityGate
from speceyes.judge import ToolJudge
from speceyes.models.hf import HFModel
from speceyes.pipeline import AgentConfig, SpecPipeline
from speceyes.tiny.scenes import Item, questions
from speceyes.tiny.training.models import system_text
from speceyes.tiny.training.pair import agreement, choose, figures, record
from speceyes.tools import Tools
from speceyes.types import Conversation, Message, Result, Sampling

N = 64
TURN_TOKENS = 96


@pytest.fixture(scope="module")
def large() -> HFModel:
    return HFModel.from_pretrained(tiny.LARGE, device="cpu")


@pytest.fixture(scope="module")
def small() -> HFModel:
    return HFModel.from_pretrained(tiny.SMALL, device="cpu")


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return list(questions("heldout", N, start=10_000))


@pytest.fixture(scope="module")
def pipe(large: HFModel, small: HFModel) -> SpecPipeline:
    gate = {key: tiny.settings()[key] for key in ("threshold", "top_k", "aggregate")}
    return SpecPipeline.from_pretrained(
        large, small, agent=AgentConfig(max_tokens=TURN_TOKENS), gate=SeparabilityGate(**gate)
    )


@pytest.fixture(scope="module")
def results(pipe: SpecPipeline, items: list[Item]) -> list[Result]:
    return pipe([item.query for item in items])


def test_all_fit_in_twelve_megabytes() -> None:
    size = sum(path.stat().st_size for path in tiny.WEIGHTS.rglob("*") if path.is_file())
    assert size <= 12_000_000


def test_fixed_texts_are_single_tokens() -> None:
    """What the phases send is what was trained: the system text is one known token."""
    for folder in (tiny.LARGE, tiny.SMALL, tiny.SMALL_JUDGE, tiny.SMALL_ZOOM):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert len(tokenizer(system_text())["input_ids"]) == 1


def test_the_funnel_is_right_about_as_often_as_measured(
    results: list[Result], items: list[Item]
) -> None:
    """Three standard errors under the share that settings.json promises on held-out scenes."""
    promised = tiny.settings()["heldout"]["funnel"]["share"]
    right = np.mean([is_correct(r.answer, i.answer) for r, i in zip(results, items, strict=True)])
    assert right >= promised - 3 * (promised * (1 - promised) / N) ** 0.5 - 0.01
    assert promised >= 0.9


def test_every_route_is_taken_and_recorded(results: list[Result]) -> None:
    assert {r.route for r in results} == {"draft", "agent"}
    for result in results:
        assert result.error is None
        assert result.judgement is not None
        assert (result.draft is None) == result.judgement.needs_tools
        accepted = result.verdict is not None and result.verdict.accepted
        assert accepted == (result.route == "draft") == (result.trajectory is None)
        assert Result.from_json(result.to_json()).answer == result.answer
    rejected = [r for r in results if r.verdict is not None and not r.verdict.accepted]
    assert rejected, "the gate had nothing to do"


def test_the_agent_zooms_with_real_calls(results: list[Result], items: list[Item]) -> None:
    ways = [r.trajectory for r in results if r.trajectory is not None]
    assert np.mean([way.depth > 0 for way in ways]) > 0.5
    by_id = {item.query.id: item.query.images[0] for item in items}
    looked = 0
    for result in results:
        for step in result.trajectory.steps if result.trajectory else ():
            for seen in step.observations:
                if seen.box is not None and seen.source == 0:
                    left, top, right, bottom = (int(v) for v in seen.box)
                    [crop] = seen.images
                    whole = by_id[result.query_id]
                    assert crop.tobytes() == whole.crop((left, top, right, bottom)).tobytes()
                    looked += 1
    assert looked > 5


def test_a_query_alone_is_what_it_is_in_a_batch(
    pipe: SpecPipeline, results: list[Result], items: list[Item]
) -> None:
    same = [
        (alone.answer, alone.route) == (result.answer, result.route)
        for alone, result in zip((pipe(item.query) for item in items[:12]), results, strict=False)
    ]
    assert np.mean(same) >= 11 / 12


def test_batches_agree_with_single_calls(large: HFModel, small: HFModel) -> None:
    shares = agreement(large, small, 10, start=11_000)
    assert shares["draft"]["share"] == 1.0
    assert shares["agent"]["share"] >= 9 / 10


def test_the_judge_knows_large_from_tiny(large: HFModel, items: list[Item]) -> None:
    judged = ToolJudge(large, tools=Tools(["zoom"]))([item.query for item in items])
    for item, judgement in zip(items, judged, strict=True):
        assert judgement.p_tools is not None
        if item.kind.startswith("large/"):
            assert not judgement.needs_tools
    assert any(judgement.needs_tools for judgement in judged)


def test_the_small_model_can_judge_too(small: HFModel, items: list[Item]) -> None:
    """It was never taught to, so what counts is that each judgement is made or is "tools"."""
    for judgement in ToolJudge(small, dialect=None)([item.query for item in items[:8]]):
        assert judgement.needs_tools or judgement.p_tools is not None


def test_the_small_model_falls_short_where_it_should(small: HFModel, items: list[Item]) -> None:
    drafts = SpeculativeAnswerer(small, top_k=8)([item.query for item in items])
    right: dict[str, list[bool]] = {"large": [], "card": []}
    for item, draft in zip(items, drafts, strict=True):
        scale = item.kind.split("/")[0]
        if scale in right:
            right[scale].append(is_correct(draft.text, item.answer))
    assert np.mean(right["large"]) > 0.9
    assert np.mean(right["card"]) < 0.6


def test_choosing_a_gate_uses_the_records_alone(large: HFModel, small: HFModel) -> None:
    """The chooser's threshold loses no more than allowed on what it was chosen on."""
    records = record(large, small, "calibration", 48, start=5_000)
    chosen = choose(records)
    report = figures(records, chosen["threshold"], chosen["top_k"])
    assert report["funnel"]["share"] >= report["agent"]["share"] - 0.005 - 1e-9
    assert 0 < report["alpha"] <= 1
    assert 3 <= chosen["top_k"] <= 32


def test_a_photograph_gets_an_answer_of_some_kind(pipe: SpecPipeline, tmp_path: Path) -> None:
    """The pair knows nothing of photographs, and must not break on them."""
    noise = np.random.default_rng(0).integers(0, 255, (333, 777, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg")
    result = pipe(tmp_path / "photo.jpg", "What colour is the dog's collar?")
    assert result.answer or result.error


def test_the_agent_recovers_from_a_refused_call(large: HFModel, items: list[Item]) -> None:
    """Without a zoom tool every call is answered by an error, and the agent still ends."""
    agent = AgenticFallback(large, tools=Tools(["rotate"]), max_steps=3, max_tokens=TURN_TOKENS)
    for way in agent([item.query for item in items[:3]]):
        assert way.stop in ("answered", "max_steps")
        assert len(way.steps) <= 3


def test_asked_directly_it_answers_at_once(large: HFModel, items: list[Item]) -> None:
    from speceyes.dialects.deepeyes import DeepEyesDialect

    tools = tuple(Tools(["zoom"]))
    asked = [DeepEyesDialect().ask_direct(item.query, tools) for item in items[:24]]
    said = large.generate(asked, Sampling(max_tokens=16))
    assert all("<" not in completion.text for completion in said)
    assert all(len(completion.token_ids) <= 4 for completion in said)


def test_top_k_above_the_vocabulary_is_refused(small: HFModel) -> None:
    from speceyes.errors import ConfigError

    conversation = Conversation((Message("user", (Image.new("RGB", (64, 64)), "?")),))
    with pytest.raises(ConfigError, match="vocabulary"):
        small.generate([conversation], Sampling(top_k=100_000))
