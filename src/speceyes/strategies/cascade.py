"""Any number of drafters of growing size before the agent, each with its own gate.

Experimental: on the bundled models no second drafter pays for itself (docs/strategies.md).

A query goes up one step where the gate of the one below doesn't accept. To `SpecPipeline` the
whole stair is one answerer and one gate, so that batches, failures, the judge, the agent and
streams are handled as they are everywhere. Thresholds are chosen together by
`speceyes.gates.choose_thresholds`.

    Query -> drafter 1 -> gate 1 --accepted--> Result
                            | rejected
                            v
             drafter 2 -> gate 2 --accepted--> Result
                            | rejected
                            v
                          agent -------------> Result
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final, overload

from speceyes.answerer import SpeculativeAnswerer
from speceyes.errors import ConfigError
from speceyes.models.rows import retry_per_row
from speceyes.pipeline import InputConfig, ScheduleConfig, SpecPipeline
from speceyes.pipeline.phases import RUNG, verdict_of
from speceyes.protocols import Answerer, Gate, HasModel, SupportsFloor, VisionLanguageModel, offers
from speceyes.types import Completion, Judgement, Query, Result, Verdict

if TYPE_CHECKING:
    from speceyes.fallback import AgenticFallback

_log = logging.getLogger(__name__)


@final
@dataclass(frozen=True, slots=True)
class Drafter:
    """One step of a cascade.

    Args:
        answerer: Queries to completions.
        gate: Completion to verdict; its threshold belongs to this answerer.
        name: For people; the model's name where it is empty.
    """

    answerer: Answerer
    gate: Gate
    name: str = ""

    @property
    def shown(self) -> str:
        """The name, or the model's; empty where there is neither."""
        model = _model_of(self.answerer)
        return self.name or ("" if model is None else model.name)


@final
class Cascade:
    """Asks drafters one after the other, and the agent last; called like `SpecPipeline`.

    It takes no auditor: that one's monitor compares scores, and those of several gates have no
    scale in common.

    Args:
        drafters: From the cheapest up, at least one: `Drafter`s or (answerer, gate) pairs.
        judge: Queries to judgements; None drafts every query.
        fallback: The agent; None leaves a query that no gate accepts without an answer.
        schedule: See `SpecPipeline`.
        inputs: See `SpecPipeline`.

    Raises:
        ConfigError: No drafters, or parts that can't work together.

    Example:
        >>> from PIL import Image
        >>> from speceyes.gate import SeparabilityGate
        >>> from speceyes.models.scripted import ScriptedModel
        >>> steps = [
        ...     (SpeculativeAnswerer(ScriptedModel(word, margin=margin)), SeparabilityGate(0.98))
        ...     for word, margin in (("red", 3.0), ("blue", 12.0))
        ... ]
        >>> result = Cascade(steps)([(Image.new("RGB", (64, 64)), "Which colour?")])[0]
        >>> result.answer, drafter_of(result)
        ('blue', 1)
    """

    def __init__(
        self,
        drafters: Sequence[
            Drafter
            | tuple[
                Callable[[Sequence[Query]], Sequence[Completion]], Callable[[Completion], Verdict]
            ]
        ],
        *,
        judge: Callable[[Sequence[Query]], Sequence[Judgement]] | None = None,
        fallback: AgenticFallback | None = None,
        schedule: ScheduleConfig = ScheduleConfig(),
        inputs: InputConfig = InputConfig(),
    ) -> None:
        steps = tuple(one if isinstance(one, Drafter) else Drafter(*one) for one in drafters)
        if not steps:
            raise ConfigError("there are no drafters: pass at least one (answerer, gate) pair")
        for i, step in enumerate(steps):
            try:
                # There is known what fits together: K, and a calibration's model, prompt and judge.
                SpecPipeline(judge=judge, answerer=step.answerer, gate=step.gate)
            except ConfigError as exc:
                raise type(exc)(f"drafter {i + 1} of {len(steps)}: {exc}") from exc
        self.drafters = steps
        self._pipe = SpecPipeline(
            judge=judge,
            answerer=_Stair(steps, schedule.end_drafts_early),
            gate=_StairGate(steps),
            fallback=fallback,
            schedule=schedule,
            inputs=inputs,
        )

    @overload
    def __call__(self, queries: Any, question: str, choices: Sequence[str] = ()) -> Result: ...
    @overload
    def __call__(self, queries: Query | Mapping[str, Any]) -> Result: ...
    @overload
    def __call__(self, queries: Iterable[Any]) -> list[Result]: ...
    def __call__(
        self, queries: Any, question: str | None = None, choices: Sequence[str] = ()
    ) -> Result | list[Result]:
        """One result a query, same order and length; see `SpecPipeline.__call__`.

        `drafter_of` tells who answered. `Result.draft` is the draft that was accepted, or the
        last one that was made; `Timings.draft` is the time of all drafts of the query.
        """
        # What one query is and what many are is decided there; the overloads above tell callers.
        ask: Callable[..., Result | list[Result]] = self._pipe
        return ask(queries, question, choices)

    def stream(self, queries: Iterable[Any]) -> Iterator[Result]:
        """Results as they finish; see `SpecPipeline.stream`."""
        return self._pipe.stream(queries)


