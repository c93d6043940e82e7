"""Growth of costs: the same models, one thing changed at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from speceyes.bench.arms import Arm
from speceyes.bench.measure import Measured, once, summarise
from speceyes.errors import ConfigError
from speceyes.evaluation.failures import Failures, merged
from speceyes.types import Query

DEFAULTS: Mapping[str, tuple[float, ...]] = {
    "batch": (1, 4, 16, 32),
    "queries": (100, 500, 5000),
    "depth": (0, 1, 2, 4),
    "accept-rate": (0.0, 0.25, 0.5, 0.75, 1.0),
    "vocabulary": (2048, 32768, 151936),
}
"""What can be swept, and its values where none are given."""

AXES: Mapping[str, str] = {
    "batch": "queries judged and drafted together, and trajectories alive at once",
    "queries": "queries in the run",
    "depth": "tool calls before the agent's answer",
    "accept-rate": "share of drafts that the gate accepts",
    "vocabulary": "tokens of the vocabulary",
}
_TIMES = ("ms_per_query", "cpu_ms_per_query")
LOGARITHMIC = ("batch", "queries", "vocabulary")


@dataclass(frozen=True, slots=True)
class Sweep:
    """One parameter and the values it takes."""

    name: str
    values: tuple[float, ...]


def parse(text: str) -> list[Sweep]:
    """Sweeps as the command line has them: "batch,depth=0:2:4".

    Raises:
        ConfigError: A name is unknown or comes twice, or a value is out of range.

    Example:
        >>> parse("depth=0:2")
        [Sweep(name='depth', values=(0, 2))]
    """
    sweeps: list[Sweep] = []
    for part in text.split(","):
        name, _, listed = part.strip().partition("=")
        if name not in DEFAULTS:
            raise ConfigError(f"--sweep {name!r}: there are {', '.join(DEFAULTS)}")
        if any(sweep.name == name for sweep in sweeps):
            raise ConfigError(f"--sweep names {name} twice: list its values as {name}=1:2:4")
        values = tuple(_value(name, one) for one in listed.split(":")) if listed else DEFAULTS[name]
        if len(set(values)) < len(values):
            raise ConfigError(f"--sweep {part.strip()}: a value comes twice")
        sweeps.append(Sweep(name, values))
    return sweeps


def _value(name: str, text: str) -> float:
    share = name == "accept-rate"
    try:
        value = float(text) if share else int(text)
    except ValueError:
        value = -1
    least = 0 if share or name == "depth" else 1
    if not (least <= value and (value <= 1 or not share)):
        allowed = "a share, 0 to 1" if share else f"a whole number, at least {least}"
        raise ConfigError(f"--sweep {name}: {text!r} is not allowed; it must be {allowed}")
    return value


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a sweep.

    Args:
        value: The value.
        ways: The arms, made for it.
        queries: Makes its queries anew, each as it is asked for.
        count: How many they are.
    """

    value: float
    ways: Sequence[Arm]
    queries: Callable[[], Iterable[Query]]
    count: int


def run(
    points: Sequence[Point],
    *,
    repeats: int = 1,
    warm_up: int = 8,
    step: Callable[[str], None] | None = None,
) -> tuple[dict[float, dict[str, Any]], list[Failures]]:
    """Runs every arm at every point, as often as `repeats` says, points and arms taking turns.

    Args:
        points: The values.
        repeats: How often; each begins with another point.
        warm_up: Queries that every arm of every point answers before.
        step: Told what is finished.

    Returns:
        By value, what `summarise` gives; and failed queries by arm, over all values.
    """
    found: dict[float, dict[str, list[Measured]]] = {}
    for point in points:
        found[point.value] = {way.name: [] for way in point.ways}
        for way in point.ways:
            once(way, islice(point.queries(), warm_up))
    for repeat in range(repeats):
        turn = repeat % len(points)
        for point in (*points[turn:], *points[:turn]):
            for way in point.ways[::-1] if repeat % 2 else point.ways:
                found[point.value][way.name].append(once(way, point.queries()))
                if step is not None:
                    step(f"{way.name} at {point.value:g}")
    failed = merged(
        run.failures for arms in found.values() for runs in arms.values() for run in runs
    )
    return {point.value: summarise(found[point.value], point.count) for point in points}, failed


def table(name: str, found: Mapping[float, Mapping[str, Any]]) -> str:
    """The figures as a Markdown table, a row a value, each arm's ms a query, by the clock and of
    the CPU, and below it how much the dearest value costs over the cheapest.
    """
    arms = list(next(iter(found.values())))
    head = "".join(f" {arm}, ms a query | CPU ms |" for arm in arms)
    lines = [f"| {name} |{head} peak memory |", "|--:|" + "--:|--:|" * len(arms) + "--:|"]
    for value, row in found.items():
        cells = [f"{row[arm][key]:.1f}" for arm in arms for key in _TIMES]
        peaks = [row[arm]["peak_bytes"] for arm in arms if row[arm]["peak_bytes"] is not None]
        cells.append(f"{max(peaks) / 2**20:,.0f} MiB" if peaks else "")
        lines.append(f"| {value:g} | " + " | ".join(cells) + " |")
    told = "; ".join(
        f"{arm} {_spread([row[arm][_TIMES[0]] for row in found.values()]):.2f}x "
        f"(CPU {_spread([row[arm][_TIMES[1]] for row in found.values()]):.2f}x)"
        for arm in arms
    )
    return "\n".join([*lines, "", f"Dearest over cheapest: {told}."])


def _spread(values: Sequence[float]) -> float:
    return max(values) / min(values)
