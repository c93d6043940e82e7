"""Phase I: reading yes and no, the dial, and what can't be read."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from speceyes import prompts
from speceyes.dialects.deepeyes import DeepEyesDialect
from speceyes.errors import ConfigError, ModelError
from speceyes.judge import ToolJudge, tool_probability
from speceyes.models.scripted import ScriptedModel
from speceyes.protocols import Tool
from speceyes.tools.zoom import Zoom
from speceyes.types import Completion, Conversation, Query, Sampling
from support.models import FakeModel

PICTURE = Image.new("RGB", (64, 48), "red")


def ask(number: int = 0, question: str = "Which colour is the collar?") -> Query:
    return Query(f"{question} #{number}", (PICTURE,))


def says(**first: float) -> Completion:
    return Completion(max(first, key=lambda k: first[k]), (1,), first_token=first)


# --- the probability --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ({"yes": 1.0}, 1.0),
        ({"no": 1.0}, 0.0),
        ({"yes": 0.3, "no": 0.1}, 0.75),
        ({"Yes": 0.1, " yes": 0.1, "\u2581YES": 0.1, "no": 0.1}, 0.75),
        ({"\u0120no": 0.1, "No.": 0.1, "NO,": 0.1, '"Yes': 0.1}, 0.25),
        ({"yes": 0.2, "not": 0.6, "none": 0.1, "yesterday": 0.1}, 1.0),
        ({"no": 0.2, "noyes": 0.8}, 0.0),
    ],
)
def test_every_variant_of_the_two_words_counts_and_no_other(
    first: dict[str, float], expected: float
) -> None:
    assert tool_probability(first) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "first",
    [
        {},
        {"maybe": 1.0},
        {"yes": 0.0, "no": 0.0},
        {"yes": 6e-4, "no": 3e-4, "<think>": 0.999},
        {"yes": math.nan, "no": 0.5},
        {"yes": math.inf, "no": 0.5},
        {"yes": 0.9, "no": -0.1},
    ],
)
def test_what_has_no_mass_on_either_cannot_be_read(first: dict[str, float]) -> None:
    assert tool_probability(first) is None


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 1))
def test_the_probability_is_a_ratio_in_the_unit_interval(
    yes: float, no: float, scale: float
) -> None:
    p = tool_probability({"yes": yes, "no": no}, min_mass=1e-9)
    scaled = tool_probability({"yes": yes * scale, "no": no * scale}, min_mass=1e-12)
    assert (p is None) == (yes + no < 1e-9)
    if p is not None and scaled is not None:
        assert 0 <= p <= 1
        assert scaled == pytest.approx(p, rel=1e-6, abs=1e-9)


# --- the decision -----------------------------------------------------------------------------


def test_one_batch_with_one_token_and_first_token_probabilities() -> None:
    model = FakeModel({"#0": "no", "": "yes"})
    judgements = ToolJudge(model, tools=(Zoom(),))([ask(0), ask(2)])
    assert [j.needs_tools for j in judgements] == [False, True]
    assert [j.p_tools for j in judgements] == [0.0, 1.0]
    assert [len(batch) for batch in model.batches] == [2]
    assert model.samplings == [Sampling(max_tokens=1, first_token=True)]
    assert ToolJudge(model)([]) == []
    assert len(model.batches) == 1


@given(p=st.floats(0.001, 1), low=st.floats(0, 1), high=st.floats(0, 1))
def test_a_higher_threshold_never_sends_more_to_the_agent(
    p: float, low: float, high: float
) -> None:
    low, high = sorted((low, high))
    model = ScriptedModel(says(yes=p, no=1 - p))
    needs = [
        ToolJudge(model, threshold=threshold)([ask()])[0].needs_tools for threshold in (low, high)
    ]
    assert needs[0] or not needs[1]
    p_tools = ToolJudge(model)([ask()])[0].p_tools
    assert p_tools is not None
    assert needs == [p_tools >= low, p_tools >= high]


@pytest.mark.parametrize(
    ("threshold", "p", "needs"),
    [(0, 0.0, True), (0, 1.0, True), (1, 0.999, False), (1, 1.0, True), (0.5, 0.5, True)],
)
def test_the_ends_of_the_dial(threshold: float, p: float, needs: bool) -> None:
    model = ScriptedModel(says(yes=p, no=1 - p))
    assert ToolJudge(model, threshold=threshold)([ask()])[0].needs_tools is needs


@pytest.mark.parametrize("threshold", [0, 0.5, 1])
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (says(maybe=0.9, yes=0.00001), "likeliest beginning is 'maybe'"),
        (Completion("no", (1,)), "no first-token probabilities"),
        (Completion(""), "no first-token probabilities"),
        (Completion.failed("out of memory"), "the judge failed: out of memory"),
        (Completion("no", finish="error"), "the judge failed"),
        (ModelError("gone"), "ModelError: gone"),
    ],
)
def test_what_cannot_be_read_means_tools_at_every_threshold(
    said: Completion | Exception, reason: str, threshold: float
) -> None:
    [judgement] = ToolJudge(ScriptedModel(said), threshold=threshold)([ask()])
    assert judgement.needs_tools
    assert judgement.p_tools is None
    assert reason in judgement.reason


@pytest.mark.parametrize("arguments", [{"threshold": -0.1}, {"threshold": 1.1}, {"min_mass": 2}])
def test_a_probability_outside_the_unit_interval_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be a probability, 0 to 1"):
        ToolJudge(ScriptedModel("no"), **arguments)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="nan"):
        ToolJudge(ScriptedModel("no"), threshold=math.nan)


def test_an_unknown_dialect_or_tool_is_refused_at_construction() -> None:
    with pytest.raises(ConfigError, match="klingon"):
        ToolJudge(ScriptedModel("no"), dialect="klingon")
    with pytest.raises(ConfigError, match="hammer"):
        ToolJudge(ScriptedModel("no"), tools=["hammer"])


# --- one row's trouble ------------------------------------------------------------------------


def with_number_one(batch: Sequence[Conversation]) -> Exception | None:
    guilty = any("#1" in c.messages[-1].text for c in batch)
    return RuntimeError("kernel died") if guilty else None


def test_a_model_that_raises_for_a_batch_costs_only_the_guilty_row() -> None:
    model = FakeModel("no", fails=with_number_one)
    judgements = ToolJudge(model)([ask(0), ask(1), ask(2)])
    assert [j.needs_tools for j in judgements] == [False, True, False]
    assert "kernel died" in judgements[1].reason
    assert [len(batch) for batch in model.batches] == [3, 1, 1, 1]


def test_a_dialect_that_raises_for_a_query_costs_only_that_query() -> None:
    class Brittle(DeepEyesDialect):
        def ask_judge(self, query: Query, tools: Sequence[Tool]) -> Conversation:
            if "#1" in query.question:
                raise KeyError("template")
            return DeepEyesDialect.ask_judge(self, query, tools)

    judgements = ToolJudge(ScriptedModel("no"), dialect=Brittle())([ask(0), ask(1), ask(2)])
    assert [j.needs_tools for j in judgements] == [False, True, False]
    assert "KeyError" in judgements[1].reason


def test_an_interrupt_is_not_swallowed() -> None:
    def interrupt(conversation: Conversation, sampling: Sampling) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ToolJudge(ScriptedModel(interrupt))([ask()])


# --- what is asked ----------------------------------------------------------------------------


def test_with_a_dialect_the_prompt_begins_as_the_agents_does() -> None:
    judge = ToolJudge(ScriptedModel("no"), tools=["zoom"])
    asked = judge.conversation(ask())
    agent = DeepEyesDialect().open(ask(), (Zoom(),))
    assert asked.messages[0] == agent.messages[0]
    assert "image_zoom_in_tool" in asked.messages[0].text
    assert asked.messages[1].content[:-1] == agent.messages[1].content[:-1]
    assert asked.messages[1].text.endswith(prompts.JUDGE)


def test_without_a_dialect_it_is_asked_plainly() -> None:
    query = Query("Which?", (PICTURE, PICTURE), ("red", "blue"))
    asked = ToolJudge(ScriptedModel("no"), dialect=None).conversation(query)
    assert [m.role for m in asked.messages] == ["user"]
    assert asked.messages[0].content == (
        PICTURE,
        PICTURE,
        f"Which?\n(A) red\n(B) blue\n{prompts.JUDGE}",
    )


# --- parity with the research code ------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("no", False),
        ("No, the image is clear enough.", False),
        ("NOT SURE", False),  # as the research code has it
        ("nonsense", False),
        ("yes", True),
        ("The answer is no", True),
        (" no", True),
        ("", True),
    ],
)
def test_parity_reads_the_prefix_of_ten_tokens(text: str, needs: bool) -> None:
    model = FakeModel(text)
    [judgement] = ToolJudge(model, parity=True, threshold=0)([ask()])
    assert judgement.needs_tools is needs
    assert judgement.p_tools is None
    assert model.samplings == [Sampling(max_tokens=10)]


def test_parity_takes_a_failure_for_tools() -> None:
    [judgement] = ToolJudge(ScriptedModel(ModelError("no memory")), parity=True)([ask()])
    assert judgement.needs_tools
    assert "no memory" in judgement.reason
