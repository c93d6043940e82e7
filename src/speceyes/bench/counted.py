"""A model that counts its tokens, for those that tell nothing of what they spent."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from speceyes.protocols import RunsHere, Session, SupportsSession, VisionLanguageModel, offers
from speceyes.types import Completion, Conversation, Sampling

HERE: Final = "cpu"
"""Device of an engine's model: what is watched is this process's own memory."""


@dataclass(frozen=True, slots=True)
class TokensSpent:
    """Tokens so far, as completions tell them.

    Args:
        read: Prompt tokens read.
        reused: Prompt tokens that the engine says it had kept.
        decoded: New tokens.
        padding: Always 0: what an engine computes for nothing isn't known.
        forward_s: Always 0: nor is how long it computed.
    """

    read: int = 0
    reused: int = 0
    decoded: int = 0
    padding: int = 0
    forward_s: float = 0.0


@final
class CountedModel:
    """Any model with `spent`, the tokens of all completions; all else is the model's own.

    Args:
        model: Answers.
    """

    def __init__(self, model: VisionLanguageModel) -> None:
        self._model = model
        self._lock = threading.Lock()
        self.spent = TokensSpent()
        """Tokens so far."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    @property
    def name(self) -> str:
        """The model's."""
        return self._model.name

    @property
    def device(self) -> Any:
        """The model's, or `HERE`."""
        return self._model.device if offers(self._model, RunsHere) else HERE

    def seen_size(self, image: Any) -> tuple[int, int]:
        """(width, height) in pixels of the image as the model sees it."""
        return self._model.seen_size(image)

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        """One completion a conversation, in order."""
        said = self._model.generate(conversations, sampling)
        self.note(said)
        return said

    def session(self, sampling: Sampling) -> Session | None:
        """The model's, counted; None where it has none."""
        model: object = self._model
        inner = model.session(sampling) if offers(model, SupportsSession) else None
        return None if inner is None else _CountedSession(self, inner)

    def note(self, said: Iterable[Completion]) -> None:
        """Counts completions."""
        with self._lock:
            for one in said:
                was = self.spent
                kept = min(one.cached_tokens or 0, one.prompt_tokens)
                self.spent = TokensSpent(
                    was.read + one.prompt_tokens - kept,
                    was.reused + kept,
                    was.decoded + len(one.token_ids),
                )


@final
class _CountedSession:
    """A session whose completions are counted."""

    def __init__(self, model: CountedModel, inner: Session) -> None:
        self._model, self._inner = model, inner

    def __len__(self) -> int:
        return len(self._inner)

    def add(self, key: int, conversation: Conversation) -> None:
        self._inner.add(key, conversation)

    def step(self) -> list[tuple[int, Completion]]:
        done = self._inner.step()
        self._model.note(said for _, said in done)
        return done

    def drop(self, key: int) -> None:
        self._inner.drop(key)

    def close(self) -> None:
        self._inner.close()
