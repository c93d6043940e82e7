"""Agents that speak their chat template's own tool format: Hermes-style JSON in `<tool_call>`.

The tools go to the model by the template's `tools=`, and results come back between
`<tool_response>` tags, just as the templates of the Qwen families write a message of the role
"tool". A turn without a call is the answer, with or without `<answer>` tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from speceyes import prompts
from speceyes.dialects._json_call import between, call_of, read_json, written
from speceyes.dialects._talk import begin, content_of, reply, schema_of
from speceyes.dialects._turn import answer_in, spoken, thought_in
from speceyes.errors import ParseError
from speceyes.protocols import Tool
from speceyes.types import Conversation, Image, Observation, Query, ToolCall, Turn

_CALL = ("<tool_call>", "</tool_call>")


def open_native(
    query: Query, tools: Sequence[Tool], instruction: str, system: str, scale: float | None
) -> Conversation:
    """System message, images, question and instruction; the tools beside them."""
    boxes = prompts.BOXES_SEEN if scale is None else prompts.BOXES_SCALED
    boxes = boxes.replace("{scale}", f"{scale:g}" if scale is not None else "")
    return begin(
        query,
        f"{query.text}\n{instruction}",
        system=system.replace("{boxes}", boxes),
        tools=[schema_of(tool) for tool in tools],
    )


def parse_native(text: str) -> Turn:
    """The turn's answer in tags, else its calls, else its text as the answer.

    Raises:
        ParseError: It is blank, or a call can't be read.
    """
    thought, said = thought_in(text, *_CALL), spoken(text)
    answer = answer_in(said)
    if answer is not None:
        return Turn(answer=answer, thought=thought)
    bodies = between(said, *_CALL)
    if not bodies and "</think>" not in said and _has_name(said):
        bodies = [said.replace("</tool_call>", "")]  # the tags are special tokens for some
    calls = tuple(call for body in bodies for call in _calls(body))
    if bodies:
        if not calls:
            raise ParseError("the list of calls is empty")
        return Turn(calls=calls, thought=thought)
    plain = said.strip()
    if not plain or "<think>" in plain or "</think>" in plain:
        raise ParseError("neither a <tool_call> nor an answer was found")
    if "</tool_call>" in plain:
        raise ParseError("a </tool_call> stands without its <tool_call>")
    return Turn(answer=plain, thought=thought, plain=True)


def _has_name(text: str) -> bool:
    """Whether a turn without tags looks like the JSON of a call."""
    start = text.strip().removeprefix("```json").removeprefix("```").lstrip()[:1]
    return bool(start) and start in "{[" and ('"name"' in text or "'name'" in text)


def _calls(body: str) -> list[ToolCall]:
    """One call, or several in a list, in any of the forms that templates teach."""
    data = read_json(body)
    return [call_of(_plain_form(one), body) for one in (data if isinstance(data, list) else [data])]


def _plain_form(data: Any) -> Any:
    """`{"name", "arguments"}` of OpenAI's `{"function": {...}}` and Llama's "parameters"."""
    if isinstance(data, dict) and isinstance(data.get("function"), dict):
        data = data["function"]
    if isinstance(data, dict) and "arguments" not in data and "parameters" in data:
        data = {**data, "arguments": data["parameters"]}
    return data


def render_native(call: ToolCall) -> str:
    """`<tool_call>` with the JSON object inside, a line each."""
    body = written({"name": call.name, "arguments": dict(call.arguments)})
    return f"<tool_call>\n{body}\n</tool_call>"


def observe_native(
    conversation: Conversation, text: str, observations: Sequence[Observation], last: bool
) -> Conversation:
    """The model's turn, and a user turn that begins and ends with the tags of a tool's result.

    Templates of thinking models keep the reasoning only before turns of that form.
    """
    parts: list[str | Image] = []
    for at, seen in enumerate(observations):
        parts += ["\n" if at else "", "<tool_response>\n", *content_of(seen)]
        if last and at == len(observations) - 1:
            parts.append(f"\n{prompts.LAST_TURN}")
        parts.append("\n</tool_response>")
    return reply(conversation, text, parts)
