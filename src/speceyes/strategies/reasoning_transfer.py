"""Reasoning transfer: a small model's reasoning goes into the large one's prompt.

After arXiv 2604.04929: latency follows from how many tokens are decoded, so a large model that
answers briefly can beat a small one that reasons at length, and reading reasoning costs far less
than writing it. Of that paper the abstract and summaries are known here, not its prompts, its
agreement rule nor its selector; what they are below is this project's own, and no figure of the
paper is claimed.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, TypeAlias, final, get_args

from speceyes import intake, prompts
from speceyes.errors import ConfigError, InputError
from speceyes.images import DEFAULT_LIMITS, ImageLimits
from speceyes.isolation import describe, generate_isolated
from speceyes.protocols import VisionLanguageModel
from speceyes.strategies.key_reasoning import Keep, best_of, likeliest, sentences_of
from speceyes.types import (
    Completion,
    Conversation,
    Message,
    Query,
    Result,
    Sampling,
    Step,
    Timings,
    Trajectory,
)

Verify: TypeAlias = Literal["answers", "likelihood"]

_log = logging.getLogger(__name__)

_WORDS = re.compile(r"\w+")
_ARTICLES = {"a", "an", "the"}


def same_words(query: Query, one: str, other: str) -> bool:
    """Whether two short answers say the same, but for case, articles and punctuation.

    Example:
        >>> from PIL import Image
        >>> asked = Query("Which colour?", (Image.new("RGB", (8, 8)),))
        >>> same_words(asked, "The red one.", "red one"), same_words(asked, "red", "not red")
        (True, False)
    """
    words = [[w for w in _WORDS.findall(t.casefold()) if w not in _ARTICLES] for t in (one, other)]
    return bool(words[0]) and words[0] == words[1]


@dataclass(frozen=True, slots=True)
class Transferred:
    """What came of the queries so far.

    Args:
        queries: How many there were.
        agreed: Of these, how many both models answered alike at once.
        reasoned: Of these, how many were settled by the small model's reasoned answer, where
            `two_stage` asks for it.
        large_decoded: Tokens that the large model decoded.
        large_read: Tokens of prompts that it was given.
        small_decoded: Tokens that the small model decoded.
        small_read: Tokens of prompts that it was given.
        kept: Tokens of reasoning that were handed over, of those that were written.
        written: Tokens of reasoning that the small model wrote.
    """

    queries: int = 0
    agreed: int = 0
    reasoned: int = 0
    large_decoded: int = 0
    large_read: int = 0
    small_decoded: int = 0
    small_read: int = 0
    kept: int = 0
    written: int = 0


def pays(
    *,
    reasoning_tokens: float,
    small_rate: float,
    kept_tokens: float,
    read_rate: float,
    answer_tokens: float,
    own_tokens: float,
    large_rate: float,
) -> bool:
    """The break-even rule: N_S / T_S + N_key / P_L + N'_L / T_L < N_L / T_L.

    Args:
        reasoning_tokens: N_S, tokens that the small model writes.
        small_rate: T_S, tokens a second that it decodes.
        kept_tokens: N_key, tokens of these that the large one reads.
        read_rate: P_L, tokens a second that it reads.
        answer_tokens: N'_L, tokens of its short answer.
        own_tokens: N_L, tokens that it would write reasoning by itself.
        large_rate: T_L, tokens a second that it decodes.

    Example:
        >>> pays(reasoning_tokens=200, small_rate=100, kept_tokens=200, read_rate=5000,
        ...      answer_tokens=5, own_tokens=200, large_rate=30)
        True
    """
    transferred = reasoning_tokens / small_rate + kept_tokens / read_rate
    return transferred + answer_tokens / large_rate < own_tokens / large_rate


@final
class ReasoningTransfer:
    """Answers with a large model that only ever answers briefly.

    Both models answer at once. Where they agree, that is the answer. Elsewhere the small model
    reasons, and the large one answers again with that reasoning, or the key of it, in its prompt.

    A `Result`'s route is "draft" where the models agreed and "agent" where reasoning was
    transferred; its draft is the small model's answer, its trajectory the large one's answers with
    the reasoning between them.

    Args:
        large: Its answers are those that are given.
        small: Answers, and reasons.
        verify: What agreement is: "answers", the two say the same (`agrees`); or "likelihood", each
            model holds the other's answer likely (`likely`), for which both must offer
            `likelihoods`, as `HFModel` does for the Qwen-VL families.
        agrees: For "answers".
        likely: For "likelihood": least mean log-probability of an answer's tokens, nats.
        keep: What of the reasoning is handed over: "all"; the "last" sentences; the "likeliest",
            which the small model was surest of, by the mean log-probability of their tokens; or
            the most "attended", by the small model's own attention from where it would begin its
            answer behind its reasoning, for which it must offer `attended`, as `HFModel` does
            for the Qwen-VL families.
        sentences: How many, for all but "all".
        two_stage: Let the small model answer once more, behind its reasoning, and where that is
            what the large one said, spare the large one's second answer.
        answer_tokens: Most new tokens of an answer.
        reason_tokens: Most new tokens of the reasoning.
        batch_size: Queries that are answered together.
        image_limits: What images are loaded under.

    Raises:
        ConfigError: An argument that is none, or a model that can't tell likelihoods.

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
        agrees: Callable[[Query, str, str], bool] = same_words,
        likely: float = -1.0,
        keep: Keep = "all",
        sentences: int = 3,
        two_stage: bool = False,
        answer_tokens: int = 20,
        reason_tokens: int = 256,
        batch_size: int = 16,
        image_limits: ImageLimits = DEFAULT_LIMITS,
    ) -> None:
        for name, value, allowed in (
            ("verify", verify, get_args(Verify)),
            ("keep", keep, get_args(Keep)),
        ):
            if value not in allowed:
                raise ConfigError(f"{name}={value!r}; it must be one of {allowed}")
        counts = {
            "sentences": sentences,
            "answer_tokens": answer_tokens,
            "reason_tokens": reason_tokens,
            "batch_size": batch_size,
        }
        for name, count in counts.items():
            if count < 1:
                raise ConfigError(f"{name}={count}; it must be at least 1")
        for model in (large, small):
            if verify == "likelihood" and not callable(getattr(model, "likelihoods", None)):
                raise ConfigError(
                    f"{model.name} can't tell how likely an answer is: use verify='answers', or a "
                    "model with `likelihoods`, such as HFModel"
                )
        if keep == "attended" and not getattr(small, "tells_attention", False):
            raise ConfigError(
                f"{small.name} can't tell what it attends to: use keep='likeliest' or 'last', or "
                "a model of the Qwen-VL families as HFModel"
            )
        self.large, self.small = large, small
        self.verify, self.keep = verify, keep
        self._agrees, self._likely = agrees, likely
        self._sentences, self._two_stage = sentences, two_stage
        self._batch_size, self._limits = batch_size, image_limits
        self._short = Sampling(max_tokens=answer_tokens)
        self._long = Sampling(max_tokens=reason_tokens, top_k=1 if keep == "likeliest" else 0)
        self._lock = threading.Lock()
        self.transferred = Transferred()
        """What came of all queries so far."""

    def __call__(self, queries: Iterable[Any]) -> list[Result]:
        """One result a query, in order; a query is what `SpecPipeline` takes as one."""
        return list(self.stream(queries))

    def stream(self, queries: Iterable[Any]) -> Iterator[Result]:
        """Results in order, a batch at a time; queries are pulled a batch at a time."""
        source = enumerate(queries)
        while batch := list(islice(source, self._batch_size)):
            yield from self._batch(batch)

    def _batch(self, items: Sequence[tuple[int, Any]]) -> list[Result]:
        start = time.perf_counter()
        done: dict[int, Result] = {}
        asked: list[_Asked] = []
        for at, item in items:
            try:
                query = intake.to_query(item, number=at, limits=self._limits, allow_urls=False)
                asked.append(_Asked(at, query))
            except Exception as exc:  # noqa: BLE001 - a query's failure is its own
                reason = str(exc) if isinstance(exc, InputError) else describe(exc)
                name = intake.named(item) or str(at)
                done[at] = Result(name, None, "error", error=reason)
        self._answer(asked)
        seconds = time.perf_counter() - start
        for one in asked:
            spent = Timings(fallback=seconds / len(asked), latency=seconds)
            done[one.at] = one.result(spent)
        return [done[at] for at, _ in items]

    def _answer(self, asked: Sequence[_Asked]) -> None:
        """Both stages, for one batch."""
        if not asked:
            return
        for one, said in zip(
            asked, self._say(self.large, [_briefly(o) for o in asked]), strict=True
        ):
            one.large = said
        for one, said in zip(
            asked, self._say(self.small, [_briefly(o) for o in asked]), strict=True
        ):
            one.small = said
        self._compare(asked)
        left = [one for one in asked if not one.agreed]
        if left:
            for one, said in zip(
                left, self._say(self.small, [_reasoning(o) for o in left], self._long), strict=True
            ):
                one.reasoning = said
            self._pick(left)
            if self._two_stage:
                self._settle(left)
            rest = [one for one in left if not one.settled]
            said_again = self._say(self.large, [_transferred(o) for o in rest])
            for one, said in zip(rest, said_again, strict=True):
                one.final = said
        self._count(asked)

    def _say(
        self,
        model: VisionLanguageModel,
        conversations: Sequence[Conversation],
        sampling: Sampling | None = None,
    ) -> list[Completion]:
        return generate_isolated(model, conversations, sampling or self._short)

    def _compare(self, asked: Sequence[_Asked]) -> None:
        both = [one for one in asked if _answered(one.large) and _answered(one.small)]
        if self.verify == "answers":
            for one in both:
                one.agreed = self._alike(one.query, one.small.text, one.large.text)
            return
        asking = [_briefly(one) for one in both]
        by_large = self.large.likelihoods(asking, [one.small.text for one in both])  # type: ignore[attr-defined]
        by_small = self.small.likelihoods(asking, [one.large.text for one in both])  # type: ignore[attr-defined]
        for one, mine, other in zip(both, by_large, by_small, strict=True):
            known = mine is not None and other is not None
            one.agreed = known and min(mine, other) >= self._likely

    def _alike(self, query: Query, one: str, other: str) -> bool:
        try:
            return bool(self._agrees(query, one, other))
        except Exception:  # noqa: BLE001 - what can't be compared doesn't agree
            return False

    def _settle(self, left: Sequence[_Asked]) -> None:
        """The small model's answer behind its own reasoning."""
        able = [one for one in left if one.notes and _answered(one.large)]
        for one, said in zip(
            able, self._say(self.small, [_reasoned(o) for o in able]), strict=True
        ):
            one.second = said
            one.settled = _answered(said) and self._alike(one.query, said.text, one.large.text)

    def _pick(self, left: Sequence[_Asked]) -> None:
        """The part of each row's reasoning that is handed over."""
        parts = [sentences_of(one.thought) for one in left]
        looked = self._attention(left, parts) if self.keep == "attended" else [None] * len(left)
        for one, mine, worth in zip(left, parts, looked, strict=True):
            if self.keep == "all" or len(mine) <= self._sentences:
                one.notes = one.thought
            elif self.keep == "last":
                one.notes = " ".join(mine[-self._sentences :])
            elif self.keep == "likeliest" and one.reasoning is not None:
                one.notes = best_of(mine, likeliest(mine, one.reasoning), self._sentences)
            elif worth is None:  # it couldn't be told: nothing is left out
                one.notes = one.thought
            else:
                one.notes = best_of(mine, worth, self._sentences)

    def _attention(
        self, left: Sequence[_Asked], parts: Sequence[Sequence[str]]
    ) -> list[list[float] | None]:
        """How much the small model, about to answer, attends to each sentence."""
        found: list[list[float] | None] = [None] * len(left)
        asked = [i for i, mine in enumerate(parts) if len(mine) > self._sentences]
        try:
            looked = self.small.attended(  # type: ignore[attr-defined]
                [_reasoning(left[i]) for i in asked],
                [parts[i] for i in asked],
                f"\n{prompts.REASONED}",
            )
        except Exception as exc:  # noqa: BLE001 - the queries are answered all the same
            _log.warning("what was attended to can't be told: %s", describe(exc))
            return found
        for i, weights in zip(asked, looked, strict=True):
            found[i] = weights
        return found

    def _count(self, asked: Sequence[_Asked]) -> None:
        large = [c for one in asked for c in (one.large, one.final) if c is not None]
        small = [c for o in asked for c in (o.small, o.reasoning, o.second) if c is not None]
        with self._lock:
            was = self.transferred
            reasoned = [one for one in asked if one.reasoning is not None]
            written = sum(len(o.reasoning.token_ids) for o in reasoned if o.reasoning is not None)
            kept = sum(
                round(len(o.reasoning.token_ids) * len(o.notes) / max(1, len(o.reasoning.text)))
                for o in reasoned
                if o.reasoning is not None
            )
            self.transferred = Transferred(
                queries=was.queries + len(asked),
                agreed=was.agreed + sum(one.agreed for one in asked),
                reasoned=was.reasoned + sum(one.settled for one in asked),
                large_decoded=was.large_decoded + sum(len(c.token_ids) for c in large),
                large_read=was.large_read + sum(c.prompt_tokens for c in large),
                small_decoded=was.small_decoded + sum(len(c.token_ids) for c in small),
                small_read=was.small_read + sum(c.prompt_tokens for c in small),
                kept=was.kept + kept,
                written=was.written + written,
            )


