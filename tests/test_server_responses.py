"""`/v1/responses`, with the official client and with frameworks that speak through it."""

from __future__ import annotations

import asyncio
import importlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from PIL import Image

from speceyes import SpecPipeline
from speceyes.models.scripted import ScriptedModel
from support.models import FakeModel
from support.served import Served, data_url, pipeline, serving

RED = data_url(Image.new("RGB", (64, 48), "red"))
_LOOK = '<tool_call>\n{"name": "look_up", "arguments": {"word": "%s"}}\n</tool_call>'
_TOOL: Any = {
    "type": "function",
    "name": "look_up",
    "description": "Looks a word up.",
    "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
    "strict": False,
}


def _told(conversation: Any, sampling: Any) -> str:
    """The agent: two calls, then what it was shown, as JSON in hex."""
    shown = [
        [m.role, [p if isinstance(p, str) else list(p.size) for p in m.content]]
        for m in conversation.messages
    ]
    text = str(shown)
    if "of this schema" in text:
        return '<answer>{"colour": "red"}</answer>'
    if "look_up" in str(shown[:1]):
        done = text.count("a colour")
        if done < 2:
            return _LOOK % ("red", "blue")[done]
    return f"<answer>{json.dumps(shown).encode().hex()}</answer>"


def _drafted(conversation: Any, sampling: Any) -> str:
    return f"draft of {conversation.messages[-1].text.splitlines()[0]}"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    pipe = pipeline(judge={"hard": "yes", "": "no"}, agent=_told, draft=_drafted)
    with serving(pipe, limits={"images": 3, "question_chars": 500}) as served:
        yield served


@pytest.fixture
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def _user(text: str, *urls: str) -> Any:
    images = [{"type": "input_image", "image_url": url, "detail": "auto"} for url in urls or (RED,)]
    return {"role": "user", "content": [*images, {"type": "input_text", "text": text}]}


def _seen(answer: str) -> list[Any]:
    told: list[Any] = json.loads(bytes.fromhex(answer))
    return told


def test_the_official_client_gets_a_draft_with_usage_and_route(client: openai.OpenAI) -> None:
    said = client.responses.create(
        model="speceyes",
        input=[_user("Which colour?")],
        metadata={"a": "b"},
        include=["message.output_text.logprobs"],
        top_logprobs=3,
        store=False,
    )
    assert said.output_text == "draft of Which colour?" and said.status == "completed"
    assert said.usage is not None and said.usage.input_tokens > 0
    assert said.usage.total_tokens == said.usage.input_tokens + said.usage.output_tokens
    assert said.metadata == {"a": "b"} and said.error is None and said.temperature == 0
    [message] = said.output
    assert message.type == "message" and message.id.startswith("msg_")
    part = message.content[0]
    assert part.type == "output_text" and part.logprobs
    assert all(len(token.top_logprobs) == 3 for token in part.logprobs)
    assert said.model_extra is not None and said.model_extra["speceyes"]["route"] == "draft"
    # It says itself again as the next question's history.
    again = client.responses.create(
        model="speceyes", input=[_user("One?"), *said.output, _user("And this hard one?")]
    )
    assert [role for role, _ in _seen(again.output_text)][1:] == ["user", "assistant", "user"]


def test_instructions_and_the_conversation_before_are_told_to_the_agent(server: Served) -> None:
    blue = data_url(Image.new("RGB", (80, 48), "blue"))
    items = [
        {"role": "developer", "content": "Never swear."},
        _user("What is it?", blue),
        {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed", "content": [
            {"type": "output_text", "text": "A wall.", "annotations": []},
            {"type": "refusal", "refusal": "no"},
        ]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"role": "user", "content": "A hard one: and which colour?"},
    ]  # fmt: skip
    body = {"model": "speceyes", "input": items, "instructions": "Be brief."}
    reply = server.http.post("/v1/responses", json=body | {"reasoning": {"effort": "low"}})
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-speceyes-agent-only"] == "system,history"
    ignored = reply.headers["x-speceyes-ignored"].split(",")
    assert set(ignored) == {"reasoning", "input.reasoning", "input.content.refusal"}
    assert reply.json()["instructions"] == "Be brief."
    told = _seen(reply.json()["output"][0]["content"][0]["text"])
    assert told[0][1][0].endswith("Be brief.\n\nNever swear.")
    assert told[1][1] == ["What is it?"] and told[2][1] == ["A wall."]
    assert told[3][1][0] == [80, 48] and told[3][1][1].startswith("A hard one")


