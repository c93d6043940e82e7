"""`speceyes report`: tables and a page of runs, from their records alone."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from speceyes.cli.options import command
from speceyes.errors import ConfigError, InputError

if TYPE_CHECKING:
    from speceyes.evaluation.runs import Run

ABOUT = """\
Reads the folders of one or more runs and writes, without running a model,
  report.md     in the layout of the paper's Table 1, a column a benchmark; where the models are
                those of the paper, its rows stand below ours
  report.csv    a line for each run, column and arm
  report.html   one page that needs nothing but itself: pictures of all figures, and every query
  answers.parquet, answers.csv   with --to: a row for each run, arm and query, for pandas or polars
A run that is under way or was killed is reported up to its last whole round."""


_NEEDED: Final[Mapping[str, frozenset[str]]] = {
    "plan": frozenset({"arms", "seed", "batch_size", "threshold", "sweep_batch"}),
    "benchmark": frozenset({"name", "bad", "parity"}),
    "models": frozenset(),
    "context": frozenset({"top_k"}),
}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to an argparse sub-parser set."""
    one = command(
        commands, "report", help="tables and a page of evaluation runs", description=ABOUT
    )
    one.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a folder of speceyes eval")
    one.add_argument(
        "--out", type=Path, metavar="DIR", help="where to; default: the first run's folder"
    )
    one.add_argument(
        "--grader",
        metavar="URL",
        help="have a language model at this OpenAI-compatible address grade every answer once "
        "more, and report how far it agrees with the rules; verdicts are kept in the run's folder",
    )
    one.add_argument(
        "--grader-model", metavar="NAME", help="its name; default: the only one that is served"
    )
    one.add_argument(
        "--to",
        choices=("parquet", "csv"),
        help="write every answer as a table as well; Parquet needs pyarrow, the extra eval",
    )
    one.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs it; the exit code."""
    from speceyes.evaluation.analysis import figures
    from speceyes.evaluation.eval_page import page
    from speceyes.evaluation.eval_report import markdown, to_csv
    from speceyes.evaluation.runs import read, write_table

    runs = [read(folder) for folder in dict.fromkeys(options.runs)]
    for one in runs:
        _check_kind(one)
    made = [(found, figures(found)) for found in runs]
    out = options.out or options.runs[0]
    out.mkdir(parents=True, exist_ok=True)
    text = markdown(made)
    if options.grader:
        from speceyes.evaluation.second_grade import second_grades
        from speceyes.models.openai import OpenAIModel

        grader = OpenAIModel(options.grader, options.grader_model)
        text += "\n## A second grade\n\n" + "\n".join(second_grades(r, grader) for r in runs)
    elif options.grader_model:
        raise ConfigError("--grader-model needs --grader, the address that serves it")
    for name, content in (
        ("report.md", text),
        ("report.csv", to_csv(made)),
        ("report.html", page(made)),
    ):
        (out / name).write_text(content, encoding="utf-8")
    if options.to:
        rows = [{"run": one.folder.name, **row} for one in runs for row in one.rows()]
        write_table(rows, out / f"answers.{options.to}")
    print(text.split("\n## ", 2)[1].partition("\n\n")[2].strip())
    print(f"\n{out / 'report.md'}, report.csv and report.html")
    if options.to:
        print(f"{out / f'answers.{options.to}'}: {len(rows)} answers")
    return 0


def _check_kind(run: Run) -> None:
    """Makes sure that the folder holds a run of `speceyes eval`, as its manifest has it.

    Raises:
        InputError: It is another command's, or its manifest was changed.
    """
    fixed = run.fixed
    if fixed.get("tune"):
        raise InputError(
            f"{run.folder} was written by speceyes tune, which prints its own table: read "
            "tune.json there, or give its settings to speceyes eval --settings"
        )
    for part, names in _NEEDED.items():
        given = fixed.get(part)
        if not isinstance(given, dict) or not given.keys() >= names:
            raise InputError(
                f"{run.folder / 'manifest.json'} was damaged or changed after it was written: "
                f"{part!r} lacks some of {', '.join(sorted(names))}. Take it from a copy"
            )
