"""Progress bars of the demo's arms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TextIO, final

from tqdm import tqdm


@final
class Bars:
    """A bar for each arm on a terminal; one bar for all where the output is no terminal.

    Args:
        arms: Names of the arms, top to bottom.
        file: Where to draw; None draws nothing.
        total: Queries an arm; None where that isn't known.

    Example:
        >>> with Bars(["agent", "funnel"], None, 2) as bars:
        ...     bars.step("agent")
    """

    def __init__(self, arms: Sequence[str], file: TextIO | None, total: int | None) -> None:
        self._arms, self._file, self._total = tuple(arms), file, total
        self._bars: dict[str, Any] = {}

    def __enter__(self) -> Bars:
        """Draws the empty bars."""
        if self._file is None:
            return self
        if self._file.isatty():
            form = "{desc:<14}{bar:30} {n_fmt:>4}/{total_fmt}  {rate_fmt}"
            for at, arm in enumerate(self._arms):
                self._bars[arm] = tqdm(
                    total=self._total,
                    desc=arm,
                    position=at,
                    file=self._file,
                    bar_format=form,
                    unit=" queries",
                )
        else:
            every = self._total and self._total * len(self._arms)
            bar = tqdm(total=every, desc="answers", file=self._file, mininterval=5, ascii=True)
            self._bars = dict.fromkeys(self._arms, bar)
        return self

    def step(self, arm: str) -> None:
        """One more query of that arm is answered."""
        if self._bars:
            self._bars[arm].update()

    def __exit__(self, *_: object) -> None:
        """Leaves the bars as they are."""
        for bar in {id(bar): bar for bar in self._bars.values()}.values():
            bar.close()
