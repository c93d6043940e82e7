"""The command line: `speceyes demo`, `ask`, `bench`, `eval` and others.

A command is a module here with `add`, which declares its options, and `run`. None imports numpy,
torch or a server before it runs: `--help`, `--version` and a mistyped option answer at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from speceyes import __version__
from speceyes.cli import (
    ask,
    bench,
    bench_serve,
    calibrate,
    demo,
    env,
    eval,
    mcp,
    plan,
    report,
    serve,
    tune,
)
from speceyes.environment import versions_line
from speceyes.errors import ConfigError, InputError, ModelError, SpecEyesError
from speceyes.evaluation.failures import TooManyFailures

INTERRUPTED = 130
"""Exit code after Ctrl-C, 128 + SIGINT, as shells have it."""

ABOUT = """\
Answers questions about images: a small model drafts, a gate accepts only clear drafts, and a
tool-using agent does the rest (SpecEyes, arXiv 2603.23483). A pair of tiny trained models is
bundled, so everything below runs at once, without a download or a GPU."""

EXAMPLES = """\
examples:
  speceyes demo                                 the funnel against the agent alone
  speceyes demo --queries 50 --out /tmp/demo    a shorter run
  speceyes bench                                what each way of running costs here
  speceyes eval scenes --limit 120 --out run    all arms on a benchmark; then report, calibrate
  speceyes tune scenes --limit 400 --out tuned  the best setting under a risk target, and its gain
  speceyes ask scene.png "What shape is the small red object?"
  speceyes ask photo.jpg "Which colour is the collar?" \\
      --large ChenShawn/DeepEyes-7B --small Qwen/Qwen3-VL-2B-Instruct
  speceyes env                                  versions and devices, for a report of a fault

exit codes: 0 done, 1 failed, 2 wrong arguments or input, 130 interrupted"""


def parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    top = argparse.ArgumentParser(
        prog="speceyes",
        description=ABOUT,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"speceyes {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in (demo, ask):
        command.add(commands)
    bench_serve.extend(bench.add(commands))
    for command in (eval, report, calibrate, tune, serve, plan, mcp, env):
        command.add(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: Without the program's name; None for the process's own.

    Returns:
        The exit code.
    """
    options = parser().parse_args(arguments)
    if options.debug:
        logging.basicConfig(level=logging.INFO)
        return _run(options)
    with _quiet_libraries():
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except KeyboardInterrupt:
        print("speceyes: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left; there is nobody to tell, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as exc:
        if options.debug:
            raise
        known = isinstance(exc, SpecEyesError | OSError)
        reason = " ".join(str(exc).split()) or type(exc).__name__
        if not known:
            reason = f"{type(exc).__name__}: {reason} (--debug shows where)"
        print(f"speceyes: error: {reason}", file=sys.stderr)
        if not known or isinstance(exc, ModelError | TooManyFailures):
            print(f"speceyes: with {versions_line()}", file=sys.stderr)
        return 2 if isinstance(exc, ConfigError | InputError) else 1


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keeps libraries' warnings and logs from the terminal, and shows our own warnings there;
    entered before they are imported.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    libraries, own, shown = logging.getLogger(), logging.getLogger("speceyes"), _Warnings()
    before = libraries.level, own.level
    libraries.setLevel(logging.ERROR)
    own.setLevel(logging.WARNING)
    own.addHandler(shown)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        own.removeHandler(shown)
        libraries.setLevel(before[0])
        own.setLevel(before[1])


class _Warnings(logging.Handler):
    """Writes to standard error as it is when something is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line."""
        print(f"speceyes: {record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)
