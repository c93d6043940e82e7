"""Prompts of the Qwen-VL families as tokens, images by content, and positions.

What a processor does for a batch is done here for each row on its own, so that a row's tokens
are known before any pixel is touched: an image that was encoded before, or that lies within a
beginning that was read before, is neither resized nor cut into patches again.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch

from speceyes.fingerprint import fingerprint
from speceyes.models._bounded import BoundedCache
from speceyes.models.hf.chat_prompt import Prompt
from speceyes.models.hf.pixels import QwenPixels
from speceyes.types import Image


@dataclass(slots=True)
class ComputeStats:
    """What was computed so far.

    Args:
        read: Prompt tokens that were read.
        reused: Prompt tokens that were not, since an earlier conversation began with them.
        padding: Filling of ragged prompts, in tokens that were computed for nothing.
        decoded: Tokens that were decoded.
        passes: Forward passes of the language model.
        forward_s: Seconds within the models' forward passes, images' included. On a GPU, where
            passes are only started by a call, it is the time to start them.
    """

    read: int = 0
    reused: int = 0
    padding: int = 0
    decoded: int = 0
    passes: int = 0
    forward_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ImageSpan:
    """An image in a row.

    Args:
        image: As the user or a tool gave it.
        digest: Its fingerprint.
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
        shown: Its images, in order.
        positions: int64[3, n], the rotary positions (time, height, width).
        following: The rotary position of the token after the last.
    """

    ids: npt.NDArray[np.int64]
    key: npt.NDArray[np.int64]
    shown: tuple[ImageSpan, ...]
    positions: npt.NDArray[np.int64]
    following: int

    def followed(self, ids: Sequence[int]) -> EncodedPrompt:
        """This prompt with tokens of text behind it."""
        new = np.asarray(ids, np.int64)
        behind = np.broadcast_to(self.following + np.arange(len(new)), (3, len(new)))
        return EncodedPrompt(
            np.concatenate((self.ids, new)),
            np.concatenate((self.key, new)),
            self.shown,
            np.concatenate((self.positions, behind), axis=1),
            self.following + len(new),
        )

    def whole(self, n: int) -> int:
        """The longest beginning of at most n tokens that cuts no image in two."""
        for one in self.shown:
            if one.start < n < one.start + one.tokens:
                return one.start
        return n


@dataclass(frozen=True, slots=True)
class Features:
    """What the vision tower made of an image.

    Args:
        merged: [tokens, width].
        deep: [tokens, width] for each layer that is fed features too (DeepStack, Qwen3-VL).
        form: The class in which the vision tower gave them, and the language model takes them.
    """

    merged: torch.Tensor
    deep: tuple[torch.Tensor, ...]
    form: type[Any]

    @classmethod
    def split(cls, output: Any) -> list[Features]:
        """One for each image of what `get_image_features` gave."""
        deep = getattr(output, "deepstack_features", None) or ()
        # Clones, so that one image that is kept doesn't keep the whole batch in memory.
        return [
            cls(merged.clone(), tuple(layer[i].clone() for layer in deep), type(output))
            for i, merged in enumerate(output.pooler_output)
        ]

    @property
    def bytes(self) -> int:
        """Memory that they take."""
        return sum(t.element_size() * t.numel() for t in (self.merged, *self.deep))


def unsupported_reason(model: Any, processor: Any, pixels: Any) -> str | None:
    """Why this model can't be driven this way; None where it can."""
    if not isinstance(pixels, QwenPixels):
        return "its image processor is not that of the Qwen-VL families"
    inner = getattr(model, "model", None)
    if not callable(getattr(inner, "get_rope_index", None)):
        return "it has no get_rope_index"
    if not callable(getattr(inner, "get_image_features", None)):
        return "it has no get_image_features"
    if "mm_encoder_outputs" not in inspect.signature(model.forward).parameters:
        return "its forward pass doesn't take features of images"
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if kinds or getattr(config, "use_sliding_window", False):
        return (
            f"not all of its layers attend to everything ({', '.join(sorted(kinds)) or 'window'})"
        )
    if getattr(model.config, "image_token_id", None) is None:
        return "its configuration names no image token"
    if getattr(processor, "image_token", None) is None:
        return "its processor names no image token"
    return None


