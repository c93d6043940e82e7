"""Bounds of the requests, and of their pixels, that a server holds at once."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import final

from speceyes.server.limits import ServerLimits
from speceyes.server.refusal import Refusal

_SOME, _MUCH = 32 << 20, 512 << 20  # bytes; the first where nothing is under way


@final
class Slot:
    """A request's place; given back once, however often `release` is called."""

    def __init__(self, slots: Slots, client: str) -> None:
        self._slots, self.client = slots, client
        self.pixels = self.bytes = 0
        self.holders = 1

    def reserve(self, pixels: int) -> None:
        """Counts its images.

        Raises:
            Refusal: 429, all clients' images together would be too many pixels.
        """
        self._slots.reserve(self, pixels=pixels)

    def reserve_bytes(self, size: int) -> None:
        """Counts its body.

        Raises:
            Refusal: 429, all clients' bodies together would be too large.
        """
        self._slots.reserve(self, size=size)

    def free_bytes(self) -> None:
        """Its body is gone."""
        self._slots.free(self, pixels=False)

    def keep(self) -> None:
        """One more has to give it back."""
        self._slots.keep(self)

    def release(self) -> None:
        """Gives it back, with all that it counts, once each that keeps it has."""
        self._slots.release(self)


@final
class _Budget:
    """A number that all clients share.

    One client has half of it at most, unless it asks for the first time; what is left when three
    quarters are gone is for those who want little. What is too much for all of it is had alone.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self._by_client: Counter[str] = Counter()

    def take(self, client: str, number: int) -> bool:
        """Takes so much of it; False where there isn't so much."""
        little = number <= self.most // 64
        room = self.most if little else self.most * 3 // 4
        own = self._by_client[client]
        if self.held and self.held + number > room:
            return False
        if own and not little and own + number > self.most // 2:
            return False
        self.held += number
        self._by_client[client] += number
        return True

    def give(self, client: str, number: int) -> None:
        """Gives so much of it back."""
        self.held -= number
        self._by_client[client] -= number
        if self._by_client[client] <= 0:
            del self._by_client[client]


@final
class Slots:
    """Hands out places, so many in all and so many a client. Threads may share it.

    A place is held until the models are done with the request, also where its client has left, and
    until its answer is written: connecting and leaving over and over gains nobody more than its
    share, and neither does asking and not reading.

    Args:
        limits: Numbers of places, pixels and bytes.
        emptied: Called after much was given back, in any thread.

    Example:
        >>> slots = Slots(ServerLimits(capacity=1))
        >>> place = slots.acquire("alice")
        >>> place.release()
        >>> slots.held
        0
    """

    def __init__(self, limits: ServerLimits, *, emptied: Callable[[], None] = lambda: None) -> None:
        self._limits = limits
        self._emptied = emptied
        self._lock = threading.Lock()
        self._by_client: Counter[str] = Counter()
        self._held = 0
        self._pixels, self._bytes = _Budget(limits.pixels), _Budget(limits.bytes)
        self._freed = 0
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

    def reserve(self, slot: Slot, *, pixels: int = 0, size: int = 0) -> None:
        """See `Slot.reserve` and `Slot.reserve_bytes`."""
        with self._lock:
            if slot.holders <= 0:  # its request has ended meanwhile
                raise Refusal(504, "the request has ended", code="deadline_exceeded")
            if pixels and not self._pixels.take(slot.client, pixels):
                raise self._full("too_many_pixels", "the images under way fill the memory for them")
            slot.pixels += pixels
            if size and not self._bytes.take(slot.client, size):
                raise self._full(
                    "too_many_bytes", "the requests under way fill the memory for them"
                )
            slot.bytes += size

    def free(self, slot: Slot, *, pixels: bool = True) -> None:
        """Gives back what a place counts: its body, and its images too."""
        with self._lock:
            due = self._free(slot, pixels=pixels)
        if due:
            self._emptied()

    def keep(self, slot: Slot) -> None:
        """See `Slot.keep`."""
        with self._lock:
            slot.holders += 1

    def release(self, slot: Slot) -> None:
        """See `Slot.release`."""
        with self._lock:
            slot.holders -= 1
            if slot.holders != 0:
                return
            self._held -= 1
            due = self._free(slot)
            self._by_client[slot.client] -= 1
            if not self._by_client[slot.client]:
                del self._by_client[slot.client]  # clients come and go, and must not pile up
            self._ended.append(time.monotonic())
        if due:
            self._emptied()

    def _free(self, slot: Slot, *, pixels: bool = True) -> bool:
        """True where so much was given back that the system should have it."""
        if pixels:
            self._pixels.give(slot.client, slot.pixels)
            self._freed += 3 * slot.pixels
            slot.pixels = 0
        self._bytes.give(slot.client, slot.bytes)
        self._freed += slot.bytes
        slot.bytes = 0
        much = _MUCH if self._held else _SOME
        if self._freed < much:
            return False
        self._freed = 0
        return True

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
