"""Options that several commands share."""

from __future__ import annotations

import argparse
from typing import TypeAlias

from speceyes.evaluation.failures import MOST_FAILURES

Parser: TypeAlias = argparse.ArgumentParser | argparse._ArgumentGroup


def command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    *,
    help: str,
    description: str,
) -> argparse.ArgumentParser:
    """Adds a command whose description is shown as it is written.

    Args:
        commands: The set that it joins.
        name: Its name.
        help: One line in the list of commands.
        description: Above its own options.
    """
    added: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.add_argument("--debug", action="store_true", help="show tracebacks, warnings and logs")
    return added


def add_device(parser: Parser) -> None:
    """Adds `--device`."""
    parser.add_argument("--device", help='"cpu", "cuda", "cuda:1"; default: a GPU if there is one')


def add_speech(parser: Parser) -> None:
    """Adds --tools, --dialect, --profile and --texts."""
    parser.add_argument(
        "--tools",
        metavar="LIST",
        help="what the agent may call, with commas; default: what its dialect's checkpoint was "
        'trained with, such as "python" for thyme, else "zoom"',
    )
    parser.add_argument(
        "--dialect",
        default="auto",
        help="how the agent writes tool calls; default: by its name, config and chat template",
    )
    parser.add_argument(
        "--profile",
        metavar="FILE",
        help="TOML or JSON: how the agent is driven, where not as its dialect has it",
    )
    parser.add_argument(
        "--texts",
        metavar="FILE",
        help="TOML or JSON: what the models are told, instead of speceyes' own words",
    )


def add_threshold(parser: Parser) -> None:
    """Adds `--threshold`."""
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="the gate's threshold, 0 (accept every draft) to 1 (none); default: the bundled "
        "pair's calibrated one, 0.98 for other models",
    )


def add_max_failures(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds `--max-failures`.

    Args:
        parser: The command's.
        what: The conclusion that is refused beyond it.
    """
    parser.add_argument(
        "--max-failures",
        type=float,
        default=MOST_FAILURES,
        metavar="SHARE",
        help=f"no {what} where more than this share of an arm's queries failed; default: "
        "%(default)s",
    )


def at_least_one(text: str) -> int:
    """The whole number that an option gives.

    Raises:
        ArgumentTypeError: It is below 1.
    """
    return _whole(text, 1)


def at_least_zero(text: str) -> int:
    """The whole number that an option gives.

    Raises:
        ArgumentTypeError: It is below 0.
    """
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not allowed; it must be a whole number, at least {least}"
        )
    return value
