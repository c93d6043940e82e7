"""A queue that takes from each client in turn."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import Generic, TypeVar, final

Item = TypeVar("Item")


@final
class FairQueue(Generic[Item]):
    """First in, first out for a client; one from each client by turns. Threads may share it.

    What is put in the background comes when nothing else is there, or when it has piled up.

    Args:
        piled: How much in the background is a pile.

    Example:
        >>> queue = FairQueue()
        >>> for item in ("a1", "a2", "b1"):
        ...     assert queue.put(item[0], item)
        >>> queue.take(3, wait=False)
        ['a1', 'b1', 'a2']
    """

    def __init__(self, piled: int = 16) -> None:
        self._lines: OrderedDict[str, deque[Item]] = OrderedDict()
        self._background: deque[Item] = deque()
        self._piled = piled
        self._ready = threading.Condition()
        self._closed = False
        self._length = 0

    def __len__(self) -> int:
        """How many wait, those in the background left out."""
        return self._length

    @property
    def background(self) -> int:
        """How many wait in the background."""
        return len(self._background)

    def put(self, client: str, item: Item) -> bool:
        """Lets it wait; False where the queue is closed, and then it isn't in it."""
        with self._ready:
            if self._closed:
                return False
            self._lines.setdefault(client, deque()).append(item)
            self._length += 1
            self._ready.notify()
            return True

    def put_aside(self, item: Item) -> None:
        """Lets it wait in the background."""
        with self._ready:
            self._background.append(item)
            self._ready.notify()

    def remove(self, client: str, item: Item) -> bool:
        """Takes it out; False where it isn't waiting any more."""
        with self._ready:
            line = self._lines.get(client)
            if line is None or item not in line:
                return False
            line.remove(item)
            self._length -= 1
            if not line:
                del self._lines[client]
            return True

    def take(self, most: int, *, wait: bool) -> list[Item]:
        """What is there, up to `most`.

        Args:
            most: How many.
            wait: Whether to wait for the first. Then nothing comes back only after `close`.
        """
        with self._ready:
            while wait and not (self._length or self._background or self._closed):
                self._ready.wait()
            taken: list[Item] = []
            while len(taken) < most and (self._length or self._background):
                if self._background and (not self._length or len(self._background) > self._piled):
                    taken.append(self._background.popleft())
                    continue
                client, line = next(iter(self._lines.items()))
                taken.append(line.popleft())
                self._length -= 1
                if line:
                    self._lines.move_to_end(client)
                else:
                    del self._lines[client]
            return taken

    def close(self) -> None:
        """Takes nothing more, and wakes those who wait; what is in it can still be taken."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()
