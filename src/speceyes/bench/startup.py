"""CPU time until the command line answers: `python -m speceyes.bench.startup`."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence

ANSWERS = (
    ("--help",),
    ("--version",),
    ("dance",),
    ("eval", "--help"),
    ("serve", "--no-such-option"),
)
"""Arguments that are answered without a model."""


def cpu_seconds(arguments: Sequence[str]) -> float:
    """Seconds of the CPU, user and system, that a process takes to answer.

    Args:
        arguments: Of `speceyes`.
    """
    command = [sys.executable, "-m", "speceyes", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the median of several processes for each of `ANSWERS`; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m speceyes.bench.startup", description=__doc__)
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="default: %(default)s")
    repeats = parser.parse_args(arguments).repeats
    sys.stdout.write("| speceyes | CPU seconds, median | most |\n|---|--:|--:|\n")
    for words in ANSWERS:
        taken = [cpu_seconds(words) for _ in range(max(repeats, 1))]
        median, most = statistics.median(taken), max(taken)
        sys.stdout.write(f"| {' '.join(words)} | {median:.2f} | {most:.2f} |\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
