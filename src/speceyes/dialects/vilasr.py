"""ViLaSR: boxes and paths drawn on the images, as a list of JSON objects.

Facts from the ViLaSR repository (arXiv 2506.09965), `eval/infer.py` and `utils/edit_image.py`:
after the reasoning stands "Action:" with Object Mapper, Path Tracer or Answer, then a fenced JSON
list whose items name their image by `index`, counted from 1, in pixels of the resized image. The
system message has that image's width and height; each image drawn on comes back once, with the
next index and its size. They are drawn on as the model sees them; 10 turns of 16,384 tokens at
temperature 0.75 and top_p 0.9, 351,232 pixels in evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from speceyes import prompts
from speceyes.dialects._family import Family
from speceyes.dialects._json_call import clean, read_json, shown, written
from speceyes.dialects._space import image_index, number_of, to_pixels
from speceyes.dialects._turn import answer_in, refuse_foreign, spoken, thought_in
from speceyes.dialects.profile import Profile
from speceyes.errors import InputError, ParseError
from speceyes.texts import Texts, filled
from speceyes.types import Conversation, Image, Observation, Query, ToolCall, Turn

_ACTION = re.compile(r"Action[*]{0,2}[:\uff1a][*]{0,2}[ \t]{0,9}", re.IGNORECASE)
_KINDS = {"object_mapper": ("Object Mapper", "objects"), "path_tracer": ("Path Tracer", "paths")}
_PLACES = ("bbox_2d", "start_point_2d", "end_point_2d")

PROFILE = Profile(
    first_image=1,
    image_pixels=(3_136, 351_232),
    handed="seen",
    max_steps=10,
    max_tokens=16_384,
    temperature=0.75,
    top_p=0.9,
    stop=("]\n```", "</answer>"),
    tools=("object_mapper", "path_tracer"),
)


@final
@dataclass(frozen=True, slots=True)
class ViLaSRDialect(Family):
    """ViLaSR. Give it `speceyes.tools.draw.ObjectMapper()` and `PathTracer()` for tools.

    A list becomes one call for each image and each of the two tools in it.

    Example:
        >>> said = 'Action: Object Mapper [{"index": 2, "bbox_2d": [0, 0, 9, 9], "label": "cup"}]'
        >>> ViLaSRDialect().parse(said).calls[0].arguments
        {'index': 2, 'objects': [{'bbox_2d': [0, 0, 9, 9], 'label': 'cup'}]}
    """

    own: ClassVar[Texts] = Texts(
        system=prompts.VILASR_SYSTEM,
        user="{indices}\n{question}\n{instruction}",
        instruction=prompts.VILASR_INSTRUCTION,
        observation=f"{prompts.VILASR_OBSERVATION}",
        again=prompts.VILASR_GO_ON,
        last_turn=prompts.VILASR_LAST,
    )

    profile: Profile = PROFILE
    name: str = "vilasr"

    def parse(self, text: str) -> Turn:
        """The turn's answer, which wins (as upstream), or its drawings.

        Raises:
            ParseError: Neither is there, or a list can't be read.
        """
        thought, said = thought_in(text, "Action:"), spoken(text)
        answer = answer_in(said, self.known)
        if answer is not None:
            return Turn(answer=answer, thought=thought)
        last = max((action.end() for action in _ACTION.finditer(said)), default=len(said))
        after = said[last:].strip()
        answers = after[:6].lower() == "answer"
        if answers and (plain := after[6:].strip(" \n:.*`\uff1a")):
            return Turn(answer=plain, thought=thought, plain=True)
        parts = said.split("```")
        bodies = [body for body in parts[1::2] if body.strip()]
        if not bodies:
            start, end = after.find("["), after.rfind("]")
            if start < 0:
                refuse_foreign(said, known=self.known)
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
        at = image_index(call.arguments, "index", len(images), first=self.profile.first_image)
        located = [
            {
                name: to_pixels(value, name, images[at], seen[at], self.profile.scale)
                if name in _PLACES
                else value
                for name, value in item.items()
            }
            for item in items
        ]
        return ToolCall(call.name, {"img_idx": at, key: located}, call.raw)

    def _results(
        self,
        conversation: Conversation,
        text: str,
        observations: Sequence[Observation],
        last: bool,
    ) -> list[str | Image]:
        index = len(conversation.images) + self.profile.first_image
        parts: list[str | Image] = []
        for seen in observations:
            for part in self._shown(seen):
                parts.append(part)
                if isinstance(part, Image):
                    parts.append(filled(str(self.texts.observation), **self._about(index, part)))
                    index += 1
                parts.append("\n")
        parts.append(str(self.texts.last_turn if last else self.texts.again))
        return parts

    def _about(self, index: int, image: Image) -> dict[str, str]:
        width, height = self._seen(image)
        return {"index": str(index), "width": str(width), "height": str(height)}

    def _told(self, query: Query, sizes: Sequence[tuple[int, int]]) -> Mapping[str, str]:
        told = [
            filled(str(self.texts.observation), index=str(at), width=str(w), height=str(h))
            for at, (w, h) in enumerate(sizes, self.profile.first_image)
        ]
        return {"indices": "\n".join(told)}


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
        index = item.pop("index", None)
        index = 1 if index is None else number_of(index, 1)
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
