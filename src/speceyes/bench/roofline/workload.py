"""A funnel on scripted engines, driven by a virtual clock."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, final

from PIL import Image as PILImage

from speceyes.answerer import SpeculativeAnswerer
from speceyes.bench.planned import RoutePlan, number_of, planned
from speceyes.bench.queries import unlike
from speceyes.bench.roofline.clock import VirtualClock
from speceyes.bench.roofline.engine import Device
from speceyes.bench.roofline.model import LETTERS, RooflineModel
from speceyes.errors import ConfigError
from speceyes.fallback import AgenticFallback
from speceyes.gate import SeparabilityGate
from speceyes.judge import ToolJudge
from speceyes.models.sizes import named
from speceyes.pipeline.config import ScheduleConfig
from speceyes.pipeline.costs import CostModel, Speculate
from speceyes.pipeline.parts import Parts
from speceyes.pipeline.request import RequestState
from speceyes.pipeline.scheduler import Lane, Scheduler
from speceyes.protocols import VisionLanguageModel
from speceyes.tuning.roofline import ACCELERATORS
from speceyes.types import Completion, Conversation, Image, Query, Result, Sampling

JudgeKind: TypeAlias = Literal["large", "small", "none"]
MAGNIFY: Final = 16
"""See `RooflineModel`: pictures are drawn at a 256th of their pixels."""
_MEMORY: Final = 80e9
_OWN: Final = 0.9
"""Bytes of an accelerator's memory, and the share that engines take."""


