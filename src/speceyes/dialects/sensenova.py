"""SenseNova-MARS: Qwen3-VL's calls, with searches beside the zoom.

Facts from the SenseNova-MARS repository, `config/tool_config/tools_val.yaml`, `eval_single_node.sh`
and `inference/eval.py`: an image_zoom_in_tool with boxes from 0 to 1000 whose box, label and
img_idx are all required; text_search_tool and image_search_tool, the latter without arguments;
images and crops of 65,536 to 8,294,400 pixels in multiples of 32; 10 turns of 8,192 tokens at
temperature 1, top_k 20, presence penalty 1.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from speceyes.dialects import qwen3vl
from speceyes.dialects._native import NativeFamily
from speceyes.dialects._talk import schema_of
from speceyes.dialects.profile import Profile
from speceyes.protocols import Tool

PROFILE = replace(
    qwen3vl.PROFILE,
    image_pixels=(65_536, 8_294_400),
    crop_pixels=(65_536, 8_294_400),
    max_steps=10,
    max_tokens=8_192,
    temperature=1.0,
    top_p=1.0,
)


@final
@dataclass(frozen=True, slots=True)
class SenseNovaDialect(NativeFamily):
    """SenseNova-MARS. Give it searches of the names above: it was trained to use them.

    Example:
        >>> SenseNovaDialect().profile.max_steps
        10
    """

    profile: Profile = PROFILE
    name: str = "sensenova"

    def _listed(self, tools: Sequence[Tool]) -> tuple[str, tuple[Mapping[str, Any], ...]]:
        return "", tuple(qwen3vl.all_required(schema_of(tool)) for tool in tools)
