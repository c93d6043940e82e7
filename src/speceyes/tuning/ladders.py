"""Ladders that are tried: a first draft on fewer pixels, with a threshold of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from speceyes.judge import DRAFT_JUDGES
from speceyes.scoring.scales import to_unit
from speceyes.tuning.candidates import Candidate
from speceyes.tuning.observed import Bools, Drafted, Floats, Observed

SHARES: Final = (0.5, 1.0)
"""Shares of the risk target that a first rung's own drafts may reach on the rows that choose."""
FEWEST: Final = 10
"""Least accepted drafts of a rung, of those rows: fewer spare too little to be worth a draft."""


def with_ladders(
    found: Observed,
    candidates: Sequence[Candidate],
    bad: Callable[[Drafted], Bools],
    chose: Bools,
    target: float,
) -> list[Candidate]:
    """The candidates, and behind them each with every first rung on fewer pixels.

    A rung's threshold is fixed here, on the rows that choose alone, so that the certificate, which
    is of other rows, is of one threshold as ever: that of the last rung. A small judge sees what
    the first rung sees, where it was asked on so many pixels. Drafts that may ask to look closer
    have no ladder.

    Args:
        found: The recorded queries.
        candidates: Without ladders.
        bad: Which drafts are bad.
        chose: bool[n], the rows that choose.
        target: The risk target.
    """
    made: dict[Candidate, None] = dict.fromkeys(candidates)
    for one in candidates:
        if one.judge == DRAFT_JUDGES:
            continue
        for pixels, low in found.drafts.items():
            if pixels is None or (one.draft_pixels is not None and pixels >= one.draft_pixels):
                continue
            below = dataclasses.replace(one, draft_pixels=pixels)
            if one.judge == "small" and one.judge_pixels == one.draft_pixels:
                if ("small", pixels) not in found.judges:
                    continue
                below = dataclasses.replace(below, judge_pixels=pixels)
            rows = chose & found.through(below)
            scores, wrong = found.scores(below)[rows], bad(low)[rows]
            for share in SHARES:
                least = _least(scores, wrong, share * target)
                if least is None:
                    continue
                unit = to_unit(least, log=one.aggregate == "log")
                if 0 < unit < 1:
                    there = dataclasses.replace(one, judge_pixels=below.judge_pixels)
                    made[dataclasses.replace(there, rung=(pixels, unit))] = None
    return list(made)


def _least(scores: Floats, bad: Bools, risk: float) -> float | None:
    """The lowest score from which on at most that share of the drafts is bad; None where too few
    drafts reach any such score.
    """
    known = np.isfinite(scores)
    order = np.argsort(-scores[known], kind="stable")
    ranked, wrong = scores[known][order], bad[known][order]
    taken = np.arange(1, len(ranked) + 1)
    last = np.r_[ranked[1:] < ranked[:-1], True] if len(ranked) else np.zeros(0, bool)
    good = np.flatnonzero((np.cumsum(wrong) <= risk * taken) & (taken >= FEWEST) & last)
    return float(ranked[good[-1]]) if len(good) else None
