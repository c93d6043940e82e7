"""Calibration from labelled drafts: the whole procedure, on raw scores."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt

from speceyes.calibration import recompute
from speceyes.calibration import risk as choose
from speceyes.calibration.binomial import TESTS, Test
from speceyes.calibration.images import Keys, clusters_of, one_each
from speceyes.calibration.provenance import Scoring, one_of
from speceyes.calibration.record import RISKS, Calibration, CurvePoint, Labels, Method, Risk
from speceyes.calibration.risk import Floats, Ladder, ladder, loosest
from speceyes.calibration.shift import count_scores
from speceyes.checks import checked_numbers, checked_share, checked_whole
from speceyes.errors import ConfigError, InputError
from speceyes.scoring.scales import to_unit

_log = logging.getLogger(__name__)

MOST_LABELS: Final = 200_000
"""The most labels that `labels_needed` considers."""
_CURVE: Final = 200
_BELOW_ONE: Final = math.nextafter(1.0, 0.0)


def calibrate(
    scores: npt.ArrayLike,
    bad: npt.ArrayLike,
    scoring: Scoring,
    *,
    let_through: npt.ArrayLike | None = None,
    risk: Risk = "selective",
    target: float = 0.05,
    delta: float | None = 0.1,
    labels: Labels = "wrong",
    test: Test = "binomial",
    start: int | None = None,
    thresholds: Sequence[float] | None = None,
    group: str = "",
    image_key: Keys | None = None,
    judge: str | None = None,
    seed: int = 0,
    created: str | None = None,
) -> Calibration:
    """The loosest threshold whose risk is under the target, or that there is none.

    The labelled queries must be drawn independently, as those that come later will be, and
    nothing that is set here may be chosen by looking at their labels: calibrate once.

    Args:
        scores: float[n], the drafts' raw scores (`Verdict.separability`, `raw_scores`); NaN or
            None where a draft has none, which no threshold accepts.
        bad: 0 or 1 for each; anything where no threshold accepts the draft, and so needs no label.
        scoring: What the scores were made with.
        let_through: bool[n], False where the judge sends the query to the agent; None lets all
            through.
        risk: "selective" or "overall"; see `Calibration`.
        target: The risk to stay under, strictly between 0 and 1.
        delta: One minus the confidence. None, for "overall" only: in expectation.
        labels: What makes a draft bad; see `Calibration`.
        test: The p-values of "selective": "binomial", or "hoeffding-bentkus", which is weaker.
        start: For "selective": how many drafts the first test is made on; see
            `risk.default_start` for the default. To be set without a look at the labels.
        thresholds: Thresholds from 0 to 1, fixed before the drafts were seen; one of these is
            chosen then, and "selective" tests them all from the strictest on.
        group: The category that the queries are from.
        image_key: Each row's image, or a key of it (`speceyes.images.content_key`); one row of each
            image is drawn by lot, and the others are left out. None takes every row for one of
            an image of its own: give the keys where images come again.
        judge: What decided on `let_through` (`ToolJudge.identity`), to be checked later; None where
            it isn't known.
        seed: Draws lots among tied drafts at the start, and among the rows of an image.
        created: ISO 8601; None is now.

    Raises:
        InputError: Arrays that don't match, labels other than 0 and 1, infinite scores.
        ConfigError: A target or delta out of range, or options that exclude each other.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> scores = rng.gamma(4, 2, 500)
        >>> bad = rng.random(500) < 0.3 * np.exp(-0.3 * scores)
        >>> found = calibrate(scores, bad, Scoring("small", "ab12"), target=0.05, delta=0.1)
        >>> found.certified, found.bad / found.accepted < 0.05
        (True, True)
    """
    one_of("risk", risk, RISKS)
    one_of("test", test, TESTS)
    target = checked_share("target", target)
    delta = None if delta is None else checked_share("delta", delta)
    if delta is None and risk == "selective":
        raise ConfigError(
            'delta=None means in expectation, which can be promised for risk="overall" only: '
            "pass a delta, such as 0.1"
        )
    if risk == "overall" and (test != "binomial" or start is not None):
        raise ConfigError('test and start belong to risk="selective"; leave them out')
    if start is not None:
        start = checked_whole("start", start, 1)
        if thresholds is not None:
            raise ConfigError(f"start={start} goes without thresholds: leave one of them out")
    if seed is not None:
        checked_whole("seed", seed, 0)
    raw, loss = arrays(scores, bad, let_through)
    rows = None
    if image_key is not None:
        rows = raw.size
        drawn = one_each(clusters_of(image_key, rows), seed)
        raw, loss = raw[drawn], loss[drawn]
    rungs = rungs_of(raw, loss, scoring, thresholds)
    if risk == "selective" and thresholds is None and start is None:
        assert delta is not None
        start = choose.default_start(raw.size, target, delta, test)
    first = start if risk == "selective" else None
    passed = _passed(rungs, risk, target, delta, test, first, np.random.default_rng(seed))
    threshold = loosest(rungs, passed, given=thresholds is not None)
    if threshold is None:
        passed = 0
    method: Method = "crc" if delta is None else test
    return Calibration(
        threshold=threshold,
        scoring=scoring,
        risk=risk,
        target=target,
        delta=delta,
        method=method,
        labels=labels,
        n=raw.size,
        accepted=int(rungs.accepted[passed - 1]) if passed else 0,
        bad=int(rungs.bad[passed - 1]) if passed else 0,
        start=first,
        labels_needed=None
        if passed
        else labels_needed(rungs, risk, target, delta, test, given=thresholds is not None),
        group=group,
        curve=_curve(rungs, passed, risk, target, method, given=thresholds is not None),
        score_counts=count_scores(raw),
        created=created or datetime.now(UTC).isoformat(timespec="seconds"),
        rows=rows,
        judge=judge,
    )


def labels_needed(
    rungs: Ladder,
    risk: Risk,
    target: float,
    delta: float | None,
    test: Test = "binomial",
    *,
    given: bool,
) -> int | None:
    """Number of further labels that the procedure would need if all shares stayed as they are.

    Found by running it on counts that are scaled up, bad ones rounded up: a plan, no promise.
    It may take fewer with luck, and more without.

    Returns:
        None where no number of labels up to 200,000 in all would do.
    """
    if risk == "selective" and not (rungs.bad < target * rungs.accepted).any():
        return None  # more of the same would only make it plainer

    def would_do(total: int) -> bool:
        grown = Ladder(
            rungs.thresholds,
            rungs.accepted * total // rungs.total,
            -(-rungs.bad * total // rungs.total),
            total,
        )
        start = None
        if risk == "selective" and not given:
            assert delta is not None
            start = choose.default_start(total, target, delta, test)
        passed = _passed(grown, risk, target, delta, test, start, None)
        return loosest(grown, passed, given=given) is not None

    total, step = rungs.total, 1
    while not would_do(total + step):
        if total + step >= MOST_LABELS:
            return None
        total, step = total + step, max(1, (total + step) // 4)
        step = min(step, MOST_LABELS - total)
    low, high = total, total + step  # low doesn't do, high does
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if would_do(middle) else (middle, high)
    return high - rungs.total


def _passed(
    rungs: Ladder,
    risk: Risk,
    target: float,
    delta: float | None,
    test: Test,
    start: int | None,
    random: np.random.Generator | None,
) -> int:
    if delta is None:
        return choose.crc(rungs, target)
    if risk == "overall":
        return choose.overall(rungs, target, delta)
    return choose.selective(rungs, target, delta, test=test, start=start, random=random)


def arrays(
    scores: npt.ArrayLike, bad: npt.ArrayLike, let_through: npt.ArrayLike | None
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """(raw scores, NaN where never accepted; which are bad), checked."""
    try:
        raw = np.array(scores, dtype=np.float64)
        loss = np.asarray(bad, dtype=np.float64)
    except (TypeError, ValueError) as exc:
        raise InputError(f"scores and labels must be numbers: {exc}") from exc
    through = np.ones(raw.shape, bool) if let_through is None else np.asarray(let_through)
    if raw.ndim != 1 or raw.size == 0 or raw.shape != loss.shape or raw.shape != through.shape:
        raise InputError(
            f"scores {raw.shape}, labels {loss.shape} and let_through {through.shape} must be "
            "one-dimensional, not empty, and of one length"
        )
    if not np.isin(through, (0, 1)).all():
        raise InputError("let_through must hold True and False only")
    if np.isinf(raw).any():
        raise InputError("scores holds infinities; a draft that can't be scored has NaN or None")
    raw[~through.astype(bool)] = np.nan
    there = ~np.isnan(raw)
    if not np.isin(loss[there], (0.0, 1.0)).all():
        at = int(np.flatnonzero(there & ~np.isin(loss, (0.0, 1.0)))[0])
        raise InputError(
            f"label {at} is {loss[at]:g}; where a draft may be accepted it must be 0 or 1"
        )
    return raw, there & (loss == 1.0)


def unit_scores(raw: Floats, scoring: Scoring) -> Floats:
    """Raw scores on the gate's own scale, from 0 to 1, where its thresholds live.

    The gate accepts where to_unit(raw) >= threshold, to the last bit, so what ties on that scale
    can't be told apart by any threshold.
    """
    log = scoring.aggregate == "log"
    unit = np.array([to_unit(s, log=log, sharpness=scoring.sharpness) for s in raw.tolist()])
    unit[np.isnan(raw)] = np.nan
    # A threshold of 1 accepts nothing, not even a score of 1.
    found: Floats = np.minimum(unit, _BELOW_ONE)
    return found


def rungs_of(
    raw: Floats,
    loss: npt.NDArray[np.bool_],
    scoring: Scoring,
    thresholds: Sequence[float] | None,
) -> Ladder:
    """The rungs on the gate's own scale; see `unit_scores`."""
    unit = unit_scores(raw, scoring)
    there = ~np.isnan(unit)
    kinds, distinct = np.unique(unit[there]).size, np.unique(raw[there]).size
    if 10 * kinds < 9 * distinct:
        _log.warning(
            "%d distinct scores are only %d on the scale 0 to 1: thresholds can't tell them apart. "
            "Calibrate with a lower sharpness than %g",
            distinct,
            kinds,
            scoring.sharpness,
        )
    if thresholds is None:
        return ladder(unit, loss)
    given = checked_numbers("thresholds", thresholds)
    if given.ndim != 1 or given.size == 0 or not ((given >= 0) & (given < 1)).all():
        raise ConfigError(f"thresholds={thresholds!r}; they must lie from 0 to below 1")
    return ladder(unit, loss, given)


def _curve(
    rungs: Ladder, passed: int, risk: Risk, target: float, method: Method, *, given: bool
) -> tuple[CurvePoint, ...]:
    count = len(rungs.thresholds)
    kept = {*np.linspace(1, count, min(count, _CURVE)).astype(int).tolist(), passed} - {0}
    points = []
    for rung in sorted(kept):
        accepted, bad = int(rungs.accepted[rung - 1]), int(rungs.bad[rung - 1])
        threshold = loosest(rungs, rung, given=given)
        if threshold is None:
            continue
        evidence = recompute.evidence(method, risk, accepted, bad, rungs.total, target)
        points.append(CurvePoint(threshold, accepted, bad, evidence))
    return tuple(points)
