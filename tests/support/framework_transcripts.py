"""Runs two questions about a scene through each framework's own package, and prints what came back.

    cd tests && python -m support.framework_transcripts

The bundled pair answers: one question by an accepted draft, one by the agent, whose zoom the
framework runs where it runs tools. A framework that isn't installed is left out, and said so.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

from speceyes import SpecPipeline, tiny
from speceyes.gate import SeparabilityGate
from speceyes.pipeline import JudgeConfig
from speceyes.tiny.scenes import Item, questions
from support.served import data_url

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it would fetch a list of prices


def funnel() -> SpecPipeline:
    """The bundled pair, whose draft judges."""
    chosen = tiny.judge_settings()
    gate = SeparabilityGate(
        chosen["thresholds"]["draft"], top_k=chosen["top_k"], aggregate=chosen["aggregate"]
    )
    return SpecPipeline.from_pretrained(
        tiny.LARGE, tiny.SMALL_JUDGE, tools=["zoom"], gate=gate, judge=JudgeConfig("draft")
    )


def two(pipe: SpecPipeline) -> Iterator[Item]:
    """A question that a draft answers, and one that the agent zooms for."""
    wanted = {"draft", "agent"}
    for one in questions("heldout", 40):
        result = pipe(one.query.images[0], one.query.question)
        zoomed = result.route == "draft" or (result.trajectory and result.trajectory.depth)
        if result.route in wanted and zoomed and result.answer == one.answer:
            wanted.remove(result.route)
            yield one


def smolagents(pipe: SpecPipeline, one: Item) -> Iterator[str]:
    """The funnel as the model of a ToolCallingAgent, which runs our zoom."""
    package: Any = importlib.import_module("smolagents")
    ours: Any = importlib.import_module("speceyes.integrations.smolagents")
    album = ours.Album([one.query.images[0]])
    agent = package.ToolCallingAgent(
        tools=album.tools,
        model=ours.PipelineModel(pipe),
        step_callbacks=[album.show],
        verbosity_level=package.LogLevel.OFF,
    )
    said = agent.run(one.query.question, images=[one.query.images[0]])
    for step in agent.memory.steps:
        for call in getattr(step, "tool_calls", None) or ():
            yield f"calls {call.name} {call.arguments}"
    yield f"says {said}"


def langchain(pipe: SpecPipeline, one: Item) -> Iterator[str]:
    """The funnel as a chat model with tools bound, in a loop that runs them."""
    messages: Any = importlib.import_module("langchain_core.messages")
    ours: Any = importlib.import_module("speceyes.integrations.langchain")
    tools = ours.lent_tools([one.query.images[0]])
    chat = ours.ChatSpecEyes(funnel=pipe).bind_tools(tools)
    told: list[Any] = [ours.question(one.query.question, one.query.images[0])]
    while (said := chat.invoke(told)).tool_calls:
        told.append(said)
        for call in said.tool_calls:
            yield f"calls {call['name']} {call['args']}"
            [tool] = [tool for tool in tools if tool.name == call["name"]]
            told.append(tool.invoke({**call, "type": "tool_call"}))
    assert isinstance(said, messages.AIMessage)
    yield f"says {said.content} (route: {said.response_metadata.get('route')})"


def _parts(one: Item) -> list[dict[str, Any]]:
    shown = {"type": "image_url", "image_url": {"url": data_url(one.query.images[0])}}
    return [shown, {"type": "text", "text": one.query.question}]


def litellm(pipe: SpecPipeline, one: Item) -> Iterator[str]:
    """The funnel as a custom provider."""
    package: Any = importlib.import_module("litellm")
    ours: Any = importlib.import_module("speceyes.integrations.litellm")
    package.suppress_debug_info = True
    package.custom_provider_map = [
        {"provider": "speceyes", "custom_handler": ours.SpecEyesLLM(pipe)}
    ]
    importlib.import_module("litellm.utils").custom_llm_setup()
    said = package.completion(
        model="speceyes/funnel", messages=[{"role": "user", "content": _parts(one)}]
    )
    message = said.choices[0].message
    yield f"says {message.content} (route: {message.provider_specific_fields['route']})"


def openai_agents(pipe: SpecPipeline, one: Item) -> Iterator[str]:
    """The funnel as an agent's model, with a tool of the user's own beside."""
    package: Any = importlib.import_module("agents")
    ours: Any = importlib.import_module("speceyes.integrations.openai_agents")
    package.set_tracing_disabled(True)
    parts = [
        {"type": "input_image", "image_url": data_url(one.query.images[0]), "detail": "auto"},
        {"type": "input_text", "text": one.query.question},
    ]
    agent = package.Agent("eyes", model=ours.SpecEyesModel(pipe))
    asked = package.Runner.run(agent, [{"role": "user", "content": parts}])
    yield f"says {asyncio.run(asked).final_output}"


def pydantic_ai(pipe: SpecPipeline, one: Item) -> Iterator[str]:
    """The funnel as an agent's model."""
    package: Any = importlib.import_module("pydantic_ai")
    ours: Any = importlib.import_module("speceyes.integrations.pydantic_ai")
    shown = package.BinaryContent.from_data_uri(data_url(one.query.images[0]))
    agent = package.Agent(ours.SpecEyesModel(pipe))
    said = asyncio.run(agent.run([shown, one.query.question]))
    yield f"says {said.output}"


