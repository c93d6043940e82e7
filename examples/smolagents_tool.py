"""smolagents drives the funnel: as the model of an agent whose zoom tool smolagents runs.

An accepted draft is the agent's final answer at once; otherwise the large model takes the turns.
Run: python examples/smolagents_tool.py
Needs: pip install "speceyes[smolagents]"
"""

from __future__ import annotations

from smolagents import LogLevel, ToolCallingAgent

from speceyes import SpecPipeline, tiny
from speceyes.integrations.smolagents import Album, PipelineModel, PipelineTool
from speceyes.tiny.scenes import questions


def main() -> None:
    pipe = SpecPipeline.from_pretrained(
        large=tiny.LARGE,
        small=tiny.SMALL,
        gate=tiny.gate(),
    )
    model = PipelineModel(pipe)
    items = list(questions("heldout", 20))
    easy = next(item for item in items if item.kind == "large/colour")
    hard = next(item for item in items if item.kind == "card/same")
    for item in (easy, hard):
        album = Album(item.query.images)  # our zoom, and the crops that it makes
        agent = ToolCallingAgent(
            tools=album.tools,
            model=model,
            step_callbacks=[album.show],
            verbosity_level=LogLevel.OFF,
        )
        answer = agent.run(item.query.question, images=list(item.query.images))
        print(f"{item.query.question} {answer} (right: {item.answer})")
        for step in agent.memory.steps[1:]:
            for call in getattr(step, "tool_calls", None) or ():
                print(f"  calls {call.name} {call.arguments}")

    # For agents that plan in words: the funnel as a tool that they ask.
    ask = PipelineTool(pipe, easy.query.images)
    print(f"{ask.name}: {ask(question=easy.query.question)}")
    pipe.close()


if __name__ == "__main__":
    main()
