"""Risk relative to the agent, where the agent answered every query and few have a gold answer.

A draft that gives the agent's answer is as right as the agent: only where the two differ can the
funnel lose, and only there is a gold answer worth its price. So the risk is a product,

    P(accepted, and worse than the agent)
        = P(accepted, and differs from the agent) x P(worse, given that),

whose first factor is known from all queries without gold, and whose second from those of the
differing ones, drawn by lot, that have gold. The idea, agreement that costs nothing for all and a
correction from few gold labels, is prediction-powered risk control (Einbinder, Ringel and Romano,
arXiv 2412.11174); there the correction is a difference that is added with a part of delta of its
own, here it is a factor, since an agreement needs none, and both are tested together.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from speceyes.calibration.fit import MOST_LABELS, arrays, rungs_of, unit_scores
from speceyes.calibration.images import Keys, clusters_of, one_each
from speceyes.calibration.matched import Gold, matched_p_value
from speceyes.calibration.provenance import Scoring
from speceyes.calibration.record import Calibration
from speceyes.calibration.risk import ladder, loosest
from speceyes.calibration.shift import count_scores
from speceyes.checks import checked_share
from speceyes.errors import InputError


def calibrate_relative(
    scores: npt.ArrayLike,
    differs: npt.ArrayLike,
    worse: npt.ArrayLike,
    scoring: Scoring,
    *,
    better: npt.ArrayLike | None = None,
    let_through: npt.ArrayLike | None = None,
    target: float = 0.05,
    delta: float = 0.1,
    thresholds: Sequence[float] | None = None,
    image_key: Keys | None = None,
    judge: str | None = None,
    group: str = "",
    seed: int = 0,
    created: str | None = None,
) -> Calibration:
    """The loosest threshold at which the funnel stays within a target of the agent.

    Queries must be drawn independently, as those to come will be. Which of the differing ones have
    a gold answer must be drawn by lot among all differing ones (or among all queries): not the
    surest first, nor those that were easy to label.

    Args:
        scores: float[n]; see `calibrate`.
        differs: bool[n], True where the draft isn't the agent's answer. The agent answered all.
        worse: 1 where the draft is wrong and the agent right by gold, 0 where not; NaN or None
            without gold. Where draft and agent agree, it isn't looked at, unless it is 1.
        scoring: What the scores were made with.
        better: 1 where the draft is right and the agent wrong; for the same queries as `worse`.
            With it the promise is on accuracy: how much less often the funnel is right than the
            agent. None credits nothing.
        let_through: bool[n]; see `calibrate`.
        target: Share of all queries that may be lost against the agent.
        delta: One minus the confidence.
        thresholds: See `calibrate`.
        image_key: See `calibrate`.
        judge: See `calibrate`.
        group: See `calibrate`.
        seed: Draws lots among the rows of an image.
        created: ISO 8601; None is now.

    Raises:
        InputError: Arrays that don't match or contradict each other, or no gold at all.
        ConfigError: A target or delta out of range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> scores = rng.gamma(4, 2, 2000)
        >>> differs = rng.random(2000) < 0.5 * np.exp(-0.2 * scores)
        >>> gold = differs & (rng.random(2000) < 0.5)  # a person looks at every second one
        >>> worse = np.where(gold, rng.random(2000) < 0.4, np.nan)
        >>> found = calibrate_relative(scores, differs, worse, Scoring("small", "ab12"))
        >>> found.certified, found.gold.labelled < 250, found.accepted > 1500
        (True, True, True)
    """
    target, delta = checked_share("target", target), checked_share("delta", delta)
    raw, apart = arrays(scores, differs, let_through)
    lost = _gold("worse", worse, raw.size)
    won = np.where(np.isnan(lost), np.nan, 0.0)
    if better is not None:
        won = _gold("better", better, raw.size)
        if (np.isnan(won) != np.isnan(lost)).any():
            raise InputError("worse and better must have gold for the same queries")
        if ((won == 1) & (lost == 1)).any():
            raise InputError("a query is worse and better than the agent at once")
    given_apart = np.asarray(differs).astype(bool)
    if at := np.flatnonzero(~given_apart & ((lost == 1) | (won == 1))).tolist():
        raise InputError(
            f"query {at[0]} (and {len(at) - 1} others) agrees with the agent, but is worse or "
            "better by gold: answers are to be compared and graded by the same rules"
        )
    rows = None
    if image_key is not None:
        rows = raw.size
        drawn = one_each(clusters_of(image_key, rows), seed)
        raw, apart, lost, won = raw[drawn], apart[drawn], lost[drawn], won[drawn]
    known = apart & ~np.isnan(lost)
    if given_apart.any() and np.isnan(lost[apart]).all() and apart.any():
        raise InputError(
            "no query whose draft differs from the agent's answer has gold: draw some of them by "
            'lot and label them, or calibrate on labels="differs_from_agent"'
        )
    rungs = rungs_of(raw, apart, scoring, thresholds)
    given = None if thresholds is None else rungs.thresholds
    unit = unit_scores(raw, scoring)
    counts = [ladder(unit, mask, given).bad for mask in (known, known & (lost == 1))]
    counts.append(ladder(unit, known & (won == 1), given).bad)
    found = [
        Gold(int(d), int(m), int(w), None if better is None else int(b))
        for d, m, w, b in zip(rungs.bad, *counts, strict=True)
    ]
    passed = 0
    while passed < len(found) and matched_p_value(found[passed], raw.size, target) <= delta:
        passed += 1
    threshold = loosest(rungs, passed, given=thresholds is not None)
    at_it = None if threshold is None else found[passed - 1]
    return Calibration(
        threshold=threshold,
        scoring=scoring,
        risk="overall",
        target=target,
        delta=delta,
        method="matched",
        labels="worse_than_agent" if better is None else "net_of_agent",
        n=raw.size,
        accepted=0 if threshold is None else int(rungs.accepted[passed - 1]),
        bad=0 if at_it is None else at_it.worse,
        labels_needed=None
        if threshold is not None or not found
        else queries_needed(found[0], raw.size, target, delta),
        group=group,
        score_counts=count_scores(raw),
        created=created or datetime.now(UTC).isoformat(timespec="seconds"),
        rows=rows,
        judge=judge,
        gold=at_it or Gold(0, 0, 0, None if better is None else 0),
    )


def _gold(name: str, values: npt.ArrayLike, rows: int) -> npt.NDArray[np.float64]:
    """float64[rows] of 0, 1 and NaN."""
    try:
        found = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as exc:
        raise InputError(f"{name} must be 0, 1, or NaN or None without gold: {exc}") from exc
    if found.shape != (rows,):
        raise InputError(f"{name} has shape {found.shape} for {rows} queries; one each is needed")
    if not np.isin(found[~np.isnan(found)], (0.0, 1.0)).all():
        raise InputError(f"{name} must be 0, 1, or NaN or None without gold")
    return found


def queries_needed(first: Gold, total: int, target: float, delta: float) -> int | None:
    """Number of further queries at which the strictest threshold would pass, all shares staying
    as they are; None where no number up to 200,000 would do.
    """
    sizes = [total]
    while sizes[-1] < MOST_LABELS:
        sizes.append(min(MOST_LABELS, sizes[-1] + max(1, sizes[-1] // 20)))

    def passes(grown: int) -> bool:
        scaled = Gold(
            -(-first.differing * grown // total),
            -(-first.labelled * grown // total),
            -(-first.worse * grown // total),
            None if first.better is None else first.better * grown // total,
        )
        return matched_p_value(scaled, grown, target) <= delta

    low, high = 0, 1
    last = len(sizes) - 1
    while not passes(sizes[min(high, last)]):  # the large ones take long
        if high >= last:
            return None
        low, high = high, 2 * high
    return sizes[bisect_left(sizes, True, lo=low + 1, hi=min(high, last), key=passes)] - total
