"""Failed queries of a run: how many, the first reason, and whether figures may be drawn from it.

A failed query is one that a model, a tool or an image broke. An answer that is wrong, or an agent
that ended without one, is no failure. A judge or a drafter that fails sends its query on to the
agent, so that the answer doesn't show it: these are counted on their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from speceyes.environment import versions_line
from speceyes.errors import ConfigError, SpecEyesError

if TYPE_CHECKING:
    from speceyes.types import Result

MOST_FAILURES: Final = 0.05
"""Share of failed queries above which nothing is concluded from a run, unless told otherwise."""
_LONGEST: Final = 500
_PHASES: Final = ("", " (judge)", " (drafts)")


class TooManyFailures(SpecEyesError):
    """A run in which too many queries failed for its figures to mean anything."""


@final
@dataclass(frozen=True, slots=True)
class Failures:
    """Failed queries of one arm, or of one phase within it.

    Args:
        arm: The arm, such as "funnel", or "funnel (drafts)".
        failed: How many failed.
        n: How many there were.
        first: The first reason; empty where none failed.
    """

    arm: str
    failed: int
    n: int
    first: str = ""

    @property
    def share(self) -> float:
        """Failed ones among all, 0 to 1."""
        return self.failed / self.n if self.n else 0.0

    @property
    def whole(self) -> bool:
        """Every single query failed."""
        return self.failed == self.n > 0

    def __str__(self) -> str:
        """One line of text."""
        if self.n == 1:
            return f"{self.arm} failed: {self.first}"
        if self.whole:
            return f"every query failed in {self.arm} ({self.n} of {self.n}): {self.first}"
        return f"{self.failed} of {self.n} queries failed in {self.arm}, the first: {self.first}"


@final
class FailureCount:
    """Counts an arm's failed queries as its results come, and keeps none of them.

    Args:
        arm: The arm's name in messages.
    """

    def __init__(self, arm: str) -> None:
        self._arm = arm
        self._n = dict.fromkeys(_PHASES, 0)
        self._failed = dict.fromkeys(_PHASES, 0)
        self._first: dict[str, str] = {}

    def add(self, result: Result) -> None:
        """Counts one more result."""
        judged = None if result.judgement is None else result.judgement.completion
        errors: dict[str, str | None] = {
            "": (result.error or "no reason given") if result.route == "error" else None
        }
        if judged is not None:
            errors[" (judge)"] = judged.error
        if result.draft is not None:
            errors[" (drafts)"] = result.draft.error
        for phase, error in errors.items():
            self._n[phase] += 1
            if error is not None:
                self._failed[phase] += 1
                self._first.setdefault(phase, " ".join(error.split())[:_LONGEST])

    @property
    def found(self) -> list[Failures]:
        """The arm's failures; judge and drafts besides where more of them failed than queries."""
        return [
            Failures(
                self._arm + phase, self._failed[phase], self._n[phase], self._first.get(phase, "")
            )
            for phase in _PHASES
            if not phase or self._failed[phase] > self._failed[""]
        ]


def counted(arm: str, results: Iterable[Result]) -> list[Failures]:
    """Failed queries of an arm, and of judge and drafter within it where any of these failed.

    Example:
        >>> from speceyes.types import Result
        >>> counted("funnel", [Result("1", "red", "draft"), Result("2", None, "error", error="x")])
        [Failures(arm='funnel', failed=1, n=2, first='x')]
    """
    count = FailureCount(arm)
    for result in results:
        count.add(result)
    return count.found


def merged(runs: Iterable[Iterable[Failures]]) -> list[Failures]:
    """Failures of several runs of the same arms, added up."""
    found: dict[str, Failures] = {}
    for one in (one for run in runs for one in run):
        before = found.get(one.arm, Failures(one.arm, 0, 0))
        found[one.arm] = Failures(
            one.arm, before.failed + one.failed, before.n + one.n, before.first or one.first
        )
    return list(found.values())


def report(found: Iterable[Failures]) -> list[str]:
    """Lines that come before any figure: arms in which every query failed, then those with some.

    Returns:
        Lines; none where nothing failed. The versions follow arms that failed as a whole.
    """
    listed = [one for one in found if one.failed]
    lines = [f"error: {one}" for one in listed if one.whole]
    if lines:
        lines.append(f"with {versions_line()}")
    return lines + [str(one) for one in listed if not one.whole]


def check_share(found: Sequence[Failures], most: float, what: str) -> None:
    """Refuses a run with too many failures.

    Args:
        found: Its failures.
        most: Largest share of an arm's queries that may have failed, 0 to 1.
        what: The conclusion that is refused, such as "a threshold is chosen".

    Raises:
        ConfigError: `most` is no share.
        TooManyFailures: An arm has more.
    """
    if not 0 <= most <= 1:
        raise ConfigError(f"--max-failures {most}; it must be a share, 0 to 1")
    over = [str(one) for one in found if one.share > most]
    if over:
        raise TooManyFailures(
            f"no {what} from a run in which more than {100 * most:g} % of an arm's queries failed "
            f"(--max-failures): {'; '.join(over)}. Mend the cause and run into another folder"
        )


def plain(found: Iterable[Failures]) -> list[dict[str, Any]]:
    """The failures, ready for JSON."""
    return [{"arm": one.arm, "failed": one.failed, "n": one.n, "first": one.first} for one in found]
