"""Number of rows that fit into a device's memory, learned from what earlier batches took."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

FIRST = 4
"""Rows of the first batch, of which the need of one is learned."""
_SAFE = 0.8
"""Share of the free memory that a batch may take, as need varies between batches."""


@final
class MemoryFit:
    """Grows batches as far as memory goes: at most twofold at a time, from `FIRST` rows.

    A row's need is taken to grow with its tokens (states, activations, features of its images),
    and the greatest need a token that any batch showed counts.

    Args:
        most: Most rows, however much memory there is.
        free: Bytes that are free now.

    Example:
        >>> fit = MemoryFit(256, lambda: 8_000_000_000)
        >>> fit.rows(1000)
        4
        >>> fit.took(4, 1000, 2_000_000_000)  # half a megabyte a token
        >>> fit.rows(1000), fit.rows(4000)
        (8, 3)
    """

    def __init__(self, most: int, free: Callable[[], int]) -> None:
        self._most, self._free = most, free
        self._a_token = 0.0
        self._largest = FIRST
        self._longest = 1

    def rows(self, tokens: int | None = None) -> int:
        """Number of rows of so many tokens to run together; of the longest seen, if None."""
        if not self._a_token:
            return min(FIRST, self._most)
        need = self._a_token * (self._longest if tokens is None else max(1, tokens))
        return max(1, min(self._most, 2 * self._largest, int(_SAFE * self._free() / need)))

    def took(self, rows: int, tokens: int, most_bytes: int) -> None:
        """Learns from a batch.

        Args:
            rows: How many it had.
            tokens: Of its longest row, the answer included.
            most_bytes: What it took above what was held before, at its peak.
        """
        if rows < 1 or tokens < 1:
            return
        self._a_token = max(self._a_token, most_bytes / (rows * tokens))
        self._largest = max(self._largest, rows)
        self._longest = max(self._longest, tokens)

    def shrink(self, most: int) -> None:
        """Memory ran out: no more rows than this from now on."""
        self._most = max(1, min(self._most, most))
