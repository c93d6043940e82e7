"""A funnel as LangChain's chat model and Runnable, in LangGraph's loop too."""

from __future__ import annotations

import asyncio
import base64
import sys
from typing import Any

import pytest
from PIL import Image as PILImage

from speceyes import SpecPipeline, tiny
from speceyes.errors import ConfigError, ImageError, InputError, ModelError
from speceyes.gate import SeparabilityGate
from speceyes.models.hf import HFModel
from speceyes.models.scripted import ScriptedModel
from speceyes.tiny.scenes import questions
from support.served import data_url, pipeline

pytest.importorskip("langchain_core", reason="the extra 'langchain' is not installed")

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.runnables import RunnableLambda

from speceyes.integrations.langchain import (
    ChatSpecEyes,
    funnel_runnable,
    lent_tools,
    question,
)
from support.models import FakeModel

RED = PILImage.new("RGB", (64, 48), "red")
_DATA = data_url(RED).partition(",")[2]
CALL = (
    '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 32, 32]}}'
    "</tool_call>"
)
needs_weights = pytest.mark.skipif(
    not tiny.LARGE.is_dir(), reason="the tiny pair's weights are not in this checkout"
)


def _tiny() -> SpecPipeline:
    pair = tiny.settings()
    large, small = HFModel.from_pretrained(tiny.LARGE), HFModel.from_pretrained(tiny.SMALL)
    return SpecPipeline.from_pretrained(
        large, small, gate=SeparabilityGate(pair["threshold"], top_k=pair["top_k"])
    )


@needs_weights
def test_langgraph_takes_the_tiny_pair_through_two_tool_turns() -> None:
    pytest.importorskip("langgraph", reason="langgraph is not installed")
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition

    items = list(questions("heldout", 20))
    hard = next(item for item in items if item.kind == "card/same")
    easy = next(item for item in items if item.kind == "large/colour")
    with _tiny() as pipe:
        for item, turns in ((hard, 2), (easy, 0)):
            tools = lent_tools(item.query.images)
            bound = ChatSpecEyes(funnel=pipe).bind_tools(tools)
            chat = RunnableLambda(lambda state: state["messages"]) | bound
            graph = StateGraph(MessagesState)
            graph.add_node("agent", chat | (lambda said: {"messages": [said]}))
            graph.add_node("tools", ToolNode(tools))
            graph.add_edge(START, "agent")
            graph.add_conditional_edges("agent", tools_condition)
            graph.add_edge("tools", "agent")
            asked = question(item.query.question, *item.query.images)
            messages = graph.compile().invoke({"messages": [asked]})["messages"]
            called = [m for m in messages if isinstance(m, ToolMessage)]
            assert len(called) == turns
            said = [m.text for m in messages if isinstance(m, AIMessage)]
            result = pipe(item.query)
            if turns:
                assert result.trajectory is not None
                *acts, _ = result.trajectory.steps
                assert said == [*(step.text for step in acts), hard.answer]
            else:
                assert said == [item.answer]
            last = messages[-1].response_metadata
            assert last["route"] == result.route and not messages[-1].tool_calls


def test_what_is_asked_together_shares_batches() -> None:
    model = FakeModel("red", delay_s=0.3)
    with SpecPipeline.from_pretrained(small=model, judge=None) as pipe:
        chat = ChatSpecEyes(funnel=pipe)
        asked = [[question(f"q{at}", RED)] for at in range(6)]
        assert [m.content for m in chat.batch(asked)] == ["red"] * 6
        synchronous = len(model.batches)

        async def both() -> list[Any]:
            return [await chat.abatch(asked), await chat.ainvoke(asked[0])]

        many, one = asyncio.run(both())
        assert [m.content for m in many] == ["red"] * 6 and one.content == "red"
    assert len(model.asked) == 13 and synchronous < 6 and len(model.batches) - synchronous < 7


