r"""VisionThink: a small view first, and the whole image in full where that is too little.

Facts from the VisionThink repository, `scripts/vllm_tool.py`: the image is shown at half its width
and height; `resize_image` with {"action": "resize"} brings the original; the result stands in
`<tool_response>` with the instruction behind it, an error bare; 2 turns of 8,192 tokens; the answer
may stand in `\boxed{}` within `<answer>`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from speceyes import prompts
from speceyes.dialects._tagged import TaggedFamily
from speceyes.dialects._turn import unboxed
from speceyes.dialects.profile import Profile
from speceyes.texts import Texts
from speceyes.types import Turn

PROFILE = Profile(
    image_scale=0.5,
    max_steps=2,
    max_tokens=8_192,
    stop=("</answer>",),
    errors="bare",
    tools=("original",),
)


@final
@dataclass(frozen=True, slots=True)
class VisionThinkDialect(TaggedFamily):
    r"""VisionThink. Give it `tools=["original"]`.

    Example:
        >>> VisionThinkDialect().parse(r"<answer>\boxed{B}</answer>").answer
        'B'
    """

    own: ClassVar[Texts] = Texts(
        instruction=prompts.ONE_LOOK,
        observation=f"<tool_response>\n{prompts.VISIONTHINK_SHOWN}\n{{result}}\n</tool_response>\n",
        again=prompts.GO_ON,
    ).over(TaggedFamily.own)

    profile: Profile = PROFILE
    name: str = "visionthink"

    def parse(self, text: str) -> Turn:
        """As `TaggedFamily.parse`; an answer is taken out of its box.

        Raises:
            ParseError: Neither call nor answer is there, or a call can't be read.
        """
        return unboxed(TaggedFamily.parse(self, text))
