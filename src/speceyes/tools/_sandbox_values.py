"""Values that an executor is given and gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from speceyes.errors import ConfigError

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a program. Bytes where nothing else is said.

    Args:
        time_s: Seconds of wall-clock and, rounded up, of processor time.
        memory: Address space of the process.
        disk_bytes: All files that it writes. Not held where there is no root of its own.
        file_bytes: One file that it writes.
        output_bytes: Standard output and error, each; a program that prints more is ended.
        image_bytes: All images that come back, encoded.
        images: Most images that come back.

    Raises:
        ConfigError: One isn't positive.
    """

    time_s: float = 10.0
    memory: int = 2048 * _MIB
    disk_bytes: int = 64 * _MIB
    file_bytes: int = 32 * _MIB
    output_bytes: int = 256 * 1024
    image_bytes: int = 32 * _MIB
    images: int = 8

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"{name}={value!r}; it must be a positive number")
        if not self.time_s < 86_400:
            raise ConfigError(f"time_s={self.time_s}; it must be less than a day")


@dataclass(frozen=True, slots=True)
class Program:
    """Program that an `Executor` runs.

    Args:
        code: Python.
        before: Programs to be run first, in order, in the same process; what they print and
            show is dropped, and so are their errors.
        files: Name to content of files put into the working directory, read-only.
        variables: (name, file) of variables that hold these files, as PIL images.
        limits: What it may use.
        clamp: Boxes of crops that leave an image are moved into it.
    """

    code: str
    before: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    variables: tuple[tuple[str, str], ...] = ()
    limits: Limits = Limits()
    clamp: bool = False


@dataclass(frozen=True, slots=True)
class Produced:
    """An image that a program made, encoded and not to be trusted.

    Args:
        path: Where it saved it, relative to the working directory; empty where it showed it.
        new: Made by this program, and not by one before it.
        data: The encoded image; None where it was too large to come back.
    """

    path: str
    new: bool
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a program. All of it is the program's word, not to be trusted.

    Args:
        stdout: What it printed.
        stderr: What it wrote to standard error.
        error: Why it failed; None where it didn't.
        images: What it made, shown ones first.
        ended: It didn't come to its own end: it crashed or was killed.
    """

    stdout: str
    stderr: str = ""
    error: str | None = None
    images: tuple[Produced, ...] = ()
    ended: bool = False


class Executor(Protocol):
    """Where programs run. Equal ones are taken to be the same place."""

    @property
    def name(self) -> str:
        """Names it in errors."""
        ...

    def __hash__(self) -> int:
        """Hash by which a trial is remembered."""
        ...

    def __call__(self, program: Program) -> Outcome:
        """Runs a program in a state of its own, of which nothing is left afterwards.

        Raises:
            ToolError: It could not be run. Whatever the program does is in the outcome.
        """
        ...
