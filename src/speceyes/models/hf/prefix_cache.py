"""Keys and values of conversations that were read before, found again by their beginning.

Conversations are append-only: an agent's next turn begins with all that it read and said
before, a fallback begins as the judge's prompt did, and all queries share the system text.
What a causal model computed for a beginning is therefore right for every continuation of it.
The look-up follows vLLM's block hashing (Kwon et al., 2023, arXiv 2309.06180): a chain of
hashes over blocks of tokens, in which an image's tokens stand for its content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from speceyes.bounded_cache import BoundedCache

BLOCK = 16
"""Tokens that are hashed together. Within a block, matches are found token by token."""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A conversation that was read.

    Args:
        key: int64[n], its tokens; those of images are replaced by a number of their content.
        states: Keys and values, a tensor [layers, 2, heads, n, width] on the model's device.
    """

    key: npt.NDArray[np.int64]
    states: Any

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        return int(self.key.nbytes + self.states.element_size() * self.states.numel())


def _chain(key: npt.NDArray[np.int64]) -> Iterator[bytes]:
    """One hash a whole block, each over everything up to its end."""
    digest = hashlib.blake2b(digest_size=16)
    for start in range(0, len(key) - BLOCK + 1, BLOCK):
        digest.update(key[start : start + BLOCK].tobytes())
        yield digest.digest()


@final
class PrefixCache:
    """Conversations that were read, at most `limit` bytes of them.

    Args:
        limit: Bytes; 0 keeps nothing.
    """

    def __init__(self, limit: int) -> None:
        self._blocks: dict[bytes, int] = {}
        self._kept: BoundedCache[int, CacheEntry] = BoundedCache(
            limit, lambda kept: kept.bytes, self._forget
        )
        self._next = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def limit(self) -> int:
        """Most bytes."""
        return self._kept.limit

    @property
    def used(self) -> int:
        """Bytes that are held now."""
        return self._kept.used

    def find(self, key: npt.NDArray[np.int64]) -> tuple[CacheEntry | None, int]:
        """The conversation with the longest beginning in common, and its length in tokens.

        Beginnings shorter than a block are not found.
        """
        found: int | None = None
        for block in _chain(key):
            at = self._blocks.get(block)
            if at is None:
                break
            found = at
        kept = None if found is None else self._kept.get(found)
        if kept is None:
            return None, 0
        n = min(len(kept.key), len(key))
        differ = np.flatnonzero(kept.key[:n] != key[:n])
        return kept, int(differ[0]) if len(differ) else n

    def add(self, kept: CacheEntry) -> None:
        """Keeps a conversation. One that it continues is dropped: this one serves for both."""
        if kept.bytes > self.limit:
            return
        before, common = self.find(kept.key)
        if before is not None and common == len(kept.key):
            return  # known already, perhaps with more behind it
        at = self._next
        self._next += 1
        covered = set()
        for block in _chain(kept.key):
            covered.add(self._blocks.get(block))
            self._blocks[block] = at
        self._kept.put(at, kept)
        if before is not None and common == len(before.key):
            for old in covered - {None}:
                assert old is not None
                if self._kept.get(old) is before:
                    self._kept.drop(old)

    def clear(self) -> None:
        """Forgets everything."""
        self._kept.clear()

    def _forget(self, at: int, kept: CacheEntry) -> None:
        for block in _chain(kept.key):
            if self._blocks.get(block) == at:
                del self._blocks[block]
