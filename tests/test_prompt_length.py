"""Prompts above a model's context: foreseen exactly, before anything is computed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from PIL import Image

from speceyes import AgenticFallback, Query, SpecPipeline, tiny
from speceyes.models import HFModel
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import AgentConfig
from speceyes.tools import tool
from speceyes.types import Completion, Conversation, Message, Sampling, ToolCall
from support.served import Served, asking, data_url, serving

DOT = Image.new("RGB", (64, 48), "red")


@pytest.fixture(scope="module")
def large() -> HFModel:
    if not tiny.LARGE.is_dir():
        pytest.skip("the tiny pair's weights are not in this checkout")
    return HFModel.from_pretrained(str(tiny.LARGE))


def _user(text: str, image: Image.Image = DOT) -> Conversation:
    return Conversation((Message("user", (image, text)),))


def _thoughtful(text: str) -> Conversation:
    before = (Message("user", ("Hello",)), Message("assistant", (f"<think>{text}</think>Hi",)))
    return Conversation((*before, Message("user", (DOT, "Which colour?"))))


def _called(text: str) -> Conversation:
    said = Message("assistant", ("Let me see.",), calls=(ToolCall("look", {"at": text}),))
    return Conversation((Message("user", (DOT, "Which?")), said, Message("tool", ("Red.",))))


def _begun(text: str) -> Conversation:
    return Conversation((Message("user", (DOT, "Which?")),), prefill=text)


KINDS: dict[str, Callable[[int], Conversation]] = {
    "words": lambda n: _user("red " * n),
    "blanks": lambda n: _user(" " * (4 * n) + "?"),
    "emoji": lambda n: _user("\U0001f600" * n),
    "system": lambda n: Conversation((Message("system", ("be brief " * n,)), *_user("?").messages)),
    "many turns": lambda n: Conversation(
        (*(Message(("user", "assistant")[i % 2], ("so",)) for i in range(n // 6 * 2)),
         *_user("?").messages)
    ),
    "thoughts": lambda n: _thoughtful("hm " * n),
    "arguments": lambda n: _called("here " * n),
    "an answer begun": lambda n: _begun("so " * n),
    "images": lambda n: Conversation((Message("user", (*[DOT] * (n // 10 + 1), "Which?")),)),
}  # fmt: skip

UNWRITTEN = ("thoughts", "arguments")
"""What this model's template may leave out."""


def _read(model: HFModel, conversation: Conversation) -> bool:
    """True where the model reads it; what it says otherwise must be about its length."""
    [said] = model.generate([conversation], Sampling(max_tokens=1))
    assert said.error is None or said.fault == "length", said.error
    return said.error is None


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_foreseen_exactly_where_the_model_refuses(kind: str, large: HFModel) -> None:
    made = KINDS[kind]
    low, high = 1, 16_000
    while high - low > 1:  # the longest that is let pass
        n = (low + high) // 2
        low, high = (n, high) if large.too_long(made(n)) is None else (low, n)
    assert large.too_long(made(low)) is None and _read(large, made(low))
    if large.too_long(made(high)) is None:
        assert kind in UNWRITTEN and _read(large, made(high))
        return
    assert "tokens, and" in str(large.too_long(made(high)))
    assert not _read(large, made(high))


def test_millions_of_characters_take_no_time(large: HFModel) -> None:
    text = "An endless story. " * 500_000
    begin = time.process_time()
    for conversation in (_user(text), _user("?" * len(text)), _begun(text)):
        assert large.too_long(conversation) is not None
    assert time.process_time() - begin < 30


def test_what_can_t_be_written_at_all_is_left_to_the_call(large: HFModel) -> None:
    assert large.too_long(_user("<|image_pad|>" * 500)) is None
    thin = Image.new("RGB", (4000, 4))
    assert large.too_long(_user("?", thin)) is None


# --- in an agent's run ----------------------------------------------------------------------------


class Narrow:
    """A scripted model that reads so many characters, and counts what it is asked."""

    def __init__(self, script: Any, most: int) -> None:
        self._inner, self._most = ScriptedModel(script), most
        self.asked: list[int] = []
        self.name = "narrow"

    def seen_size(self, image: Image.Image) -> tuple[int, int]:
        return self._inner.seen_size(image)

    def too_long(self, conversation: Conversation) -> str | None:
        n = sum(len(message.text) for message in conversation.messages)
        return None if n < self._most else f"the prompt has {n} tokens, and I read {self._most}"

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        assert all(self.too_long(one) is None for one in conversations), "it was sent"
        self.asked += [len(one.messages) for one in conversations]
        return self._inner.generate(conversations, sampling)


@tool
def story(chapter: int) -> str:
    """Tells a chapter.

    Args:
        chapter: Its number.
    """
    return "Once upon a time. " * 300


def _calling(conversation: Conversation, sampling: Sampling) -> str:
    n = len(conversation.messages)
    return f'<tool_call>{{"name": "story", "arguments": {{"chapter": {n}}}}}</tool_call>'