def test_streams_carry_text_calls_and_usage() -> None:
    with pipeline(judge={"hard": "yes", "": "no"}, agent=[CALL]) as pipe:
        chat = ChatSpecEyes(funnel=pipe)
        [chunk] = list(chat.stream([question("easy", RED)]))
        assert chunk.content == "red" and chunk.usage_metadata is not None
        assert chunk.response_metadata["route"] == "draft"
        assert 0 < chunk.response_metadata["score"] <= 1

        async def streamed() -> list[Any]:
            bound = chat.bind_tools(lent_tools([RED]))
            return [chunk async for chunk in bound.astream([question("hard", RED)])]

        [chunk] = asyncio.run(streamed())
        [call] = chunk.tool_calls
        assert call["name"] == "image_zoom_in_tool" and call["args"] == {"bbox_2d": [0, 0, 32, 32]}


def test_messages_become_a_question_and_its_rounds() -> None:
    heard: list[Any] = []

    def says(conversation: Any, sampling: Any) -> str:
        heard.append(conversation)
        return "<answer>blue</answer>"

    pipe = SpecPipeline.from_pretrained(ScriptedModel(says))
    chat = ChatSpecEyes(funnel=pipe).bind_tools(lent_tools([RED]))
    data = data_url(RED).partition(",")[2]
    image = {"type": "image", "base64": data, "mime_type": "image/png"}
    messages = [
        SystemMessage("You are something else."),
        HumanMessage([{"type": "text", "text": "First?"}, image]),
        AIMessage("<answer>one</answer>"),
        HumanMessage("Second?"),
        AIMessage(CALL, tool_calls=[{"name": "image_zoom_in_tool", "args": {}, "id": "1"}]),
        ToolMessage([{"type": "image_url", "image_url": {"url": data_url(RED)}}], tool_call_id="1"),
        AIMessage(CALL, tool_calls=[{"name": "image_zoom_in_tool", "args": {}, "id": "2"}]),
        ToolMessage("it broke", tool_call_id="2", status="error"),
    ]
    said = chat.invoke(messages)
    assert said.content == "blue" and not said.tool_calls
    [conversation] = heard
    roles = [message.role for message in conversation.messages]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    text = "".join(message.text for message in conversation.messages)
    assert "Second?" in text and "it broke" in text
    assert "First?" not in text and "something else" not in text
    assert len(conversation.images) == 2


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("Which colour?", "an image in it or before it"),
        ([{"type": "text", "text": "?"}, {"type": "audio"}], "type 'audio'"),
        ([{"type": "image_url", "image_url": {"url": "/etc/passwd"}}, "?"], "must be a data URL"),
        (
            [{"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}, "?"],
            "not fetched",
        ),
    ],
)
def test_what_is_no_question_about_an_image_is_refused(content: Any, told: str) -> None:
    chat = ChatSpecEyes(funnel=pipeline())
    with pytest.raises((ModelError, ImageError), match=told):
        chat.invoke([HumanMessage(content)])


def test_it_calls_tools_of_any_kind_and_only_by_its_own_choice() -> None:
    def weigh(grams: int) -> str:
        """Weighs."""
        return f"{grams} g"

    agent = '<tool_call>{"name": "weigh", "arguments": {"grams": 3}}</tool_call>'
    chat = ChatSpecEyes(funnel=SpecPipeline.from_pretrained(ScriptedModel(agent)))
    said = chat.bind_tools([weigh]).invoke([question("How heavy?", RED)])
    assert [(c["name"], c["args"]) for c in said.tool_calls] == [("weigh", {"grams": 3})]
    with pytest.raises(ConfigError, match="tool_choice='weigh'"):
        chat.bind_tools([weigh], tool_choice="weigh")
    unreadable = ChatSpecEyes(funnel=SpecPipeline.from_pretrained(ScriptedModel("what?")))
    with pytest.raises(ModelError, match="3 times over"):
        unreadable.bind_tools([weigh]).invoke([question("How heavy?", RED)])


