"""Single fields of a request, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from speceyes.server.refusal import Refusal


def bad_field(param: str, why: str, code: str = "unsupported_value") -> Refusal:
    """400, about one field."""
    return Refusal(400, f"{param}: {why}", code=code, param=param)


def shown(name: str) -> str:
    """A field's name as an error repeats it: short, and printable."""
    return name[:64].encode("ascii", "backslashreplace").decode()


def is_zero(value: Any) -> bool:
    """True for 0 and 0.0, and not for false."""
    return is_number(value) and value == 0


def is_number(value: Any) -> bool:
    """True for a finite number."""
    return is_int(value) or (isinstance(value, float) and math.isfinite(value))


def is_int(value: Any) -> bool:
    """True for a whole number, however large; 2.0 is one too, as in JSON schemas."""
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


def flag(data: Mapping[str, Any], name: str) -> bool:
    """A field that is true, false or missing.

    Raises:
        Refusal: It is something else.
    """
    value = data.get(name)
    if value is not None and not isinstance(value, bool):
        raise bad_field(name, "true or false is needed")
    return bool(value)


def text_of(value: Any, where: str) -> str:
    """A text that can be encoded.

    Raises:
        Refusal: It isn't one.
    """
    if not isinstance(value, str):
        raise bad_field(where, "a text is needed")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise bad_field(where, "the text holds half a surrogate pair") from None
    return value
