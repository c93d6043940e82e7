"""Warnings about a model that would come again with every part that it is given to."""

from __future__ import annotations

import logging
import weakref
from typing import Final

_SAID: Final[weakref.WeakKeyDictionary[object, set[str]]] = weakref.WeakKeyDictionary()


def warn_once(log: logging.Logger, model: object, message: str) -> None:
    """A warning, unless it was given about this very model before.

    Args:
        log: Where it goes.
        model: The object that it is about; one that can't be remembered is warned about each time.
        message: The whole of it.
    """
    try:
        said = _SAID.setdefault(model, set())
    except TypeError:  # neither hashed nor referred to weakly, as a name is
        said = set()
    if message not in said:
        said.add(message)
        log.warning("%s", message)
