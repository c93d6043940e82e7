"""Checks of arguments, each with an error that says what was got and what is allowed."""

from __future__ import annotations

import math
from numbers import Integral, Real

from speceyes.errors import ConfigError


def checked_number(name: str, value: object, low: float, high: float = math.inf) -> float:
    """A number within its bounds, as a float.

    Raises:
        ConfigError: It isn't one.
    """
    number = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    if not low <= number <= high:
        raise ConfigError(f"{name}={value!r}; it must be a number from {low:g} to {high:g}")
    return number


def checked_share(name: str, value: object) -> float:
    """A number strictly between 0 and 1, as a float.

    Raises:
        ConfigError: It isn't one.
    """
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not 0.0 < number < 1.0:
        raise ConfigError(f"{name}={value!r}; it must lie strictly between 0 and 1")
    return number


def checked_whole(name: str, value: object, least: int, why: str = "") -> int:
    """A whole number that is large enough.

    Raises:
        ConfigError: It isn't one.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ConfigError(f"{name}={value!r}; it must be a whole number from {least}{why}")
    return int(value)


def checked_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Checks that a value is one of those allowed.

    Raises:
        ConfigError: It is none of them.
    """
    if value not in allowed:
        raise ConfigError(f"{name}={value!r}; use one of {', '.join(allowed)}")
