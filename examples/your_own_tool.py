"""Gives the agent tools of your own: a class that stands in for the zoom, and a typed function.

Run: python examples/your_own_tool.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL.Image import Image

from speceyes import AgenticFallback, HFModel, Tools, tiny, tool
from speceyes.tiny.scenes import questions
from speceyes.tools.zoom import Zoom
from speceyes.types import Observation, ToolCall


class WatchedZoom:
    """A zoom that notes where the agent looks. Anything with these four members is a tool."""

    def __init__(self) -> None:
        self._zoom = Zoom()
        self.name = self._zoom.name
        self.description = self._zoom.description
        self.parameters = self._zoom.parameters
        self.boxes: list[Any] = []

    def __call__(self, images: Sequence[Image], arguments: Mapping[str, Any]) -> Observation:
        seen = self._zoom(images, arguments)
        self.boxes.append(seen.box)
        return seen


@tool
def mean_colour(image: Image) -> str:
    """Tells the mean colour of an image as red, green and blue, 0 to 255."""
    pixel = image.convert("RGB").resize((1, 1)).getpixel((0, 0))
    return f"red, green, blue: {pixel}"


def main() -> None:
    item = next(item for item in questions("heldout", 50) if item.kind == "card/colour")

    watched = WatchedZoom()
    agent = AgenticFallback(HFModel.from_pretrained(tiny.LARGE), tools=Tools([watched]))
    way = agent([item.query])[0]
    print(f"{item.query.question} {way.answer} (right: {item.answer}); looked at {watched.boxes}")

    # A larger agent chooses among tools by itself; this is what it would be shown of this one.
    tools = Tools([watched, mean_colour])
    seen = tools.run(ToolCall("mean_colour", {}), item.query.images)
    print(f"mean_colour says: {seen.content[0]}")


if __name__ == "__main__":
    main()
