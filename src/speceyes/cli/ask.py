"""`speceyes ask`: one question about one image."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from speceyes.cli import models
from speceyes.cli.failures import say_failures
from speceyes.cli.options import command
from speceyes.errors import SpecEyesError

if TYPE_CHECKING:
    from speceyes.types import Result

ABOUT = """\
Answers one question about one image. The answer goes to standard output, how it came about to
standard error; --json prints the whole result on one line instead. Without --large and --small
the bundled tiny pair answers, which knows only its own synthetic scenes."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to an argparse sub-parser set."""
    one = command(commands, "ask", help="answer one question about one image", description=ABOUT)
    one.add_argument("image", metavar="IMAGE", help="path of an image, or a data: URL")
    one.add_argument("question", metavar="QUESTION", help="the question, in quotes")
    one.add_argument(
        "--choice", action="append", default=[], metavar="TEXT", help="an option; repeat for more"
    )
    one.add_argument("--allow-urls", action="store_true", help="let IMAGE be an http(s) address")
    one.add_argument("--json", action="store_true", help="print the whole result as one line")
    models.add_models(one, batch_size=1)
    one.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs it; the exit code."""
    from speceyes.evaluation.failures import counted
    from speceyes.images import load_image
    from speceyes.types import Query

    image = load_image(options.image, allow_urls=options.allow_urls)
    query = Query(options.question, (image,), tuple(options.choice), id="0")
    with models.pipeline(options) as pipe:
        result = pipe(query)
    # A judge or a drafter that fails leaves the query to the agent: that is said, and no failure.
    say_failures(counted("query", [result]))
    if options.json:
        print(result.to_json())
        return int(result.error is not None)
    if result.answer is None:
        if result.route == "error":  # said above
            return 1
        raise SpecEyesError(result.error or "there is no answer")
    print(result.answer)
    print(_origin(result), file=sys.stderr)
    return 0


def _origin(result: Result) -> str:
    """One line on how the answer came about."""
    words = []
    if result.judgement is not None:
        words.append("judge: tools" if result.judgement.needs_tools else "judge: no tools")
    if result.verdict is not None:
        score = "none" if result.verdict.score is None else f"{result.verdict.score:.4f}"
        sign = "accepted" if result.verdict.accepted else "rejected"
        words.append(f"draft {sign}, score {score}, threshold {result.verdict.threshold:g}")
    if result.trajectory is not None:
        words.append(
            f"agent: {len(result.trajectory.steps)} turns, {result.trajectory.depth} tools"
        )
    words.append(f"{1e3 * (result.timings.latency or 0.0):.0f} ms")
    return "; ".join(words)
