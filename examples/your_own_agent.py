"""The funnel in front of an agent that exists already: here one of smolagents, with a zoom tool.

Run: python examples/your_own_agent.py
Needs: pip install "speceyes[smolagents]"
"""

from __future__ import annotations

from smolagents import LogLevel, ToolCallingAgent

from speceyes import AgenticFallback, HFModel, Query, SpecPipeline, tiny
from speceyes.answerer import SpeculativeAnswerer
from speceyes.gate import SeparabilityGate
from speceyes.integrations.smolagents import Album, agent_turns
from speceyes.judge import ToolJudge
from speceyes.tiny.scenes import questions

QUERIES = 24
large, small = HFModel.from_pretrained(tiny.LARGE), HFModel.from_pretrained(tiny.SMALL)
model = agent_turns(AgenticFallback(large, tools=["zoom"]))


def your_agent(query: Query) -> str:
    """Stands for whatever you have: any function from a query to an answer."""
    album = Album(query.images)
    agent = ToolCallingAgent(
        tools=album.tools, model=model, step_callbacks=[album.show], verbosity_level=LogLevel.OFF
    )
    return str(agent.run(query.text, images=list(query.images)))


def main() -> None:
    chosen = tiny.settings()
    agent = AgenticFallback.from_callable(your_agent)
    top_k = chosen["top_k"]
    funnel = SpecPipeline(
        judge=ToolJudge(large, dialect="deepeyes", tools=["zoom"]),
        answerer=SpeculativeAnswerer(small, top_k=top_k),
        gate=SeparabilityGate(chosen["threshold"], top_k=top_k),
        fallback=agent,
    )
    alone = SpecPipeline(fallback=agent)
    items = list(questions("heldout", QUERIES))
    funnel([items[0].query])  # warm
    spent = {}
    for name, pipe in (("agent alone", alone), ("funnel before it", funnel)):
        report = pipe.run([item.query for item in items])
        right = sum(r.answer == i.answer for r, i in zip(report.results, items, strict=True))
        spent[name] = report.seconds
        print(f"{name}: {right} of {QUERIES} right in {report.seconds:.1f} s")
    print(f"gain: {spent['agent alone'] / spent['funnel before it']:.2f} times as fast")


if __name__ == "__main__":
    main()
