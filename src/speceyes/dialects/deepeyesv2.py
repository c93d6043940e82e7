"""DeepEyesV2: a notebook's Python code, and tools as JSON beside it.

Facts from the DeepEyesV2 repository, `evaluation/VLMEvalKit/vlmeval/api/agent_utils.py`: code in
`<code>` with a Python fence; the question's images as the variables image_1, image_2, ..., resized
as the model sees them; shown by `plt.show()`; other tools (`search`, `image_search`) in
`<tool_call>` JSON; results under the headings stdout, stderr and Images, and nothing after them;
11 turns of 20,480 tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from speceyes import prompts
from speceyes.dialects._code import programs, render_code
from speceyes.dialects._family import Family
from speceyes.dialects._json_call import between, parse_call, render_json
from speceyes.dialects._space import locate
from speceyes.dialects._talk import schema_lines, schema_of
from speceyes.dialects._turn import answer_in, refuse_foreign, thought_in
from speceyes.dialects.profile import Profile
from speceyes.errors import ParseError
from speceyes.protocols import Tool
from speceyes.texts import Texts
from speceyes.types import Image, Observation, ToolCall, Turn

PROFILE = Profile(
    image_pixels=(3_136, 12_845_056),
    crop_pixels=(3_136, 12_845_056),
    handed="seen",
    code_images="question",
    max_steps=11,
    max_tokens=20_480,
    stop=("</code>", "</tool_call>", "</answer>"),
    tools=("python",),
)


_EXECUTED = "Code execution result:\nstdout:\n```\n{text}\n```\n\nstderr:\n```\n{error}\n```\n"


@final
@dataclass(frozen=True, slots=True)
class DeepEyesV2Dialect(Family):
    r"""DeepEyesV2. Its programs are for a tool that runs Python and keeps variables.

    Args:
        tool: Name of the tool that runs the code; it is called with {"code": "..."}.

    Example:
        >>> turn = DeepEyesV2Dialect().parse("<code>```python\nplt.show()\n```</code>")
        >>> turn.calls[0].name, turn.calls[0].arguments
        ('python', {'code': 'plt.show()'})
    """

    own: ClassVar[Texts] = Texts(
        system=prompts.DEEPEYESV2_SYSTEM,
        instruction=prompts.DEEPEYESV2_INSTRUCTION,
        observation="<tool_response>\n{result}\n</tool_response>\n",
        again="",
    )

    profile: Profile = PROFILE
    name: str = "deepeyesv2"
    tool: str = "python"

    def parse(self, text: str) -> Turn:
        """The turn's answer, else its programs, else its tool calls: one kind only, as upstream.

        Raises:
            ParseError: None is there, or one can't be read.
        """
        thought, answer = thought_in(text, "<code>", "<tool_call>"), answer_in(text, self.known)
        if answer is not None:
            return Turn(answer=answer, thought=thought)
        calls = programs(text, self.tool)
        if not calls:
            bodies = between(text, "<tool_call>", "</tool_call>")
            calls = tuple(parse_call(body) for body in bodies)
        if not calls:
            refuse_foreign(text, known=self.known)
            raise ParseError("neither <code>, nor a <tool_call>, nor an <answer> was found")
        return Turn(calls=calls, thought=thought)

    def render_call(self, call: ToolCall) -> str:
        """A program in its fence and tags; any other call as JSON in `<tool_call>`.

        Raises:
            InputError: A program that holds the tag that ends one, or that is none.
        """
        return render_code(call, self.tool) if call.name == self.tool else render_json(call)

    def locate(
        self, call: ToolCall, images: Sequence[Image], seen: Sequence[tuple[int, int]]
    ) -> ToolCall:
        """Programs as they are; boxes of other calls from pixels as seen to the original's.

        Raises:
            ParseError: A box or an image index that can't be understood.
        """
        return call if call.name == self.tool else locate(call, images, seen, self.profile)

    def _template(self, text: str, seen: Observation) -> str:
        if "<code>" not in text:
            return Family._template(self, text, seen)
        return _EXECUTED + "\nImages:\n{shown}\n" * bool(seen.images)

    def _listed(self, tools: Sequence[Tool]) -> tuple[str, tuple[Mapping[str, Any], ...]]:
        lines = schema_lines(schema_of(tool) for tool in tools if tool.name != self.tool)
        return prompts.DEEPEYESV2_TOOLS.replace("{tools}", lines) if lines else "", ()
