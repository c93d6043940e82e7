"""The inside of the Qwen-VL models: images to features, positions, passes over a cache.

No other file knows it. What is used of transformers: `model.model.get_image_features` and
`get_rope_index`; the forward pass with `mm_encoder_outputs` (since 5.18), `position_ids`,
`logits_to_keep` and a `Cache` of layers of our own, written against `CacheLayerMixin`. Nothing
of a model is replaced or changed, but for the name of the vision tower's attention while images are
encoded (`vision_windows`). `speceyes.models.hf.driver` holds the results against plain
`generate` before they are trusted.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import numpy.typing as npt
import torch
from transformers.cache_utils import Cache, CacheLayerMixin
from typing_extensions import override

from speceyes.bounded_cache import BoundedCache
from speceyes.errors import ModelError
from speceyes.models.hf.vision_windows import windows_at_once

_MOST_POSITIONS: Final = 1 << 24
"""Bytes of positions that are kept, of images by their sizes."""


@dataclass(frozen=True, slots=True)
class Features:
    """An image as the vision tower encodes it.

    Args:
        merged: [tokens, width].
        deep: [tokens, width] for each layer that is fed features too (DeepStack, Qwen3-VL).
        form: The class in which the vision tower gave them, and the language model takes them.
    """

    merged: torch.Tensor
    deep: tuple[torch.Tensor, ...]
    form: type[Any]

    @property
    def bytes(self) -> int:
        """Memory that they take."""
        return sum(t.element_size() * t.numel() for t in (self.merged, *self.deep))


def inject_image_features(features: Sequence[Features]) -> dict[str, Any]:
    """Arguments of a forward pass that uses these features instead of encoding pixels."""
    if not features:
        return {}
    named: dict[str, Any] = {"pooler_output": tuple(one.merged for one in features)}
    if features[0].deep:
        named["deepstack_features"] = list(zip(*(one.deep for one in features), strict=True))
    return {"mm_encoder_outputs": {"image": features[0].form(**named)}}


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device; to a GPU from pinned memory, so that nobody waits for it."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def unsupported_reason(model: Any) -> str | None:
    """Why a model can't be driven by the adapter; None where it can."""
    inner = getattr(model, "model", None)
    for method in ("get_rope_index", "get_image_features"):
        if not callable(getattr(inner, method, None)):
            return f"it has no {method}"
    if "mm_encoder_outputs" not in inspect.signature(model.forward).parameters:
        return "its forward pass takes no features of images (mm_encoder_outputs)"
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if kinds or getattr(config, "use_sliding_window", False):
        return (
            f"not all of its layers attend to everything ({', '.join(sorted(kinds)) or 'window'})"
        )
    if getattr(model.config, "image_token_id", None) is None:
        return "its configuration names no image token"
    devices = {str(device) for device in (getattr(model, "hf_device_map", None) or {}).values()}
    if len(devices) > 1:
        return f"its layers are on several devices ({', '.join(sorted(devices))})"
    return None


