"""Models for tests that are about what surrounds a model: they look, wait, are slow, or break."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from speceyes.models.scripted import Script, ScriptedModel
from speceyes.types import Completion, Conversation, Image, Sampling


class FakeModel:
    """A scripted model that remembers its batches, and does to them what it is told.

    Args:
        script: What it answers, as for `ScriptedModel`.
        hold: Each batch waits until this is set.
        seconds_per_row: Seconds that each row of a batch takes.
        sleep: Lets so many seconds pass.
        fails: Called with a batch before it is answered; what it returns is raised for all of it.
        changes: Called with the completions of a batch; what it returns takes their place, be it
            fewer rows.
        wide: Log-probabilities a token are made for this many, then cut to as many as are asked
            for, so that they don't depend on that.
        **options: As for `ScriptedModel`.
    """

    def __init__(
        self,
        script: Script,
        *,
        hold: threading.Event | None = None,
        seconds_per_row: float = 0.0,
        sleep: Callable[[float], object] = time.sleep,
        fails: Callable[[Sequence[Conversation]], Exception | None] | None = None,
        changes: Callable[[list[Completion]], list[Completion]] | None = None,
        wide: int = 0,
        **options: Any,
    ) -> None:
        self._model = ScriptedModel(script, **options)
        self._hold, self._seconds_per_row, self._wide = hold, seconds_per_row, wide
        self._sleep, self._fails, self._changes = sleep, fails, changes
        self.batches: list[tuple[Conversation, ...]] = []
        self.samplings: list[Sampling] = []

    @property
    def name(self) -> str:
        """The name of the model."""
        return self._model.name

    @property
    def asked(self) -> list[Conversation]:
        """All conversations, in the order in which they came."""
        return [conversation for batch in self.batches for conversation in batch]

    @property
    def questions(self) -> list[list[str]]:
        """The first line of each conversation's last message, batch by batch."""
        return [[c.messages[-1].text.splitlines()[0] for c in batch] for batch in self.batches]

    @property
    def phases(self) -> list[tuple[str, int]]:
        """(phase, rows) of each batch: judge, draft or agent, read from what was asked for."""
        return [
            ("judge" if s.first_token else "draft" if s.top_k else "agent", len(batch))
            for s, batch in zip(self.samplings, self.batches, strict=True)
        ]

    def seen_size(self, image: Image) -> tuple[int, int]:
        """As the scripted model sees it."""
        return self._model.seen_size(image)

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        """One completion a conversation, unless the model was told to break."""
        self.batches.append(tuple(conversations))
        self.samplings.append(sampling)
        if self._hold is not None:
            assert self._hold.wait(60), "nobody let the model go on"
        if self._seconds_per_row:
            self._sleep(self._seconds_per_row * len(conversations))
        if self._fails and (error := self._fails(conversations)) is not None:
            raise error
        said = self._answers(conversations, sampling)
        return said if self._changes is None else self._changes(said)

    def _answers(self, asked: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        if not (self._wide and sampling.top_k):
            return self._model.generate(asked, sampling)
        said = self._model.generate(asked, replace(sampling, top_k=self._wide, floor=None))
        return [replace(c, top_logprobs=c.top_logprobs[:, : sampling.top_k]) for c in said]
