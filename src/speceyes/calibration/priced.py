"""Accuracy and cost together: a threshold that keeps a risk and is worth it, both promised.

The risk is certified from strict thresholds to looser ones, the cost from loose ones to stricter
ones, since a looser threshold sends less to the agent. A threshold where both meet keeps both
promises, with one minus the sum of the two deltas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import numpy.typing as npt

from speceyes.calibration.fit import unit_scores
from speceyes.calibration.images import Keys, clusters_of, one_each
from speceyes.calibration.record import Calibration
from speceyes.checks import checked_number, checked_share
from speceyes.errors import ConfigError, InputError

_STAKES: Final = np.array([0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])


@final
@dataclass(frozen=True, slots=True)
class Priced:
    """A calibration and what its threshold costs beside the agent alone.

    Args:
        calibration: The risk's promise.
        share: The promised cost, as a share of the agent's.
        delta: One minus the confidence of the cost's promise alone.
        measured: Cost on the queries that it was tested on, as a share of the agent's; None where
            the calibration has no threshold.
        worth_it: The cost's promise is certified at the calibration's threshold.
    """

    calibration: Calibration
    share: float
    delta: float
    measured: float | None
    worth_it: bool

    @property
    def certified(self) -> bool:
        """True where both promises hold at the calibration's threshold."""
        return self.calibration.certified and self.worth_it

    @property
    def statement(self) -> str:
        """Both promises in words."""
        if not self.calibration.certified:
            return self.calibration.statement
        if not self.worth_it:
            return (
                f"{self.calibration.statement} That it costs at most {100 * self.share:g}% of the "
                f"agent alone can't be certified (measured {100 * (self.measured or 0):.1f}%), nor "
                "can it for a stricter threshold: let the agent answer, or label more."
            )
        if self.calibration.delta is None:
            return (
                f"{self.calibration.statement} With confidence {100 * (1 - self.delta):g}%, it "
                f"costs at most {100 * self.share:g}% of the agent alone."
            )
        both = self.delta + self.calibration.delta
        return (
            f"{self.calibration.statement} It costs at most {100 * self.share:g}% of the agent "
            f"alone (measured {100 * (self.measured or 0):.1f}%). Both hold at once with "
            f"confidence {100 * (1 - both):g}%."
        )


def price(
    found: Calibration,
    scores: npt.ArrayLike,
    spent: npt.ArrayLike,
    agent: npt.ArrayLike,
    *,
    most: float,
    share: float = 1.0,
    delta: float = 0.05,
    let_through: npt.ArrayLike | None = None,
    image_key: Keys | None = None,
    seed: int = 0,
) -> Priced:
    """Tests whether a calibration's threshold is worth it, on queries that both were run on.

    Args:
        found: The risk's promise, on the same queries or on others.
        scores: float[n], as in `calibrate`.
        spent: float[n], cost of each query's judgement and draft, in any unit (seconds, money).
        agent: float[n], cost of the agent alone on the same query, in the same unit. (A fallback
            that reuses what the judge has read costs less; then this is on the safe side.)
        most: A cost that none of these can pass, such as by a time limit; fixed beforehand.
        share: Promised cost as a share of the agent's; fixed beforehand.
        delta: One minus the confidence of this promise; that of both is one minus the sum.
        let_through: bool[n]; see `calibrate`.
        image_key: See `calibrate`.
        seed: Draws lots among the rows of an image.

    Raises:
        InputError: Arrays that don't match, a negative or infinite cost, or one above `most`.
        ConfigError: An argument out of range.

    Example:
        >>> from speceyes.calibration import Scoring, calibrate
        >>> rng = np.random.default_rng(0)
        >>> scores = rng.gamma(4, 2, 600)
        >>> bad = rng.random(600) < 0.3 * np.exp(-0.3 * scores)
        >>> found = calibrate(scores, bad, Scoring("small", "ab12"), delta=0.05)
        >>> agent = rng.gamma(4, 0.5, 600).clip(0, 10)
        >>> priced = price(found, scores, np.full(600, 0.1), agent, most=10)
        >>> priced.certified, priced.measured < 1
        (True, True)
    """
    share = checked_number("share", share, 0.0, 100.0)
    delta, most = checked_share("delta", delta), checked_number("most", most, 0.0, math.inf)
    raw = np.array(scores, dtype=np.float64)
    own, alone = np.asarray(spent, dtype=np.float64), np.asarray(agent, dtype=np.float64)
    through = np.ones(raw.shape, bool) if let_through is None else np.asarray(let_through, bool)
    if raw.ndim != 1 or not raw.size or not raw.shape == own.shape == alone.shape == through.shape:
        raise InputError(
            f"scores {raw.shape}, spent {own.shape}, agent {alone.shape} and let_through "
            f"{through.shape} must be one-dimensional, not empty, and of one length"
        )
    if most == 0:
        raise ConfigError("most=0; no cost can be saved: it must be above every cost there can be")
    costs = np.concatenate([own, alone])
    if not ((costs >= 0) & (costs <= most)).all():
        raise InputError(f"a cost is negative, not a number, or above most={most:g}")
    raw[~through] = np.nan
    if image_key is not None:
        at = one_each(clusters_of(image_key, raw.size), seed)
        raw, own, alone = raw[at], own[at], alone[at]
    if found.threshold is None:
        return Priced(found, share, delta, None, False)
    unit = unit_scores(raw, found.scoring)
    accepted = unit >= found.threshold
    total = float((own + np.where(accepted, 0.0, alone)).sum())
    measured = total / float(alone.sum()) if alone.any() else math.inf
    looser = np.unique(unit[unit < found.threshold]).tolist()  # the loosest first
    passes = all(
        cost_p_value(unit >= level, own, alone, share, most) <= delta
        for level in [*looser, found.threshold]
    )
    return Priced(found, share, delta, measured, passes)


def cost_p_value(
    accepted: npt.NDArray[np.bool_],
    own: npt.NDArray[np.float64],
    alone: npt.NDArray[np.float64],
    share: float,
    most: float,
) -> float:
    """P-value of "the mean cost is at least the share of the agent's": one over the capital of
    bets on the saving of each query, which lies within the reach of the costs.
    """
    saved = share * alone - own - np.where(accepted, 0.0, alone)
    reach = most * max(1.0, 2.0 - share)  # no query loses more than that
    capital = np.log1p(_STAKES[:, None] * saved / reach).sum(axis=1)
    peak = float(capital.max())
    total = peak + math.log(float(np.exp(capital - peak).mean()))
    return min(1.0, math.exp(-min(690.0, max(0.0, total))))
