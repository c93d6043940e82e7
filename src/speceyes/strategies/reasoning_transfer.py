"""Reasoning transfer: a small model's reasoning goes into the large one's prompt.

After arXiv 2604.04929: latency follows from how many tokens are decoded, so a large model that
answers briefly can beat a small one that reasons at length, and reading reasoning costs far less
than writing it. Of that paper the abstract and summaries are known here, not its prompts, its
agreement rule nor its selector; what they are below is this project's own, and no figure of the
paper is claimed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, final, get_args, runtime_checkable

from speceyes.errors import ConfigError, describe
from speceyes.gate import SeparabilityGate
from speceyes.images import DEFAULT_LIMITS, ImageLimits
from speceyes.models.rows import generate_rows
from speceyes.protocols import VisionLanguageModel, offers
from speceyes.strategies import questions
from speceyes.strategies.batches import run_batches
from speceyes.strategies.selection import Selector, Weights
from speceyes.strategies.transfer_rule import LOSS, TOP_K, TransferRule, Tried, choose_rule
from speceyes.strategies.verification import (
    Agrees,
    TellsLikelihoods,
    Verify,
    alike,
    answered,
    both_sure,
    same_words,
)
from speceyes.types import (
    Completion,
    Conversation,
    Query,
    Result,
    Route,
    Sampling,
    Step,
    Timings,
    Trajectory,
)

_log = logging.getLogger(__name__)


@runtime_checkable
class TellsAttention(Protocol):
    """A model that can tell what it attends to, as `HFModel` does for the Qwen-VL families."""

    @property
    def tells_attention(self) -> bool:
        """True where `attended` works."""
        ...

    def attended(
        self, conversations: Sequence[Conversation], said: Sequence[Sequence[int]], lead: str
    ) -> list[Weights | None]:
        """float32[layers, heads, n] each, from the end of the lead to n said tokens, or None."""
        ...


@dataclass(frozen=True, slots=True)
class Transferred:
    """Counts of the queries so far.

    Args:
        queries: How many there were.
        agreed: Of these, how many the first answers settled.
        reasoned: Of these, how many were settled by the small model's reasoned answer, where
            `two_stage` asks for it.
        unheeded: How many answers with notes a rule put aside for the large model's brief one.
        doubted: How many reasonings the large model did not hold credible, and wrote its own.
        large_decoded: Tokens that the large model decoded.
        large_read: Tokens of prompts that it was given.
        small_decoded: Tokens that the small model decoded.
        small_read: Tokens of prompts that it was given.
        kept: Tokens of reasoning that were handed over, of those that were written; words where
            the small model doesn't tell its tokens.
        written: Tokens of reasoning that the small model wrote.
    """

    queries: int = 0
    agreed: int = 0
    reasoned: int = 0
    unheeded: int = 0
    doubted: int = 0
    large_decoded: int = 0
    large_read: int = 0
    small_decoded: int = 0
    small_read: int = 0
    kept: int = 0
    written: int = 0


@final
class ReasoningTransfer:
    """Answers with a large model that only ever answers briefly.

    Both models answer at once, side by side. Where their answers settle the query, that is the
    answer. Elsewhere the small model reasons, and the large one answers again with that reasoning,
    or the key of it, in its prompt. All prompts begin with the image and the question, so that
    models which keep what they have read don't read it again.

    A `Result`'s route is "draft" where the first answers settled it and "agent" where reasoning
    was transferred; its draft is the small model's answer, its trajectory the large one's answers
    with the reasoning between them.

    Args:
        large: Its answers are those that are given.
        small: Answers, and reasons.
        verify: How first answers settle a query: "answers", the two say the same (`agrees`);
            "likelihood", each model holds the other's answer likely (`likely`), for which both
            must offer `likelihoods`, as `HFModel` does for the Qwen-VL families and `OpenAIModel`
            for vLLM; or
            "separability", the two say the same and each passes its gate (`gates`).
        agrees: For "answers" and "separability".
        likely: For "likelihood": least mean log-probability of an answer's tokens, nats.
        gates: For "separability": the large model's gate and the small model's.
        rule: Chosen on labelled queries, see `calibrate`: it says when answers that agree
            (`agrees`) settle a query, in place of `verify`, and when the large model's answer with
            notes is given rather than its brief one. Without it, it is given always.
        keep: What of the reasoning is handed over: a `Selector`, or its `by`. "attended" needs
            a small model that tells what it attends to.
        place: Where the reasoning stands: in the large model's "prompt", as somebody's notes, or as
            the "turn" that it began itself, for models that go on with a turn which is begun.
        credible: Least mean log-probability, nats a token, that the large model must give to the
            small one's reasoning, as if it were its own, for it to be handed over; the large model
            writes its own in place of what it doubts. It must offer `likelihoods`. To read the
            reasoning takes a pass. None hands everything over. What stands in a "turn" is
            followed, right or wrong, so that a small model that may misread calls for this.
        two_stage: Let the small model answer once more, behind its reasoning, and where that is
            what the large one said, spare the large one's second answer.
        answer_tokens: Most new tokens of an answer.
        reason_tokens: Most new tokens of the reasoning.
        batch_size: Queries that are answered together.
        image_limits: What images are loaded under.

    Raises:
        ConfigError: An argument that is none, or a model that can't tell what is asked of it.

    Example:
        >>> from PIL import Image
        >>> from speceyes.models.scripted import ScriptedModel
        >>> large = ScriptedModel({"Somebody looked": "blue", "": "green"})
        >>> small = ScriptedModel({"step by step": "It is blue.", "": "red"})
        >>> run = ReasoningTransfer(large, small)
        >>> result = run([(Image.new("RGB", (64, 64)), "Which colour?")])[0]
        >>> result.answer, result.route, run.transferred.agreed
        ('blue', 'agent', 0)
    """

    def __init__(
        self,
        large: VisionLanguageModel,
        small: VisionLanguageModel,
        *,
        verify: Verify = "answers",
        agrees: Agrees = same_words,
        likely: float = -1.0,
        gates: tuple[SeparabilityGate, SeparabilityGate] | None = None,
        rule: TransferRule | None = None,
        keep: Selector | str = "all",
        place: questions.Place = "prompt",
        credible: float | None = None,
        two_stage: bool = False,
        answer_tokens: int = 20,
        reason_tokens: int = 256,
        batch_size: int = 16,
        image_limits: ImageLimits = DEFAULT_LIMITS,
    ) -> None:
        if verify not in get_args(Verify):
            raise ConfigError(f"verify={verify!r}; it must be one of {get_args(Verify)}")
        if rule is not None and (verify != "answers" or gates is not None):
            raise ConfigError("a rule takes the place of verify and gates: leave these out")
        if place not in get_args(questions.Place):
            raise ConfigError(f"place={place!r}; it must be one of {get_args(questions.Place)}")
        counts = {
            "answer_tokens": answer_tokens,
            "reason_tokens": reason_tokens,
            "batch_size": batch_size,
        }
        for name, count in counts.items():
            if count < 1:
                raise ConfigError(f"{name}={count}; it must be at least 1")
        if credible is not None and not credible <= 0:
            raise ConfigError(f"credible={credible}; it must be a log-probability, 0 or below")
        for model in (large, small):
            asked = verify == "likelihood" or (credible is not None and model is large)
            if asked and not (offers(model, TellsLikelihoods) and model.tells_likelihoods):
                raise ConfigError(
                    f"{model.name} can't tell how likely a text is: use verify='answers' or "
                    "'separability' and no credible=, or a model that can, such as HFModel of the "
                    "Qwen-VL families or OpenAIModel of vLLM"
                )
        if verify == "separability" and gates is None:
            raise ConfigError(
                "verify='separability' needs gates=(gate of the large model, of the small one)"
            )
        self.selector = keep if isinstance(keep, Selector) else Selector(keep)  # type: ignore[arg-type]
        if self.selector.by == "attended" and not (
            offers(small, TellsAttention) and small.tells_attention
        ):
            raise ConfigError(
                f"{small.name} can't tell what it attends to: use keep='likeliest' or 'last', or "
                "a model of the Qwen-VL families as HFModel"
            )
        self.large, self.small, self.verify = large, small, verify
        self._agrees, self._likely, self._gates, self.rule = agrees, likely, gates, rule
        self._two_stage, self._place, self._credible = two_stage, place, credible
        self._batch_size, self._limits = batch_size, image_limits
        ks = [g.top_k for g in gates] if gates and verify == "separability" else [0, 0]
        ks = [rule.top_k] * 2 if rule is not None else ks
        self._first = [Sampling(max_tokens=answer_tokens, top_k=k) for k in ks]
        self._short = Sampling(max_tokens=answer_tokens)
        self._noted = Sampling(max_tokens=answer_tokens, top_k=0 if rule is None else rule.top_k)
        likely_k = 1 if self.selector.by == "likeliest" else 0
        self._long = Sampling(max_tokens=reason_tokens, top_k=likely_k, token_texts=True)
        self._lock = threading.Lock()
        self.transferred = Transferred()
        """Counts of all queries so far."""

    def __call__(self, queries: Iterable[Any]) -> list[Result]:
        """One result a query, in order; a query is what `SpecPipeline` takes as one."""
        return list(self.stream(queries))

    def stream(self, queries: Iterable[Any]) -> Iterator[Result]:
        """Results in order, a batch at a time; queries are pulled a batch at a time."""
        return run_batches(queries, self._batch_size, self._limits, _Asked, self._answer)

    def _answer(self, asked: Sequence[_Asked]) -> None:
        """Both stages, for one batch."""
        self._first_answers(asked)
        self._verify(asked)
        left = [one for one in asked if not one.settled]
        if left:
            self._reason(left)
            if self._credible is not None:
                self._doubt(left, self._credible)
            if self._two_stage:
                self._conclude(left)
            self._hand_over([one for one in left if not one.concluded], self._noted)
        self._count(asked)

    def _reason(self, left: Sequence[_Asked]) -> None:
        """The small model's reasoning, and the part of it that is kept."""
        thoughts = generate_rows(
            self.small, [questions.reasoning(o.query) for o in left], self._long
        )
        for one, said in zip(left, thoughts, strict=True):
            one.reasoning = said
        self._select(left)

    def _doubt(self, left: Sequence[_Asked], credible: float) -> None:
        """Has the large model reason by itself where it doesn't believe what the small one wrote,
        or can't tell.
        """
        able = [one for one in left if one.thought]
        assert offers(self.large, TellsLikelihoods)
        asked = [questions.reasoning(one.query) for one in able]
        told: list[float | None] = [None] * len(able)
        try:
            told = self.large.likelihoods(asked, [one.thought for one in able])
        except Exception as exc:  # noqa: BLE001 - the queries are answered all the same
            _log.warning("whether the reasoning is credible can't be told: %s", describe(exc))
        doubted = [o for o, p in zip(able, told, strict=True) if p is None or p < credible]
        asked = [questions.reasoning(one.query) for one in doubted]
        for one, said in zip(doubted, generate_rows(self.large, asked, self._long), strict=True):
            one.own, one.kept = said, 0
            one.notes = said.text.strip() if said.error is None else ""

    def _hand_over(self, rest: Sequence[_Asked], sampling: Sampling) -> None:
        """The large model's answers with the notes."""
        told = [
            questions.noted(one.query, one.notes, "turn" if one.own is not None else self._place)
            for one in rest
        ]
        for one, said in zip(rest, generate_rows(self.large, told, sampling), strict=True):
            one.final = said
            if self.rule is not None and answered(one.large):
                one.unheeded = not (answered(said) and self.rule.heeds(one.large, said))

    def calibrate(
        self,
        queries: Iterable[Query],
        right: Callable[[Query, str], bool],
        *,
        loss: float = LOSS,
        top_k: int = TOP_K,
    ) -> TransferRule:
        """The rule for these models and this selector, chosen on labelled queries.

        All stages run on each of them: both first answers, the reasoning, the answer with notes.

        Args:
            queries: The labelled queries; measure on others.
            right: Whether an answer to a query is right.
            loss: Share of the queries that settling may cost.
            top_k: K of the separability.

        Raises:
            InputError: Too few of them got any answer of the large model.
        """
        tried: list[Tried] = []
        sampling = Sampling(max_tokens=self._short.max_tokens, top_k=top_k)
        waiting = list(queries)
        for start in range(0, len(waiting), self._batch_size):
            asked = [_Asked(query) for query in waiting[start : start + self._batch_size]]
            self._first_answers(asked, (sampling, sampling))
            self._reason(asked)
            told = [questions.noted(one.query, one.notes, self._place) for one in asked]
            noted = generate_rows(self.large, told, sampling)
            for one, said in zip(asked, noted, strict=True):
                if answered(one.large) or answered(said):
                    tried.append(self._tried(one, said, right))
        return choose_rule(tried, top_k=top_k, loss=loss)

    def _tried(self, one: _Asked, said: Completion, right: Callable[[Query, str], bool]) -> Tried:
        """A labelled query whose brief answer or answer with notes is one. Where the other is none,
        this one is what would be given.
        """
        agree = (
            answered(one.large)
            and answered(one.small)
            and alike(self._agrees, one.query, one.small.text, one.large.text)
        )
        brief = answered(one.large) and right(one.query, one.large.text.strip())
        noted = right(one.query, said.text.strip()) if answered(said) else brief
        large, small, last = (
            c if answered(c) else _nothing() for c in (one.large, one.small, said)
        )
        return Tried(large, small, last, agree, brief, noted)

    def _first_answers(
        self, asked: Sequence[_Asked], sampling: Sequence[Sampling] | None = None
    ) -> None:
        """Both models' answers at once, side by side."""
        told = [questions.short(one.query) for one in asked]
        models = (self.large, self.small)
        with ThreadPoolExecutor(2, "first-answer") as pool:
            large, small = pool.map(
                lambda pair: generate_rows(pair[0], told, pair[1]),
                zip(models, sampling or self._first, strict=True),
            )
        for one, by_large, by_small in zip(asked, large, small, strict=True):
            one.large, one.small = by_large, by_small

    def _verify(self, asked: Sequence[_Asked]) -> None:
        both = [one for one in asked if answered(one.large) and answered(one.small)]
        if self.rule is not None:
            for one in asked:
                one.settled = answered(one.large) and not self.rule.reasons
            for one in both:
                if not one.settled and self.rule.settled_by(one.large, one.small):
                    one.settled = alike(self._agrees, one.query, one.small.text, one.large.text)
            return
        if self.verify != "likelihood":
            for one in both:
                same = alike(self._agrees, one.query, one.small.text, one.large.text)
                if same and self.verify == "separability":
                    assert self._gates is not None
                    same = both_sure(self._gates, one.large, one.small)
                one.settled = same
            return
        assert offers(self.large, TellsLikelihoods)
        assert offers(self.small, TellsLikelihoods)
        told = [questions.short(one.query) for one in both]
        by_large = self.large.likelihoods(told, [one.small.text for one in both])
        by_small = self.small.likelihoods(told, [one.large.text for one in both])
        for one, mine, other in zip(both, by_large, by_small, strict=True):
            if mine is not None and other is not None:
                one.settled = min(mine, other) >= self._likely

    def _conclude(self, left: Sequence[_Asked]) -> None:
        """The small model's answer behind its own reasoning."""
        able = [one for one in left if one.thought and one.own is None and answered(one.large)]
        told = [questions.concluding(one.query, one.thought) for one in able]
        for one, said in zip(able, generate_rows(self.small, told, self._short), strict=True):
            one.second = said
            one.concluded = answered(said) and alike(
                self._agrees, one.query, said.text, one.large.text
            )

    def _select(self, left: Sequence[_Asked]) -> None:
        """The part of each row's reasoning that is handed over."""
        able = [one for one in left if one.thought]
        looked = self._attention(able)
        for one, weights in zip(able, looked, strict=True):
            assert one.reasoning is not None
            one.notes, one.kept, one.written = self.selector.select(one.reasoning, weights)

    def _attention(self, able: Sequence[_Asked]) -> list[Weights | None]:
        """The small model's attention, about to answer, over each reasoning."""
        none: list[Weights | None] = [None] * len(able)
        if self.selector.by != "attended" or not able:
            return none
        assert offers(self.small, TellsAttention)
        try:
            return self.small.attended(
                [questions.reasoning(one.query) for one in able],
                [one.reasoning.token_ids if one.reasoning else () for one in able],
                questions.ANSWER_LEAD,
            )
        except Exception as exc:  # noqa: BLE001 - the queries are answered all the same
            _log.warning("what was attended to can't be told: %s", describe(exc))
            return none

    def _count(self, asked: Sequence[_Asked]) -> None:
        large = [c for one in asked for c in (one.large, one.own, one.final) if c is not None]
        small = [c for o in asked for c in (o.small, o.reasoning, o.second) if c is not None]
        with self._lock:
            was = self.transferred
            self.transferred = Transferred(
                queries=was.queries + len(asked),
                agreed=was.agreed + sum(one.settled for one in asked),
                reasoned=was.reasoned + sum(one.concluded for one in asked),
                unheeded=was.unheeded + sum(one.unheeded for one in asked),
                doubted=was.doubted + sum(one.own is not None for one in asked),
                large_decoded=was.large_decoded + sum(len(c.token_ids) for c in large),
                large_read=was.large_read + sum(c.prompt_tokens for c in large),
                small_decoded=was.small_decoded + sum(len(c.token_ids) for c in small),
                small_read=was.small_read + sum(c.prompt_tokens for c in small),
                kept=was.kept + sum(one.kept for one in asked),
                written=was.written + sum(one.written for one in asked),
            )


