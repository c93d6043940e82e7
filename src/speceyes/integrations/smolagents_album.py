"""Our own tools, lent to an agent of smolagents, which is shown the images that they give back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from speceyes.errors import ModelError
from speceyes.protocols import Tool
from speceyes.tools import Tools
from speceyes.tools.adapters.foreign import extra
from speceyes.types import Image, ToolCall

_library: Any = extra("smolagents", "smolagents")


class Album:
    """Our own tools, lent to an agent for one task, and the images that they see and make.

    Args:
        images: The task's, as they are passed to `agent.run(..., images=...)`.
        tools: A `Tools` registry, or the parts of one.

    Example:
        >>> from PIL import Image as PILImage
        >>> album = Album([PILImage.new("RGB", (64, 64))], ["zoom"])
        >>> album.tools[0](bbox_2d=[0, 0, 32, 32])
        'image 1'
        >>> album.images[1].size
        (32, 32)
    """

    def __init__(self, images: Sequence[Image], tools: Tools | Iterable[Any] = ("zoom",)) -> None:
        self.images: list[Image] = list(images)
        self._tools = tools if isinstance(tools, Tools) else Tools(tools)
        self._new: list[Image] = []
        self.tools = [_Lent(self, tool) for tool in self._tools]
        """For `ToolCallingAgent(tools=...)`."""

    def show(self, step: Any, agent: Any = None) -> None:
        """For `ToolCallingAgent(step_callbacks=[album.show])`: the agent sees what was made."""
        if self._new and hasattr(step, "observations_images"):
            step.observations_images = [*(step.observations_images or ()), *self._new]
            self._new.clear()

    def run(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Calls a tool on the images so far.

        Raises:
            ModelError: What went wrong, for the agent to read.
        """
        seen = self._tools.run(ToolCall(name, arguments), self.images)
        if seen.error is not None:
            raise ModelError(seen.error)
        said = [part for part in seen.content if isinstance(part, str)]
        for image in seen.images:
            said.append(f"image {len(self.images)}")
            self.images.append(image)
            self._new.append(image)
        return "\n".join(said)


class _Lent(_library.Tool):  # type: ignore[misc]
    """One of our tools as one of smolagents'."""

    skip_forward_signature_validation = True
    output_type = "string"

    def __init__(self, album: Album, tool: Tool) -> None:
        self.name, self.description = tool.name, tool.description
        required = tool.parameters.get("required", ())
        self.inputs = {
            name: {
                "type": about.get("type", "any"),
                "description": about.get("description", name),
                **({} if name in required else {"nullable": True}),
            }
            for name, about in tool.parameters.get("properties", {}).items()
        }
        super().__init__()
        self._album = album

    def forward(self, **arguments: Any) -> str:
        given = {name: value for name, value in arguments.items() if value is not None}
        return self._album.run(self.name, given)
