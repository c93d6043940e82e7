"""Parts that a pipeline is made of, and what they can do beyond their call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from speceyes.calibration.watched import WatchedGate
from speceyes.errors import ConfigError
from speceyes.judge import NO_JUDGE
from speceyes.pipeline.audit import Auditor
from speceyes.pipeline.config import ScheduleConfig
from speceyes.pipeline.route import Policy
from speceyes.protocols import (
    Answerer,
    DescribesDrafts,
    Gate,
    HasIdentity,
    HasModel,
    HasRevision,
    HasTopK,
    Judge,
    NeedsTopK,
    RunsHere,
    SupportsCheck,
    VisionLanguageModel,
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
    """

    judge: Judge | None = None
    answerer: Answerer | None = None
    gate: Gate | None = None
    fallback: AgenticFallback | None = None
    auditor: Auditor | None = None
    schedule: ScheduleConfig = ScheduleConfig()

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
        )

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
        on_cpu = [isinstance(m, RunsHere) and str(m.device) == "cpu" for m in self.models]
        return not (on_cpu and all(on_cpu))

    def check(self) -> None:
        """Refuses parts that can't work together.

        Raises:
            ConfigError: A part is missing, or K of drafts and gate don't fit.
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
        self.check_gate(self.gate.gate if isinstance(self.gate, WatchedGate) else self.gate)

    def check_gate(self, gate: object) -> None:
        """Refuses a gate that doesn't fit the drafts.

        Raises:
            ConfigError: K of drafts and gate don't fit.
            CalibrationError: The gate is calibrated for other drafts.
        """
        answerer: object = self.answerer
        kept = answerer.top_k if isinstance(answerer, HasTopK) else None
        needed = gate.needed_top_k if isinstance(gate, NeedsTopK) else None
        if kept is not None and needed is not None and kept < needed:
            raise ConfigError(
                f"the answerer keeps top_k={kept} log-probabilities and the gate needs "
                f"top_k={needed}, so it would reject every draft: give both the same top_k"
            )
        if answerer is not None and isinstance(gate, SupportsCheck):
            # A calibrated gate refuses drafts of another model, prompt or K.
            model = answerer.model if isinstance(answerer, HasModel) else None
            judge: object = self.judge
            gate.check(
                model=None if model is None else model.name,
                revision=model.revision if isinstance(model, HasRevision) else None,
                prompt_hash=answerer.prompt_hash if isinstance(answerer, DescribesDrafts) else None,
                top_k=kept,
                judge=NO_JUDGE
                if judge is None
                else judge.identity
                if isinstance(judge, HasIdentity)
                else None,
            )


def models_of(parts: Sequence[object]) -> tuple[VisionLanguageModel, ...]:
    """Models that phases ask, each once; what isn't a phase of ours has none.

    Example:
        >>> models_of([None, object()])
        ()
    """
    found = (part.model for part in parts if isinstance(part, HasModel))
    return tuple({id(model): model for model in found if model is not None}.values())
