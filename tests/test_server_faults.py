"""Requests that can never succeed are the client's to mend: 400, which field, and why."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from speceyes import SpecPipeline, tiny
from speceyes.errors import PromptError
from speceyes.models.openai import OpenAIModel
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import AgentConfig
from support import engine_server
from support.served import Served, asking, data_url, pipeline, serving

_TEXT, _IMAGE = "messages[0].content", "messages[0].content[0].image_url.url"


@pytest.fixture(scope="module")
def real() -> Iterator[Served]:
    if not tiny.LARGE.is_dir():
        pytest.skip("the tiny pair's weights are not in this checkout")
    pipe = SpecPipeline.from_pretrained(
        str(tiny.LARGE), str(tiny.SMALL), agent=AgentConfig(max_tokens=16)
    )
    with serving(pipe) as served:
        yield served


def test_tools_that_the_chat_template_has_no_place_for_are_400(
    caplog: pytest.LogCaptureFixture,
) -> None:
    if not tiny.LARGE.is_dir():
        pytest.skip("the tiny pair's weights are not in this checkout")
    pipe = SpecPipeline.from_pretrained(
        str(tiny.LARGE), str(tiny.SMALL), tools=[], dialect="qwen3vl"
    )
    offered = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    with serving(pipe) as served, caplog.at_level(logging.INFO, "speceyes.server"):
        error = served.refused(asking() | {"tools": offered})
    assert (error["param"], error["code"]) == ("tools", "unanswerable")
    assert error["message"].startswith("tools: ") and "can't be told of tools" in error["message"]


@pytest.mark.parametrize(
    ("body", "param", "code", "says"),
    [
        (asking("red " * 4000), "messages", "context_length_exceeded", "tokens"),
        (
            asking(urls=[data_url(Image.new("RGB", (1000, 4)))]),
            _IMAGE,
            "unanswerable",
            "1000 x 4 pixels",
        ),
        (asking(urls=[data_url(Image.new("RGB", (3, 40)))]), _IMAGE, "bad_image", "3 x 40"),
    ],
)
def test_what_real_models_can_never_take_is_400_with_field_and_reason(
    real: Served,
    caplog: pytest.LogCaptureFixture,
    body: Any,
    param: str,
    code: str,
    says: str,
) -> None:
    with caplog.at_level(logging.INFO, "speceyes.server"):
        error = real.refused(body)
    assert (error["param"], error["code"]) == (param, code)
    assert error["type"] == "invalid_request_error" and says in error["message"]
    assert error["message"].startswith(param) and "Error" not in error["message"]
    assert code == "bad_image" or says in caplog.text


@pytest.mark.parametrize(
    "body",
    [asking("red " * 4000), asking(urls=[data_url(Image.new("RGB", (1000, 4)))])],
)
def test_a_stream_of_what_can_never_be_taken_is_400_too(real: Served, body: Any) -> None:
    said = real.refused(body)
    assert real.refused({**body, "stream": True}) == said


def test_a_model_s_own_marks_in_the_text_are_never_a_server_s_error(real: Served) -> None:
    reply = real.post(asking("What is <|image_pad|> here?"))
    assert reply.status_code in (200, 400, 422), reply.text
    if reply.status_code == 400:
        assert reply.json()["error"]["param"] == _TEXT


def test_such_marks_are_text_in_other_messages_too(real: Served) -> None:
    for role in ("system", "user", "assistant"):
        body = asking("Which colour?")
        body["messages"].insert(0, {"role": role, "content": "You see <|image_pad|>."})
        assert real.post(body).status_code in (200, 422)


def test_which_of_several_images_it_is_stays_open(real: Served) -> None:
    thin = data_url(Image.new("RGB", (1000, 4)))
    assert real.refused(asking(urls=[data_url(), thin]))["param"] == _TEXT


def test_the_draft_s_trouble_is_not_the_request_s_where_the_agent_can() -> None:
    small = PromptError("the prompt has 9 tokens, of 8", "length")
    with serving(pipeline(draft=small)) as served:
        assert served.ask()["speceyes"]["route"] == "agent"


def test_a_later_turn_that_grew_too_long_is_not_the_request_s_fault() -> None:
    call = '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0,0,32,32]}}'
    turns = [f"{call}</tool_call>", PromptError("the prompt has 9 tokens, of 8", "length")]
    with serving(pipeline(judge="yes", agent=turns)) as served:
        assert served.refused(asking(), 502)["code"] == "model_error"


def test_turns_that_can_t_be_read_are_no_passing_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {}}}
    with (
        serving(pipeline(judge="yes", agent="<think>so it is")) as served,
        caplog.at_level(logging.INFO, "speceyes.server"),
    ):
        error = served.refused(asking(tools=[tool]), 422)
    assert (error["code"], error["message"]) == (
        "no_answer",
        "the agent gave no answer within 3 turns",
    )
    assert "no answer (the agent gave no answer within 3 turns)" in caplog.text


@pytest.mark.parametrize(
    ("status", "why", "expected", "param"),
    [
        (400, "This model's maximum context length is 99 tokens", 400, "messages"),
        (400, "At most 1 image(s) may be provided in one prompt", 400, _IMAGE),
        (422, "something that xyzzy can't have", 400, "messages"),
        (401, "no such key", 502, None),
        (400, "logprobs are off", 502, None),
    ],
)
def test_an_engine_s_refusal_is_told_in_our_own_words(
    status: int, why: str, expected: int, param: str | None
) -> None:
    def refuse(number: int, body: Any) -> Any:
        return engine_server.refused(status, why)

    models = {"large": ScriptedModel("<answer>blue</answer>")}
    with engine_server.serving(models, early=refuse) as (url, _):
        agent = OpenAIModel(url, "large", retries=0, engine="openai")
        with serving(SpecPipeline.from_pretrained(large=agent)) as served:
            error = served.refused(asking(), expected)
    assert error["param"] == param
    assert "xyzzy" not in str(error) and "127.0.0.1" not in str(error)
