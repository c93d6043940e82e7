"""Tools of LangChain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from speceyes.errors import ConfigError, ToolError
from speceyes.tools.adapters.foreign import ForeignTool, ImageForm, extra, for_model


def from_langchain(
    tool: Any,
    *,
    images: Sequence[str] = (),
    form: ImageForm = "data_url",
    stateless: bool = False,
) -> ForeignTool:
    """A LangChain tool (`BaseTool`, or a function under its `@tool`) as one of ours.

    LangChain's schemas don't say which text is an image, so `images` does. These arguments become
    numbers of images for the model (the first one `img_idx`). Results may be text, PIL images,
    content blocks, or any value, which is written as JSON. Images that a result gives by an
    address are not fetched. Tools that are only async are awaited. Needs the extra `langchain`.

    Args:
        tool: The tool.
        images: Names of its arguments that take an image.
        form: How it takes them: a data URL, base64 of a PNG file, or a PIL image.
        stateless: The same arguments and images give the same result, so that it may be kept.

    Raises:
        ConfigError: langchain-core isn't installed, this isn't one of its tools, its schema can't
            be written as JSON, or it has no argument of a name in `images`.
    """
    kind = extra("langchain_core.tools", "langchain").BaseTool
    if not isinstance(tool, kind):
        raise ConfigError(
            f"{tool!r} is not a LangChain tool; pass a BaseTool, or a function under LangChain's "
            "@tool"
        )
    described = extra("langchain_core.utils.function_calling", "langchain").convert_to_openai_tool
    refused = extra("langchain_core.tools", "langchain").ToolException
    try:
        schema = described(tool)["function"]
    except Exception as exc:
        raise ConfigError(
            f"{tool.name}: its arguments can't be written as a JSON schema ({exc}); use types "
            "that JSON has, and images=(...) for those that are images"
        ) from exc
    parameters, went = for_model(schema.get("parameters", {}), images, tool.name)
    only_async = getattr(tool, "func", tool) is None

    def call(arguments: dict[str, Any]) -> Any:
        if only_async:
            return awaited(arguments)
        try:
            return tool.invoke(arguments)
        except refused as exc:
            raise ToolError(str(exc)) from exc

    async def awaited(arguments: dict[str, Any]) -> Any:
        try:
            return await tool.ainvoke(arguments)
        except refused as exc:
            raise ToolError(str(exc)) from exc

    return ForeignTool(
        call,
        tool.name,
        schema.get("description") or tool.name,
        parameters,
        went,
        form,
        stateless=stateless,
    )
