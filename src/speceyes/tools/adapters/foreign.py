"""A tool that another library runs: how images reach it, and what its results become.

A model can't write an image down, it can only say which one it means. So an argument that is an
image to the foreign tool is a number to the model: the place of the image in the conversation.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from PIL import Image as PILImage

from speceyes.encoded import data_url, in_base64
from speceyes.errors import ConfigError, ImageError, ToolError
from speceyes.images import DEFAULT_LIMITS, load_image
from speceyes.images.blocks import block_image, block_text, encoded_image, is_image_block
from speceyes.tools._waiting import finish
from speceyes.types import Image, Observation

ImageForm = Literal["pil", "base64", "data_url"]
"""How a foreign tool takes an image: a PIL image, base64 of a PNG file, or a data URL of it."""

_WHICH = "Which image, by its number: 0 is the first; crops count on."


@dataclass(frozen=True, slots=True, eq=False)
class ForeignTool:
    """A tool of another library; made by `from_smolagents`, `from_langchain` and `mcp_tools`.

    Args:
        call: Called with the arguments, images in the tool's form; gives the result, or something
            to await.
        name: The tool's name for the model.
        description: What it does.
        parameters: JSON schema of the arguments, image arguments as numbers.
        images: Which argument for the model is which image argument of the tool.
        form: How the tool takes images.
        stateless: The same arguments and images give the same result.
    """

    call: Callable[[dict[str, Any]], Any]
    name: str
    description: str
    parameters: Mapping[str, Any]
    images: Mapping[str, str] = field(default_factory=dict)
    form: ImageForm = "pil"
    stateless: bool = False

    @property
    def reads(self) -> Literal["none", "image", "images"]:
        """Indices of images that a result depends on."""
        if not self.images:
            return "none"
        return "image" if set(self.images) == {"img_idx"} else "images"

    def __call__(self, images: Sequence[Image], arguments: Mapping[str, Any]) -> Observation:
        """Result of the foreign tool as an observation: text and images as they are, the rest JSON.

        Args:
            images: Every image so far; the tool gets copies.
            arguments: Fitting the schema, as `Tools.run` has checked.

        Raises:
            ToolError: An image isn't there, or the result holds an image that can't be read.
                The foreign tool's own errors pass.
        """
        given = dict(arguments)
        source: int | None = None
        for ours, theirs in self.images.items():
            index = given.pop(ours, None)
            if index is None and ours in self.parameters.get("required", ()):
                raise ToolError(f"{ours} must be given: the number of an image")
            if index is None:
                if ours != "img_idx":
                    continue  # left out, or null; the tool has a default for it
                index = 0
            if isinstance(index, bool) or not isinstance(index, int):
                raise ToolError(f"{ours}={index!r} is not the number of an image")
            if not 0 <= index < len(images):
                raise ToolError(f"{ours}={index} is not an image; use 0 to {len(images) - 1}")
            source = index if source is None else source
            given[theirs] = _formed(images[index], self.form)
        returned = self.call(given)
        if hasattr(returned, "__await__"):
            returned = finish(returned)
        if isinstance(returned, Observation):
            return replace(returned, source=source)
        return Observation(contents(returned), source=source)


def for_model(
    schema: Mapping[str, Any], taking: Sequence[str], name: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """The schema as the model is shown it, and where its image arguments went.

    The first image argument becomes `img_idx`, by which every dialect says what a box refers to;
    further ones keep their names.

    Args:
        schema: JSON schema of the foreign tool's arguments.
        taking: Names of the arguments that are images.
        name: The tool's, for errors.

    Raises:
        ConfigError: There is no argument of one of these names.
    """
    properties = dict(schema.get("properties", {}))
    required = list(schema.get("required", ()))
    went: dict[str, str] = {}
    for theirs in taking:
        if theirs not in properties:
            known = ", ".join(properties) or "none"
            raise ConfigError(f"{name} has no argument {theirs!r}; there are: {known}")
        about = properties.pop(theirs)
        about = about.get("description", "") if isinstance(about, Mapping) else ""
        ours = "img_idx" if not went and "img_idx" not in properties else theirs
        went[ours] = theirs
        needed = theirs in required
        required = [key for key in required if key != theirs]
        text = f"{_WHICH} {about}".strip()
        if ours == "img_idx":
            text = f"{text} Default 0."
        elif needed:
            required.append(ours)
        properties[ours] = {"type": "integer", "minimum": 0, "description": text}
    kept = {key: value for key, value in schema.items() if key in ("additionalProperties", "$defs")}
    tidy = {key: {} if value is True else value for key, value in properties.items()}
    return {"type": "object", "properties": tidy, "required": required, **kept}, went


def contents(returned: Any) -> tuple[str | Image, ...]:
    """A foreign result as an observation's content.

    Args:
        returned: Text, a PIL image, a list or tuple of results and of content blocks as LangChain,
            MCP or an API write them, or any value, which is written as JSON.

    Raises:
        ToolError: An image that can't be read, and nothing else beside it.
    """
    parts: list[str | Image] = []
    lost: list[ToolError] = []
    for part in _flat(returned):
        try:
            parts.append(_content(part))
        except ToolError as exc:
            parts.append(f"({exc})")
            lost.append(exc)
    if lost and len(lost) == len(parts):
        raise lost[0]
    return tuple(parts)


def _flat(returned: Any) -> list[Any]:
    if isinstance(returned, list | tuple) and any(
        isinstance(part, PILImage.Image) or _is_block(part) for part in returned
    ):
        return [inner for part in returned for inner in _flat(part)]
    return [returned]


def _content(part: Any) -> str | Image:
    """One part of a result.

    Raises:
        ToolError: An image that can't be read.
    """
    if part is None:
        return "(no result)"
    if isinstance(part, str):
        return part
    if isinstance(part, PILImage.Image):
        return _safe(part)
    if _is_block(part):
        text = block_text(part)
        shown = _image_of(part) if text is None else text
        if shown is not None:
            return shown
    try:
        return json.dumps(part, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return str(part)


def image_from_base64(data: str | bytes) -> Image:
    """An image out of base64 of its file, within the usual limits; what its type is said to be
    doesn't count.

    Raises:
        ToolError: It can't be read.
    """
    return _safe(_encoded(data))


def extra(module: str, name: str) -> Any:
    """A module of another library.

    Args:
        module: The module.
        name: The extra that brings it.

    Raises:
        ConfigError: It isn't installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise ConfigError(
            f'{module} is needed ({exc}): install it by pip install "speceyes[{name}]"'
        ) from exc


