"""What the agent is told of a draft that the gate rejected."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from speceyes import tiny
from speceyes.agent import hint as hints
from speceyes.answerer import SpeculativeAnswerer
from speceyes.auditing import Auditor
from speceyes.calibration import GateMonitor
from speceyes.dialects import NAMES
from speceyes.errors import ConfigError
from speceyes.fallback import AgenticFallback
from speceyes.gate import SeparabilityGate
from speceyes.judge import ToolJudge
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import SpecPipeline
from speceyes.tools import Tools
from speceyes.types import Completion, Conversation, Query, Sampling, Verdict

DOT = Image.new("RGB", (48, 48))
NO = Verdict(False, 0.42, 1.0, 0.98)


class Listening:
    """An agent's model that answers, and keeps what it was asked."""

    name = "listening"

    def __init__(self) -> None:
        self.asked: list[Conversation] = []

    def seen_size(self, image: Image.Image) -> tuple[int, int]:
        return image.size

    def generate(self, conversations: Any, sampling: Sampling) -> list[Completion]:
        self.asked += conversations
        return [Completion("<answer>blue</answer>") for _ in conversations]


def funnel(
    model: Any, hint: Any, *, draft: Any = "red", margin: float = 3.0, **options: Any
) -> SpecPipeline:
    return SpecPipeline(
        answerer=SpeculativeAnswerer(ScriptedModel(draft, margin=margin), top_k=8),
        gate=SeparabilityGate(0.98, top_k=8),
        fallback=AgenticFallback(model, tools=["zoom"], hint=hint),
        **options,
    )


def said_to(model: Listening) -> str:
    return model.asked[-1].messages[-1].text


@pytest.mark.parametrize("schedule", ["batched", "overlapped", "sequential"])
def test_the_answer_and_its_score_stand_behind_everything_else(schedule: Any) -> None:
    plain, told = Listening(), Listening()
    funnel(plain, None, schedule=schedule)([(DOT, "Which colour?")])
    [result] = funnel(told, "answer", schedule=schedule)([(DOT, "Which colour?")])
    assert result.answer == "blue" and result.route == "agent"
    assert result.draft is not None and result.draft.finish == "stop"  # it didn't end early
    assert said_to(told).startswith(said_to(plain))
    behind = said_to(told).removeprefix(said_to(plain))
    assert "answered: red (confidence 0.86" in behind
    # All before the text is as it was, so that what was read of it serves again.
    assert told.asked[0].messages[0] == plain.asked[0].messages[0]
    assert told.asked[0].messages[1].content[:-1] == plain.asked[0].messages[1].content[:-1]


def test_off_by_default_and_without_a_rejected_draft() -> None:
    model = Listening()
    assert AgenticFallback(model, tools=["zoom"]).hint is None
    plain = AgenticFallback(model, tools=["zoom"])
    hinting = AgenticFallback(model, tools=["zoom"], hint="answer")
    for agent in (plain, hinting):
        agent([Query("Which colour?", (DOT,))])
    assert said_to(model) == model.asked[0].messages[-1].text
    # The judge wants tools: there is no draft.
    pipe = SpecPipeline(
        judge=ToolJudge(ScriptedModel("yes")),
        answerer=SpeculativeAnswerer(ScriptedModel("red"), top_k=8),
        gate=SeparabilityGate(0.98, top_k=8),
        fallback=hinting,
    )
    pipe([(DOT, "Which colour?")])
    assert said_to(model) == model.asked[0].messages[-1].text


def test_an_audit_is_told_nothing() -> None:
    model = Listening()
    auditor = Auditor(GateMonitor(0.05, share=1.0), lambda query, draft, agent: True)
    pipe = funnel(model, "answer", margin=12.0, auditor=auditor)
    [result] = pipe([(DOT, "Which colour?")])
    assert result.route == "draft" and len(model.asked) == 1
    assert "glance" not in said_to(model)


@pytest.mark.parametrize(
    ("hint", "draft", "expected"),
    [
        ("answer", Completion("<think>It is far.</think> red\n"), "answered: red (confidence 0.42"),
        ("reasoning", Completion("<think>It is far.</think> red"), "It is far.</think> red"),
        (lambda q, d, v: f"{q.question} {d.text} {v.threshold}", Completion("red"), "? red 0.98"),
        ("answer", Completion("red"), "red"),
        ("answer", Completion("{score}"), "answered: {score} (confidence 0.42"),
    ],
)
def test_what_is_told(hint: Any, draft: Completion, expected: str) -> None:
    assert expected in hints.told(hint, Query("Which?", (DOT,)), draft, NO)


@pytest.mark.parametrize(
    ("draft", "verdict"),
    [
        (Completion(" "), NO),
        (Completion.failed("gone"), NO),
        (Completion("red", finish="rejected"), NO),
        (Completion("a long", finish="length"), NO),
        (Completion("<think>red</think> "), NO),
        (Completion("red"), Verdict(True, 0.99, 9.0, 0.98)),
    ],
)
def test_when_nothing_is_told(draft: Completion, verdict: Verdict) -> None:
    assert hints.told("answer", Query("Which?", (DOT,)), draft, verdict) == ""


def test_a_hint_that_fails_is_none() -> None:
    def broken(query: Query, draft: Completion, verdict: Verdict) -> str:
        raise ZeroDivisionError

    plain, told = Listening(), Listening()
    funnel(plain, None)([(DOT, "Which colour?")])
    [result] = funnel(told, broken)([(DOT, "Which colour?")])
    assert result.answer == "blue" and said_to(told) == said_to(plain)


def test_what_is_no_hint_is_refused() -> None:
    with pytest.raises(ConfigError, match="hint='draft'"):
        AgenticFallback(Listening(), tools=["zoom"], hint="draft")  # type: ignore[arg-type]


@given(text=st.text(min_size=1), name=st.sampled_from(NAMES))
def test_every_dialects_opening_keeps_all_that_stands_before(text: str, name: str) -> None:
    from speceyes.dialects import dialect

    query = Query("Which colour?", (DOT, DOT))
    before = dialect(name, Listening()).open(query, tuple(Tools(["zoom"])))
    after = hints.hinted(before, text)
    assert after.messages[:-1] == before.messages[:-1] and after.images == before.images
    assert after.messages[-1].text == f"{before.messages[-1].text}\n{text}"
    assert (after.tools, after.prefill) == (before.tools, before.prefill)


@pytest.mark.skipif(not tiny.LARGE.is_dir(), reason="the tiny pair's weights are not here")
def test_images_are_not_read_again_for_a_hint() -> None:
    from speceyes.models import HFModel
    from speceyes.tiny.scenes import questions

    large = HFModel.from_pretrained(tiny.LARGE)
    [item] = questions("heldout", 1)
    agent = AgenticFallback(large, tools=["zoom"], max_tokens=96, max_steps=2, hint="answer")
    agent([item.query])
    before = large.spent
    run = agent.begin()
    run.add(0, item.query, (Completion("red"), NO))
    while run.live:
        run.step()
    run.close()
    first = large.spent.reused - before.reused
    # The system's text, the image (64 tokens) and the question were there already.
    assert first > 64
