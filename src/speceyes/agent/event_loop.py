"""An event loop in a thread of its own, for agents that are awaited."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Awaitable
from concurrent.futures import Future
from typing import Any, final


@final
class EventLoop:
    """Starts when it is first used, and ends with this object, which cancels what is under way.

    Example:
        >>> async def later() -> str:
        ...     return "there"
        >>> loop = EventLoop()
        >>> loop.submit(later()).result()
        'there'
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, awaited: Awaitable[Any]) -> Future[Any]:
        """Lets it run; cancelling the future cancels it."""
        # A coroutine goes in bare: behind another, one that is cancelled at once never begins.
        mine = awaited if asyncio.iscoroutine(awaited) else _awaiting(awaited)
        return asyncio.run_coroutine_threadsafe(mine, self._running())

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                threading.Thread(
                    target=_serve, args=(loop,), name="speceyes-agent-loop", daemon=True
                ).start()
                weakref.finalize(self, loop.call_soon_threadsafe, loop.stop)
                self._loop = loop
            return self._loop


async def _awaiting(awaited: Awaitable[Any]) -> Any:
    return await awaited


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        # What was cancelled just now still has to be told.
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    finally:
        loop.close()
