"""The DeepEyesV2 dialect: a notebook's Python code, and tools as JSON beside it.

Format facts from the DeepEyesV2 repository: code in `<code>` with a Python fence, images as the
variables image_1, image_2, ..., shown by `plt.show()`; other tools in `<tool_call>` JSON; results
under the headings stdout, stderr and Images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from speceyes import prompts
from speceyes.dialects._json_call import between, parse_call, written
from speceyes.dialects._space import locate
from speceyes.dialects._talk import begin, content_of, reply, schema_lines, schema_of
from speceyes.dialects._turn import answer_in, codes, thought_in
from speceyes.dialects.thyme import render_code
from speceyes.errors import ParseError
from speceyes.protocols import Tool
from speceyes.types import Conversation, Image, Observation, Query, ToolCall, Turn


@dataclass(frozen=True, slots=True)
class DeepEyesV2Dialect:
    r"""DeepEyesV2. Its programs are for a tool that runs Python and keeps variables.

    Args:
        tool: Name of the tool that runs the code; it is called with {"code": "..."}.
        system: System message; "{tools}" in it becomes the schemas of the other tools.

    Example:
        >>> turn = DeepEyesV2Dialect().parse("<code>```python\nplt.show()\n```</code>")
        >>> turn.calls[0].name, turn.calls[0].arguments
        ('python', {'code': 'plt.show()'})
    """

    tool: str = "python"
    system: str = prompts.DEEPEYESV2_SYSTEM
    name: str = "deepeyesv2"
    stop: tuple[str, ...] = ("</code>", "</tool_call>", "</answer>")

    def _start(self, query: Query, tools: Sequence[Tool], instruction: str) -> Conversation:
        lines = schema_lines(schema_of(tool) for tool in tools if tool.name != self.tool)
        listed = prompts.DEEPEYESV2_TOOLS.replace("{tools}", lines) if lines else ""
        system = self.system.replace("{tools}", listed)
        return begin(query, f"{query.text}\n{instruction}", system=system)

    def open(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The agent's first conversation, with schemas of all tools but the one for code."""
        return self._start(query, tools, prompts.DEEPEYESV2_INSTRUCTION)

    def ask_judge(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The same beginning, with the judge's question instead of the instruction."""
        return self._start(query, tools, prompts.JUDGE)

    def ask_direct(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The same beginning, asking for the answer at once."""
        return self._start(query, tools, prompts.DIRECT)

    def parse(self, text: str) -> Turn:
        """The turn's answer, else its programs, else its tool calls: one kind only, as upstream.

        Raises:
            ParseError: None is there, or one can't be read.
        """
        thought, answer = thought_in(text, "<code>", "<tool_call>"), answer_in(text)
        if answer is not None:
            return Turn(answer=answer, thought=thought)
        calls = tuple(ToolCall(self.tool, {"code": code}, raw) for code, raw in codes(text))
        if not calls:
            bodies = between(text, "<tool_call>", "</tool_call>")
            calls = tuple(parse_call(body) for body in bodies)
        if not calls:
            raise ParseError("neither <code>, nor a <tool_call>, nor an <answer> was found")
        return Turn(calls=calls, thought=thought)

    def render_call(self, call: ToolCall) -> str:
        """A program in its fence and tags; any other call as JSON in `<tool_call>`.

        Raises:
            InputError: A program that holds the tag that ends one, or that is none.
        """
        if call.name == self.tool:
            return render_code(call, self.tool)
        body = written({"name": call.name, "arguments": dict(call.arguments)})
        return f"<tool_call>\n{body}\n</tool_call>"

    def locate(
        self, call: ToolCall, images: Sequence[Image], seen: Sequence[tuple[int, int]]
    ) -> ToolCall:
        """Programs as they are; boxes of other calls from pixels as seen to the original's.

        Raises:
            ParseError: A box or an image index that can't be understood.
        """
        return call if call.name == self.tool else locate(call, images, seen, scale=None)

    def observe(
        self,
        conversation: Conversation,
        text: str,
        observations: Sequence[Observation],
        *,
        last: bool,
    ) -> Conversation:
        """The model's turn, then a user turn with what each program or tool gave."""
        parts: list[str | Image] = []
        for seen in observations:
            if "<code>" in text:
                printed = "".join(part for part in seen.content if isinstance(part, str))
                parts.append(
                    f"Code execution result:\nstdout:\n```\n{printed}\n```\n\n"
                    f"stderr:\n```\n{seen.error or ''}\n```\n"
                )
                parts += ["\nImages:\n", *seen.images, "\n"] if seen.images else []
            else:
                parts += ["<tool_response>\n", *content_of(seen), "\n</tool_response>\n"]
        parts.append(prompts.LAST_TURN if last else prompts.DEEPEYESV2_INSTRUCTION)
        return reply(conversation, text, parts)
