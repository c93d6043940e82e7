"""Workloads of `speceyes bench`: the bundled pair on scenes, or real sizes with random weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, final

from speceyes.bench.arms import (
    AGENT,
    ASKED_FOR,
    FUNNEL,
    TO_THE_END,
    Arm,
    Speech,
    arms,
    drafts_alone,
    engine_arms,
    strategies,
)
from speceyes.bench.counted import CountedModel
from speceyes.bench.planned import PlannedModel, RoutePlan
from speceyes.bench.queries import Estimate, check_room, estimate, fresh, photos
from speceyes.bench.sweep import Point, Sweep
from speceyes.checks import listed
from speceyes.errors import ConfigError
from speceyes.types import Query

if TYPE_CHECKING:
    from speceyes.gate import SeparabilityGate
    from speceyes.models.hf import HFModel
    from speceyes.protocols import VisionLanguageModel

POOL = 48
"""Scenes that are drawn for a sweep; see `bench_shapes.fresh`."""
TOP_K = 64
THRESHOLD = 0.98


class BenchWorkload(Protocol):
    """Models with queries for them."""

    @property
    def models(self) -> tuple[Any, Any]:
        """The agent and the drafter."""
        ...

    def ways(self, *, batch: int, n: int, **changed: Any) -> list[Arm]:
        """The arms, for n queries; `changed` are fields of `RoutePlan`."""
        ...

    def drafts(self, *, batch: int, n: int, **changed: Any) -> Arm:
        """Draft and gate alone."""
        ...

    def queries(self, n: int) -> Callable[[], Iterable[Query]]:
        """Makes n queries anew, each as it is asked for."""
        ...


@final
class BundledWorkload:
    """The bundled trained pair on held-out scenes; its own decisions set the ways.

    Args:
        large: The agent.
        small: The drafter.
        gate: The gate.
    """

    def __init__(self, large: HFModel, small: HFModel, gate: SeparabilityGate) -> None:
        self.models = large, small
        self._gate = gate
        self._looker: HFModel | None = None
        self._pool: list[Query] = []

    def ways(self, *, batch: int, n: int, **changed: Any) -> list[Arm]:
        """The arms, other strategies among them; nothing can be changed, for the models decide."""
        from speceyes import tiny
        from speceyes.gate import SeparabilityGate
        from speceyes.models.hf import HFModel

        if self._looker is None:
            self._looker = HFModel.from_pretrained(
                tiny.SMALL_ZOOM, device=str(self.models[1].device)
            )
        found = tiny.depth_settings()
        chosen = found["judged"]["small_zoom, depth 1"]["threshold"]
        deep = SeparabilityGate(chosen, top_k=int(found["top_k"]))
        return [
            *arms(*self.models, self._gate, tools=["zoom"], batch=batch),
            *strategies(*self.models, self._looker, deep, tools=["zoom"], batch=batch),
        ]

    def drafts(self, *, batch: int, n: int, **changed: Any) -> Arm:
        """Draft and gate alone."""
        return drafts_alone(self.models[1], self._gate, batch=batch)

    def scenes(self, n: int) -> list[Query]:
        """N queries, each on a scene of its own."""
        from speceyes.tiny.scenes import questions

        return [item.query for item in questions("heldout", n)]

    def queries(self, n: int) -> Callable[[], Iterable[Query]]:
        """Makes n queries anew, on a few scenes, no two of them with the same image."""
        if not self._pool:
            self._pool = self.scenes(POOL)
        return lambda: fresh(self._pool, n)


@final
class NamedWorkload:
    """Models of the user's choice, engines among them, on held-out scenes; their own
    decisions set the ways.

    Args:
        large: The agent.
        small: The drafter.
        gate: The gate.
        speech: How they are driven.
    """

    def __init__(
        self,
        large: VisionLanguageModel,
        small: VisionLanguageModel,
        gate: SeparabilityGate,
        speech: Speech,
    ) -> None:
        self.models = CountedModel(large), CountedModel(small)
        self._gate, self._speech = gate, speech

    def ways(self, *, batch: int, n: int, **changed: Any) -> list[Arm]:
        """The arms; nothing can be changed, for the models decide."""
        return engine_arms(*self.models, self._gate, self._speech, batch=batch)

    def drafts(self, *, batch: int, n: int, **changed: Any) -> Arm:
        """Draft and gate alone."""
        return drafts_alone(self.models[1], self._gate, batch=batch)

    def scenes(self, n: int) -> list[Query]:
        """N held-out scenes, each with a question."""
        from speceyes.tiny.scenes import questions

        return [item.query for item in questions("heldout", n)]

    def queries(self, n: int) -> Callable[[], Iterable[Query]]:
        """Makes n queries anew, on a few scenes, no two of them with the same image."""
        pool = self.scenes(min(n, POOL))
        return lambda: fresh(pool, n)


@final
class ShapedWorkload:
    """Random weights of real sizes, and queries whose ways are planned.

    Args:
        large: The agent.
        small: The drafter.
        routes: The plan; `n` is set by each run.
        size: Width and height of images in pixels.
    """

    def __init__(
        self, large: HFModel, small: HFModel, routes: RoutePlan, size: tuple[int, int]
    ) -> None:
        from speceyes.gate import SeparabilityGate

        self.models = large, small
        self._routes = routes
        self._size = size
        self._gate = SeparabilityGate(THRESHOLD, top_k=TOP_K)

    def _routed(self, n: int, changed: dict[str, Any]) -> tuple[PlannedModel, PlannedModel, int]:
        routes = dataclasses.replace(self._routes, n=n, **changed)
        large, small = (PlannedModel(model, routes) for model in self.models)
        return large, small, max(6, routes.depth + 1)

    def ways(self, *, batch: int, n: int, **changed: Any) -> list[Arm]:
        """The arms, for n queries; `changed` are fields of `RoutePlan`."""
        large, small, steps = self._routed(n, changed)
        ways = arms(large, small, self._gate, tools=["zoom"], batch=batch, max_steps=steps)
        # Planned drafts always go on to their end.
        return [way for way in ways if way.name != TO_THE_END]

    def drafts(self, *, batch: int, n: int, **changed: Any) -> Arm:
        """Draft and gate alone."""
        _, small, _ = self._routed(n, changed)
        return drafts_alone(small, self._gate, batch=batch)

    def queries(self, n: int) -> Callable[[], Iterable[Query]]:
        """Makes n queries anew."""
        return lambda: photos(n, self._size)


def shaped(
    names: str,
    routes: RoutePlan,
    size: tuple[int, int],
    *,
    device: str | None,
    dtype: str | None,
    batch: int,
    tell: Callable[[str], None],
) -> ShapedWorkload:
    """Builds two models; says what memory they take before anything is allocated.

    Args:
        names: Of two shapes, "small,large"; both may be the same.
        routes: The plan.
        size: Width and height of images in pixels.
        device: Where; None takes a GPU if there is one.
        dtype: Of the weights; None takes bfloat16 on a GPU and float32 on the CPU.
        batch: Queries at once.
        tell: Told a line at a time.

    Raises:
        ConfigError: A shape, device or dtype that isn't there, or too little memory.
    """
    from speceyes.models.hf import device_memory as gauge
    from speceyes.models.shapes import build, parameters, place
    from speceyes.models.sizes import named

    two = listed(names)
    if len(two) != 2:
        raise ConfigError(f"--shapes {names!r} names {len(two)}; name two: small,large")
    where, width = place(device, dtype)
    needs: list[Estimate] = []
    for name in two:
        shape = named(name)
        needs.append(estimate(name, shape, parameters(shape), routes, size, width))
    for line in check_room(needs, gauge.free(where), batch):
        tell(line)
    small, large = (build(name, device=where, dtype=dtype, seed=at) for at, name in enumerate(two))
    return ShapedWorkload(large, small, routes, size)


def chosen(ways: Sequence[Arm], text: str | None) -> list[Arm]:
    """The arms with one of the comma-separated texts in their names; all but those that must be
    asked for (`bench_arms.ASKED_FOR`) where there is none.

    Raises:
        ConfigError: No arm has.
    """
    if text is None:
        return [way for way in ways if way.name not in ASKED_FOR]
    wanted = listed(text)
    found = [way for way in ways if any(part in way.name for part in wanted)]
    if not found:
        names = ", ".join(repr(way.name) for way in ways)
        raise ConfigError(f"--arms {text!r} names no arm; there are {names}")
    return found


def points(
    workload: BenchWorkload, sweep: Sweep, *, batch: int, n: int, only: str | None
) -> list[Point]:
    """Arms of a sweep: by default the batched agent and speceyes.

    Args:
        workload: The models.
        sweep: What is changed.
        batch: Queries at once, where that is not swept.
        n: Queries, where they are not swept.
        only: As for `chosen`; `DRAFTS` is there too.
    """
    made = []
    for value in sweep.values:
        at, count = batch, n
        changed: dict[str, Any] = {}
        if sweep.name == "batch":
            at = int(value)
        elif sweep.name == "queries":
            count = int(value)
        elif sweep.name == "depth":
            changed = {"depth": int(value)}
        else:
            changed = {"alpha": value}
        ways = workload.ways(batch=at, n=count, **changed)
        if only is None:
            ways = [way for way in ways if way.name in (AGENT, FUNNEL)]
        else:
            ways = chosen([*ways, workload.drafts(batch=at, n=count, **changed)], only)
        made.append(Point(value, ways, workload.queries(count), count))
    return made


__all__ = [
    "BenchWorkload",
    "BundledWorkload",
    "NamedWorkload",
    "ShapedWorkload",
    "chosen",
    "points",
    "shaped",
]
