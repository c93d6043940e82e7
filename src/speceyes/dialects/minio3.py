"""Mini-o3: `<grounding>` with a box as parts of the image, over many turns.

Facts from the Mini-o3 repository (arXiv 2509.07969), `vllm_async_engine.py` and
`verl/trainer/constants.py`: `bbox_2d` relative to width and height (0 to 1); `source`
"original_image" or "observation_i"; actions are counted from 0 and observations from 1; crops are
resized into 40,000 to 2,000,000 pixels; 12 turns of 8,192 tokens, greedy in validation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from speceyes import prompts
from speceyes.dialects._family import Family
from speceyes.dialects._json_call import between, clean, read_json, shown, written
from speceyes.dialects._space import locate
from speceyes.dialects._turn import answer_in, refuse_foreign, spoken, thought_in
from speceyes.dialects.profile import Profile
from speceyes.errors import InputError, ParseError
from speceyes.texts import Texts
from speceyes.types import Image, Query, ToolCall, Turn

_SOURCE = re.compile(r"observation[_ ]?([0-9]{1,6})", re.IGNORECASE)
_ORIGINAL = re.compile(r"original[_ ]?image|null|none|", re.IGNORECASE)

PROFILE = Profile(
    scale=1.0,
    image_pixels=(40_000, 2_000_000),
    crop_pixels=(40_000, 2_000_000),
    max_steps=12,
    max_tokens=8_192,
    stop=("</grounding>", "</answer>"),
    tools=("zoom",),
)


@final
@dataclass(frozen=True, slots=True)
class MiniO3Dialect(Family):
    """Mini-o3, which can zoom and nothing else.

    Args:
        zoom: Name of the tool that zooms.

    Example:
        >>> said = '<grounding>{"bbox_2d": [0, 0, 0.5, 1], "source": "observation_1"}</grounding>'
        >>> MiniO3Dialect().parse(said).calls[0].arguments["source"]
        'observation_1'
    """

    own: ClassVar[Texts] = Texts(
        system=prompts.MINIO3_SYSTEM,
        user="{sources}\n{question}\n{instruction}",
        observation=f"{prompts.MINIO3_OBSERVATION}\n{{result}}\n",
        again=prompts.MINIO3_INSTRUCTION,
    )

    profile: Profile = PROFILE
    name: str = "minio3"
    zoom: str = "image_zoom_in_tool"

    def parse(self, text: str) -> Turn:
        """The turn's answer, which wins, or its boxes, each a call of the zoom tool.

        Raises:
            ParseError: Neither is there, or a box can't be read.
        """
        thought, said = thought_in(text, "<grounding>"), spoken(text)
        answer = answer_in(said, self.known)
        if answer is not None:
            return Turn(answer=answer, thought=thought)
        calls = []
        bodies = between(said, "<grounding>", "</grounding>")
        if not bodies and said.strip()[:1] == "{" and '"source"' in said:
            bodies = [said.strip()]  # its tags are lost
        for body in bodies:
            data = read_json(body, "the <grounding>")
            if not isinstance(data, dict) or "bbox_2d" not in data:
                raise ParseError('the <grounding> is not a JSON object with "bbox_2d"')
            calls.append(ToolCall(self.zoom, clean(data), body))
        if not calls:
            refuse_foreign(said, known=self.known)
            raise ParseError("neither a <grounding> nor an <answer> was found")
        return Turn(calls=tuple(calls), thought=thought)

    def render_call(self, call: ToolCall) -> str:
        """`<grounding>` with the arguments inside.

        Raises:
            InputError: It isn't a call of the zoom tool with a box.
        """
        if call.name != self.zoom or "bbox_2d" not in call.arguments:
            raise InputError(f"only calls of {self.zoom} with bbox_2d can be written here")
        return f"<grounding>{written(dict(call.arguments))}</grounding>"

    def locate(
        self, call: ToolCall, images: Sequence[Image], seen: Sequence[tuple[int, int]]
    ) -> ToolCall:
        """Parts of the image to its pixels; the source to `img_idx`.

        "original_image" is image 0 and "observation_i" image i, so that a query's further
        images are counted as observations.

        Raises:
            ParseError: The source is no earlier image, or the box is not four numbers in range.
        """
        arguments = dict(call.arguments)
        source = arguments.pop("source", None)
        named = "" if source is None else source.strip() if isinstance(source, str) else "?"
        match = _SOURCE.fullmatch(named)
        index = 0 if _ORIGINAL.fullmatch(named) else int(match[1]) if match else -1
        if not 0 <= index < len(images):
            known = f', "observation_1" to "observation_{len(images) - 1}"' * (len(images) > 1)
            raise ParseError(f'source={shown(source)} is not an image; use "original_image"{known}')
        arguments["img_idx"] = index
        return locate(ToolCall(call.name, arguments, call.raw), images, seen, self.profile)

    def _told(self, query: Query, sizes: Sequence[tuple[int, int]]) -> Mapping[str, str]:
        last = len(query.images) - 1
        return {"sources": prompts.MINIO3_SOURCES.replace("{last}", str(last)) if last else ""}
