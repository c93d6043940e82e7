"""Attention within windows of an image, or within images of a batch, all of one length in one call.

Qwen2.5-VL looks at windows of 64 patches in all but a few layers. Without FlashAttention,
transformers calls an attention function for each window of each layer, one after the other: 7,844
calls for an image of 2246 x 1582, and a wait for the device at each layer's three splits. An
attention function that is registered under a name of its own (`AttentionInterface.register`, the
documented way) is given the windows' bounds instead, where the name holds "flash".
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import torch
from transformers import AttentionInterface

NAME: Final = "speceyes_no_flash_windows"
_PLANS: ContextVar[list[tuple[torch.Tensor, list[tuple[int, torch.Tensor]]]] | None] = ContextVar(
    "speceyes_window_plans", default=None
)
"""Of the pass that this thread is in; None elsewhere, where each layer works its own out."""


def window_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *,
    cu_seq_lens_q: torch.Tensor,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of each patch to those of its window.

    Args:
        module: Not used.
        query: [1, heads, patches, width], the windows one behind the other.
        key: The same.
        value: The same.
        attention_mask: None.
        cu_seq_lens_q: int[windows + 1], where each window begins, and the end of the last.
        scaling: Factor of the scores; None for 1 / sqrt(width).

    Returns:
        ([1, patches, heads, width], None).
    """
    plan = _rows_by_length(cu_seq_lens_q)
    if len(plan) == 1:  # they lie one behind the other already
        size, rows = plan[0]
        parts = [
            one[0].unflatten(1, (len(rows) // size, size)).transpose(0, 1)
            for one in (query, key, value)
        ]
        seen = torch.nn.functional.scaled_dot_product_attention(*parts, scale=scaling)
        return seen.transpose(1, 2).flatten(0, 1)[None], None
    out = torch.empty_like(value)
    for size, rows in plan:
        parts = [
            one[0, :, rows].unflatten(1, (-1, size)).transpose(0, 1) for one in (query, key, value)
        ]
        seen = torch.nn.functional.scaled_dot_product_attention(*parts, scale=scaling)
        out[0, :, rows] = seen.transpose(0, 1).flatten(1, 2)
    return out.transpose(1, 2), None


def _rows_by_length(bounds: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
    """(length of windows, the patches of all windows of that length), worked out once for the
    layers of a pass, since it waits for the device.
    """
    plans = _PLANS.get()
    for known, plan in plans or ():
        if known is bounds:
            return plan
    ends = bounds.tolist()
    starts: dict[int, list[int]] = {}
    for start, end in itertools.pairwise(ends):
        if end > start:
            starts.setdefault(end - start, []).append(start)
    plan = [
        (size, (torch.tensor(first)[:, None] + torch.arange(size)).flatten().to(bounds.device))
        for size, first in starts.items()
    ]
    if plans is not None:
        plans.append((bounds, plan))
    return plan


AttentionInterface.register(NAME, window_attention)


@contextmanager
def windows_at_once(vision: Any) -> Iterator[None]:
    """Has a vision tower look at windows, or images, of one length together, where it would do so
    one after the other.

    Args:
        vision: The tower. One with an attention that was chosen for it is left as it is.
    """
    # set_attn_implementation takes a name with "flash" for a kernel's and refuses ours, so its
    # configuration is told. Where that should break, the probe at load sees it.
    config = vision.config
    if config._attn_implementation != "sdpa":
        yield
        return
    config._attn_implementation = NAME
    plans = _PLANS.set([])
    try:
        yield
    finally:
        _PLANS.reset(plans)
        config._attn_implementation = "sdpa"
