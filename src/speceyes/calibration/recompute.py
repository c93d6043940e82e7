"""What a calibration's counts prove, computed anew from the counts alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from speceyes.calibration.binomial import Test, p_value
from speceyes.calibration.sequence import evidence_below

if TYPE_CHECKING:
    from speceyes.calibration.record import Calibration, Method, Risk


def evidence(
    method: Method, risk: Risk, accepted: int, bad: int, total: int, target: float
) -> float:
    """What must stay small; see `CurvePoint.evidence`."""
    drafts = total if risk == "overall" else accepted
    if method == "crc":
        return (bad + 1) / (total + 1)
    if method == "betting":
        return min(1.0, 1 / evidence_below(bad, drafts, target))
    test: Test = method
    return p_value(bad, drafts, target, test)


def contradiction(made: Calibration) -> str | None:
    """What in a calibration can't have come of calibrating; None where all fits together."""
    total = sum(count for _, count in made.score_counts)
    if made.score_counts and total != made.n:
        return f"score_counts holds {total} scores for n={made.n}"
    if made.start is not None and not 1 <= made.start <= max(made.n, made.start):
        return f"start={made.start}"
    before = (math.inf, 0, 0)
    for point in made.curve:
        now = (point.threshold, point.accepted, point.bad)
        if not (now[0] < before[0] and now[1] >= before[1] and now[2] >= before[2]):
            return f"the curve turns back at the threshold {point.threshold}"
        if not 0 <= point.bad <= point.accepted <= made.n:
            return f"{point.bad} bad of {point.accepted} accepted at {point.threshold}"
        found = evidence(made.method, made.risk, point.accepted, point.bad, made.n, made.target)
        if not math.isclose(found, point.evidence, rel_tol=1e-6, abs_tol=1e-300):
            return f"evidence {point.evidence} at {point.threshold} is {found} by its counts"
        before = now
    if made.threshold is None:
        return None
    if made.accepted == 0:
        return "a threshold that accepts none of the labelled drafts is not certified"
    allowed = made.target if made.delta is None else made.delta
    found = evidence(made.method, made.risk, made.accepted, made.bad, made.n, made.target)
    if found > allowed * (1 + 1e-9):
        return (
            f"{made.bad} bad of {made.accepted} accepted, n={made.n}, can't certify a "
            f"{made.risk} risk of {made.target:g}"
        )
    chosen = [point for point in made.curve if point.threshold == made.threshold]
    if made.curve and [(p.accepted, p.bad) for p in chosen] != [(made.accepted, made.bad)]:
        return "the curve doesn't have the threshold with its counts"
    return None
