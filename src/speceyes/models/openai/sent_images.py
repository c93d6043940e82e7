"""Images that an engine has been sent: named by what they show, so that they needn't go again.

vLLM takes a `uuid` beside an image, keeps the image under it, and takes the name alone from then on
(docs.vllm.ai, "Multimodal Inputs", "Stable UUIDs for Caching"). What it has given up since, or a
replica that never had it, answers with an error, and the request goes once more with the image.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Any, Final, final

from speceyes.bounded_cache import BoundedCache
from speceyes.images.pixel_cache import pixel_key
from speceyes.models._rgb import checked
from speceyes.models.openai.image_urls import ImageUrls
from speceyes.types import Image

_KEPT: Final = 4096
"""Names that are remembered."""
_MISSES: Final = 3
"""Requests in a row that had to go again before images always go along."""


@final
class SentImages:
    """Makes an image's part of a message. Threads may share it.

    Args:
        urls: Makes data URLs.
        named: The engine takes names.
    """

    def __init__(self, urls: ImageUrls, *, named: bool) -> None:
        self._urls, self._named = urls, named
        self._names = BoundedCache[bytes, str](_KEPT, lambda _: 1)
        self._there = BoundedCache[str, bool](_KEPT, lambda _: 1)
        self._misses = 0
        self._lock = threading.Lock()
        self.spared = 0
        """Images that went by name alone so far."""

    def part(self, image: Image, shown: dict[str, bool], *, whole: bool) -> dict[str, Any]:
        """The part of a message that shows an image.

        Args:
            image: The image.
            shown: Its name is added, if the engine takes names; True where that goes alone.
            whole: The image goes along, also where the engine should have it.

        Raises:
            InputError: Not a PIL image.
        """
        if not self._named:
            return {"type": "image_url", "image_url": {"url": self._urls(image)}}
        name = self.name(image)
        shown[name] = not whole and self._misses < _MISSES and bool(self._there.get(name))
        if shown[name]:
            with self._lock:
                self.spared += 1
            return {"type": "image_url", "image_url": None, "uuid": name}
        return {"type": "image_url", "image_url": {"url": self._urls(image)}, "uuid": name}

    def arrived(self, shown: dict[str, bool]) -> None:
        """The engine has answered about these."""
        for name in shown:
            self._there.put(name, True)
        if any(shown.values()):
            self._misses = 0

    def missed(self, shown: dict[str, bool]) -> bool:
        """The engine has refused a request that showed these.

        Returns:
            Whether one of them went by name alone, so that it is worth another try.
        """
        alone = [name for name, by_itself in shown.items() if by_itself]
        for name in alone:
            self._there.drop(name)
        with self._lock:
            self._misses += bool(alone)
        return bool(alone)

    def name(self, image: Image) -> str:
        """Digest of what is sent of an image: engines outlive processes and serve others too."""
        key = pixel_key(checked(image))
        name = self._names.get(key)
        if name is None:
            name = hashlib.sha256(self._urls(image).encode()).hexdigest()
            self._names.put(key, name)
        return name
