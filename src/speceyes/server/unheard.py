"""Closes connections on which no request comes, so that nobody can take all of them for nothing."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any, final
from weakref import WeakKeyDictionary


@final
class Unheard:
    """Connections of a uvicorn server that wait for a request's head.

    uvicorn ends a connection that rests between two requests, and waits for ever for a first head,
    and for the rest of one that has begun.

    Args:
        connections: The server's, as they are at any moment.
        most_s: Seconds that a head may take, from the connection's start or the last answer.
    """

    def __init__(self, connections: Collection[Any], most_s: float) -> None:
        self._connections, self._most_s = connections, most_s
        self._since: WeakKeyDictionary[Any, tuple[Any, float]] = WeakKeyDictionary()

    def close_late(self) -> None:
        """Closes those whose time is over; to be called now and then in the server's loop."""
        now = time.monotonic()
        for one in list(self._connections):
            last = getattr(one, "cycle", None)
            if last is not None and not last.response_complete:  # a request is under way
                self._since.pop(one, None)
                continue
            before, since = self._since.setdefault(one, (last, now))
            if before is not last:
                self._since[one] = last, now
            elif now - since > self._most_s and one.transport is not None:
                one.transport.abort()
