"""Calibration for queries whose scores have drifted since labels were made.

Weights for the drift would have to be known, and estimated ones carry an error that the promise
doesn't count. Here no weight is estimated: new queries, of which only the scores are known, are
gone through one by one, and each takes the label of an unused labelled draft with (about) the same
score, drawn by lot. Where drafts of one score are as often bad now as they were, these are labelled
new queries, as good as if a person had labelled them; `calibrate` does the rest. A new query that
finds no labelled draft left counts as bad, so that a drift beyond the labels can only be on the
safe side, up to the point where nothing can be certified, which is said.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from speceyes.calibration.fit import arrays, calibrate
from speceyes.calibration.images import Keys, clusters_of, one_each
from speceyes.calibration.provenance import Scoring
from speceyes.calibration.record import Calibration
from speceyes.calibration.shift import BINS, bins
from speceyes.errors import CalibrationError, InputError

Floats: TypeAlias = npt.NDArray[np.float64]

_MERGED: Final = 4
"""Bins of the shift alarm that are one cell here: scores within 8 % of each other are alike."""
_SPARSE: Final = 0.02
"""Share of the new scores below which a cell takes in the next, up to four."""
_SIZES: Final = tuple(0.8**k for k in range(18))
_LACKING: Final = {"overall": 0.25, "selective": 0.05}
"""Share of the target that new queries without a labelled draft may make up. They are mostly those
of the highest scores, where a selective risk is tested first.
"""


def calibrate_shifted(
    scores: npt.ArrayLike,
    bad: npt.ArrayLike,
    new_scores: npt.ArrayLike,
    scoring: Scoring,
    *,
    let_through: npt.ArrayLike | None = None,
    new_let_through: npt.ArrayLike | None = None,
    image_key: Keys | None = None,
    new_image_key: Keys | None = None,
    target: float = 0.05,
    seed: int = 0,
    **options: Any,
) -> Calibration:
    """The calibration that labels of earlier queries allow for new ones without labels.

    Args:
        scores: float[n] of labelled drafts, as in `calibrate`.
        bad: Their labels, as in `calibrate`.
        new_scores: float[m], raw scores of new queries' drafts, drawn independently as those to
            come will be; NaN or None where a draft has none.
        scoring: What both were made with.
        let_through: bool[n]; see `calibrate`.
        new_let_through: bool[m], of the new queries.
        image_key: See `calibrate`; of the labelled queries.
        new_image_key: Of the new ones.
        target: See `calibrate`.
        seed: Draws all lots.
        **options: Further arguments of `calibrate`.

    Returns:
        A calibration whose n is the number of new queries that were matched.

    Raises:
        CalibrationError: The drift doesn't allow it: too many new scores lie where there are no
            labels. The message says where.
        InputError: See `calibrate`.
        ConfigError: See `calibrate`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> old, new = rng.gamma(4, 2, 3000), rng.gamma(3.5, 2, 2000)
        >>> bad = rng.random(3000) < 0.3 * np.exp(-0.3 * old)
        >>> found = calibrate_shifted(old, bad, new, Scoring("small", "ab12"))
        >>> found.certified, found.drawn_like
        (True, 2000)
    """
    raw, loss = arrays(scores, bad, let_through)
    raw_new, _ = arrays(new_scores, np.zeros(np.size(new_scores)), new_let_through)
    if image_key is not None:
        at = one_each(clusters_of(image_key, raw.size), seed)
        raw, loss = raw[at], loss[at]
    if new_image_key is not None:
        raw_new = raw_new[one_each(clusters_of(new_image_key, raw_new.size), seed)]
    if raw_new.size < 2:
        raise InputError(f"{raw_new.size} new scores; there must be many, to be matched")
    random = np.random.default_rng([seed, 11])
    order = random.permutation(raw_new.size)
    planning, queue = raw_new[order[: order.size // 4]], raw_new[order[order.size // 4 :]]
    cells = _Cells(planning)
    bearable = target * _LACKING[str(options.get("risk", "selective"))]
    half = float(np.nanmedian(planning)) if not np.isnan(planning).all() else 0.0
    high = int(cells.of(np.array([half]))[0])  # labels that lack further down only shut the gate
    size = next((s for s in _sizes(queue.size) if cells.lack(raw, s, high) <= bearable), None)
    if size is None:
        raise CalibrationError(cells.described(raw, target))
    matched, labels = _match(raw, loss, queue[:size], cells, random)
    found = calibrate(matched, labels, scoring, target=target, seed=seed, **options)
    if not found.certified and cells.lack(raw, size, 1) > target:
        raise CalibrationError(cells.described(raw, target))
    return dataclasses.replace(found, drawn_like=int(np.size(new_scores)))


def _sizes(most: int) -> list[int]:
    """Numbers of new queries that are tried, the largest first."""
    return [size for share in _SIZES if (size := int(share * most))]


class _Cells:
    """Cells of scores that are alike, made from new scores that are used for nothing else.

    Args:
        planning: Those new scores.
    """

    def __init__(self, planning: Floats) -> None:
        self.planning = planning
        fine = 1 + bins(planning[~np.isnan(planning)]) // _MERGED
        counts = np.bincount(fine, minlength=2 + BINS // _MERGED)
        self._cell = np.zeros(counts.size, dtype=np.int64)
        cell = wide = held = 0
        for at in range(1, counts.size):
            if wide == 0 or wide == 4 or held >= _SPARSE * planning.size:
                cell, wide, held = cell + 1, 0, 0
            self._cell[at] = cell
            wide, held = wide + 1, held + int(counts[at])

    def of(self, raw: Floats) -> npt.NDArray[np.int64]:
        """The cell of each score; 0 where it has none."""
        missing = np.isnan(raw)
        fine = 1 + bins(np.where(missing, 0.0, raw)) // _MERGED
        found: npt.NDArray[np.int64] = np.where(missing, 0, self._cell[fine])
        return found

    def lacking(self, raw: Floats, size: int) -> dict[int, float]:
        """Share of so many new queries that will find no labelled draft, by cell, as expected."""
        have = np.bincount(self.of(raw), minlength=int(self._cell.max()) + 1)
        numbers, counts = np.unique(self.of(self.planning), return_counts=True)
        lacking = {}
        for cell, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            short = count / self.planning.size - int(have[cell]) / size
            if cell and short > 0:
                lacking[cell] = short
        return lacking

    def lack(self, raw: Floats, size: int, least: int) -> float:
        """That share over all cells from the least on."""
        return sum(short for cell, short in self.lacking(raw, size).items() if cell >= least)

    def described(self, raw: Floats, target: float) -> str:
        """Where labels are lacking, in words."""
        lacking = self.lacking(raw, self.planning.size)
        worst = max(lacking, key=lambda cell: lacking[cell])
        inside = self.planning[self.of(self.planning) == worst]
        old = int((self.of(raw) == worst).sum())
        return (
            f"the drift doesn't allow it: {sum(lacking.values()):.0%} of the new scores lie where "
            f"labels are lacking, which is more than a target of {target:g} can bear; most so "
            f"around {float(np.median(inside)):.3g}, where {inside.size} of {self.planning.size} "
            f"new scores and {old} of {raw.size} labelled ones are. Label queries drawn as the new "
            "ones are"
        )


def _match(
    raw: Floats,
    loss: npt.NDArray[np.bool_],
    queue: Floats,
    cells: _Cells,
    random: np.random.Generator,
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Scores and labels of the labelled drafts that the new ones take, in the new ones' order."""
    left: dict[int, list[int]] = {}
    own = cells.of(raw)
    for at in random.permutation(raw.size).tolist():
        left.setdefault(int(own[at]), []).append(at)
    scores, labels = queue.copy(), np.ones(queue.size, dtype=bool)
    for place, cell in enumerate(cells.of(queue).tolist()):
        if cell == 0:
            labels[place] = False  # never accepted
        elif left.get(cell):
            at = left[cell].pop()
            scores[place], labels[place] = raw[at], loss[at]
    return scores, labels