@final
class QwenVLAdapter:
    """Forward passes of a Qwen-VL model. Use it inside inference mode.

    Args:
        model: A model that `unsupported_reason` has nothing against.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.image_token_id = int(model.config.image_token_id)
        self.layers = int(model.config.get_text_config().num_hidden_layers)
        # "cache" since 5.24; 5.40 drops the older name.
        named = inspect.signature(model.forward).parameters
        self._cache_argument = "cache" if "cache" in named else "past_key_values"
        named = inspect.signature(model.model.get_rope_index).parameters
        self._takes_types = "mm_token_type_ids" in named
        self._blocks = BoundedCache[tuple[tuple[int, int, int], int, int], npt.NDArray[np.int64]](
            _MOST_POSITIONS, lambda block: block.nbytes
        )

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""
        device: torch.device = self.model.device
        return device

    def encode_images(self, pixel_values: torch.Tensor, grids: torch.Tensor) -> list[Features]:
        """Features of images, in order.

        Args:
            pixel_values: [patches of all images, values a patch], of the image processor.
            grids: int64[images, 3], (frames, patches down, patches across).
        """
        with windows_at_once(self.model.model.visual):
            output = self.model.model.get_image_features(
                to_device(pixel_values.to(self.model.dtype), self.device),
                to_device(grids, self.device),
                return_dict=True,
            )
        deep = getattr(output, "deepstack_features", None) or ()
        # Clones, so that one image that is kept doesn't keep the whole batch in memory.
        return [
            Features(merged.clone(), tuple(layer[i].clone() for layer in deep), type(output))
            for i, merged in enumerate(output.pooler_output)
        ]

    def rotary_positions(
        self, ids: npt.NDArray[np.int64], grids: Sequence[tuple[int, int, int]]
    ) -> tuple[npt.NDArray[np.int64], int]:
        """Positions of a prompt's tokens, and that of the token behind them.

        Args:
            ids: int64[n].
            grids: (frames, patches down, patches across) of its images, in order.

        Returns:
            int64[3, n] (time, height, width), and the next position.
        """
        shown = np.concatenate(([False], ids == self.image_token_id, [False]))
        edges = np.flatnonzero(shown[1:] != shown[:-1]).reshape(-1, 2)
        if len(edges) != len(grids):  # two images that touch
            return self.model_positions(ids, grids)
        positions = np.empty((3, len(ids)), np.int64)
        end = at = 0
        for (first, behind), grid in zip(edges.tolist(), grids, strict=True):
            positions[:, end:first] = np.arange(at, at + first - end)
            at += first - end
            block = self._image_positions(ids[max(0, first - 1) : behind], grid, min(first, 1))
            positions[:, first:behind] = block + at
            end, at = behind, at + int(block.max()) + 1
        following = at + len(ids) - end
        positions[:, end:] = np.arange(at, following)
        return positions, following

    def _image_positions(
        self, ids: npt.NDArray[np.int64], grid: tuple[int, int, int], before: int
    ) -> npt.NDArray[np.int64]:
        """int64[3, n], positions of an image's n tokens where it stands at the beginning: they are
        the same at every place, counted from there.

        Args:
            ids: int64[before + n], the image's tokens and what is before them.
            grid: Its (frames, patches down, patches across).
            before: Tokens of text before it.
        """
        known = self._blocks.get((grid, len(ids), before))
        if known is None:
            known = self.model_positions(ids, [grid])[0][:, before:] - before
            self._blocks.put((grid, len(ids), before), known)
        return known

    def model_positions(
        self, ids: npt.NDArray[np.int64], grids: Sequence[tuple[int, int, int]]
    ) -> tuple[npt.NDArray[np.int64], int]:
        """Positions that `rotary_positions` gives, as the model itself works it out."""
        n = len(ids)
        row = torch.from_numpy(ids)[None]
        named: dict[str, Any] = {
            "image_grid_thw": torch.tensor(grids),
            "attention_mask": torch.ones_like(row),
        }
        if self._takes_types:
            named["mm_token_type_ids"] = (row == self.image_token_id).int()
        positions, delta = self.model.model.get_rope_index(row, **named)
        return positions[:, 0].numpy().astype(np.int64), n + int(delta)

    def prefill(
        self,
        ids: npt.NDArray[np.int64],
        mask: npt.NDArray[np.int64],
        positions: npt.NDArray[np.int64],
        states: PrefillStates,
        features: Sequence[Features],
        keep: int,
    ) -> torch.Tensor:
        """One pass over new tokens of several prompts.

        Args:
            ids: int64[B, new], left-padded.
            mask: int64[B, before + new]; 0 hides a column from a row.
            positions: int64[3, B, new], as of `rotary_positions`.
            states: Keys and values; the pass fills in those of the new tokens.
            features: Of all images among the new tokens, row by row.
            keep: For how many last tokens logits are wanted.

        Returns:
            float32[B, keep, V] logits.
        """
        logits: torch.Tensor = self._forward(
            self.model,
            to_device(torch.from_numpy(ids), self.device),
            self._prefill_mask(mask, ids.shape[1]),
            to_device(torch.from_numpy(positions), self.device),
            [StatesLayer(states, index) for index in range(self.layers)],
            keep,
            **inject_image_features(features),
        ).logits
        return logits[:, -keep:].float()

    def decode(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor | None,
        positions: torch.Tensor,
        layers: Sequence[CacheLayerMixin],
        forward: Callable[..., Any] | None = None,
    ) -> torch.Tensor:
        """One pass over the next token of each row.

        Args:
            ids: int64[B].
            mask: int64[B, columns in use], as of `decode_mask`; None where rows see all of them.
            positions: int64[B]; behind a prompt the three axes are one.
            layers: One a layer of the model; see `SlotLayer`.
            forward: The compiled forward pass; None for the model's own.

        Returns:
            [B, V] logits.
        """
        positions = positions[None, :, None].expand(3, -1, 1)
        run = forward or self.model
        logits: torch.Tensor = self._forward(run, ids[:, None], mask, positions, layers, 1).logits
        return logits[:, -1]

    def decode_mask(self, lengths: torch.Tensor, width: int) -> torch.Tensor:
        """Mask of a decoding step whose rows are of unlike length: each sees its own columns.

        Args:
            lengths: int64[B], columns before the step's own.
            width: Columns in use.

        Returns:
            bool[B, 1, 1, width] where attention takes it as it is; int64[B, width] elsewhere, of
            which transformers makes its own, asking the device whether it hides anything.
        """
        seen = torch.arange(width, device=self.device)[None] <= lengths[:, None]
        return seen[:, None, None] if self._takes_whole_masks else seen.long()

    @property
    def _takes_whole_masks(self) -> bool:
        """True where attention takes a mask of queries by keys in booleans."""
        return bool(self.model.config.get_text_config()._attn_implementation == "sdpa")

    def _prefill_mask(self, mask: npt.NDArray[np.int64], new: int) -> torch.Tensor | None:
        """Mask of a pass over new tokens; None where nothing is hidden, so that attention can take
        its quickest way, and nobody has to ask the device whether it may.
        """
        if mask.all():
            return None
        if not self._takes_whole_masks:
            return to_device(torch.from_numpy(mask), self.device)
        columns = np.arange(mask.shape[1])
        own = columns[-new:, None]
        # A query that is padding sees itself, for a row of nothing has no weights.
        seen = (mask[:, None] > 0) & (columns[None] <= own)[None] | (columns[None] == own)[None]
        return to_device(torch.from_numpy(seen[:, None]), self.device)

    def last_attention(
        self,
        tokens: Sequence[int],
        positions: npt.NDArray[np.int64],
        states: Sequence[torch.Tensor],
    ) -> list[npt.NDArray[np.float32]]:
        """Attention of each prompt's last token to each of its n tokens.

        Only those last tokens are read with the plain implementation of attention, which can
        tell its weights: layers x heads x n numbers, for a whole prompt n times as many.

        Args:
            tokens: The last token of each of B prompts.
            positions: int64[3, B, 1], their positions.
            states: Keys and values of the n - 1 before it, [layers, 2, heads, n - 1, width] each.

        Returns:
            float32[layers, heads, n] each; a head's weights sum to 1.

        Raises:
            ModelError: The model gives no attentions.
        """
        room = PrefillStates(self.layers, states, 1)
        lengths = [one.shape[3] for one in states]
        mask = torch.zeros((len(states), room.before + 1), dtype=torch.long)
        for row, n in enumerate(lengths):
            mask[row, :n] = mask[row, -1] = 1
        with _eager_attention(self.model):
            out = self._forward(
                self.model,
                torch.tensor(tokens, device=self.device)[:, None],
                mask.to(self.device),
                torch.from_numpy(positions).to(self.device),
                [StatesLayer(room, index) for index in range(self.layers)],
                1,
                output_attentions=True,
            )
        weights = [one for one in getattr(out, "attentions", None) or () if one is not None]
        if not weights:
            raise ModelError(
                f"{type(self.model).__name__} gives no attentions: keep reasoning by "
                "keep='likeliest'"
            )
        last = torch.stack([one[:, :, -1].float() for one in weights], dim=1).cpu().numpy()
        return [
            np.concatenate((last[row, :, :, :n], last[row, :, :, -1:]), axis=-1)
            for row, n in enumerate(lengths)
        ]

    def _forward(
        self,
        run: Callable[..., Any],
        ids: torch.Tensor,
        mask: torch.Tensor | None,
        positions: torch.Tensor,
        layers: Sequence[CacheLayerMixin],
        keep: int,
        **more: Any,
    ) -> Any:
        more[self._cache_argument] = Cache(layers=list(layers))
        return run(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=keep,
            **more,
        )


@contextmanager
def _eager_attention(model: Any) -> Iterator[None]:
    """The plain implementation of attention for the language model."""
    text = model.get_decoder() if hasattr(model, "get_decoder") else model
    before = text.config._attn_implementation
    text.set_attn_implementation("eager")
    try:
        yield
    finally:
        text.set_attn_implementation(before)


@final
class PrefillStates:
    """Keys and values of one pass: what was read before, padded, and behind it the new tokens.

    Args:
        layers: Layers of the model.
        prefixes: What was read before of each row, [layers, 2, heads, n, width]; None for nothing.
        new: Columns of new tokens.
    """

    def __init__(self, layers: int, prefixes: Sequence[torch.Tensor | None], new: int) -> None:
        self._layers, self._prefixes, self.new = layers, prefixes, new
        self.before = max((p.shape[3] for p in prefixes if p is not None), default=0)
        self._states: torch.Tensor | None = None

    def allocate(self, keys: torch.Tensor) -> None:
        """Makes room, once; `keys` of any layer, [B, heads, new, width], tell the shape."""
        if self._states is not None:
            return
        size, heads, _, width = keys.shape
        shape = (self._layers, 2, size, heads, self.before + self.new, width)
        self._states = keys.new_empty(shape)
        for row, prefix in enumerate(self._prefixes):
            n = 0 if prefix is None else prefix.shape[3]
            if prefix is not None:
                self._states[:, :, row, :, :n] = prefix
            # Columns beyond a row's own beginning are masked; they must be finite all the same.
            self._states[:, :, row, :, n : self.before] = 0

    def write(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Fills in a layer's new columns; all of its keys and values."""
        assert self._states is not None
        self._states[layer, 0, :, :, self.before :] = keys
        self._states[layer, 1, :, :, self.before :] = values
        return self._states[layer, 0], self._states[layer, 1]

    @property
    def a_row(self) -> torch.Tensor:
        """The first row with its padding, for its shape: [layers, 2, heads, any, width]."""
        assert self._states is not None
        return self._states[:, :, 0]

    def put(self, index: int, new: int, room: torch.Tensor) -> None:
        """Copies one row without padding to where it goes on, with no copy in between.

        Args:
            index: The row.
            new: How many of the last columns are its own.
            room: [layers, 2, heads, n, width].
        """
        assert self._states is not None
        states, prefix = self._states[:, :, index], self._prefixes[index]
        if prefix is not None:
            room[:, :, :, : prefix.shape[3]] = prefix
        room[:, :, :, room.shape[3] - new :] = states[:, :, :, states.shape[3] - new :]

    def row(self, index: int, new: int) -> torch.Tensor:
        """A copy of one row without padding, [layers, 2, heads, n, width].

        Args:
            index: The row.
            new: How many of the last columns are its own.
        """
        assert self._states is not None
        states, prefix = self._states[:, :, index], self._prefixes[index]
        own = states[:, :, :, states.shape[3] - new :]
        return own.clone() if prefix is None else torch.cat((prefix, own), dim=3)


class StatesLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """A layer of `PrefillStates`, as transformers' models use it."""

    is_sliding = False

    def __init__(self, states: PrefillStates, index: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._states, self._index = states, index

    @override
    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self._states.allocate(key_states)
        self.is_initialized = True

    @override
    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.lazy_initialization(key_states, value_states)
        return self._states.write(self._index, key_states, value_states)

    @override
    def get_seq_length(self) -> int:
        return self._states.before

    @override
    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._states.before + query_length, 0

    @override
    def get_max_length(self) -> int:
        return -1


class SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """A layer's keys and values, one slot a row; each row writes behind its own last token.

    Args:
        keys: [slots, heads, tokens, width].
        values: The same.
        place: Says where the coming step writes; shared by all layers.
    """

    is_sliding = False

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, place: SlotPlaces) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.place = place
        self.keys, self.values = keys, values
        self.is_initialized = True

    @override
    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        pass  # made with its room

    @override
    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.keys is not None and self.values is not None
        rows, n, width = self.place.rows, len(key_states), self.place.width
        self.keys[rows, :, self.place.columns] = key_states[:, :, 0]
        self.values[rows, :, self.place.columns] = value_states[:, :, 0]
        return self.keys[:n, :, :width], self.values[:n, :, :width]

    @override
    def get_seq_length(self) -> int:
        return self.place.width - 1

    @override
    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.place.width - 1 + query_length, 0

    @override
    def get_max_length(self) -> int:
        return -1


@dataclass(slots=True)
class SlotPlaces:
    """Where a decoding step writes.

    Args:
        rows: int64[B], 0 to B - 1.
        columns: int64[B], behind each row's last token.
        width: Columns in use after the step.
    """

    rows: torch.Tensor
    columns: torch.Tensor
    width: int = 0
