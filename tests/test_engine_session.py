"""An engine's rows come and go one by one: no trajectory waits for another."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from speceyes.errors import ConfigError
from speceyes.fallback import AgenticFallback
from speceyes.models import OpenAIModel, ScriptedModel
from speceyes.protocols import Session
from speceyes.types import Completion, Conversation, Message, Query, Sampling
from support.engine_server import Behaviour, Fault, refused, serving, slow
from support.processes import until

RED = Image.new("RGB", (60, 40), "red")
ZOOM = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 32, 32]}}'
CALL = f"<tool_call>{ZOOM}</tool_call>"
Served = tuple[str, Behaviour]


def ask(text: str) -> Conversation:
    return Conversation((Message("user", (RED, text)),))


def says(body: Any) -> str:
    return json.dumps(body["messages"])


@pytest.fixture
def served() -> Iterator[Served]:
    with serving({"m": ScriptedModel(lambda c, s: c.messages[0].text)}) as found:
        yield found


@pytest.fixture
def model(served: Served) -> Iterator[OpenAIModel]:
    made = OpenAIModel(served[0], "m", retries=1, backoff_s=0.01, timeout_s=30, max_concurrency=4)
    yield made
    made.close()


def begun(model: OpenAIModel, **sampling: Any) -> Session:
    session = model.session(Sampling(**sampling))
    assert session is not None
    return session


def all_of(session: Session) -> dict[int, Completion]:
    found: dict[int, Completion] = {}
    while len(session):
        for key, completion in session.step():
            assert key not in found
            found[key] = completion
    return found


def test_what_comes_back_is_what_generate_gives(model: OpenAIModel) -> None:
    sampling = Sampling(top_k=4)
    session = begun(model, top_k=4)
    texts = [f"row {i}" for i in range(10)]
    for key, text in enumerate(texts):
        session.add(key, ask(text))
    found = all_of(session)
    session.close()
    rows = model.generate([ask(text) for text in texts], sampling)
    assert [found[key].text for key in range(10)] == [row.text for row in rows] == texts
    assert [found[k].token_ids for k in range(10)] == [row.token_ids for row in rows]
    assert all(found[k].top_logprobs.shape == row.top_logprobs.shape for k, row in enumerate(rows))


def test_a_quick_row_does_not_wait_for_a_slow_one(served: Served, model: OpenAIModel) -> None:
    go = threading.Event()

    def held(number: int, body: Any) -> Fault | None:
        if "slow" in says(body):
            go.wait(20)
        return None

    served[1].early = held
    session = begun(model)
    session.add(0, ask("slow"))
    done: list[int] = []
    for key in (1, 2, 3):  # each joins while the slow one is under way
        session.add(key, ask("quick"))
        while len(session) > 1:
            done += [k for k, _ in session.step()]
    assert done == [1, 2, 3]
    go.set()
    assert set(all_of(session)) == {0}
    session.close()


def test_a_row_that_fails_is_its_own(served: Served, model: OpenAIModel) -> None:
    served[1].early = lambda n, body: refused(400, "bad row") if "row 1" in says(body) else None
    session = begun(model)
    for key in range(3):
        session.add(key, ask(f"row {key}"))
    found = all_of(session)
    session.close()
    assert [found[key].error is None for key in range(3)] == [True, False, True]
    assert "bad row" in (found[1].error or "")


def test_a_row_that_is_dropped_ends_in_the_engine(served: Served, model: OpenAIModel) -> None:
    served[1].early = lambda n, body: slow(20) if "slow" in says(body) else None
    session = begun(model)
    session.add(0, ask("slow"))
    session.add(1, ask("quick"))
    until(lambda: len(served[1].bodies) == 2)
    session.drop(0)
    session.drop(7)
    until(lambda: served[1].gone == 1)
    assert set(all_of(session)) == {1}
    session.add(0, ask("again"))  # what the dropped one left behind is not taken for it
    assert all_of(session)[0].text == "again"
    session.close()


def test_closing_ends_all_of_them_and_what_waits_is_never_sent(
    served: Served, model: OpenAIModel
) -> None:
    served[1].early = lambda number, body: slow(20)
    session = begun(model)
    for key in range(9):
        session.add(key, ask(f"row {key}"))
    until(lambda: served[1].live == 4)
    session.close()
    until(lambda: served[1].gone == 4)
    assert len(session) == 0 and session.step() == []
    served[1].early = lambda number, body: None
    assert model.generate([ask("after")], Sampling())[0].text == "after"
    assert len(served[1].bodies) == 5  # four that were cut off, and the last


def test_draws_are_left_to_generate_and_an_empty_stop_string_is_refused(
    model: OpenAIModel,
) -> None:
    assert model.session(Sampling(temperature=1.0)) is None
    with pytest.raises(ConfigError, match="empty string"):
        model.session(Sampling(stop=("",)))


def test_a_trajectory_ends_while_another_still_waits_for_its_first_turn() -> None:
    """The agent over HTTP: three turns of one are over before the other's first."""
    go = threading.Event()
    ended: list[str] = []

    def turn(conversation: Conversation, sampling: Sampling) -> str:
        depth = sum(message.role == "assistant" for message in conversation.messages)
        if "wait" in conversation.messages[-1].text:
            go.wait(20)
        return "<answer>red</answer>" if depth == 2 or "wait" in _all(conversation) else CALL

    with serving({"m": ScriptedModel(turn)}) as (url, behaviour):
        model = OpenAIModel(url, "m")
        agent = AgenticFallback(model, tools=["zoom"])
        queries = [Query("please wait", (RED,)), Query("which colour?", (RED,))]
        for at, trajectory, _ in agent.stream(queries):
            ended.append(f"{at}: {trajectory.answer} after {len(trajectory.steps)}")
            go.set()
        assert behaviour.most_live == 2
        model.close()
    assert ended == ["1: red after 3", "0: red after 1"]


def _all(conversation: Conversation) -> str:
    return " ".join(message.text for message in conversation.messages)
