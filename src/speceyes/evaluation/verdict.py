"""True if the funnel is worth it, in a few sentences that come before all tables."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from speceyes.evaluation import rivals
from speceyes.evaluation.machine_load import BUSY
from speceyes.evaluation.rounds import FEWEST
from speceyes.evaluation.statistics import wilson_interval

OFF: Final = "leave it off"


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """The facts that a verdict rests on.

    Args:
        name: What the funnel is called.
        n: Questions.
        accepted: Of them, those answered by a draft.
        wrong: Of the accepted ones, those answered wrongly.
        gain: Speed over the agent in batches with its interval, see `rounds.ratio`; None where
            it wasn't measured.
        rounds: Rounds that the gain was measured over.
        only_agent: Questions that only the agent got right.
        only_funnel: Questions that only the funnel got right.
        p: Of the exact McNemar test between the two.
        itself: Speed of an arm over itself with its interval, which is 1 on a quiet machine; None
            where no arm was run twice.
    """

    name: str
    n: int
    accepted: int
    wrong: int
    gain: Sequence[float | None] | None
    rounds: int
    only_agent: int
    only_funnel: int
    p: float
    itself: Sequence[float | None] | None = None

    def sentences(self) -> list[str]:
        """Sentences on accepted drafts, the wrong ones among them, the gain, and advice."""
        return [self._accepted(), self._gained(), f"**{self._advice()}**"]

    def _accepted(self) -> str:
        if not self.accepted:
            return f"Of {self.n} questions {self.name} answered none by a draft."
        low, high = wilson_interval(self.wrong, self.accepted)
        return (
            f"Of {self.n} questions {self.name} answered {self.accepted} "
            f"({self.accepted / self.n:.0%}) by a draft; {self.wrong} of these "
            f"{'was' if self.wrong == 1 else 'were'} wrong ({self.wrong / self.accepted:.1%}, 95 % "
            f"interval {low:.1%} to {high:.1%})."
        )

    def _gained(self) -> str:
        if self.gain is None:
            return "Its speed was not measured."
        value, low, high = self.gain
        if low is None:
            return (
                f"It ran {value:.2f} times as fast as the agent in batches, in {self.rounds} "
                f"rounds; {FEWEST} are needed to say how sure that is."
            )
        return (
            f"It ran {value:.2f} times as fast as the agent in batches (95 % interval {low:.2f} to "
            f"{high:.2f}, over {self.rounds} rounds)."
        )

    def _advice(self) -> str:
        if not self.accepted:
            return f"It accepts nothing, so that it only costs time: {OFF}."
        if self.gain is None or self.gain[1] is None or self.gain[2] is None:
            return "Too little was measured to advise: give more questions."
        low, high = (self.itself or (1.0, None, None))[1:]
        if low is not None and high is not None and not low <= 1 <= high:
            return (
                f"No advice on its speed: an arm over itself, which is 1, ran {low:.2f} to "
                f"{high:.2f} times as fast; other work disturbed the clock. Run it again."
            )
        if self.gain[2] < 1:
            return f"It is slower than the agent: {OFF}."
        if self.gain[1] <= 1:
            return f"No gain is shown: {OFF}, or give more questions."
        by = (
            f"right were only the agent on {self.only_agent}, only the funnel on {self.only_funnel}"
        )
        if self.p < 0.05 and self.only_agent > self.only_funnel:
            return f"It is faster and less accurate ({by}, p = {self.p:.2g}): gate more strictly."
        return f"It is faster, and no loss of accuracy is shown ({by}): use it."


def verdict(found: Mapping[str, Any], arm: str | None = "min") -> list[str]:
    """The sentences on an evaluation's funnel.

    Args:
        found: What `analysis.figures` gives.
        arm: The funnel; where it was not run, the first arm with a gate.

    Returns:
        Nothing where the run has no arm with a gate.
    """
    arm = arm if arm in found["routes"] else next(iter(found["routes"]), None)
    if arm is None:
        return []
    routes, test = found["routes"][arm], found["tests"][arm]
    outcome = Outcome(
        f"the funnel ({arm})",
        found["arms"][arm]["n"],
        routes["accepted"],
        routes["wrong"],
        found["time"]["arms"][arm]["gain"],
        found["time"]["rounds"],
        test["only_agent"],
        test["only_arm"],
        test["p"],
        (found["time"].get("same_arm") or {}).get("speed"),
    )
    return [*outcome.sentences(), *rivals.sentences(found), *disturbed(found)]


def plain_lines(sentences: Sequence[str]) -> list[str]:
    """The sentences for a terminal, without emphasis, each beginning a line."""
    return [line for text in sentences for line in textwrap.wrap(text.replace("**", ""), 96)]


def disturbed(found: Mapping[str, Any]) -> list[str]:
    """A sentence where other processes took much of the machine, or times were small."""
    shares = [a["others"] for a in found["time"]["arms"].values() if a["others"] is not None]
    if not shares or max(shares) <= BUSY:
        return []
    return [
        f"Other processes took {max(shares):.0%} of the machine's processors while an arm ran: "
        "speeds are disturbed; CPU seconds are less so."
    ]
