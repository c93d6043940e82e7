"""Thyme: Python code inside the assistant's turn, which goes on after its output.

Facts from the Thyme repository (Apache-2.0; arXiv 2508.11630), `eval/utils.py` and its
`sandbox.py`: code stands in `<code>`, fenced or not; the user message gives the image's path and
size, and the form of the reply; files are saved in /mnt/data/temp_processed_images/; what the code
made comes back in `<sandbox_output>` within the same assistant turn, as images alone where there
are any; boxes in code are clamped; greedy, 5 turns of 2,048 tokens. Upstream says nothing of code
that failed and asks again from where it stood; here its error is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from speceyes import prompts
from speceyes.dialects._code import programs, render_code
from speceyes.dialects._family import Family
from speceyes.dialects._turn import answer_in, boxed, refuse_foreign, thought_in
from speceyes.dialects.profile import Profile
from speceyes.errors import ParseError
from speceyes.texts import Texts
from speceyes.types import Image, Observation, Query, ToolCall, Turn

PROFILE = Profile(
    image_pixels=(3_136, 3_211_264),
    max_steps=5,
    max_tokens=2_048,
    stop=("</code>", "</answer>"),
    stop_after="",  # its code stands inside the reasoning
    code_images="question",
    results="assistant",
    tools=("python",),
)


@dataclass(frozen=True, slots=True)
class CodeInTurn(Family):
    """Programs within the assistant's turn, on files whose paths the question tells."""

    own: ClassVar[Texts] = Texts(
        system=prompts.THYME_SYSTEM,
        user="{question}\n\n{paths}\n\n{instruction}",
        instruction=prompts.THYME_INSTRUCTION,
        observation="<sandbox_output>{result}{again}</sandbox_output>",
        again="",
        last_turn=f"\n{prompts.THYME_LAST}",
    )

    profile: Profile = PROFILE
    tool: str = "python"
    image_path: str = "image_{number}.png"

    def parse(self, text: str) -> Turn:
        r"""The turn's answer, which wins (as upstream), or its programs.

        An answer in `\boxed{}` is taken out of it, as upstream does.

        Raises:
            ParseError: Neither is there, or a program is empty or too long.
        """
        thought, answer = thought_in(text, "<code>"), answer_in(text, self.known)
        if answer is not None:
            box = boxed(answer)
            return Turn(answer=box[0] if box and box[0] else answer, thought=thought)
        calls = self._programs(text)
        if not calls:
            refuse_foreign(text, known=self.known)
            raise ParseError("neither <code> nor an <answer> was found")
        return Turn(calls=calls, thought=thought)

    def render_call(self, call: ToolCall) -> str:
        """The program in its fence and tags.

        Raises:
            InputError: The call isn't a program, or holds the tag that ends one.
        """
        return render_code(call, self.tool)

    def locate(
        self, call: ToolCall, images: Sequence[Image], seen: Sequence[tuple[int, int]]
    ) -> ToolCall:
        """The program, for images in their own pixels; boxes that leave them are clamped."""
        return ToolCall(call.name, {**call.arguments, "clamp": True}, call.raw)

    def _programs(self, text: str) -> tuple[ToolCall, ...]:
        return programs(text, self.tool)

    def _shown(self, seen: Observation) -> list[str | Image]:
        shown = Family._shown(self, seen)
        images: list[str | Image] = [part for part in shown if isinstance(part, Image)]
        return images if images and seen.error is None else shown


@final
@dataclass(frozen=True, slots=True)
class ThymeDialect(CodeInTurn):
    r"""Thyme. Its calls are programs, for a tool that runs Python in a sandbox.

    Args:
        tool: Name of the tool that runs the code; it is called with {"code": "..."}.
        image_path: Where the code finds the query's images; "{number}" counts them from 1.

    Example:
        >>> said = "<think>I crop it. <code>\n```python\nprint(1)\n```\n</code>"
        >>> ThymeDialect().parse(said).calls[0].arguments
        {'code': 'print(1)'}
    """

    name: str = "thyme"

    def _told(self, query: Query, sizes: Sequence[tuple[int, int]]) -> Mapping[str, str]:
        lines = []
        for number, image in enumerate(query.images, 1):
            which = f" {number}" if len(query.images) > 1 else ""
            path = self.image_path.replace("{number}", str(number))
            lines.append(f'### User Image{which} Path:** "{path}"')
            lines.append(f'### User Image{which} Size:** "{image.width}x{image.height}"')
        return {"paths": "\n".join(lines)}
