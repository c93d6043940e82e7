"""The scales that a separability is read on, and the thresholds that belong to them.

The raw scale is S itself (for "log" the mean log-probability in nats); people see the unit
scale, 0 to 1. The printed formula and the published code's give S on two raw scales of their
own (SpecEyes, arXiv 2603.23483, Sec. 3), with an exact map between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal

from speceyes.errors import InputError

SHARPNESS: Final = 0.6
"""Slope of the sigmoid: the published code's alpha, which the paper doesn't give."""


def sigmoid(raw: float, sharpness: float = SHARPNESS) -> float:
    """The raw score on the unit scale: 1 / (1 + exp(-sharpness raw)), in float64.

    A chain of monotone steps, so that a larger raw score never reads as a smaller one.

    Example:
        >>> round(sigmoid(6.486), 4)
        0.98
    """
    z = sharpness * raw
    return 1.0 / (1.0 + math.exp(-z)) if z > -700.0 else math.exp(z)


def inverse_sigmoid(score: float, sharpness: float = SHARPNESS) -> float:
    """The raw score whose sigmoid is `score`: logit(score) / sharpness.

    Returns:
        -inf for 0 and +inf for 1.

    Raises:
        InputError: score is not within 0 to 1.

    Example:
        >>> round(inverse_sigmoid(0.98), 3)
        6.486
    """
    _check_unit(score)
    if score in (0.0, 1.0):
        return math.inf if score else -math.inf
    # 2 score - 1 is exact from 1/4 on, so nothing is lost near 1/2 or near 1.
    logit = 2 * math.atanh(2 * score - 1) if score >= 0.25 else math.log(score) - math.log1p(-score)
    return logit / sharpness


def to_unit(raw: float, *, log: bool, sharpness: float = SHARPNESS) -> float:
    """The score in 0 to 1 that belongs to a raw one: the sigmoid, or exp for "log".

    Example:
        >>> to_unit(0.0, log=False), to_unit(0.0, log=True)
        (0.5, 1.0)
    """
    return math.exp(raw) if log else sigmoid(raw, sharpness)


def to_raw(threshold: float, *, log: bool, sharpness: float = SHARPNESS) -> float:
    """The raw threshold that takes the decisions of `threshold` on the unit scale.

    That is the least float64 that `to_unit` lifts to `threshold`: the inverse sigmoid (for
    "log" the logarithm) with its last rounding settled. So `raw >= to_raw(t)` exactly where
    `to_unit(raw) >= t`, for each representable t but 1.

    Returns:
        -inf for 0, which everything reaches; +inf for 1, which nothing does, however saturated
        its sigmoid.

    Raises:
        InputError: threshold is not within 0 to 1.

    Example:
        >>> round(to_raw(0.98, log=False), 3), round(to_raw(0.5, log=True), 3)
        (6.486, -0.693)
    """
    _check_unit(threshold)
    if threshold in (0.0, 1.0):
        return math.inf if threshold else -math.inf
    guess = math.log(threshold) if log else inverse_sigmoid(threshold, sharpness)
    return _least(lambda raw: to_unit(raw, log=log, sharpness=sharpness), threshold, guess)


def paper_from_code(raw: float, top_k: int) -> float:
    """The printed formula's S where the code's is `raw`: s sqrt(K-1) / sqrt(K + s^2).

    Strictly increasing, and exact but for eps, which moves each side by a factor between
    1 / (1 + 1e-6 / std) and 1.

    Example:
        >>> round(paper_from_code(6.486, 64), 3)
        4.999
    """
    if math.isinf(raw):
        return math.copysign(math.sqrt(top_k - 1), raw)
    return raw / math.hypot(math.sqrt(top_k), raw) * math.sqrt(top_k - 1)


def code_from_paper(raw: float, top_k: int) -> float:
    """The code's S where the printed formula's is `raw`: s sqrt(K) / sqrt(K - 1 - s^2).

    Raises:
        InputError: |raw| >= sqrt(K - 1), which the printed formula never reaches.

    Example:
        >>> round(code_from_paper(4.999, 64), 2)
        6.49
    """
    bound = math.sqrt(top_k - 1)
    if not -bound < raw < bound:
        raise InputError(
            f"raw={raw}; the paper's formula stays below sqrt(K - 1) = {bound:.6g} at K={top_k}"
        )
    return raw * math.sqrt(top_k) / math.sqrt((bound - raw) * (bound + raw))


def map_threshold(
    threshold: float, to: Literal["code", "paper"], top_k: int, *, sharpness: float = SHARPNESS
) -> float:
    """The threshold (0 to 1) at which the other formula takes the same "min" decisions.

    Under "mean" and "bottom20" the two formulas average different things, and no threshold
    makes them agree.

    Args:
        threshold: One that was meant for the other formula.
        to: The formula that the result is meant for.
        top_k: K, the same for both.
        sharpness: Slope of the sigmoid, the same for both.

    Raises:
        InputError: threshold is outside 0 to 1, or beyond the printed formula's reach.

    Example:
        >>> round(map_threshold(0.98, to="paper", top_k=64), 4)
        0.9525
    """
    raw = inverse_sigmoid(threshold, sharpness)
    if raw <= 0.0 or math.isinf(raw):  # S is never negative: up to 1/2 all is accepted
        return threshold
    mapped = paper_from_code(raw, top_k) if to == "paper" else code_from_paper(raw, top_k)
    return sigmoid(mapped, sharpness)


def _check_unit(score: float) -> None:
    if not 0.0 <= score <= 1.0:
        raise InputError(f"{score} is not on the scale of scores and thresholds, 0 to 1")


def _least(rising: Callable[[float], float], target: float, guess: float) -> float:
    """The least float64 x with rising(x) >= target, looked for around a guess."""
    step = 1e-15 * max(1.0, abs(guess))
    low = high = guess
    while rising(low) >= target:
        low, step = low - step, 2 * step
    while rising(high) < target:
        high, step = high + step, 2 * step
    while low < (middle := low + (high - low) / 2) < high:
        low, high = (low, middle) if rising(middle) >= target else (middle, high)
    return high