def inspect(pipe: SpecPipeline, one: Item) -> Iterator[str]:
    """The funnel as a task's solver, and as the model that Inspect's own solver asks."""
    package: Any = importlib.import_module("inspect_ai")
    dataset: Any = importlib.import_module("inspect_ai.dataset")
    model: Any = importlib.import_module("inspect_ai.model")
    scorer: Any = importlib.import_module("inspect_ai.scorer")
    solver: Any = importlib.import_module("inspect_ai.solver")
    ours: Any = importlib.import_module("speceyes.integrations.inspect_ai")
    parts = [
        model.ContentImage(image=data_url(one.query.images[0])),
        model.ContentText(text=one.query.question),
    ]
    asked = dataset.Sample(input=[model.ChatMessageUser(content=parts)], target=one.answer)
    funnel = model.get_model("speceyes/funnel", pipe=pipe, memoize=False)
    ways = {
        "solver": (ours.speceyes_solver(pipe), "mockllm/model"),
        "model": (solver.generate(), funnel),
    }
    for way, (solves, answers) in ways.items():
        task = package.Task(dataset=[asked], solver=solves, scorer=scorer.match())
        with tempfile.TemporaryDirectory() as logs:  # samples are read from there when asked for
            [log] = package.eval(task, model=answers, display="none", log_dir=logs)
            assert log.status == "success", log.error
            [sample] = log.samples
        facts = (sample.metadata or {}).get("speceyes", {})
        facts = facts or (sample.output.metadata or {}).get("speceyes", {})
        [graded] = sample.scores.values()
        route = facts.get("route", "not told")
        yield f"as {way}: says {sample.output.completion} (route: {route}; scored {graded.value})"


FRAMEWORKS: dict[str, Callable[[SpecPipeline, Item], Iterator[str]]] = {
    "smolagents": smolagents,
    "langchain-core": langchain,
    "litellm": litellm,
    "openai-agents": openai_agents,
    "pydantic-ai-slim": pydantic_ai,
    "inspect-ai": inspect,
}


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def main() -> None:
    """Prints a transcript of each."""
    with funnel() as pipe:
        asked = list(two(pipe))
        for name, run in FRAMEWORKS.items():
            try:
                _say(f"{name} {version(name)}")
            except ModuleNotFoundError:
                _say(f"{name} isn't installed")
                continue
            for one in asked:
                _say(f"  {one.query.question} ({one.query.id}; right: {one.answer})")
                for line in run(pipe, one):
                    _say(f"    {line}")


if __name__ == "__main__":
    main()
