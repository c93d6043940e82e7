"""Evidence of a calibration, computed anew from the counts alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from speceyes.calibration.binomial import Test, p_value
from speceyes.calibration.matched import matched_p_value
from speceyes.calibration.provenance import is_number, is_whole
from speceyes.calibration.sequence import evidence_below
from speceyes.calibration.shift import BINS, bins

if TYPE_CHECKING:
    from speceyes.calibration.record import Calibration, Method, Risk


def evidence(
    method: Method, risk: Risk, accepted: int, bad: int, total: int, target: float
) -> float:
    """Evidence, which must stay small; see `CurvePoint.evidence`."""
    drafts = total if risk == "overall" else accepted
    if method == "crc":
        return (bad + 1) / (total + 1)
    if method == "matched":
        raise ValueError("a matched calibration has no curve")
    if method == "betting":
        return min(1.0, 1 / evidence_below(bad, drafts, target))
    test: Test = method
    return p_value(bad, drafts, target, test)


def contradiction(made: Calibration) -> str | None:
    """The part that can't have come of calibrating; None where all fits together."""
    if fault := _counts_fault(made):
        return fault
    before = (math.inf, 0, 0)
    for point in made.curve:
        now = (point.threshold, point.accepted, point.bad)
        counts = is_whole(point.accepted) and is_whole(point.bad)
        if not (counts and is_number(point.threshold) and is_number(point.evidence)):
            return f"{point} on the curve"
        if not 0 <= point.threshold < 1:
            return f"the curve has a threshold of {point.threshold}"
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
    if made.gold is not None:
        found = matched_p_value(made.gold, made.n, made.target)
    else:
        found = evidence(made.method, made.risk, made.accepted, made.bad, made.n, made.target)
    if found > allowed * (1 + 1e-9):
        return (
            f"{made.bad} bad of {made.accepted} accepted, n={made.n}, can't certify a "
            f"{made.risk} risk of {made.target:g}"
        )
    chosen = [point for point in made.curve if point.threshold == made.threshold]
    if not made.curve and made.method not in ("betting", "matched"):
        return "there is no curve"
    if fault := _start_fault(made) or _order_fault(made) or _scores_fault(made):
        return fault
    if made.curve and [(p.accepted, p.bad) for p in chosen] != [(made.accepted, made.bad)]:
        return "the curve doesn't have the threshold with its counts"
    return None


def _counts_fault(made: Calibration) -> str | None:
    """Fault in the counts of scores by themselves."""
    places = [place for place, _ in made.score_counts]
    numbers = [number for pair in made.score_counts for number in pair]
    if not all(map(is_whole, numbers)) or sorted(set(places)) != places:
        return "score_counts doesn't hold rising bins with their counts"
    if any(not (0 <= place < BINS and count > 0) for place, count in made.score_counts):
        return "score_counts holds a bin or a count that can't be"
    total = sum(count for _, count in made.score_counts)
    return f"score_counts holds {total} scores for n={made.n}" if total != made.n else None


def _order_fault(made: Calibration) -> str | None:
    """A stricter threshold that failed its test, after which no looser one is tested."""
    if made.risk != "selective" or made.delta is None:
        return None
    assert made.threshold is not None
    least = -1 if made.start is None else made.start
    for point in made.curve:
        tested = point.threshold > made.threshold and point.accepted > least
        if tested and point.evidence > made.delta * (1 + 1e-9):
            return f"the threshold {point.threshold} fails, and {made.threshold} is looser"
    return None


def _start_fault(made: Calibration) -> str | None:
    """Fault in the place where the tests of a certified calibration began."""
    if made.start is None or made.delta is None or not made.curve:
        return None
    if made.start >= made.accepted:
        whole = made.accepted == made.curve[-1].accepted
        return None if whole else f"start={made.start} for {made.accepted} accepted"
    first = evidence(made.method, made.risk, made.start, 0, made.n, made.target)
    return f"start={made.start} is too few to pass" if first > made.delta * (1 + 1e-9) else None


def _scores_fault(made: Calibration) -> str | None:
    """Fault in the count of scores from the threshold on; scores are known by bin."""
    raw = made.raw_threshold
    if not made.score_counts or raw is None:
        return None
    least = int(bins(raw)) if math.isfinite(raw) else 1
    above = sum(count for place, count in made.score_counts if place > least)
    within = sum(count for place, count in made.score_counts if place == least)
    if above <= made.accepted <= above + within:
        return None
    return f"{made.accepted} accepted, but {above} to {above + within} scores reach the threshold"
