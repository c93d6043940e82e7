"""The Mini-o3 dialect: `<grounding>` with a box as parts of the image, over many turns.

Format facts from Mini-o3 (arXiv 2509.07969) and independent runners of it: `bbox_2d` relative to
width and height (0 to 1), `source` "original_image" or "observation_i", each result announced
as the Observation of an Action.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from speceyes import prompts
from speceyes.dialects._json_call import between, clean, read_json, shown, written
from speceyes.dialects._space import locate
from speceyes.dialects._talk import begin, content_of, reply
from speceyes.dialects._turn import answer_in, spoken, thought_in
from speceyes.errors import InputError, ParseError
from speceyes.protocols import Tool
from speceyes.types import Conversation, Image, Observation, Query, ToolCall, Turn

_SOURCE = re.compile(r"observation[_ ]?([0-9]{1,6})")


@dataclass(frozen=True, slots=True)
class MiniO3Dialect:
    """Mini-o3, which can zoom and nothing else. Give it turns: it takes tens of them.

    Args:
        zoom: Name of the tool that zooms.
        system: System message.

    Example:
        >>> said = '<grounding>{"bbox_2d": [0, 0, 0.5, 1], "source": "observation_1"}</grounding>'
        >>> MiniO3Dialect().parse(said).calls[0].arguments["source"]
        'observation_1'
    """

    zoom: str = "image_zoom_in_tool"
    system: str = prompts.MINIO3_SYSTEM
    name: str = "minio3"
    stop: tuple[str, ...] = ("</grounding>", "</answer>")

    def _start(self, query: Query, instruction: str) -> Conversation:
        last = len(query.images) - 1
        sources = prompts.MINIO3_SOURCES.replace("{last}", str(last)) if last else ""
        lines = [line for line in (sources, query.text, instruction) if line]
        return begin(query, "\n".join(lines), system=self.system)

    def open(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The agent's first conversation; the system message has the one tool it knows."""
        return self._start(query, "")

    def ask_judge(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The same beginning, with the judge's question below."""
        return self._start(query, prompts.JUDGE)

    def ask_direct(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The same beginning, asking for the answer at once."""
        return self._start(query, prompts.DIRECT)

    def parse(self, text: str) -> Turn:
        """The turn's answer, which wins, or its boxes, each a call of the zoom tool.

        Raises:
            ParseError: Neither is there, or a box can't be read.
        """
        thought, said = thought_in(text, "<grounding>"), spoken(text)
        answer = answer_in(said)
        if answer is not None:
            return Turn(answer=answer, thought=thought)
        calls = []
        for body in between(said, "<grounding>", "</grounding>"):
            data = read_json(body, "the <grounding>")
            if not isinstance(data, dict) or "bbox_2d" not in data:
                raise ParseError('the <grounding> is not a JSON object with "bbox_2d"')
            calls.append(ToolCall(self.zoom, clean(data), body))
        if not calls:
            raise ParseError("neither a <grounding> nor an <answer> was found")
        return Turn(calls=tuple(calls), thought=thought)

    def render_call(self, call: ToolCall) -> str:
        """`<grounding>` with the arguments inside.

        Raises:
            InputError: It isn't a call of the zoom tool with a box.
        """
        if call.name != self.zoom or "bbox_2d" not in call.arguments:
            raise InputError(f"only calls of {self.zoom} with bbox_2d can be written here")
        return f"<grounding>{written(dict(call.arguments))}</grounding>"

    def locate(
        self, call: ToolCall, images: Sequence[Image], seen: Sequence[tuple[int, int]]
    ) -> ToolCall:
        """Parts of the image to its pixels; the source to `img_idx`.

        "original_image" is image 0 and "observation_i" image i, so that a query's further
        images are counted as observations.

        Raises:
            ParseError: The source is no earlier image, or the box is not four numbers in range.
        """
        arguments = dict(call.arguments)
        source = arguments.pop("source", "original_image")
        match = _SOURCE.fullmatch(source.strip()) if isinstance(source, str) else None
        index = 0 if source == "original_image" else int(match[1]) if match else -1
        if not 0 <= index < len(images):
            known = f', "observation_1" to "observation_{len(images) - 1}"' * (len(images) > 1)
            raise ParseError(f'source={shown(source)} is not an image; use "original_image"{known}')
        arguments["img_idx"] = index
        return locate(ToolCall(call.name, arguments, call.raw), images, seen, scale=1.0)

    def observe(
        self,
        conversation: Conversation,
        text: str,
        observations: Sequence[Observation],
        *,
        last: bool,
    ) -> Conversation:
        """The model's turn, then a user turn with the numbered observations."""
        action = 1 + sum(message.role == "assistant" for message in conversation.messages)
        number = len(conversation.images)
        parts: list[str | Image] = []
        for seen in observations:
            if seen.images:
                text_before = prompts.MINIO3_OBSERVATION.replace("{action}", str(action))
                parts.append(text_before.replace("{number}", str(number)) + "\n")
            parts += [*content_of(seen), "\n"]
            number += len(seen.images)
        parts.append(prompts.LAST_TURN if last else prompts.MINIO3_INSTRUCTION)
        return reply(conversation, text, parts)
