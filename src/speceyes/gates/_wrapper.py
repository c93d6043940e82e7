"""Common part of answerers that wrap another one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from speceyes.errors import ConfigError
from speceyes.protocols import DescribesDrafts, VisionLanguageModel, offers
from speceyes.types import Completion, Query


class AnswererWrapper:
    """Tells of its drafts what the wrapped answerer does; nothing where that one doesn't.

    Args:
        answerer: Queries to completions.

    Raises:
        ConfigError: It can't be called.
    """

    def __init__(self, answerer: Callable[[Sequence[Query]], Sequence[Completion]]) -> None:
        if not callable(answerer):
            raise ConfigError(f"answerer={answerer!r} can't be called on queries")
        self.answerer = answerer

    @property
    def model(self) -> VisionLanguageModel | None:
        """The answerer's model, where it tells."""
        return self.answerer.model if offers(self.answerer, DescribesDrafts) else None

    @property
    def top_k(self) -> int | None:
        """Number of log-probabilities that its drafts keep, where it tells."""
        return self.answerer.top_k if offers(self.answerer, DescribesDrafts) else None

    @property
    def prompt_hash(self) -> str | None:
        """The answerer's: the drafts are the same."""
        return self.answerer.prompt_hash if offers(self.answerer, DescribesDrafts) else None