def test_events_come_in_the_published_order(client: openai.OpenAI, server: Served) -> None:
    stream = client.responses.create(
        model="speceyes", input=[_user("Which colour?")], stream=True, max_output_tokens=2
    )
    events = list(stream)
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert [event.sequence_number for event in events] == list(range(9))
    last: Any = events[-1]
    assert last.response.output_text == events[4].delta == "draft of"  # type: ignore[union-attr]
    assert last.response.incomplete_details.reason == "max_output_tokens"
    assert last.response.id == events[0].response.id  # type: ignore[union-attr]
    # The client's own accumulator takes them.
    with client.responses.stream(model="speceyes", input=[_user("Again?")]) as whole:
        assert whole.get_final_response().output_text == "draft of Again?"
    body = {"model": "speceyes", "input": [_user("Raw?")], "stream": True}
    raw = server.http.post("/v1/responses", json=body).text
    assert raw.startswith("event: response.created\ndata: {") and "[DONE]" not in raw


def test_tools_are_called_over_two_turns_and_streamed(client: openai.OpenAI) -> None:
    items: list[Any] = [_user("Which colour?")]
    for word in ("red", "blue"):
        said = client.responses.create(model="speceyes", input=items, tools=[_TOOL])
        call = said.output[-1]
        assert call.type == "function_call" and json.loads(call.arguments) == {"word": word}
        output: Any = "a colour" if word == "red" else [
            {"type": "input_text", "text": "a colour"}, {"type": "input_image", "image_url": RED}
        ]  # fmt: skip
        # Some clients keep the calls alone.
        items += said.output if word == "red" else [call]
        items.append({"type": "function_call_output", "call_id": call.call_id, "output": output})
    final = client.responses.create(model="speceyes", input=items, tools=[_TOOL])
    told = _seen(final.output_text)
    assert [role for role, _ in told][-4:] == ["assistant", "user", "assistant", "user"]
    assert "blue" in told[-2][1][0] and [64, 48] in told[-1][1]
    events = list(
        client.responses.create(
            model="speceyes", input=[_user("?")], tools=[_TOOL], stream=True, tool_choice="required"
        )
    )
    kinds = [event.type for event in events if "function_call" in event.type]
    delta, done = "arguments.delta", "arguments.done"
    assert kinds == [f"response.function_call_{kind}" for kind in (delta, done)]
    assert [e.sequence_number for e in events] == list(range(len(events)))
    without = client.responses.create(
        model="speceyes", input=[_user("?")], tools=[_TOOL], tool_choice="none"
    )
    assert without.output_text == "draft of ?"


def test_answers_of_a_schema_are_the_agent_s(client: openai.OpenAI) -> None:
    schema = {"type": "object", "required": ["colour"]}
    form: Any = {"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}}
    said = client.responses.create(model="speceyes", input=[_user("?")], text=form)
    assert json.loads(said.output_text) == {"colour": "red"}
    form["format"]["schema"] = {"type": "object", "required": ["size"]}
    with pytest.raises(openai.UnprocessableEntityError, match="not JSON of the form"):
        client.responses.create(model="speceyes", input=[_user("?")], text=form)
    with pytest.raises(openai.APIError, match="not JSON of the form") as raised:
        list(client.responses.create(model="speceyes", input=[_user("?")], text=form, stream=True))
    assert raised.value.code == "no_answer"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": "no picture"}, "input"),
        ({"input": [_user("", RED)]}, "input[0].content"),
        ({"input": [_user("x", RED, RED, RED, data_url(kind="JPEG"))]}, "input"),
        ({"input": [_user("x" * 501)]}, "input"),
        ({"input": [_user("x", "file:///etc/passwd")]}, "input[0].content[0].image_url"),
        ({"input": [_user("x", "http://127.0.0.1/x.png")]}, "input[0].content[0].image_url"),
        ({"input": [_user("x", "data:image/png;base64,AAAA")]}, "input[0].content[0].image_url"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]},
         "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
         "input[0].content[0].file_id"),
        ({"input": [{"role": "critic", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "web_search_call"}]}, "input[0].type"),
        ({"input": [_user("?") | {"type": ""}]}, "input[0].type"),
        ({"input": ["x"]}, "input[0]"),
        ({"input": [_user("x\ud800")]}, "input[0].content[1].text"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "c"}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"truncation": "middle"}, "truncation"),
        ({"n": 2}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"instructions": 3}, "instructions"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"include": "all"}, "include"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
        ({"text": {"format": {"type": "xml"}}}, "text.format"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function.name"),
        ({"tool_choice": "some"}, "tool_choice"),
        ({"speceyes": {"route": "draft"}}, "speceyes.route"),
    ],
)  # fmt: skip
def test_what_is_not_served_is_refused_by_its_field(
    server: Served, change: dict[str, Any], param: str
) -> None:
    body = {"model": "speceyes", "input": [_user("?")], **change}
    said = json.dumps(body).encode()
    reply = server.http.post(
        "/v1/responses", content=said, headers={"Content-Type": "application/json"}
    )
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param
    assert reply.headers["x-should-retry"] == "false"


