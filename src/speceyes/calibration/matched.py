"""Test of a risk relative to the agent: agreement of all queries, gold answers of a few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np
import numpy.typing as npt

from speceyes.calibration.binomial import binomial_cdfs

_CELLS: Final = 200
_STAKES: Final = np.array([0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
"""Bets on a mean below the one tested, as shares of the largest stake that can't go broke."""


@final
@dataclass(frozen=True, slots=True)
class Gold:
    """Accepted drafts that differ from the agent's answer, and what gold answers say of some.

    Args:
        differing: How many there are.
        labelled: How many of these have a gold answer.
        worse: How many of those are wrong where the agent is right.
        better: How many are right where the agent is wrong; None where that isn't credited.
    """

    differing: int
    labelled: int
    worse: int
    better: int | None = None

    def none(self) -> Gold:
        """The counts where nothing is accepted."""
        return Gold(0, 0, 0, None if self.better is None else 0)

    def fault(self, accepted: int) -> str | None:
        """Contradiction among the counts of so many accepted drafts; None where all is well."""
        numbers = [self.differing, self.labelled, self.worse, self.better or 0]
        if any(isinstance(one, bool) or not isinstance(one, int) or one < 0 for one in numbers):
            return f"{self} must hold whole numbers from 0"
        if not self.worse + (self.better or 0) <= self.labelled <= self.differing <= accepted:
            return f"{self} among {accepted} accepted"
        return None


def matched_p_value(found: Gold, total: int, target: float) -> float:
    """P-value of "the share of all queries that is lost against the agent is at least the target".

    The share is p h: p of being accepted and differing, h the mean loss of such a draft (1 worse,
    -1 better, 0 else). For each p there is a p-value of p itself, P(Bin(total, p) <= differing),
    and one of "h is at least target / p", from gold; where gold is drawn by lot the second holds
    given the first, so that their product q gives q (1 - ln q), as Fisher combined them. The
    largest of these over all p is valid whatever p is. It is bounded from above on cells of p.

    Without credit h is a share, and its test binomial; with it h lies in -1 to 1, and is bet
    against (as in `sequence`), so that p-value is one over the capital.

    Args:
        found: Counts.
        total: All queries.
        target: Strictly between 0 and 1.

    Example:
        >>> round(matched_p_value(Gold(0, 0, 0), 100, 0.05), 3)
        0.036
        >>> matched_p_value(Gold(90, 45, 5), 1000, 0.05) < 0.01
        True
    """
    edges = np.geomspace(target, 1.0, _CELLS + 1)
    low, high = edges[:-1], edges[1:]
    agree = binomial_cdfs(found.differing, total, low)
    least = target / high
    if found.better is None:
        gold = binomial_cdfs(found.worse, found.labelled, np.minimum(least, 1 - 1e-12))
    else:
        gold = np.minimum(1.0, np.exp(-_log_capital(found, least)))
    both = np.clip(agree * gold, 1e-300, 1.0)
    return float((both * (1 - np.log(both))).max())


def _log_capital(found: Gold, mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Logarithm of the capital of a bettor against a mean loss of at least `mean`, float64[k]."""
    assert found.better is not None
    stakes = _STAKES[:, None] / (1 - np.minimum(mean, 1 - 1e-9))
    even = found.labelled - found.worse - found.better
    capital = (
        found.worse * np.log1p(stakes * (mean - 1))
        + found.better * np.log1p(stakes * (mean + 1))
        + even * np.log1p(stakes * mean)
    )
    peak = capital.max(axis=0)
    total: npt.NDArray[np.float64] = peak + np.log(np.exp(capital - peak).mean(axis=0))
    return np.clip(total, -690.0, 690.0)
