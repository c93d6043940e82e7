"""The ways of running that `speceyes bench` compares."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from speceyes.bench.counted import CountedModel
from speceyes.protocols import VisionLanguageModel
from speceyes.types import Query, Result

if TYPE_CHECKING:
    from speceyes.gate import SeparabilityGate

REFERENCE, AGENT, FUNNEL = "reference schedule", "agent, batched", "speceyes"
DRAFTS = "drafts alone"
TO_THE_END = "... drafts to their end"
COMPILED = "... compiled steps"
DEPTH, SPECREASON, TRANSFER = "drafts with depth", "SpecReason", "reasoning transfer"
STRATEGIES = (DEPTH, SPECREASON, TRANSFER)
SMALL_JUDGE, NO_JUDGE = "... small judge", "... no judge"
ASKED_FOR = (COMPILED, SMALL_JUDGE, NO_JUDGE, *STRATEGIES)
"""Arms that run only where they are named: compiling takes minutes, and other judges and strategies
give other answers."""


@dataclass(frozen=True, slots=True)
class Speech:
    """Tools, dialect and texts that models are driven with, as the options of commands have them.

    Args:
        tools: What the agent may call.
        dialect: How it writes calls.
        profile: A file that says how it is driven; None for the dialect's own.
        texts: A file that says what all are told; None for our own.
    """

    tools: Sequence[str] = ("zoom",)
    dialect: str = "auto"
    profile: str | None = None
    texts: str | None = None


class BenchModel(VisionLanguageModel, Protocol):
    """A model that the arms can be made of: `HFModel`, or `PlannedModel` on top of one."""

    @property
    def device(self) -> Any:
        """Where its weights are."""
        ...

    @property
    def spent(self) -> Any:
        """Computation so far, as `HFModel.spent`."""
        ...

    def sharing(self, *, cache_bytes: int | None = None, compile: bool | None = None) -> BenchModel:
        """Another one on the same weights, with nothing kept."""
        ...

    def reference(self) -> BenchModel:
        """The same weights under the reference schedule."""
        ...

    def forget(self) -> None:
        """Gives up what is kept."""
        ...


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of running.

    Args:
        name: Shown in the table.
        run: Answers all queries, and gives results as they finish.
        models: What it runs on; each counts what it computes.
    """

    name: str
    run: Callable[[Iterable[Query]], Iterable[Result]]
    models: tuple[BenchModel | CountedModel, ...]


def engine_arms(
    large: CountedModel,
    small: CountedModel,
    gate: SeparabilityGate,
    speech: Speech,
    *,
    batch: int,
) -> list[Arm]:
    """The arms over models that live elsewhere: what an engine keeps and how it computes is its own
    affair, so that arms which differ in that alone are left out.

    Args:
        large: The agent.
        small: The drafter.
        gate: The gate.
        speech: How they are driven.
        batch: Queries judged and drafted together, and trajectories alive at once.
    """
    from speceyes.answerer import SpeculativeAnswerer
    from speceyes.fallback import AgenticFallback
    from speceyes.judge import ToolJudge
    from speceyes.pipeline import ScheduleConfig, SpecPipeline
    from speceyes.pipeline.reference import as_published

    told: dict[str, Any] = {"dialect": speech.dialect, "texts": speech.texts}
    # Each arm's queries take the same routes every time, over engines too.
    laid_out = functools.partial(ScheduleConfig, batch, speculate="always")

    def agent(alive: int) -> AgenticFallback:
        return AgenticFallback(
            large, tools=speech.tools, profile=speech.profile, max_batch=alive, **told
        )

    def funnel(
        name: str,
        *,
        alive: int = batch,
        schedule: ScheduleConfig = laid_out(),
        judge: Literal["large", "small", "none"] = "large",
        published: bool = False,
    ) -> Arm:
        answerer = SpeculativeAnswerer(small, top_k=gate.top_k, texts=speech.texts)
        asked = ToolJudge(large, tools=speech.tools, **told) if judge == "large" else None
        if judge == "small":
            asked = answerer.judge()
        pipe = SpecPipeline(
            judge=asked, answerer=answerer, gate=gate, fallback=agent(alive), schedule=schedule
        )
        pipe = as_published(pipe) if published else pipe
        return Arm(name, pipe.stream, (large, small))

    def alone(name: str, alive: int) -> Arm:
        schedule = ScheduleConfig(batch_size=batch)
        pipe = SpecPipeline(fallback=agent(alive), schedule=schedule)
        return Arm(name, pipe.stream, (large, small))

    return [
        alone("agent, one by one", 1),
        alone(AGENT, batch),
        funnel(REFERENCE, published=True),
        funnel(FUNNEL),
        funnel("... fallback one by one", alive=1),
        funnel("... without overlap", schedule=laid_out(overlap=False)),
        funnel("... drafting first", schedule=laid_out(order="draft_first")),
        funnel(TO_THE_END, schedule=laid_out(end_drafts_early=False)),
        funnel(SMALL_JUDGE, judge="small"),
        funnel(NO_JUDGE, judge="none"),
    ]


