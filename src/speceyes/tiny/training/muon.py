"""Muon: momentum whose matrix is brought to orthogonal columns before each step.

After Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). torch
has one as well, which works in bfloat16, a matrix at a time: on a CPU that takes as long as the
rest of a tiny model's step. Here equal shapes are one batch, in float32.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration, as published."""


def orthogonal(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """About the nearest matrices with orthogonal rows or columns, singular values near 1.

    Args:
        matrices: float32[n, rows, columns].
        steps: Iterations.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * (square @ square)) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):  # type: ignore[misc]  # torch carries no types here
    """Steps of one size for every direction of a weight matrix.

    Args:
        params: Matrices.
        lr: Learning rate; a step's root mean square is 0.2 of it, about as AdamW's.
        momentum: Of the gradients, with Nesterov's look ahead.
        weight_decay: Decoupled, a share of `lr`.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.02,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Any = None) -> None:
        """One step; parameters without a gradient stay."""
        if closure is not None:
            raise TypeError("Muon takes no closure")
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[p.shape].append(p)
            for shape, params in shapes.items():
                ahead = []
                for p in params:
                    state = self.state[p]
                    if not state:
                        state["momentum"] = torch.zeros_like(p)
                    state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                    ahead.append(p.grad.lerp(state["momentum"], group["momentum"]))
                rate = 0.2 * group["lr"] * max(shape) ** 0.5
                for p, update in zip(params, orthogonal(torch.stack(ahead)), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=rate)
