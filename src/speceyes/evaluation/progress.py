"""Progress bars: of the demo's arms, and one that knows where it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TextIO, final

from tqdm import tqdm
from tqdm.auto import tqdm as tqdm_auto

from speceyes.notebook import in_notebook


def bar(file: TextIO | None, **more: Any) -> Any:
    """A progress bar: a widget in a notebook, redrawn on a terminal, a line now and then in a log.

    Args:
        file: Where to draw; None draws nothing, and None comes back.
        **more: For tqdm.
    """
    if file is None:
        return None
    if in_notebook():
        more.pop("bar_format", None)
        return tqdm_auto(**more)
    if not file.isatty():
        more = {"mininterval": 10, "ascii": True, **more}
        return tqdm(file=_Lines(file), **more)
    return tqdm(file=file, **more)


@final
class _Lines:
    """A log for a bar: what the bar would draw over itself is a line of its own."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._last = file, ""

    def write(self, text: str) -> None:
        """Writes a drawn bar as a line, unless it is the last one over again."""
        line = text.strip()
        if line and line != self._last:
            self._last = line
            self._file.write(f"{line}\n")

    def flush(self) -> None:
        """Has the log keep what it was given."""
        self._file.flush()


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
        if self._file.isatty() or in_notebook():
            form = "{desc:<14}{bar:30} {n_fmt:>4}/{total_fmt}  {rate_fmt}"
            for at, arm in enumerate(self._arms):
                self._bars[arm] = bar(
                    self._file,
                    total=self._total,
                    desc=arm,
                    position=at,
                    bar_format=form,
                    unit=" queries",
                )
        else:
            every = self._total and self._total * len(self._arms)
            one = bar(self._file, total=every, desc="answers", mininterval=5)
            self._bars = dict.fromkeys(self._arms, one)
        return self

    def step(self, arm: str) -> None:
        """One more query of that arm is answered."""
        if self._bars:
            self._bars[arm].update()

    def __exit__(self, *_: object) -> None:
        """Leaves the bars as they are."""
        for one in {id(one): one for one in self._bars.values()}.values():
            one.close()
