"""Every error that speceyes raises on purpose.

Each message says what was got, what is allowed and what to do about it. Errors that
belong to one query (a model that failed on it, a tool call that can't be parsed) never
leave the pipeline: they end up in that query's `Result.error` or go back to the model
as an observation.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Fault: TypeAlias = Literal["text", "image", "length", "tools", "request"]
"""What of a request makes it fail however often it is tried: words that can't be written, an image
that can't be seen, a prompt above the model's context, tools that its chat template has no place
for, or what an engine refuses as a whole."""

_LONGEST = 2_000
"""Most characters of an exception's message that are told on."""


class SpecEyesError(Exception):
    """Base of all errors raised on purpose by this package."""


class ConfigError(SpecEyesError, ValueError):
    """A part was built with arguments that can't work; raised at construction."""


class InputError(SpecEyesError, ValueError):
    """A query, an array or a file that can't be used; raised where data enters."""


class ImageError(InputError):
    """An image that can't be read, or is outside the limits it was loaded under."""


class ModelError(SpecEyesError, RuntimeError):
    """A model or an engine failed on one request; ends that one query."""


class PromptError(ModelError, InputError):
    """A prompt that this model can never answer, so that asking again is of no use.

    Args:
        message: What was got, what is allowed, what to do; no text of the prompt itself.
        fault: What of the request is at fault.
    """

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message)
        self.fault: Fault = fault


class ParseError(SpecEyesError, ValueError):
    """A model's turn that doesn't follow its dialect; goes back to the model as text."""


class ToolError(SpecEyesError, RuntimeError):
    """A tool's own failure, told to the model as an observation."""


class CalibrationError(ConfigError):
    """A gate is used with another model, K or prompt than it was calibrated for."""


def fault_of(exc: BaseException) -> Fault | None:
    """Part of the request that an exception is about; None where it may go well another time.

    Example:
        >>> fault_of(ImageError("250 times as long as wide")), fault_of(ModelError("busy"))
        ('image', None)
    """
    if isinstance(exc, PromptError):
        return exc.fault
    return "image" if isinstance(exc, ImageError) else None


def describe(exc: BaseException) -> str:
    """One line that names an exception: its type, and its message where it has one."""
    try:
        message = " ".join(str(exc)[:_LONGEST].split())
    except (Exception, SystemExit):  # noqa: BLE001 - an exception's own __str__ can fail
        message = ""
    return f"{type(exc).__name__}: {message}" if message else type(exc).__name__
