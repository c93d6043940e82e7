"""A cache that is bounded in bytes; the least recently used goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar, final

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@final
class BoundedCache(Generic[Key, Value]):
    """Values by key, at most `limit` bytes of them.

    Args:
        limit: Bytes; 0 keeps nothing.
        size: Bytes of a value.
        dropped: Told of each key and value that makes room for others.

    Example:
        >>> cache = BoundedCache[str, bytes](8, len)
        >>> cache.put("a", b"12345"); cache.put("b", b"12345")
        >>> cache.get("a"), cache.get("b"), cache.used
        (None, b'12345', 5)
    """

    def __init__(
        self,
        limit: int,
        size: Callable[[Value], int],
        dropped: Callable[[Key, Value], None] | None = None,
    ) -> None:
        self.limit = limit
        self.used = 0
        self._size = size
        self._dropped = dropped
        self._kept: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Key) -> bool:
        return key in self._kept

    def take(self, key: Key) -> Value | None:
        """The value, which is forgotten with it; None where it isn't kept."""
        with self._lock:
            value = self._kept.get(key)
            self.drop(key)
            return value

    def get(self, key: Key) -> Value | None:
        """The value, now the most recently used; None where it isn't kept."""
        with self._lock:
            value = self._kept.get(key)
            if value is not None:
                self._kept.move_to_end(key)
            return value

    def put(self, key: Key, value: Value) -> None:
        """Keeps the value, unless it alone is over the limit."""
        size = self._size(value)
        with self._lock:
            self.drop(key)
            if size > self.limit:
                return
            self._kept[key] = value
            self.used += size
            while self.used > self.limit:
                self.drop(next(iter(self._kept)))

    def drop(self, key: Key) -> None:
        """Forgets a key, if it is there."""
        with self._lock:
            value = self._kept.pop(key, None)
            if value is None:
                return
            self.used -= self._size(value)
            if self._dropped is not None:
                self._dropped(key, value)

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            for key in list(self._kept):
                self.drop(key)
