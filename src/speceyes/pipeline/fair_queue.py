"""A queue that takes from each client in turn."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar, final

Item = TypeVar("Item")


@final
class FairQueue(Generic[Item]):
    """First in, first out for a client; one from each client by turns. Not locked.

    What is put in the background is taken when nothing else is there, or when it has piled up.

    Args:
        piled: How much in the background is a pile.

    Example:
        >>> queue = FairQueue()
        >>> for item in ("a1", "a2", "b1"):
        ...     queue.put(item[0], item)
        >>> queue.take(3)
        ['a1', 'b1', 'a2']
    """

    def __init__(self, piled: int = 16) -> None:
        self._lines: OrderedDict[str, deque[Item]] = OrderedDict()
        self._background: deque[Item] = deque()
        self._piled = piled
        self._length = 0

    def __len__(self) -> int:
        """Number of items that wait, those in the background left out."""
        return self._length

    @property
    def background(self) -> int:
        """Number of items that wait in the background."""
        return len(self._background)

    def put(self, client: str, item: Item) -> None:
        """Appends to a client's line."""
        self._lines.setdefault(client, deque()).append(item)
        self._length += 1

    def put_in_background(self, item: Item) -> None:
        """Appends to the background."""
        self._background.append(item)

    def remove(self, client: str, item: Item) -> bool:
        """Takes an item out; False where it isn't waiting any more."""
        line = self._lines.get(client)
        if line is None or item not in line:
            return False
        line.remove(item)
        self._length -= 1
        if not line:
            del self._lines[client]
        return True

    def take(self, most: int) -> list[Item]:
        """Up to `most` of what waits."""
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

    def take_background(self) -> list[Item]:
        """Everything in the background."""
        taken = list(self._background)
        self._background.clear()
        return taken
