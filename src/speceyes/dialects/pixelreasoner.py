r"""The Pixel-Reasoner dialect: `crop_image_normalized`, boxes from 0 to 1, answer in `\boxed{}`.

Format facts from the Pixel-Reasoner repository (arXiv 2505.15966): Hermes-style JSON in
`<tool_call>`, `target_image` counted from 1, a margin of a tenth of the image around each crop,
results as a user turn that gives the crop's size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from speceyes import prompts
from speceyes.dialects._json_call import between, parse_call
from speceyes.dialects._native import render_native
from speceyes.dialects._space import locate
from speceyes.dialects._talk import begin, content_of, reply, schema_lines, schema_of
from speceyes.dialects._turn import answer_in, boxed, spoken, thought_in
from speceyes.errors import ConfigError, ParseError
from speceyes.protocols import Tool
from speceyes.types import Conversation, Image, Observation, Query, ToolCall, Turn

_CROP = "crop_image_normalized"
_CROPS = (_CROP, "crop_image", "zoom_in")
"""What the model was trained to call, and what it also says: its prompts name it both ways."""

_PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "bbox_2d": {
            "type": "array",
            "items": {"type": "number"},
            "description": prompts.PIXELREASONER_BOX,
        },
        "target_image": {"type": "number", "description": prompts.PIXELREASONER_IMAGE},
    },
    "required": ["bbox_2d", "target_image"],
}


@dataclass(frozen=True, slots=True)
class PixelReasonerDialect:
    r"""Pixel-Reasoner on images; of its video tool, `select_frames`, only the call is read.

    Args:
        zoom: Name of the tool that zooms; it is shown to the model as the one it was trained
            with, and called for it.
        padding: Margin around a box, as a part of the image's width and height; 0.1 upstream.
        system: System message; "{tools}" in it becomes the tools' schemas.

    Raises:
        ConfigError: padding is negative or not finite.

    Example:
        >>> PixelReasonerDialect().parse(r"So it must be \boxed{red}.").answer
        'red'
    """

    zoom: str = "image_zoom_in_tool"
    padding: float = 0.1
    system: str = prompts.PIXELREASONER_SYSTEM
    name: str = "pixelreasoner"
    stop: tuple[str, ...] = ("</tool_call>",)

    def __post_init__(self) -> None:
        if not 0 <= self.padding < 1:
            raise ConfigError(f"padding={self.padding}; it must be a part of the image, 0 to 1")

    def _start(self, query: Query, tools: Sequence[Tool], instruction: str) -> Conversation:
        lines = schema_lines(
            {
                "type": "function",
                "function": {
                    "name": _CROP,
                    "description": prompts.PIXELREASONER_ZOOM,
                    "parameters": _PARAMETERS,
                },
            }
            if tool.name == self.zoom
            else schema_of(tool)
            for tool in tools
        )
        system = self.system.replace("{tools}", lines)
        return begin(query, f"{query.text}\n\n{instruction}", system=system)

    def open(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The agent's first conversation, the zoom tool under the name it was trained with."""
        return self._start(query, tools, prompts.PIXELREASONER_INSTRUCTION)

    def ask_judge(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The same beginning, with the judge's question instead of the instruction."""
        return self._start(query, tools, prompts.JUDGE)

    def ask_direct(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The same beginning, asking for the answer at once."""
        return self._start(query, tools, prompts.DIRECT)

    def parse(self, text: str) -> Turn:
        r"""The turn's calls, which win (as upstream), or its answer in `\boxed{}` or tags.

        Raises:
            ParseError: Neither is there, or one can't be read.
        """
        thought, said = thought_in(text, "<tool_call>"), spoken(text)
        bodies = between(said, "<tool_call>", "</tool_call>")
        if bodies:
            return Turn(calls=tuple(parse_call(body) for body in bodies), thought=thought)
        answer = answer_in(said)
        if answer is not None:
            box = boxed(answer)
            return Turn(answer=box[0] if box and box[0] else answer, thought=thought)
        box = boxed(said)
        if box is None:
            raise ParseError("neither a <tool_call> nor a \\boxed{} answer was found")
        if not box[0]:
            raise ParseError("the \\boxed{} is empty")
        return Turn(answer=box[0], thought=thought, plain=not box[1])

    def render_call(self, call: ToolCall) -> str:
        """`<tool_call>` with the JSON object inside."""
        return render_native(call)

    def locate(
        self, call: ToolCall, images: Sequence[Image], seen: Sequence[tuple[int, int]]
    ) -> ToolCall:
        """A crop as a call of the zoom tool, its box in pixels with the margin around it.

        A box with a number above 2 is read in pixels of the image as seen, as upstream reads it.

        Raises:
            ParseError: The image is none so far, or the box is not four numbers in range.
        """
        if call.name not in (*_CROPS, self.zoom):
            return locate(call, images, seen, scale=1.0)
        box = call.arguments.get("bbox_2d")
        listed = box if isinstance(box, list | tuple) else ()
        in_pixels = any(isinstance(value, int | float) and value > 2 for value in listed)
        located = locate(
            ToolCall(self.zoom, call.arguments, call.raw),
            images,
            seen,
            scale=None if in_pixels else 1.0,
            key="target_image",
            first=1,
        )
        arguments = dict(located.arguments)
        if self.padding and "bbox_2d" in arguments:
            image = images[arguments["img_idx"]]
            x0, y0, x1, y1 = arguments["bbox_2d"]
            x, y = self.padding * image.width, self.padding * image.height
            left, right, top, bottom = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
            arguments["bbox_2d"] = [left - x, top - y, right + x, bottom + y]
        return ToolCall(self.zoom, arguments, call.raw)

    def observe(
        self,
        conversation: Conversation,
        text: str,
        observations: Sequence[Observation],
        *,
        last: bool,
    ) -> Conversation:
        """The model's turn, then a user turn with each crop after its size."""
        parts: list[str | Image] = []
        for seen in observations:
            for part in content_of(seen):
                if isinstance(part, str):
                    parts.append(f"{part}\n")
                    continue
                size = prompts.PIXELREASONER_OBSERVATION.replace("{width}", str(part.width))
                parts += [size.replace("{height}", str(part.height)), part, "\n"]
        parts += [prompts.PIXELREASONER_LAST] if last else []
        return reply(conversation, text, parts)