def arms(
    large: BenchModel,
    small: BenchModel,
    gate: SeparabilityGate,
    *,
    tools: Sequence[str],
    batch: int,
    max_steps: int = 6,
) -> list[Arm]:
    """The arms: the paper's ways, ours, and ours with one thing switched off each.

    Args:
        large: The agent.
        small: The drafter.
        gate: The gate.
        tools: The agent's tools.
        batch: Queries judged and drafted together, and trajectories alive at once.
        max_steps: Most turns of the agent.
    """
    from speceyes.answerer import SpeculativeAnswerer
    from speceyes.fallback import AgenticFallback
    from speceyes.judge import ToolJudge
    from speceyes.pipeline import ScheduleConfig, SpecPipeline
    from speceyes.pipeline.reference import as_published

    def funnel(
        name: str,
        strong: BenchModel,
        quick: BenchModel,
        *,
        alive: int = batch,
        schedule: ScheduleConfig | None = None,
        published: bool = False,
        judge: Literal["large", "small", "none"] = "large",
    ) -> Arm:
        asked = ToolJudge(strong, tools=tools) if judge == "large" else None
        if judge == "small":
            asked = ToolJudge(quick, dialect=None)
        pipe = SpecPipeline(
            judge=asked,
            answerer=SpeculativeAnswerer(quick, top_k=gate.top_k),
            gate=gate,
            fallback=AgenticFallback(strong, tools=tools, max_batch=alive, max_steps=max_steps),
            schedule=schedule or ScheduleConfig(batch_size=batch),
        )
        if published:
            pipe = as_published(pipe)
        return Arm(name, pipe.stream, (strong, quick))

    def agent(name: str, model: BenchModel, alive: int) -> Arm:
        fallback = AgenticFallback(model, tools=tools, max_batch=alive, max_steps=max_steps)
        return Arm(
            name,
            SpecPipeline(fallback=fallback, schedule=ScheduleConfig(batch_size=batch)).stream,
            (model,),
        )

    def shared() -> tuple[BenchModel, BenchModel]:
        return large.sharing(), small.sharing()

    return [
        agent("agent, one by one, as published", large.reference(), 1),
        agent("agent, one by one", large.sharing(), 1),
        agent(AGENT, large.sharing(), batch),
        funnel(REFERENCE, *shared(), published=True),
        funnel(FUNNEL, *shared()),
        funnel("... nothing kept", large.sharing(cache_bytes=0), small.sharing(cache_bytes=0)),
        funnel("... fallback one by one", *shared(), alive=1),
        funnel(
            "... overlapped by threads", *shared(), schedule=ScheduleConfig(batch, overlap=True)
        ),
        funnel("... drafting first", *shared(), schedule=ScheduleConfig(batch, "draft_first")),
        funnel(TO_THE_END, *shared(), schedule=ScheduleConfig(batch, end_drafts_early=False)),
        funnel(SMALL_JUDGE, *shared(), judge="small"),
        funnel(NO_JUDGE, *shared(), judge="none"),
        funnel(COMPILED, large.sharing(compile=True), small.sharing(compile=True)),
    ]


def strategies(
    large: BenchModel,
    small: BenchModel,
    looker: BenchModel,
    gate: SeparabilityGate,
    *,
    tools: Sequence[str],
    batch: int,
) -> list[Arm]:
    """Other strategies on the same models (docs/strategies.md). Their answers are their own.

    Args:
        large: The agent.
        small: The drafter of short answers.
        looker: A small model that calls tools.
        gate: Of the looker's drafts.
        tools: The agent's tools.
        batch: Queries drafted together, and trajectories alive at once.
    """
    from speceyes.answerer import SpeculativeAnswerer
    from speceyes.drafting import DepthRule
    from speceyes.fallback import AgenticFallback
    from speceyes.judge import ToolJudge
    from speceyes.pipeline import ScheduleConfig, SpecPipeline
    from speceyes.strategies import ReasoningTransfer, SpecReason

    strong, quick = large.sharing(), looker.sharing()
    deep = SpecPipeline(
        judge=ToolJudge(strong, tools=tools),
        answerer=SpeculativeAnswerer(
            quick, top_k=gate.top_k, tools=tools, max_depth=1, rule=DepthRule(gate)
        ),
        gate=gate,
        fallback=AgenticFallback(strong, tools=tools, max_batch=batch),
        schedule=ScheduleConfig(batch_size=batch),
    )
    proposed = large.sharing(), looker.sharing()
    transferred = large.sharing(), small.sharing()
    return [
        Arm(DEPTH, deep.stream, (strong, quick)),
        Arm(SPECREASON, SpecReason(*proposed, tools=tools, max_batch=batch).stream, proposed),
        Arm(TRANSFER, ReasoningTransfer(*transferred, batch_size=batch).stream, transferred),
    ]


def drafts_alone(small: BenchModel | CountedModel, gate: SeparabilityGate, *, batch: int) -> Arm:
    """Draft and gate without judge or agent: what a draft costs by itself.

    Args:
        small: The drafter.
        gate: The gate.
        batch: Queries drafted together.
    """
    from speceyes.answerer import SpeculativeAnswerer
    from speceyes.pipeline import ScheduleConfig, SpecPipeline

    quick = small if isinstance(small, CountedModel) else small.sharing()
    answerer = SpeculativeAnswerer(quick, top_k=gate.top_k)
    pipe = SpecPipeline(answerer=answerer, gate=gate, schedule=ScheduleConfig(batch_size=batch))
    return Arm(DRAFTS, pipe.stream, (quick,))
