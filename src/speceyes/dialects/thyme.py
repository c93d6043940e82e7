"""The Thyme dialect: Python code inside the assistant's turn, which goes on after its output.

Format facts from the Thyme repository (Apache-2.0; arXiv 2508.11630): code stands in `<code>`,
fenced or not; the user message gives each image's path and size; what the code printed, and the
images at the paths it printed, come back in `<sandbox_output>` within the same assistant turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from speceyes import prompts
from speceyes.dialects._talk import begin, content_of, joined
from speceyes.dialects._turn import answer_in, boxed, codes, thought_in
from speceyes.errors import InputError, ParseError
from speceyes.protocols import Tool
from speceyes.types import Conversation, Image, Observation, Query, ToolCall, Turn


@dataclass(frozen=True, slots=True)
class ThymeDialect:
    r"""Thyme. Its calls are programs, for a tool that runs Python in a sandbox.

    Args:
        tool: Name of the tool that runs the code; it is called with {"code": "..."}.
        image_path: Where the code finds the query's images; "{number}" counts them from 1.
        system: System message.

    Example:
        >>> said = "<think>I crop it. <code>\n```python\nprint(1)\n```\n</code>"
        >>> ThymeDialect().parse(said).calls[0].arguments
        {'code': 'print(1)'}
    """

    tool: str = "python"
    image_path: str = "image_{number}.png"
    system: str = prompts.THYME_SYSTEM
    name: str = "thyme"
    stop: tuple[str, ...] = ("</code>", "</answer>")

    def _start(self, query: Query, instruction: str) -> Conversation:
        lines = []
        for number, image in enumerate(query.images, 1):
            which = f" {number}" if len(query.images) > 1 else ""
            path = self.image_path.replace("{number}", str(number))
            lines.append(f'### User Image{which} Path: "{path}"')
            lines.append(f'### User Image{which} Size: "{image.width}x{image.height}"')
        about = "\n".join(lines)
        return begin(query, f"{query.text}\n\n{about}\n\n{instruction}", system=self.system)

    def open(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The agent's first conversation. Code needs no schemas, so the tools aren't listed."""
        return self._start(query, prompts.THYME_INSTRUCTION)

    def ask_judge(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The same beginning, with the judge's question instead of the instruction."""
        return self._start(query, prompts.JUDGE)

    def ask_direct(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The same beginning, asking for the answer at once."""
        return self._start(query, prompts.DIRECT)

    def parse(self, text: str) -> Turn:
        r"""The turn's answer, which wins (as upstream), or its programs.

        An answer in `\boxed{}` is taken out of it, as upstream does.

        Raises:
            ParseError: Neither is there, or a program is empty or too long.
        """
        thought, answer = thought_in(text, "<code>"), answer_in(text)
        if answer is not None:
            box = boxed(answer)
            return Turn(answer=box[0] if box and box[0] else answer, thought=thought)
        calls = tuple(ToolCall(self.tool, {"code": code}, raw) for code, raw in codes(text))
        if not calls:
            raise ParseError("neither <code> nor an <answer> was found")
        return Turn(calls=calls, thought=thought)

    def render_call(self, call: ToolCall) -> str:
        """The program in its fence and tags.

        Raises:
            InputError: The call isn't a program, or holds the tag that ends one.
        """
        return render_code(call, self.tool)

    def locate(
        self, call: ToolCall, images: Sequence[Image], seen: Sequence[tuple[int, int]]
    ) -> ToolCall:
        """The call as it is: code works on the original image, in its own pixels."""
        return call

    def observe(
        self,
        conversation: Conversation,
        text: str,
        observations: Sequence[Observation],
        *,
        last: bool,
    ) -> Conversation:
        """The same messages, the assistant's turn grown by what it said and what came of it."""
        parts = [*conversation.begun, text]
        for at, seen in enumerate(observations):
            parts += ["<sandbox_output>", *content_of(seen)]
            if last and at == len(observations) - 1:
                parts.append(f"\n{prompts.THYME_LAST}")
            parts.append("</sandbox_output>")
        return Conversation(conversation.messages, conversation.tools, joined(parts))


def render_code(call: ToolCall, tool: str) -> str:
    """A program in its fence and `<code>` tags.

    Raises:
        InputError: The call isn't a program, or holds the tag that ends one.
    """
    code = call.arguments.get("code")
    if call.name != tool or set(call.arguments) != {"code"} or not isinstance(code, str):
        raise InputError(f'only calls of {tool} with {{"code": "..."}} can be written as code')
    if not code.strip() or "</code>" in code:
        raise InputError("a program must not be blank nor hold </code>")
    return f"<code>\n```python\n{code}\n```\n</code>"
