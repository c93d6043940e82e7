"""Turns of arms on the same queries: their order, and the clock over one turn.

`speceyes demo`, `eval` and `bench` all run arms this way: an arm begins with nothing that another
has left in a model, queries are stamped when the arm pulls them, and what is done with a result
while the arm waits (a progress bar) is all that the clock sees besides the arm.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias, TypeVar, final

from speceyes.evaluation import machine_load
from speceyes.protocols import CountsTokens, SupportsForget, TellsTimes, offers
from speceyes.types import Query, Result

Stream: TypeAlias = Callable[[Iterable[Query]], Iterable[Result]]
"""An arm: queries to results as they finish."""
Name = TypeVar("Name")


def order_of(arms: Sequence[Name], number: int) -> tuple[Name, ...]:
    """Order of the arms in a round, by a Williams design (E. J. Williams, Aust. J. Sci. Res. A 2,
    1949): over len(arms) rounds, twice as many for an odd number, each arm comes equally often at
    each place and right after each other arm, so that neither drift nor what an arm leaves behind
    favours one.

    Args:
        arms: All arms.
        number: The round's, from 0 on.

    Example:
        >>> [order_of("abcd", number) for number in range(4)][:2]
        [('a', 'd', 'b', 'c'), ('b', 'a', 'c', 'd')]
    """
    n = len(arms)
    zigzag = [at // 2 if at % 2 == 0 else n - 1 - at // 2 for at in range(n)]
    if n % 2 and number // n % 2:
        zigzag.reverse()
    return tuple(arms[(at + number) % n] for at in zigzag)


@final
class Turn:
    """One arm's turn on some queries. The clock starts here.

    Args:
        models: What the arm may run on. Those that keep anything forget it before the clock starts.
    """

    def __init__(self, models: Iterable[object]) -> None:
        self._models = tuple(models)
        forget(self._models)
        self._counts = [_counts(model) for model in self._models]
        self._times = [_times(model) for model in self._models]
        self._start = machine_load.now()
        self._end: machine_load.Load | None = None

    def run(self, stream: Stream, queries: Iterable[Query]) -> Iterator[tuple[Result, float]]:
        """(result, seconds since the arm pulled its query) as they finish; stops the clock.

        Args:
            stream: The arm.
            queries: Each with an id of its own; pulled as the arm goes on.
        """
        pulled: dict[str, float] = {}

        def stamped() -> Iterator[Query]:
            for query in queries:
                pulled[query.id] = time.perf_counter()
                yield query

        for result in stream(stamped()):
            yield result, time.perf_counter() - pulled.pop(result.query_id)
        self._end = machine_load.now()

    @property
    def took(self) -> tuple[float, float, float | None]:
        """(wall seconds, CPU seconds, other processes' share of the machine, None where the system
        doesn't tell), up to now where the turn was broken off.
        """
        return (self._end or machine_load.now()).since(self._start)

    @property
    def spent(self) -> list[dict[str, float]]:
        """Counts of each model since, by the fields of its `spent`; {} where it has none."""
        return [
            {name: count - before[name] for name, count in _counts(model).items()}
            for model, before in zip(self._models, self._counts, strict=True)
        ]

    @property
    def engine(self) -> list[dict[str, float]]:
        """Times of each model's engine since, by its own clock, in seconds ("queued", "prefill",
        "decode") on so many "requests"; {} where it says nothing. Others' requests count as well.
        """
        return [
            {name: total - before[name] for name, total in now.items()} if before else {}
            for before, now in zip(self._times, map(_times, self._models), strict=True)
        ]


def _times(model: object) -> dict[str, float]:
    said = model.times() if offers(model, TellsTimes) else None
    return {} if said is None else dataclasses.asdict(said)


def forget(models: Iterable[object]) -> None:
    """Has models give up what they keep, so that no arm finds read what another has read."""
    for model in models:
        if offers(model, SupportsForget):
            model.forget()


def _counts(model: object) -> dict[str, float]:
    spent = model.spent if offers(model, CountsTokens) else None
    return {} if spent is None else dataclasses.asdict(spent)
