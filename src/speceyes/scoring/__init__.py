"""Scores of tokens and answers from their log-probabilities; numpy only."""

from __future__ import annotations

from speceyes.scoring.scales import map_threshold, to_raw, to_unit
from speceyes.scoring.scores import (
    AGGREGATES,
    FORMULAS,
    TOP_K,
    Aggregate,
    Formula,
    combine,
    raw_scores,
    separability,
    token_scores,
)

__all__ = [
    "AGGREGATES",
    "FORMULAS",
    "TOP_K",
    "Aggregate",
    "Formula",
    "combine",
    "map_threshold",
    "raw_scores",
    "separability",
    "to_raw",
    "to_unit",
    "token_scores",
]