def _nothing() -> Completion:
    return Completion("")


@dataclass(slots=True)
class _Asked:
    """A query under way."""

    query: Query
    large: Completion = field(default_factory=_nothing)
    small: Completion = field(default_factory=_nothing)
    settled: bool = False
    reasoning: Completion | None = None
    notes: str = ""
    """The part of the reasoning that is handed over."""
    kept: int = 0
    written: int = 0
    own: Completion | None = None
    """The large model's own reasoning, in place of what it doubted."""
    second: Completion | None = None
    concluded: bool = False
    final: Completion | None = None
    unheeded: bool = False
    """Whether the rule prefers the brief answer to `final`."""

    @property
    def thought(self) -> str:
        """The reasoning; "" where there is none."""
        said = self.reasoning
        return "" if said is None or said.error is not None else said.text.strip()

    def _later(self) -> Iterator[Completion]:
        for said in (self.reasoning, self.own, self.second, self.final):
            if said is not None:
                yield said

    def result(self, spent: Timings) -> Result:
        """The result: the large model's last answer that there is and that is heeded counts."""
        last = None if self.unheeded else self.final
        given = [c for c in (last, self.large) if c is not None and answered(c)]
        steps = [self.large, *self._later()]
        trajectory = Trajectory(
            tuple(Step(c.text, (), (), len(c.token_ids), c.prompt_tokens, c.error) for c in steps),
            given[0].text.strip() if given else None,
            "answered" if given else "error",
            None if given else self.large.error or "the large model said nothing",
        )
        route: Route = "draft" if self.settled else "agent"
        return Result(
            self.query.id,
            trajectory.answer,
            route if given else "error",
            draft=self.small,
            trajectory=trajectory,
            timings=spent,
            error=None if given else f"the large model failed: {trajectory.error}",
            question=self.query.question,
        )
