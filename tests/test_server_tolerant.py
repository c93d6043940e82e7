"""Requests as applications write them: what the funnel can't follow is ignored or told to the agent
alone, and the response's headers name it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from PIL import Image

from support.served import Served, asking, data_url, pipeline, serving

_CALL = '<tool_call>\n{"name": "look_up", "arguments": {"word": "red"}}\n</tool_call>'
_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks a word up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
    },
}


def _told(conversation: Any, sampling: Any) -> str:
    """The conversation as the agent sees it, its images as sizes."""
    shown = [
        [m.role, [p if isinstance(p, str) else list(p.size) for p in m.content]]
        for m in conversation.messages
    ]
    text = str(shown)
    if "look_up" in text and "a colour" not in text:
        return _CALL
    if "one JSON value" in text:
        return f"<answer>{_JSON.pop()}</answer>"
    return f"<answer>{json.dumps(shown).encode().hex()}</answer>"


_JSON: list[str] = []


def _drafted(conversation: Any, sampling: Any) -> str:
    return f"draft of {conversation.messages[-1].text.splitlines()[0]}"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    pipe = pipeline(judge={"hard": "yes", "": "no"}, agent=_told, draft=_drafted)
    with serving(pipe) as served:
        yield served


def _said(reply: Any) -> str:
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["message"]["content"])


def _seen(answer: str) -> list[Any]:
    """What the agent was shown, as it told."""
    told: list[Any] = json.loads(bytes.fromhex(answer))
    return told


def _user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(width: int, **more: Any) -> dict[str, Any]:
    url = data_url(Image.new("RGB", (width, 48)))
    return {"type": "image_url", "image_url": {"url": url, **more}}


@pytest.mark.parametrize(
    ("more", "ignored"),
    [
        ({"temperature": 0.7}, "temperature"),
        ({"presence_penalty": 1, "frequency_penalty": -1}, "presence_penalty,frequency_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"reasoning_effort": "low", "metadata": {"a": "b"}}, "reasoning_effort,metadata"),
        ({"store": True}, "store"),
        ({"a\nname\x1b[31m, é": 1}, r"a?name?[31m??\xe9"),
        ({"temperature": 0, "seed": 3, "tools": [], "tool_choice": "auto"}, None),
    ],
)
def test_fields_without_effect_are_ignored_and_named(
    server: Served, more: dict[str, Any], ignored: str | None
) -> None:
    reply = server.post({**asking(), **more})
    assert _said(reply) == "draft of Which colour?"
    assert reply.headers.get("x-speceyes-ignored") == ignored
    assert "x-speceyes-agent-only" not in reply.headers
    stream = server.post({**asking(stream=True), **more})
    assert stream.headers.get("x-speceyes-ignored") == ignored


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"n": 2}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"tools": "all"}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tool_choice": "some"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"messages": [{"role": "system", "content": "be brief"}]}, "messages[0].content"),
        ({"messages": [_user(_text("no picture"))]}, "messages[0].content"),
        ({"messages": [_user(_image(64)), {"role": "judge", "content": ""}]}, "messages[1].role"),
        ({"messages": [_user({"type": "input_audio"})]}, "messages[0].content[0].type"),
    ],
)
def test_what_would_change_the_kind_of_answer_is_still_refused(
    server: Served, change: dict[str, Any], param: str
) -> None:
    assert server.refused({**asking(), **change})["param"] == param


def test_the_agent_is_told_system_and_history_and_the_draft_sees_the_last_turn(
    server: Served,
) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [_text("Never swear.")]},
        _user(_image(80), _text("What is it?")),
        {"role": "assistant", "content": "A wall.", "tool_calls": None, "refusal": None},
        _user(_image(64, detail="low"), _text("And this?")),
    ]
    reply = server.post(asking() | {"messages": messages})
    assert _said(reply) == "draft of And this?"
    assert reply.headers["x-speceyes-agent-only"] == "system,history"
    assert reply.headers["x-speceyes-ignored"] == "detail,messages.images"

    messages[-1]["content"][-1] = _text("And this hard one?")  # type: ignore[index]
    told = _seen(_said(server.post(asking() | {"messages": messages})))
    assert [role for role, _ in told] == ["system", "user", "assistant", "user"]
    assert told[0][1][0].endswith("Be brief.\n\nNever swear.") and "<tools>" in told[0][1][0]
    assert (told[1][1], told[2][1]) == (["What is it?"], ["A wall."])
    assert told[3][1][0] == [64, 48] and told[3][1][1].startswith("And this hard one?")


def test_a_question_without_images_is_about_the_latest_ones(server: Served) -> None:
    dead = {"type": "image_url", "image_url": {"url": "http://gone.example/x.png"}}
    messages = [
        _user(dead, _text("One?")),
        {"role": "assistant", "content": "1"},
        _user(_image(72)),
        _user(_text("Of which colour, a hard question?")),
    ]
    told = _seen(_said(server.post(asking() | {"messages": messages})))
    assert told[-1][1][0] == [72, 48] and told[-2] == ["assistant", ["1"]]


def test_tools_of_the_client_are_called_by_the_agent_over_two_turns(server: Served) -> None:
    body = asking("Explain this word.", tools=[_TOOL], temperature=1)
    reply = server.post(body)
    assert reply.headers["x-speceyes-agent-only"] == "tools"
    [choice] = reply.json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    message = choice["message"]
    [call] = message["tool_calls"]
    assert call["function"] == {"name": "look_up", "arguments": '{"word": "red"}'}
    for content in (message["content"], None):  # some clients keep the calls alone
        result = {"role": "tool", "tool_call_id": call["id"], "content": "a colour"}
        shown = _user(_text("The page:"), _image(88))
        body["messages"] = [asking()["messages"][0], message | {"content": content}, result, shown]
        said = server.post(body).json()["choices"][0]
        assert said["finish_reason"] == "stop"
        told = _seen(said["message"]["content"])
        assert "look_up" in told[-2][1][0] and told[-2][0] == "assistant"
        assert "a colour" in str(told[-1]) and [88, 48] in told[-1][1]
    chunks = server.post(asking(tools=[_TOOL], stream=True)).text
    assert '"finish_reason":"tool_calls"' in chunks and '"index":0,"id":"call_' in chunks


def test_the_official_client_reads_tool_calls(server: Served) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        messages: Any = asking()["messages"]
        said = client.chat.completions.create(
            model="speceyes", messages=messages, tools=[_TOOL], tool_choice="required"
        )
        [call] = said.choices[0].message.tool_calls or []
        assert call.type == "function" and call.function.name == "look_up"


def test_answers_in_json_are_the_agent_s_and_held_against_their_schema(server: Served) -> None:
    schema = {"type": "object", "required": ["colour"], "properties": {"colour": {"pattern": "("}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    _JSON.append('```json\n{"colour": "red"}\n```')
    reply = server.post(asking(response_format=form))
    assert json.loads(_said(reply)) == {"colour": "red"}
    assert reply.headers["x-speceyes-agent-only"] == "response_format"
    _JSON.append('{"color": "red"}')
    assert server.refused(asking(response_format=form), 422)["code"] == "no_answer"
    _JSON.append("red")
    body = asking(response_format={"type": "json_object"})
    assert server.refused(body, 422)["code"] == "no_answer"
    # A reference out of the schema is not followed.
    _JSON.append("{}")
    form["json_schema"]["schema"] = {"$ref": f"{server.url}/openapi.json"}  # type: ignore[index]
    assert server.refused(asking(response_format=form), 422)["code"] == "no_answer"


def test_a_base_address_without_v1_is_told_the_right_one(server: Served) -> None:
    for path in ("/chat/completions", "/", "/v1/v1/chat/completions"):
        reply = server.http.post(path, json=asking())
        assert reply.status_code == 404
        assert f"{server.url}/v1" in reply.json()["error"]["message"]
    sneaky = server.http.get("/models", headers={"host": 'x"><script>'})
    assert "script" not in sneaky.text and "http://HOST:PORT/v1" in sneaky.text


def test_requests_are_logged_without_what_they_said(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "speceyes.server.requests"):
        server.post(asking("the secret xyzzy", temperature=1))
        server.post(asking("hard xyzzy", stream=True))
        server.post(asking("xyzzy", n=2))
    lines = [json.loads(r.message) for r in caplog.records if r.name.endswith(".requests")]
    assert "xyzzy" not in caplog.text and "base64" not in caplog.text
    assert [line["status"] for line in lines] == [200, 200, 400]
    assert [line.get("route") for line in lines] == ["draft", "agent", None]
    assert lines[0]["ignored"] == ["temperature"] and lines[0]["score"] > 0.98
    assert lines[1]["stream"] and lines[1]["turns"] == 1 and lines[1]["images"] == 1
    assert (lines[2]["param"], lines[2]["code"]) == ("n", "unsupported_value")
    assert all(line["path"] == "/v1/chat/completions" and line["client"] == "" for line in lines)
