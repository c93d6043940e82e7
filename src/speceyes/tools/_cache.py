"""Cache of what stateless tools have given back, found again by what they were asked.

The key is the tool's name, its arguments, and the fingerprints of the images that it reads. What
is kept is bounded in bytes; what was asked for longest ago goes first.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from PIL import Image as PILImage

from speceyes.bounded_cache import BoundedCache
from speceyes.images.pixel_cache import pixel_key
from speceyes.protocols import ReadsImages, Stateless, TellsKept, Tool, offers
from speceyes.types import Image, Observation

_OVERHEAD: Final = 1_000
"""Bytes that an entry takes besides its content, roughly: key, objects, places in tables."""

Key = tuple[str, str, tuple[bytes, ...]]


def key_of(tool: Tool, images: Sequence[Image], arguments: Mapping[str, Any]) -> Key | None:
    """Key of all that a call's result depends on; None where the tool isn't stateless or it can't
    be told.

    Args:
        tool: Says by `stateless = True` that the same call gives the same result, and by `reads`
            which images that depends on: "none", "image" (the one that `img_idx` names, by
            default the first) or "images" (all, which is so where it says nothing). `kept = False`
            says that a call costs less than the key of its images.
        images: Every image so far.
        arguments: As checked.
    """
    if not offers(tool, Stateless) or tool.stateless is not True:
        return None
    if offers(tool, TellsKept) and tool.kept is False:
        return None
    reads = tool.reads if offers(tool, ReadsImages) else "images"
    read: Sequence[Image] = images
    if reads == "none":
        read = ()
    elif reads == "image":
        index = arguments.get("img_idx", 0)
        if not isinstance(index, int) or not 0 <= index < len(images):
            return None  # an error, which the tool words
        read = (images[index],)
    try:
        written = json.dumps(arguments, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return None  # arguments that a user's own parser made, and that are no JSON
    return tool.name, written, tuple(map(pixel_key, read))


class ObservationCache:
    """Observations by key, at most so many bytes of them; for any number of threads.

    Images are copied in and out, so that whoever draws on a result draws on his own.

    Args:
        most: Bytes; what is larger on its own isn't kept.
    """

    def __init__(self, most: int) -> None:
        self._kept = BoundedCache[Key, Observation](most, _size)

    def get(self, key: Key) -> Observation | None:
        """Value under the key, if it is still there."""
        kept = self._kept.get(key)
        return None if kept is None else _copied(kept)

    def put(self, key: Key, seen: Observation) -> None:
        """Keeps it, unless it is an error or too large."""
        if seen.error is None and _size(seen) <= self._kept.limit:
            self._kept.put(key, _copied(seen))

    @property
    def bytes(self) -> int:
        """Bytes that are held now."""
        return self._kept.used


def _copied(seen: Observation) -> Observation:
    content = tuple(
        part.copy() if isinstance(part, PILImage.Image) else part for part in seen.content
    )
    return dataclasses.replace(seen, content=content)


def _size(seen: Observation) -> int:
    size = _OVERHEAD
    for part in seen.content:
        if isinstance(part, PILImage.Image):
            # Pillow holds RGB in four bytes a pixel, and other modes in no more.
            size += 4 * part.width * part.height
        elif isinstance(part, str):
            size += 4 * len(part)
    return size
