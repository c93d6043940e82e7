"""The generic dialect: tools through the chat template, calls as Hermes-style JSON.

For any model whose chat template takes `tools=` and teaches JSON calls: in `<tool_call>` tags
(Hermes, Qwen), or bare (Llama, and Mistral, whose tags are special tokens and not in the text).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from speceyes import prompts
from speceyes.dialects._native import observe_native, open_native, parse_native, render_native
from speceyes.dialects._space import locate
from speceyes.errors import ConfigError
from speceyes.protocols import Tool
from speceyes.types import Conversation, Image, Observation, Query, ToolCall, Turn


@dataclass(frozen=True, slots=True)
class HermesDialect:
    """Any model whose chat template takes tools.

    Args:
        scale: The space of boxes: they run from 0 to this number across the image's width and
            height. 1000 suits most of today's models, 1 those that write fractions; None means
            pixels of the image as the model sees it.
        system: System message; "{boxes}" in it becomes the space in words. Empty sends none, for
            templates that have no place for one.

    Raises:
        ConfigError: scale is 0 or less.

    Example:
        >>> text = '<tool_call>{"name": "zoom", "arguments": {"bbox_2d": [0, 0, 500, 500]}}'
        >>> HermesDialect().parse(text).calls[0].arguments
        {'bbox_2d': [0, 0, 500, 500]}
        >>> HermesDialect().parse("It is red.").answer
        'It is red.'
    """

    scale: float | None = 1000.0
    system: str = prompts.NATIVE_SYSTEM
    name: str = "hermes"
    stop: tuple[str, ...] = ("</tool_call>", "</answer>")

    def __post_init__(self) -> None:
        if self.scale is not None and not self.scale > 0:
            raise ConfigError(f"scale={self.scale}; it must be positive, or None for pixels")

    def open(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The agent's first conversation, the tools in `Conversation.tools`."""
        return open_native(query, tools, prompts.NATIVE_INSTRUCTION, self.system, self.scale)

    def ask_judge(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The same beginning, with the judge's question instead of the instruction."""
        return open_native(query, tools, prompts.JUDGE, self.system, self.scale)

    def ask_direct(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The same beginning, asking for the answer at once."""
        return open_native(query, tools, prompts.DIRECT, self.system, self.scale)

    def parse(self, text: str) -> Turn:
        """The turn's answer in tags, else its calls, else its text as the answer.

        Raises:
            ParseError: It is blank, or a call can't be read.
        """
        return parse_native(text)

    def render_call(self, call: ToolCall) -> str:
        """`<tool_call>` with the JSON object inside."""
        return render_native(call)

    def locate(
        self, call: ToolCall, images: Sequence[Image], seen: Sequence[tuple[int, int]]
    ) -> ToolCall:
        """Boxes and points from the dialect's scale to pixels of the image.

        Raises:
            ParseError: `img_idx` is not an earlier image, or a box is not four numbers in range.
        """
        return locate(call, images, seen, scale=self.scale)

    def observe(
        self,
        conversation: Conversation,
        text: str,
        observations: Sequence[Observation],
        *,
        last: bool,
    ) -> Conversation:
        """The model's turn, then a user turn with each result in `<tool_response>`."""
        return observe_native(conversation, text, observations, last)
