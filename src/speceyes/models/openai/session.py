"""Session over an engine: conversations are added and dropped one by one, each a request."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Final, final

from speceyes.types import Completion, Conversation

STEP_S: Final = 0.05
"""Seconds that a step waits at most, so that the caller can drop a row meanwhile."""


@final
class EngineSession:
    """Implementation of `speceyes.protocols.Session`: a request is sent when its row is added, and
    none waits for another, as the engine makes the batches.

    Args:
        submit: Starts a request; its future never fails but by being cancelled.
        cancel: Ends requests, all at once.
    """

    def __init__(
        self,
        submit: Callable[[Conversation], Future[Completion]],
        cancel: Callable[[Sequence[Future[Completion]]], None],
    ) -> None:
        self._submit, self._cancel = submit, cancel
        self._rows: dict[int, Future[Completion]] = {}
        self._finished: queue.SimpleQueue[tuple[int, Future[Completion]]] = queue.SimpleQueue()

    def __len__(self) -> int:
        """Number of rows that were added and have not come back yet."""
        return len(self._rows)

    def add(self, key: int, conversation: Conversation) -> None:
        """Sends a conversation as soon as there is room."""
        finished = self._finished
        request = self._rows[key] = self._submit(conversation)
        request.add_done_callback(lambda future: finished.put((key, future)))

    def step(self) -> list[tuple[int, Completion]]:
        """Waits a moment for some to finish.

        Returns:
            (key, completion) of those that are finished now; perhaps none.
        """
        done: list[tuple[int, Completion]] = []
        timeout = STEP_S if self._rows else 0.0
        try:
            while True:
                key, request = self._finished.get(timeout=timeout)
                # One that was dropped, and perhaps added anew, may still come in.
                if self._rows.get(key) is request:
                    del self._rows[key]
                    done.append((key, result_of(request)))
                    timeout = 0.0
        except queue.Empty:
            return done

    def drop(self, key: int) -> None:
        """Gives one up, which closes its connection; the engine stops working on it if it watches
        that, as vLLM does. An unknown key is ignored.
        """
        request = self._rows.pop(key, None)
        if request is not None:
            self._cancel([request])

    def close(self) -> None:
        """Gives all of them up."""
        requests = list(self._rows.values())
        self._rows.clear()
        if requests:
            self._cancel(requests)


def result_of(request: Future[Completion]) -> Completion:
    """The completion of a request, waited for; a failed one where the client was closed."""
    try:
        return request.result()
    except CancelledError:
        return Completion.failed("the request was cancelled: the model was closed")
