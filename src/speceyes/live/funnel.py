"""What an endless run needs to know of a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from speceyes.auditing import Auditor
from speceyes.efficiency import CostModel, Speculate
from speceyes.images import ImageLimits
from speceyes.observing import Observer, Watching
from speceyes.ordering import Order
from speceyes.types import Completion, Judgement, Query, Verdict

if TYPE_CHECKING:
    from speceyes.fallback import AgenticFallback


class Funnel(Protocol):
    """A `SpecPipeline`, as those see it who stand below it."""

    judge: Callable[[Sequence[Query]], Sequence[Judgement]] | None
    answerer: Callable[[Sequence[Query]], Sequence[Completion]] | None
    gate: Callable[[Completion], Verdict] | None
    fallback: AgenticFallback | None
    auditor: Auditor | None
    batch_size: int
    order: Order
    early: bool
    speculate: Speculate
    costs: CostModel
    image_limits: ImageLimits
    allow_urls: bool
    observers: tuple[Observer, ...]

    @property
    def schedule(self) -> str:
        """Whether the front works beside the agent; see `SpecPipeline`."""
        ...

    def watching(self) -> Watching | None:
        """Whom to tell of the queries of a run that begins now."""
        ...
