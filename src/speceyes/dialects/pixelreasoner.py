r"""Pixel-Reasoner: `crop_image_normalized`, boxes from 0 to 1, the answer in `\boxed{}`.

Facts from the Pixel-Reasoner repository (arXiv 2505.15966), `experience_maker.py`: Hermes-style
JSON in `<tool_call>`, `target_image` counted from 1; both tools are always offered; a margin of a
tenth of the image around each crop, which is resized into 200,704 to 4,014,080 pixels; a user turn
tells that size; boxes with numbers above 1 are pixels of the image itself. Its evaluation is
greedy, five turns (four calls) of 2,048 tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

from speceyes import prompts
from speceyes.dialects._family import Family
from speceyes.dialects._json_call import between, parse_call, render_json
from speceyes.dialects._space import locate, numbers_of
from speceyes.dialects._talk import schema_lines, schema_of
from speceyes.dialects._turn import answer_in, boxed, refuse_foreign, spoken, thought_in
from speceyes.dialects.profile import Profile
from speceyes.errors import ParseError
from speceyes.protocols import Tool
from speceyes.texts import Texts
from speceyes.types import Image, ToolCall, Turn

_CROP = "crop_image_normalized"
_CROPS = (_CROP, "crop_image", "zoom_in")
"""What the model was trained to call, and what it also says: its prompts name it both ways."""


def _schema(name: str, about: str, properties: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    function = {"name": name, "description": about, "parameters": parameters}
    return {"type": "function", "function": function}


def _list(kind: str, about: str) -> Mapping[str, Any]:
    return {"type": "array", "items": {"type": kind}, "description": about}


_SCHEMAS = (
    _schema(
        _CROP,
        prompts.PIXELREASONER_ZOOM,
        {
            "bbox_2d": _list("number", prompts.PIXELREASONER_BOX),
            "target_image": {"type": "number", "description": prompts.PIXELREASONER_IMAGE},
        },
    ),
    _schema(
        "select_frames",
        prompts.PIXELREASONER_FRAMES,
        {"target_frames": _list("integer", prompts.PIXELREASONER_FRAME_LIST)},
    ),
)

PROFILE = Profile(
    scale=1.0,
    margin=0.1,
    first_image=1,
    image_pixels=(401_408, 4_014_080),
    crop_pixels=(200_704, 4_014_080),
    max_steps=5,
    max_tokens=2_048,
    stop=("</tool_call>",),
    tools=("zoom",),
)


@final
@dataclass(frozen=True, slots=True)
class PixelReasonerDialect(Family):
    r"""Pixel-Reasoner on images; of its video tool, `select_frames`, only the call is read.

    Args:
        zoom: Name of the tool that zooms; it is shown to the model as the one it was trained
            with, and called for it.

    Example:
        >>> PixelReasonerDialect().parse(r"So it must be \boxed{red}.").answer
        'red'
    """

    own: ClassVar[Texts] = Texts(
        system=prompts.PIXELREASONER_SYSTEM,
        user="{question}\n\n{instruction}",
        instruction=prompts.PIXELREASONER_INSTRUCTION,
        observation=f"{prompts.PIXELREASONER_OBSERVATION}{{result}}\n",
        again="",
        last_turn=prompts.PIXELREASONER_LAST,
    )

    profile: Profile = PROFILE
    name: str = "pixelreasoner"
    zoom: str = "image_zoom_in_tool"

    def _listed(self, tools: Sequence[Tool]) -> tuple[str, tuple[Mapping[str, Any], ...]]:
        others = (schema_of(tool) for tool in tools if tool.name != self.zoom)
        return schema_lines([*_SCHEMAS, *others]), ()

    def parse(self, text: str) -> Turn:
        r"""The turn's calls, which win (as upstream), or its answer in `\boxed{}` or tags.

        Raises:
            ParseError: Neither is there, or one can't be read.
        """
        thought, said = thought_in(text, "<tool_call>"), spoken(text)
        bodies = between(said, "<tool_call>", "</tool_call>")
        if bodies:
            return Turn(calls=tuple(parse_call(body) for body in bodies), thought=thought)
        answer = answer_in(said, self.known)
        if answer is not None:
            box = boxed(answer)
            return Turn(answer=box[0] if box and box[0] else answer, thought=thought)
        box = boxed(said)
        if box is None:
            refuse_foreign(said, known=self.known)
            raise ParseError("neither a <tool_call> nor a \\boxed{} answer was found")
        if not box[0]:
            raise ParseError("the \\boxed{} is empty")
        return Turn(answer=box[0], thought=thought, plain=not box[1])

    def render_call(self, call: ToolCall) -> str:
        """`<tool_call>` with the JSON object inside."""
        return render_json(call)

    def locate(
        self, call: ToolCall, images: Sequence[Image], seen: Sequence[tuple[int, int]]
    ) -> ToolCall:
        """A crop as a call of the zoom tool, its box in pixels with the margin around it.

        A box with a number above 1 is read in pixels of the image itself, as upstream reads it.

        Raises:
            ParseError: The image is none so far, or the box is not four numbers in range.
        """
        if call.name not in (*_CROPS, self.zoom):
            plain = replace(self.profile, margin=0.0)
            return locate(call, images, seen, plain, key="target_image", first=1)
        box = numbers_of(call.arguments.get("bbox_2d", call.arguments.get("bbox")))
        listed = box if isinstance(box, list | tuple) else ()
        in_pixels = any(isinstance(value, int | float) and value > 1 for value in listed)
        return locate(
            ToolCall(self.zoom, call.arguments, call.raw),
            images,
            [image.size for image in images] if in_pixels else seen,
            replace(self.profile, scale=None) if in_pixels else self.profile,
            key="target_image",
            first=self.profile.first_image,
        )