def test_a_runnable_gives_results() -> None:
    with pipeline(judge={"hard": "yes", "": "no"}) as pipe:
        asks = RunnableLambda(lambda text: (RED, text))
        chain = asks | funnel_runnable(pipe) | (lambda result: result.answer)
        assert chain.invoke("easy") == "red"
        assert chain.batch(["easy", "hard", "easy"]) == ["red", "blue", "red"]
        assert asyncio.run(chain.ainvoke("hard")) == "blue"
        assert list(chain.stream("hard")) == ["blue"]
        direct = funnel_runnable(pipe)
        broken, fine = direct.batch([(b"", "x"), (RED, "easy")])
        assert broken.route == "error" and fine.answer == "red"
        later = asyncio.run(direct.abatch([(RED, "hard"), (RED, "easy")]))
        assert [result.answer for result in later] == ["blue", "red"]


def test_a_sync_call_works_where_a_loop_runs() -> None:
    async def inside() -> str:
        return str(chat.invoke([question("easy", RED)]).content)

    with pipeline() as pipe:
        chat = ChatSpecEyes(funnel=pipe)
        assert asyncio.run(inside()) == "red"


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_core.language_models.chat_models", None)
    monkeypatch.delitem(sys.modules, "speceyes.integrations.langchain")
    with pytest.raises(ConfigError, match=r"speceyes\[langchain\]"):
        import speceyes.integrations.langchain  # noqa: F401


def test_blocks_of_thought_and_calls_and_dead_pictures_of_earlier_messages_are_left_alone() -> None:
    model = ChatSpecEyes(funnel=pipeline(draft=lambda asked, how: asked.messages[-1].text))
    dead = {"type": "image_url", "image_url": {"url": "https://gone.example/x.png"}}
    broken = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    blocks: list[Any] = [
        {"type": "reasoning", "summary": [], "id": "rs_1"},
        {"type": "thinking", "thinking": "hm", "signature": "x"},
        {"type": "tool_use", "id": "t1", "name": "zoom", "input": {}},
        {"type": "text", "text": "It is red."},
    ]
    text: Any = {"type": "text"}
    messages = [
        HumanMessage([dead, broken, {"type": "text", "text": "And before?"}]),
        AIMessage(blocks),
        HumanMessage([{"type": "file", "id": "f"}, text]),
        question("Which colour?", RED),
    ]
    assert str(model.invoke(messages).content).startswith("Which colour?")
    with pytest.raises(ModelError, match="there must be a human message with text"):
        model.invoke([HumanMessage([dead, text])])
    # The pictures of the question itself are needed.
    with pytest.raises(ImageError):
        model.invoke([HumanMessage([broken, {"type": "text", "text": "Which?"}])])
    with pytest.raises(ModelError, match="type 'file'"):
        model.invoke([HumanMessage([{"type": "file"}, {"type": "text", "text": "Which?"}])])


def test_stop_cuts_the_answer() -> None:
    model = ChatSpecEyes(funnel=pipeline(draft="dark red or blue"))
    asked = [question("Which colour?", RED)]
    assert model.invoke(asked, stop=[" or", "red"]).content == "dark "
    assert "".join(str(c.content) for c in model.stream(asked, stop=[" or"])) == "dark red"
    assert asyncio.run(model.ainvoke(asked, stop=["nothing"])).content == "dark red or blue"
    assert model.invoke(asked, stop=["", " or"]).content == "dark red"


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image_url", "image_url": {"url": f" {data_url(RED)}\n"}},
        {"type": "image", "url": f" {data_url(RED)}"},
        {"type": "image_url", "image_url": _DATA},
        {"type": "image", "base64": data_url(RED), "mime_type": "image/png"},
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": _DATA},
        },
        {"type": "image", "source": {"type": "url", "url": data_url(RED)}},
        {"type": "input_image", "image_url": data_url(RED)},
        {"type": "input_image", "detail": "low", "image_url": {"url": data_url(RED)}},
        {"type": "image", "base64": _DATA.encode(), "mime_type": "image/png"},
        {"type": "image", "base64": base64.b64decode(_DATA), "mime_type": "image/png"},
        {"type": "image_url", "image_url": {"url": data_url(RED).encode()}},
        {"type": "image", "image": RED},
        {
            "type": "image",
            "base64": f"data:image/png;base64,{data_url(RED)}",
            "mime_type": "image/png",
        },
        {"type": "image", "base64": _DATA, "mime_type": "application/octet-stream"},
        {"type": "media", "mime_type": "image/png", "data": _DATA},
        {"type": "file", "mime_type": "IMAGE/PNG", "base64": _DATA},
        {"image": {"format": "png", "source": {"bytes": base64.b64decode(_DATA)}}},
    ],
)
def test_images_are_read_in_each_form_that_messages_have(block: dict[str, Any]) -> None:
    model = ChatSpecEyes(funnel=pipeline(draft="red"))
    for said in ({"type": "text", "text": "Which colour?"}, {"type": "input_text", "text": "?"}):
        assert model.invoke([HumanMessage([block, said])]).content == "red"
    spoken = ChatMessage([block, {"text": "Which colour?"}], role="user")
    assert model.invoke([spoken]).content == "red"


