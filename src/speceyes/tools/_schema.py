"""Holding a tool call's arguments against the tool's JSON schema.

The part of JSON Schema that tools need: type (one or several), enum, items, minItems, maxItems,
properties, required, additionalProperties, minimum, maximum. Other keywords are not looked at.
Values are changed only where nothing is lost: 3.0 becomes 3 where an integer is asked for,
and null for an argument that may be left out, and can't be null, is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from speceyes.errors import ConfigError, ToolError

_NAMES = {
    "object": "an object",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}


def check_schema(schema: Any, what: str) -> None:
    """Looks a tool's schema over.

    Raises:
        ConfigError: It isn't a JSON schema, or has a type that there is not.
    """
    if not isinstance(schema, Mapping):
        raise ConfigError(f"{what} is a {type(schema).__name__}; a JSON schema is a mapping")
    kinds = schema.get("type", ())
    for kind in (kinds,) if isinstance(kinds, str) else kinds:
        if kind not in _NAMES:
            raise ConfigError(f"{what} has the type {kind!r}; there are: {', '.join(_NAMES)}")
    for name, inner in schema.get("properties", {}).items():
        check_schema(inner, f"{what}, {name}")
    for key in ("items", "additionalProperties"):
        if not isinstance(schema.get(key, True), bool):
            check_schema(schema[key], f"{what}, {key}")


def check(value: Any, schema: Mapping[str, Any], where: str = "arguments") -> Any:
    """The value as the schema has it.

    Args:
        value: A JSON value.
        schema: Its JSON schema.
        where: Names the value in errors.

    Raises:
        ToolError: It doesn't fit; written for the model.

    Example:
        >>> check([1.0, 2], {"type": "array", "items": {"type": "integer"}})
        [1, 2]
    """
    kinds = schema.get("type")
    if kinds is not None:
        value = _typed(value, (kinds,) if isinstance(kinds, str) else tuple(kinds), where)
    if "enum" in schema:
        value = _one_of(value, schema["enum"], where)
    if isinstance(value, Mapping):
        return _object(value, schema, where)
    if isinstance(value, list | tuple):
        return _array(value, schema, where)
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum"), schema.get("maximum")
        if low is not None and value < low:
            raise ToolError(f"{where} is {_short(value)}; at least {low} is needed")
        if high is not None and value > high:
            raise ToolError(f"{where} is {_short(value)}; at most {high} is allowed")
    return value


def _typed(value: Any, kinds: tuple[str, ...], where: str) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ToolError(f"{where} is {value}; a finite number is needed")
    if _kind(value) in kinds or ("number" in kinds and _kind(value) == "integer"):
        return value
    if "integer" in kinds and isinstance(value, float) and value.is_integer():
        return int(value)
    needed = " or ".join(_NAMES[kind] for kind in kinds)
    raise ToolError(f"{where} is {_short(value)}; {needed} is needed")


def _kind(value: Any) -> str:
    for kind, types in (
        ("boolean", bool),  # before integer: True is an int
        ("integer", int),
        ("number", float),
        ("string", str),
        ("array", list | tuple),
        ("object", Mapping),
    ):
        if isinstance(value, types):
            return kind
    return "null" if value is None else "unknown"


def _one_of(value: Any, options: Sequence[Any], where: str) -> Any:
    """The option that equals the value."""
    for option in options:
        same = isinstance(option, bool) == isinstance(value, bool)  # True == 1
        if same and value == option:
            return option
    listed = ", ".join(_short(option) for option in options)
    raise ToolError(f"{where} is {_short(value)}; one of these is needed: {listed}")


def _object(value: Mapping[Any, Any], schema: Mapping[str, Any], where: str) -> dict[str, Any]:
    properties: Mapping[str, Any] = schema.get("properties", {})
    missing = [name for name in schema.get("required", ()) if name not in value]
    if missing:
        raise ToolError(f"{where}: {', '.join(missing)} must be given")
    further = schema.get("additionalProperties", True)
    checked: dict[str, Any] = {}
    for name, inner in value.items():
        if inner is None and _left_out(name, schema):
            continue
        if name in properties:
            checked[name] = check(inner, properties[name], _within(where, name))
        elif further is False:
            known = ", ".join(properties) or "none"
            raise ToolError(f"{where}: {_short(name)} is not known; there are: {known}")
        elif isinstance(further, Mapping):
            checked[name] = check(inner, further, _within(where, _short(name)))
        else:
            checked[name] = inner
    return checked


def _left_out(name: Any, schema: Mapping[str, Any]) -> bool:
    """True where null stands for an argument that may be left out and can't be null, as models
    and clients write what they don't use.
    """
    inner = schema.get("properties", {}).get(name)
    if inner is None or name in schema.get("required", ()):
        return False
    try:
        check(None, inner, str(name))
    except ToolError:
        return True
    return False


def _within(where: str, name: str) -> str:
    return name if where == "arguments" else f"{where}.{name}"


def _array(value: Sequence[Any], schema: Mapping[str, Any], where: str) -> list[Any]:
    low, high = schema.get("minItems", 0), schema.get("maxItems", math.inf)
    if not low <= len(value) <= high:
        if low == high:
            need = f"exactly {low} are needed"
        elif len(value) < low:
            need = f"at least {low} are needed"
        else:
            need = f"at most {high} are allowed"
        raise ToolError(f"{where} has {len(value)} items; {need}")
    items = schema.get("items")
    if not isinstance(items, Mapping):
        return list(value)
    return [check(inner, items, f"{where}[{i}]") for i, inner in enumerate(value)]


def _short(value: Any) -> str:
    """A value as the model is told of it; never long, and never an error of its own."""
    try:
        text = repr(value)
    except Exception as exc:  # noqa: BLE001 - a whole number can be too long to be written
        text = f"a {type(value).__name__} that can't be shown ({type(exc).__name__})"
    return text if len(text) <= 60 else text[:57] + "..."
