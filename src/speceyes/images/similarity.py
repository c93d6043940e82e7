"""Images that show the same thing under another name, format, size or compression.

`content_key` is exact: the same pixels as a viewer sees them, however they are stored. `look` is
not: a perceptual hash (the signs of an image's lowest cosine coefficients, as in pHash) of the
image and of its mirror image, with its colours, which a saving as JPEG, another size or a crop of
few pixels hardly changes. Other light or contrast scale and shift all colours alike, and a grey
copy keeps their brightness, so that `alike` finds these too. It doesn't find copies that were
cropped by more than a few hundredths, framed, turned or drawn over.
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
MIRRORED_BITS: Final = 8
"""The same of an image and another's mirror image."""
SHADES: Final = 5
"""Most that its colours differ, of 255, on the mean over a grid of 4 by 4."""
_PLAIN: Final = 10.0
"""Colours that vary less over the grid, of 255, say nothing about light and contrast."""
_DIMMED: Final = 2.0
"""Most that contrast is raised, or lowered."""
_COLOURLESS: Final = 4
"""Most that red, green and blue differ in a grey image, of 255."""
_BRIGHTNESS: Final = (0.299, 0.587, 0.114)
"""Of red, green and blue (ITU-R BT.601), as Pillow turns colours into grey."""


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
    """64 bytes: 8 of a perceptual hash, 8 of the mirror image's, 48 of colours; compare with
    `alike`.
    """
    shown = upright_rgb(image, "the image")
    grey = np.asarray(
        shown.convert("L").resize((_SIDE, _SIDE), Pillow.Resampling.BOX), dtype=np.float64
    )
    cosines = _cosines()
    low = cosines @ grey @ cosines.T
    mirrored = low * np.where(np.arange(_LOW) % 2, -1.0, 1.0)  # odd waves turn their sign
    colours = np.asarray(shown.resize((_COLOURS, _COLOURS), Pillow.Resampling.BOX), dtype=np.uint8)
    return _hash(low) + _hash(mirrored) + colours.tobytes()


def _hash(low: npt.NDArray[np.float64]) -> bytes:
    waves = low.ravel()[1:]
    waves[np.abs(waves) < _FAINT * np.abs(waves).max()] = 0.0  # or noise would set their signs
    return np.packbits(np.concatenate([[False], waves > np.median(waves)])).tobytes()


def alike(looks: Sequence[bytes]) -> list[tuple[int, int]]:
    """Pairs of places whose images look the same, or as the same in a mirror.

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
    hashes = np.ascontiguousarray(rows[:, :16]).view(np.uint64)
    colours = rows[:, 16:].reshape(-1, _COLOURS, _COLOURS, 3).astype(np.float64)
    pairs = []
    for i in range(len(looks) - 1):
        apart = _differing(hashes[i + 1 :], hashes[i, 0])
        found = np.flatnonzero((apart[:, 0] <= BITS) | (apart[:, 1] <= MIRRORED_BITS))
        for at, j in zip(found.tolist(), (found + i + 1).tolist(), strict=True):
            if (apart[at, 0] <= BITS and _same_colours(colours[i], colours[j])) or (
                apart[at, 1] <= MIRRORED_BITS and _same_colours(colours[i], colours[j, :, ::-1])
            ):
                pairs.append((i, j))
    return pairs


def _same_colours(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> bool:
    """True where two grids of colours are the same but for light, contrast, or lack of colour."""
    if np.abs(one - other).mean() <= SHADES:
        return True
    if _same_but_for_light(one, other):
        return True
    grey = [bool(np.ptp(grid, axis=-1).max() <= _COLOURLESS) for grid in (one, other)]
    return grey[0] != grey[1] and _same_but_for_light(one @ _BRIGHTNESS, other @ _BRIGHTNESS)


def _same_but_for_light(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> bool:
    """True where one scale and one shift for all numbers lead from the one to the other."""
    spread = float(one.std()), float(other.std())
    if min(spread) < _PLAIN:
        return False
    a, b = one - one.mean(), other - other.mean()
    scale = float((a * b).mean()) / spread[0] ** 2
    if not 1 / _DIMMED <= scale <= _DIMMED:
        return False
    most = SHADES * min(1.0, 0.3 + spread[1] / 40)  # the fainter, the more alike all are
    return float(np.abs(scale * a - b).mean()) <= most


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


COUNTS: Final = hasattr(np, "bitwise_count")  # numpy 2


def _differing(hashes: npt.NDArray[np.uint64], one: np.uint64) -> npt.NDArray[np.int64]:
    """int64 of the hashes' shape [n, 2]: bits in which each differs from one."""
    apart = hashes ^ one
    found: npt.NDArray[np.int64]
    if COUNTS:
        found = np.bitwise_count(apart).astype(np.int64)
        return found
    bits = np.unpackbits(apart.view(np.uint8).reshape(*apart.shape, 8), axis=-1)
    found = bits.sum(axis=-1, dtype=np.int64)
    return found


@lru_cache(maxsize=1)
def _cosines() -> npt.NDArray[np.float64]:
    """The lowest rows of the type-II cosine transform, float64[8, 32]."""
    at = np.arange(_SIDE) + 0.5
    rows: npt.NDArray[np.float64] = np.cos(np.pi / _SIDE * np.arange(_LOW)[:, None] * at)
    return rows
