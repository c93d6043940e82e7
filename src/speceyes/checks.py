"""Checks of arguments, each with an error that says what was got and what is allowed."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TYPE_CHECKING

from speceyes.errors import ConfigError, InputError

if TYPE_CHECKING:  # commands read their arguments by these checks, before anything heavy
    import numpy as np
    import numpy.typing as npt


def checked_number(name: str, value: object, low: float, high: float = math.inf) -> float:
    """A number within its bounds, as a float.

    Raises:
        ConfigError: It isn't one.
    """
    try:
        number = (
            math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
        )
    except OverflowError:  # a whole number of hundreds of digits
        number = math.nan
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
    except (TypeError, ValueError, OverflowError):
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


def checked_numbers(name: str, values: object) -> npt.NDArray[np.float64]:
    """Numbers as float64.

    Raises:
        ConfigError: They can't be read so.
    """
    import numpy as np

    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as exc:
        raise ConfigError(f"{name}={values!r}; it must be numbers: {exc}") from exc


def checked_outcome(name: str, value: object) -> bool:
    """True or False, or 1 or 0: words, gaps and numbers between would all pass for one of them.

    Raises:
        InputError: It is something else.
    """
    import numpy as np

    if not isinstance(value, bool | np.bool_ | Real) or value not in (0, 1):
        raise InputError(f"{name}={value!r}; it must be True or False, or 1 or 0")
    return bool(value)


def checked_score(value: object) -> float:
    """A raw score as a float, NaN for None.

    Raises:
        InputError: It is no number, or infinite.
    """
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"a score is {value!r}; it must be a number, or None without one")
    try:
        score = float(value)
    except OverflowError:
        score = math.inf
    if math.isinf(score):
        raise InputError("a score is infinite; a draft without one has NaN or None")
    return score


def checked_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Checks that a value is one of those allowed.

    Raises:
        ConfigError: It is none of them.
    """
    if value not in allowed:
        raise ConfigError(f"{name}={value!r}; use one of {', '.join(allowed)}")


def listed(text: str) -> list[str]:
    """The parts of an argument that lists several with commas; none that is blank.

    Example:
        >>> listed("zoom, colour,")
        ['zoom', 'colour']
    """
    return [part.strip() for part in text.split(",") if part.strip()]
