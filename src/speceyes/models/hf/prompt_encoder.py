"""Prompts of the Qwen-VL families as tokens, images by content, and positions.

What a processor does for a batch is done here for each row on its own, so that a row's tokens
are known before any pixel is touched: an image that was encoded before, or that lies within a
beginning that was read before, is neither resized nor cut into patches again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from speceyes.bounded_cache import BoundedCache
from speceyes.images.pixel_cache import made_of, pixel_key
from speceyes.models.hf.chat_prompt import Prompt
from speceyes.models.hf.patches import Patches
from speceyes.models.hf.pixels import QwenPixels
from speceyes.models.hf.qwen_vl_adapter import Features, QwenVLAdapter
from speceyes.types import Image


@dataclass(slots=True)
class ComputeStats:
    """Computation so far.

    Args:
        read: Prompt tokens that were read.
        reused: Prompt tokens that were not, since an earlier conversation began with them.
        padding: Filling of ragged prompts, in tokens that were computed for nothing.
        decoded: Tokens that were decoded.
        passes: Forward passes of the language model.
        forward_s: Seconds within the models' forward passes, images' included. On a GPU, where
            passes are only started by a call, it is the time to start them.
        images: Images that were encoded; one whose features or whose place in a beginning was
            known is not.
    """

    read: int = 0
    reused: int = 0
    padding: int = 0
    decoded: int = 0
    passes: int = 0
    forward_s: float = 0.0
    images: int = 0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Around a pass of a model."""
        start = time.perf_counter()
        yield
        self.forward_s += time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class ImageSpan:
    """An image in a row.

    Args:
        image: As the user or a tool gave it, or as the model sees it.
        digest: Key of what the model sees of it.
        grid: (frames, patches down, patches across).
        start: Its first token's place in the row.
        tokens: How many it takes.
    """

    image: Image
    digest: bytes
    grid: tuple[int, int, int]
    start: int
    tokens: int


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt as the model reads it.

    Args:
        ids: int64[n].
        key: int64[n], where each image's tokens are a negative number of its content.
        spans: Its images, in order.
        positions: int64[3, n], the rotary positions (time, height, width).
        following: The rotary position of the token after the last.
        begun: What the assistant's turn begins with; see `Prompt`.
    """

    ids: npt.NDArray[np.int64]
    key: npt.NDArray[np.int64]
    spans: tuple[ImageSpan, ...]
    positions: npt.NDArray[np.int64]
    following: int
    begun: str = ""

    def followed(self, ids: Sequence[int]) -> EncodedPrompt:
        """This prompt with tokens of text behind it."""
        new = np.asarray(ids, np.int64)
        behind = np.broadcast_to(self.following + np.arange(len(new)), (3, len(new)))
        return EncodedPrompt(
            np.concatenate((self.ids, new)),
            np.concatenate((self.key, new)),
            self.spans,
            np.concatenate((self.positions, behind), axis=1),
            self.following + len(new),
        )

    def whole(self, n: int) -> int:
        """The longest beginning of at most n tokens that cuts no image in two."""
        for one in self.spans:
            if one.start < n < one.start + one.tokens:
                return one.start
        return n


@final
@dataclass(frozen=True, slots=True)
class PromptEncoder:
    """Prompts to `EncodedPrompt`, images to `Features`.

    Args:
        adapter: The model.
        processor: Its processor.
        pixels: Its resizing rule.
        features: Images that were encoded before, by the key of what the model sees of them.
    """

    adapter: QwenVLAdapter
    processor: Any
    pixels: QwenPixels
    features: BoundedCache[bytes, Features]

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """A prompt's tokens and positions; no pixel is touched for it."""
        mark = self.adapter.image_token_id
        start = self.processor.tokenizer.bos_token
        more = {"add_special_tokens": False} if start and prompt.text.startswith(start) else {}
        plain = np.asarray(self.processor.tokenizer(prompt.text, **more)["input_ids"], np.int64)
        places = np.flatnonzero(plain == mark)
        sizes = [self._grid(image) for image in prompt.images]
        repeats = np.ones(len(plain), np.int64)
        repeats[places] = [n for _, n in sizes]
        ids = np.repeat(plain, repeats)
        starts = np.cumsum(repeats) - repeats
        key, spans = ids.copy(), []
        for place, image, (grid, n) in zip(places, prompt.images, sizes, strict=True):
            (seen, digest), first = self.seen(image), int(starts[place])
            key[first : first + n] = int.from_bytes(digest[:8], "big", signed=True) | -(1 << 63)
            spans.append(ImageSpan(seen, digest, grid, first, n))
        positions, following = self.adapter.rotary_positions(ids, [g for g, _ in sizes])
        return EncodedPrompt(ids, key, tuple(spans), positions, following, prompt.begun)

    def image_features(self, images: Sequence[ImageSpan], stats: ComputeStats) -> list[Features]:
        """The images' features, in order; those that aren't known are encoded in one batch."""
        known: dict[bytes, Features] = {}
        new: dict[bytes, ImageSpan] = {}
        for one in images:
            found = self.features.get(one.digest)
            if found is None:
                new[one.digest] = one
            else:
                known[one.digest] = found
        if new:
            stats.images += len(new)
            known.update(zip(new, self._encode(list(new.values()), stats), strict=True))
            for digest in new:
                self.features.put(digest, known[digest])
        return [known[one.digest] for one in images]

    def prepare(self, images: Sequence[Image]) -> None:
        """Shrinks images that keep what is made of them. May be called beside everything else."""
        for image in images:
            if made_of(image) is not None:
                self.seen(image)

    def _as_seen(self, one: ImageSpan) -> Image:
        """An image in RGB and in the size that the model sees."""
        patch = int(self.processor.image_processor.patch_size)
        if one.image.mode == "RGB" and one.image.size == (one.grid[2] * patch, one.grid[1] * patch):
            return one.image
        return self.pixels.quick(one.image)

    def seen(self, image: Image) -> tuple[Image, bytes]:
        """The image, shrunk where the model sees much less of it than there is, and its key.

        The key is then that of the few pixels which the model sees: images that agree in these have
        the same features, and all of the others' pixels need not be read for it.
        """
        if not self.pixels.shrinks(image):
            return image, pixel_key(image)
        made, way = made_of(image), (self.pixels.size(image), self.pixels.resample)
        found: tuple[Image, bytes] | None = None if made is None else made.get(way)
        if found is None:
            small = self.pixels.quick(image)
            found = small, hashlib.blake2b(pixel_key(small), digest_size=16).digest()
            if made is not None:
                made[way] = found
        return found

    def _grid(self, image: Image) -> tuple[tuple[int, int, int], int]:
        patch = int(self.processor.image_processor.patch_size)
        merge = int(self.processor.image_processor.merge_size)
        width, height = self.pixels.size(image)
        down, across = height // patch, width // patch
        return (1, down, across), down * across // merge**2

    def _encode(self, images: Sequence[ImageSpan], stats: ComputeStats) -> list[Features]:
        # A pool of threads was slower: what each allocates goes back to the system at once.
        ready = [self._as_seen(one) for one in images]
        patches = Patches.of(self.processor.image_processor)
        if patches is not None:
            values, grids = patches(ready)
        else:
            cut = self.processor.image_processor(ready, return_tensors="pt", **self.pixels.options)
            values, grids = cut["pixel_values"], cut["image_grid_thw"]
        with stats.timed():
            return self.adapter.encode_images(values, grids)
