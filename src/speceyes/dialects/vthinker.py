"""V-Thinker: Thyme's way, with programs that draw on the image.

Facts from the V-Thinker repository, `eval/vtbench_IR/utils.py`: code in `<code>` or between three
single quotes, as its evaluation reads it; the question tells `image_path = '...'`; results in
`<sandbox_output>`, errors too; 5 turns of 16,384 tokens, which also end where the model begins to
write a result itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

from speceyes import prompts
from speceyes.dialects import thyme
from speceyes.dialects._code import programs
from speceyes.dialects._turn import MAX_CODE_CHARS
from speceyes.dialects.profile import Profile
from speceyes.errors import ParseError
from speceyes.texts import Texts
from speceyes.types import Query, ToolCall

_QUOTED = re.compile(r"'''python[ \t]*\r?\n(.*?)'''", re.DOTALL | re.IGNORECASE)

PROFILE = replace(
    thyme.PROFILE,
    image_pixels=None,
    max_tokens=16_384,
    stop=("</code>", "</answer>", "<sandbox_output>"),
)


@final
@dataclass(frozen=True, slots=True)
class VThinkerDialect(thyme.CodeInTurn):
    r"""V-Thinker.

    Example:
        >>> VThinkerDialect().parse("I draw. '''python\nprint(1)\n'''").calls[0].arguments
        {'code': 'print(1)'}
    """

    own: ClassVar[Texts] = Texts(system=prompts.VTHINKER_SYSTEM).over(thyme.CodeInTurn.own)

    profile: Profile = PROFILE
    name: str = "vthinker"

    def _programs(self, text: str) -> tuple[ToolCall, ...]:
        if "<code>" in text or "'''" not in text:
            return tuple(self._unquoted(call) for call in programs(text, self.tool))
        if len(text) > 4 * MAX_CODE_CHARS:
            raise ParseError(f"a turn of {len(text)} characters; be shorter")
        found = [match[1].strip("\n") for match in _QUOTED.finditer(text)]
        return tuple(ToolCall(self.tool, {"code": code}, code) for code in found if code.strip())

    def _unquoted(self, call: ToolCall) -> ToolCall:
        quoted = _QUOTED.fullmatch(call.arguments["code"].strip())
        code = quoted[1].strip("\n") if quoted else ""
        return replace(call, arguments={"code": code}) if code.strip() else call

    def _told(self, query: Query, sizes: Sequence[tuple[int, int]]) -> Mapping[str, str]:
        paths = [
            self.image_path.replace("{number}", str(at)) for at in range(1, len(query.images) + 1)
        ]
        named = "\n".join(f"image_path = '{path}'" for path in paths)
        return {"paths": f"{prompts.VTHINKER_PATH}\n{named}"}
