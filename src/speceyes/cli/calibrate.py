"""`speceyes calibrate`: a threshold with a guarantee from a run's recorded drafts."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Final

from speceyes.cli.options import add_max_failures, command
from speceyes.errors import ConfigError, InputError

# What calibration offers, said here once more so that --help need not import it.
RISKS: Final = ("overall", "selective")
LABELS: Final = ("wrong", "worse_than_agent", "differs_from_agent")
AGGREGATES: Final = ("min", "mean", "bottom20", "log")
LEDGER: Final = "calibrations.jsonl"
"""File in a run's folder that every calibration is noted in."""

ABOUT = """\
Finds the loosest threshold whose risk stays under a target, from the drafts that speceyes eval
recorded on the calibration split, and holds what it promises against the test split of the same
run. Runs no model. That no threshold can be certified is a legal answer: the file is written all
the same, and a gate made from it accepts nothing.

Choose everything here without looking at the results, and calibrate once: the promise holds for
one threshold found by one procedure, not for the best of several. Every calibration of a run is
noted in its calibrations.jsonl, and what the best of them can promise is said. Of rows that share
an image one counts, drawn by lot.

  speceyes calibrate run --risk selective --target 0.05 --delta 0.1 --out gate.json"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to an argparse sub-parser set."""
    one = command(
        commands,
        "calibrate",
        help="find a threshold with a guarantee in a run's recorded drafts",
        description=ABOUT,
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
        choices=LABELS,
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
    add_max_failures(one, "threshold is found")
    one.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs it; the exit code is 0 also where no threshold can be certified."""
    from speceyes.calibration import Ledger, labels_hash
    from speceyes.evaluation.arms import BASELINE, DRAFT
    from speceyes.evaluation.calibrate_run import (
        bad_drafts,
        fit,
        held_out,
        identity_of,
        scoring_of,
    )
    from speceyes.evaluation.failures import check_share, counted
    from speceyes.evaluation.runs import CALIBRATION, TEST, read
    from speceyes.evaluation.sweep import recorded

    found = read(options.folder)
    # The agent's answers count where they say what a bad draft is.
    arms = (DRAFT,) if options.labels == "wrong" else (DRAFT, BASELINE)
    for phase in (CALIBRATION, TEST):
        failed = [
            one
            for arm in arms
            for one in counted(f"{arm}, {phase} split", (r.result for r in found.of(phase, arm)))
        ]
        check_share(failed, options.max_failures, "threshold is found")
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
        identity=identity_of(found, options.judge),
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
    ledger = Ledger(options.folder / LEDGER)
    used = labels_hash(list(learnt.ids), bad_drafts(learnt, options.labels))
    spent = [ledger.note(calibration, used) for calibration in made.values()][-1]
    if (tries := len(ledger.entries(used))) > len(made):
        print(
            f"{tries} calibrations were made on these labels ({ledger.path}). Each holds with its "
            f"own confidence; whoever keeps the best of them has {100 * (1 - spent):g}%"
        )
    if learnt.image_keys is None:
        print("the run doesn't tell which rows share an image: every row counted as one of its own")
    return 0


def _plain(name: str) -> str:
    """The kind as part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", name)