def test_a_transcript_that_outgrows_the_context_ends_before_it_is_sent() -> None:
    model = Narrow(_calling, 20_000)
    agent = AgenticFallback(model, tools=[story], dialect="hermes", max_steps=9)
    ways = agent([Query("Which?", (DOT,)), Query("Which? " * 4000, (DOT,))])
    assert (ways[0].stop, ways[0].fault) == ("error", "length")
    assert 2 <= len(ways[0].steps) == len(model.asked) < 9
    assert str(ways[0].error).startswith(f"after {len(ways[0].steps)} turns the prompt has")
    assert (ways[1].steps, ways[1].fault) == ((), "length")


def test_the_same_where_an_engine_or_a_model_finds_it_itself() -> None:
    def say(conversation: Conversation, sampling: Sampling) -> Any:
        if len(conversation.messages) > 4:
            return Completion.failed("the context is full", "length")
        return _calling(conversation, sampling)

    class Telling:
        name = "telling"
        seen_size = staticmethod(lambda image: image.size)

        def generate(self, conversations: Any, sampling: Any) -> list[Completion]:
            inner = ScriptedModel(_calling)
            found = []
            for one in conversations:
                said = say(one, sampling)
                [written] = inner.generate([one], sampling)
                found.append(said if isinstance(said, Completion) else written)
            return found

    agent = AgenticFallback(Telling(), tools=[story], dialect="hermes", max_steps=9)
    [way] = agent([Query("Which?", (DOT,))])
    assert (
        way.fault == "length"
        and len(way.steps) > 1
        and "turns the context is full" in str(way.error)
    )


# --- in a server ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def narrow() -> Iterator[tuple[Served, Narrow]]:
    def say(conversation: Conversation, sampling: Sampling) -> str:
        if "Reply with one word" in str(conversation.messages[-1].content):
            return "yes" if "hard" in str(conversation.messages[-1].content) else "no"
        if "long" in str(conversation.messages):
            return _calling(conversation, sampling)
        return "<answer>blue</answer>"

    model = Narrow(say, 9_000)
    pipe = SpecPipeline.from_pretrained(
        model, ScriptedModel("red", margin=12.0), tools=[story], dialect="hermes",
        agent=AgentConfig(max_steps=9),
    )  # fmt: skip
    with serving(pipe) as served:
        yield served, model


def _refused(served: Served, body: Any) -> None:
    reply = served.post(body)
    assert reply.status_code == 400 and reply.headers["x-should-retry"] == "false", reply.text
    error = reply.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    assert "tokens, and I read" in error["message"]


def _history(text: str, **more: Any) -> dict[str, Any]:
    body = asking("A hard one?", **more)
    body["messages"][:0] = [{"role": "system", "content": text}]
    return body


LOOK = {"type": "function", "function": {"name": "look", "description": "Looks."}}


def test_what_never_fits_is_refused_before_anything_is_asked(
    narrow: tuple[Served, Narrow],
) -> None:
    served, model = narrow
    before = len(model.asked)
    _refused(served, _history("x" * 15_000, speceyes={"route": "agent"}))
    _refused(served, _history("x" * 15_000, tools=[LOOK]))
    turns = [
        {"role": "assistant", "content": "Let me see."},
        {"role": "tool", "tool_call_id": "1", "content": "so " * 5000},
    ]
    body = asking("Which?", tools=[LOOK])
    body["messages"] += turns
    _refused(served, body)
    assert len(model.asked) == before


def test_what_a_draft_can_answer_is_still_drafted(narrow: tuple[Served, Narrow]) -> None:
    served, _ = narrow
    body = asking("An easy one?")
    body["messages"][:0] = [{"role": "system", "content": "x" * 15_000}]
    reply = served.post(body)
    assert reply.status_code == 200 and reply.json()["speceyes"]["route"] == "draft"
    _refused(served, _history("x" * 15_000))  # the judge sends it to the agent


def test_what_outgrows_it_on_the_way_is_no_server_s_error(narrow: tuple[Served, Narrow]) -> None:
    served, model = narrow
    before = len(model.asked)
    reply = served.post(asking("A hard and long one?"))
    assert reply.status_code == 400 and reply.headers["x-should-retry"] == "false"
    assert "turns the prompt has" in reply.json()["error"]["message"]
    assert len(model.asked) - before >= 2


def test_a_real_model_s_context_is_told_at_once(large: HFModel) -> None:
    pipe = SpecPipeline.from_pretrained(
        str(tiny.LARGE), str(tiny.SMALL), agent=AgentConfig(max_tokens=16)
    )
    with serving(pipe) as served:
        for body in (
            asking("red " * 4000),
            _history("so " * 5000, speceyes={"route": "agent"}),
        ):
            reply = served.post(body)
            assert reply.status_code == 400 and reply.headers["x-should-retry"] == "false"
            assert reply.json()["error"]["code"] == "context_length_exceeded", reply.text
        assert served.service.backend.live == 0


def test_the_field_is_that_of_the_protocol(narrow: tuple[Served, Narrow]) -> None:
    served, _ = narrow
    image = {"type": "input_image", "image_url": data_url()}
    content = [image, {"type": "input_text", "text": "A hard one?"}]
    body = {
        "model": "speceyes",
        "instructions": "x" * 15_000,
        "input": [{"role": "user", "content": content}],
        "speceyes": {"route": "agent"},
    }
    reply = served.http.post("/v1/responses", json=body)
    assert reply.status_code == 400 and reply.headers["x-should-retry"] == "false", reply.text
    error = reply.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")