def test_strict_servers_take_one_user_message() -> None:
    with serving(pipeline(), limits={"tolerant": False}) as served:
        whole = {"model": "speceyes", "input": [_user("?")]}
        assert served.http.post("/v1/responses", json=whole).status_code == 200
        for more, param in (
            ({"instructions": "x"}, "instructions"),
            ({"input": [_user("a"), _user("b")]}, "input"),
            ({"reasoning": {}}, "reasoning"),
            ({"tools": [_TOOL]}, "tools"),
        ):
            reply = served.http.post("/v1/responses", json=whole | more)
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


def test_keys_deadlines_and_faults_are_as_in_chat(caplog: pytest.LogCaptureFixture) -> None:
    from speceyes.server.keys import Keys, new_key

    key, line = new_key("alice")
    keys = Keys({"alice": line.rpartition(":")[2]})
    let_go = threading.Event()
    held = FakeModel("no", hold=let_go)
    with serving(SpecPipeline.from_pretrained(held, ScriptedModel("red")), keys=keys) as served:
        body = {"model": "speceyes", "input": [_user("the secret xyzzy")]}
        assert served.http.post("/v1/responses", json=body).status_code == 401
        known = {"Authorization": f"Bearer {key}"}
        late = body | {"speceyes": {"deadline_s": 3}}
        reply = served.http.post("/v1/responses", json=late, headers=known)
        assert reply.status_code == 504 and reply.json()["error"]["code"] == "deadline_exceeded"
        stream = served.http.post("/v1/responses", json=late | {"stream": True}, headers=known)
        assert "event: error\n" in stream.text and "deadline_exceeded" in stream.text
        let_go.set()
        assert served.http.post("/v1/responses", json=body, headers=known).status_code == 200
    assert "xyzzy" not in caplog.text


def test_the_agents_sdk_speaks_to_it_over_two_tool_turns(server: Served) -> None:
    agents = pytest.importorskip("agents", reason="openai-agents is not installed")
    agents.set_tracing_disabled(True)
    words = []

    @agents.function_tool  # type: ignore[untyped-decorator, unused-ignore]
    def look_up(word: str) -> str:
        """Looks a word up."""
        words.append(word)
        return "a colour"

    async def both() -> None:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            model = agents.OpenAIResponsesModel(model="speceyes", openai_client=client)
            agent = agents.Agent("a", instructions="Be brief.", model=model, tools=[look_up])
            result = await agents.Runner.run(agent, [_user("Which colour?")])
            assert words == ["red", "blue"] and "Be brief." in str(_seen(result.final_output))
            streamed = agents.Runner.run_streamed(agent, [_user("Which colour?")])
            async for _ in streamed.stream_events():
                pass
            assert _seen(streamed.final_output) == _seen(result.final_output)

    asyncio.run(both())


def test_pydantic_ai_speaks_to_it_over_two_tool_turns(server: Served) -> None:
    ai = pytest.importorskip("pydantic_ai", reason="pydantic-ai is not installed")
    provider = importlib.import_module("pydantic_ai.providers.openai").OpenAIProvider
    model = importlib.import_module("pydantic_ai.models.openai").OpenAIResponsesModel
    words = []

    def look_up(word: str) -> str:
        """Looks a word up."""
        words.append(word)
        return "a colour"

    async def ask() -> str:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            made = model("speceyes", provider=provider(openai_client=client))
            agent = ai.Agent(made, instructions="Be brief.", tools=[look_up])
            asked = [ai.BinaryContent.from_data_uri(RED), "Which colour?"]
            return str((await agent.run(asked)).output)

    told = _seen(asyncio.run(ask()))
    assert words == ["red", "blue"] and "Be brief." in str(told[0])
