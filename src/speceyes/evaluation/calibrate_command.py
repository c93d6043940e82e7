"""`speceyes calibrate`: a threshold with a guarantee from a run's recorded drafts."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speceyes.calibration import Calibration, Scoring, calibrate, calibrate_groups
from speceyes.calibration.record import MEANINGS, RISKS
from speceyes.errors import ConfigError, InputError
from speceyes.evaluation.statistics import wilson_interval
from speceyes.scoring.scores import AGGREGATES

if TYPE_CHECKING:
    import numpy.typing as npt

    from speceyes.evaluation.runs import Run
    from speceyes.evaluation.sweep import Recorded

ABOUT = """\
Finds the loosest threshold whose risk stays under a target, from the drafts that speceyes eval
recorded on the calibration split, and holds what it promises against the test split of the same
run. Runs no model. That no threshold can be certified is a legal answer: the file is written all
the same, and a gate made from it accepts nothing.

Choose everything here without looking at the results, and calibrate once: the promise holds for
one threshold found by one procedure, not for the best of several.

  speceyes calibrate run --risk selective --target 0.05 --delta 0.1 --out gate.json"""


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the command to an argparse sub-parser set.

    Args:
        commands: The set.
        shared: Options that all commands have.
    """
    del shared  # its device and threshold would have nothing to do here
    one = commands.add_parser(
        "calibrate",
        help="find a threshold with a guarantee in a run's recorded drafts",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument("folder", type=Path, metavar="RUN", help="a folder of speceyes eval")
    one.add_argument(
        "--risk",
        choices=RISKS,
        default="selective",
        help='"selective": bad ones among accepted drafts; "overall": drafts accepted and bad '
        "among all queries; default: %(default)s",
    )
    one.add_argument("--target", type=float, default=0.05, metavar="R", help="default: %(default)s")
    one.add_argument(
        "--delta",
        type=float,
        default=0.1,
        metavar="D",
        help="one minus the confidence; 0 with --risk overall promises the mean over calibrations; "
        "default: %(default)s",
    )
    one.add_argument(
        "--labels",
        choices=tuple(MEANINGS),
        default="wrong",
        help="what makes a draft bad, by gold answers or by the agent's; default: %(default)s",
    )
    one.add_argument(
        "--aggregate", choices=AGGREGATES, default="min", help="of the gate; default: %(default)s"
    )
    one.add_argument("--k", type=int, metavar="K", help="of the gate; default: the run's")
    one.add_argument(
        "--judge", default="large", help='"large", "small" or "none"; default: %(default)s'
    )
    one.add_argument(
        "--by-kind",
        action="store_true",
        help="a threshold for each kind of question, each with a confidence of its own",
    )
    one.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="default: calibration.json in the run; with --by-kind a file each, its kind appended",
    )
    one.add_argument("--debug", action="store_true", help="show tracebacks, warnings and logs")
    one.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs it; the exit code is 0 also where no threshold can be certified."""
    from speceyes.evaluation.runs import CALIBRATION, TEST, read
    from speceyes.evaluation.sweep import recorded

    found = read(options.folder)
    learnt = recorded(found, CALIBRATION)
    scoring = scoring_of(found, options.aggregate, options.k)
    if scoring.aggregate != "log" and scoring.top_k > learnt.most_k:
        raise ConfigError(
            f"--k {scoring.top_k}, but the run recorded {learnt.most_k} log-probabilities a "
            "token: choose fewer, or run speceyes eval with a larger --record-k"
        )
    made = fit(
        learnt,
        scoring,
        judge=options.judge,
        labels=options.labels,
        by_kind=options.by_kind,
        risk=options.risk,
        target=options.target,
        delta=options.delta or None,
    )
    try:
        held = recorded(found, TEST)
    except InputError:  # the run has not come so far yet
        held = None
    out = options.out or options.folder / "calibration.json"
    for kind, calibration in made.items():
        path = out.with_name(f"{out.stem}-{_plain(kind)}{out.suffix}") if kind else out
        calibration.save(path)
        print(calibration.statement)
        if held is not None:
            print("  " + held_out(calibration, held, options.judge))
        print(f"  {path}")
    return 0


def scoring_of(found: Run, aggregate: Any, top_k: int | None = None) -> Scoring:
    """What the run's drafts were scored with."""
    ground, small = found.fixed["ground"], found.fixed["models"]["small"]
    return Scoring(
        small["name"],
        ground["prompt_hash"],
        top_k=int(ground["top_k"]) if top_k is None else top_k,
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


def _plain(name: str) -> str:
    """The kind as part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", name)