@final
@dataclass(frozen=True, slots=True)
class PromptEncoder:
    """Prompts to `EncodedPrompt`, images to `Features`.

    Args:
        model: A Qwen-VL model.
        processor: Its processor.
        pixels: Its resizing rule.
        features: Images that were encoded before, by fingerprint.
        ready: Images that were resized ahead of their use.
    """

    model: Any
    processor: Any
    pixels: QwenPixels
    features: BoundedCache[bytes, Features]
    ready: BoundedCache[bytes, Image]
    cache_name: str = field(init=False)
    """The argument of the forward pass that takes keys and values: "cache" since 5.24."""
    _takes_types: bool = field(init=False)

    def __post_init__(self) -> None:
        named = inspect.signature(self.model.forward).parameters
        object.__setattr__(self, "cache_name", "cache" if "cache" in named else "past_key_values")
        named = inspect.signature(self.model.model.get_rope_index).parameters
        object.__setattr__(self, "_takes_types", "mm_token_type_ids" in named)

    def tokens(self, prompt: Prompt) -> EncodedPrompt:
        """One prompt's tokens and positions."""
        mark = int(self.model.config.image_token_id)
        start = self.processor.tokenizer.bos_token
        more = {"add_special_tokens": False} if start and prompt.text.startswith(start) else {}
        plain = np.asarray(self.processor.tokenizer(prompt.text, **more)["input_ids"], np.int64)
        places = np.flatnonzero(plain == mark)
        sizes = [self._grid(image) for image in prompt.images]
        repeats = np.ones(len(plain), np.int64)
        repeats[places] = [n for _, n in sizes]
        ids = np.repeat(plain, repeats)
        starts = np.cumsum(repeats) - repeats
        key, shown = ids.copy(), []
        for place, image, (grid, n) in zip(places, prompt.images, sizes, strict=True):
            digest, first = fingerprint(image), int(starts[place])
            key[first : first + n] = int.from_bytes(digest[:8], "big", signed=True) | -(1 << 63)
            shown.append(ImageSpan(image, digest, grid, first, n))
        positions, following = self._positions(ids, ids == mark, [g for g, _ in sizes])
        return EncodedPrompt(ids, key, tuple(shown), positions, following)

    def _grid(self, image: Image) -> tuple[tuple[int, int, int], int]:
        patch = int(self.processor.image_processor.patch_size)
        merge = int(self.processor.image_processor.merge_size)
        width, height = self.pixels.size(image)
        down, across = height // patch, width // patch
        return (1, down, across), down * across // merge**2

    def _positions(
        self,
        ids: npt.NDArray[np.int64],
        is_image: npt.NDArray[np.bool_],
        grids: Sequence[tuple[int, int, int]],
    ) -> tuple[npt.NDArray[np.int64], int]:
        n = len(ids)
        if not grids:
            return np.broadcast_to(np.arange(n), (3, n)).copy(), n
        row = torch.from_numpy(ids)[None]
        named: dict[str, Any] = {
            "image_grid_thw": torch.tensor(grids),
            "attention_mask": torch.ones_like(row),
        }
        if self._takes_types:
            named["mm_token_type_ids"] = torch.from_numpy(is_image.astype(np.int32))[None]
        positions, delta = self.model.model.get_rope_index(row, **named)
        return positions[:, 0].numpy().astype(np.int64), n + int(delta)

    def encoded(self, images: Sequence[ImageSpan], spent: ComputeStats) -> list[Features]:
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
            known.update(zip(new, self._encode(list(new.values()), spent), strict=True))
            for digest in new:
                self.features.put(digest, known[digest])
        return [known[one.digest] for one in images]

    def prepare(self, images: Sequence[Image]) -> None:
        """Resizes images that are not known yet. May be called beside everything else."""
        for image in images:
            digest = fingerprint(image)
            if digest not in self.features and digest not in self.ready:
                self.ready.put(digest, self.pixels.quick(image))

    def _encode(self, images: Sequence[ImageSpan], spent: ComputeStats) -> list[Features]:
        ahead = {one.digest: self.ready.take(one.digest) for one in images}
        # A pool of threads was slower: what each allocates goes back to the system at once.
        ready = [ahead[one.digest] or self.pixels.quick(one.image) for one in images]
        inputs = self.processor.image_processor(ready, return_tensors="pt", **self.pixels.options)
        device, dtype = self.model.device, self.model.dtype
        start = time.perf_counter()
        out = self.model.model.get_image_features(
            to_device(inputs["pixel_values"].to(dtype), device),
            to_device(inputs["image_grid_thw"], device),
            return_dict=True,
        )
        spent.forward_s += time.perf_counter() - start
        return Features.split(out)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device; to a GPU from pinned memory, so that nobody waits for it."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def inject_image_features(features: Sequence[Features]) -> dict[str, Any]:
    """Arguments of a forward pass that uses these features instead of encoding pixels."""
    if not features:
        return {}
    named: dict[str, Any] = {"pooler_output": tuple(one.merged for one in features)}
    if features[0].deep:
        named["deepstack_features"] = list(zip(*(one.deep for one in features), strict=True))
    return {"mm_encoder_outputs": {"image": features[0].form(**named)}}
