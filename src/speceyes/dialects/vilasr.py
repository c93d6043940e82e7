"""The ViLaSR dialect: boxes and paths drawn on the images, as a list of JSON objects.

Format facts from the ViLaSR repository (arXiv 2506.09965): after the reasoning stands "Action:"
with Object Mapper, Path Tracer or Answer, then a fenced JSON list whose items name their image by
`index`, counted from 1, in pixels of the resized image. Each image drawn on comes back as a new
one with the next index.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from speceyes import prompts
from speceyes.dialects._json_call import clean, read_json, shown, written
from speceyes.dialects._space import image_index, to_pixels
from speceyes.dialects._talk import begin, content_of, reply
from speceyes.dialects._turn import answer_in, spoken, thought_in
from speceyes.errors import InputError, ParseError
from speceyes.protocols import Tool
from speceyes.types import Conversation, Image, Observation, Query, ToolCall, Turn

_ACTION = re.compile(r"Action:[ \t]{0,9}", re.IGNORECASE)
_KINDS = {"object_mapper": ("Object Mapper", "objects"), "path_tracer": ("Path Tracer", "paths")}
_PLACES = ("bbox_2d", "start_point_2d", "end_point_2d")


@dataclass(frozen=True, slots=True)
class ViLaSRDialect:
    """ViLaSR. Give it `speceyes.tools.draw.ObjectMapper()` and `PathTracer()` for tools.

    A list becomes one call for each image and each of the two tools in it.

    Args:
        system: System message.

    Example:
        >>> said = 'Action: Object Mapper [{"index": 2, "bbox_2d": [0, 0, 9, 9], "label": "cup"}]'
        >>> ViLaSRDialect().parse(said).calls[0].arguments
        {'index': 2, 'objects': [{'bbox_2d': [0, 0, 9, 9], 'label': 'cup'}]}
    """

    system: str = prompts.VILASR_SYSTEM
    name: str = "vilasr"
    stop: tuple[str, ...] = ("]\n```", "</answer>")

    def _start(self, query: Query, instruction: str) -> Conversation:
        last = len(query.images)
        say = prompts.VILASR_INDICES if last > 1 else prompts.VILASR_OBSERVATION
        indices = say.replace("{last}", str(last)).replace("{index}", "1")
        return begin(query, f"{indices}\n{query.text}\n{instruction}", system=self.system)

    def open(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The agent's first conversation; the system message has the two tools it knows."""
        return self._start(query, prompts.VILASR_INSTRUCTION)

    def ask_judge(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The same beginning, with the judge's question instead of the instruction."""
        return self._start(query, prompts.JUDGE)

    def ask_direct(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The same beginning, asking for the answer at once."""
        return self._start(query, prompts.DIRECT)

    def parse(self, text: str) -> Turn:
        """The turn's answer, which wins (as upstream), or its drawings.

        Raises:
            ParseError: Neither is there, or a list can't be read.
        """
        thought, said = thought_in(text, "Action:"), spoken(text)
        answer = answer_in(said)
        if answer is not None:
            return Turn(answer=answer, thought=thought)
        parts = said.split("```")
        bodies = [body for body in parts[1::2] if body.strip()]
        if not bodies:
            last = max((action.end() for action in _ACTION.finditer(said)), default=len(said))
            after = said[last:].strip()
            if after[:6].lower() == "answer" and (plain := after[6:].strip(" \n:.*")):
                return Turn(answer=plain, thought=thought, plain=True)
            start, end = after.find("["), after.rfind("]")
            if start < 0:
                raise ParseError("neither a drawing (Action: and a JSON list) nor an <answer>")
            bodies = [after[start : end + 1 if end > start else len(after)]]
        calls = tuple(call for body in bodies for call in _calls(body))
        return Turn(calls=calls, thought=thought)

    def render_call(self, call: ToolCall) -> str:
        """The action, and its list in a fence.

        Raises:
            InputError: It isn't a drawing on one image.
        """
        title, key = _KINDS.get(call.name, ("", ""))
        items = call.arguments.get(key)
        whole = isinstance(items, list) and items and all(isinstance(i, dict) for i in items)
        if set(call.arguments) != {"index", key} or not whole:
            raise InputError(f"{call.name} with {sorted(call.arguments)} is not a drawing")
        listed = [{"index": call.arguments["index"], **item} for item in items or ()]
        return f"Action: {title}\n```json\n{written(listed)}\n```"

    def locate(
        self, call: ToolCall, images: Sequence[Image], seen: Sequence[tuple[int, int]]
    ) -> ToolCall:
        """Each box and point from pixels of the resized image to pixels of the original.

        Raises:
            ParseError: The index is no image so far, or a box or point is not so many numbers.
        """
        key = _KINDS.get(call.name, ("", ""))[1]
        items = call.arguments.get(key)
        if not isinstance(items, list | tuple) or not all(isinstance(i, dict) for i in items):
            raise ParseError(f"{call.name} is called with a list of JSON objects")
        at = image_index(call.arguments, "index", len(images), first=1)
        located = [
            {
                name: to_pixels(value, name, images[at], seen[at], None)
                if name in _PLACES
                else value
                for name, value in item.items()
            }
            for item in items
        ]
        return ToolCall(call.name, {"img_idx": at, key: located}, call.raw)

    def observe(
        self,
        conversation: Conversation,
        text: str,
        observations: Sequence[Observation],
        *,
        last: bool,
    ) -> Conversation:
        """The model's turn, then a user turn with each drawing and its index."""
        index = len(conversation.images)
        parts: list[str | Image] = []
        for seen in observations:
            for part in content_of(seen):
                parts.append(part)
                if isinstance(part, Image):
                    index += 1
                    parts.append(prompts.VILASR_OBSERVATION.replace("{index}", str(index)))
                parts.append("\n")
        parts.append(prompts.VILASR_LAST if last else prompts.VILASR_GO_ON)
        return reply(conversation, text, parts)


def _calls(body: str) -> list[ToolCall]:
    """One call for each tool and image that a list draws with and on, in order."""
    data = read_json(body.strip().removeprefix("json"), "the list")
    items: list[Any] = data if isinstance(data, list) else [data]
    if not items:
        raise ParseError("the list is empty")
    grouped: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for item in items:
        if not isinstance(item, dict):
            raise ParseError(f"the list holds a {type(item).__name__}; JSON objects are needed")
        item = clean(item)
        index = item.pop("index", 1)
        if isinstance(index, float) and index.is_integer():
            index = int(index)
        if isinstance(index, bool) or not isinstance(index, int):
            raise ParseError(f"index={shown(index)} is not the number of an image")
        if "bbox_2d" in item:
            name = "object_mapper"
        elif "start_point_2d" in item and "end_point_2d" in item:
            name = "path_tracer"
        else:
            raise ParseError(
                'an item has neither "bbox_2d" nor "start_point_2d" and "end_point_2d"'
            )
        grouped.setdefault((name, index), []).append(item)
    return [
        ToolCall(name, {"index": index, _KINDS[name][1]: drawn}, body)
        for (name, index), drawn in grouped.items()
    ]
