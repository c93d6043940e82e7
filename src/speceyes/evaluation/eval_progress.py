"""The progress of an evaluation: how far, how long still, accuracy and gain so far."""

from __future__ import annotations

from typing import Any, TextIO, final

from speceyes.evaluation.arms import BASELINE
from speceyes.evaluation.progress import bar
from speceyes.notebook import in_notebook


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
        self._file, self._total = file, total
        self._bar: Any = None
        self._tally: dict[str, list[float]] = {}
        self._judging: set[str] = set()
        self._phase = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def skip(self, n: int) -> None:
        """Counts answers that are there already, the first ones before anything is drawn."""
        if self._file is None:
            return
        if self._bar is None:
            self._draw(n)
        elif n:
            self._bar.initial += n  # or the time left would be told from them
            self._bar.update(n)
            self._bar.refresh()

    def step(self) -> None:
        """One more answer is there."""
        if self._file is not None:
            self._drawn.update()

    @property
    def _drawn(self) -> Any:
        if self._bar is None:
            self._draw(0)
        return self._bar

    def _draw(self, done: int) -> None:
        self._bar = bar(
            self._file,
            total=self._total,
            initial=done,
            unit=" answers",
            bar_format="{desc}{percentage:3.0f} % |{bar:20}| {n_fmt}/{total_fmt}, "
            "{remaining} left {postfix}",
        )

    def block(self, phase: str, arm: str, right: int | None, n: int, wall: float) -> None:
        """A round of an arm is graded; `right` is None for an arm that doesn't answer."""
        if self._file is None:
            return
        if phase != self._phase:
            self._phase = phase
            self._tally = {}
            self._drawn.set_description_str(f"{phase} ", refresh=False)
        tally = self._tally.setdefault(arm, [0.0, 0.0, 0.0])
        if right is None:
            self._judging.add(arm)
        for at, more in enumerate((right or 0, n, wall)):
            tally[at] += more
        # Drawn at once where a bar is drawn over; a log has a line now and then.
        drawn = in_notebook() or self._file.isatty()
        self._drawn.set_postfix_str(self.standing(), refresh=drawn)

    def standing(self) -> str:
        """Accuracy of each arm that answers so far, and its speed over the agent's."""
        base = self._tally.get(BASELINE)
        parts = []
        for arm, (right, n, wall) in self._tally.items():
            text = f"{arm} {right / n:.1%}" if n and arm not in self._judging else arm
            if base is not None and arm != BASELINE and wall > 0 and base[1]:
                text += f" {(base[2] / base[1]) / (wall / n):.2f}x"
            parts.append(text)
        return " | ".join(parts)
