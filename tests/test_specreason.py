"""The small model proposes steps, the large one scores and replaces them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes import tiny
from speceyes.errors import ConfigError
from speceyes.models import HFModel
from speceyes.models.scripted import ScriptedModel
from speceyes.strategies import SpecReason
from speceyes.strategies.specreason import utility
from speceyes.tiny.scenes import questions
from speceyes.types import Query

DOT = Image.new("RGB", (64, 64))
ZOOM = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 32, 32]}}'
CALL = f"<tool_call>{ZOOM}</tool_call>"
BLUE, RED = "<answer>blue</answer>", "<answer>red</answer>"


def large(score: Any, turn: Any = BLUE) -> ScriptedModel:
    return ScriptedModel({"0 to 9": score, "": turn}, name="large")


def test_an_accepted_step_is_the_small_ones_and_tools_work_inside_it() -> None:
    run = SpecReason(large("8"), ScriptedModel([CALL, RED]), tools=["zoom"])
    [result] = run([Query("Which?", (DOT,))])
    assert (result.answer, result.route) == ("red", "agent")
    assert result.trajectory is not None and result.trajectory.depth == 1
    assert result.trajectory.steps[0].observations[0].images[0].size == (32, 32)
    assert (run.steps.proposed, run.steps.accepted) == (2, 2)
    assert run.steps.small_tokens > 0 and run.steps.large_tokens == 2


@pytest.mark.parametrize(("score", "answer"), [("6", "blue"), ("7", "red"), ("no idea", "blue")])
@pytest.mark.parametrize("parity", [False, True])
def test_seven_stands_and_less_is_replaced(score: str, answer: str, parity: bool) -> None:
    run = SpecReason(large(score), ScriptedModel(RED), parity=parity)
    [result] = run([Query("Which?", (DOT,))])
    assert result.answer == answer
    assert run.steps.unread == (score == "no idea")


def test_parity_reads_the_text_where_the_probabilities_say_otherwise() -> None:
    said = "I give it 9"  # its first token is no digit
    assert SpecReason(large(said), ScriptedModel(RED))([Query("?", (DOT,))])[0].answer == "blue"
    run = SpecReason(large(said), ScriptedModel(RED), parity=True)
    assert run([Query("?", (DOT,))])[0].answer == "red"


@pytest.mark.parametrize("proposal", [RuntimeError("gone"), "", "<answer>" + "very " * 600])
def test_what_is_no_whole_step_is_the_large_ones(proposal: Any) -> None:
    run = SpecReason(large("9"), ScriptedModel(proposal), max_tokens=100)
    [result] = run([Query("Which?", (DOT,))])
    assert result.answer == "blue" and run.steps.accepted == 0


def test_a_query_that_fails_is_its_own() -> None:
    turn = {"broken": RuntimeError("gone"), "": BLUE}
    run = SpecReason(large("0", turn), ScriptedModel(RED))
    results = run([Query("fine", (DOT,)), Query("broken", (DOT,)), Query("fine", (DOT,))])
    assert [r.route for r in results] == ["agent", "error", "agent"]


def test_a_call_is_replaced_where_its_boxes_would_be_misread() -> None:
    small = ScriptedModel([CALL, RED], seen=lambda image: (32, 32))
    run = SpecReason(large("9", [CALL, BLUE]), small)
    [result] = run([Query("Which?", (DOT,))])
    assert result.answer == "red" and result.trajectory is not None
    assert result.trajectory.steps[0].observations[0].box == (0.0, 0.0, 32.0, 32.0)
    assert (run.steps.unplaced, run.steps.accepted) == (1, 1), "an answer has no box"


def test_a_scale_that_is_none() -> None:
    with pytest.raises(ConfigError, match="accept=10"):
        SpecReason(large("9"), ScriptedModel(RED), accept=10)


@given(
    chances=st.dictionaries(
        st.sampled_from(["0", "3", " 7", "9", "\u01209", "Yes", "10", "", "7."]),
        st.floats(0, 1),
        max_size=6,
    )
)
def test_a_utility_is_a_mean_of_digits(chances: dict[str, float]) -> None:
    found = utility(chances)
    digits = {"0", "3", " 7", "9", "\u01209"} & {t for t, p in chances.items() if p > 0}
    mass = sum(chances[t] for t in ("0", "3", " 7", "9", "\u01209") if t in chances)
    if not digits or mass < 1e-3:
        assert found is None
    else:
        assert found is not None and -1e-9 <= found <= 9 + 1e-9


@given(
    scores=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    depths=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    limit=st.integers(1, 5),
)
@settings(max_examples=40, deadline=None)
def test_it_ends_within_its_bounds_and_every_answer_was_a_models(
    scores: list[int], depths: list[int], limit: int
) -> None:
    def score(conversation: Any, sampling: Any) -> str:
        turn = sum(m.role == "assistant" for m in conversation.messages)
        return str(scores[turn % len(scores)])

    def dive(depth: int, answer: str) -> list[str]:
        return [*[CALL] * depth, answer]

    keys = {f"dive {i}.": d for i, d in enumerate(depths)}
    run = SpecReason(
        large(score, {k: dive(d, BLUE) for k, d in keys.items()}),
        ScriptedModel({k: dive(d, RED) for k, d in keys.items()}),
        max_steps=limit,
        max_batch=3,
    )
    results = run([Query(k, (DOT,), id=k) for k in keys])
    assert [r.query_id for r in results] == list(keys)
    for result in results:
        assert result.trajectory is not None and len(result.trajectory.steps) <= limit
        assert result.answer in ("blue", "red", None)
    assert run.steps.proposed >= len(depths) and run.steps.accepted <= run.steps.proposed


def test_it_runs_on_real_models() -> None:
    """The large model proposes to itself, and was never taught to score: all is replaced."""
    model = HFModel.from_pretrained(tiny.LARGE)
    queries = [item.query for item in questions("heldout", 6)]
    run = SpecReason(model, model, tools=["zoom"])
    plain = SpecReason(model, model, tools=["zoom"], accept=9.0)
    results = run(queries)
    assert all(r.error is None and r.answer for r in results)
    assert run.steps.proposed >= 6 and run.steps.small_tokens > 0
    assert [r.answer for r in plain(queries)] == [r.answer for r in results]
