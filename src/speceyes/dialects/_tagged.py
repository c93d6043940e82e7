"""Agents that write JSON in `<tool_call>` and answer in `<answer>`, told of tools in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from speceyes import prompts
from speceyes.dialects._family import Family
from speceyes.dialects._json_call import between, parse_call, render_json
from speceyes.dialects._space import locate
from speceyes.dialects._talk import schema_lines, schema_of
from speceyes.dialects._turn import answer_in, refuse_foreign, thought_in
from speceyes.errors import ParseError
from speceyes.protocols import Tool
from speceyes.texts import Texts
from speceyes.types import Image, ToolCall, Turn


@dataclass(frozen=True, slots=True)
class TaggedFamily(Family):
    """JSON in `<tool_call>`, the answer in `<answer>`; the tools in the system message."""

    own: ClassVar[Texts] = Texts(
        system=prompts.DEEPEYES_SYSTEM,
        instruction=prompts.DEEPEYES_INSTRUCTION,
        observation="<tool_response>{result}</tool_response>\n",
    )

    def parse(self, text: str) -> Turn:
        """The turn's calls, or its answer, which wins where a turn has both (as upstream).

        Raises:
            ParseError: Neither is there, or a call can't be read.
        """
        thought, answer = thought_in(text, "<tool_call>", "<answer>"), answer_in(text, self.known)
        if answer is not None:
            return Turn(answer=answer, thought=thought)
        calls = tuple(parse_call(body) for body in between(text, "<tool_call>", "</tool_call>"))
        if not calls:
            refuse_foreign(text, known=self.known)
            raise ParseError("neither a <tool_call> nor an <answer> was found")
        return Turn(calls=calls, thought=thought)

    def render_call(self, call: ToolCall) -> str:
        """`<tool_call>` with the JSON object inside, a line each."""
        return render_json(call)

    def locate(
        self, call: ToolCall, images: Sequence[Image], seen: Sequence[tuple[int, int]]
    ) -> ToolCall:
        """`bbox_2d` (or `bbox`), and points, from pixels of the resized image to the original's.

        Raises:
            ParseError: `img_idx` is not an earlier image, or the box can't be understood.
        """
        return locate(call, images, seen, self.profile)

    def _listed(self, tools: Sequence[Tool]) -> tuple[str, tuple[Mapping[str, Any], ...]]:
        return schema_lines(schema_of(tool) for tool in tools), ()
