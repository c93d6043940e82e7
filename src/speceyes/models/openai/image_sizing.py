"""Size at which an engine's model sees an image; computed here, since no engine tells."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final

from speceyes.errors import ConfigError, ImageError
from speceyes.types import Image

Seen: TypeAlias = Callable[[Image], tuple[int, int]] | Mapping[str, Any] | Literal["own"]
"""A rule of resizing; or its numbers, as a settings file and the command line can hold them."""

_LONGEST = 200
"""The Qwen families refuse images that are more than so many times as long as wide."""


@final
@dataclass(frozen=True, slots=True)
class QwenResize:
    """The resizing rule of the Qwen-VL families: multiples of a factor within limits of area.

    Args:
        factor: Pixels a merged vision token is wide and high: patch size times merge size, 28
            for Qwen2-VL and Qwen2.5-VL, 32 for Qwen3-VL.
        min_pixels: Fewest pixels after resizing: `min_pixels`, or `size["shortest_edge"]`, of
            the checkpoint's preprocessor_config.json.
        max_pixels: Most pixels after resizing: `max_pixels`, or `size["longest_edge"]`.

    Raises:
        ConfigError: factor is below 1, or the limits are not 0 < min_pixels <= max_pixels.

    Example:
        >>> from PIL import Image
        >>> QwenResize()(Image.new("RGB", (1000, 700)))
        (1008, 700)
    """

    factor: int = 28
    min_pixels: int = 4 * 28 * 28
    max_pixels: int = 16384 * 28 * 28

    def __post_init__(self) -> None:
        if self.factor < 1 or not 0 < self.min_pixels <= self.max_pixels:
            raise ConfigError(
                f"factor={self.factor}, min_pixels={self.min_pixels}, max_pixels="
                f"{self.max_pixels}; they must be positive, and the limits in that order"
            )

    def __call__(self, image: Image) -> tuple[int, int]:
        """(width, height) in pixels as the model sees the image.

        Raises:
            ImageError: The image has no pixels, or is more than 200 times as long as wide.
        """
        # Imported when needed, since it loads torch.
        from qwen_vl_utils import smart_resize

        width, height = image.size
        if min(width, height) < 1 or max(width, height) > _LONGEST * min(width, height):
            raise ImageError(
                f"an image of {width} x {height} pixels can't be seen by this model: crop it to "
                f"at most {_LONGEST} times as long as wide"
            )
        down, across = smart_resize(
            height,
            width,
            factor=self.factor,
            min_pixels=self.min_pixels,
            max_pixels=self.max_pixels,
        )
        # A thin image within a small budget would lose its short side altogether.
        return max(across, self.factor), max(down, self.factor)


def own_size(image: Image) -> tuple[int, int]:
    """(width, height) of the image itself, for models that don't resize, or scale boxes."""
    return image.size


def rule_of(seen: Seen) -> Callable[[Image], tuple[int, int]]:
    """The rule that `OpenAIModel(seen=)` names.

    Args:
        seen: A function of an image; the fields of `QwenResize`, at least `factor`, `min_pixels`
            and `max_pixels`; or "own" for the image's own size.

    Raises:
        ConfigError: It is none of these.

    Example:
        >>> rule_of({"factor": 32, "min_pixels": 65_536, "max_pixels": 1_048_576})
        QwenResize(factor=32, min_pixels=65536, max_pixels=1048576)
    """
    if callable(seen):
        return seen
    if isinstance(seen, str) and seen == "own":
        return own_size
    fields = ("factor", "min_pixels", "max_pixels")
    if not isinstance(seen, Mapping) or set(seen) != set(fields):
        raise ConfigError(
            f"seen={seen!r}; it must be {{{', '.join(f'{one!r}: ...' for one in fields)}}}, whole "
            'numbers of the checkpoint\'s preprocessor_config.json, "own" for images that are not '
            "resized, or a function of an image that gives (width, height)"
        )
    wrong = {n: v for n, v in seen.items() if isinstance(v, bool) or not isinstance(v, int)}
    if wrong:
        raise ConfigError(
            f"seen={dict(seen)!r}; {' and '.join(sorted(wrong))} must be whole numbers"
        )
    return QwenResize(**seen)


_FAMILIES = (
    (
        re.compile(r"qwen-?_?3(\.\d+)?-?_?vl|qwen-?_?3\.5", re.IGNORECASE),
        QwenResize(32, 256 * 256, 4096 * 4096),
    ),
    (
        re.compile(
            r"qwen-?_?2(\.5)?-?_?vl|deepeyes|thyme|mini-?o3|pixel-?reasoner|vilasr", re.IGNORECASE
        ),
        QwenResize(),
    ),
)


def resize_of(name: str) -> QwenResize | None:
    """The rule of a family that the model's name shows, under its published checkpoints' limits.

    Example:
        >>> resize_of("Qwen/Qwen3-VL-8B-Instruct").factor, resize_of("llava-1.5-7b-hf")
        (32, None)
    """
    return next((rule for pattern, rule in _FAMILIES if pattern.search(name)), None)
