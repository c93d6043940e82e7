"""OpenThinkIMG: every turn one JSON object of a thought and actions.

Facts from the OpenThinkIMG repository, `r1_v/open_r1/tool_grpo.py` and its tool server:
{"thought", "actions": [{"name", "arguments"}]}; images are img_1, img_2, ...; the answer is the
argument "ans" of the action Terminate; the system text is a user's turn of its own; a result is a
user's turn that begins with "OBSERVATION:". Trained on 200,000 pixels at most; its inferencer takes
3 rounds of 2,048 tokens, and sampling as the checkpoint's own settings have it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

from speceyes import prompts
from speceyes.dialects._family import Family
from speceyes.dialects._json_call import call_of, read_json
from speceyes.dialects._space import image_index, locate
from speceyes.dialects._talk import schema_lines, schema_of
from speceyes.dialects._turn import spoken, without_end
from speceyes.dialects.profile import Profile
from speceyes.errors import ParseError
from speceyes.protocols import Tool
from speceyes.texts import Texts
from speceyes.types import Conversation, Image, Query, ToolCall, Turn

_IMAGE = re.compile(r"img_([0-9]{1,6})(?:\.0)?")
_END = "Terminate"

PROFILE = Profile(
    first_image=1,
    image_pixels=(3_136, 200_000),
    max_steps=3,
    max_tokens=2_048,
    stop=(),
    stop_after="",
)


def _object_in(text: str) -> tuple[Any, str]:
    """The turn's JSON, and where it was read from.

    Reasoning may stand before it, and `</think>` in one of its texts ends none: a turn that is one
    object is read whole, others from the first `</think>` on, or else from the last.

    Raises:
        ParseError: There is none, it can't be read, or it is too long.
    """
    whole = without_end(text).strip()
    tried = [whole] if whole[:1] == "{" and whole[-1:] == "}" else []
    tried += whole.partition("</think>")[2], spoken(text)
    fault = ParseError('no JSON object with "thought" and "actions" was found')
    for one in dict.fromkeys(tried):
        start, end = one.find("{"), one.rfind("}")
        if start < 0 or end < start:
            continue
        body = one[start : end + 1]
        try:
            return read_json(body, "the turn"), body
        except ParseError as exc:
            fault = exc
    raise fault


@final
@dataclass(frozen=True, slots=True)
class OpenThinkImgDialect(Family):
    """OpenThinkIMG. Its tools (OCR, Point, ZoomInSubfigure, ...) are yours to give.

    Example:
        >>> said = '{"thought": "a", "actions": [{"name": "Terminate", "arguments": {"ans": "7"}}]}'
        >>> OpenThinkImgDialect().parse(said).answer
        '7'
    """

    own: ClassVar[Texts] = Texts(
        system=prompts.OPENTHINKIMG_SYSTEM,
        user="{question}",
        observation="OBSERVATION:\n{result}\n",
        again=prompts.OPENTHINKIMG_AGAIN,
        last_turn=prompts.OPENTHINKIMG_LAST,
        direct="{question}\n" + prompts.DIRECT,
        judge="{question}\n" + prompts.JUDGE,
    )

    profile: Profile = PROFILE
    name: str = "openthinkimg"

    def parse(self, text: str) -> Turn:
        """The turn's actions, or the answer of the one that ends it.

        Raises:
            ParseError: It isn't such an object.
        """
        data, body = _object_in(text)
        actions = data.get("actions") if isinstance(data, dict) else None
        actions = [actions] if isinstance(actions, dict) else actions
        if not isinstance(actions, list) or not actions:
            raise ParseError('the turn has no list of "actions"')
        thought = str(data.get("thought") or "")
        calls = [call_of(one, body) for one in actions]
        ends = [call for call in calls if call.name == _END]
        if not ends:
            return Turn(calls=tuple(calls), thought=thought)
        said = ends[-1].arguments.get("ans")
        answer = "" if said is None else said if isinstance(said, str) else json.dumps(said)
        answer = answer.strip()
        if not answer:
            raise ParseError(f'{_END} has no "ans"')
        return Turn(answer=answer, thought=thought)

    def render_call(self, call: ToolCall) -> str:
        """A turn with the one action."""
        action = {"name": call.name, "arguments": dict(call.arguments)}
        return json.dumps({"thought": "", "actions": [action]}, ensure_ascii=False)

    def locate(
        self, call: ToolCall, images: Sequence[Image], seen: Sequence[tuple[int, int]]
    ) -> ToolCall:
        """An image "img_i" to `img_idx`, and boxes from pixels as seen to the original's.

        Raises:
            ParseError: The image is none so far, or a box can't be understood.
        """
        arguments = dict(call.arguments)
        named = arguments.get("image")
        if isinstance(named, str) and (match := _IMAGE.fullmatch(named.strip())):
            del arguments["image"]
            at = image_index({"image": int(match[1])}, "image", len(images), first=1)
            arguments["img_idx"] = at
        return locate(ToolCall(call.name, arguments, call.raw), images, seen, self.profile)

    def _begin(
        self,
        query: Query,
        tools: Sequence[Tool],
        system: str | None,
        text: str | None,
        *,
        thinking: bool | None = None,
    ) -> Conversation:
        begun = Family._begin(self, query, tools, system, text, thinking=thinking)
        turns = (replace(one, role="user") for one in begun.messages)
        return replace(begun, messages=tuple(turns))

    def _listed(self, tools: Sequence[Tool]) -> tuple[str, tuple[Mapping[str, Any], ...]]:
        return schema_lines(schema_of(tool) for tool in tools), ()
