"""Crop grid: an image cut into equal parts, all of them shown at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from speceyes.errors import ConfigError, ToolError
from speceyes.tools._places import BOX, INDEX, image_at, region_of
from speceyes.types import Image, Observation


@dataclass(frozen=True, slots=True)
class CropGrid:
    """Cuts an image, or a part of it, into rows and columns of crops at full resolution.

    The crops tile the part exactly: each pixel is in one crop, and their sides differ by at most
    one pixel. Before each stands its row and column (counted from 1) and its place in the source.

    Args:
        max_crops: Most crops of one call; each costs the model an image.

    Raises:
        ConfigError: max_crops is below 1.

    Example:
        >>> from PIL import Image
        >>> seen = CropGrid()([Image.new("RGB", (90, 40))], {"rows": 2, "columns": 3})
        >>> len(seen.images), seen.content[0]
        (6, 'Row 1, column 1, at [0, 0, 30, 20]:')
    """

    stateless: ClassVar[bool] = True
    bounded: ClassVar[bool] = True
    reads: ClassVar[Literal["image"]] = "image"

    max_crops: int = 16
    name: str = "image_grid_tool"
    description: str = "Cuts an image into rows and columns and shows all parts, one by one."

    def __post_init__(self) -> None:
        if self.max_crops < 1:
            raise ConfigError(f"max_crops={self.max_crops}; it must be at least 1")

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of `rows`, `columns`, `bbox_2d` and `img_idx`."""
        count = {"type": "integer", "minimum": 1, "maximum": self.max_crops}
        return {
            "type": "object",
            "properties": {
                "rows": {**count, "description": "How many parts from top to bottom."},
                "columns": {**count, "description": "How many parts from left to right."},
                "bbox_2d": BOX,
                "img_idx": INDEX,
            },
            "required": ["rows", "columns"],
        }

    def __call__(self, images: Sequence[Image], arguments: Mapping[str, Any]) -> Observation:
        """The crops, row by row, a line of text before each.

        Args:
            images: Every image so far, full resolution.
            arguments: `rows` and `columns`, at least 1; `bbox_2d` in pixels of the image;
                `img_idx` (default 0).

        Raises:
            ToolError: There would be too many crops or some without a pixel, the box lies
                outside the image, or the image isn't there.
        """
        index, image = image_at(images, arguments)
        rows, columns = arguments.get("rows"), arguments.get("columns")
        for key, count in (("rows", rows), ("columns", columns)):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ToolError(f"{key}={count!r}; a whole number from 1 is needed")
        assert isinstance(rows, int) and isinstance(columns, int)
        if rows * columns > self.max_crops:
            raise ToolError(
                f"{rows} x {columns} are {rows * columns} crops; at most {self.max_crops} are "
                "allowed: zoom in on a part first"
            )
        box = left, top, right, bottom = region_of(image, arguments)
        if right - left < columns or bottom - top < rows:
            raise ToolError(
                f"the part has {right - left} x {bottom - top} pixels, too few for "
                f"{columns} columns and {rows} rows"
            )
        xs = [left + (right - left) * i // columns for i in range(columns + 1)]
        ys = [top + (bottom - top) * i // rows for i in range(rows + 1)]
        content: list[str | Image] = []
        for row in range(rows):
            for column in range(columns):
                crop = (xs[column], ys[row], xs[column + 1], ys[row + 1])
                content.append(f"Row {row + 1}, column {column + 1}, at {list(crop)}:")
                content.append(image.crop(crop))
        return Observation(tuple(content), box=box, source=index)
