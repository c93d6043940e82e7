"""Chain-of-Focus: DeepEyes' calls; crops are grown, enlarged, and cut from what the model saw.

Facts from the Chain-of-Focus repository, `eval/vstar/vllm_inference.py`: pixels of the resized
image; a box is made 1.5 times as large around its centre, its edges cut to whole pixels; the crop
is doubled, into at least 12,544 pixels; a result is image and instruction without tags; always
of the first image; greedy, 6 turns of 512 tokens. Upstream shows the whole image for a box that it
can't read; here the error is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from speceyes.dialects._tagged import TaggedFamily
from speceyes.dialects.profile import Profile
from speceyes.texts import Texts

PROFILE = Profile(
    rounding="down",
    grow=1.5,
    image_pixels=(12_544, 14_745_600),
    crop_pixels=(12_544, 14_745_600),
    crop_scale=2.0,
    handed="seen",
    stop=("</answer>",),
    tools=("zoom",),
)


@final
@dataclass(frozen=True, slots=True)
class ChainOfFocusDialect(TaggedFamily):
    """Chain-of-Focus.

    Example:
        >>> ChainOfFocusDialect().profile.grow
        1.5
    """

    own: ClassVar[Texts] = Texts(observation="{result}").over(TaggedFamily.own)

    profile: Profile = PROFILE
    name: str = "chainoffocus"
