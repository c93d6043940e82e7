"""Funnels in LiteLLM, the OpenAI Agents SDK and Pydantic AI, each against the real package."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from speceyes import SpecPipeline
from support.served import data_url, pipeline

_RED = data_url(Image.new("RGB", (64, 48), "red"))
_LOOK = '<tool_call>\n{"name": "look_up", "arguments": {"word": "%s"}}\n</tool_call>'
_TURNS = [_LOOK % "red", _LOOK % "blue", "<answer>purple</answer>"]
"""Two tool turns and an answer."""


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it would fetch a list of prices


@pytest.fixture
def _own_loop() -> Iterator[None]:
    """`run_sync` of Pydantic AI leaves the loop that it makes, open, as the thread's own."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


def _package(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is not installed")


def _funnel(**more: Any) -> SpecPipeline:
    return pipeline(**{"judge": "yes", "agent": _TURNS, "draft": "dark red", **more})


def _user(text: str) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": _RED}}, {"type": "text", "text": text}]
    return {"role": "user", "content": parts}


_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks a word up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
    },
}


def _provided(litellm: Any, monkeypatch: pytest.MonkeyPatch, **funnels: SpecPipeline) -> None:
    handler = importlib.import_module("speceyes.integrations.litellm").SpecEyesLLM
    known = [{"provider": name, "custom_handler": handler(p)} for name, p in funnels.items()]
    monkeypatch.setattr(litellm, "custom_provider_map", known)
    monkeypatch.setattr(litellm, "suppress_debug_info", True)
    importlib.import_module("litellm.utils").custom_llm_setup()


@pytest.mark.filterwarnings("ignore")
def test_litellm_drives_two_tool_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    litellm = _package("litellm")
    _provided(litellm, monkeypatch, speceyes=_funnel())
    messages: list[Any] = [_user("Mixed, which colour is it?")]
    words = []
    for _ in range(2):
        said = litellm.completion(model="speceyes/funnel", messages=messages, tools=[_TOOL])
        assert said.choices[0].finish_reason == "tool_calls"
        message = said.choices[0].message
        [call] = message.tool_calls
        words.append(call.function.arguments)
        result = {"role": "tool", "tool_call_id": call.id, "content": "a colour"}
        messages += [message.model_dump(), result]
    assert words == ['{"word": "red"}', '{"word": "blue"}']
    said = litellm.completion(model="speceyes/funnel", messages=messages, tools=[_TOOL])
    assert said.choices[0].message.content == "purple" and said.usage.total_tokens > 0
    chunks = litellm.completion(
        model="speceyes/funnel", messages=messages, tools=[_TOOL], stream=True
    )
    assert "".join(one.choices[0].delta.content or "" for one in chunks) == "purple"
    with pytest.raises(litellm.exceptions.BadRequestError, match="no image"):
        litellm.completion(model="speceyes/funnel", messages=[{"role": "user", "content": "?"}])


@pytest.mark.filterwarnings("ignore")
def test_litellm_s_router_escalates_what_the_gate_rejects(monkeypatch: pytest.MonkeyPatch) -> None:
    litellm = _package("litellm")
    from speceyes.models.scripted import ScriptedModel

    drafts = ScriptedModel(
        "red", margin=lambda asked: 3 if "hard" in asked.messages[-1].text else 12
    )
    small = SpecPipeline.from_pretrained(small=drafts, judge=None)
    agent = SpecPipeline.from_pretrained(large=ScriptedModel("<answer>blue</answer>"))
    _provided(litellm, monkeypatch, drafts=small, agent=agent)
    router = litellm.Router(
        model_list=[
            {"model_name": "vision", "litellm_params": {"model": "drafts/small"}},
            {"model_name": "vision-agent", "litellm_params": {"model": "agent/large"}},
        ],
        fallbacks=[{"vision": ["vision-agent"]}],
        num_retries=0,
    )

    async def ask(text: str) -> tuple[str, Any]:
        said = await router.acompletion(model="vision", messages=[_user(text)])
        message = said.choices[0].message
        return message.content, message.provider_specific_fields["route"]

    assert asyncio.run(ask("An easy one?")) == ("red", "draft")
    assert asyncio.run(ask("A hard one?")) == ("blue", "agent")


def test_the_openai_agents_sdk_drives_two_tool_turns() -> None:
    agents = _package("agents")
    model = importlib.import_module("speceyes.integrations.openai_agents").SpecEyesModel
    agents.set_tracing_disabled(True)
    words = []

    @agents.function_tool  # type: ignore[untyped-decorator, unused-ignore]
    def look_up(word: str) -> str:
        """Looks a word up."""
        words.append(word)
        return "a colour"

    parts = [
        {"type": "input_image", "image_url": _RED, "detail": "auto"},
        {"type": "input_text", "text": "Mixed, which colour is it?"},
    ]
    asked: Any = [{"role": "user", "content": parts}]

    def agent(**more: Any) -> Any:
        pipe = _funnel(**more)
        return agents.Agent("a", instructions="Be brief.", model=model(pipe), tools=[look_up])

    async def both() -> None:
        result = await agents.Runner.run(agent(), asked)
        assert result.final_output == "purple" and words == ["red", "blue"]
        streamed = agents.Runner.run_streamed(agent(), asked)
        async for _ in streamed.stream_events():
            pass
        assert streamed.final_output == "purple"
        # An accepted draft ends the run at its first turn.
        quick = await agents.Runner.run(agent(judge="no"), asked)
        assert quick.final_output == "dark red" and len(words) == 4

    asyncio.run(both())


@pytest.mark.usefixtures("_own_loop")
def test_pydantic_ai_drives_two_tool_turns() -> None:
    ai = _package("pydantic_ai")
    model = importlib.import_module("speceyes.integrations.pydantic_ai").SpecEyesModel
    words = []

    def look_up(word: str) -> Any:
        """Looks a word up."""
        words.append(word)
        return ["a colour", ai.BinaryContent.from_data_uri(_RED)]

    def agent(**more: Any) -> Any:
        pipe = _funnel(**more)
        return ai.Agent(model(pipe), instructions="Be brief.", tools=[look_up])

    asked = [ai.BinaryContent.from_data_uri(_RED), "Mixed, which colour is it?"]
    result = agent().run_sync(asked)
    assert result.output == "purple" and words == ["red", "blue"]
    assert agent(judge="no").run_sync(asked).output == "dark red"
    with pytest.raises(ValueError, match="there is no image"):
        agent().run_sync("No picture?")
