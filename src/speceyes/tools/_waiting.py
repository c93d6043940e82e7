"""Async tools run from plain code: each call has an event loop of its own, and can be cancelled.

A call may come from a thread whose own loop is running (a notebook, a server's handler). That
loop can't be entered again, so the call gets a thread then.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Awaitable
from typing import TypeVar

from speceyes.errors import ToolError

T = TypeVar("T")


class Stop:
    """A way to cancel what one call waits for, from another thread."""

    __slots__ = ("_lock", "_loop", "_stopped", "_task")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[object] | None = None
        self._stopped = False

    def watch(self) -> None:
        """Makes the running task the one that is cancelled."""
        with self._lock:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
            if self._stopped and self._task is not None:
                self._task.cancel()

    def stop(self) -> None:
        """Cancels it; does nothing where nothing is waited for."""
        with self._lock:
            self._stopped = True
            if self._loop is not None and self._task is not None:
                with contextlib.suppress(RuntimeError):  # its loop has ended by itself
                    self._loop.call_soon_threadsafe(self._task.cancel)


STOP: contextvars.ContextVar[Stop | None] = contextvars.ContextVar("stop", default=None)
"""What may cancel the call under way in this context."""


def finish(waited: Awaitable[T]) -> T:
    """The result of something that is awaited.

    Raises:
        ToolError: It was cancelled. What it raises itself passes.

    Example:
        >>> async def later() -> str:
        ...     return "there"
        >>> finish(later())
        'there'
    """
    stop = STOP.get()

    async def main() -> T:
        if stop is not None:
            stop.watch()
        return await waited

    def run() -> T:
        try:
            return asyncio.run(main())
        except asyncio.CancelledError:
            raise ToolError("the call was cancelled") from None

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run()
    returned: list[T] = []
    raised: list[BaseException] = []
    context = contextvars.copy_context()

    def work() -> None:
        try:
            returned.append(context.run(run))
        except BaseException as exc:  # noqa: BLE001 - raised again by the caller's thread
            raised.append(exc)

    thread = threading.Thread(target=work, name="async tool", daemon=True)
    thread.start()
    thread.join()
    if raised:
        raise raised.pop()
    return returned[0]
