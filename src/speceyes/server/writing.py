"""Answers are written in pieces, each of which a client must take within a time.

Without that, a client that asks and never reads holds its answer for ever, and with it the end of
the server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, final

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]

_PIECE: Final = 1 << 16
_LOOK_S: Final = 0.05


class _TooSlow(Exception):
    """A client doesn't take what it asked for."""


@final
class BoundedWriting:
    """ASGI middleware, the outermost: cuts a connection off that doesn't take the next piece.

    Under uvicorn the connection is reset at once; another server is left to close it.

    Args:
        app: The application.
        seconds: For each 64 KiB, and for what is left at the end.
    """

    def __init__(self, app: _App, seconds: float) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        connection = getattr(getattr(send, "__self__", None), "transport", None)
        late = False

        async def bounded(message: MutableMapping[str, Any]) -> None:
            nonlocal late
            body = message.get("body", b"")
            last = not message.get("more_body", False)
            pieces = [body[at : at + _PIECE] for at in range(0, len(body), _PIECE)] or [b""]
            try:
                for at, piece in enumerate(pieces, 1):
                    said = dict(message)
                    if message["type"] == "http.response.body":
                        said |= {"body": piece, "more_body": at < len(pieces) or not last}
                    async with asyncio.timeout(self._seconds):
                        await send(said)
                if last and message["type"] == "http.response.body":
                    await self._taken(connection)
            except TimeoutError:
                late = True
                if connection is not None:
                    connection.abort()
                raise _TooSlow from None

        try:
            await self._app(scope, receive, bounded)
        except Exception:
            if not late:
                raise

    async def _taken(self, connection: Any) -> None:
        """Until the client has taken all of it.

        Raises:
            TimeoutError: It hasn't in time.
        """
        end = time.monotonic() + self._seconds
        while connection is not None and connection.get_write_buffer_size():
            if time.monotonic() >= end:
                raise TimeoutError
            await asyncio.sleep(_LOOK_S)