def _is_block(part: Any) -> bool:
    """True for a content block; a result of its own may well have a field "text" without a type."""
    return isinstance(part, Mapping) and (
        (isinstance(part.get("type"), str) and block_text(part) is not None) or is_image_block(part)
    )


def _image_of(block: Mapping[str, Any]) -> str | Image | None:
    """An image block; one that would have to be fetched stays the text of its address, and one
    that holds nothing is None.

    Raises:
        ToolError: It can't be read.
    """
    try:
        held = block_image(block, DEFAULT_LIMITS.max_bytes)
    except ImageError as exc:
        raise _unusable(exc) from exc
    if isinstance(held, str):
        return _safe(_encoded(held)) if held[:5].lower() == "data:" else held
    return None if held is None else _safe(held)


def _encoded(data: str | bytes) -> bytes:
    try:
        return encoded_image(data, DEFAULT_LIMITS.max_bytes)
    except ImageError as exc:
        raise _unusable(exc) from exc


def _unusable(exc: ImageError) -> ToolError:
    return ToolError(f"the tool gave an image that can't be used: {exc}")


def _safe(source: Image | bytes) -> Image:
    try:
        return load_image(source)
    except ImageError as exc:
        raise _unusable(exc) from exc


def _formed(image: Image, form: ImageForm) -> Any:
    if form == "pil":
        return image.copy()
    return in_base64(image) if form == "base64" else data_url(image)
