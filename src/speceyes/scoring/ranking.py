"""Ranks: the chance that scores put a right answer above a wrong one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from speceyes.errors import InputError


def auroc(
    scores: Sequence[float] | npt.NDArray[np.floating],
    labels: Sequence[bool] | npt.NDArray[np.bool_],
) -> float:
    """The chance that a right answer scores above a wrong one; ties count half.

    Args:
        scores: float[n]; infinities are allowed, NaN is not.
        labels: bool[n], True where the answer was right.

    Raises:
        InputError: The lengths differ, a score is NaN, or one of the two kinds is missing.

    Example:
        >>> auroc([0.1, 0.4, 0.35, 0.8], [False, False, True, True])
        0.75
    """
    values, right = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if values.ndim != 1 or values.shape != right.shape:
        raise InputError(f"scores {values.shape} and labels {right.shape} must pair up, one each")
    if np.isnan(values).any():
        raise InputError("scores holds NaN; leave unscored answers out first")
    positives = int(right.sum())
    negatives = right.size - positives
    if positives == 0 or negatives == 0:
        raise InputError(f"{positives} right and {negatives} wrong; both kinds are needed")
    # Mann-Whitney: the mean rank of equals, by position in the sorted values.
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    rank = (last - (counts - 1) / 2)[inverse]
    wins = rank[right].sum() - positives * (positives + 1) / 2
    return float(wins / (positives * negatives))
