"""The progress of an evaluation: how far, how long still, accuracy and gain so far."""

from __future__ import annotations

from typing import Any, TextIO, final

from speceyes.evaluation.arms import BASELINE
from speceyes.evaluation.progress import bar


@final
class Progress:
    """A bar over all answers of a run, with accuracy and gain of each arm behind it.

    Args:
        file: Where to draw; None draws nothing.
        total: Answers to be given, those of earlier starts included.

    Example:
        >>> with Progress(None, 2) as progress:
        ...     progress.step()
    """

    def __init__(self, file: TextIO | None, total: int) -> None:
        self._bar: Any = bar(
            file,
            total=total,
            unit=" answers",
            bar_format="{desc}{percentage:3.0f} % |{bar:20}| {n_fmt}/{total_fmt}, "
            "{remaining} left {postfix}",
        )
        self._tally: dict[str, list[float]] = {}
        self._phase = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def skip(self, n: int) -> None:
        """Counts answers that are there already."""
        if self._bar is not None:
            self._bar.initial += n  # or the time left would be told from them
            self._bar.update(n)

    def step(self) -> None:
        """One more answer is there."""
        if self._bar is not None:
            self._bar.update()

    def block(self, phase: str, arm: str, right: int, n: int, wall: float) -> None:
        """A round of an arm is graded."""
        if self._bar is None:
            return
        if phase != self._phase:
            self._phase = phase
            self._tally = {}
            self._bar.set_description_str(f"{phase} ", refresh=False)
        tally = self._tally.setdefault(arm, [0.0, 0.0, 0.0])
        for at, more in enumerate((right, n, wall)):
            tally[at] += more
        self._bar.set_postfix_str(self.standing())

    def standing(self) -> str:
        """Accuracy of each arm so far, and its speed over the agent's."""
        base = self._tally.get(BASELINE)
        parts = []
        for arm, (right, n, wall) in self._tally.items():
            text = f"{arm} {right / n:.1%}" if n else arm
            if base is not None and arm != BASELINE and wall > 0 and base[1]:
                text += f" {(base[2] / base[1]) / (wall / n):.2f}x"
            parts.append(text)
        return " | ".join(parts)
