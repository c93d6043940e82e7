"""Calibration by category, with the guarantee held within each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

from speceyes.calibration.fit import calibrate
from speceyes.calibration.images import Keys
from speceyes.calibration.provenance import Scoring
from speceyes.calibration.record import Calibration
from speceyes.errors import ConfigError, InputError


def calibrate_groups(
    scores: npt.ArrayLike,
    bad: npt.ArrayLike,
    scoring: Scoring,
    groups: Sequence[str],
    *,
    let_through: npt.ArrayLike | None = None,
    delta: float | None = 0.1,
    together: bool = False,
    image_key: Keys | None = None,
    **options: object,
) -> Groups:
    """A calibration for each category, from that category's queries alone.

    The guarantee of each holds within its category. A category with too few labels has no
    threshold, and says how many more it needs; one that had no labels at all has none either, so
    that its queries go to the agent.

    Args:
        scores: See `calibrate`.
        bad: See `calibrate`.
        scoring: See `calibrate`.
        groups: n names, each query's category; known before the query is answered.
        let_through: See `calibrate`.
        delta: One minus the confidence of each.
        together: Whether that confidence is to hold for all categories at once: each gets
            delta / (number of categories). Not for delta=None.
        image_key: See `calibrate`; one row of an image counts within each category.
        **options: Further arguments of `calibrate`.

    Raises:
        InputError: See `calibrate`; also groups of another length.
        ConfigError: See `calibrate`.

    Example:
        >>> found = calibrate_groups([9.0] * 60 + [5.0] * 9, [0] * 69, Scoring("small", "ab12"),
        ...     ["colour"] * 60 + ["count"] * 9)
        >>> found["colour"].certified, found["count"].labels_needed
        (True, 36)
    """
    raw = np.asarray(scores, dtype=np.float64)
    loss = np.asarray(bad)
    through = np.ones(raw.shape, bool) if let_through is None else np.asarray(let_through)
    if not len(groups) == len(raw) == len(loss) == len(through):
        raise InputError(
            f"{len(groups)} groups, {len(raw)} scores, {len(loss)} labels and {len(through)} of "
            "let_through; one each is needed"
        )
    if any(name is None or name != name for name in groups):
        raise InputError('a query has no category: name one for each, such as "other"')
    names = np.array([str(name) for name in groups])
    distinct = sorted(set(names.tolist()))
    if together and delta is None:
        raise ConfigError("together=True divides delta, and delta=None has none: leave one out")
    share = delta / len(distinct) if together and delta is not None and distinct else delta
    if image_key is not None and len(image_key) != len(names):
        raise InputError(f"{len(image_key)} image keys for {len(names)} rows; one each is needed")
    found = {
        name: calibrate(
            raw[names == name],
            loss[names == name],
            scoring,
            let_through=through[names == name],
            delta=share,
            group=name,
            image_key=None
            if image_key is None
            else [image_key[at] for at in np.flatnonzero(names == name).tolist()],
            **options,  # type: ignore[arg-type]
        )
        for name in distinct
    }
    return Groups(found)


@final
class Groups(dict[str, Calibration]):
    """Calibrations by category; one that had no labels has a calibration without a threshold.

    Example:
        >>> found = calibrate_groups([9.0] * 60, [0] * 60, Scoring("small", "ab12"), ["a"] * 60)
        >>> found["a"].certified, found["never seen"].certified, sorted(found)
        (True, False, ['a'])
    """

    def get(self, name: str, default: Any = None) -> Any:
        """The category's calibration, as `[name]` gives it; the default where there are none."""
        return self[name] if self else default

    def __or__(self, other: Mapping[str, Calibration]) -> Groups:  # type: ignore[override]
        """Both together, the other's where both have a category."""
        return Groups({**self, **other})

    def __missing__(self, name: str) -> Calibration:
        known = next(iter(self.values()), None)
        if known is None:
            raise KeyError(name)
        return dataclasses.replace(
            known,
            threshold=None,
            n=0,
            accepted=0,
            bad=0,
            start=None,
            labels_needed=None,
            group=name,
            curve=(),
            score_counts=(),
            rows=None,
            gold=None if known.gold is None else known.gold.none(),
            drawn_like=None,
        )
