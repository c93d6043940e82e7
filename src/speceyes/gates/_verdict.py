"""Common parts of the gates: reading a draft's rows, and putting a verdict together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from speceyes.errors import InputError
from speceyes.scoring.refusal import refusal
from speceyes.scoring.scores import ENGINE_FLOOR, Floats, largest
from speceyes.types import Completion, Verdict

Aggregate: TypeAlias = Literal["min", "mean"]

_LIMIT: Final = 1e30  # as in scores.py: below it a value is a mask, above it broken
_OVER: Final = 1.05  # how far over 1 the rounding of bfloat16 lifts a sum of probabilities


def top_values(rows: npt.ArrayLike, top_k: int) -> Floats:
    """The K largest values of each token, descending: float64[n, K].

    Raises:
        InputError: No tokens, fewer than K columns, NaN, infinities, or masked tokens in the top K.
    """
    top = largest(rows, top_k)
    if not len(top):
        raise InputError("there are no tokens to score: an empty answer can't be judged")
    # The float type's lowest number is a mask as well; in float64 none is above -1e30 already.
    masked = (top <= -_LIMIT) | (top == ENGINE_FLOOR)
    for i in np.flatnonzero((~(top < _LIMIT) | masked).any(axis=1))[:1]:
        if np.isnan(top[i]).any():
            raise InputError(f"row {i} holds NaN: the model's numbers are broken there")
        if not (top[i] < _LIMIT).all():
            raise InputError(f"row {i} holds {top[i].max()}: a log-probability must be finite")
        raise InputError(
            f"row {i}: {int(masked[i].sum())} of the top {top_k} tokens are masked, so that fewer "
            f"than {top_k} compete; draft without constrained decoding"
        )
    return top


def top_logprobs(rows: npt.ArrayLike, top_k: int) -> Floats:
    """As `top_values`, for scores that need the probabilities themselves; none is above 0.

    Raises:
        InputError: Also where a row's probabilities sum to more than 1: these are logits then.
    """
    top = top_values(rows, top_k)
    mass = np.exp(np.minimum(top, 1.0)).sum(axis=1)
    if (mass > _OVER).any():
        i = int(np.argmax(mass > _OVER))
        raise InputError(
            f"row {i}'s probabilities sum to more than 1, so it holds logits: pass "
            "log-probabilities, in nats"
        )
    return np.minimum(top, 0.0)


def combine(tokens: Floats, aggregate: Aggregate) -> float:
    """The answer's score from its tokens'."""
    return float(tokens.min() if aggregate == "min" else tokens.mean())


def verdict(
    completion: Completion,
    *,
    top_k: int,
    threshold: float,
    tokens: Callable[[npt.ArrayLike], Floats],
    answer: Callable[[Floats], float],
    unit: Callable[[float], float],
) -> Verdict:
    """The verdict on a draft: its raw score held against a threshold on the same scale.

    Args:
        completion: The draft.
        top_k: What to ask for where it has no log-probabilities.
        threshold: On the raw scale; reaching it is enough.
        tokens: Rows to raw scores of the tokens; raises `InputError` where there are none.
        answer: The tokens' scores to the answer's.
        unit: The raw scale to 0 to 1, rising, for people.
    """
    shown = unit(threshold)
    reason = refusal(completion, top_k)
    if reason is not None:
        return Verdict(False, None, None, shown, reason=reason)
    try:
        scores = tokens(completion.top_logprobs)
    except InputError as exc:
        return Verdict(False, None, None, shown, reason=str(exc))
    raw = answer(scores)
    return Verdict(raw >= threshold, unit(raw), raw, shown, tuple(scores.tolist()))
