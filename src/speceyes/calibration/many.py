"""Many settings on the same labels: a choice among them that keeps the promise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final

import numpy as np
import numpy.typing as npt

from speceyes.calibration.fit import calibrate
from speceyes.calibration.images import Keys, clusters_of
from speceyes.calibration.provenance import Scoring, one_of
from speceyes.calibration.record import Calibration
from speceyes.errors import ConfigError, InputError

Correction: TypeAlias = Literal["bonferroni", "split"]
Bools: TypeAlias = npt.NDArray[np.bool_]
Cost: TypeAlias = Callable[[str, Calibration, Bools], float]
"""Cost of a setting by its name, its calibration, and the rows (bool[n]) that this is made on."""


@final
@dataclass(frozen=True, slots=True)
class Setting:
    """One way to score the same queries' drafts.

    Args:
        scores: float[n], as in `calibrate`.
        scoring: What they were made with.
        let_through: bool[n], as in `calibrate`.
        bad: bool[n], where this setting's drafts are others'; None for the labels of all.
        options: Further arguments of `calibrate`, such as `start`.
    """

    scores: npt.ArrayLike
    scoring: Scoring
    let_through: npt.ArrayLike | None = None
    bad: npt.ArrayLike | None = None
    options: Mapping[str, Any] | None = None


@final
@dataclass(frozen=True, slots=True)
class Many:
    """Calibrations of several settings that may be chosen among.

    Args:
        calibrations: By name; with "split" the chosen one only.
        best: Name of the one that costs least or accepts most; None where none was certified.
        on: bool[n], the rows that the calibrations were made on.
    """

    calibrations: Mapping[str, Calibration]
    best: str | None
    on: Bools

    @property
    def chosen(self) -> Calibration:
        """The best one's calibration, or any that says that there is no threshold."""
        name = self.best or next(iter(self.calibrations))
        return self.calibrations[name]


def calibrate_many(
    settings: Mapping[str, Setting],
    bad: npt.ArrayLike,
    *,
    correction: Correction = "bonferroni",
    target: float = 0.05,
    delta: float = 0.1,
    image_key: Keys | None = None,
    seed: int = 0,
    cost: Cost | None = None,
    **options: Any,
) -> Many:
    """Calibrates each setting so that the best may be kept.

    The best of many calibrations with delta each is no calibration with delta: the more are tried,
    the likelier one of them was lucky. "bonferroni" gives each delta / (number of settings), and
    then all promises hold at once. "split" chooses on one half of the labels, no image being in
    both, and calibrates the chosen one on the other half with all of delta (as in Pareto testing,
    arXiv 2210.07913): better where there are many settings and labels enough.

    (Holm's correction needs one p-value a setting; a sequence of thresholds that is tested up to
    its first failure has none that could be passed on.)

    Args:
        settings: By name, at least one; all on the same n queries, in one order.
        bad: Labels, 0 or 1 for each query.
        correction: "bonferroni" or "split".
        target: See `calibrate`.
        delta: One minus the confidence, of the whole choice.
        image_key: See `calibrate`.
        seed: Splits, and draws lots.
        cost: What the best one has least of; None takes the one that accepts the largest share. It
            may look at labels, of the rows that it is given only.
        **options: Further arguments of `calibrate` for all settings.

    Raises:
        ConfigError: There are no settings, or no delta.
        InputError: See `calibrate`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> scores = rng.gamma(4, 3, 600)
        >>> bad = rng.random(600) < 0.4 * np.exp(-0.4 * scores)
        >>> settings = {
        ...     "min": Setting(scores, Scoring("small", "ab12")),
        ...     "noise": Setting(rng.random(600), Scoring("small", "ab12", aggregate="mean")),
        ... }
        >>> calibrate_many(settings, bad).best
        'min'
    """
    one_of("correction", correction, ("bonferroni", "split"))
    if not settings:
        raise ConfigError("there are no settings to calibrate")
    if delta is None:
        raise ConfigError("delta=None: a promise in expectation can't be corrected; pass a delta")
    if np.ndim(bad) != 1:
        raise InputError(f"labels of shape {np.shape(bad)}; one for each query is needed")
    rows = np.shape(bad)[0]
    found = np.arange(rows) if image_key is None else clusters_of(image_key, rows)

    def run(name: str, share: float, at: Bools) -> Calibration:
        one = settings[name]
        scores = np.array(one.scores, dtype=np.float64)
        loss = np.asarray(bad if one.bad is None else one.bad)
        through = None if one.let_through is None else np.asarray(one.let_through)
        if scores.shape != (rows,) or loss.shape != (rows,):
            raise InputError(f"setting {name!r} has {scores.shape} scores for {rows} labels")
        return calibrate(
            scores[at],
            loss[at],
            one.scoring,
            let_through=None if through is None else through[at],
            target=target,
            delta=share,
            image_key=None if image_key is None else found[at].tolist(),
            seed=seed,
            **{**options, **(one.options or {})},
        )

    everything = np.ones(rows, dtype=bool)
    if correction == "bonferroni":
        made = {name: run(name, delta / len(settings), everything) for name in settings}
        return Many(made, _best(made, cost, everything), everything)
    first = choosing_rows(rows, image_key, seed)
    if not first.any() or first.all():
        raise InputError(
            'correction="split" needs labels of two images at least: one half to choose, and the '
            "other to certify"
        )
    tried = {name: run(name, delta, first) for name in settings}
    name = _best(tried, cost, first) or _nearest(tried)
    made = {name: run(name, delta, ~first)}
    return Many(made, _best(made, cost, ~first), ~first)


def choosing_rows(rows: int, image_key: Keys | None = None, seed: int = 0) -> Bools:
    """bool[rows], those that "split" chooses on: half of the images.

    Args:
        rows: Number of queries.
        image_key: See `calibrate`.
        seed: Of the split.
    """
    found = np.arange(rows) if image_key is None else clusters_of(image_key, rows)
    side = np.random.default_rng([seed, 2]).permutation(np.unique(found).size) % 2 == 0
    first: Bools = side[found]
    return first


def _best(made: Mapping[str, Calibration], cost: Cost | None, on: Bools) -> str | None:
    """The certified one of least cost, or that accepts the largest share; the first of equals."""
    certified = [name for name, one in made.items() if one.certified]
    if cost is not None:
        return min(certified, key=lambda name: cost(name, made[name], on), default=None)
    return max(certified, key=lambda name: made[name].accepted, default=None)


def _nearest(made: Mapping[str, Calibration]) -> str:
    """The one that lacks the fewest labels."""
    return min(made, key=lambda name: made[name].labels_needed or 10**9)
