"""How families of agents write tool calls, one file each, found by name and imported late."""

from __future__ import annotations

from speceyes.errors import ConfigError
from speceyes.values import Dialect

NAMES = ("deepeyes",)


def dialect(name: str | Dialect) -> Dialect:
    """The dialect of that name; a dialect object is handed through.

    Raises:
        ConfigError: No such dialect; the message lists those there are.
    """
    if not isinstance(name, str):
        return name
    if name == "deepeyes":
        from speceyes.dialects.deepeyes import DeepEyesDialect

        return DeepEyesDialect()
    raise ConfigError(f"dialect={name!r} is not known; there are: {', '.join(NAMES)}")