def _nothing() -> Completion:
    return Completion("")


@dataclass(slots=True)
class _Asked:
    """A query under way."""

    at: int
    query: Query
    large: Completion = field(default_factory=_nothing)
    small: Completion = field(default_factory=_nothing)
    agreed: bool = False
    reasoning: Completion | None = None
    notes: str = ""
    """What of it is handed over."""
    second: Completion | None = None
    settled: bool = False
    final: Completion | None = None

    @property
    def thought(self) -> str:
        """The reasoning; "" where there is none."""
        failed = self.reasoning is None or self.reasoning.error is not None
        return "" if failed or self.reasoning is None else self.reasoning.text.strip()

    def result(self, spent: Timings) -> Result:
        """What became of it. The large model's last answer that there is counts."""
        given = [c for c in (self.final, self.large) if c is not None and _answered(c)]
        steps = [self.large, *(c for c in (self.reasoning, self.second, self.final) if c)]
        trajectory = Trajectory(
            tuple(Step(c.text, (), (), len(c.token_ids), c.prompt_tokens, c.error) for c in steps),
            given[0].text.strip() if given else None,
            "answered" if given else "error",
            None if given else self.large.error or "the large model said nothing",
        )
        if not given:
            return Result(
                self.query.id,
                None,
                "error",
                draft=self.small,
                trajectory=trajectory,
                timings=spent,
                error=f"the large model failed: {trajectory.error}",
            )
        return Result(
            self.query.id,
            trajectory.answer,
            "draft" if self.agreed else "agent",
            draft=self.small,
            trajectory=trajectory,
            timings=spent,
        )


def _answered(said: Completion) -> bool:
    return said.error is None and said.finish == "stop" and bool(said.text.strip())


def _asking(one: _Asked, instruction: str) -> Conversation:
    text = f"{one.query.text}\n{instruction}"
    return Conversation((Message("user", (*one.query.images, text)),))


def _brief(query: Query) -> str:
    return prompts.CHOICE if query.choices else prompts.DRAFT


def _briefly(one: _Asked) -> Conversation:
    return _asking(one, _brief(one.query))


def _reasoning(one: _Asked) -> Conversation:
    return _asking(one, prompts.REASON)


def _reasoned(one: _Asked) -> Conversation:
    asked = _reasoning(one)
    return dataclasses.replace(asked, prefill=f"{one.notes}\n{prompts.REASONED}")


def _transferred(one: _Asked) -> Conversation:
    if not one.notes:
        return _briefly(one)
    notes = prompts.TRANSFER.replace("{notes}", one.notes)
    return _asking(one, f"{notes}\n{_brief(one.query)}")
