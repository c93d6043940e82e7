"""Conversations that an engine continues side by side, each on its own."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias, final

from speceyes.models._engine_http import Cancel
from speceyes.types import Completion, Conversation

Complete: TypeAlias = Callable[[Conversation, Cancel], Completion]

_MOMENT = 0.05
"""Seconds that a step waits at most, so that the caller can drop a row meanwhile."""


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """A request that is under way, or waits for a thread."""

    key: int
    cancel: Cancel
    future: Future[None]


@final
class EngineSession:
    """See `speceyes.protocols.Session`: a request is sent when its row is added, and none waits for
    another, as the engine makes the batches.

    Args:
        complete: Sends one; never raises, and can be cancelled from another thread.
        threads: Most requests at a time.
    """

    def __init__(self, complete: Complete, threads: int) -> None:
        self._complete, self._threads = complete, threads
        self._pool: ThreadPoolExecutor | None = None
        self._rows: dict[int, _Row] = {}
        self._over: queue.SimpleQueue[tuple[int, Cancel, Completion]] = queue.SimpleQueue()

    def __len__(self) -> int:
        """How many have been added and have not come back yet."""
        return len(self._rows)

    def add(self, key: int, conversation: Conversation) -> None:
        """Sends a conversation as soon as a thread is free."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="speceyes-engine")
        cancel = Cancel()
        future = self._pool.submit(self._run, key, conversation, cancel)
        self._rows[key] = _Row(key, cancel, future)

    def step(self) -> list[tuple[int, Completion]]:
        """Waits a moment for some to finish.

        Returns:
            (key, completion) of those that are finished now; perhaps none.
        """
        done: list[tuple[int, Completion]] = []
        try:
            over = self._over.get(timeout=_MOMENT) if self._rows else None
            while over is not None:
                key, cancel, completion = over
                row = self._rows.get(key)
                # What was dropped, and perhaps added anew, may still come in.
                if row is not None and row.cancel is cancel:
                    del self._rows[key]
                    done.append((key, completion))
                over = self._over.get_nowait()
        except queue.Empty:
            pass
        return done

    def drop(self, key: int) -> None:
        """Gives one up, which closes its connection; the engine stops working on it if it watches
        that, as vLLM does. An unknown key is ignored.
        """
        row = self._rows.pop(key, None)
        if row is not None and not row.future.cancel():
            row.cancel.now()

    def close(self) -> None:
        """Gives all of them up."""
        # What waits first, or it would take the place of one that is cut off.
        under_way = [row for row in self._rows.values() if not row.future.cancel()]
        self._rows.clear()
        for row in under_way:
            row.cancel.now()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _run(self, key: int, conversation: Conversation, cancel: Cancel) -> None:
        self._over.put((key, cancel, self._complete(conversation, cancel)))
