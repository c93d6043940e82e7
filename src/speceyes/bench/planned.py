"""Queries whose ways are fixed beforehand, for models whose words mean nothing.

A model with random weights computes as long as a real one does, but what it says decides
nothing. `PlannedModel` lets it read and decode as it would, a fixed number of tokens a turn, and
then hands on what a script says: the judge's yes or no, clear or unclear drafts, calls and answers.
Judge, gate, dialect and tools are the real ones and come to the decisions that are planned.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final

import numpy as np

from speceyes.errors import ConfigError
from speceyes.protocols import Session
from speceyes.types import Completion, Conversation, Image, Sampling

if TYPE_CHECKING:
    from speceyes.models.hf import HFModel

Way: TypeAlias = Literal["tools", "accepted", "rejected"]
_NUMBER = re.compile(r"\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """Planned route of each of n queries, and the tokens said on the way.

    Args:
        n: How many queries.
        beta: Share that the judge leaves to a draft; 0.8 on average in the paper.
        alpha: Share of these drafts that the gate accepts; 0.71 on average in the paper.
        depth: Tool calls before the agent's answer.
        turn_tokens: Tokens of each of the agent's turns.
        draft_tokens: Tokens of a draft.
        seed: Seed of the order in which the ways come.
        easy_depth: Tool calls of the agent on queries whose draft would be accepted; None for as
            many as on the others.
        later: (beta, alpha) of the second half of the queries; None for the same.

    Raises:
        ConfigError: A share is not in [0, 1], a number below 0 or a length below 1.

    Example:
        >>> routes = RoutePlan(10, beta=0.8, alpha=0.5)
        >>> [sum(routes.way(i) == way for i in range(10)) for way in ("tools", "accepted")]
        [2, 4]
    """

    n: int
    beta: float = 0.8
    alpha: float = 0.71
    depth: int = 2
    turn_tokens: int = 64
    draft_tokens: int = 8
    seed: int = 0
    easy_depth: int | None = None
    later: tuple[float, float] | None = None
    _ways: tuple[Way, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("beta", "alpha"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)}; it must be a share, 0 to 1")
        for name, least in (("n", 1), ("depth", 0), ("turn_tokens", 1), ("draft_tokens", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)}; it must be at least {least}")
        if self.later is None:
            ways = _ways(self.n, self.beta, self.alpha, self.seed)
        else:
            half = self.n // 2
            ways = _ways(half, self.beta, self.alpha, self.seed)
            ways += _ways(self.n - half, *self.later, self.seed + 1)
        object.__setattr__(self, "_ways", tuple(ways))

    def way(self, number: int) -> Way:
        """The way of query `number`, 0 to n - 1; further ones begin anew."""
        return self._ways[number % self.n]

    def calls(self, number: int) -> int:
        """Tool calls of the agent on query `number` before its answer."""
        easy = self.easy_depth is not None and self.way(number) == "accepted"
        return self.depth if not easy or self.easy_depth is None else self.easy_depth


def _ways(n: int, beta: float, alpha: float, seed: int) -> list[Way]:
    drafted = round(n * beta)
    accepted = round(drafted * alpha)
    ways: list[Way] = ["accepted"] * accepted
    ways += ["rejected"] * (drafted - accepted)
    ways += ["tools"] * (n - drafted)
    random.Random(seed).shuffle(ways)
    return ways


@final
class PlannedModel:
    """A model whose answers follow `RoutePlan`, at the cost of the model underneath.

    Drafts go on to their last token, for which of a random model's tokens would reject them
    says nothing. What a turn said is read once more with the next turn, since the text that
    is handed on is not what the model had decoded; a real model's would be known.

    Args:
        model: The model that computes; it must not end its turns by itself (`shapes.build`).
        routes: What becomes of queries.
    """

    def __init__(self, model: HFModel, routes: RoutePlan) -> None:
        self._model = model
        self.routes = routes

    @property
    def name(self) -> str:
        """Names the model in results."""
        return self._model.name

    @property
    def device(self) -> Any:
        """Where its weights are."""
        return self._model.device

    @property
    def spent(self) -> Any:
        """Computation so far."""
        return self._model.spent

    def seen_size(self, image: Image) -> tuple[int, int]:
        """(width, height) in pixels of the image as the model sees it."""
        return self._model.seen_size(image)

    def prepare(self, images: Sequence[Image]) -> None:
        """Resizes images ahead of a call that shows them."""
        self._model.prepare(images)

    def forget(self) -> None:
        """Gives up what is kept."""
        self._model.forget()

    def sharing(
        self, *, cache_bytes: int | None = None, compile: bool | None = None
    ) -> PlannedModel:
        """Another one on the same weights, with the same routes."""
        shared = self._model.sharing(cache_bytes=cache_bytes, compile=compile)
        return PlannedModel(shared, self.routes)

    def reference(self) -> PlannedModel:
        """The same weights under the reference schedule."""
        return PlannedModel(self._model.reference(), self.routes)

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        """One completion a conversation, in order: computed, and then replaced."""
        said = self._model.generate(conversations, self._asked(sampling))
        return [self.told(c, one, sampling) for c, one in zip(conversations, said, strict=True)]

    def session(self, sampling: Sampling) -> Session | None:
        """As the session of the model underneath; None where it has none."""
        inner = self._model.session(self._asked(sampling))
        return None if inner is None else _RoutedSession(self, inner, sampling)

    def _asked(self, sampling: Sampling) -> Sampling:
        """Sampling that is asked of the model: as many tokens as planned, and no other end."""
        if sampling.first_token:
            return sampling
        tokens = self.routes.draft_tokens if sampling.top_k else self.routes.turn_tokens
        return Sampling(max_tokens=tokens, top_k=sampling.top_k)

    def told(self, conversation: Conversation, said: Completion, sampling: Sampling) -> Completion:
        """Text that is handed on instead of the one said. Failures are handed on as they are."""
        from speceyes.models.shapes import tokens_of

        return planned(self.routes, conversation, said, sampling, self.seen_size, tokens_of)


def planned(
    routes: RoutePlan,
    conversation: Conversation,
    said: Completion,
    sampling: Sampling,
    seen_size: Callable[[Image], tuple[int, int]],
    tokens_of: Callable[[str], int],
) -> Completion:
    """The completion with what is planned in place of what was said.

    Args:
        routes: The plan.
        conversation: What was asked; its question has the query's number.
        said: Comes back as it is where it failed.
        sampling: Tells judgements, drafts and turns apart.
        seen_size: (width, height) in pixels of an image as the model sees it.
        tokens_of: Counts the tokens of a text.
    """
    if said.error is not None:
        return said
    number = number_of(conversation)
    if number is None:
        return Completion.failed("the question has no number: make queries by photos()")
    way = routes.way(number)
    if sampling.first_token:
        yes = 0.99 if way == "tools" else 0.01
        chances = {"yes": yes, "no": 1 - yes}
        return dataclasses.replace(said, first_token=chances, finish="stop")
    if sampling.top_k:
        rows = rows_of(len(said.token_ids), sampling.top_k, way == "accepted")
        return dataclasses.replace(said, text="a kite", top_logprobs=rows, finish="stop")
    turn = sum(message.role == "assistant" for message in conversation.messages)
    width, height = seen_size(conversation.images[0])
    text = spoken_turn(turn, routes.calls(number), routes.turn_tokens, width, height, tokens_of)
    return dataclasses.replace(said, text=text, finish="stop")


def number_of(conversation: Conversation) -> int | None:
    """Number of the query that a conversation is about; None where it has none."""
    marks = _NUMBER.findall(" ".join(message.text for message in conversation.messages))
    return int(marks[0]) if marks else None


@final
class _RoutedSession:
    """A session whose completions are replaced as `PlannedModel` does it."""

    def __init__(self, model: PlannedModel, inner: Session, sampling: Sampling) -> None:
        self._model, self._inner, self._sampling = model, inner, sampling
        self._asked: dict[int, Conversation] = {}

    def __len__(self) -> int:
        return len(self._inner)

    def add(self, key: int, conversation: Conversation) -> None:
        self._asked[key] = conversation
        self._inner.add(key, conversation)

    def step(self) -> list[tuple[int, Completion]]:
        return [
            (key, self._model.told(self._asked.pop(key), said, self._sampling))
            for key, said in self._inner.step()
        ]

    def drop(self, key: int) -> None:
        self._asked.pop(key, None)
        self._inner.drop(key)

    def close(self) -> None:
        self._asked.clear()
        self._inner.close()


@cache
def rows_of(n: int, k: int, clear: bool) -> Any:
    """float32[n, K] log-probabilities of a draft that is clear, or not at all."""
    places = np.arange(k, dtype=np.float32)
    row = -0.05 * places - 2 if not clear else np.where(places == 0, -0.001, -30 - 0.01 * places)
    return np.tile(row.astype(np.float32), (n, 1))


@cache
def spoken_turn(
    turn: int,
    depth: int,
    tokens: int,
    width: int,
    height: int,
    tokens_of: Callable[[str], int],
) -> str:
    """The agent's turn: thoughts of about the length that is planned, then a call or an answer."""
    if turn >= depth:
        body = "<answer>a kite</answer>"
    else:
        left, top = turn % 3 * width // 3, turn // 3 % 3 * height // 3
        box = [left, top, left + width // 3, top + height // 3]
        body = (
            '<tool_call>{"name": "image_zoom_in_tool", "arguments": '
            f'{{"bbox_2d": {box}}}}}</tool_call>'
        )
    thoughts = " look" * max(tokens - tokens_of(f"<think></think>{body}"), 0)
    return f"<think>{thoughts}</think>{body}"
