"""From a dialect's coordinates to pixels of the image that they refer to.

A dialect's space is its `scale`: boxes run from 0 to `scale` across the image's width and
height, whatever its size; `None` stands for pixels of the image as the model sees it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from speceyes.dialects._json_call import shown
from speceyes.errors import ParseError
from speceyes.types import Image, ToolCall

_SIDES = "[left, top, right, bottom]"
BOXES = ("bbox_2d", "bbox")
POINTS = ("point_2d", "start_point_2d", "end_point_2d")


def image_index(arguments: Mapping[str, Any], key: str, images: int, *, first: int = 0) -> int:
    """Which image a call refers to, counted from 0.

    Args:
        arguments: The call's arguments.
        key: Where the number stands; absent means the first image.
        images: How many there are.
        first: What the dialect calls the first one.

    Raises:
        ParseError: It isn't an image so far.
    """
    index = arguments.get(key, first)
    if isinstance(index, float) and index.is_integer():
        index = int(index)
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index - first < images:
        last = images - 1 + first
        raise ParseError(f"{key}={shown(index)} is not an image so far; use {first} to {last}")
    return index - first


def to_pixels(
    values: Any, key: str, image: Image, seen: tuple[int, int], scale: float | None
) -> list[float]:
    """A box (four numbers) or a point (two) in pixels of the image.

    Args:
        values: As the model wrote them.
        key: Names them in errors, and says by its "point" that they are two.
        image: The image that they refer to, full resolution.
        seen: (width, height) of it as the model sees it.
        scale: The dialect's space.

    Raises:
        ParseError: They aren't so many finite numbers, or lie far outside the image.
    """
    count, form = (2, "[x, y]") if "point" in key else (4, _SIDES)
    if not isinstance(values, list | tuple) or len(values) != count:
        raise ParseError(f"{key}={shown(values)} is not {form}")
    across = image.width / (scale or seen[0])
    down = image.height / (scale or seen[1])
    located = []
    for at, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ParseError(f"{key} holds {shown(value)}, which is not a number")
        if not abs(value) < 1e9:  # NaN included
            raise ParseError(f"{key} holds a number that is out of all bounds")
        # A little outside is clamped by the tools; far outside it was meant in another space.
        if scale is not None and not -scale <= value <= 2 * scale:
            raise ParseError(f"{key} holds {shown(value)}; numbers go from 0 to {scale:g}")
        located.append(float(value) * (down if at % 2 else across))
    return located


def locate(
    call: ToolCall,
    images: Sequence[Image],
    seen: Sequence[tuple[int, int]],
    *,
    scale: float | None,
    key: str = "img_idx",
    first: int = 0,
) -> ToolCall:
    """The call with its box and points in pixels; as it is where it has none.

    Args:
        call: As parsed.
        images: Every image so far, full resolution.
        seen: (width, height) of each as the model sees it.
        scale: The dialect's space.
        key: The argument that says which image is meant; becomes `img_idx`, counted from 0.
        first: What the dialect calls the first image.

    Raises:
        ParseError: A box, a point or an image that can't be understood.
    """
    arguments = dict(call.arguments)
    box = next((name for name in BOXES if name in arguments), None)
    found = [*([box] if box else []), *(name for name in POINTS if name in arguments)]
    if not found and (key not in arguments or (key, first) == ("img_idx", 0)):
        return call  # tools check an index that needs no translation themselves
    index = image_index(arguments, key, len(images), first=first)
    if arguments.pop(key, None) is not None or key != "img_idx":
        arguments["img_idx"] = index
    for name in found:
        arguments[name] = to_pixels(arguments[name], name, images[index], seen[index], scale)
    return ToolCall(call.name, arguments, call.raw)