def drafter_of(result: Result) -> int | None:
    """The place, from 0, of the drafter or rung that answered; None where none did.

    It can be read from a result that was written down and read again.
    """
    if result.route != "draft" or result.draft is None:
        return None
    return _place(result.draft)


def _place(draft: Completion) -> int | None:
    place = draft.notes.get(RUNG)
    return None if place is None else int(place)


def _model_of(answerer: object) -> VisionLanguageModel | None:
    return answerer.model if offers(answerer, HasModel) else None


def _usable(draft: Completion, verdict: Verdict) -> bool:
    """True where a draft is an answer; an accepted one of nothing is none."""
    return verdict.accepted and draft.error is None and bool(draft.text.strip())


@final
class _Stair:
    """The drafters as one answerer: each is asked what those before it couldn't answer."""

    def __init__(self, steps: tuple[Drafter, ...], early: bool) -> None:
        self._steps = steps
        self._early = early
        # The first drafter's model tells a pipeline where the work is done.
        self.model = _model_of(steps[0].answerer)

    def __call__(self, queries: Sequence[Query]) -> list[Completion]:
        left = list(range(len(queries)))
        drafts: dict[int, Completion] = {}
        for i, step in enumerate(self._steps):
            said = retry_per_row(self._ask(step), [queries[at] for at in left], Completion.failed)
            rejected = []
            for at, draft in zip(left, said, strict=True):
                drafts[at] = draft.noted(RUNG, i)
                if not _usable(draft, verdict_of(step.gate, draft)):
                    rejected.append(at)
            left = rejected
            if not left:
                break
        return [drafts[at] for at in range(len(queries))]

    def _ask(self, step: Drafter) -> Answerer:
        floor = step.gate.floor if offers(step.gate, SupportsFloor) else None
        answerer = step.answerer
        if self._early and floor is not None and isinstance(answerer, SpeculativeAnswerer):
            return lambda queries: answerer(queries, floor=floor)
        return answerer


@final
class _StairGate:
    """The gates as one: a draft is held against the gate of the drafter that made it."""

    def __init__(self, steps: tuple[Drafter, ...]) -> None:
        self._steps = steps

    def __call__(self, completion: Completion) -> Verdict:
        place = _place(completion)
        if place is None:  # the whole stair failed on it
            reason = completion.error or "the draft doesn't tell its drafter"
            return Verdict(False, None, None, float("nan"), reason=reason)
        step = self._steps[place]
        verdict = verdict_of(step.gate, completion)
        if not verdict.accepted:
            return verdict
        name = f" ({step.shown})" if step.shown else ""
        reason = f"answered by drafter {place + 1} of {len(self._steps)}{name}"
        return dataclasses.replace(verdict, reason=reason)
