"""Calibrations from the drafts that an evaluation recorded, and their check on its test split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from speceyes.calibration import Calibration, Scoring, calibrate, calibrate_groups
from speceyes.errors import ConfigError
from speceyes.evaluation.statistics import wilson_interval

if TYPE_CHECKING:
    import numpy.typing as npt

    from speceyes.evaluation.runs import Run
    from speceyes.evaluation.sweep import Recorded


def scoring_of(found: Run, aggregate: Any, top_k: int | None = None) -> Scoring:
    """The scoring of the run's drafts."""
    context, small = found.fixed["context"], found.fixed["models"]["small"]
    return Scoring(
        small["name"],
        context["prompt_hash"],
        top_k=int(context["top_k"]) if top_k is None else top_k,
        aggregate=aggregate,
        revision=small["revision"],
    )


def bad_drafts(found: Recorded, labels: str) -> npt.NDArray[np.bool_]:
    """bool[n]: the drafts that these labels call bad."""
    if labels == "wrong":
        return ~found.right
    if labels == "worse_than_agent":
        return ~found.right & found.agent_right
    return found.differs


def fit(
    found: Recorded,
    scoring: Scoring,
    *,
    judge: str = "large",
    labels: Any = "wrong",
    by_kind: bool = False,
    **options: Any,
) -> dict[str, Calibration]:
    """The calibration, or one for each kind; "" is all kinds together.

    Args:
        found: Recorded drafts.
        scoring: How they are scored.
        judge: What it keeps from the drafts never gets to the gate.
        labels: See `Calibration`.
        by_kind: One for each kind.
        **options: See `calibrate`.
    """
    if judge not in found.through:
        raise ConfigError(
            f"--judge {judge!r} was not recorded in this run; there are {', '.join(found.through)}"
        )
    raw = found.scores(scoring.aggregate, scoring.top_k)
    bad = bad_drafts(found, labels)
    through = found.through[judge]
    if not by_kind:
        one = calibrate(raw, bad, scoring, let_through=through, labels=labels, **options)
        return {"": one}
    return calibrate_groups(
        raw, bad, scoring, found.kinds, let_through=through, labels=labels, **options
    )


def held_out(made: Calibration, found: Recorded, judge: str = "large") -> str:
    """The promised risk beside the one measured on other queries."""
    accepted, bad, n = measured(made, found, judge)
    base = accepted if made.risk == "selective" else n
    if not base:
        return f"on the {n} test queries: none accepted"
    low, high = wilson_interval(bad, base)
    return (
        f"promised at most {100 * made.target:g}%, measured {100 * bad / base:.2f}% "
        f"({100 * low:.2f}% to {100 * high:.2f}%) on the {n} test queries: {bad} bad of "
        f"{accepted} accepted"
    )


def measured(made: Calibration, found: Recorded, judge: str = "large") -> tuple[int, int, int]:
    """(accepted, bad among them, queries) of a calibration's threshold on recorded drafts."""
    mine = np.array([made.group in ("", kind) for kind in found.kinds], dtype=bool)
    if made.threshold is None:
        return 0, 0, int(mine.sum())
    scoring = made.scoring
    accepted = mine & found.accepted(scoring.aggregate, scoring.top_k, made.threshold, judge)
    bad = accepted & bad_drafts(found, made.labels)
    return int(accepted.sum()), int(bad.sum()), int(mine.sum())
