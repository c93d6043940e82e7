"""Bounds of the requests, and of their pixels, that a server holds at once."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from typing import final

from speceyes.server.limits import ServerLimits
from speceyes.server.refusal import Refusal


@final
class Slot:
    """A request's place; given back once, however often `release` is called."""

    def __init__(self, slots: Slots, client: str) -> None:
        self._slots, self.client, self.pixels = slots, client, 0
        self.held = True

    def reserve(self, pixels: int) -> None:
        """Counts its images.

        Raises:
            Refusal: 429, all clients' images together would be too many pixels.
        """
        self._slots.reserve(self, pixels)

    def release(self) -> None:
        """Gives it back."""
        self._slots.release(self)


@final
class Slots:
    """Hands out places, so many in all and so many a client. Threads may share it.

    A place is held until the models are done with the request, also where its client has left:
    connecting and leaving over and over gains nobody more than its share.

    Example:
        >>> slots = Slots(ServerLimits(capacity=1))
        >>> place = slots.acquire("alice")
        >>> place.release()
        >>> slots.held
        0
    """

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._by_client: Counter[str] = Counter()
        self._held = self._pixels = 0
        self._ended: deque[float] = deque(maxlen=64)

    @property
    def held(self) -> int:
        """Places that are taken."""
        return self._held

    def acquire(self, client: str, most: int | None = None) -> Slot:
        """A place.

        Args:
            client: The name of the client.
            most: Most places of this client; None for the limit of all.

        Raises:
            Refusal: 429 with Retry-After; the server is full, or this client has its share.
        """
        limits = self._limits
        most = limits.per_client if most is None else most
        with self._lock:
            if self._held >= limits.capacity:
                raise self._full("queue_full", f"all {limits.capacity} places are taken")
            if self._by_client[client] >= most:
                raise self._full(
                    "too_many_of_yours",
                    f"{most} requests of yours are under way, the most for a client",
                )
            self._held += 1
            self._by_client[client] += 1
        return Slot(self, client)

    def reserve(self, slot: Slot, pixels: int) -> None:
        """See `Slot.reserve`."""
        with self._lock:
            if self._pixels + pixels > self._limits.pixels and self._pixels:
                raise self._full("too_many_pixels", "the images under way fill the memory for them")
            self._pixels += pixels
            slot.pixels += pixels

    def release(self, slot: Slot) -> None:
        """See `Slot.release`."""
        with self._lock:
            if not slot.held:
                return
            slot.held = False
            self._held -= 1
            self._pixels -= slot.pixels
            self._by_client[slot.client] -= 1
            if not self._by_client[slot.client]:
                del self._by_client[slot.client]  # clients come and go, and must not pile up
            self._ended.append(time.monotonic())

    def _full(self, code: str, why: str) -> Refusal:
        wait = self._wait()
        return Refusal(
            429,
            f"{why}; try again in {wait} s",
            code=code,
            headers={"Retry-After": str(wait)},
        )

    def _wait(self) -> int:
        """Seconds, 1 to 60, in which half of what is held will be done at the latest pace."""
        if len(self._ended) < 2:
            return 1
        span = max(time.monotonic() - self._ended[0], 1e-3)
        return min(60, max(1, math.ceil(self._held / 2 * span / len(self._ended))))
