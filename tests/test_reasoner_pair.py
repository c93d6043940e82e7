"""The bundled pair that reasons: reasoning helps it, its own and another's, and `eval` takes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from speceyes import tiny
from speceyes.cli import main
from speceyes.evaluation import transfer_costs
from speceyes.evaluation.grading import is_correct
from speceyes.evaluation.runs import TEST, read
from speceyes.models import OpenAIModel
from speceyes.models.hf import HFModel
from speceyes.models.rows import generate_rows
from speceyes.strategies import Reasoner, ReasoningTransfer, Selector, TransferRule, questions
from speceyes.strategies.reasoning_transfer import TellsAttention
from speceyes.tiny import puzzles
from speceyes.types import Sampling
from support.engine_server import serving

pytestmark = pytest.mark.skipif(
    not tiny.REASONER_LARGE.is_dir(), reason="the weights are not in this checkout"
)
N = 64


@pytest.fixture(scope="module")
def large() -> HFModel:
    return HFModel.from_pretrained(tiny.REASONER_LARGE)


@pytest.fixture(scope="module")
def small() -> HFModel:
    return HFModel.from_pretrained(tiny.REASONER_SMALL)


@pytest.fixture(scope="module")
def items() -> list[puzzles.Item]:
    return list(puzzles.questions("heldout", N, start=5000))


def right(items: list[puzzles.Item], said: list[str | None]) -> int:
    return sum(is_correct(one, item.answer) for one, item in zip(said, items, strict=True))


def test_the_small_model_is_right_more_often_behind_its_reasoning(
    small: HFModel, items: list[puzzles.Item]
) -> None:
    queries = [item.query for item in items]
    at_once, behind = (
        right(items, [r.answer for r in Reasoner(small, reason=reason, batch_size=N)(queries)])
        for reason in (False, True)
    )
    assert behind > at_once


def test_the_large_model_reads_right_notes(large: HFModel, items: list[puzzles.Item]) -> None:
    sampling = Sampling(max_tokens=20)
    notes = []
    for at in range(N):
        scene, puzzle = puzzles.draw("heldout", 5000 + at)
        solution = puzzle.solve(scene)
        assert solution is not None
        notes.append(" ".join(solution.reasoning))
    at_once, noted = (
        right(items, [c.text for c in generate_rows(large, asked, sampling)])
        for asked in (
            [questions.short(item.query) for item in items],
            [questions.noted(i.query, note) for i, note in zip(items, notes, strict=True)],
        )
    )
    assert noted >= at_once + N // 8


def test_its_heads_are_the_small_models(small: HFModel) -> None:
    chosen = tiny.reasoner_settings()
    text = small.config.get_text_config()
    assert chosen["heads"] and isinstance(small, TellsAttention) and small.tells_attention
    for layer, head in chosen["heads"]:
        assert layer < text.num_hidden_layers and head < text.num_attention_heads


def test_a_token_of_the_large_one_is_dearer(large: HFModel, small: HFModel) -> None:
    layers = [m.config.get_text_config().num_hidden_layers for m in (large, small)]
    assert layers[0] >= 3 * layers[1]


def test_transfer_keeps_what_was_asked_for(
    large: HFModel, small: HFModel, items: list[puzzles.Item]
) -> None:
    heads = tiny.reasoner_settings()["heads"]
    run = ReasoningTransfer(large, small, keep=Selector("attended", 0.5, heads=heads))
    results = run([item.query for item in items[:16]])
    counted = run.transferred
    assert all(result.error is None for result in results) and counted.agreed < 16
    assert 0.4 * counted.written < counted.kept < 0.6 * counted.written


def test_over_engines_transfer_is_what_it_is_here(
    large: HFModel, small: HFModel, items: list[puzzles.Item]
) -> None:
    """Under the rule, in a turn, read first: all that engines must be able to do."""
    chosen = tiny.reasoner_settings()
    options = {
        "rule": TransferRule.from_dict(chosen["rule"]),
        "place": chosen["place"],
        "credible": chosen["credible"],
    }
    asked = [item.query for item in items[:6]]
    here = ReasoningTransfer(large, small, **options)
    answers = [result.answer for result in here(asked)]
    with serving({"large": large, "small": small}) as (url, _):
        engines = [OpenAIModel(url, name, timeout_s=60) for name in ("large", "small")]
        there = ReasoningTransfer(*engines, **options)
        assert [result.answer for result in there(asked)] == answers
    assert there.transferred == here.transferred


@pytest.mark.parametrize("n", [1, pytest.param(8, marks=pytest.mark.exhaustive)])
def test_eval_takes_the_pair_for_puzzles_by_itself(tmp_path: Path, n: int) -> None:
    out = tmp_path / "run"
    words = ["--limit", str(n), "--calibration-share", "0", "--threshold", "0.9", "--quiet"]
    named = ["--arms", "transfer,transfer-credible", "--out", str(out)]
    assert main(["eval", "puzzles", *words, *named]) == 0
    done = read(out)
    assert "reasoner" in json.dumps(done.fixed["models"]) and done.fixed["context"]["heads"]
    for name in ("transfer", "transfer-credible"):
        assert {record.result.error for record in done.of(TEST, name)} == {None}
    if n == 1:  # not enough to tell a pace by; test_break_even.py measures one
        return
    figures = json.loads((out / transfer_costs.FILE).read_text())
    tokens, said = figures["tokens"], figures["predicted"]
    assert tokens["reasoning"] > 10 and tokens["alone"] > tokens["answer"] >= 1
    assert min(said["transferred"], said["alone"], *figures["measured"].values()) > 0
    assert "should take" in transfer_costs.lines(out)[0] and transfer_costs.lines(tmp_path) == []
