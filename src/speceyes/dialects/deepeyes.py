"""DeepEyes: JSON in `<tool_call>`, boxes in pixels of the resized image.

Facts from the DeepEyes repository (Apache-2.0; arXiv 2505.14362), `eval/` and `verl/workers/agent`:
Hermes-style JSON with `bbox_2d` in absolute pixels of the smart-resized image; a result is a user
turn of `<tool_response>`, image, the instruction again, `</tool_response>`; an error is a bare
"Error: ..."; sides of 30 pixels or less are refused; greedy, 11 turns of 10,240 tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from speceyes.dialects._tagged import TaggedFamily
from speceyes.dialects.profile import Profile
from speceyes.texts import Texts

PROFILE = Profile(
    min_box=30,
    image_pixels=(3_136, 12_845_056),
    max_steps=11,
    max_tokens=10_240,
    max_calls=3,
    stop=("</answer>",),
    errors="bare",
    tools=("zoom",),
)

PLAIN = Profile(tools=("zoom",))
"""What the bundled agent was trained with, and what an unknown model is driven with."""


@final
@dataclass(frozen=True, slots=True)
class DeepEyesDialect(TaggedFamily):
    """DeepEyes-7B.

    Example:
        >>> text = '<think>far</think><tool_call>{"name": "zoom", "arguments": {}}</tool_call>'
        >>> DeepEyesDialect().parse(text).calls[0].name
        'zoom'
    """

    own: ClassVar[Texts] = Texts(observation="<tool_response>{result}{again}</tool_response>").over(
        TaggedFamily.own
    )

    profile: Profile = PROFILE
    name: str = "deepeyes"


@final
@dataclass(frozen=True, slots=True)
class SpecEyesDialect(TaggedFamily):
    """The bundled tiny agent, and any model of which nothing is known: as DeepEyes, with the
    instruction behind the results and a call a turn.

    Example:
        >>> SpecEyesDialect().profile.max_steps
        6
    """

    profile: Profile = PLAIN
    name: str = "speceyes"
