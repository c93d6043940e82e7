"""Forecasts of a pilot run beside what is then measured, over the scripted engine."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from speceyes.bench.roofline.workload import Played, RooflineWorkload, play
from speceyes.errors import ConfigError
from speceyes.evaluation.rounds import ratio

PIECES: Final = 12
"""Pieces that a stretch of a pilot is cut into, for the interval of what it foresees."""


@final
@dataclass(frozen=True, slots=True)
class Foresight:
    """Seconds a query at saturation, foreseen and then measured.

    Args:
        name: The workload's.
        judge: Which model judges.
        agent: The agent alone: (foreseen, measured).
        funnel: Under speculation: (foreseen, measured).
        gain: Of the two: (foreseen, measured).
        interval: 95 % interval of the foreseen gain.
        auto: What "auto" gains over the agent alone.
    """

    name: str
    judge: str
    agent: tuple[float, float]
    funnel: tuple[float, float]
    gain: tuple[float, float]
    interval: tuple[float, float]
    auto: float

    @property
    def worst(self) -> float:
        """The largest relative error of agent and funnel."""
        return max(abs(told / found - 1) for told, found in (self.agent, self.funnel))


def foresee(
    workload: RooflineWorkload, *, pilot: int | None = None, auto: bool = True
) -> Foresight:
    """Forecast from a pilot run, and runs of other queries of the same kind to hold it against.

    The pilot has two stretches, the agent alone and the funnel alone, each at the concurrency that
    is served at. One run in which some queries go straight to the agent while others are speculated
    on tells less: what an engine keeps depends on its company. With 32 images of 16,384 tokens at
    once, the agent alone finds none of them kept for its second turn; behind the funnel fewer are
    alive, nearly all are kept, and a fallback costs a third less.

    Args:
        workload: The queries; its routes' `n` is how many are measured.
        pilot: Queries of each stretch; None for as many.
        auto: Whether "auto" is tried too; not a number where it isn't.

    Raises:
        ConfigError: The pilot is too short to tell anything.
    """
    alone = workload.batch == 1
    at_once = 1 if alone else None
    n = workload.routes.n if pilot is None else pilot
    if n < 4 * PIECES:
        raise ConfigError(f"a pilot of {n} queries tells no gain: take at least {4 * PIECES}")
    routes = dataclasses.replace(workload.routes, n=n, seed=workload.routes.seed + 1)
    tried = dataclasses.replace(workload, routes=routes)
    told = [_pace(play(tried, how, at_once=at_once), alone) for how in ("never", "always")]
    gain, low, high = ratio(*told)
    assert low is not None and high is not None
    agent, funnel = (play(workload, how, at_once=at_once) for how in ("never", "always"))
    foreseen = [_mean(stretch) for stretch in told]
    seconds = [_mean(_pace(one, alone)) for one in (agent, funnel)]
    by_itself = play(workload, "auto", at_once=at_once).seconds if auto else float("nan")
    return Foresight(
        workload.name,
        workload.judge,
        (foreseen[0], seconds[0]),
        (foreseen[1], seconds[1]),
        (gain, seconds[0] / seconds[1]),
        (low, high),
        agent.seconds / by_itself,
    )


def _pace(played: Played, alone: bool) -> list[float]:
    """Seconds a query of each piece of a run, of its middle where several are under way at once."""
    ends = [0.0, *played.ends]
    first, last = (0, len(ends) - 1) if alone else (len(ends) // 5, len(ends) * 4 // 5)
    at = [first + (last - first) * piece // PIECES for piece in range(PIECES + 1)]
    # A piece counts by its queries, so that the mean over pieces is that over queries.
    return [(ends[to] - ends[since]) / (to - since) for since, to in itertools.pairwise(at)]


def _mean(pieces: Sequence[float]) -> float:
    return sum(pieces) / len(pieces)


def table(found: Sequence[Foresight]) -> str:
    """Markdown table, a line a workload."""
    head = ["workload", "judge", "agent, ms: foreseen, measured", "funnel, ms", "gain", "auto"]
    lines = [f"| {' | '.join(head)} |", "|---|---|--:|--:|--:|--:|"]
    for one in found:
        low, high = one.interval
        cells = [
            one.name,
            one.judge,
            *(f"{1000 * a:.0f}, {1000 * b:.0f}" for a, b in (one.agent, one.funnel)),
            f"{one.gain[0]:.2f}x ({low:.2f} to {high:.2f}), {one.gain[1]:.2f}x",
            "" if one.auto != one.auto else f"{one.auto:.2f}x",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
