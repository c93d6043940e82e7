r"""AdaptVision: a small view first, and one region of the image in full where that is too little.

Facts from the AdaptVision repository, `scripts/vllm_adaptvision.py`: the image is shown at half its
width and height; `request_local_region` has a `bbox_2d` in pixels of that view, cut out of the
original; the result stands in `<tool_response>` with the instruction behind it, an error bare; 2
turns of 1,600 tokens, greedy; the answer may stand in `\boxed{}` within `<answer>`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from speceyes import prompts
from speceyes.dialects._space import ZOOM, locate
from speceyes.dialects._tagged import TaggedFamily
from speceyes.dialects._talk import schema_lines, schema_of
from speceyes.dialects._turn import unboxed
from speceyes.dialects.profile import Profile
from speceyes.protocols import Tool
from speceyes.texts import Texts
from speceyes.types import Image, ToolCall, Turn

_REGION = "request_local_region"

PROFILE = Profile(
    image_scale=0.5,
    image_pixels=(3_136, 4_194_304),
    crop_pixels=(3_136, 14_745_600),
    max_steps=2,
    max_tokens=1_600,
    stop=("</answer>",),
    errors="bare",
    tools=("zoom",),
)

_SCHEMA: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": _REGION,
        "description": prompts.ADAPTVISION_REGION,
        "parameters": {
            "type": "object",
            "properties": {
                "bbox_2d": {
                    "type": "array",
                    "items": {"type": "integer"},
                    "minItems": 4,
                    "maxItems": 4,
                    "description": prompts.ADAPTVISION_BOX,
                }
            },
            "required": ["bbox_2d"],
        },
    },
}


@final
@dataclass(frozen=True, slots=True)
class AdaptVisionDialect(TaggedFamily):
    """AdaptVision.

    Args:
        zoom: Name of the tool that is called for a region.

    Example:
        >>> call = '{"name": "request_local_region", "arguments": {"bbox_2d": [0, 0, 9, 9]}}'
        >>> AdaptVisionDialect().parse(f"<tool_call>{call}</tool_call>").calls[0].name
        'request_local_region'
    """

    own: ClassVar[Texts] = Texts(
        instruction=prompts.ONE_LOOK,
        observation=f"<tool_response>\n{prompts.ADAPTVISION_SHOWN}\n{{result}}\n</tool_response>\n",
        again=prompts.GO_ON,
    ).over(TaggedFamily.own)

    profile: Profile = PROFILE
    name: str = "adaptvision"
    zoom: str = ZOOM

    def parse(self, text: str) -> Turn:
        """As `TaggedFamily.parse`; an answer is taken out of its box.

        Raises:
            ParseError: Neither call nor answer is there, or a call can't be read.
        """
        return unboxed(TaggedFamily.parse(self, text))

    def locate(
        self, call: ToolCall, images: Sequence[Image], seen: Sequence[tuple[int, int]]
    ) -> ToolCall:
        """A region as a call of the zoom tool, its box in pixels of the original.

        Raises:
            ParseError: The box can't be understood.
        """
        name = self.zoom if call.name == _REGION else call.name
        return locate(ToolCall(name, call.arguments, call.raw), images, seen, self.profile)

    def _listed(self, tools: Sequence[Tool]) -> tuple[str, tuple[Mapping[str, Any], ...]]:
        others = (schema_of(tool) for tool in tools if tool.name != self.zoom)
        return schema_lines([_SCHEMA, *others]), ()
