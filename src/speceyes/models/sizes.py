"""Sizes of models, as far as time and memory depend on them.

They are those of the `config.json` and `preprocessor_config.json` of Qwen/Qwen3-VL-2B-Instruct
and Qwen/Qwen2.5-VL-7B-Instruct on the Hugging Face Hub, and the numbers of weights come out as
the Hub states them. DeepEyes-7B and Thyme are of the second size. "tiny-small" and "tiny-large"
are as small as the bundled pair, for a try on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from speceyes.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's size.

    Args:
        family: Which classes it is made of.
        text: The language model's configuration.
        vision: The vision tower's.
        least: Fewest pixels an image is resized to.
        most: Most pixels.
        tied: Whether the output layer is the embedding.
    """

    family: Literal["qwen2_5_vl", "qwen3_vl"]
    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    least: int
    most: int
    tied: bool

    def image_tokens(self, width: int, height: int) -> int:
        """About how many tokens an image of that size in pixels takes."""
        side = 2 * int(self.vision["patch_size"])
        return max(1, round(min(max(width * height, self.least), self.most) / side**2))

    @property
    def kept_per_token(self) -> int:
        """Numbers that are kept of a token: its keys and values in all layers."""
        heads = int(self.text["num_key_value_heads"])
        size = self.text.get("head_dim") or (
            self.text["hidden_size"] // self.text["num_attention_heads"]
        )
        return 2 * int(self.text["num_hidden_layers"]) * heads * int(size)


def _text(
    vocabulary: int, hidden: int, mlp: int, layers: int, heads: tuple[int, int], longest: int
) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "max_position_embeddings": longest,
        "rms_norm_eps": 1e-6,
    }


def _rope(theta: float, sections: list[int], **more: Any) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": theta, "mrope_section": sections, **more}
    return {"rope_parameters": rope}


def _vision(depth: int, hidden: int, mlp: int, heads: int, patch: int, out: int) -> dict[str, Any]:
    return {
        "depth": depth,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_heads": heads,
        "patch_size": patch,
        "out_hidden_size": out,
    }


_TINY_ROPE = _rope(1e4, [6, 5, 5], mrope_interleaved=True)

SHAPES: Mapping[str, Shape] = {
    "qwen3-vl-2b": Shape(
        "qwen3_vl",
        _text(151936, 2048, 6144, 28, (16, 8), 262144)
        | {"head_dim": 128}
        | _rope(5e6, [24, 20, 20], mrope_interleaved=True),
        _vision(24, 1024, 4096, 16, 16, 2048)
        | {"num_position_embeddings": 2304, "deepstack_visual_indexes": [5, 11, 17]},
        least=65536,
        most=16777216,
        tied=True,
    ),
    "qwen2.5-vl-7b": Shape(
        "qwen2_5_vl",
        _text(152064, 3584, 18944, 28, (28, 4), 128000) | _rope(1e6, [16, 24, 24]),
        _vision(32, 1280, 3420, 16, 14, 3584)
        | {"window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2},
        least=3136,
        most=12845056,
        tied=False,
    ),
    "tiny-small": Shape(
        "qwen3_vl",
        _text(2048, 64, 176, 4, (4, 2), 8192) | {"head_dim": 32} | _TINY_ROPE,
        _vision(3, 64, 192, 4, 10, 64)
        | {"num_position_embeddings": 64, "deepstack_visual_indexes": [1]},
        least=6400,
        most=6400,
        tied=True,
    ),
    "tiny-large": Shape(
        "qwen3_vl",
        _text(2048, 96, 256, 4, (4, 2), 8192) | {"head_dim": 32} | _TINY_ROPE,
        _vision(4, 96, 288, 4, 14, 96)
        | {"num_position_embeddings": 64, "deepstack_visual_indexes": [1, 2]},
        least=12544,
        most=12544,
        tied=True,
    ),
}


def named(name: str) -> Shape:
    """The shape of that name.

    Raises:
        ConfigError: There is none.
    """
    if name not in SHAPES:
        raise ConfigError(f"shape {name!r} is not known; there are {', '.join(SHAPES)}")
    return SHAPES[name]
