"""Images in LangChain's messages: a question about some, and our own tools that make more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from speceyes.encoded import data_url
from speceyes.tools import Tools
from speceyes.tools.adapters.foreign import extra
from speceyes.types import Image, ToolCall

if TYPE_CHECKING:
    from langchain_core.messages import HumanMessage
    from langchain_core.tools import BaseTool


def question(text: str, *images: Image) -> HumanMessage:
    """A human message with images, for those who hold PIL images."""
    message = extra("langchain_core.messages", "langchain").HumanMessage
    blocks: list[str | dict[str, Any]] = [image_block(image) for image in images]
    said: HumanMessage = message(content=[*blocks, {"type": "text", "text": text}])
    return said


def lent_tools(images: Sequence[Image], tools: Tools | Sequence[Any] = ("zoom",)) -> list[BaseTool]:
    """Our own tools for one task of an agent, with what they show as content blocks.

    Args:
        images: The task's images; crops join them as they are made.
        tools: A `Tools` registry, or the parts of one.

    Example:
        >>> from PIL import Image as PILImage
        >>> [zoom] = lent_tools([PILImage.new("RGB", (64, 64))])
        >>> [block] = zoom.invoke({"bbox_2d": [0, 0, 32, 32]})
        >>> block["type"]
        'image_url'
    """
    structured = extra("langchain_core.tools", "langchain").StructuredTool
    album = list(images)
    known = tools if isinstance(tools, Tools) else Tools(tools)

    def lent(name: str) -> Callable[..., list[dict[str, Any]]]:
        def run(**arguments: Any) -> list[dict[str, Any]]:
            seen = known.run(ToolCall(name, arguments), album)
            if seen.error is not None:
                return [{"type": "text", "text": f"Error: {seen.error}"}]
            album.extend(seen.images)
            return [
                {"type": "text", "text": part} if isinstance(part, str) else image_block(part)
                for part in seen.content
                if isinstance(part, str | Image)
            ]

        return run

    return [
        structured(
            name=tool.name,
            description=tool.description,
            args_schema=dict(tool.parameters),
            func=lent(tool.name),
        )
        for tool in known
    ]


def image_block(image: Image) -> dict[str, Any]:
    """An image as a block of a message's content."""
    return {"type": "image_url", "image_url": {"url": data_url(image)}}
