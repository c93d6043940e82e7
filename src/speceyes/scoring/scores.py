"""Token separability and its aggregates; numpy only.

A token is separable where its top-1 stands clear of the competitors behind it (SpecEyes,
arXiv 2603.23483, Sec. 3, the answer separability score). Neither form below changes when a
constant is added to a row, so logits and log-probabilities give the same scores.

Rows are `float[n, W]`, a row a token. Everything is computed in float64, whatever comes in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from speceyes.errors import InputError

Aggregate: TypeAlias = Literal["min", "mean", "bottom20", "log"]
Formula: TypeAlias = Literal["code", "paper"]
Floats: TypeAlias = npt.NDArray[np.float64]

AGGREGATES: Final[tuple[Aggregate, ...]] = get_args(Aggregate)
FORMULAS: Final[tuple[Formula, ...]] = get_args(Formula)

TOP_K: Final = 64
EPS: Final = 1e-6

ENGINE_FLOOR: Final = -9999.0
"""Log-probability of a masked token as OpenAI-compatible engines send it: JSON has no -inf."""
_LIMIT: Final = 1e30  # no real logit is as large; squares stay far from overflow
_POSITIVE: Final = 1e-2  # how far over 0 rounding (bfloat16 included) lifts a log-probability
_RAREST: Final = -50.0  # a greedy log-probability is -log V at least
_DRAFTS_AT_ONCE: Final = 256  # bounds the memory of `raw_scores`


def largest(rows: npt.ArrayLike, k: int) -> Floats:
    """The k largest values of each row, descending, as float64[n, k].

    A NaN counts as the largest, so it is never cut away.

    Raises:
        InputError: rows is not float[n, W] with W >= k.

    Example:
        >>> largest([[0.0, 3.0, 1.0, 2.0]], 3).tolist()
        [[3.0, 2.0, 1.0]]
    """
    array = _rows(rows, k)
    if array.shape[1] > k:
        array = np.partition(array, array.shape[1] - k, axis=1)[:, -k:]
    return np.ascontiguousarray(np.sort(array.astype(np.float64), axis=1)[:, ::-1])


def separability(top: npt.ArrayLike, formula: Formula = "code") -> Floats:
    """Raw separability S of each token, dimensionless and never negative.

    "code", as the published code computes it: `(l1 - mean(l2..lK)) / (std(l2..lK) + 1e-6)`.
    "paper", as Sec. 3 prints it: `(l1 - mean(l1..lK)) / (std(l1..lK) + 1e-6)`, which stays
    below sqrt(K - 1). Both with the population std.

    Args:
        top: float[n, K], finite, each row descending (see `largest`), K >= 2.
        formula: "code" or "paper".

    Returns:
        float64[n].

    Example:
        >>> separability([[8.0, 1.0, 0.0, -1.0]]).round(3).tolist()
        [9.798]
    """
    array = np.asarray(top, dtype=np.float64)
    # Taking the top-1 off first makes the sign exact, and cancels a common constant
    # before anything is summed.
    below = array - array[:, :1]
    if formula == "code":
        below = below[:, 1:]
    centre = below.mean(axis=1)
    spread = np.sqrt(np.square(below - centre[:, None]).mean(axis=1))
    scores: Floats = (0.0 - centre) / (spread + EPS)
    return scores


def token_scores(
    rows: npt.ArrayLike,
    top_k: int = TOP_K,
    aggregate: Aggregate = "min",
    formula: Formula = "code",
    *,
    logprobs: bool | None = None,
) -> Floats:
    """Raw score of each token: S, or for "log" the greedy log-probability in nats.

    Args:
        rows: float[n, W]: logits or log-probabilities of the whole vocabulary, or the top ones.
        top_k: K; W must be at least that ("log" needs one column only).
        aggregate: Only whether it is "log" matters here.
        formula: See `separability`.
        logprobs: For "log", which must know. True: log-probabilities, taken as they are. False:
            logits of the whole vocabulary, to be normalised. None: the whole vocabulary where
            W > top_k, else cut log-probabilities. (For S it only tells whether -9999.0 is a
            mask: always, never, or where the row could hold log-probabilities.)

    Returns:
        float64[n].

    Raises:
        InputError: No tokens, too few columns, NaN, +inf, a masked token in the top K, or, for
            "log", a cut row that can't be log-probabilities. The message is the gate's reason.

    Example:
        >>> token_scores([[8.0, 1.0, 0.0, -1.0, -5.0]], top_k=4).round(3).tolist()
        [9.798]
    """
    array = _rows(rows, 1 if aggregate == "log" else top_k)
    if len(array) == 0:
        raise InputError("there are no tokens to score: an empty answer can't be judged")
    scores = _token_scores(array, top_k, aggregate, formula, logprobs)
    bad = np.flatnonzero(np.isnan(scores))
    if bad.size:
        raise InputError(_why(array[bad[0]], int(bad[0]), top_k, aggregate))
    return scores


def combine(tokens: npt.ArrayLike, aggregate: Aggregate = "min") -> float:
    """One raw score for an answer from those of its n tokens.

    "min" is the paper's worst-case guard; "mean" and "log" average; "bottom20" averages the
    lowest max(1, floor(0.2 n)), as the published code does (the paper prints the ceiling).
    `min <= bottom20 <= mean` holds to the last bit.

    Raises:
        InputError: There are no tokens.

    Example:
        >>> combine([3.0, 9.0, 6.0], "mean")
        6.0
    """
    array = np.asarray(tokens, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise InputError(f"tokens has shape {array.shape}; it must be float[n] with n >= 1")
    return float(_combine(array, np.array([array.size]), aggregate)[0])


def raw_scores(
    drafts: Iterable[npt.ArrayLike],
    top_k: int = TOP_K,
    aggregate: Aggregate = "min",
    formula: Formula = "code",
    *,
    logprobs: bool | None = True,
) -> Floats:
    """Raw scores of many recorded drafts at once, equal to the gate's bit for bit.

    Only the numbers are judged: that a draft failed or was cut at its length is known to
    `SeparabilityGate`, not here.

    Args:
        drafts: m arrays float[n_i, W_i], such as `Completion.top_logprobs`.
        top_k: K.
        aggregate: "min", "mean", "bottom20" or "log".
        formula: See `separability`.
        logprobs: See `token_scores`; a recorded draft holds log-probabilities.

    Returns:
        float64[m]; NaN, which reaches no threshold, where a draft can't be scored.

    Example:
        >>> raw_scores([[[8.0, 1.0, 0.0, -1.0]], []], top_k=4, logprobs=None).round(3).tolist()
        [9.798, nan]
    """
    arrays = [np.asarray(draft) for draft in drafts]
    scores = np.full(len(arrays), np.nan)
    least = 1 if aggregate == "log" else top_k
    groups: dict[tuple[int, str], list[int]] = {}
    for i, array in enumerate(arrays):
        if array.ndim == 2 and len(array) and array.shape[1] >= least and array.dtype.kind in "fiu":
            groups.setdefault((array.shape[1], array.dtype.str), []).append(i)
    for members in groups.values():
        for start in range(0, len(members), _DRAFTS_AT_ONCE):
            block = members[start : start + _DRAFTS_AT_ONCE]
            rows = _rows(np.concatenate([arrays[i] for i in block]), least)
            tokens = _token_scores(rows, top_k, aggregate, formula, logprobs)
            scores[block] = _combine(tokens, np.array([len(arrays[i]) for i in block]), aggregate)
    return scores


def _rows(rows: npt.ArrayLike, least: int) -> npt.NDArray[np.floating]:
    """The rows as a float array [n, W] with W >= least."""
    try:
        array = np.asarray(rows)
    except (TypeError, ValueError, RuntimeError) as exc:  # ragged lists, tensors off the CPU
        raise InputError(
            f"rows can't be read as an array ({exc}): pass float[n, W] as numpy, on the CPU"
        ) from exc
    if array.dtype.kind in "iu":
        array = array.astype(np.float64)
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(f"rows is {array.dtype}{list(array.shape)}; it must be float[n, W]")
    if len(array) and array.shape[1] < least:
        raise InputError(
            f"{array.shape[1]} columns, but top_k={least} are needed: ask the model for "
            f"top_k={least}, or calibrate a gate for the columns that there are"
        )
    return array


def _token_scores(
    rows: npt.NDArray[np.floating],
    top_k: int,
    aggregate: Aggregate,
    formula: Formula,
    logprobs: bool | None,
) -> Floats:
    """float64[n], NaN where a row can't be scored."""
    scores = np.full(len(rows), np.nan)
    if aggregate != "log":
        top = largest(rows, top_k)
        good = ((top > _floor(rows)) & (top < _LIMIT)).all(axis=1)
        if logprobs is not False:
            floored = (top == ENGINE_FLOOR).any(axis=1)
            if logprobs is None:  # logits may hold any number: only where log-probabilities could
                floored &= (top[:, 0] > _RAREST) & (top[:, 0] < _POSITIVE)
            good &= ~floored
        scores[good] = separability(top[good], formula)
        return scores
    whole = logprobs is False or (logprobs is None and rows.shape[1] > top_k)
    peaks = rows.max(axis=1).astype(np.float64)  # NaN where a row holds one
    good = (peaks > _floor(rows)) & (peaks < (_LIMIT if whole else _POSITIVE))
    if not whole:
        scores[good] = np.minimum(peaks[good], 0.0)
        return scores
    for i in np.flatnonzero(good):  # row by row: float64[n, V] would be gigabytes
        scores[i] = -math.log(np.exp(rows[i].astype(np.float64) - peaks[i]).sum())
    return scores


