"""Replies and requests as engines, gateways and thinking models really write them."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from speceyes import SpecPipeline
from speceyes.dialects import dialect
from speceyes.errors import ConfigError, ModelError, ParseError
from speceyes.gate import SeparabilityGate
from speceyes.judge import ToolJudge
from speceyes.models import OpenAIModel, ScriptedModel
from speceyes.models.openai import QwenResize
from speceyes.models.openai.replies import read_completion
from speceyes.models.openai.requests import CAPABILITIES
from speceyes.models.openai.streams import reply_of_stream
from speceyes.types import Conversation, Message, Query, Sampling
from support.engine_server import Behaviour, Fault, refused, sent, serving
from test_engine import RED, ask, fails, one

Served = tuple[str, Behaviour]


@pytest.fixture
def served() -> Iterator[Served]:
    with serving({"m": ScriptedModel({"call": "<a>x</a> more", "": "it is red"})}) as found:
        yield found


@pytest.fixture
def model(served: Served) -> Iterator[OpenAIModel]:
    made = OpenAIModel(served[0], "m", retries=2, backoff_s=0.01, timeout_s=5)
    yield made
    made.close()


def text_of(message: dict[str, Any], finish: str = "stop", **sampling: Any) -> str:
    reply = {"choices": [{"message": message, "finish_reason": finish}]}
    return read_completion(reply, Sampling(**sampling), CAPABILITIES["openai"]).text


# Contents


@pytest.mark.parametrize(
    "content, expected",
    [
        ([{"type": "text", "text": "it is"}, {"type": "text", "text": " red"}], "it is red"),
        ([{"type": "output_text", "text": "red", "annotations": []}], "red"),
        (["red", " dog"], "red dog"),
        (
            [{"type": "thinking", "thinking": "hm", "signature": "x"}, {"text": "red"}],
            "<think>hm</think>red",
        ),
        (
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "red"},
            ],
            "<think>hm</think>red",
        ),
        (
            [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}]}, "red"],
            "<think>a</think>red",
        ),
        ([{"type": "redacted_thinking", "data": "zzz"}, {"type": "text", "text": "red"}], "red"),
        (
            [{"type": "text", "text": "I zoom."}, {"type": "tool_use", "name": "z", "input": {}}],
            'I zoom.\n<tool_call>\n{"name": "z", "arguments": {}}\n</tool_call>',
        ),
        ([{"type": "reasoning_text", "text": "hm"}, {"text": "red"}], "<think>hm</think>red"),
        (
            [{"text": "I zoom."}, {"type": "function_call", "name": "z", "arguments": "{}"}],
            'I zoom.\n<tool_call>\n{"name": "z", "arguments": {}}\n</tool_call>',
        ),
        (
            [{"type": "tool_call", "function": {"name": "z"}}],
            '\n<tool_call>\n{"name": "z", "arguments": {}}\n</tool_call>',
        ),
        ([{"type": "text", "text": None}, None, {"type": "text", "text": "red"}], "red"),
        ([], ""),
        (None, ""),
        ([{"type": "text"}, {"type": "text", "text": "red"}], "red"),
        ([{"type": "text"}], ""),
        ([{"type": "text", "text": {"value": "red", "annotations": []}}], "red"),
        ([{"type": "text", "content": "red"}], "red"),
        ([{"type": None, "text": "red"}], "red"),
        ([{"type": "image_url", "image_url": {"url": "x"}}, {"text": "red"}], "red"),
        (
            [{"type": "tool_use", "name": "z", "input": {"a": "</tool_call>"}}],
            '\n<tool_call>\n{"name": "z", "arguments": {"a": "\\u003c/tool_call>"}}\n</tool_call>',
        ),
    ],
)
def test_a_content_of_parts_is_joined(content: Any, expected: str) -> None:
    assert text_of({"content": content}) == expected


@pytest.mark.parametrize(
    "message",
    [
        {"tool_calls": [{"type": "function", "name": "z", "arguments": '{"a": 1}'}]},
        {"function_call": {"name": "z", "arguments": '{"a": 1}'}},
    ],
)
def test_calls_are_read_in_older_and_flatter_forms(message: dict[str, Any]) -> None:
    expected = '\n<tool_call>\n{"name": "z", "arguments": {"a": 1}}\n</tool_call>'
    assert text_of({"content": None, **message}, "function_call") == expected


@pytest.mark.parametrize("content", [{"text": "x"}, [{"type": "audio", "data": "x"}], [7]])
def test_a_content_without_text_is_told_by_what_it_is(content: Any) -> None:
    with pytest.raises(Exception, match=r"isn't a chat completion .*(content|'int')"):
        text_of({"content": content})


def test_parts_over_http_are_an_answer(served: Served, model: OpenAIModel) -> None:
    def parted(reply: Any) -> Any:
        message = reply["choices"][0]["message"]
        message["content"] = [{"type": "text", "text": message["content"]}]
        return reply

    served[1].late = lambda number, body: parted
    found = one(model, Sampling(top_k=4))
    assert (found.text, found.error, len(found.top_logprobs)) == ("it is red", None, 3)


def test_a_refusal_is_the_answer_where_there_is_no_other() -> None:
    assert text_of({"content": None, "refusal": "I can't help."}) == "I can't help."


@pytest.mark.parametrize(
    "function, arguments",
    [
        ({"name": "z"}, "{}"),
        ({"name": "z", "arguments": None}, "{}"),
        ({"name": "z", "arguments": ""}, "{}"),
        ({"name": "z", "arguments": "  "}, "{}"),
        ({"name": "z", "arguments": "null"}, "{}"),
        ({"name": "z", "arguments": {}}, "{}"),
        ({"name": "z", "arguments": {"a": 1}}, '{"a": 1}'),
        ({"name": "z", "arguments": '{"a": 1}'}, '{"a": 1}'),
        ({"name": "z", "arguments": '{"a":'}, '{"a":'),
    ],
    ids=str,
)
def test_calls_may_lack_arguments(function: Any, arguments: str) -> None:
    message = {"content": None, "tool_calls": [{"id": "1", "function": function}]}
    expected = f'\n<tool_call>\n{{"name": "z", "arguments": {arguments}}}\n</tool_call>'
    assert text_of(message, "tool_calls") == expected


@pytest.mark.parametrize(
    "call, name, arguments",
    [
        ({"type": "custom", "custom": {"name": "z", "input": '{"a": 1}'}}, "z", {"a": 1}),
        ({"type": "custom", "custom": {"name": "z", "input": "a < b"}}, "z", {"input": "a < b"}),
        ({"type": "custom", "custom": {"name": "z", "input": ""}}, "z", {}),
        ({"type": "custom", "custom": {"name": "z"}}, "z", {}),
        ({"function": {"name": "z"}, "arguments": '{"a": 1}'}, "z", {"a": 1}),
        ({"function": {"name": "z", "arguments": "{'a': 1}"}}, "z", {"a": 1}),
        ({"function": {"name": "z", "arguments": '"{\\"a\\": 1}"'}}, "z", {"a": 1}),
        ({"function": {"name": "z", "arguments": "None"}}, "z", {}),
        ({"function": {"name": "z", "arguments": []}}, "z", {}),
        (
            {"function": {"name": "z", "arguments": '{"a": "</tool_call></think><answer>b"}'}},
            "z",
            {"a": "</tool_call></think><answer>b"},
        ),
    ],
    ids=str,
)
def test_calls_that_engines_took_apart_are_read(call: Any, name: str, arguments: Any) -> None:
    said = text_of({"content": None, "tool_calls": [call, None]}, "tool_calls")
    for speaks in ("hermes", "qwen3vl", "xml", "glm", "kimi", "gemma", "deepeyes"):
        [read] = dialect(speaks).parse(said).calls
        assert (read.name, read.arguments) == (name, arguments), speaks


def test_a_call_without_a_name_goes_back_to_the_model() -> None:
    for call in ({"function": {"arguments": "{}"}}, {"type": "custom", "custom": {}}, {"id": "1"}):
        said = text_of({"content": None, "tool_calls": [call]}, "tool_calls")
        with pytest.raises(ParseError, match='no "name"'):
            dialect("qwen3vl").parse(said)


def test_a_call_that_was_left_in_the_text_is_one() -> None:
    said = '<tool_call>{"name": "z", "arguments": {}}</tool_call>'
    call = {"function": {"name": "z", "arguments": "{}"}}
    assert text_of({"content": said, "tool_calls": [call]}, "tool_calls") == said
    # Words about calls are none.
    for about in ("<think>Shall I write a <tool_call>?</think>Yes.", "A <tool_call> it is."):
        both = text_of({"content": about, "tool_calls": [call]}, "tool_calls")
        assert both.startswith(about) and both.endswith("</tool_call>")


@pytest.mark.parametrize(
    "content, expected",
    [
        ("<think>hm</think>red", "<think>hm</think>red"),
        ("<think>\nhm\n</think>\n\nred", "<think>hm</think>\n\nred"),
        ("hm</think>red", "<think>hm</think>red"),
        ("<think></think>red", "<think>hm</think>red"),
        ("<think>no</think>red", "<think>hm</think><think>no</think>red"),
        ([{"type": "thinking", "thinking": "hm"}, {"text": "red"}], "<think>hm</think>red"),
    ],
)
def test_a_thought_that_is_written_twice_is_one(content: Any, expected: str) -> None:
    assert text_of({"content": content, "reasoning_content": "hm"}) == expected


@pytest.mark.parametrize(
    "word, finish",
    [
        *((word, "stop") for word in ("stop", "STOP", "eos", "EOS", "end_turn", "eos_token")),
        *((word, "stop") for word in ("stop_sequence", "tool_use", "tool_calls", "COMPLETE")),
        *((word, "length") for word in ("length", "MAX_TOKENS", "max_tokens", "model_length")),
    ],
)
def test_ends_are_known_by_the_words_of_engines_and_gateways(word: str, finish: str) -> None:
    reply = {"choices": [{"message": {"content": "red"}, "finish_reason": word}]}
    found = read_completion(reply, Sampling(), CAPABILITIES["openai"])
    assert (found.text, found.finish) == ("red", finish)


@pytest.mark.parametrize("word", [None, "", "content_filter", "abort", "SAFETY", {"a": 1}, 3])
def test_an_end_that_is_unknown_is_told(word: Any) -> None:
    with pytest.raises(ModelError, match="finish_reason=") as told:
        text_of({"content": "red"}, word)
    assert str(word)[:20] in str(told.value) and len(str(told.value)) < 400


# Streams that nobody asked for

STREAM = (
    'data: {"id": "1", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}',
    'data: {"choices": [{"index": 0, "delta": {"reasoning_content": "h"}}]}',
    'data: {"choices": [{"index": 0, "delta": {"reasoning_content": "m"}}]}',
    'data: {"choices": [{"index": 0, "delta": {"content": "it is"}, "logprobs": null}]}',
    'data: {"choices": [{"index": 0, "delta": {"content": " r\u00f6d"}}]}',
    'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": null}',
    'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}',
    "data: [DONE]",
)


@pytest.mark.parametrize(
    "stream",
    [
        "\n\n".join(STREAM),
        "\ufeff" + "\n\n".join(STREAM) + "\n\n",
        ": PROCESSING\n\n" + "\r\n\r\n".join(STREAM),
        "\n\n".join(f"event: message\nid: 3\n{line}" for line in STREAM),
        "\n".join(STREAM),
        "\n\n".join(STREAM[:-1]).replace("data: ", "data:"),
        "\n \n" + "\n\n".join(f" {line}" for line in STREAM),
    ],
)
def test_an_engine_that_always_streams_is_read(
    served: Served, model: OpenAIModel, stream: str
) -> None:
    served[1].early = lambda number, body: sent(stream.encode())
    found = one(model)
    assert (found.error, found.text, found.finish) == (None, "<think>hm</think>it is röd", "stop")
    assert (len(found.token_ids), found.prompt_tokens) == (2, 3)


def test_calls_and_log_probabilities_come_in_pieces() -> None:
    pieces: list[dict[str, Any]] = [
        {"delta": {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "z"}}]}},
        {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]}},
        {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": " 1}"}}]}},
        {"delta": {"tool_calls": [{"index": 1, "function": {"name": "y", "arguments": ""}}]}},
        {"delta": {"content": None}, "logprobs": {"content": [{"token": "a"}]}},
        {"delta": {}, "logprobs": {"content": [{"token": "b"}]}, "finish_reason": "tool_calls"},
    ]
    lines = [f"data: {json.dumps({'choices': [piece]})}" for piece in pieces]
    reply = reply_of_stream("\n\n".join(lines).encode())
    assert reply is not None
    choice = reply["choices"][0]
    assert [entry["token"] for entry in choice["logprobs"]["content"]] == ["a", "b"]
    calls = dialect("qwen3vl").parse(text_of(choice["message"], "tool_calls")).calls
    assert [(call.name, call.arguments) for call in calls] == [("z", {"a": 1}), ("y", {})]


def test_an_error_in_a_stream_is_told(served: Served, model: OpenAIModel) -> None:
    error = json.dumps({"error": {"message": "out of memory", "code": 400}})
    served[1].early = lambda number, body: sent(f"{STREAM[0]}\n\ndata: {error}\n\n".encode())
    fails(one(model), "out of memory")


@pytest.mark.parametrize("cut", ["data: {", "data: [DONE]", "data: 7", ": nothing", "<html>"])
def test_a_stream_of_nothing_is_told(served: Served, model: OpenAIModel, cut: str) -> None:
    served[1].early = lambda number, body: sent(cut.encode())
    fails(one(model), "something else than JSON")


def test_json_with_a_byte_order_mark_is_json(served: Served, model: OpenAIModel) -> None:
    whole = {"choices": [{"message": {"content": "red"}, "finish_reason": "stop"}]}
    served[1].early = lambda number, body: sent(b"\xef\xbb\xbf" + json.dumps(whole).encode())
    assert one(model).text == "red"


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_thoughts_that_stand_apart_come_first(key: str) -> None:
    assert text_of({"content": "red", key: "hm"}) == "<think>hm</think>red"
    assert text_of({"content": "red", key: None}) == "red"
    assert text_of({"content": "red", key: ""}) == "red"


# Errors


@pytest.mark.parametrize(
    "error, words",
    [
        ({"message": "model is loading"}, ("200 with an error", "model is loading")),
        ("no such model", ("200 with an error", "no such model")),
        ({"message": "too long", "code": 400}, ("an error 400", "too long")),
        ({"message": "no credit", "code": "403"}, ("an error 403", "no credit", "gateway")),
        ({"code": "context_length"}, ("200 with an error", "context_length")),
    ],
)
def test_an_error_that_comes_with_status_200_is_told(
    served: Served, model: OpenAIModel, error: Any, words: tuple[str, ...]
) -> None:
    served[1].early = lambda number, body: sent(json.dumps({"error": error}).encode())
    found = one(model)
    fails(found, *words)
    assert "base_url" not in (found.error or "")
    assert len(served[1].bodies) == 1


@pytest.mark.parametrize(
    "reply",
    [
        {"choices": [], "error": {"message": "provider failed", "code": 403}},
        {"choices": None, "error": {"message": "provider failed", "code": 403}},
        {"object": "error", "message": "provider failed", "type": "BadRequest", "code": 403},
    ],
)
def test_an_error_is_told_however_it_is_wrapped(
    served: Served, model: OpenAIModel, reply: Any
) -> None:
    served[1].early = lambda number, body: sent(json.dumps(reply).encode())
    found = one(model)
    fails(found, "an error 403: provider failed")
    assert "base_url" not in (found.error or "")


@pytest.mark.parametrize(
    "reply",
    [
        {"detail": "out of credit"},
        {"success": False, "message": "out of credit"},
        {"status": "failed", "message": "out of credit", "choices": []},
        {"error": None, "message": "out of credit"},
    ],
)
def test_an_error_without_an_error_object_is_told(
    served: Served, model: OpenAIModel, reply: Any
) -> None:
    served[1].early = lambda number, body: sent(json.dumps(reply).encode())
    found = one(model)
    fails(found, "200 with an error: out of credit")
    assert "base_url" not in (found.error or "")


def test_an_error_object_that_says_busy_is_tried_again(served: Served, model: OpenAIModel) -> None:
    busy = sent(json.dumps({"error": {"message": "overloaded", "code": 503}}).encode())
    served[1].early = lambda number, body: busy if number < 2 else None
    assert one(model).text == "it is red"
    served[1].early = lambda number, body: busy
    fails(one(model), "overloaded", "after 3 attempts")


def test_a_choice_that_failed_says_why(served: Served, model: OpenAIModel) -> None:
    def failed(reply: Any) -> Any:
        reply["choices"][0] |= {"error": {"code": 502, "message": "upstream gone"}}
        return reply

    served[1].late = lambda number, body: failed
    fails(one(model), "upstream gone")


def test_403_names_more_than_the_key(served: Served, model: OpenAIModel) -> None:
    served[1].early = lambda number, body: refused(403, "blocked by policy")
    fails(one(model), "403", "blocked by policy", "model='m'", "gateway")


# Log-probabilities that are refused


def no_logprobs(status: int, why: str) -> Any:
    def early(number: int, body: Any) -> Fault | None:
        return refused(status, why) if body.get("logprobs") else None

    return early


@pytest.mark.parametrize("status", [400, 403, 422])
def test_a_judge_without_log_probabilities_is_told_so_once(
    served: Served, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    served[1].early = no_logprobs(status, "logprobs are not supported by this model")
    model = OpenAIModel(served[0], "m", engine="openai", retries=0)
    judge = ToolJudge(model, dialect=None)
    for _ in range(3):
        [judged] = judge([Query("Which?", (RED,))])
        assert judged.needs_tools
        assert "refuses the log-probabilities of the first token" in judged.reason
        assert "parity=True" in judged.reason and "temperature" not in judged.reason
    told = [r for r in caplog.records if r.levelno >= logging.WARNING and "refuses" in r.message]
    assert len(told) == 1
    model.close()


def test_a_draft_without_log_probabilities_is_told_so_once(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    served[1].early = no_logprobs(403, "You are not allowed to request logprobs")
    model = OpenAIModel(served[0], "m", engine="openai", retries=0)
    for _ in range(3):
        found = one(model, Sampling(top_k=64))
        fails(found, "refuses top_k=64", "not allowed to request logprobs")
        assert "temperature" not in (found.error or "") and "api_key" not in (found.error or "")
    assert len([r for r in caplog.records if "refuses top_k=64" in r.message]) == 1
    model.close()


@pytest.mark.parametrize(
    "why",
    [
        "Requested sample logprobs of 64, which is greater than max allowed: 20",
        "Invalid 'top_logprobs': integer above maximum value. Expected a value <= 20, but got 64.",
        "top_logprobs must be less than or equal to 20",
    ],
)
def test_the_limit_is_read_from_the_engines_words(
    served: Served, model: OpenAIModel, why: str
) -> None:
    served[1].early = no_logprobs(400, why)
    fails(one(model, Sampling(top_k=64)), "than the engine returns (20)", "use top_k=20")


def test_an_engine_with_too_few_fails_when_the_pipeline_is_built(served: Served) -> None:
    served[1].max_logprobs = 20
    small = OpenAIModel(served[0], "m")
    with pytest.raises(ConfigError, match=r"than the engine returns \(20\).*--max-logprobs 64"):
        SpecPipeline.from_pretrained(ScriptedModel("x"), small, tools=["zoom"])
    pipe = SpecPipeline.from_pretrained(
        ScriptedModel("x"), small, tools=["zoom"], gate=SeparabilityGate(top_k=20)
    )
    asked = len(served[1].bodies)
    small.check_top_k(20)
    assert len(served[1].bodies) == asked  # it was asked before
    pipe.close()
    small.close()


@pytest.mark.parametrize(
    "status, why",
    [
        (400, "At most 0 image(s) may be provided in one prompt."),
        (400, "m is not a multimodal model"),
        (400, "Invalid content type. image_url is only supported by certain models."),
        (500, "image input is not supported - hint: you may need to provide the mmproj"),
        (404, "No endpoints found that support image input"),
        (415, "this model does not support images"),
        (400, "unsupported content part type: 'image_url'"),
        (400, "only 'text' content type is supported"),
        (501, "vision is not enabled on this server"),
    ],
)
def test_an_engine_of_text_alone_is_refused_when_the_pipeline_is_built(
    served: Served, status: int, why: str
) -> None:
    served[1].early = lambda number, body: (
        (lambda handler, reply: handler.refuse(status, why)) if "image_url" in str(body) else None
    )
    small = OpenAIModel(served[0], "m", backoff_s=0.0)
    with pytest.raises(ConfigError, match=r"takes no pictures.*vision-language model"):
        SpecPipeline.from_pretrained(ScriptedModel("x"), small, tools=["zoom"])
    with pytest.raises(ConfigError, match="takes no pictures"):
        SpecPipeline.from_pretrained(small, tools=["zoom"])
    small.close()


def test_an_engine_is_asked_once_whether_it_takes_pictures(served: Served) -> None:
    agent = OpenAIModel(served[0], "m")
    agent.check_images()
    asked = len(served[1].bodies)
    assert "image_url" in str(served[1].bodies[-1])
    agent.check_images()
    assert len(served[1].bodies) == asked
    agent.close()
    # One that is busy or away is left to the queries.
    served[1].early = lambda number, body: lambda handler, reply: handler.refuse(503, "busy")
    other = OpenAIModel(served[0], "m", retries=0)
    other.check_images()
    other.check_images()
    assert len(served[1].bodies) == asked + 1
    other.close()


# What is sent


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_every_field_of_a_sampling_is_sent(kind: str) -> None:
    drawn = Sampling(
        temperature=0.7,
        top_p=0.8,
        sample_top_k=20,
        presence_penalty=1.5,
        repetition_penalty=1.0,
        seed=1,
    )
    with serving({"m": ScriptedModel("x")}, kind=kind) as (url, behaviour):
        model = OpenAIModel(url)
        assert one(model, drawn).error is None
        assert one(model, Sampling(top_p=0.8, sample_top_k=20)).error is None
        assert one(model, Sampling(repetition_penalty=None)).error is None
        warm, cold, own = behaviour.bodies
        model.close()
    fields = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "repetition_penalty")
    assert [warm[field] for field in fields] == [0.7, 0.8, 20, 0.0, 1.5, 1.0]
    assert [cold[field] for field in fields] == [0.0, 1.0, -1, 0.0, 0.0, 1.0]
    assert "repetition_penalty" not in own


@pytest.mark.parametrize("kind", ["vllm", "sglang", "openai"])
def test_texts_of_tokens_come_where_they_are_asked_for(kind: str) -> None:
    with serving({"m": ScriptedModel("it is red")}, kind=kind) as (url, _):
        model = OpenAIModel(url)
        found = one(model, Sampling(top_k=4, token_texts=True))
        assert len(found.tokens) == len(found.token_ids) == len(found.top_logprobs)
        assert "".join(found.tokens) == "it is red"
        assert one(model, Sampling(token_texts=True)).tokens == found.tokens
        assert one(model, Sampling(top_k=4)).tokens == ()
        model.close()


def test_a_plain_engine_is_sent_what_was_asked_for_and_no_more() -> None:
    with serving({"m": ScriptedModel("x")}, kind="openai") as (url, behaviour):
        model = OpenAIModel(url)
        assert one(model).error is None
        assert one(model, Sampling(temperature=0.7, top_p=0.8)).error is None
        fails(one(model, Sampling(repetition_penalty=1.1)), "repetition_penalty")
        plain, drawn, _ = behaviour.bodies
        model.close()
    assert not {"top_p", "top_k", "min_p", "presence_penalty", "repetition_penalty"} & set(plain)
    assert drawn["top_p"] == 0.8


@pytest.mark.parametrize("kind", ["vllm", "openai"])
def test_arguments_of_the_template_are_sent(kind: str) -> None:
    with serving({"m": ScriptedModel("x")}, kind=kind) as (url, behaviour):
        model = OpenAIModel(url, template_kwargs={"enable_thinking": True, "depth": 3})
        one(model)
        one(model, thinking=False)
        given, closed = (body["chat_template_kwargs"] for body in behaviour.bodies)
        model.close()
    assert given == {"enable_thinking": True, "depth": 3}
    assert closed == {"enable_thinking": False, "thinking": False, "depth": 3}


def test_thinking_is_closed_where_the_engine_can() -> None:
    for kind, expected in (("vllm", True), ("sglang", True), ("openai", False)):
        with serving({"m": ScriptedModel("x")}, kind=kind) as (url, behaviour):
            model = OpenAIModel(url)
            one(model, thinking=False)
            assert ("chat_template_kwargs" in behaviour.bodies[0]) is expected
            one(model)
            assert "chat_template_kwargs" not in behaviour.bodies[1]
            model.close()


@pytest.mark.parametrize(
    "text, expected",
    [
        ("<think>a</b>c</think>d</b>e", "<think>a</b>c</think>d</b>"),
        ("a</b>c</think>d</b>e", "a</b>c</think>d</b>"),  # the prompt had opened the block
        ("<think>a</b>c", "<think>a</b>c"),  # cut within it
        ("d</b>e", "d</b>"),
    ],
)
def test_stop_strings_count_after_the_thought_only(text: str, expected: str) -> None:
    with serving({"m": ScriptedModel(text)}) as (url, behaviour):
        model = OpenAIModel(url)
        found = one(model, Sampling(stop=("</b>",), stop_after="</think>"))
        assert (found.text, found.error) == (expected, None)
        assert "stop" not in behaviour.bodies[0]
        model.close()


def test_large_images_are_shrunk_before_they_are_sent() -> None:
    got: list[tuple[int, int]] = []

    def look(conversation: Conversation, sampling: Sampling) -> str:
        got.extend(image.size for image in conversation.images)
        return "x"

    large, small = Image.new("RGB", (400, 100), "red"), Image.new("RGB", (90, 90), "red")
    with serving({"m": ScriptedModel(look)}) as (url, _):
        model = OpenAIModel(url, max_pixels=10_000)
        asked = Conversation((Message("user", (large, small, "Which?")),))
        assert [row.error for row in model.generate([asked] * 2, Sampling())] == [None, None]
        assert model.images_encoded == 2
        assert (model.seen_size(large), model.seen_size(small)) == ((200, 50), (90, 90))
        model.close()
        ruled = OpenAIModel(url, max_pixels=10_000, seen=QwenResize())
        assert ruled.seen_size(large) == QwenResize()(Image.new("RGB", (200, 50)))
        ruled.close()
    assert got == [(200, 50), (90, 90)] * 2


def test_a_result_of_a_tool_names_its_call(served: Served, model: OpenAIModel) -> None:
    asked = Conversation((*ask().messages, Message("tool", ("a dog",), call_id="c1")))
    model.generate([asked], Sampling())
    last = served[1].bodies[0]["messages"][-1]
    assert last == {"role": "tool", "content": "a dog", "tool_call_id": "c1"}


# Where it goes


class _Proxy(BaseHTTPRequestHandler):
    seen: list[str]

    def do_POST(self) -> None:
        self.seen.append(self.path)
        self.rfile.read(int(self.headers["Content-Length"]))
        data = json.dumps(
            {"choices": [{"message": {"content": "by proxy"}, "finish_reason": "stop"}]}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    seen: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Proxy,), {"seen": seen}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", seen
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_environments_proxy_and_netrc_are_not_used(
    served: Served,
    proxy: tuple[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy[0])
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    served[1].key = "right"
    model = OpenAIModel(served[0], "m", api_key="right")
    assert one(model).text == "it is red"
    assert proxy[1] == []
    model.close()


def test_a_proxy_that_is_asked_for_is_used(proxy: tuple[str, list[str]]) -> None:
    model = OpenAIModel("http://gpu.test:8000/v1", "m", engine="openai", proxy=proxy[0])
    assert one(model).text == "by proxy"
    assert proxy[1] == ["http://gpu.test:8000/v1/chat/completions"]
    model.close()
    with pytest.raises(ConfigError, match="proxy") as caught:
        OpenAIModel("http://x.test/v1", "m", engine="openai", proxy="me:hunter2@proxy")
    assert "hunter2" not in str(caught.value)


def test_a_redirect_is_not_followed(served: Served, proxy: tuple[str, list[str]]) -> None:
    served[1].early = lambda number, body: refused(307, "there", Location=proxy[0] + "/v1")
    model = OpenAIModel(served[0], "m", api_key="secret-key", retries=0)
    fails(one(model), "isn't followed", proxy[0])
    assert proxy[1] == []
    model.close()


# Ends


def test_a_closed_model_goes_on(served: Served, model: OpenAIModel) -> None:
    assert one(model).error is None
    model.close()
    assert one(model).error is None


def test_closing_ends_what_is_under_way(served: Served) -> None:
    arrived = threading.Event()

    def early(number: int, body: Any) -> Fault:
        def wait(handler: Any, reply: Any) -> None:
            arrived.set()
            handler.hung_up_within(20)
            handler.close_connection = True

        return wait

    served[1].early = early
    model = OpenAIModel(served[0], "m", timeout_s=30)
    rows: list[Any] = []
    thread = threading.Thread(target=lambda: rows.append(one(model)))
    thread.start()
    assert arrived.wait(20)
    model.close()
    thread.join(20)
    assert not thread.is_alive()
    fails(rows[0], "the model was closed")


def test_a_forked_child_asks_by_itself(served: Served, model: OpenAIModel) -> None:
    assert one(model).error is None
    code = (
        "import os, sys\n"
        "from PIL import Image\n"
        "from speceyes.models import OpenAIModel\n"
        "from speceyes.types import Conversation, Message, Sampling\n"
        "model = OpenAIModel(sys.argv[1], 'm')\n"
        "asked = [Conversation((Message('user', ('Which?',)),))]\n"
        "assert model.generate(asked, Sampling())[0].text == 'it is red'\n"
        "child = os.fork()\n"
        "said = model.generate(asked, Sampling())[0].text\n"
        "if child == 0:\n"
        "    os._exit(0 if said == 'it is red' else 3)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, served[0]], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_either_client_library_will_do(library: str, served: Served) -> None:
    pytest.importorskip(library)
    other = "httpx" if library == "httpx2" else "httpx2"
    code = (
        f"import sys; sys.modules[{other!r}] = None\n"
        "from speceyes.models import OpenAIModel\n"
        "from speceyes.types import Conversation, Message, Sampling\n"
        f"model = OpenAIModel({served[0]!r}, 'm')\n"
        "asked = Conversation((Message('user', ('Which?',)),))\n"
        "print(model.generate([asked] * 3, Sampling(top_k=4))[2].text)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert (done.stdout.strip(), done.stderr) == ("it is red", "")


def test_without_a_client_library_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['httpx'] = sys.modules['httpx2'] = None\n"
        "from speceyes.errors import ConfigError\n"
        "try:\n"
        "    from speceyes.models import OpenAIModel\n"
        "except ConfigError as exc:\n"
        "    print(exc)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert 'pip install "speceyes[engine]"' in done.stdout, done.stderr
