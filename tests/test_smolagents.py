"""A funnel as smolagents' model and tool, held against the real package."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from PIL import Image as PILImage

from speceyes import AgenticFallback, Query, SpecPipeline, tiny
from speceyes.errors import ConfigError, ModelError
from speceyes.gate import SeparabilityGate
from speceyes.models.hf import HFModel
from speceyes.models.scripted import ScriptedModel
from speceyes.tiny.scenes import questions
from support.served import pipeline

smolagents = pytest.importorskip("smolagents", reason="the extra 'smolagents' is not installed")

from smolagents import LogLevel, ToolCallingAgent, tool  # noqa: E402
from smolagents.models import (  # noqa: E402
    ChatMessage,
    ChatMessageToolCall,
    ChatMessageToolCallFunction,
    MessageRole,
)

from speceyes.integrations.smolagents import (  # noqa: E402
    Album,
    PipelineModel,
    PipelineTool,
    agent_turns,
)

RED = PILImage.new("RGB", (64, 48), "red")
CALL = (
    '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 32, 32]}}'
    "</tool_call>"
)
needs_weights = pytest.mark.skipif(
    not tiny.LARGE.is_dir(), reason="the tiny pair's weights are not in this checkout"
)


def _agent(model: Any, images: Any, **more: Any) -> tuple[ToolCallingAgent, Album]:
    album = Album(images)
    agent = ToolCallingAgent(
        tools=[*album.tools, *more.pop("tools", ())],
        model=model,
        step_callbacks=[album.show],
        verbosity_level=LogLevel.OFF,
        **more,
    )
    return agent, album


def _names(agent: ToolCallingAgent) -> list[list[str]]:
    return [
        [call.name for call in step.tool_calls]
        for step in agent.memory.steps
        if getattr(step, "tool_calls", None)
    ]


@needs_weights
def test_the_tiny_pair_drives_an_agent_through_two_tool_turns() -> None:
    pair = tiny.settings()
    large, small = HFModel.from_pretrained(tiny.LARGE), HFModel.from_pretrained(tiny.SMALL)
    pipe = SpecPipeline.from_pretrained(
        large, small, gate=SeparabilityGate(pair["threshold"], top_k=pair["top_k"])
    )
    items = list(questions("heldout", 20))
    hard = next(item for item in items if item.kind == "card/same")
    easy = next(item for item in items if item.kind == "large/colour")
    model = PipelineModel(pipe)

    agent, album = _agent(model, hard.query.images)
    assert agent.run(hard.query.question, images=list(hard.query.images)) == hard.answer
    zoom = ["image_zoom_in_tool"]
    assert _names(agent) == [zoom, zoom, ["final_answer"]]
    # The funnel's own loop says the same, word for word.
    way = pipe(hard.query).trajectory
    assert way is not None
    outputs = [s.model_output for s in agent.memory.steps if hasattr(s, "model_output")]
    assert outputs == [step.text for step in way.steps]
    assert [image.size for image in album.images[1:]] == [
        seen.images[0].size for step in way.steps for seen in step.observations
    ]

    agent, album = _agent(model, easy.query.images)
    assert agent.run(easy.query.question, images=list(easy.query.images)) == easy.answer
    assert _names(agent) == [["final_answer"]] and len(album.images) == 1

    # And the other way about: a planner of any kind asks the funnel, here two questions.
    asked = [(hard.query, 0), (easy.query, 1)]
    planner = _Planner([(q.question, at) for q, at in asked])
    ask = PipelineTool(pipe, [q.images[0] for q, _ in asked])
    plans = ToolCallingAgent(tools=[ask], model=planner, verbosity_level=LogLevel.OFF)
    assert plans.run("Ask both.") == f"{hard.answer}, {easy.answer}"
    assert _names(plans) == [["ask_about_image"]] * 2 + [["final_answer"]]
    pipe.close()


class _Planner(smolagents.Model):  # type: ignore[misc]
    """Stands for a model of words: it asks each question in turn, and joins the answers."""

    def __init__(self, asked: list[tuple[str, int]]) -> None:
        super().__init__(model_id="planner")
        self._asked = asked

    def generate(self, messages: Any, *args: Any, **more: Any) -> ChatMessage:
        seen = [m.content[0]["text"] for m in messages if m.role == MessageRole.TOOL_RESPONSE]
        if len(seen) < len(self._asked):
            question, at = self._asked[len(seen)]
            name, arguments = "ask_about_image", {"question": question, "image_number": at}
        else:
            said = [text.removeprefix("Observation:\n") for text in seen]
            name, arguments = "final_answer", {"answer": ", ".join(said)}
        function = ChatMessageToolCallFunction(arguments=arguments, name=name)
        call = ChatMessageToolCall(function, f"call_{len(seen)}", "function")
        return ChatMessage(MessageRole.ASSISTANT, "", tool_calls=[call])


def test_an_agent_that_writes_programs_asks_it_twice() -> None:
    program = (
        "first = ask_about_image(question='easy', image=photo)\n"
        "final_answer(first + ', ' + ask_about_image(question='hard'))"
    )

    class Programmer(smolagents.Model):  # type: ignore[misc]
        def generate(self, messages: Any, *args: Any, **more: Any) -> ChatMessage:
            return ChatMessage(MessageRole.ASSISTANT, f"Thought: ask.\n<code>\n{program}\n</code>")

    with pipeline(judge={"hard": "yes", "": "no"}) as pipe:
        agent = smolagents.CodeAgent(
            tools=[PipelineTool(pipe, [RED])], model=Programmer(), verbosity_level=LogLevel.OFF
        )
        assert agent.run("Ask twice.", additional_args={"photo": RED}) == "red, blue"


def test_calls_come_in_pixels_and_crops_go_back_once() -> None:
    shown: list[int] = []

    def agent_says(conversation: Any, sampling: Any) -> Any:
        shown.append(len(conversation.images))
        return [CALL, CALL, "<answer>blue</answer>"]

    pipe = SpecPipeline.from_pretrained(large=ScriptedModel(agent_says))
    agent, album = _agent(PipelineModel(pipe), [RED])
    assert agent.run("Which colour?", images=[RED]) == "blue"
    assert shown == [1, 2, 3]
    assert [image.size for image in album.images] == [(64, 48), (32, 32), (32, 32)]


def test_tools_of_ones_own_and_their_errors() -> None:
    @tool
    def weigh(grams: int) -> str:
        """Weighs.

        Args:
            grams: How much.
        """
        if grams > 9:
            raise ValueError("too heavy")
        return f"{grams} g"

    heard: list[str] = []

    def agent_says(conversation: Any, sampling: Any) -> Any:
        heard.append(conversation.messages[-1].text)
        call = '<tool_call>{"name": "weigh", "arguments": {"grams": %d}}</tool_call>'
        return [call % 99, call % 5, "no tags at all", "<answer>light</answer>"]

    agent, _ = _agent(
        agent_turns(AgenticFallback(ScriptedModel(agent_says), tools=["zoom"])),
        [RED],
        tools=[weigh],
    )
    assert agent.run("How heavy?", images=[RED]) == "light"
    assert "too heavy" in heard[1] and "5 g" in heard[2]
    assert "neither" in heard[3]  # what can't be read goes back to the model, within the turn
    assert _names(agent) == [["weigh"], ["final_answer"]]


def test_streamed_turns_say_the_same() -> None:
    agent, _ = _agent(PipelineModel(pipeline(judge="yes")), [RED], stream_outputs=True)
    assert agent.run("Which colour?", images=[RED]) == "blue"


def test_a_second_task_keeps_the_image_and_forgets_the_turns() -> None:
    texts: list[list[str]] = []

    def agent_says(conversation: Any, sampling: Any) -> Any:
        texts.append([m.text for m in conversation.messages])
        return "<answer>blue</answer>"

    agent, _ = _agent(PipelineModel(SpecPipeline.from_pretrained(ScriptedModel(agent_says))), [RED])
    agent.run("First?", images=[RED])
    agent.run("Second?", reset=False)
    assert "Second?" in texts[1][-1] and not any("First?" in text for text in texts[1])


def test_without_tools_the_whole_funnel_answers() -> None:
    with pipeline(judge={"hard": "yes", "": "no"}) as pipe:
        model = PipelineModel(pipe)
        image = {"type": "image", "image": RED}
        for asked, answer, route in (("hard", "blue", "agent"), ("easy", "red", "draft")):
            content = [{"type": "text", "text": asked}, image]
            said = model.generate([ChatMessage(MessageRole.USER, content)])
            assert (said.content, said.tool_calls, said.raw["route"]) == (answer, None, route)
            assert said.token_usage is not None and said.token_usage.output_tokens > 0


def test_what_goes_wrong_is_told() -> None:
    no_image = [ChatMessage(MessageRole.USER, "Which colour?")]
    with pipeline() as pipe:
        with pytest.raises(ModelError, match="answers questions about images"):
            PipelineModel(pipe).generate(no_image)
        ask = PipelineTool(pipe)
        with pytest.raises(ModelError, match="no image 0"):
            ask(question="Which colour?")
        assert ask(question="Which colour?", image=RED) == "red"
    own = SpecPipeline(fallback=AgenticFallback.from_callable(lambda query: "mine"))
    agent, album = _agent(PipelineModel(own), [RED], max_steps=1)
    with pytest.raises(smolagents.AgentError, match="no model that can take the turns"):
        agent.run("Which colour?", images=[RED])
    with pytest.raises(ModelError, match="outside the image"):
        album.tools[0](bbox_2d=[900, 900, 990, 990])


def test_an_agent_of_smolagents_is_a_fallback() -> None:
    model = PipelineModel(SpecPipeline.from_pretrained(ScriptedModel([CALL, "<answer>x</answer>"])))

    def mine(query: Query) -> str:
        agent, _ = _agent(model, query.images)
        return str(agent.run(query.text, images=list(query.images)))

    funnel = SpecPipeline(fallback=AgenticFallback.from_callable(mine))
    assert funnel(RED, "Which colour?").answer == "x"


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "smolagents", None)
    monkeypatch.delitem(sys.modules, "speceyes.integrations.smolagents")
    with pytest.raises(ConfigError, match=r"speceyes\[smolagents\]"):
        import speceyes.integrations.smolagents  # noqa: F401
