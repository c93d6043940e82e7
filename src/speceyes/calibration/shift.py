"""Alarm on distribution shift of the scores, against those of the calibration.

A conformal test martingale (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World,
ch. 8). Each new score is ranked among all before it, calibration included; as long as they are
exchangeable, the ranks are independent and uniform on 0 to 1, whatever the scores' distribution.
The martingale bets that they are not, and by Ville's inequality reaches 1 / delta with
probability delta at most, ever, if they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, final

import numpy as np
import numpy.typing as npt

from speceyes.errors import InputError

_WIDTH: Final = 0.02  # in asinh(raw): about 2% of a large score
_REACH: Final = 15.0  # asinh of a million and a half, from where on scores are ties
BINS: Final = 2 + round(2 * _REACH / _WIDTH)
"""Bin 0 is for queries without a score; the rest are fixed, so that no data shapes them."""

CELLS: Final = 10
_MEMORY: Final = 1 - 1 / 500  # how fast earlier ranks are forgotten
_CAUTION: Final = 0.5  # what share isn't staked
_LARGEST: Final = 1e200


def bins(raw: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The bin, 0 to BINS - 1, of each raw score; NaN, no score, is 0.

    Example:
        >>> bins([float("nan"), 0.0, 6.5, 6.5001]).tolist()
        [0, 751, 879, 879]
    """
    scores = np.asarray(raw, dtype=np.float64)
    if np.isinf(scores).any():
        raise InputError("a raw score is infinite; a draft without one has NaN or None")
    missing = np.isnan(scores)
    reach = np.arcsinh(np.where(missing, 0.0, scores))
    number = np.floor((np.clip(reach, -_REACH, _REACH) + _REACH) / _WIDTH).astype(np.int64)
    return np.where(missing, 0, 1 + number)


def count_scores(raw: npt.ArrayLike) -> tuple[tuple[int, int], ...]:
    """(bin, count) of the raw scores, only where there are any.

    Example:
        >>> count_scores([6.5, 6.5, None])
        ((0, 1), (879, 2))
    """
    counts = np.bincount(bins(np.array(raw, dtype=np.float64)))
    return tuple((int(b), int(counts[b])) for b in np.flatnonzero(counts))


@final
class ShiftMartingale:
    """Watches raw scores, one at a time; not for several threads at once.

    Args:
        reference: (bin, count) of the scores that were there before: `Calibration.score_counts`.
        seed: Of the lots among ties; None takes the entropy of the system.

    Example:
        >>> alarm = ShiftMartingale(count_scores(np.random.default_rng(0).gamma(4, 2, 500)))
        >>> for score in np.random.default_rng(1).gamma(2, 2, 500):
        ...     alarm.observe(score)
        >>> alarm.evidence > 1000
        True
    """

    def __init__(
        self, reference: Iterable[tuple[int, int]] = (), *, seed: int | None = None
    ) -> None:
        self._counts = np.zeros(BINS, dtype=np.int64)
        for number, count in reference:
            if not (0 <= number < BINS and count >= 0):
                raise InputError(f"({number}, {count}) is no bin from 0 to {BINS - 1} with a count")
            self._counts[number] += count
        self._total = int(self._counts.sum())
        self._random = np.random.default_rng(seed)
        self._memory = np.zeros(CELLS)
        self._wealth = 0.0
        self.observed = 0

    @property
    def evidence(self) -> float:
        """The martingale: 1 at first, and at least 1 / delta with probability delta if no shift."""
        return self._wealth + 1 / (self.observed + 1)

    def observe(self, raw: float | None) -> None:
        """Takes in the score of the next query; None where it has none."""
        self.bet(self.rank(raw))

    def rank(self, raw: float | None) -> float:
        """Ranks a score among those before it, ties by lot, and remembers it.

        Returns:
            Uniform on 0 to 1 where it is exchangeable with those before; small where it is low.
        """
        at = int(bins(np.nan if raw is None else raw))
        self._counts[at] += 1
        self._total += 1
        below = int(self._counts[:at].sum())
        return (below + self._random.random() * int(self._counts[at])) / self._total

    def bet(self, rank: float) -> None:
        """Plays one round of the martingale."""
        wealth, memory = play(
            np.array([self._wealth]), self._memory[None], np.array([rank]), self.observed
        )
        self._wealth, self._memory = float(wealth[0]), memory[0]
        self.observed += 1

    def state(self) -> dict[str, Any]:
        """Everything, as JSON can carry it."""
        return {
            "counts": [[int(b), int(self._counts[b])] for b in np.flatnonzero(self._counts)],
            "memory": self._memory.tolist(),
            "wealth": self._wealth,
            "observed": self.observed,
            "random": self._random.bit_generator.state,
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> ShiftMartingale:
        """The one whose `state` it is; it goes on as that one would have."""
        alarm = cls([(int(b), int(c)) for b, c in state["counts"]])
        alarm._memory = np.array(state["memory"], dtype=np.float64).reshape(CELLS)
        alarm._wealth = float(state["wealth"])
        alarm.observed = int(state["observed"])
        alarm._random.bit_generator.state = state["random"]
        return alarm


def play(
    wealth: npt.NDArray[np.float64],
    memory: npt.NDArray[np.float64],
    ranks: npt.NDArray[np.float64],
    played: int,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """One round of many martingales at once.

    A bet f >= 0 with a mean of 1 under uniform ranks: the histogram of recent ranks, mixed with
    doing nothing. New capital 1 / (j (j + 1)) enters at each round j, so that a shift that comes
    late isn't drowned by what was lost before; all capital together is 1.

    Args:
        wealth: float64[r], the capital that is in play; 0 at first.
        memory: float64[r, CELLS], the histogram of recent ranks; 0 at first.
        ranks: float64[r], from 0 to 1.
        played: How many rounds were played before.

    Returns:
        wealth and memory after the round.
    """
    rows = np.arange(ranks.size)
    cell = np.minimum((ranks * CELLS).astype(np.int64), CELLS - 1)
    guess = CELLS * (memory[rows, cell] + 1) / (memory.sum(axis=1) + CELLS)
    factor = _CAUTION + (1 - _CAUTION) * guess
    j = played + 1
    wealth = np.minimum((wealth + 1 / (j * (j + 1))) * factor, _LARGEST)
    memory = memory * _MEMORY
    memory[rows, cell] += 1
    return wealth, memory
