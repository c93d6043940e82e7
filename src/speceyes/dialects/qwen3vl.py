"""Qwen3-VL as it comes: tools through its chat template, boxes from 0 to 1000.

Facts from Qwen-Agent (Apache-2.0), `qwen_agent/tools/image_zoom_in_qwen3vl.py`: a zoom tool with
`bbox_2d` relative to 1000, `label` and `img_idx`, all required, which counts every image so far
from 0; crops of at least 262,144 pixels in multiples of 32; `settings.py`: 20 turns. The cookbook
think_with_images.ipynb (QwenLM/Qwen3-VL) samples at temperature 0.7, top_p 0.8, top_k 20, presence
penalty 1.5; its evaluation takes 32,768 tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from speceyes.dialects._native import NativeFamily
from speceyes.dialects._talk import schema_of
from speceyes.dialects.profile import Profile
from speceyes.protocols import Tool

PROFILE = Profile(
    scale=1000.0,
    crop_pixels=(262_144, 12_845_056),
    factor=32,
    max_steps=20,
    max_tokens=32_768,
    temperature=0.7,
    top_p=0.8,
    top_k=20,
    presence_penalty=1.5,
    tools=("zoom",),
)


@final
@dataclass(frozen=True, slots=True)
class Qwen3VLDialect(NativeFamily):
    """Qwen3-VL, dense and mixture of experts, Instruct and Thinking.

    Example:
        >>> from PIL import Image
        >>> from speceyes.types import ToolCall
        >>> call = ToolCall("image_zoom_in_tool", {"bbox_2d": [250, 500, 750, 1000], "img_idx": 0})
        >>> photo = Image.new("RGB", (400, 200))
        >>> Qwen3VLDialect().locate(call, [photo], [(384, 192)]).arguments["bbox_2d"]
        [100.0, 100.0, 300.0, 200.0]
    """

    profile: Profile = PROFILE
    name: str = "qwen3vl"

    def _listed(self, tools: Sequence[Tool]) -> tuple[str, tuple[Mapping[str, Any], ...]]:
        return "", tuple(all_required(schema_of(tool)) for tool in tools)


def all_required(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A zoom tool's schema as the family was trained on it: box, label and image all required."""
    function = schema["function"]
    parameters = function["parameters"]
    names = [name for name in parameters.get("properties", {})]
    if set(names) != {"bbox_2d", "label", "img_idx"}:
        return schema
    return {**schema, "function": {**function, "parameters": {**parameters, "required": names}}}
