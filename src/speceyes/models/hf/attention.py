"""What a model looks at in its prompt, from where it is about to go on.

Only the last token's own attention is asked for: everything before it is read as ever, and one
more pass over that single token runs with the plain implementation, which can say its weights. It
takes layers x heads x n numbers, where the whole prompt's would take n times as many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers.cache_utils import Cache

from speceyes.errors import ModelError
from speceyes.models.hf.continuous_batch import ContinuousBatch
from speceyes.models.hf.prefix_cache import CacheEntry
from speceyes.models.hf.prompt_encoder import EncodedPrompt


def last_attention(
    model: Any, live: ContinuousBatch[int], rows: Sequence[EncodedPrompt]
) -> list[npt.NDArray[np.float32]]:
    """How much the last token of each prompt attends to each of its tokens, itself included.

    Args:
        model: The model.
        live: An empty batch of it. Use it inside inference mode, as always.
        rows: The prompts, two tokens or more each; they share both passes.

    Returns:
        float32[layers, heads, n] each; a head's weights sum to 1.

    Raises:
        ModelError: The model gives no attentions.
    """
    befores = [
        EncodedPrompt(
            row.ids[:-1],
            row.key[:-1],
            row.shown,
            row.positions[:, :-1],
            int(row.positions[:, -1].max()),
        )
        for row in rows
    ]
    _, states = live._read(befores, [live._found(before) for before in befores])
    lengths = [len(before.ids) for before in befores]
    longest = max(lengths)
    kept = [CacheEntry(b.key, s) for b, s in zip(befores, states, strict=True)]
    layers = live._prefix_layers(list(zip(kept, lengths, strict=True)), longest)
    mask = torch.zeros((len(rows), longest + 1), dtype=torch.long)
    for i, n in enumerate(lengths):
        mask[i, :n] = mask[i, -1] = 1
    device = model.device
    with _eager(model):
        out = model(
            input_ids=torch.tensor([[int(row.ids[-1])] for row in rows], device=device),
            attention_mask=mask.to(device),
            position_ids=torch.from_numpy(
                np.stack([row.positions[:, -1:] for row in rows], axis=1)
            ).to(device),
            use_cache=True,
            output_attentions=True,
            logits_to_keep=1,
            **{live.cache_name: Cache(layers=layers)},
        )
    weights = [one for one in getattr(out, "attentions", None) or () if one is not None]
    if not weights:
        raise ModelError(
            f"{type(model).__name__} gives no attentions: keep reasoning by keep='likeliest'"
        )
    last = torch.stack([one[:, :, -1].float() for one in weights], dim=1).cpu().numpy()
    return [
        np.concatenate((last[i, :, :, :n], last[i, :, :, -1:]), axis=-1)
        for i, n in enumerate(lengths)
    ]


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """The plain implementation of attention, which can say its weights."""
    config = model.config.get_text_config()
    was = config._attn_implementation
    config._attn_implementation = "eager"
    try:
        yield
    finally:
        config._attn_implementation = was
