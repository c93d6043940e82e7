"""A model that says what is scripted, after as long as an engine on an accelerator would take."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any, Final, final

from speceyes.bench.roofline.clock import VirtualClock
from speceyes.bench.roofline.engine import Engine, EngineRequest, Piece
from speceyes.images.pixel_cache import pixel_key
from speceyes.models.openai.session import STEP_S
from speceyes.protocols import Session, VisionLanguageModel
from speceyes.types import Completion, Conversation, Image, Sampling

LETTERS: Final = 4
"""Characters of a token, about, in English."""
_BLOCK: Final = 16
"""Tokens that are kept, or not, together, as in vLLM."""


@final
class RooflineModel:
    """A `VisionLanguageModel` on an `Engine`.

    Args:
        engine: Takes the time.
        says: Says what is answered, at once: a `ScriptedModel`, or what follows a `RoutePlan`. A
            completion takes as many steps as it has tokens.
        clock: The engine's.
        name: The model's name.
        magnify: Sides of images are so many times as long as the pictures that stand for them, so
            that a thousand photos of 8K need no memory.
    """

    def __init__(
        self,
        engine: Engine,
        says: VisionLanguageModel,
        clock: VirtualClock,
        *,
        name: str = "roofline",
        magnify: int = 1,
    ) -> None:
        self.engine, self._says, self._clock = engine, says, clock
        self._name, self._magnify = name, magnify
        self.asked: list[EngineRequest] = []
        """All requests so far, with what they took."""

    @property
    def name(self) -> str:
        """The name it was given."""
        return self._name

    def seen_size(self, image: Image) -> tuple[int, int]:
        """(width, height) in pixels: the picture's own."""
        return image.width, image.height

    def prompt(self, conversation: Conversation) -> list[Piece]:
        """The pieces that an engine keeps or reads; equal beginnings have equal keys."""
        return prompt_pieces(self._name, self.engine, conversation, magnify=self._magnify)

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        """One completion a conversation, in order, when the last of them is there."""
        said = self._says.generate(conversations, sampling)
        asked = [self._submit(*pair) for pair in zip(conversations, said, strict=True)]
        self._clock.wait(lambda: all(one.done for one in asked))
        return [told(*pair) for pair in zip(said, asked, strict=True)]

    def session(self, sampling: Sampling) -> Session | None:
        """A session whose rows are requests of the engine."""
        return _RooflineSession(self, self._says, sampling, self._clock)

    def _submit(self, conversation: Conversation, said: Completion) -> EngineRequest:
        # The end of a turn is a token too.
        tokens = len(said.token_ids) + (said.finish == "stop" and not said.first_token)
        request = self.engine.submit(self.prompt(conversation), tokens)
        self.asked.append(request)
        return request


def prompt_pieces(
    name: str, engine: Engine, conversation: Conversation, *, magnify: int
) -> list[Piece]:
    """The pieces of a prompt that an engine keeps or reads; equal beginnings have equal keys.

    Args:
        name: The model's.
        engine: Its engine.
        conversation: What is asked.
        magnify: See `RooflineModel`.
    """
    pieces: list[Piece] = []
    before = hash((name, *map(str, conversation.tools)))
    if conversation.tools:
        pieces.append(Piece(before, len(str(conversation.tools)) // LETTERS))
    parts: list[Any] = [part for m in conversation.messages for part in (m.role, *m.content)]
    for part in (*parts, *conversation.begun):
        if isinstance(part, str):
            for block in re.findall(rf"(?s).{{1,{LETTERS * _BLOCK}}}", part):
                before = hash((before, block))
                pieces.append(Piece(before, math.ceil(len(block) / LETTERS)))
        else:
            before = hash((before, pixel_key(part)))
            tokens = engine.shape.image_tokens(part.width * magnify, part.height * magnify)
            pieces.append(Piece(before, tokens, image=True))
    return pieces


def told(said: Completion, took: EngineRequest) -> Completion:
    """The reply, with the engine's counts."""
    length = sum(piece.tokens for piece in took.prompt)
    return dataclasses.replace(said, prompt_tokens=length, cached_tokens=took.cached)


@final
class _RooflineSession:
    """Implementation of `speceyes.protocols.Session`."""

    def __init__(
        self,
        model: RooflineModel,
        says: VisionLanguageModel,
        sampling: Sampling,
        clock: VirtualClock,
    ) -> None:
        self._model, self._says, self._sampling, self._clock = model, says, sampling, clock
        self._rows: dict[int, tuple[Completion, EngineRequest]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, key: int, conversation: Conversation) -> None:
        [said] = self._says.generate([conversation], self._sampling)
        self._rows[key] = said, self._model._submit(conversation, said)

    def step(self) -> list[tuple[int, Completion]]:
        self._clock.wait(
            lambda: not self._rows or any(took.done for _, took in self._rows.values()),
            until=self._clock() + STEP_S,
        )
        ended = [(key, told(*row)) for key, row in self._rows.items() if row[1].done]
        for key, _ in ended:
            del self._rows[key]
        return ended

    def drop(self, key: int) -> None:
        row = self._rows.pop(key, None)
        if row is not None:
            self._model.engine.drop(row[1])

    def close(self) -> None:
        for key in list(self._rows):
            self.drop(key)
