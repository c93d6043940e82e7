"""Evidence that a risk is above what was promised, valid at every moment at once.

Betting against "the risk is at most the target" (Waudby-Smith and Ramdas, arXiv 2010.09686;
Shafer, arXiv 1903.06991). A bet pays q / target on a bad draft and (1 - q) / (1 - target) on a
good one, with q > target: where the risk of each draft, given those before, is at most the
target, no such bet gains on average. So the capital, 1 at first, is a nonnegative
supermartingale, and reaches 1 / delta with probability delta at most, ever (Ville).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, final

import numpy as np
import numpy.typing as npt

from speceyes.checks import checked_share
from speceyes.errors import InputError

Floats = npt.NDArray[np.float64]

_SHIFTS: Final = np.geomspace(0.05, 8.0, 24)
"""Distances of the bets' log-odds of a bad draft from the target's; capital is spread evenly."""
_LARGEST: Final = 1e200  # capital is capped there, which keeps it a supermartingale
_HALVINGS: Final = 60


@final
class RiskEvidence:
    """The capital of a bettor against a target; not for several threads at once.

    Args:
        target: The risk that was promised.

    Example:
        >>> evidence = RiskEvidence(0.05)
        >>> for bad in [False] * 10 + [True] * 10:
        ...     evidence.add(bad)
        >>> evidence.value > 1000
        True
    """

    def __init__(self, target: float) -> None:
        self.target = checked_share("target", target)
        self.seen = 0
        self.bad = 0
        self._wealth = np.zeros((1, _SHIFTS.size))

    @property
    def value(self) -> float:
        """The capital: at least 1 / delta with probability delta where the promise holds."""
        return float(self._wealth.sum()) + 1 / (self.seen + 1)

    def add(self, bad: bool) -> None:
        """Takes in whether the next draft was bad."""
        self._wealth = play(self._wealth, np.array([bad]), self.seen, self.target)
        self.seen += 1
        self.bad += bool(bad)

    def state(self) -> dict[str, Any]:
        """Everything, as JSON can carry it."""
        return {
            "target": self.target,
            "seen": self.seen,
            "bad": self.bad,
            "wealth": self._wealth[0].tolist(),
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> RiskEvidence:
        """The one whose `state` it is; it goes on as that one would have."""
        evidence = cls(state["target"])
        evidence.seen, evidence.bad = int(state["seen"]), int(state["bad"])
        evidence._wealth = np.array(state["wealth"], dtype=np.float64).reshape(1, _SHIFTS.size)
        return evidence


def play(wealth: Floats, bad: npt.NDArray[np.bool_], played: int, target: float) -> Floats:
    """One round of many bettors at once.

    New capital 1 / (j (j + 1)) enters at each round j, all of it together 1: a risk that rises
    late is met by capital that lost nothing while it was low.

    Args:
        wealth: float64[r, 24], the capital in play by bet; 0 at first.
        bad: bool[r].
        played: How many rounds were played before.
        target: The risk that was promised.
    """
    scale = 1 / (1 - target + target * np.exp(_SHIFTS))
    factor = np.where(bad[:, None], np.exp(_SHIFTS) * scale, scale)
    j = played + 1
    fresh = 1 / (j * (j + 1) * _SHIFTS.size)
    return np.minimum((wealth + fresh) * factor, _LARGEST)


def bounds(bad: int, seen: int, delta: float = 0.05) -> tuple[float, float]:
    """Bounds on the mean risk so far that hold at all times at once with probability 1 - delta.

    The mean is over the drafts seen of each one's risk given those before it, so it may drift.
    Where the lower bound is above a target, `RiskEvidence` for it has reached 1 / delta.

    Args:
        bad: Bad drafts.
        seen: All drafts.
        delta: How likely the mean may leave the bounds, ever, on either side.

    Raises:
        InputError: bad is not within 0 to seen.

    Example:
        >>> low, high = bounds(5, 100, 0.1)
        >>> round(low, 3), round(high, 3)
        (0.008, 0.143)
    """
    delta = checked_share("delta", delta)
    if not 0 <= bad <= seen:
        raise InputError(f"bad={bad} of seen={seen}; 0 <= bad <= seen is needed")
    return _lower(bad, seen, delta / 2), 1 - _lower(seen - bad, seen, delta / 2)


def _lower(bad: int, seen: int, delta: float) -> float:
    """The largest risk that bets from the first draft on refute, and with it all below."""
    low, high = 0.0, bad / seen if seen else 0.0
    needed = math.log(_SHIFTS.size / delta)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        capital = _SHIFTS * bad - seen * np.log1p(middle * np.expm1(_SHIFTS))
        peak = capital.max()
        refuted = peak + math.log(np.exp(capital - peak).sum()) >= needed
        low, high = (middle, high) if refuted else (low, middle)
    return low
