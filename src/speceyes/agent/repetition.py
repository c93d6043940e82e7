"""Degenerate repetition: a turn that says one thing over and over, or turns that go in circles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from speceyes.types import Step

SAME_TURNS: Final = 3
"""So many turns in a row with the same calls and the same results end a trajectory."""

LONGEST_CIRCLE: Final = 4
"""Turns of the longest circle that is noticed: A B C D A B C D."""

_LEAST_CHARS, _TIMES = 120, 4
_LONG, _LONG_TIMES = 400, 3
"""What is longer than so many characters is no turn of phrase: three times are enough."""
_READ = 16_000


def repeats(text: str) -> bool:
    """True where a text ends in one piece over and over, over half of it: at least four times, or
    three times where the piece is over 400 characters long.

    Example:
        >>> repeats("It is " + "the red one, no, " * 20), repeats("A long thought. " * 2)
        (True, False)
    """
    text = text[-_READ:]
    if len(text) < _LEAST_CHARS:
        return False
    for period in range(1, len(text) // _LONG_TIMES + 1):
        times = _TIMES if period <= _LONG else _LONG_TIMES
        # A last word is compared first: hardly any period is worth more.
        if text[-8:] != text[-8 - period : len(text) - period]:
            continue
        unit = text[-period:]
        if text[-2 * period : -period] != unit:
            continue
        start = len(text) - period
        while start >= period and text[start - period : start] == unit:
            start -= period
        said = len(text) - start
        if said >= max(times * period, _LEAST_CHARS, len(text) // 2):
            return True
    return False


def why_stuck(steps: Sequence[Step], cut: bool) -> str | None:
    """Why a trajectory goes nowhere; None where it may go on.

    Args:
        steps: The turns so far.
        cut: Whether the last one ran into its token limit.
    """
    if not steps:
        return None
    if cut and len(steps) > 1 and repeats(steps[-1].text) and repeats(steps[-2].text):
        return "two turns in a row said one thing over and over until they were cut off"
    deeds = [_deed(step) for step in steps]
    for period in range(1, LONGEST_CIRCLE + 1):
        turns = SAME_TURNS if period == 1 else 2 * period
        last = deeds[-turns:]
        if len(last) < turns or any(last[i] != last[i - period] for i in range(period, turns)):
            continue
        what = "calls" if any(step.calls for step in steps[-turns:]) else "words"
        if period == 1:
            return f"{turns} turns in a row were the same {what}, with the same results"
        return f"the last {turns} turns were {period} {what} twice over, with the same results"
    return None


def _deed(step: Step) -> object:
    """Calls of a turn; its words where it called nothing."""
    calls = tuple((call.name, repr(call.arguments)) for call in step.calls)
    told = tuple(
        (seen.error, seen.box, seen.source, tuple(p for p in seen.content if isinstance(p, str)))
        for seen in step.observations
    )
    return calls or step.text, told