@final
@dataclass(frozen=True, slots=True)
class RooflineWorkload:
    """Queries for a funnel of two models on one accelerator.

    Args:
        name: What is special about them.
        routes: What becomes of each.
        image: Width and height of their images in pixels.
        judge: Which model judges.
        batch: Queries judged and drafted together, and trajectories alive.
        spread: Standard deviation of the logarithm of a turn's tokens.
        draft_pixels: Most pixels that the small model sees; None for all.
        keeps: The engines keep prefixes.
        accelerator: A name among `speceyes.tuning.roofline.ACCELERATORS`.
        small: Shape of the drafter.
        large: Shape of the agent.
    """

    name: str
    routes: RoutePlan
    image: tuple[int, int] = (2246, 1582)
    judge: JudgeKind = "large"
    batch: int = 64
    spread: float = 0.3
    draft_pixels: int | None = None
    keeps: bool = True
    accelerator: str = "H100"
    small: str = "qwen3-vl-2b"
    large: str = "qwen2.5-vl-7b"

    def queries(self) -> Iterator[Query]:
        """Its queries, each with an image of its own."""
        size = tuple(max(28, side // MAGNIFY) for side in self.image)
        picture = PILImage.new("RGB", (size[0], size[1]), (90, 120, 150))
        for number in range(self.routes.n):
            query = Query(f"What is that? [{number}]", (picture,), id=f"query-{number:06d}")
            yield unlike(query, number)


@final
class PlannedSpeech:
    """A `VisionLanguageModel` that says at once what a `RoutePlan` says, and costs nothing.

    Args:
        routes: The plan.
        spread: See `RooflineWorkload`.
    """

    def __init__(self, routes: RoutePlan, spread: float) -> None:
        self._routes, self._spread = routes, spread

    @property
    def name(self) -> str:
        """Names it."""
        return "planned"

    def seen_size(self, image: Image) -> tuple[int, int]:
        """(width, height) in pixels."""
        return image.width, image.height

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        """One completion a conversation, in order."""
        return [self._one(conversation, sampling) for conversation in conversations]

    def _one(self, conversation: Conversation, sampling: Sampling) -> Completion:
        if sampling.first_token:
            tokens = 1
        elif sampling.top_k:
            tokens = self._routes.draft_tokens
        else:
            turn = sum(message.role == "assistant" for message in conversation.messages)
            number = (number_of(conversation) or 0) + 1_000_003 * self._routes.seed
            seed = number * 1009 + turn
            drawn = random.Random(seed).lognormvariate(-(self._spread**2) / 2, self._spread)
            tokens = max(4, round(self._routes.turn_tokens * drawn))
        said = Completion("", tuple(range(tokens)))
        return planned(self._routes, conversation, said, sampling, self.seen_size, _tokens)


def _tokens(text: str) -> int:
    return len(text) // LETTERS


@final
@dataclass(slots=True)
class Played:
    """Outcome of a workload. Times are virtual seconds.

    Args:
        results: In the order in which they ended.
        ends: When each did.
        seconds: From the first query to the last answer.
        costs: What the pipeline learned.
        device: The accelerator.
        large: The agent.
        small: The drafter.
    """

    results: list[Result] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    seconds: float = 0.0
    costs: CostModel = field(default_factory=CostModel)
    device: Device | None = None
    large: RooflineModel | None = None
    small: RooflineModel | None = None

    @property
    def steady_s(self) -> float:
        """Seconds a query while the house is full: of the middle of the run."""
        first, last = len(self.ends) // 5, len(self.ends) * 4 // 5
        return (self.ends[last] - self.ends[first]) / (last - first)

    @property
    def latency(self) -> float:
        """Mean seconds from submission to answer."""
        spent = [one.timings.latency or 0.0 for one in self.results]
        return sum(spent) / len(spent)


def play(
    workload: RooflineWorkload,
    speculate: Speculate | Literal["never"] = "always",
    *,
    at_once: int | None = None,
    rate: float | None = None,
    overlap: bool = True,
    seed: int = 0,
    probe: float = 0.0,
) -> Played:
    """Runs the real scheduler over the engines.

    Args:
        workload: The queries and the models.
        speculate: As `ScheduleConfig.speculate`; "never" has the agent alone answer.
        at_once: Queries that are in the house at any time; None for twice a batch.
        rate: Queries a second, at times of chance, instead.
        overlap: Judge and drafts run beside the agent, as they do in front of engines.
        seed: Of the times of chance.
        probe: As `ScheduleConfig.probe`.

    Raises:
        ConfigError: An accelerator or shape that isn't known.
    """
    speech = PlannedSpeech(workload.routes, workload.spread)
    house = House(workload, speech, speech)
    large, small = house.large, house.small
    pixels = None if workload.draft_pixels is None else workload.draft_pixels // MAGNIFY**2
    gate = SeparabilityGate(0.98, top_k=64)
    agent = AgenticFallback(
        large,
        tools=["zoom"],
        dialect="deepeyes",
        max_batch=workload.batch,
        max_steps=max(6, workload.routes.depth + 1),
    )
    judge = None
    if workload.judge == "large":
        judge = ToolJudge(large, tools=["zoom"], dialect="deepeyes")
    elif workload.judge == "small":
        judge = ToolJudge(small, dialect=None, max_pixels=pixels)
    alone = speculate == "never"
    schedule = ScheduleConfig(
        batch_size=min(16, workload.batch),
        overlap=overlap,
        speculate="always" if alone else speculate,  # type: ignore[arg-type]
        probe=probe,
    )
    parts = Parts(
        judge=None if alone else judge,
        answerer=None if alone else SpeculativeAnswerer(small, top_k=64, max_pixels=pixels),
        gate=None if alone else gate,
        fallback=agent,
        schedule=schedule,
        clock=house.clock,
    )
    return house.play(parts, at_once=at_once, rate=rate, overlap=overlap, seed=seed)


@final
class House:
    """Two engines on one accelerator with a clock, for one run.

    Args:
        workload: Says which, and what is asked.
        agent: What the large model says.
        drafter: What the small model says.

    Raises:
        ConfigError: An accelerator or shape that isn't known.
    """

    def __init__(
        self,
        workload: RooflineWorkload,
        agent: VisionLanguageModel,
        drafter: VisionLanguageModel,
    ) -> None:
        if workload.accelerator not in ACCELERATORS:
            raise ConfigError(f"{workload.accelerator!r}; there are {', '.join(ACCELERATORS)}")
        self.workload = workload
        self.clock = VirtualClock()
        self.device = Device(ACCELERATORS[workload.accelerator], self.clock)
        self.clock.add(self.device)
        shapes = [named(workload.large), named(workload.small)]
        models = []
        for shape, speech in zip(shapes, (agent, drafter), strict=True):
            free = _MEMORY * _OWN / len(shapes) / (2 * shape.kept_per_token)
            engine = self.device.serve(
                shape, most=4 * workload.batch, kept_tokens=round(free) if workload.keeps else 0
            )
            models.append(RooflineModel(engine, speech, self.clock, magnify=MAGNIFY))
        self.large, self.small = models

    def play(
        self,
        parts: Parts,
        *,
        at_once: int | None = None,
        rate: float | None = None,
        overlap: bool = True,
        seed: int = 0,
    ) -> Played:
        """Runs the scheduler over parts made of these models and this clock; see `play`."""
        most: float = 2 * self.workload.batch if at_once is None else at_once
        if rate is not None and at_once is None:
            most = math.inf  # who comes while many wait, waits too
        played = Played(device=self.device, large=self.large, small=self.small)
        played.costs.serve(parts)
        planner = played.costs if parts.plans else None
        scheduler = Scheduler(parts, planner=planner, on_result=played.costs.record)
        drive = _Drive(self.workload, scheduler, self.clock, played)
        lanes: tuple[Lane, ...] = ("speculative", "agent") if overlap else ("both",)
        came = times_of_chance(rate, seed)
        self.clock.run(
            [
                lambda: drive.submit(most, came),
                *(_stepping(drive, lane) for lane in lanes),
            ]
        )
        played.seconds = drive.last
        return played


def times_of_chance(rate: float | None, seed: int) -> Iterator[float]:
    """When queries come: a Poisson process.

    Args:
        rate: Queries a second; None for all at once.
        seed: Of the times.
    """
    chance, now = random.Random(seed), 0.0
    while True:
        if rate is not None:
            now += chance.expovariate(rate)
        yield now


def _stepping(drive: _Drive, lane: Lane) -> Any:
    return lambda: drive.step(lane)


class _Drive:
    """Submits queries, and steps the scheduler's lanes, until all are answered."""

    def __init__(
        self, workload: RooflineWorkload, scheduler: Scheduler, clock: VirtualClock, played: Played
    ) -> None:
        self._workload, self._scheduler, self._clock = workload, scheduler, clock
        self._played = played
        self._here = 0
        self._left = workload.routes.n
        self.last = 0.0

    def submit(self, most: float, came: Iterator[float]) -> None:
        for query in self._workload.queries():
            self._clock.wait(until=next(came))
            self._clock.wait(lambda: self._here < most)
            self._here += 1
            state = RequestState(query, client="bench", since=self._clock(), clock=self._clock)
            self._scheduler.submit([state])

    def step(self, lane: Lane) -> None:
        while self._left:
            self._clock.wait(lambda: self._scheduler.ready(lane) or not self._left)
            for request in self._scheduler.step(lane) if self._left else ():
                self._played.results.append(request.deliver())
                self._played.ends.append(self._clock())
                self._here -= 1
                self._left -= 1
                self.last = self._clock()


def eight(n: int, batch: int = 16) -> tuple[RooflineWorkload, ...]:
    """Eight workloads that differ in what decides whether speculation pays.

    Args:
        n: Queries of each.
        batch: See `RooflineWorkload`.

    Example:
        >>> len({one.name for one in eight(10)})
        8
    """
    vstar, small, large = (2246, 1582), (640, 480), (4032, 3024)

    def one(
        name: str, image: tuple[int, int], judge: JudgeKind, keeps: bool = True, **ways: Any
    ) -> RooflineWorkload:
        routes = RoutePlan(n, **{"turn_tokens": 100, "draft_tokens": 6, "depth": 1, **ways})
        return RooflineWorkload(name, routes, image, judge, batch, keeps=keeps)

    return (
        one("easy, small images, large judge", small, "large", beta=0.95, alpha=0.9),
        one("hard, large judge", vstar, "large", beta=0.5, alpha=0.3),
        one("shallow agent, large judge", vstar, "large", depth=0, beta=0.8, alpha=0.6),
        one("deep agent, small judge", vstar, "small", depth=4, turn_tokens=80),
        one("4K images, small judge", large, "small", depth=0, beta=0.8, alpha=0.3),
        one("small images, no judge", small, "none", beta=1.0, alpha=0.6, easy_depth=0),
        one("large judge, nothing kept", vstar, "large", keeps=False, easy_depth=0),
        one(
            "drift from easy to hard",
            vstar,
            "small",
            depth=0,
            beta=0.95,
            alpha=0.9,
            later=(0.9, 0.05),
        ),
    )
