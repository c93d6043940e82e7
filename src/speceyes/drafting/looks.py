"""Lets a small model look at a query's images with tools, a bounded number of times.

The agent loop of `speceyes.fallback` does the work. Its last turn, the answer, is left out: the
answer is drafted anew from the images and what was seen, as any draft is, so that it is short and
its tokens can be held against those of other drafts.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from speceyes.dialects import dialect as dialect_named
from speceyes.errors import ConfigError, ParseError
from speceyes.fallback import AgenticFallback
from speceyes.models.rows import generate_rows
from speceyes.protocols import Dialect, Tool, VisionLanguageModel
from speceyes.tools import Tools
from speceyes.types import (
    Completion,
    Conversation,
    Image,
    Observation,
    Query,
    Sampling,
    ToolCall,
    Trajectory,
    Turn,
)

Seen = tuple[Image, ...]

_NUMBERS: Final = re.compile(r"\[\s*(?=\d)")
"""Beginning of a box's numbers in a JSON call."""
_LEAST: Final = 0.01
"""The least probability of another first number for a box to be proposed with it."""


@final
class Looks:
    """Looks that a model asks for, query by query.

    Args:
        model: The small model, speaking `dialect`.
        tools: What it may call: a `Tools` registry, or whatever one is made of.
        dialect: How it writes calls; "auto" picks by the model's name and config.
        max_depth: Most turns with a call.
        together: How many boxes are proposed in the first turn. More than one takes what the
            model holds most likely for the first number of its box, each continued greedily, so
            that nothing is drawn by chance; it needs a dialect that writes boxes as JSON, and a
            model that can continue a turn that has begun.
        max_tokens: Most new tokens of a turn.

    Raises:
        ConfigError: A number is below 1, or the dialect or a tool is unknown.

    Example:
        >>> from PIL import Image
        >>> from speceyes.models.scripted import ScriptedModel
        >>> call = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 32, 32]}}'
        >>> looks = Looks(ScriptedModel(f"<tool_call>{call}</tool_call>"), tools=["zoom"])
        >>> [seen] = looks([Query("Which colour?", (Image.new("RGB", (64, 64)),))])
        >>> [image.size for image in seen[0]]
        [(32, 32)]
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        tools: Tools | str | Iterable[Tool | type | Callable[..., Any] | str],
        dialect: str | Dialect = "auto",
        max_depth: int = 1,
        together: int = 1,
        max_tokens: int = 128,
    ) -> None:
        for name, value in (("max_depth", max_depth), ("together", together)):
            if value < 1:
                raise ConfigError(f"{name}={value}; it must be at least 1")
        bounded = _Bounded(dialect_named(dialect, model), together)
        self._agent = AgenticFallback(
            _Looker(model, bounded, max_depth, together),
            tools=tools,
            dialect=bounded,
            max_steps=max_depth + 1,
            max_tokens=max_tokens,
        )

    def __call__(self, queries: Sequence[Query]) -> list[tuple[Seen, ...]]:
        """Images worth showing beside those of each query, in order: each image that the
        first turn asked for, and after every later turn all that was seen so far. Empty where the
        model asked for nothing, or failed.
        """
        return [_seen(way) for way in self._agent(queries)]


def _seen(way: Trajectory) -> tuple[Seen, ...]:
    if way.stop == "error":
        return ()
    found: list[Seen] = []
    so_far: Seen = ()
    for step in way.steps:
        shown = [image for one in step.observations for image in one.images]
        if not shown:
            continue
        if not so_far:
            found += [(image,) for image in shown]
            so_far = (shown[0],)
        else:
            so_far = (*so_far, *shown)
            found.append(so_far)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Bounded:
    """A dialect that reads no more than so many calls of a turn."""

    inner: Dialect
    most: int

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def stop(self) -> tuple[str, ...]:
        return self.inner.stop

    def open(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        return self.inner.open(query, tools)

    def ask_judge(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        return self.inner.ask_judge(query, tools)

    def ask_direct(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        return self.inner.ask_direct(query, tools)

    def parse(self, text: str) -> Turn:
        turn = self.inner.parse(text)
        return dataclasses.replace(turn, calls=turn.calls[: self.most])

    def render_call(self, call: ToolCall) -> str:
        return self.inner.render_call(call)

    def locate(
        self, call: ToolCall, images: Sequence[Image], seen: Sequence[tuple[int, int]]
    ) -> ToolCall:
        return self.inner.locate(call, images, seen)

    def observe(
        self,
        conversation: Conversation,
        text: str,
        observations: Sequence[Observation],
        *,
        last: bool,
    ) -> Conversation:
        return self.inner.observe(conversation, text, observations, last=last)


@final
class _Looker:
    """The model, silent once it has looked often enough, and with several boxes in its first
    turn where they are asked for.
    """

    def __init__(
        self, model: VisionLanguageModel, dialect: _Bounded, max_depth: int, together: int
    ) -> None:
        self._model = model
        self._dialect = dialect
        self._max_depth = max_depth
        self._together = together

    @property
    def name(self) -> str:
        return self._model.name

    def seen_size(self, image: Image) -> tuple[int, int]:
        return self._model.seen_size(image)

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        turns = [sum(m.role == "assistant" for m in c.messages) for c in conversations]
        asked = [at for at, turn in enumerate(turns) if turn < self._max_depth]
        said = generate_rows(self._model, [conversations[at] for at in asked], sampling)
        found = dict(zip(asked, said, strict=True))
        first = [at for at in asked if turns[at] == 0]
        if self._together > 1 and first:
            more = self._more([conversations[at] for at in first], [found[at] for at in first])
            found.update(zip(first, more, strict=True))
        # The answer is drafted elsewhere: nothing is asked for it here.
        return [found.get(at, Completion("")) for at in range(len(conversations))]

    def _more(
        self, conversations: Sequence[Conversation], said: Sequence[Completion]
    ) -> list[Completion]:
        """The turns with further calls behind the first."""
        begun: list[tuple[int, Conversation, str]] = []
        for at, (conversation, completion) in enumerate(zip(conversations, said, strict=True)):
            place = _NUMBERS.search(completion.text)
            if completion.error is None and place is not None:
                head = completion.text[: place.end()]
                begun.append((at, dataclasses.replace(conversation, prefill=head), head))
        chances = generate_rows(
            self._model,
            [conversation for _, conversation, _ in begun],
            Sampling(max_tokens=1, first_token=True),
        )
        asked: list[tuple[int, str, Conversation]] = []
        for (at, conversation, head), first in zip(begun, chances, strict=True):
            taken = said[at].text[len(head) :]
            others = sorted(
                (text for text in first.first_token if _other(text, taken)),
                key=lambda text: (-first.first_token[text], text),
            )
            for text in others[: self._together - 1]:
                if first.first_token[text] >= _LEAST:
                    start = head + text
                    asked.append((at, start, dataclasses.replace(conversation, prefill=start)))
        rest = generate_rows(
            self._model,
            [conversation for _, _, conversation in asked],
            Sampling(max_tokens=32, stop=self._dialect.stop),
        )
        out = list(said)
        for (at, start, _), end in zip(asked, rest, strict=True):
            try:
                calls = self._dialect.parse(start + end.text).calls
            except ParseError:
                continue
            if end.error is None and calls:
                text = out[at].text + "\n" + self._dialect.render_call(calls[0])
                out[at] = dataclasses.replace(out[at], text=text)
        return out


def _other(text: str, taken: str) -> bool:
    """True where a box that begins with this number isn't the one that was taken."""
    return text.isdecimal() and not taken.startswith(text)
