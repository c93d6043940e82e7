"""Labelling until a threshold is certified, with a guarantee that holds at whatever moment that is.

To calibrate again after every few labels, and to stop at the first success, is many tries at one
guarantee. Here each threshold of a grid has a bettor against "the risk is at least the target"
(Waudby-Smith and Ramdas, arXiv 2010.09686; for risk control Xu, Karampatziakis and Mineiro,
arXiv 2406.10490). Where that is true, its capital reaches 1 / delta with probability delta at
most, ever (Ville). Thresholds are certified in chains, from a strict one to looser ones, each only
after all before it, so that the first false one of a chain decides and delta needn't be divided
further (a fixed sequence). A strict threshold that accepts next to nothing would hold up the rest;
so there are four chains for a selective risk, each with a quarter of delta, that begin at different
places.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, final

import numpy as np
import numpy.typing as npt
from PIL.Image import Image

from speceyes.calibration.images import keys_of
from speceyes.checks import (
    checked_choice,
    checked_numbers,
    checked_outcome,
    checked_score,
    checked_share,
)
from speceyes.errors import ConfigError, InputError
from speceyes.scoring.scales import to_unit

if TYPE_CHECKING:
    from speceyes.calibration.provenance import Scoring
    from speceyes.calibration.record import Calibration, Labels, Risk

Floats = npt.NDArray[np.float64]

_SHARES: Final = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
"""Risks that bets are placed on, as shares of the target; capital is spread evenly."""
GRID: Final = tuple(
    np.concatenate([np.arange(0.5, 0.9, 0.05), 1 - np.geomspace(0.1, 1e-5, 25)]).round(12).tolist()
)
"""Thresholds that are tried by default."""


STARTS: Final = (0.999, 0.99, 0.97, 0.9)
"""Thresholds that chains begin at, for a selective risk."""


def log_evidence(bad: npt.ArrayLike, drafts: npt.ArrayLike, target: float) -> Floats:
    """Logarithm of the capital of a bettor against a risk of at least the target.

    A bet on the risk q < target pays q / target for a bad draft and (1 - q) / (1 - target) for a
    good one, which gains nothing on average where the risk is at least the target.

    Args:
        bad: Bad drafts, any shape.
        drafts: All drafts, same shape.
        target: The risk.
    """
    k, n = np.asarray(bad, dtype=np.float64)[..., None], np.asarray(drafts)[..., None]
    q = _SHARES * target
    with np.errstate(divide="ignore", invalid="ignore"):
        lost = np.where(k > 0, k * np.log(q / target), 0.0)
    capital = lost + (n - k) * np.log((1 - q) / (1 - target))
    peak = capital.max(axis=-1, keepdims=True)
    total: Floats = (peak + np.log(np.exp(capital - peak).mean(axis=-1, keepdims=True)))[..., 0]
    return total


def evidence_below(bad: int, drafts: int, target: float) -> float:
    """The capital itself, at most 1e300.

    Example:
        >>> evidence_below(0, 0, 0.05), evidence_below(0, 100, 0.05) > 10
        (1.0, True)
    """
    return math.exp(min(690.0, float(log_evidence(bad, drafts, target))))


@final
class SequentialCalibration:
    """Takes labels one at a time and certifies as soon as they allow it.

    Labelled queries must be drawn independently, as those that come later will be; when to stop
    may depend on everything. Not for several threads at once.

    Args:
        scoring: What the scores were made with.
        risk: "selective" or "overall"; see `Calibration`.
        target: The risk to stay under.
        delta: One minus the confidence, over all moments together.
        labels: What makes a draft bad.
        thresholds: Thresholds from 0 to below 1 that are tried, fixed before the first label.
        starts: Thresholds that chains begin at, each with an equal part of delta; None begins at
            `STARTS`, or for an overall risk at the strictest threshold.
        judge: See `Calibration`.

    Raises:
        ConfigError: An argument out of range.

    Example:
        >>> from speceyes.calibration import Scoring
        >>> labelling = SequentialCalibration(Scoring("small", "ab12"), target=0.1)
        >>> rng = np.random.default_rng(0)
        >>> while labelling.threshold is None:
        ...     score = rng.gamma(4, 3)
        ...     labelling.add(score, rng.random() < 0.4 * np.exp(-0.4 * score))
        >>> labelling.calibration().certified
        True
    """

    def __init__(
        self,
        scoring: Scoring,
        *,
        risk: Risk = "selective",
        target: float = 0.05,
        delta: float = 0.1,
        labels: Labels = "wrong",
        thresholds: Sequence[float] = GRID,
        starts: Sequence[float] | None = None,
        judge: str | None = None,
    ) -> None:
        from speceyes.calibration.record import MEANINGS

        checked_choice("risk", risk, ("selective", "overall"))
        checked_choice("labels", labels, tuple(MEANINGS))
        self.scoring, self.risk, self.labels, self.judge = scoring, risk, labels, judge
        self.target = checked_share("target", target)
        self.delta = checked_share("delta", delta)
        grid = np.unique(checked_numbers("thresholds", thresholds))[::-1]
        if not grid.size or not ((grid >= 0) & (grid < 1)).all():
            raise ConfigError(f"thresholds={thresholds!r}; they must lie from 0 to below 1")
        if starts is None:
            starts = STARTS if risk == "selective" else (float(grid[0]),)
        self._grid = grid
        if not np.size(starts) or np.isnan(checked_numbers("starts", starts)).any():
            raise ConfigError(f"starts={starts!r}; name at least one threshold, or None for all")
        begins = {int(np.searchsorted(-grid, -float(start))) for start in starts}
        self._chains = sorted(begins & set(range(grid.size))) or [0]
        """The place in the grid that each chain tests next."""
        self._needed = math.log(len(self._chains) / self.delta)
        self._loosest = -1
        self._certified = np.zeros(grid.size, dtype=bool)
        self._accepted = np.zeros(grid.size, dtype=np.int64)
        self._bad = np.zeros(grid.size, dtype=np.int64)
        self._peak = np.zeros(grid.size)
        self._at_peak = np.zeros((3, grid.size), dtype=np.int64)
        self._scores: list[float] = []
        self._images: set[Hashable] = set()

    @property
    def n(self) -> int:
        """Labelled queries so far."""
        return len(self._scores)

    @property
    def threshold(self) -> float | None:
        """The loosest threshold that is certified by now; None where there is none yet."""
        return float(self._grid[self._loosest]) if self._loosest >= 0 else None

    def add(
        self,
        score: float | None,
        bad: bool,
        *,
        let_through: bool = True,
        image_key: Hashable | Image | Sequence[Hashable | Image] | None = None,
    ) -> None:
        """Takes in a labelled query.

        Args:
            score: The draft's raw score; None where it has none.
            bad: Its label; without effect where no threshold accepts the draft.
            let_through: False where the judge sends the query to the agent.
            image_key: Its image, or a key of it, or several; a query about an image that was
                labelled before is left out, since it isn't drawn independently.

        Raises:
            InputError: The score is no number or infinite, or the label of a draft that a
                threshold may accept is neither True nor False; nothing was taken in.
        """
        raw = checked_score(score)
        if not checked_outcome("let_through", let_through):
            raw = math.nan
        wrong = checked_outcome("bad", bad) if raw == raw else False
        if image_key is not None:
            keys = keys_of(image_key)
            seen = not self._images.isdisjoint(keys)
            self._images.update(keys)
            if seen:
                return
        self._scores.append(raw)
        log = self.scoring.aggregate == "log"
        unit = to_unit(raw, log=log, sharpness=self.scoring.sharpness) if raw == raw else -1.0
        taken = min(unit, math.nextafter(1.0, 0.0)) >= self._grid
        self._accepted += taken
        self._bad += taken & wrong
        drafts = self._accepted if self.risk == "selective" else np.full_like(self._bad, self.n)
        now = log_evidence(self._bad, drafts, self.target)
        higher = now > self._peak
        self._peak[higher] = now[higher]
        counts = np.stack([np.full_like(self._bad, self.n), self._accepted, self._bad])
        self._at_peak[:, higher] = counts[:, higher]
        for chain, at in enumerate(self._chains):
            while at < self._grid.size and self._peak[at] >= self._needed:
                self._certified[at] = True
                at += 1
            self._chains[chain] = at
        # One may be certified before anything reaches it, and is of use once something does.
        of_use = np.flatnonzero(self._certified & (self._at_peak[1] > 0))
        self._loosest = int(of_use[-1]) if of_use.size else -1

    def calibration(self) -> Calibration:
        """The calibration by now, certified or not; its counts are those of the moment at which
        the evidence for its threshold was greatest, so that later ones don't unmake it.
        """
        from speceyes.calibration.record import Calibration
        from speceyes.calibration.shift import count_scores

        if not self._scores:
            raise InputError("nothing was labelled yet")
        n, accepted, bad = self.n, 0, 0
        if self._loosest >= 0:
            n, accepted, bad = self._at_peak[:, self._loosest].tolist()
        return Calibration(
            threshold=self.threshold,
            scoring=self.scoring,
            risk=self.risk,
            target=self.target,
            delta=self.delta,
            method="betting",
            labels=self.labels,
            n=n,
            accepted=accepted,
            bad=bad,
            score_counts=count_scores(self._scores[:n]),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            judge=self.judge,
        )
