"""From a dialect's coordinates to pixels of the image that they refer to.

A dialect's space is its profile's `scale`: boxes run from 0 to it across the image's width and
height, whatever its size; None stands for pixels of the image as the model sees it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from speceyes.dialects._json_call import shown
from speceyes.dialects.profile import Profile
from speceyes.errors import ParseError
from speceyes.types import Image, ToolCall

_SIDES = "[left, top, right, bottom]"
ZOOM = "image_zoom_in_tool"
BOXES = ("bbox_2d", "bbox")
_NUMBER = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]{0,30})?")
_NUMBERS = re.compile(
    rf"{_NUMBER.pattern}(?:[ \n]{{0,9}}[,\uff0c\u3001; ][ \n]{{0,9}}{_NUMBER.pattern}){{0,3}}"
)
_WHOLE = re.compile(r"([0-9]{1,9})(?:\.0{1,9})?")
POINTS = ("point_2d", "start_point_2d", "end_point_2d")


def image_index(arguments: Mapping[str, Any], key: str, images: int, *, first: int = 0) -> int:
    """Index of the image that a call refers to, from 0.

    Args:
        arguments: The call's arguments.
        key: Where the number stands, perhaps as text; absent, null or blank means the first image.
        images: How many there are.
        first: What the dialect calls the first one.

    Raises:
        ParseError: It isn't an image so far.
    """
    given = arguments.get(key)
    index = first if given is None else number_of(given, first)
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index - first < images:
        last = images - 1 + first
        raise ParseError(f"{key}={shown(given)} is not an image so far; use {first} to {last}")
    return index - first


def number_of(given: Any, blank: int) -> Any:
    """The whole number that a value is, or is written as: 1, 1.0, "1", "1.0".

    Args:
        given: A JSON value; what is no whole number comes back as it is.
        blank: What a text stands for that is blank, "null" or "None".
    """
    if isinstance(given, str):
        text = given.strip()
        if text.lower() in ("", "null", "none"):
            return blank
        found = _WHOLE.fullmatch(text)
        return int(found[1]) if found else given
    if isinstance(given, float) and given.is_integer():
        return int(given)
    return given


def numbers_of(values: Any) -> Any:
    """Numbers of a box or point as a list, also where they are written as text, each by itself or
    all in one, in a list of one list, or as two corners; anything else comes back as it is.

    Example:
        >>> numbers_of("[1, 2, 3, 4.5]"), numbers_of([["1", 2], [3, "4"]]), numbers_of("all")
        ([1, 2, 3, 4.5], [1, 2, 3, 4], 'all')
    """
    found = _written_out(values) if isinstance(values, str) else values
    if isinstance(found, list | tuple) and len(found) == 1 and isinstance(found[0], list | tuple):
        found = found[0]
    corners = isinstance(found, list | tuple) and len(found) == 2
    if corners and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in found):
        found = [*found[0], *found[1]]
    if not isinstance(found, list | tuple):
        return values
    return [_written_out(one) if isinstance(one, str) else one for one in found]


def _written_out(text: str) -> Any:
    """The number that a text is, or a list of those that stand in it; else the text."""
    body = text.strip(" \n\t\"'[]()\u3000")
    if len(body) > 200 or not _NUMBERS.fullmatch(body):
        return text
    found = [float(one) if "." in one else int(one) for one in _NUMBER.findall(body)]
    return found[0] if len(found) == 1 else found


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
        ParseError: They aren't so many finite numbers, or can only be meant in another space.
    """
    count, form = (2, "[x, y]") if "point" in key else (4, _SIDES)
    values = numbers_of(values)
    if not isinstance(values, list | tuple) or len(values) != count:
        raise ParseError(f"{key}={shown(values)} is not {form}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ParseError(f"{key} holds {shown(value)}, which is not a number")
        if not abs(value) < 1e9:  # NaN included
            raise ParseError(f"{key} holds a number that is out of all bounds")
    if (scale is None or scale > 1) and _fractions(values):
        raise ParseError(f"{key}={shown(values)} are parts of the image; {_range(scale, seen)}")
    located = []
    for at, value in enumerate(values):
        side = (image.width, image.height)[at % 2]
        most = scale or seen[at % 2]
        # A little outside is clamped by the tools; far outside it was meant in another space.
        if not -most <= value <= 2 * most:
            raise ParseError(f"{key} holds {shown(value)}; {_range(scale, seen)}")
        located.append(float(value) * side / most)
    return located


def _fractions(values: Sequence[float]) -> bool:
    """True where numbers are parts of an image and nothing else: 0 to 1, a little outside at
    most. Whole numbers are so in a box, [0, 0, 1, 1]; a point may be the corner's pixel.
    """
    inside = all(-0.1 <= value <= 1.1 for value in values)
    written = len(values) == 4 or any(isinstance(value, float) for value in values)
    return inside and written and any(values)


def _range(scale: float | None, seen: tuple[int, int]) -> str:
    if scale is not None:
        return f"numbers go from 0 to {scale:g}"
    return f"numbers are pixels of the image as you see it, {seen[0]}x{seen[1]}"


def region(box: Sequence[float], image: Image, profile: Profile) -> list[float]:
    """A box in pixels of its image, grown and rounded as a profile has it.

    Args:
        box: Left, top, right, bottom, in any order of each two.
        image: The image.
        profile: `margin`, `grow` and `rounding`.
    """
    if not (profile.margin or profile.grow != 1 or profile.rounding):
        return list(box)
    spans = []
    for at, side in enumerate(image.size):
        low, high = sorted((box[at], box[at + 2]))
        if profile.grow != 1:
            half = (high - low) * profile.grow / 2
            middle = (low + high) / 2
            low, high = max(0.0, middle - half), min(float(side), middle + half)
        low, high = low - profile.margin * side, high + profile.margin * side
        if profile.rounding == "outward":
            low, high = math.floor(low + 1e-6), math.ceil(high - 1e-6)
        elif profile.rounding == "down":
            low, high = math.trunc(low + 1e-6), math.trunc(high + 1e-6)
        elif profile.rounding == "nearest":
            low, high = round(low), round(high)
        spans.append((low, high))
    (left, right), (top, bottom) = spans
    return [left, top, right, bottom]


def locate(
    call: ToolCall,
    images: Sequence[Image],
    seen: Sequence[tuple[int, int]],
    profile: Profile,
    *,
    key: str = "img_idx",
    first: int = 0,
) -> ToolCall:
    """The call with its box and points in pixels; as it is where it has none.

    Args:
        call: As parsed.
        images: Every image so far, as tools get them.
        seen: (width, height) of each as the model sees it.
        profile: The space, and what becomes of a box in it.
        key: The argument that says which image is meant; becomes `img_idx`, counted from 0.
        first: What the dialect calls the first image.

    Raises:
        ParseError: A box, a point or an image that can't be understood.
    """
    arguments = dict(call.arguments)
    if call.name == ZOOM and "bbox" in arguments and "bbox_2d" not in arguments:
        # DeepEyes' published schema names it so by mistake, and other agents do too.
        arguments["bbox_2d"] = arguments.pop("bbox")
    box = next((name for name in BOXES if name in arguments), None)
    found = [*([box] if box else []), *(name for name in POINTS if name in arguments)]
    whole = isinstance(arguments.get(key), int)
    if not found and (key not in arguments or ((key, first) == ("img_idx", 0) and whole)):
        return call  # tools check an index that needs no translation themselves
    index = image_index(arguments, key, len(images), first=first)
    if arguments.pop(key, None) is not None or key != "img_idx":
        arguments["img_idx"] = index
    for name in found:
        values = numbers_of(arguments[name])
        located = to_pixels(values, name, images[index], seen[index], profile.scale)
        if name == box:
            if values[0] == values[2] or values[1] == values[3]:
                raise ParseError(f"{name}={shown(values)} has no area; a box is {_SIDES}")
            small = min(abs(values[2] - values[0]), abs(values[3] - values[1]))
            if profile.min_box and small <= profile.min_box:
                raise ParseError(
                    f"{name}={shown(values)} is too small; sides must be over {profile.min_box:g}"
                )
            located = region(located, images[index], profile)
        arguments[name] = located
    return ToolCall(call.name, arguments, call.raw)
