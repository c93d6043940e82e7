"""The DeepEyes dialect: JSON in `<tool_call>`, boxes in pixels of the resized image.

Format facts from the DeepEyes repository (Apache-2.0; arXiv 2505.14362): calls are Hermes-style
JSON with `bbox_2d` in absolute pixels of the smart-resized image, observations come in a user
turn between `<tool_response>` tags followed by the instruction, the answer in `<answer>`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from speceyes import prompts
from speceyes.dialects._json_call import between, parse_call
from speceyes.dialects._space import locate
from speceyes.dialects._talk import schema_lines, schema_of
from speceyes.errors import ParseError
from speceyes.protocols import Tool
from speceyes.types import Conversation, Image, Message, Observation, Query, ToolCall, Turn

_ZOOM = "image_zoom_in_tool"


@dataclass(frozen=True, slots=True)
class DeepEyesDialect:
    """DeepEyes-7B and the bundled tiny agent.

    Example:
        >>> text = '<think>far</think><tool_call>{"name": "zoom", "arguments": {}}</tool_call>'
        >>> DeepEyesDialect().parse(text).calls[0].name
        'zoom'
    """

    name: str = "deepeyes"
    stop: tuple[str, ...] = ("</tool_call>", "</answer>")

    def _start(self, query: Query, tools: Sequence[Tool], instruction: str) -> Conversation:
        schemas = schema_lines(schema_of(tool) for tool in tools)
        system = Message("system", (prompts.DEEPEYES_SYSTEM.format(tools=schemas),))
        user = Message("user", (*query.images, f"{query.text}\n{instruction}"))
        return Conversation((system, user))

    def open(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The agent's first conversation.

        The system message with the tools, then images, question and instruction.
        """
        return self._start(query, tools, prompts.DEEPEYES_INSTRUCTION)

    def ask_judge(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The same beginning, with the judge's question instead of the instruction."""
        return self._start(query, tools, prompts.JUDGE)

    def ask_direct(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The same beginning, asking for the answer at once."""
        return self._start(query, tools, prompts.DIRECT)

    def parse(self, text: str) -> Turn:
        """The turn's calls, or its answer, which wins where a turn has both (as upstream).

        Raises:
            ParseError: Neither is there, or a call can't be read.
        """
        thoughts = between(text, "<think>", "</think>")
        thought = thoughts[0].strip() if thoughts else ""
        answers = between(text, "<answer>", "</answer>")
        if answers:
            answer = answers[-1].strip()
            if not answer:
                raise ParseError("the <answer> is empty")
            return Turn(answer=answer, thought=thought)
        calls = tuple(parse_call(body) for body in between(text, "<tool_call>", "</tool_call>"))
        if not calls:
            raise ParseError("neither a <tool_call> nor an <answer> was found")
        return Turn(calls=calls, thought=thought)

    def render_call(self, call: ToolCall) -> str:
        """`<tool_call>` with the JSON object inside, a line each."""
        body = json.dumps(
            {"name": call.name, "arguments": dict(call.arguments)}, ensure_ascii=False
        ).replace("<", "\\u003c")  # a tag inside of a text would end the call there
        return f"<tool_call>\n{body}\n</tool_call>"

    def locate(
        self, call: ToolCall, images: Sequence[Image], seen: Sequence[tuple[int, int]]
    ) -> ToolCall:
        """`bbox_2d` (or `bbox`), and points, from pixels of the resized image to the original's.

        Raises:
            ParseError: `img_idx` is not an earlier image, or the box is not four numbers.
        """
        arguments = dict(call.arguments)
        if call.name == _ZOOM and "bbox" in arguments and "bbox_2d" not in arguments:
            # Upstream's schema names it so by mistake.
            arguments["bbox_2d"] = arguments.pop("bbox")
            call = ToolCall(call.name, arguments, call.raw)
        return locate(call, images, seen, scale=None)

    def observe(
        self,
        conversation: Conversation,
        text: str,
        observations: Sequence[Observation],
        *,
        last: bool,
    ) -> Conversation:
        """The model's turn, then a user turn with each observation between its tags."""
        content: list[str | Image] = []
        for seen in observations:
            content.append("<tool_response>")
            if seen.error is not None:
                content.append(prompts.OBSERVATION_ERROR.format(error=seen.error))
            content.extend(part for part in seen.content if isinstance(part, str | Image))
            content.append("</tool_response>\n")
        content.append(prompts.LAST_TURN if last else prompts.DEEPEYES_INSTRUCTION)
        return conversation.then(Message("assistant", (text,)), Message("user", tuple(content)))
