"""Warnings of a pipeline that can't be doing its work: once each, with what to do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from speceyes import SpecPipeline, tiny
from speceyes.errors import ConfigError
from speceyes.models import ScriptedModel
from speceyes.pipeline.health import Health
from speceyes.types import Completion, Judgement, Query, Result, Trajectory, Verdict

RED = Image.new("RGB", (64, 48), "red")
NO = Judgement(False, 0.1, Completion("no"))
YES = Judgement(True, 0.9, Completion("yes"))
GOOD = Completion("red")
ACCEPTED = Verdict(True, 0.99, 9.0, 0.98)
REJECTED = Verdict(False, 0.91, 3.0, 0.98)
ANSWERED = Trajectory((), "red", "answered")
LOST = Trajectory((), None, "error", "the engine is gone")


def result(**parts: Any) -> Result:
    return Result("1", "red", "agent", **parts)


def told(health: Health, *results: Result) -> list[str]:
    return [warning for one in results for warning in health.note(one)]


@pytest.mark.parametrize(
    "parts, words",
    [
        (
            {"judgement": Judgement(True, reason="the judge failed: no logprobs")},
            ("10 judgements failed", "no logprobs", "parity=True"),
        ),
        (
            {"judgement": Judgement(True, None, Completion("hm"), "neither yes nor no has")},
            ("10 judgements failed", "neither yes nor no"),
        ),
        (
            {"judgement": Judgement(True, reason="RuntimeError: boom")},
            ("10 judgements failed", "boom"),
        ),
        ({"draft": Completion.failed("top_k=64 is more")}, ("10 drafts failed", "top_k=64")),
        (
            {"draft": Completion("a", finish="length")},
            ("10 drafts were cut", "DraftConfig(max_tokens"),
        ),
        ({"trajectory": LOST}, ("10 queries of the agent failed", "the engine is gone")),
    ],
)
def test_ten_failures_running_are_told_once(parts: dict[str, Any], words: tuple[str, ...]) -> None:
    health = Health()
    assert told(health, *[result(**parts)] * 9) == []
    [warning] = told(health, result(**parts))
    for word in words:
        assert word in warning
    assert told(health, *[result(**parts)] * 50) == []


def test_a_success_between_begins_the_count_anew() -> None:
    health = Health()
    for parts, fine in (
        ({"draft": Completion.failed("x")}, {"draft": GOOD}),
        ({"judgement": Judgement(True, reason="the judge failed: x")}, {"judgement": NO}),
        ({"trajectory": LOST}, {"trajectory": ANSWERED}),
    ):
        for _ in range(5):
            assert told(health, *[result(**parts)] * 9, result(**fine)) == []


def test_a_gate_that_accepts_nothing_is_told_with_its_best_score() -> None:
    health = Health()
    assert told(health, *[result(verdict=REJECTED)] * 199) == []
    [warning] = told(health, result(verdict=REJECTED))
    assert "none of the last 200 drafts" in warning and "best score was 0.91" in warning
    assert "200 times: below the threshold" in warning
    assert "speceyes calibrate" in warning and "speculate='auto'" in warning
    assert told(health, *[result(verdict=REJECTED)] * 400) == []


def test_the_commonest_reason_of_a_gate_is_told() -> None:
    health = Health(rejections=5)
    cut = Verdict(False, None, None, 0.98, reason="the draft was cut at its token limit")
    [warning] = told(health, *[result(verdict=v) for v in (cut, REJECTED, cut, cut, cut)])
    assert "4 times: the draft was cut" in warning


def test_one_draft_in_two_hundred_is_enough_for_silence() -> None:
    health = Health()
    for _ in range(3):
        assert told(health, *[result(verdict=REJECTED)] * 199, result(verdict=ACCEPTED)) == []


def test_a_judge_that_lets_nothing_through_is_told() -> None:
    health = Health(rejections=20)
    assert told(health, *[result(judgement=YES)] * 19) == []
    [warning] = told(health, result(judgement=YES))
    assert "last 20 queries" in warning and "JudgeConfig(threshold" in warning


def test_what_is_meant_to_be_so_is_no_failure() -> None:
    """Rules that decide without a model."""
    health = Health()
    ruled = result(judgement=Judgement(True, reason="it asks to count"))
    assert told(health, *[ruled] * 300) == []


@given(st.lists(st.sampled_from([ACCEPTED, REJECTED]), max_size=60))
def test_it_warns_exactly_where_so_many_rejections_run(verdicts: list[Verdict]) -> None:
    warnings = told(Health(rejections=5), *[result(verdict=v) for v in verdicts])
    text = "".join("r" if v is REJECTED else "a" for v in verdicts)
    assert len(warnings) == ("rrrrr" in text)


def test_a_pipeline_whose_draft_model_is_broken_is_found_by_its_results() -> None:
    def broken(conversation: Any, sampling: Any) -> str:
        raise RuntimeError("out of blocks")

    pipe = SpecPipeline.from_pretrained(
        ScriptedModel({"one word": "no", "": "<answer>red</answer>"}), ScriptedModel(broken)
    )
    results = pipe([Query("Which colour?", (RED,))] * 12)
    assert {one.answer for one in results} == {"red"}
    [warning] = told(Health(), *results)
    assert "drafts failed" in warning and "out of blocks" in warning


@pytest.mark.parametrize("bundled", [True, False])
def test_a_pipeline_of_the_bundled_models_says_what_they_know(
    bundled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    small = tiny.SMALL if bundled else ScriptedModel("red")
    SpecPipeline.from_pretrained(ScriptedModel("red"), small, judge=None)
    told = [one for one in caplog.messages if "know only their own synthetic scenes" in one]
    assert len(told) == bundled


@pytest.mark.parametrize("wrong", [{"failures": 0}, {"rejections": 0}, {"failures": 1.5}])
def test_numbers_that_can_not_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Health(**wrong)
