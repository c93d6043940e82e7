"""Calibrations from the drafts that an evaluation recorded, and their check on its test split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from speceyes.calibration import Calibration, Scoring, calibrate, calibrate_groups
from speceyes.errors import ConfigError
from speceyes.evaluation.statistics import cluster_interval
from speceyes.judge import NO_JUDGE, judge_identity

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
    identity: str | None = None,
    **options: Any,
) -> dict[str, Calibration]:
    """The calibration, or one for each kind; "" is all kinds together.

    Args:
        found: Recorded drafts.
        scoring: How they are scored.
        judge: What it keeps from the drafts never gets to the gate.
        labels: See `Calibration`.
        by_kind: One for each kind.
        identity: Of the judge; see `identity_of`.
        **options: See `calibrate`.
    """
    if judge not in found.through:
        raise ConfigError(
            f"--judge {judge!r} was not recorded in this run; there are {', '.join(found.through)}"
        )
    raw = found.scores(scoring.aggregate, scoring.top_k)
    bad = bad_drafts(found, labels)
    options |= {
        "let_through": found.through[judge],
        "labels": labels,
        "image_key": found.image_keys,
        "judge": identity,
    }
    if not by_kind:
        return {"": calibrate(raw, bad, scoring, **options)}
    return calibrate_groups(raw, bad, scoring, found.kinds, **options)


def identity_of(found: Run, judge: str) -> str:
    """Identity of a run's judge, as `ToolJudge.identity` gives it."""
    if judge == "none":
        return NO_JUDGE
    models = found.fixed["models"]
    return judge_identity(models.get(judge, models["small"])["name"])


def held_out(made: Calibration, found: Recorded, judge: str = "large") -> str:
    """The promised risk beside the one measured on other queries."""
    accepted, bad, n = measured(made, found, judge)
    base = accepted if made.risk == "selective" else n
    if not base:
        return f"on the {n} test queries: none accepted"
    low, high = _interval(made, found, judge)
    return (
        f"promised at most {100 * made.target:g}%, measured {100 * bad / base:.2f}% "
        f"({100 * low:.2f}% to {100 * high:.2f}%) on the {n} test queries: {bad} bad of "
        f"{accepted} accepted"
    )


def _interval(made: Calibration, found: Recorded, judge: str) -> tuple[float, float]:
    mine, accepted, bad = _masks(made, found, judge)
    base = accepted if made.risk == "selective" else mine
    keys = found.image_keys or tuple((str(i),) for i in range(len(found)))
    return cluster_interval(bad[base], [keys[i] for i in np.flatnonzero(base).tolist()])


def _masks(
    made: Calibration, found: Recorded, judge: str
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    mine = np.array([made.group in ("", kind) for kind in found.kinds], dtype=bool)
    if made.threshold is None:
        return mine, np.zeros_like(mine), np.zeros_like(mine)
    scoring = made.scoring
    accepted = mine & found.accepted(scoring.aggregate, scoring.top_k, made.threshold, judge)
    return mine, accepted, accepted & bad_drafts(found, made.labels)


def measured(made: Calibration, found: Recorded, judge: str = "large") -> tuple[int, int, int]:
    """(accepted, bad among them, queries) of a calibration's threshold on recorded drafts."""
    mine, accepted, bad = _masks(made, found, judge)
    return int(accepted.sum()), int(bad.sum()), int(mine.sum())
