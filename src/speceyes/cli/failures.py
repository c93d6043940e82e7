"""Says on standard error that queries failed, before a command shows any figure."""

from __future__ import annotations

import sys
from collections.abc import Iterable

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
