"""The bundled drafter that judges: what it says, and the funnels that it stands in front of."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from speceyes import DraftConfig, SpecPipeline, tiny
from speceyes.answerer import SpeculativeAnswerer, asks_to_look
from speceyes.cli import models
from speceyes.evaluation.grading import is_correct
from speceyes.gate import SeparabilityGate
from speceyes.models.hf import HFModel
from speceyes.pipeline import Rung
from speceyes.strategies.cascade import drafter_of
from speceyes.tiny.scenes import Item, questions
from speceyes.tiny.training.lessons import COARSE, TOKENS, Lessons, coarse_labels
from speceyes.tiny.training.models import JUDGE_PHRASES, SMALL_SIZE, build_tokenizer

weights = pytest.mark.skipif(not tiny.SMALL_JUDGE.is_dir(), reason="the weights are not here")
N = 36


@pytest.fixture(scope="module")
def judging() -> HFModel:
    return HFModel.from_pretrained(tiny.SMALL_JUDGE, device="cpu")


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return list(questions("heldout", N, start=20_000))


@weights
def test_it_judges_as_the_large_model_is_taught_at_both_sizes(
    judging: HFModel, items: list[Item]
) -> None:
    queries = [item.query for item in items]
    whole = SpeculativeAnswerer(judging, top_k=9)
    for answerer in (whole, whole.on(int(tiny.judge_settings()["rung_pixels"]))):
        words = answerer.judge()(queries)
        assert all(word.p_tools is not None for word in words)
        right = [w.needs_tools == i.needs_tools for w, i in zip(words, items, strict=True)]
        assert np.mean(right) >= 0.95
    looking = SpeculativeAnswerer(judging, top_k=9, may_look=True)(queries)
    asks = [asks_to_look(d.text) == i.needs_tools for d, i in zip(looking, items, strict=True)]
    assert np.mean(asks) >= 0.9


@weights
@pytest.mark.parametrize("judge", ["small", "draft"])
def test_a_funnel_is_about_as_right_as_behind_the_large_judge(
    judging: HFModel, items: list[Item], judge: str
) -> None:
    found = tiny.judge_settings()
    gate = SeparabilityGate(found["thresholds"][judge], top_k=found["top_k"])
    pipe = SpecPipeline.from_pretrained(tiny.LARGE, judging, judge=judge, gate=gate)
    results = pipe([item.query for item in items])
    routes = Counter(result.route for result in results)
    assert routes["draft"] >= N // 3 and routes["agent"] >= N // 8
    right = [is_correct(r.answer, i.answer) for r, i in zip(results, items, strict=True)]
    assert np.mean(right) >= 0.9
    assert all(result.judgement is not None for result in results)


@weights
def test_a_ladder_takes_some_drafts_from_fewer_pixels(judging: HFModel, items: list[Item]) -> None:
    found = tiny.judge_settings()
    few = Rung(int(found["rung_pixels"]), found["thresholds"]["rung"])
    assert judging.seen_size(Image.new("L", (60, 60))) == (60, 60)
    pipe = SpecPipeline.from_pretrained(
        small=judging,
        judge=None,
        gate=SeparabilityGate(found["thresholds"]["none"], top_k=found["top_k"]),
        draft=DraftConfig(ladder=[few]),
    )
    results = pipe([item.query for item in items])
    rungs = Counter(drafter_of(r) for r in results if r.route == "draft")
    assert rungs[0] and rungs[1]


@weights
def test_the_command_line_takes_it_where_the_drafter_judges() -> None:
    assert models.named_pair(None, None)[1] == str(tiny.SMALL)
    assert models.named_pair(None, None, judging=True)[1] == str(tiny.SMALL_JUDGE)
    assert models.named_pair("a", "b", judging=True) == ("a", "b", False)
    assert models.named_pair(None, "none", judging=True)[1] == "none"
    thresholds = tiny.judge_settings()["thresholds"]
    for judge in ("small", "draft"):
        assert models.bundled_settings(judge)["threshold"] == thresholds[judge]
    assert models.bundled_settings()["threshold"] == tiny.settings()["threshold"]


def test_a_smaller_view_is_labelled_by_what_stands_alone_in_a_token() -> None:
    lessons = Lessons(
        build_tokenizer(JUDGE_PHRASES),
        SMALL_SIZE,
        large=False,
        judges=True,
        seed=1,
        scenes_a_batch=2,
    )
    sizes = {lessons.batch(number).views.shape[1] for number in range(3)}
    assert sizes == {SMALL_SIZE.view, SMALL_SIZE.view * COARSE // TOKENS}
    rng = np.random.default_rng(0)
    for _ in range(20):
        scene = lessons.scene(rng)
        labels = coarse_labels(scene)
        things = [*scene.large, *scene.small, *scene.cards]
        at = Counter(int(o.y * COARSE) * COARSE + int(o.x * COARSE) for o in things)
        assert labels.shape == (COARSE * COARSE, 7)
        assert [labels[t, 2] > 0 for t in range(9)] == [at[t] == 1 for t in range(9)]
        assert [labels[t, 2] == 0 for t in range(9)] == [at[t] == 0 for t in range(9)]
        assert labels[:, 5:].max() <= 6 and labels[:, 5:].min() >= -1
