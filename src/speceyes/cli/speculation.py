"""Options that say which queries are speculated on, by which judge, and on how many pixels."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from speceyes.checks import listed
from speceyes.cli.options import Parser, at_least_one

if TYPE_CHECKING:
    from speceyes.pipeline import DraftConfig, JudgeConfig, Rung


def add_speculation(parser: Parser, *, speculate: str | None = None) -> None:
    """Adds the options that `judge_of`, `draft_of` and `options.speculate` are read from.

    Args:
        parser: The command's.
        speculate: The default of `--speculate`; None for what `ScheduleConfig` takes.
    """
    parser.add_argument(
        "--judge",
        choices=("large", "small", "draft", "none"),
        default="large",
        help='who says whether tools are needed: "large" as in the paper; "small", which costs '
        'next to nothing in front of an engine that batches; "draft": the small model answers or '
        'says that it must look closer, in one pass; "none" drafts every query; default: '
        "%(default)s",
    )
    parser.add_argument(
        "--judge-threshold",
        type=float,
        default=0.5,
        metavar="P",
        help="tools are needed where their probability is at least P; default: %(default)s",
    )
    for phase, what in (("judge", "the judge decides by"), ("draft", "the drafter answers from")):
        parser.add_argument(
            f"--{phase}-pixels",
            type=at_least_one,
            metavar="N",
            help=f"most pixels of an image that {what}; default: all that the model takes",
        )
    parser.add_argument(
        "--ladder",
        type=_rungs,
        default=(),
        metavar="LIST",
        help="drafts on fewer pixels that are tried first, as PIXELS or PIXELS:THRESHOLD with "
        "commas, from the fewest up, such as 65536:0.99,262144; default: none",
    )
    parser.add_argument(
        "--speculate",
        choices=("always", "auto"),
        default=speculate,
        help='"auto" leaves queries to the agent while measured costs say that this is faster; '
        f"default: {speculate or 'auto over an engine, else always'}",
    )


def judge_of(options: argparse.Namespace) -> JudgeConfig:
    """The judge that the options name."""
    from speceyes.pipeline import JudgeConfig

    name = None if options.judge == "none" else options.judge
    return JudgeConfig(name, options.judge_threshold, options.judge_pixels)


def draft_of(options: argparse.Namespace) -> DraftConfig:
    """Bounds of the drafts."""
    from speceyes.pipeline import DraftConfig

    return DraftConfig(max_pixels=options.draft_pixels, ladder=options.ladder)


def _rungs(text: str) -> tuple[Rung, ...]:
    """The rungs that `--ladder` lists.

    Raises:
        ArgumentTypeError: One is not as it must be.
    """
    from speceyes.pipeline import Rung

    found = []
    for part in listed(text):
        pixels, sign, threshold = part.partition(":")
        try:
            found.append(Rung(int(pixels), float(threshold) if sign else None))
        except ValueError as exc:
            raise argparse.ArgumentTypeError(
                f"{part!r} is not allowed; it must be PIXELS or PIXELS:THRESHOLD, such as "
                f"65536:0.99 ({exc})"
            ) from exc
    return tuple(found)
