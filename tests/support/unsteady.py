"""Tests that may fail in a whole run if they pass alone: a short list, each with reason and date.

    python tests/support/unsteady.py first.json again.json

compares what failed in a run of all tests with what failed again when those ran alone. Both files
are pytest's own: `lastfailed` of its cache. The exit status is 1 if a test that isn't on the list
passed alone.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

LIST = Path(__file__).resolve().parents[1] / "unsteady.toml"


@dataclass(frozen=True, slots=True)
class Unsteady:
    """A test that a busy machine can disturb.

    Args:
        id: The test as pytest calls it, without its parameters.
        since: When it was put on the list.
        reason: What disturbs it.
    """

    id: str
    since: date
    reason: str


def listed(path: Path = LIST) -> list[Unsteady]:
    """What is on the list."""
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("test", [])
    return [Unsteady(**entry) for entry in entries]


def verdict(failed: Sequence[str], still: Sequence[str], known: Sequence[Unsteady]) -> list[str]:
    """What to say of each test that failed at first and passed alone; "defect" leads where it isn't
    on the list.
    """
    reasons = {one.id: one for one in known}
    said = []
    for test in failed:
        if test in still:
            continue
        if one := reasons.get(test.partition("[")[0]):
            said.append(f"known, since {one.since}: {test}: {one.reason}")
        else:
            said.append(
                f"defect: {test} failed and passes alone: mend it, or put it on "
                f"tests/{LIST.name} with a reason and a date"
            )
    return said


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    failed, still = (json.loads(Path(name).read_text(encoding="utf-8")) for name in arguments)
    said = verdict(list(failed), list(still), listed())
    for line in said:
        print(line)  # noqa: T201  (a command's own voice)
    return int(any(line.startswith("defect") for line in said))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
