"""One model by itself, with or without written reasoning: what transfer is measured against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

from speceyes.errors import ConfigError
from speceyes.images import DEFAULT_LIMITS, ImageLimits
from speceyes.models.rows import generate_rows
from speceyes.protocols import VisionLanguageModel
from speceyes.strategies import questions
from speceyes.strategies.batches import run_batches
from speceyes.strategies.verification import answered
from speceyes.types import Completion, Query, Result, Sampling, Step, Timings, Trajectory


@dataclass(slots=True)
class _Asked:
    """A query under way."""

    query: Query
    thought: Completion | None = None
    said: Completion | None = None

    def result(self, spent: Timings) -> Result:
        steps = [c for c in (self.thought, self.said) if c is not None]
        good = self.said is not None and answered(self.said)
        answer = self.said.text.strip() if good and self.said is not None else None
        error = None if good else next((c.error for c in steps if c.error), "no complete answer")
        trajectory = Trajectory(
            tuple(Step(c.text, (), (), len(c.token_ids), c.prompt_tokens, c.error) for c in steps),
            answer,
            "answered" if good else "error",
            error,
        )
        return Result(
            self.query.id,
            answer,
            "agent" if good else "error",
            trajectory=trajectory,
            timings=spent,
            error=error,
            question=self.query.question,
        )


@final
class Reasoner:
    """Answers with one model: at once, or behind reasoning that it writes first.

    Args:
        model: Answers, and reasons.
        reason: Whether it reasons first, by the prompts that `ReasoningTransfer` uses.
        answer_tokens: Most new tokens of an answer.
        reason_tokens: Most new tokens of the reasoning.
        batch_size: Queries that are answered together.
        image_limits: What images are loaded under.

    Raises:
        ConfigError: A number is below 1.

    Example:
        >>> from PIL import Image
        >>> from speceyes.models.scripted import ScriptedModel
        >>> model = ScriptedModel({"step by step": "There is a sky.", "": "blue"})
        >>> Reasoner(model, reason=False)([(Image.new("RGB", (64, 64)), "Which colour?")])[0].answer
        'blue'
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        reason: bool = True,
        answer_tokens: int = 20,
        reason_tokens: int = 256,
        batch_size: int = 16,
        image_limits: ImageLimits = DEFAULT_LIMITS,
    ) -> None:
        for name, value in (
            ("answer_tokens", answer_tokens),
            ("reason_tokens", reason_tokens),
            ("batch_size", batch_size),
        ):
            if value < 1:
                raise ConfigError(f"{name}={value}; it must be at least 1")
        self.model = model
        self._reason = reason
        self._short = Sampling(max_tokens=answer_tokens)
        self._long = Sampling(max_tokens=reason_tokens)
        self._batch_size, self._limits = batch_size, image_limits

    def __call__(self, queries: Iterable[Any]) -> list[Result]:
        """One result a query, in order; a query is what `SpecPipeline` takes as one."""
        return list(self.stream(queries))

    def stream(self, queries: Iterable[Any]) -> Iterator[Result]:
        """Results in order, a batch at a time; queries are pulled a batch at a time."""
        return run_batches(queries, self._batch_size, self._limits, _Asked, self._answer)

    def _answer(self, asked: Sequence[_Asked]) -> None:
        if self._reason:
            thoughts = generate_rows(
                self.model, [questions.reasoning(o.query) for o in asked], self._long
            )
            for one, said in zip(asked, thoughts, strict=True):
                one.thought = said
        told = [
            questions.short(o.query)
            if o.thought is None or not answered(o.thought)
            else questions.concluding(o.query, o.thought.text.strip())
            for o in asked
        ]
        for one, said in zip(asked, generate_rows(self.model, told, self._short), strict=True):
            one.said = said
