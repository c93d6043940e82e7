"""Original: the question's image in full, for agents that are shown a small view first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from speceyes.errors import ToolError
from speceyes.types import Image, Observation

_PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "action": {"type": "string", "enum": ["resize"], "description": "What to do: resize."}
    },
    "required": ["action"],
}


@dataclass(frozen=True, slots=True)
class Original:
    """Shows the question's first image at its own size; VisionThink calls it `resize_image`.

    Example:
        >>> from PIL import Image
        >>> Original()([Image.new("RGB", (200, 100))], {"action": "resize"}).images[0].size
        (200, 100)
    """

    stateless: ClassVar[bool] = True
    bounded: ClassVar[bool] = True
    reads: ClassVar[Literal["images"]] = "images"

    name: str = "resize_image"
    description: str = "Shows the image at its full resolution, where the view is too small."

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of `action`."""
        return _PARAMETERS

    def __call__(self, images: Sequence[Image], arguments: Mapping[str, Any]) -> Observation:
        """The image.

        Args:
            images: Every image so far, full resolution.
            arguments: `action`, which is "resize".

        Raises:
            ToolError: There is no image.
        """
        if not images:
            raise ToolError("there is no image")
        return Observation((images[0],), source=0)