def _floor(rows: npt.NDArray[np.floating]) -> float:
    """At or below it a value is a mask: -inf, or the lowest number of its type."""
    return max(-_LIMIT, float(np.finfo(rows.dtype).min))


def _why(row: npt.NDArray[np.floating], i: int, top_k: int, aggregate: Aggregate) -> str:
    """The reason why row i has no score."""
    peak = float(row.max())
    if math.isnan(peak):
        return f"row {i} holds NaN: the model's numbers are broken there, often a float16 overflow"
    if not peak < _LIMIT:
        return f"row {i} holds {peak}: a logit must be finite"
    if aggregate == "log" and peak > 0:
        return (
            f"row {i} holds {peak:.4g}, which is no log-probability, and a cut row must hold "
            "those for 'log': pass them, or the whole vocabulary's logits with logprobs=False"
        )
    top = largest(row[None], 1 if aggregate == "log" else top_k)[0]
    masked = int(((top <= _floor(row)) | (top == ENGINE_FLOOR)).sum())
    return (
        f"row {i}: {masked} of the top {top.size} tokens are masked (-inf or an engine's "
        f"{ENGINE_FLOOR}), so that fewer than {top.size} compete: the score is not defined there; "
        "draft without constrained decoding"
    )


def _combine(tokens: Floats, lengths: npt.NDArray[np.int_], aggregate: Aggregate) -> Floats:
    """Aggregates each run of `lengths[i]` >= 1 tokens; a NaN makes its whole run NaN."""
    starts = np.cumsum(lengths) - lengths
    lowest: Floats = np.minimum.reduceat(tokens, starts)
    if aggregate == "min":
        return lowest
    # What stands above the lowest is averaged: equal tokens then give exactly their value, and
    # rounding can't put bottom20 below min or above mean.
    above = tokens - np.repeat(lowest, lengths)
    if aggregate == "bottom20":
        run = np.repeat(np.arange(lengths.size), lengths)
        above = above[np.lexsort((above, run))]
        kept = np.maximum(1, lengths // 5)  # floor(0.2 n) without the rounding of 0.2
        above = above[np.arange(tokens.size) - starts[run] < kept[run]]
        lengths, starts = kept, np.cumsum(kept) - kept
    mean: Floats = lowest + np.add.reduceat(above, starts) / lengths
    return mean
