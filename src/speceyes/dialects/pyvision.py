r"""PyVision-RL: a notebook whose images are clues, numbered from 0.

Facts from the PyVision-RL repository, its `rl_system_prompt_template.json` and
`verl/workers/agent/envs/agents_x/`: code in `<code>` with a Python fence; each image stands in
`<image_clue_i>` and is the variable image_clue_i; shown by `plt.show()`; a result is
`<interpreter>` with "Text Result:" and "Image Result:" in a user turn, in `<tool_response>`, where
an error stands alone; the last program of a turn counts; the answer may stand in `\boxed{}` within
`<answer>`. Its README and `ppo_trainer.yaml`: 3,136 to 2,000,000 pixels; greedy in validation, 30
turns of 10,240 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

from speceyes import prompts
from speceyes.dialects._code import programs, render_code
from speceyes.dialects._family import Family
from speceyes.dialects._talk import content_of, texts_in
from speceyes.dialects._turn import answer_in, refuse_foreign, thought_in, unboxed
from speceyes.dialects.profile import Profile
from speceyes.errors import ParseError
from speceyes.texts import Texts
from speceyes.types import Conversation, Image, Observation, ToolCall, Turn

PROFILE = Profile(
    image_pixels=(3_136, 2_000_000),
    max_steps=30,
    max_tokens=10_240,
    max_calls=1,
    handed="seen",
    code_images="question",
    stop=("</code>", "</answer>"),
    tools=("python",),
)


@final
@dataclass(frozen=True, slots=True)
class PyVisionDialect(Family):
    r"""PyVision-RL on images.

    Args:
        tool: Name of the tool that runs the code; it is called with {"code": "..."}.

    Example:
        >>> PyVisionDialect().parse("<code>```python\nplt.show()\n```</code>").calls[0].name
        'python'
    """

    own: ClassVar[Texts] = Texts(
        system=prompts.PYVISION_SYSTEM,
        instruction=prompts.DEEPEYESV2_INSTRUCTION,
        observation="<tool_response>\n<interpreter>{result}</interpreter>\n\n</tool_response>\n",
        again="",
        error="Execution error: {error}",
    )

    profile: Profile = PROFILE
    name: str = "pyvision"
    tool: str = "python"

    def parse(self, text: str) -> Turn:
        """The turn's answer, which wins, or the last of its programs.

        Raises:
            ParseError: Neither is there, or a program is empty or too long.
        """
        thought, answer = thought_in(text, "<code>"), answer_in(text, self.known)
        if answer is not None:
            return unboxed(Turn(answer=answer, thought=thought))
        calls = programs(text, self.tool)
        if not calls:
            refuse_foreign(text, known=self.known)
            raise ParseError("neither <code> nor an <answer> was found")
        return Turn(calls=calls[-1:], thought=thought)

    def render_call(self, call: ToolCall) -> str:
        """The program in its fence and tags.

        Raises:
            InputError: The call isn't a program, or holds the tag that ends one.
        """
        return render_code(call, self.tool)

    def locate(
        self, call: ToolCall, images: Sequence[Image], seen: Sequence[tuple[int, int]]
    ) -> ToolCall:
        """The program, with the names that it has for images."""
        more = {"variables": "image_clue_{index}"} if call.name == self.tool else {}
        return ToolCall(call.name, {**call.arguments, **more}, call.raw)

    def _framed(self, images: Sequence[Image]) -> Sequence[str | Image]:
        return _clues(images, 0)

    def _results(
        self,
        conversation: Conversation,
        text: str,
        observations: Sequence[Observation],
        last: bool,
    ) -> list[str | Image]:
        first = len(conversation.images)
        ran = "<code>" in text
        told = []
        for seen in observations:
            error = str(self.texts.error) if ran else prompts.OBSERVATION_ERROR
            parts = content_of(seen, self.profile, error)
            pictures = [part for part in parts if isinstance(part, Image)]
            said = texts_in(parts)
            if pictures:
                said = f"Text Result:\n{said}\nImage Result:\n"
            elif seen.error is None:
                said = f"\nText Result:\n{said}"
            told.append(Observation((said, *_clues(pictures, first))))
            first += len(pictures)
        plain = replace(self, profile=replace(self.profile, crop_pixels=None, crop_scale=1.0))
        return Family._results(plain, conversation, text, told, last)


def _clues(images: Sequence[Image], first: int) -> list[str | Image]:
    parts: list[str | Image] = []
    for at, image in enumerate(images, first):
        parts += [f"<image_clue_{at}>", image, f"</image_clue_{at}>"]
    return parts
