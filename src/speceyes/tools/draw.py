"""Drawing on images, to think with them: boxes around objects, paths between points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from PIL import ImageDraw, ImageFont

from speceyes.errors import ToolError
from speceyes.types import Image, Observation

COLOURS = ("red", "green", "blue", "yellow", "orange", "pink", "purple", "brown")
"""Colours of the first, second, ... box drawn, over and over."""

WIDTH = 4
"""Of a line, pixels, as ViLaSR draws it (`utils/edit_image.py` of its repository)."""

MAX_LABEL = 60
"""Most characters of a label that are drawn."""


def _numbers(count: int, what: str) -> dict[str, Any]:
    return {
        "type": "array",
        "items": {"type": "number"},
        "minItems": count,
        "maxItems": count,
        "description": what,
    }


def _schema(key: str, places: Mapping[str, Any]) -> Mapping[str, Any]:
    item = {
        "type": "object",
        "properties": {**places, "label": {"type": "string", "description": "What it is."}},
        "required": list(places),
    }
    index = {
        "type": "integer",
        "minimum": 0,
        "description": "Which image, 0 being the first; drawings count on. Default 0.",
    }
    return {
        "type": "object",
        "properties": {
            key: {"type": "array", "items": item, "minItems": 1, "maxItems": 200},
            "img_idx": index,
        },
        "required": [key],
    }


_OBJECTS = _schema("objects", {"bbox_2d": _numbers(4, "The box: [left, top, right, bottom].")})
_PATHS = _schema(
    "paths",
    {
        "start_point_2d": _numbers(2, "Where it starts: [x, y]."),
        "end_point_2d": _numbers(2, "Where it ends: [x, y]."),
    },
)


@dataclass(frozen=True, slots=True)
class ObjectMapper:
    """Draws labelled boxes on a copy of any earlier image, drawings included.

    Example:
        >>> from PIL import Image
        >>> boxes = {"objects": [{"bbox_2d": [10, 10, 50, 40], "label": "cup"}]}
        >>> ObjectMapper()([Image.new("RGB", (100, 100))], boxes).images[0].getpixel((10, 25))
        (255, 0, 0)
    """

    stateless: ClassVar[bool] = True
    bounded: ClassVar[bool] = True
    reads: ClassVar[Literal["image"]] = "image"

    name: str = "object_mapper"
    description: str = "Draws boxes with labels on an image, to check where things are."

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of `objects` and `img_idx`."""
        return _OBJECTS

    def __call__(self, images: Sequence[Image], arguments: Mapping[str, Any]) -> Observation:
        """The image with the boxes.

        Args:
            images: Every image so far, full resolution.
            arguments: `objects`, each with `bbox_2d` in pixels of the image, and perhaps a
                `label`; `img_idx` (default 0).

        Raises:
            ToolError: A box lies outside the image, or the image isn't there.
        """
        canvas = _Canvas(images, arguments.get("img_idx", 0))
        for number, item in enumerate(arguments["objects"]):
            x0, y0, x1, y1 = item["bbox_2d"]
            corners = canvas.inside([min(x0, x1), min(y0, y1)], [max(x0, x1), max(y0, y1)])
            colour = COLOURS[number % len(COLOURS)]
            canvas.draw.rectangle(corners, outline=colour, width=WIDTH)
            canvas.label(corners[0], item.get("label", ""), colour)
        return canvas.observation()


@dataclass(frozen=True, slots=True)
class PathTracer:
    """Draws paths on a copy of any earlier image: black, from a red dot to a blue one.

    Example:
        >>> from PIL import Image
        >>> path = {"paths": [{"start_point_2d": [10, 50], "end_point_2d": [90, 50]}]}
        >>> PathTracer()([Image.new("RGB", (100, 100))], path).images[0].getpixel((10, 50))
        (255, 0, 0)
    """

    stateless: ClassVar[bool] = True
    bounded: ClassVar[bool] = True
    reads: ClassVar[Literal["image"]] = "image"

    name: str = "path_tracer"
    description: str = "Draws paths between points of an image, to check ways and relations."

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of `paths` and `img_idx`."""
        return _PATHS

    def __call__(self, images: Sequence[Image], arguments: Mapping[str, Any]) -> Observation:
        """The image with the paths.

        Args:
            images: Every image so far, full resolution.
            arguments: `paths`, each with `start_point_2d` and `end_point_2d` in pixels of the
                image, and perhaps a `label`; `img_idx` (default 0).

        Raises:
            ToolError: A path lies outside the image, or the image isn't there.
        """
        canvas = _Canvas(images, arguments.get("img_idx", 0))
        for item in arguments["paths"]:
            start, end = canvas.inside(item["start_point_2d"], item["end_point_2d"])
            canvas.draw.line([start, end], fill="black", width=WIDTH)
            canvas.draw.circle(start, WIDTH, fill="red")
            canvas.draw.circle(end, WIDTH, fill="blue")
        return canvas.observation()


Points = list[tuple[float, float]]


class _Canvas:
    """A copy of an image under drawing."""

    def __init__(self, images: Sequence[Image], index: Any) -> None:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(images):
            raise ToolError(f"img_idx={index!r} is not an image; use 0 to {len(images) - 1}")
        self.index = index
        # A copy: what a trajectory has seen must stay as it was.
        self.image: Image = images[index].convert("RGB")
        if self.image is images[index]:
            self.image = self.image.copy()
        self.draw = ImageDraw.Draw(self.image)
        self.font = ImageFont.load_default(max(10, round(min(self.image.size) / 40)))

    def inside(self, first: Sequence[float], second: Sequence[float]) -> Points:
        """Both points, moved onto the image if they are a little outside of it."""
        size = self.image.size
        for axis in (0, 1):
            low, high = sorted((first[axis], second[axis]))
            if not (high >= 0 and low <= size[axis]):  # NaN included
                raise ToolError(
                    f"a drawing spans {low:.0f} to {high:.0f}, outside the image "
                    f"(0 to {size[axis]})"
                )
        return [
            (min(max(p[0], 0), size[0] - 1), min(max(p[1], 0), size[1] - 1))
            for p in (first, second)
        ]

    def label(self, at: tuple[float, float], text: str, colour: str) -> None:
        """The text on black, by the point and within the image."""
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:MAX_LABEL]
        if not text:
            return
        _, _, width, height = self.draw.textbbox((0, 0), text, font=self.font)
        x = min(max(at[0], 0), max(self.image.width - width, 0))
        y = min(max(at[1] - height - 2 * WIDTH, 0), max(self.image.height - height, 0))
        self.draw.rectangle([x, y, x + width, y + height], fill="black")
        self.draw.text((x, y), text, fill=colour, font=self.font)

    def observation(self) -> Observation:
        """Observation for the model."""
        return Observation((self.image,), source=self.index)
