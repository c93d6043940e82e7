"""Exact binomial tails and the p-values built on them; numpy only.

All test the same null hypothesis: the risk is at least the target. With `errors` bad ones among
`drafts` independent drafts, a p-value p satisfies P(p <= u) <= u for every u whenever the null
hypothesis holds, so that p <= delta lets a threshold be certified with confidence 1 - delta.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

Test: TypeAlias = Literal["binomial", "hoeffding-bentkus"]
Counts: TypeAlias = npt.NDArray[np.int64]

TESTS: Final[tuple[Test, ...]] = get_args(Test)

_AT_ONCE: Final = 1024  # terms summed at once for many chances: bounds the memory


@lru_cache(maxsize=1 << 14)
def binomial_cdf(k: int, n: int, p: float) -> float:
    """P(X <= k) for X ~ Bin(n, p), summed term by term in float64.

    The latest 16,384 results are kept: a curve's counts come again in each calibration on the same
    drafts, and whenever it is checked.

    Args:
        k: Successes; below 0 the probability is 0, from n on it is 1.
        n: Trials.
        p: Chance of a success, strictly between 0 and 1.

    Example:
        >>> round(binomial_cdf(1, 3, 0.5), 9)
        0.5
    """
    if k < 0:
        return 0.0
    if k >= n:
        return 1.0
    logs = _log_factorials(1 << n.bit_length())
    i = np.arange(k + 1)
    terms = logs[n] - logs[: k + 1] - logs[n - i] + i * math.log(p) + (n - i) * math.log1p(-p)
    return min(1.0, float(np.exp(terms).sum()))


def p_value(errors: int, drafts: int, target: float, test: Test = "binomial") -> float:
    """Probability of so few errors, were the risk as large as the target.

    "binomial" is exact for errors that are 0 or 1: P(Bin(drafts, target) <= errors).
    "hoeffding-bentkus" is that of Bates et al. (arXiv 2101.02703), which Learn then Test uses: the
    smaller of exp(-n h(r, target)) and e P(Bin(n, target) <= ceil(n r)), with r the observed
    risk and h the Bernoulli relative entropy; it holds for losses anywhere in 0 to 1, and is
    never the smaller of the two on losses of 0 or 1.

    Args:
        errors: Bad drafts, 0 to `drafts`.
        drafts: Drafts looked at; with none the p-value is 1.
        target: The risk to stay under, strictly between 0 and 1.
        test: Which of the two.

    Example:
        >>> round(p_value(0, 45, 0.05), 4)
        0.0994
    """
    if drafts == 0:
        return 1.0
    exact = binomial_cdf(errors, drafts, target)
    if test == "binomial":
        return exact
    return min(1.0, math.exp(-_entropy(errors, drafts, target)), math.e * exact)


def allowed_errors(most: int, target: float, delta: float, test: Test = "binomial") -> Counts:
    """For m = 0..most drafts, the most errors with p_value(errors, m, target) <= delta.

    Returns:
        int64[most + 1]; -1 where not even 0 errors suffice. Never falls as m grows.

    Example:
        >>> [int(allowed_errors(200, 0.05, 0.1)[m]) for m in (44, 45, 76, 77)]
        [-1, 0, 0, 1]
    """
    return _allowed(1 << most.bit_length(), target, delta, test)[: most + 1]


@lru_cache(maxsize=64)
def _allowed(most: int, target: float, delta: float, test: Test) -> Counts:
    if test == "binomial":
        allowed = _allow_exactly(most, target, delta)
    else:
        bentkus = _allow_exactly(most, target, delta / math.e)
        allowed = np.maximum(bentkus, _allow_by_hoeffding(most, target, delta))
    allowed.setflags(write=False)
    return allowed


def _allow_exactly(most: int, target: float, delta: float) -> Counts:
    """The table for the binomial test, in one pass.

    `errors` is the least number that is too many, and tail = P(Bin(m, target) <= errors), which
    is kept up to date by P(Bin(m + 1) <= k) = P(Bin(m) <= k) - target P(Bin(m) = k). All numbers
    are of the size of delta, so nothing cancels.
    """
    allowed = np.full(most + 1, -1, dtype=np.int64)
    logs = _log_factorials(1 << most.bit_length())
    log_p, log_q = math.log(target), math.log1p(-target)

    def mass(k: int, m: int) -> float:
        return math.exp(logs[m] - logs[k] - logs[m - k] + k * log_p + (m - k) * log_q)

    errors, tail = 0, 1.0
    for m in range(1, most + 1):
        tail -= target * mass(errors, m - 1)
        if tail <= delta:  # then one more is allowed, and never two: a draft has one error at most
            errors += 1
            tail += mass(errors, m)
        allowed[m] = errors - 1
    return allowed


def _allow_by_hoeffding(most: int, target: float, delta: float) -> Counts:
    allowed = np.full(most + 1, -1, dtype=np.int64)
    errors, needed = -1, -math.log(delta)
    for m in range(1, most + 1):
        while _entropy(errors + 1, m, target) >= needed:
            errors += 1
        allowed[m] = errors
    return allowed


def _entropy(errors: int, drafts: int, target: float) -> float:
    """The exponent n h(r, target) for an observed risk r below the target, else 0."""
    rate = errors / drafts
    if rate >= target:
        return 0.0
    entropy = (1 - rate) * math.log((1 - rate) / (1 - target))
    if errors:
        entropy += rate * math.log(rate / target)
    return drafts * entropy


@lru_cache(maxsize=32)
def _log_factorials(most: int) -> npt.NDArray[np.float64]:
    """ln(0!), ..., ln(most!); each on its own, so that no rounding adds up."""
    logs = np.array([math.lgamma(i + 1) for i in range(most + 1)])
    logs.setflags(write=False)
    return logs


def binomial_cdfs(k: int, n: int, p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`binomial_cdf` for many chances of a success, each strictly between 0 and 1.

    Example:
        >>> binomial_cdfs(1, 3, np.array([0.5, 0.1])).round(3).tolist()
        [0.5, 0.972]
    """
    if k < 0 or k >= n:
        return np.full(p.shape, float(k >= n))
    logs = _log_factorials(1 << n.bit_length())
    total = np.zeros(p.shape)
    for first in range(0, k + 1, _AT_ONCE):
        i = np.arange(first, min(k + 1, first + _AT_ONCE))
        ways = logs[n] - logs[i] - logs[n - i]
        terms = ways[:, None] + i[:, None] * np.log(p) + (n - i)[:, None] * np.log1p(-p)
        total += np.exp(terms).sum(axis=0)
    return np.minimum(1.0, total)
