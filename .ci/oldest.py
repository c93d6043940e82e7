"""Prints the oldest releases that pyproject.toml allows, as constraints for pip.

    python .ci/oldest.py > oldest.txt && pip install -e ".[test]" -c oldest.txt

They are the lower bounds of what a user's environment has: the dependencies, and the extras but for
those that only development needs. What these need in turn is left to pip.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
OURS = ("test", "dev", "docs")
"""Extras of development: their tools may be as new as there are."""
UNTRIED = ("fuzz", "inspect", "notebook", "ray")
"""Extras that are tried with the newest releases only, or where they happen to be installed."""


def oldest() -> Iterator[str]:
    """A line for each package, such as `torch==2.11`.

    Raises:
        ValueError: A requirement has no lower bound.
    """
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"]]
    for name in sorted(extras.keys() - {*OURS, *UNTRIED}):
        asked += extras[name]
    for requirement in dict.fromkeys(asked):
        if requirement.startswith(f"{project['name']}["):
            continue  # an extra that brings others, which are in the list themselves
        found = re.fullmatch(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\w.]+)(?:,.*)?", requirement)
        if found is None:
            raise ValueError(f"{requirement!r} in pyproject.toml is not of the form name>=version")
        yield f"{found[1]}=={found[2]}"


if __name__ == "__main__":
    print("\n".join(oldest()))  # noqa: T201  (a command's own voice)