def _heard(*said: BaseMessage) -> str:
    """The text of the conversation that the large model is asked."""
    heard: list[Any] = []

    def says(conversation: Any, sampling: Any) -> str:
        heard.append(conversation)
        return "<answer>blue</answer>"

    with SpecPipeline.from_pretrained(ScriptedModel(says)) as pipe:
        chat = ChatSpecEyes(funnel=pipe).bind_tools(lent_tools([RED]))
        assert chat.invoke([question("Second?", RED), *said]).content == "blue"
    return "\n".join(message.text for message in heard[0].messages)


_CALLED = {"name": "image_zoom_in_tool", "args": {"bbox_2d": [1, 2, 33, 44]}, "id": "1"}


@pytest.mark.parametrize(
    "turn",
    [
        AIMessage("", tool_calls=[_CALLED]),
        AIMessage("I look.", tool_calls=[_CALLED]),
        AIMessage(
            [
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "1", "name": _CALLED["name"], "input": _CALLED["args"]},
            ]
        ),
        AIMessage(
            "",
            additional_kwargs={
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {
                            "name": "image_zoom_in_tool",
                            "arguments": '{"bbox_2d": [1, 2, 33, 44]}',
                        },
                    }
                ]
            },
        ),
        AIMessage(
            "",
            additional_kwargs={
                "function_call": {
                    "name": "image_zoom_in_tool",
                    "arguments": '{"bbox_2d": [1, 2, 33, 44]}',
                }
            },
        ),
    ],
)
def test_calls_of_earlier_turns_are_told_in_the_agents_words(turn: AIMessage) -> None:
    text = _heard(turn, ToolMessage("seen", tool_call_id="1"))
    assert text.count("[1, 2, 33, 44]") == 1 and '"name": "image_zoom_in_tool"' in text
    assert "<tool_call>" in text and "seen" in text
    assert ("I look." in text) == ("I look." in str(turn.content))


def test_calls_that_can_t_be_read_and_functions_of_old_are_told_too() -> None:
    broken = {"name": "zoom", "args": '{"bbox', "id": "1", "error": None, "type": "invalid"}
    text = _heard(
        AIMessage("", invalid_tool_calls=[broken]),
        FunctionMessage("It broke.", name="zoom"),
        AIMessage(CALL, tool_calls=[_CALLED]),
        ToolMessage("", tool_call_id="1", status="error", name="zoom"),
    )
    assert 'zoom({"bbox)' in text and "It broke." in text and "zoom failed" in text
    assert "[1, 2, 33, 44]" not in text  # the text holds its call already


def test_halves_of_characters_are_refused_in_the_question_and_replaced_elsewhere() -> None:
    half = chr(0xD83D)
    call = {"name": "zoom", "args": {"label": f"a{half}b"}, "id": "1"}
    text = _heard(
        AIMessage(f"I {half} look.", tool_calls=[call]),
        ToolMessage(f"se{half}en", tool_call_id="1"),
    )
    assert "I ? look." in text and "a?b" in text and "se?en" in text
    chat = ChatSpecEyes(funnel=pipeline())
    with pytest.raises(InputError, match="half a surrogate pair"):
        chat.invoke([question(f"Which {half}?", RED)])
