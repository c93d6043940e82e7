"""Degenerate repetition: a turn that says one thing over and over, or a way that stands still."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from speceyes.types import Step

SAME_TURNS: Final = 3
"""So many turns in a row with the same calls and the same results end a trajectory."""

_LEAST_CHARS, _TIMES, _LONGEST = 120, 4, 400


def repeats(text: str) -> bool:
    """True where a text ends in one piece over and over: at least four times, over half of it.

    Example:
        >>> repeats("It is " + "the red one, no, " * 20), repeats("A long thought. " * 2)
        (True, False)
    """
    text = text[-8_000:]
    if len(text) < _LEAST_CHARS:
        return False
    for period in range(1, min(_LONGEST, len(text) // _TIMES) + 1):
        unit = text[-period:]
        if not unit.strip() or text[-2 * period : -period] != unit:
            continue
        start = len(text) - period
        while start >= period and text[start - period : start] == unit:
            start -= period
        said = len(text) - start
        if said >= max(_TIMES * period, _LEAST_CHARS, len(text) // 2):
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
    last = steps[-SAME_TURNS:]
    if len(last) < SAME_TURNS:
        return None
    if all(_deed(step) == _deed(last[0]) for step in last):
        what = "calls" if last[0].calls else "words"
        return f"{SAME_TURNS} turns in a row were the same {what}, with the same results"
    return None


def _deed(step: Step) -> object:
    """Calls of a turn; its words where it called nothing."""
    calls = tuple((call.name, repr(call.arguments)) for call in step.calls)
    told = tuple(
        (seen.error, seen.box, seen.source, tuple(p for p in seen.content if isinstance(p, str)))
        for seen in step.observations
    )
    return calls or step.text, told
