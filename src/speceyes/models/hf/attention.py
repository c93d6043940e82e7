"""What a model looks at in its prompt, from where it is about to go on.

Only the last token's own attention is asked for: everything before it is read as ever, and one
more pass over that single token runs with the plain implementation, which can say its weights. It
takes layers x heads x n numbers, where the whole prompt's would take n times as many.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    model: Any, live: ContinuousBatch[int], tokens: EncodedPrompt
) -> npt.NDArray[np.float32]:
    """How much the last token attends to each token of a prompt, itself included.

    Args:
        model: The model.
        live: An empty batch of it. Use it inside inference mode, as always.
        tokens: The prompt, two tokens or more.

    Returns:
        float32[n], the mean over layers and heads; it sums to 1.

    Raises:
        ModelError: The model gives no attentions.
    """
    n = len(tokens.ids)
    before = EncodedPrompt(
        tokens.ids[:-1],
        tokens.key[:-1],
        tokens.shown,
        tokens.positions[:, :-1],
        int(tokens.positions[:, -1].max()),
    )
    _, [states] = live._read([before], [live._found(before)])
    layers = live._prefix_layers([(CacheEntry(before.key, states), n - 1)], n - 1)
    device = model.device
    with _eager(model):
        out = model(
            input_ids=torch.from_numpy(tokens.ids[-1:])[None].to(device),
            attention_mask=torch.ones((1, n), dtype=torch.long, device=device),
            position_ids=torch.from_numpy(tokens.positions[:, -1:])[:, None].to(device),
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
    mean = torch.stack([one[0, :, -1].float().mean(dim=0) for one in weights]).mean(dim=0)
    return np.asarray(mean.cpu().numpy(), dtype=np.float32)


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
