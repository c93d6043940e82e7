"""Says on standard error that queries failed, and what an interruption leaves."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from speceyes.evaluation.failures import Failures, report


def say_failures(found: Iterable[Failures]) -> int:
    """Tells of failed queries.

    Args:
        found: Each arm's.

    Returns:
        The exit code: 1 where every query of an arm failed, else 0.
    """
    listed = list(found)
    for line in report(listed):
        print(f"speceyes: {line}", file=sys.stderr)
    sys.stderr.flush()
    return int(any(one.whole for one in listed))


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Says on Ctrl-C where a run's answers are, and that the same command goes on from there."""
    try:
        yield
    except KeyboardInterrupt:
        print(
            f"\nspeceyes: what was finished is in {folder}; the same command, given again, goes "
            "on from there",
            file=sys.stderr,
        )
        raise
