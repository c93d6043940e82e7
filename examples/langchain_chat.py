"""The funnel as a LangChain chat model: asked many at once, and as an agent with a bound tool.

Run: python examples/langchain_chat.py
Needs: pip install "speceyes[langchain]"
"""

from __future__ import annotations

from speceyes import SpecPipeline, tiny
from speceyes.integrations.langchain import ChatSpecEyes, lent_tools, question
from speceyes.tiny.scenes import questions


def main() -> None:
    pipe = SpecPipeline.from_pretrained(
        large=tiny.LARGE,
        small=tiny.SMALL,
        gate=tiny.gate(),
    )
    chat = ChatSpecEyes(funnel=pipe)
    items = list(questions("heldout", 20))
    asked = [[question(item.query.question, *item.query.images)] for item in items[:4]]
    for item, said in zip(items, chat.batch(asked), strict=False):
        route = said.response_metadata["route"]
        print(f"{item.query.question} {said.content} (route: {route})")

    # The loop of an agent, written out; LangGraph's ToolNode does the same.
    hard = next(item for item in items if item.kind == "card/same")
    tools = {tool.name: tool for tool in lent_tools(hard.query.images)}
    agent = chat.bind_tools(list(tools.values()))
    messages = [question(hard.query.question, *hard.query.images)]
    while (said := agent.invoke(messages)).tool_calls:
        messages.append(said)
        for call in said.tool_calls:
            print(f"  calls {call['name']} {call['args']}")
            messages.append(tools[call["name"]].invoke(call))
    print(f"{hard.query.question} {said.text} (right: {hard.answer})")
    pipe.close()


if __name__ == "__main__":
    main()
