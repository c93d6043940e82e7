"""Qwen3-VL as it comes: tools through its chat template, boxes from 0 to 1000.

Format facts from Qwen-Agent (Apache-2.0), `image_zoom_in_qwen3vl.py`: `image_zoom_in_tool` with
`bbox_2d` relative to 1000, `label` and `img_idx`, which counts every image so far from 0. Its
chat template writes calls and results as `_native` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from speceyes import prompts
from speceyes.dialects._native import observe_native, open_native, parse_native, render_native
from speceyes.dialects._space import locate
from speceyes.protocols import Tool
from speceyes.types import Conversation, Image, Observation, Query, ToolCall, Turn

_SCALE = 1000.0


@dataclass(frozen=True, slots=True)
class Qwen3VLDialect:
    """Qwen3-VL, dense and mixture of experts, Instruct and Thinking.

    Args:
        system: System message; "{boxes}" in it becomes the space of boxes in words. Empty sends
            none.

    Example:
        >>> from PIL import Image
        >>> call = ToolCall("image_zoom_in_tool", {"bbox_2d": [250, 500, 750, 1000], "img_idx": 0})
        >>> photo = Image.new("RGB", (400, 200))
        >>> Qwen3VLDialect().locate(call, [photo], [(384, 192)]).arguments["bbox_2d"]
        [100.0, 100.0, 300.0, 200.0]
    """

    system: str = prompts.NATIVE_SYSTEM
    name: str = "qwen3vl"
    stop: tuple[str, ...] = ("</tool_call>", "</answer>")

    def open(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The agent's first conversation, the tools in `Conversation.tools`."""
        return open_native(query, tools, prompts.NATIVE_INSTRUCTION, self.system, _SCALE)

    def ask_judge(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The same beginning, with the judge's question instead of the instruction."""
        return open_native(query, tools, prompts.JUDGE, self.system, _SCALE)

    def ask_direct(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The same beginning, asking for the answer at once."""
        return open_native(query, tools, prompts.DIRECT, self.system, _SCALE)

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
        """Boxes and points from 0 to 1000 to pixels of the image.

        Raises:
            ParseError: `img_idx` is not an earlier image, or a box is not four numbers in range.
        """
        return locate(call, images, seen, scale=_SCALE)

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
