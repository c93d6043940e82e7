"""Tools of smolagents."""

from __future__ import annotations

from typing import Any

from speceyes.errors import ConfigError
from speceyes.tools.adapters.foreign import ForeignTool, extra, for_model

_TYPES = {"string", "boolean", "integer", "number", "array", "object", "null"}


def from_smolagents(tool: Any, *, stateless: bool = False) -> ForeignTool:
    """A smolagents tool (`smolagents.Tool`, or a function under its `@tool`) as one of ours.

    Inputs of type "image" become numbers of images (the first one `img_idx`), and the tool gets a
    copy of the image that the model means. Needs the extra `smolagents`.

    Args:
        tool: The tool.
        stateless: The same arguments and images give the same result, so that it may be kept.

    Raises:
        ConfigError: smolagents isn't installed, this isn't one of its tools, or it takes audio.
    """
    kind = extra("smolagents", "smolagents").Tool
    if not isinstance(tool, kind):
        raise ConfigError(
            f"{tool!r} is not a smolagents tool; pass a smolagents.Tool, or a function under "
            "smolagents' @tool"
        )
    properties: dict[str, Any] = {}
    required: list[str] = []
    images: list[str] = []
    for name, about in tool.inputs.items():
        types = [about["type"]] if isinstance(about["type"], str) else list(about["type"])
        if "audio" in types:
            raise ConfigError(f"{tool.name} takes audio ({name}), which no model here can give")
        schema = {key: about[key] for key in ("description", "enum", "items") if key in about}
        if "image" in types:
            images.append(name)
        elif set(types) <= _TYPES:  # "any" is left open
            schema["type"] = [*types, "null"] if about.get("nullable") else types
        properties[name] = schema
        if not about.get("nullable"):
            required.append(name)
    parameters, went = for_model(
        {"properties": properties, "required": required, "additionalProperties": False},
        images,
        tool.name,
    )

    def call(arguments: dict[str, Any]) -> Any:
        # Sanitizing would turn images into smolagents' own kind, and back.
        return tool(**arguments)

    return ForeignTool(
        call, tool.name, tool.description, parameters, went, "pil", stateless=stateless
    )
