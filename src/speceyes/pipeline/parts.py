"""Parts that a pipeline is made of, and what they can do beyond their call."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from speceyes.calibration.watched import WatchedGate
from speceyes.errors import ConfigError
from speceyes.gate import SeparabilityGate
from speceyes.judge import DRAFT_JUDGES, NO_JUDGE, behind_ladder
from speceyes.pipeline.audit import Auditor
from speceyes.pipeline.config import ScheduleConfig
from speceyes.pipeline.costs import Speculate
from speceyes.pipeline.route import Policy
from speceyes.protocols import (
    Answerer,
    BehindEngine,
    ChecksImages,
    DescribesDrafts,
    Gate,
    HasIdentity,
    HasModel,
    HasRevision,
    HasTopK,
    Judge,
    JudgesDrafts,
    NeedsTopK,
    RunsHere,
    SeesFewer,
    SupportsCheck,
    SupportsPrepare,
    VisionLanguageModel,
    offers,
)

if TYPE_CHECKING:
    from speceyes.fallback import AgenticFallback


@dataclass(frozen=True)
class Parts:
    """The phases, and how they are run.

    Args:
        judge: Phase I; None drafts every query.
        answerer: Phase II; None, together with the gate, for the agent alone.
        gate: Phase III; with an auditor a `WatchedGate`, which its monitor shuts.
        fallback: Phase IV; None leaves a query that isn't answered by draft without an answer.
        auditor: Has accepted drafts audited.
        schedule: Batch size, order and the rest.
        clock: Tells the time, seconds, by which phases are measured.
        ladder: Answerer and gate of each rung below these, from the cheapest up.
    """

    judge: Judge | None = None
    answerer: Answerer | None = None
    gate: Gate | None = None
    fallback: AgenticFallback | None = None
    auditor: Auditor | None = None
    schedule: ScheduleConfig = ScheduleConfig()
    clock: Callable[[], float] = time.perf_counter
    ladder: tuple[tuple[Answerer, Gate], ...] = ()

    def __post_init__(self) -> None:
        # One object owns gate and monitor, so that both change in the same moment.
        if self.auditor is None or self.gate is None or isinstance(self.gate, WatchedGate):
            return
        object.__setattr__(self, "gate", WatchedGate(self.gate, self.auditor.monitor))

    @cached_property
    def policy(self) -> Policy:
        """Policy for `route`."""
        return Policy(
            judges=self.judge is not None,
            drafts=self.answerer is not None and self.gate is not None,
            has_agent=self.fallback is not None,
            order=self.schedule.order,
            rungs=1 + len(self.ladder),
        )

    @cached_property
    def plans(self) -> bool:
        """True where some queries may go straight to the agent because of what phases cost."""
        asked = self.speculate == "auto" or self.schedule.probe > 0
        return asked and self.policy.drafts and self.policy.has_agent

    @cached_property
    def agent_judges(self) -> bool:
        """True where the agent's own model judges."""
        judge: object = self.judge
        mine = judge.model if offers(judge, HasModel) else None
        return mine is not None and self.fallback is not None and mine is self.fallback.model

    @cached_property
    def draft_judges(self) -> bool:
        """True where drafts may say that tools are needed."""
        answerer: object = self.answerer
        return offers(answerer, JudgesDrafts) and answerer.may_look

    @cached_property
    def views(self) -> tuple[int, ...]:
        """Most pixels that judge and drafts look at, each size once; empty where one of them looks
        at whole images.
        """
        if self.answerer is None:
            return ()
        judges = () if self.judge is None else (self.judge,)
        front: list[object] = [*judges, *(answerer for answerer, _ in self.ladder), self.answerer]
        sizes = [part.max_pixels if offers(part, SeesFewer) else None for part in front]
        return () if None in sizes else tuple(dict.fromkeys(s for s in sizes if s is not None))

    @cached_property
    def prepares(self) -> tuple[tuple[SupportsPrepare, int | None], ...]:
        """Models that can prepare images before they are asked, each with the most pixels that it
        will be shown: the judge's and the first drafter's, or the agent's where nothing is drafted.
        """
        drafter = self.ladder[0][0] if self.ladder else self.answerer
        first: tuple[object, ...] = (self.fallback,) if drafter is None else (self.judge, drafter)
        found = {}
        for part in first:
            most = part.max_pixels if offers(part, SeesFewer) else None
            for model in models_of((part,)):
                if offers(model, SupportsPrepare):
                    found[id(model), most] = model, most
        return tuple(found.values())

    @cached_property
    def names(self) -> dict[str, str | None]:
        """Name of each phase's model; None where it has none."""
        parts: tuple[object, object] = (self.judge, self.answerer)
        judge, draft = (
            part.model.name if offers(part, HasModel) and part.model is not None else None
            for part in parts
        )
        agent = None if self.fallback is None else self.fallback.name
        return {"judge": judge, "draft": draft, "agent": agent}

    @cached_property
    def models(self) -> tuple[VisionLanguageModel, ...]:
        """Models of the phases, each once."""
        return models_of((self.judge, self.answerer, self.fallback))

    @cached_property
    def ends_early(self) -> bool:
        """True where a draft may end at the first token that rejects it. An audited gate compares
        scores of whole drafts.
        """
        return self.schedule.end_drafts_early and self.auditor is None

    @cached_property
    def overlaps(self) -> bool:
        """True where judge and drafts run in a thread of their own beside the agent. By default
        that is so where some model isn't on the CPU: on the CPU, a thread takes the cores that it
        would save (measured).
        """
        if self.fallback is None or self.answerer is None:
            return False
        if self.schedule.overlap is not None:
            return self.schedule.overlap
        on_cpu = [offers(m, RunsHere) and str(m.device) == "cpu" for m in self.models]
        return not (on_cpu and all(on_cpu))

    @cached_property
    def speculate(self) -> Speculate:
        """The policy: "always" speculates on all queries, "auto" on those for which it pays.
        What an engine's calls cost depends on its company, so that speculation may lose there, and
        by default stops then; in one process the same queries take the same routes.
        """
        if self.schedule.speculate is not None:
            return self.schedule.speculate
        models = (*self.models, *models_of([answerer for answerer, _ in self.ladder]))
        served = any(offers(one, BehindEngine) and one.engine is not None for one in models)
        return "auto" if served and not self.schedule.probe else "always"

    def check(self) -> None:
        """Refuses parts that can't work together.

        Raises:
            ConfigError: A part is missing, K of drafts and gate don't fit, or an engine takes
                no pictures.
            CalibrationError: The gate is calibrated for other drafts.
        """
        if (self.answerer is None) != (self.gate is None):
            missing = "answerer" if self.answerer is None else "gate"
            raise ConfigError(
                f"{missing} is missing: pass answerer and gate, or neither for the agent alone"
            )
        if self.answerer is None and self.fallback is None:
            raise ConfigError("nothing can answer: pass answerer and gate, or fallback, or all")
        if self.answerer is None and self.judge is not None:
            raise ConfigError(
                "a judge without answerer and gate decides nothing, for every query goes to "
                "the agent: pass judge=None"
            )
        if self.auditor is not None and (self.gate is None or self.fallback is None):
            raise ConfigError("an auditor needs drafts to audit, and a fallback to do it")
        if (
            self.auditor is not None
            and isinstance(self.gate, WatchedGate)
            and self.gate.monitor is not self.auditor.monitor
        ):
            raise ConfigError(
                "the gate is watched by another monitor than the auditor's: give both the same one"
            )
        if self.ladder and self.auditor is not None:
            raise ConfigError(
                "an auditor with a ladder: its monitor watches the scores of one gate, and those "
                "of several have no scale in common; leave out one of them"
            )
        for answerer, gate in self.ladder:
            self.check_gate(gate, answerer)
        self.check_gate(self.gate.gate if isinstance(self.gate, WatchedGate) else self.gate)
        for model in self.models:
            if offers(model, ChecksImages):
                model.check_images()

    def check_gate(self, gate: object, answerer: object = None) -> None:
        """Refuses a gate that doesn't fit the drafts.

        Args:
            gate: The gate.
            answerer: Makes the drafts; None for the one at the top.

        Raises:
            ConfigError: K of drafts and gate don't fit.
            CalibrationError: The gate is calibrated for other drafts.
        """
        answerer = self.answerer if answerer is None else answerer
        kept = answerer.top_k if offers(answerer, HasTopK) else None
        needed = gate.needed_top_k if offers(gate, NeedsTopK) else None
        if kept is not None and needed is not None and kept < needed:
            raise ConfigError(
                f"the answerer keeps top_k={kept} log-probabilities and the gate needs "
                f"top_k={needed}, so it would reject every draft: give both the same top_k"
            )
        if answerer is not None and offers(gate, SupportsCheck):
            # A calibrated gate refuses drafts of another model, prompt or K.
            model = answerer.model if offers(answerer, HasModel) else None
            gate.check(
                model=None if model is None else model.name,
                revision=model.revision if offers(model, HasRevision) else None,
                prompt_hash=answerer.prompt_hash if offers(answerer, DescribesDrafts) else None,
                top_k=kept,
                judge=self._before(answerer),
            )

    def _before(self, answerer: object) -> str | None:
        """Identity of what decides which queries reach an answerer's gate; None where a judge has
        none.
        """
        judge: object = self.judge
        if judge is None:
            said = DRAFT_JUDGES if self.draft_judges else NO_JUDGE
        elif offers(judge, HasIdentity):
            said = judge.identity
        else:
            return None
        if answerer is not self.answerer:
            return said
        rungs = [
            (
                rung.max_pixels if offers(rung, SeesFewer) else None,
                gate.threshold if isinstance(gate, SeparabilityGate) else None,
            )
            for rung, gate in self.ladder
        ]
        return behind_ladder(said, rungs)


def models_of(parts: Sequence[object]) -> tuple[VisionLanguageModel, ...]:
    """Models that phases ask, each once; what isn't a phase of ours has none.

    Example:
        >>> models_of([None, object()])
        ()
    """
    found = (part.model for part in parts if offers(part, HasModel))
    return tuple({id(model): model for model in found if model is not None}.values())
