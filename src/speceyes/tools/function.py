"""`@tool`: a typed function with a docstring becomes a tool.

The function's name, docstring and annotations give the name, the description and the JSON
schema that the model is shown. Images are handed in; they are not the model's to write.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, Union, overload

from PIL import Image as PILImage

from speceyes.errors import ConfigError, ToolError
from speceyes.tools._docstring import read_docstring
from speceyes.tools._waiting import finish
from speceyes.types import Image, Observation

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}
_INDEX = {
    "type": "integer",
    "minimum": 0,
    "description": "Which image, 0 being the first; crops count on. Default 0.",
}

Adapt: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True, slots=True, eq=False)
class FunctionTool:
    """A function as a tool; made by `tool`.

    Args:
        function: The function itself.
        name: Its name for the model.
        description: What it does, for the model.
        parameters: JSON schema of its arguments.
        stateless: The same arguments and images give the same result, so that it may be kept.
    """

    function: Callable[..., Any]
    name: str
    description: str
    parameters: Mapping[str, Any]
    stateless: bool = False
    _adapt: Mapping[str, Adapt] = field(default_factory=dict, repr=False)
    _image: str | None = None
    _images: str | None = None

    @property
    def reads(self) -> Literal["none", "image", "images"]:
        """Indices of images that a result depends on."""
        if self._images is not None:
            return "images"
        return "none" if self._image is None else "image"

    def __call__(self, images: Sequence[Image], arguments: Mapping[str, Any]) -> Observation:
        """Observation of what the function returns; an async one is waited for.

        Args:
            images: Every image so far. The function gets copies, so that it may draw on them.
            arguments: Fitting the schema, as `Tools.run` has checked.

        Raises:
            ToolError: The image isn't there, or the function returned something else than text,
                an image, an `Observation` or a tuple of them. The function's own errors pass.
        """
        given = {
            name: self._adapt[name](value)
            for name, value in arguments.items()
            if name in self._adapt
        }
        source = None
        if self._image is not None:
            source = int(arguments.get("img_idx", 0))
            if not 0 <= source < len(images):
                raise ToolError(f"img_idx={source} is not an image; use 0 to {len(images) - 1}")
            given[self._image] = images[source].copy()
        if self._images is not None:
            given[self._images] = tuple(image.copy() for image in images)
        returned = self.function(**given)
        if inspect.isawaitable(returned):
            returned = finish(returned)
        if isinstance(returned, Observation):
            return returned
        parts = returned if isinstance(returned, tuple) else (returned,)
        return Observation(tuple(self._contents(parts)), source=source)

    def _contents(self, parts: Sequence[Any]) -> Iterator[Any]:
        for part in parts:
            if isinstance(part, Observation):
                if part.error is not None:
                    raise ToolError(part.error)
                yield from part.content
            elif isinstance(part, str | PILImage.Image):
                yield part
            else:
                raise ToolError(
                    f"{self.name} returned a {type(part).__name__}; text, images or an "
                    "Observation are allowed"
                )


@overload
def tool(function: Callable[..., Any], /) -> FunctionTool: ...
@overload
def tool(
    *, name: str | None = None, description: str | None = None, stateless: bool = False
) -> Callable[[Callable[..., Any]], FunctionTool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    stateless: bool = False,
) -> FunctionTool | Callable[[Callable[..., Any]], FunctionTool]:
    """Makes a tool of a function; used as `@tool` or `@tool(name=...)`.

    Parameters may be str, int, float, bool, a `Literal`, lists and tuples of these, each also
    `| None`; those with a default need not be given by the model. A parameter of type
    `Sequence[Image]` gets every image so far; one of type `Image` gets the one that the model
    names by `img_idx` (default 0), which is added to the schema. The function returns text, an
    image, an `Observation`, or a tuple of these, and raises `ToolError` to tell the model what
    it did wrong. It may be async: each call then has an event loop of its own, and is cancelled
    when its time is over.

    Args:
        function: The function; its docstring (Google style) describes it and its parameters.
        name: Another name than the function's.
        description: Another description than the docstring's.
        stateless: The same arguments and images give the same result, so that `Tools` may keep
            results instead of calling again.

    Returns:
        The tool; the function itself is its `function`.

    Raises:
        ConfigError: A parameter has no type or one that isn't supported, or the function has no
            docstring.

    Example:
        >>> from PIL.Image import Image
        >>> @tool
        ... def brightness(image: Image, part: float = 1.0) -> str:
        ...     '''Measures how bright an image is.
        ...
        ...     Args:
        ...         part: Share of the image that is looked at.
        ...     '''
        ...     return f"{part * image.convert('L').getextrema()[1]:.0f}"
        >>> brightness.parameters["properties"]["part"]["type"]
        'number'
    """

    def make(inner: Callable[..., Any]) -> FunctionTool:
        return _make(inner, name, description, stateless)

    return make if function is None else make(function)


def _make(
    function: Callable[..., Any], name: str | None, description: str | None, stateless: bool
) -> FunctionTool:
    called = str(name or getattr(function, "__name__", ""))
    if not called.isidentifier():
        raise ConfigError(f"a tool of name {called!r}; pass @tool(name=...) with a plain name")
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise ConfigError(f"{called} yields; a tool returns what it has, all at once")
    about, texts = read_docstring(inspect.getdoc(function) or "")
    about = description or about
    if not about:
        raise ConfigError(f"{called} has no docstring; models are told by it what a tool does")
    try:
        hints = typing.get_type_hints(function)
        signature = inspect.signature(function)
    except (NameError, TypeError, ValueError, AttributeError) as exc:
        raise ConfigError(f"{called}: its annotations can't be read ({exc})") from exc
    properties: dict[str, Any] = {}
    required: list[str] = []
    adapt: dict[str, Adapt] = {}
    injected: dict[str, str] = {}
    for parameter in signature.parameters.values():
        what = f"{called}: parameter {parameter.name!r}"
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(f"{what} can't be given by its name; write a plain parameter")
        hint = hints.get(parameter.name)
        if (kind := _image_kind(hint)) is not None:
            if kind in injected:
                raise ConfigError(f"{what} is a second one for {kind}; keep one")
            injected[kind] = parameter.name
            continue
        schema, adapt[parameter.name] = _schema(hint, what)
        if text := texts.get(parameter.name):
            schema["description"] = text
        if parameter.default is parameter.empty:
            required.append(parameter.name)
        elif parameter.default is None or isinstance(parameter.default, tuple(_PLAIN)):
            schema["default"] = parameter.default
        properties[parameter.name] = schema
    _check_return(hints.get("return"), called)
    if "image" in injected:
        index = properties.setdefault("img_idx", dict(_INDEX))
        if index["type"] != "integer" or index.get("default", 0) != 0:
            raise ConfigError(f"{called}: img_idx names an image: an int, by default 0")
    parameters = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    return FunctionTool(
        function,
        called,
        about,
        parameters,
        stateless,
        adapt,
        injected.get("image"),
        injected.get("images"),
    )


def _image_kind(hint: Any) -> Literal["image", "images"] | None:
    """True where a parameter takes one image or all of them; None where it takes neither."""
    if hint is PILImage.Image:
        return "image"
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if inner[:1] != (PILImage.Image,):
        return None
    every = origin is Sequence or (origin is tuple and inner[1:] == (Ellipsis,))
    return "images" if every else None


def _same(value: Any) -> Any:
    return value


def _schema(hint: Any, what: str) -> tuple[dict[str, Any], Adapt]:
    """JSON schema of an annotation, and how a JSON value becomes what the function expects."""
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}, float if hint is float else _same
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType) and len(inner) == 2 and type(None) in inner:
        schema, adapt = _schema(inner[0] if inner[1] is type(None) else inner[1], what)
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
        return schema, lambda value: None if value is None else adapt(value)
    options = {type(option) for option in inner}
    if origin is Literal and len(options) == 1 and options <= _PLAIN.keys():
        return {"type": _PLAIN[options.pop()], "enum": list(inner)}, _same
    if origin in (list, Sequence) and len(inner) == 1:
        schema, adapt = _schema(inner[0], what)
        return {"type": "array", "items": schema}, lambda value: [adapt(v) for v in value]
    if origin is tuple and inner and (inner[1:] == (Ellipsis,) or len(set(inner)) == 1):
        schema, adapt = _schema(inner[0], what)
        array: dict[str, Any] = {"type": "array", "items": schema}
        if inner[1:] != (Ellipsis,):
            array.update(minItems=len(inner), maxItems=len(inner))
        return array, lambda value: tuple(adapt(v) for v in value)
    got = "no type" if hint is None else f"the type {hint}"
    raise ConfigError(
        f"{what} has {got}; str, int, float, bool, Literal, list[T], tuple[T, ...], "
        "tuple of one type, each also | None, PIL's Image and Sequence[Image] are allowed"
    )


def _check_return(hint: Any, called: str) -> None:
    if hint is None:
        return  # not annotated; what comes back is looked at when it does
    if hint in (str, PILImage.Image, Observation):
        return
    inner = [part for part in typing.get_args(hint) if part is not Ellipsis]
    if typing.get_origin(hint) in (Union, types.UnionType, tuple) and inner:
        for part in inner:
            _check_return(part, called)
        return
    raise ConfigError(
        f"{called} returns {hint}; text, an image, an Observation or a tuple of them are allowed"
    )
