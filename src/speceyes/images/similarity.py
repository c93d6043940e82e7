"""Images that show the same thing under another name, format, size or compression.

`content_key` is exact: the same pixels as a viewer sees them, however they are stored. `look` is
not: a perceptual hash (the signs of an image's lowest cosine coefficients, as in pHash) with its
colours, which a saving as JPEG, another size or a crop of few pixels hardly changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from speceyes.images.rgb import upright_rgb
from speceyes.types import Image

_SIDE: Final = 32
_LOW: Final = 8
_COLOURS: Final = 4
_FAINT: Final = 0.01
BITS: Final = 10
"""Most bits, of 63, in which hashes of the same image differ."""
SHADES: Final = 5
"""Most that its colours differ, of 255, on the mean over a grid of 4 by 4."""


def content_key(image: Image) -> str:
    """SHA-256 (hex) over size and RGB pixels: the same for one image saved as PNG, BMP or TIFF,
    with a palette or without.

    Example:
        >>> from PIL import Image
        >>> red = Image.new("RGB", (4, 4), "red")
        >>> content_key(red) == content_key(red.convert("P", palette=Image.Palette.ADAPTIVE))
        True
    """
    shown = upright_rgb(image, "the image")
    head = f"{shown.width}x{shown.height}:".encode()
    return hashlib.sha256(head + shown.tobytes()).hexdigest()


def look(image: Image) -> bytes:
    """56 bytes, 8 of a perceptual hash and 48 of colours; compare with `alike`."""
    shown = upright_rgb(image, "the image")
    grey = np.asarray(
        shown.convert("L").resize((_SIDE, _SIDE), Pillow.Resampling.BOX), dtype=np.float64
    )
    cosines = _cosines()
    low = (cosines @ grey @ cosines.T).ravel()[1:]
    low[np.abs(low) < _FAINT * np.abs(low).max()] = 0.0  # or noise would set their signs
    bits = np.packbits(np.concatenate([[False], low > np.median(low)]))
    colours = np.asarray(shown.resize((_COLOURS, _COLOURS), Pillow.Resampling.BOX), dtype=np.uint8)
    return bits.tobytes() + colours.tobytes()


def alike(looks: Sequence[bytes]) -> list[tuple[int, int]]:
    """Pairs of places whose images look the same.

    Args:
        looks: As `look` gives them.

    Example:
        >>> from PIL import Image
        >>> up, across = Image.linear_gradient("L"), Image.linear_gradient("L").rotate(90)
        >>> alike([look(up), look(across), look(up.resize((99, 99)))])
        [(0, 2)]
    """
    if len(looks) < 2:
        return []
    rows = np.frombuffer(b"".join(looks), dtype=np.uint8).reshape(len(looks), -1)
    hashes = np.ascontiguousarray(rows[:, :8]).view(np.uint64).ravel()
    colours = rows[:, 8:].astype(np.int16)
    pairs = []
    for i in range(len(looks) - 1):
        apart = np.bitwise_count(hashes[i + 1 :] ^ hashes[i]) if _COUNTS else _ones(hashes, i)
        for j in (np.flatnonzero(apart <= BITS) + i + 1).tolist():
            if np.abs(colours[i] - colours[j]).mean() <= SHADES:
                pairs.append((i, j))
    return pairs


def clusters(
    keys: Sequence[Hashable | Iterable[Hashable]], pairs: Iterable[tuple[int, int]] = ()
) -> list[int]:
    """Number of the cluster that each row belongs to: rows that share a key are in one, and so
    are those that others connect.

    Args:
        keys: Each row's key, or a list, tuple or set of them.
        pairs: Rows that belong together besides.

    Example:
        >>> clusters(["a", ("b", "c"), ["c"], "d", ("a", "d")])
        [0, 1, 1, 0, 0]
    """
    parent = list(range(len(keys)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    def join(a: int, b: int) -> None:
        first, second = sorted((root(a), root(b)))
        parent[second] = first

    seen: dict[Hashable, int] = {}
    for at, given in enumerate(keys):
        for key in given if isinstance(given, list | tuple | set | frozenset) else (given,):
            join(seen.setdefault(key, at), at)
    for a, b in pairs:
        join(a, b)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(at), len(numbers)) for at in range(len(keys))]


_COUNTS: Final = hasattr(np, "bitwise_count")  # numpy 2


def _ones(hashes: npt.NDArray[np.uint64], i: int) -> npt.NDArray[np.int64]:
    apart = (hashes[i + 1 :] ^ hashes[i]).view(np.uint8).reshape(-1, 8)
    found: npt.NDArray[np.int64] = np.unpackbits(apart, axis=1).sum(axis=1)
    return found


@lru_cache(maxsize=1)
def _cosines() -> npt.NDArray[np.float64]:
    """The lowest rows of the type-II cosine transform, float64[8, 32]."""
    at = np.arange(_SIDE) + 0.5
    rows: npt.NDArray[np.float64] = np.cos(np.pi / _SIDE * np.arange(_LOW)[:, None] * at)
    return rows
