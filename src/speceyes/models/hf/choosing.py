"""Choice of tokens from a step's scores: kept log-probabilities, and the token that is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch

from speceyes.scoring.scores import EPS
from speceyes.types import Floor, Sampling

_SAFE = 1e-3
"""How far below the floor a score must be, relative to it, so that rounding decides nothing."""

FIRST_TOKENS = 64
"""How many ids are looked at for `Completion.first_token`."""


def generator(seed: int | None) -> torch.Generator:
    """A row's own generator; without a seed, its draws are new each time."""
    made = torch.Generator()
    if seed is None:
        made.seed()
    else:
        made.manual_seed(seed)
    return made


def scored(
    scores: torch.Tensor, k: int, *, first: bool
) -> tuple[torch.Tensor | None, torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
    """Scores of a step that are kept.

    Args:
        scores: float32[B, V], raw.
        k: How many log-probabilities; 0 for none.
        first: Whether what could come first is wanted too.

    Returns:
        The top K log-probabilities float32[B, K], which rows are finite bool[B], and the ids and
        probabilities of the likeliest tokens; None for what wasn't wanted.
    """
    if not (k or first):
        return None, scores.amax(dim=-1).isfinite(), None
    # log_softmax of the top K without a second B x V: their logits less the normaliser.
    normaliser = scores.logsumexp(dim=-1, keepdim=True)
    top = scores.topk(k, dim=-1).values - normaliser if k else None
    likeliest = None
    if first:
        best = scores.topk(min(FIRST_TOKENS, scores.shape[-1]), dim=-1)
        likeliest = best.indices, (best.values - normaliser).exp()
    return top, normaliser.squeeze(-1).isfinite(), likeliest


def below(top: torch.Tensor, floor: Floor) -> torch.Tensor:
    """bool[B]: whose token is too little separable, beyond any doubt that rounding leaves.

    The gate decides in float64 on the host; this ends a row only where it could not decide
    otherwise. Equal to `speceyes.scoring.scores.separability` but for rounding.

    Args:
        top: float32[B, K] log-probabilities, descending.
        floor: Its top_k is at most K.
    """
    shifted = top[:, : floor.top_k] - top[:, :1]
    if floor.formula == "code":
        shifted = shifted[:, 1:]
    centre = shifted.mean(dim=1, keepdim=True)
    spread = (shifted - centre).square().mean(dim=1).sqrt()
    score = -centre.squeeze(1) / (spread + EPS)
    return score < floor.separability - _SAFE * (1.0 + abs(floor.separability))


def drawn(
    scores: torch.Tensor, sampling: Sampling, generators: Sequence[torch.Generator]
) -> torch.Tensor:
    """int64[B, 1]: a token a row, by inverse transform with one uniform number of its generator.

    Args:
        scores: float32[B, V], penalties taken off.
        sampling: Its temperature is above 0; top_p and sample_top_k narrow the choice.
        generators: One a row.
    """
    # Summing 150,000 probabilities in float32 would distort the tail; MPS has nothing wider.
    wide = torch.float32 if scores.device.type == "mps" else torch.float64
    scores = scores.to(wide) / sampling.temperature
    if 0 < sampling.sample_top_k < scores.shape[-1]:
        least = scores.topk(sampling.sample_top_k, dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < least, float("-inf"))
    chances = scores.softmax(dim=-1)
    if sampling.top_p < 1:
        ordered, ids = chances.sort(dim=-1, descending=True)
        # A token stays if those before it have not reached top_p yet: the likeliest always does.
        before = ordered.cumsum(dim=-1) - ordered
        ordered = ordered.masked_fill(before >= sampling.top_p, 0.0)
        chances = torch.zeros_like(chances).scatter_(1, ids, ordered)
    mass = chances.cumsum(dim=-1)
    uniform = torch.cat([torch.rand(1, 1, generator=g) for g in generators])
    target = uniform.to(scores.device, wide) * mass[:, -1:]
    return torch.searchsorted(mass, target, right=True).clamp_(max=scores.shape[-1] - 1)


def penalizes(sampling: Sampling) -> bool:
    """True where tokens that were there before are less likely."""
    return sampling.presence_penalty != 0 or sampling.repetition_penalty not in (None, 1.0)


@final
@dataclass(frozen=True, slots=True)
class TokensSeen:
    """Tokens that prompt and answer of a row have already.

    Args:
        anywhere: bool[V].
        answer: bool[V].
    """

    anywhere: torch.Tensor
    answer: torch.Tensor

    @classmethod
    def of(cls, prompt: torch.Tensor, vocabulary: int) -> TokensSeen:
        """Those of a prompt.

        Args:
            prompt: int64[n].
            vocabulary: V.
        """
        nothing = torch.zeros(vocabulary, dtype=torch.bool, device=prompt.device)
        anywhere = nothing.clone()
        anywhere[prompt[prompt < vocabulary]] = True
        return cls(anywhere, nothing)

    def add(self, token: int | torch.Tensor) -> None:
        """Counts a token of the answer."""
        self.anywhere[token] = self.answer[token] = True


def penalized(scores: torch.Tensor, sampling: Sampling, seen: Sequence[TokensSeen]) -> torch.Tensor:
    """The scores, less what repetition costs.

    Args:
        scores: float32[B, V], raw.
        sampling: See `Sampling.repetition_penalty` and `presence_penalty`.
        seen: One a row.
    """
    penalty = sampling.repetition_penalty or 1.0
    if penalty != 1.0:
        less = torch.where(scores > 0, scores / penalty, scores * penalty)
        scores = torch.where(torch.stack([one.anywhere for one in seen]), less, scores)
    if sampling.presence_penalty:
        answers = torch.stack([one.answer for one in seen])
        scores = scores - sampling.presence_penalty * answers
    return scores
