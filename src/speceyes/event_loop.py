"""Event loop in a background thread, for synchronous code that awaits coroutines."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, final

_running: Final[dict[threading.Thread, tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = {}
_EXIT_S: Final = 2.0
"""Seconds that the interpreter waits for a loop as it exits."""


@final
class EventLoop:
    """Starts when it is first used, and ends with this object, which cancels what is under way.

    Args:
        name: Name of its thread.

    Example:
        >>> async def later() -> str:
        ...     return "there"
        >>> loop = EventLoop()
        >>> loop.submit(later()).result()
        'there'
    """

    def __init__(self, name: str = "speceyes-loop") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0

    def submit(self, awaited: Awaitable[Any]) -> Future[Any]:
        """Lets it run; cancelling the future cancels it."""
        # A coroutine goes in bare: behind another, one that is cancelled at once never begins.
        mine = awaited if asyncio.iscoroutine(awaited) else _awaiting(awaited)
        return asyncio.run_coroutine_threadsafe(mine, self._running())

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Runs a callback in the loop's thread; returns at once."""
        self._running().call_soon_threadsafe(callback)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            # Threads don't survive a fork: a child process starts a loop of its own.
            if self._loop is None or self._process != os.getpid():
                loop, ended = asyncio.new_event_loop(), asyncio.Event()
                thread = threading.Thread(
                    target=_serve, args=(loop, ended), name=self._name, daemon=True
                )
                _running[thread] = (loop, ended)
                thread.start()
                weakref.finalize(self, _stop, loop, ended).atexit = False
                self._loop, self._process = loop, os.getpid()
            return self._loop


async def _awaiting(awaited: Awaitable[Any]) -> Any:
    return await awaited


def _serve(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    asyncio.set_event_loop(loop)
    try:
        # Not run_forever and stop: a second stop, as at exit, would break off what follows.
        loop.run_until_complete(ended.wait())
        # What was cancelled just now still has to be told.
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(asyncio.sleep(0))  # in which transports close their sockets
    finally:
        _running.pop(threading.current_thread(), None)
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    with suppress(RuntimeError):  # closed meanwhile
        loop.call_soon_threadsafe(ended.set)


@atexit.register
def _stop_all() -> None:
    """Lets every loop close its connections before the interpreter takes their threads away."""
    left = dict(_running)
    for loop, ended in left.values():
        _stop(loop, ended)
    for thread in left:
        thread.join(_EXIT_S)
