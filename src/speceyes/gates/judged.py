"""The judge's probability as a gate: how sure the judge is that no tools are needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, final

from speceyes.checks import checked_number
from speceyes.errors import ConfigError
from speceyes.gates._wrapper import AnswererWrapper
from speceyes.models.rows import retry_per_row
from speceyes.types import Completion, Judgement, Query, Verdict

_NAME: Final = "p(tools)"


@final
class JudgedAnswerer(AnswererWrapper):
    """Drafts a batch of answers and notes on each what the judge thinks of its query.

    A gate is given the draft alone, so the judge's probability travels on it. It then is one
    score among others, for `JudgeGate` or `LogisticGate`, where `SpecPipeline(judge=...)` makes
    it a decision. Leave the pipeline's own judge out, or it judges twice.

    Args:
        answerer: Queries to completions.
        judge: Queries to judgements; `ToolJudge` without parity, so that it gives probabilities.

    Raises:
        ConfigError: One of them can't be called.

    Example:
        >>> from PIL import Image
        >>> from speceyes.answerer import SpeculativeAnswerer
        >>> from speceyes.judge import ToolJudge
        >>> from speceyes.models.scripted import ScriptedModel
        >>> drafts = SpeculativeAnswerer(ScriptedModel("red"))
        >>> asks = JudgedAnswerer(drafts, ToolJudge(ScriptedModel("no"), dialect=None))
        >>> draft = asks([Query("Which colour?", (Image.new("RGB", (64, 64)),))])[0]
        >>> JudgeGate(0.9)(draft).accepted
        True
    """

    def __init__(
        self,
        answerer: Callable[[Sequence[Query]], Sequence[Completion]],
        judge: Callable[[Sequence[Query]], Sequence[Judgement]],
    ) -> None:
        super().__init__(answerer)
        if not callable(judge):
            raise ConfigError(f"judge={judge!r} can't be called on queries")
        self.judge = judge

    def __call__(self, queries: Sequence[Query]) -> list[Completion]:
        """One completion a query, in order; without a note where the judge could not be read."""
        drafts = retry_per_row(self.answerer, queries, Completion.failed)
        judgements = retry_per_row(
            self.judge, queries, lambda reason: Judgement(True, reason=reason)
        )
        return [
            draft if judged.p_tools is None else draft.noted(_NAME, judged.p_tools)
            for draft, judged in zip(drafts, judgements, strict=True)
        ]


@final
@dataclass(frozen=True, slots=True)
class JudgeGate:
    """Accepts a draft where the judge is sure enough that no tools are needed.

    It doesn't read the draft's log-probabilities, and needs none.

    Args:
        threshold: The least 1 - p(tools), 0 to 1.

    Raises:
        ConfigError: threshold is out of range.

    Example:
        >>> JudgeGate(0.9)(Completion("red", (7,))).reason[:36]
        "the draft carries no judge's opinion"
    """

    threshold: float = 0.5

    least: ClassVar[float] = 0.0
    """The threshold that accepts whatever can be scored."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", checked_number("threshold", self.threshold, 0, 1))

    def score(self, completion: Completion) -> float | None:
        """1 - p(tools), 0 to 1; None where the draft carries no such note."""
        p_tools = completion.notes.get(_NAME)
        return None if p_tools is None else 1.0 - p_tools

    def __call__(self, completion: Completion) -> Verdict:
        """The verdict on a draft made by `JudgedAnswerer`."""
        score = self.score(completion)
        if completion.error is not None or completion.finish != "stop":
            why = completion.error or f"it ended with finish={completion.finish!r}"
            reason = f"the draft is not whole: {why}"
        elif not completion.text.strip():
            reason = "the draft is empty: there is nothing to accept"
        elif score is None:
            reason = (
                "the draft carries no judge's opinion: draft with JudgedAnswerer, and with a "
                "judge whose probabilities can be read"
            )
        else:
            return Verdict(score >= self.threshold, score, score, self.threshold)
        return Verdict(False, None, None, self.threshold, reason=reason)
