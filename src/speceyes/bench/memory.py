"""The most memory that a run takes, and what scores cost as the vocabulary grows."""

from __future__ import annotations

import gc
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, final

EVERY = 0.005
"""Seconds between two looks."""
_LOOKS = 2
"""Times that a batch is watched: whatever else the process takes meanwhile is counted too, so that
the least is nearest."""


@final
class Peak:
    """Watches memory from a thread while a run goes on.

    The system's own peak of a process never falls again, and `MemoryFit` resets torch's in the
    middle of a run, so both are looked at every 5 ms. On a GPU each look tells the most since
    the last reset, so that little is missed; of a process, what is taken and given back between
    two looks is.

    Args:
        device: Where the models are: a GPU's own memory is watched, or else this process's.
    """

    def __init__(self, device: object) -> None:
        self._device: Any = device
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="speceyes-peak", daemon=True)
        self.before: int | None = None
        """Bytes in use at the beginning; None where the system doesn't tell."""
        self.most: int | None = None
        """Most bytes in use."""

    def __enter__(self) -> Self:
        from speceyes.models.hf import device_memory as gauge

        gc.collect()
        gauge.reset(self._device)
        self.before = self.most = gauge.used(self._device)
        if self.before is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if self.before is not None:
            self._over.set()
            self._thread.join()
            self._look()

    def _look(self) -> None:
        from speceyes.models.hf import device_memory as gauge

        now = gauge.used(self._device)
        if now is not None and self.most is not None:
            self.most = max(self.most, now)

    def _watch(self) -> None:
        while not self._over.wait(EVERY):
            self._look()


@dataclass(frozen=True, slots=True)
class Scoring:
    """Time and memory of scoring one batch of drafts.

    Args:
        vocabulary: Tokens of the vocabulary.
        kept: Bytes of scores that the drafts carry: rows x tokens x K x 4.
        all_logits: Bytes of all logits of the batch, in float32.
        peak: Most bytes over those before, while drafting; None where the system doesn't tell.
        peak_keeping_all: The same under the reference schedule, which keeps all logits.
    """

    vocabulary: int
    kept: int
    all_logits: int
    peak: int | None
    peak_keeping_all: int | None


def scoring(
    vocabularies: Sequence[int], *, rows: int = 8, tokens: int = 32, top_k: int = 64
) -> list[Scoring]:
    """Drafts with small random models of several vocabularies, on the CPU.

    Args:
        vocabularies: Sizes, in tokens.
        rows: Drafts in the batch.
        tokens: Tokens of a draft.
        top_k: Log-probabilities that are kept of a token.

    Raises:
        ConfigError: A vocabulary is smaller than the tokenizer's.
    """
    from PIL import Image

    from speceyes.models.hf import device_memory as gauge
    from speceyes.models.shapes import build
    from speceyes.types import Conversation, Message, Sampling

    image = Image.new("RGB", (112, 112), "gray")
    asked = [Conversation((Message("user", (image, "look " * (4 + i))),)) for i in range(rows)]
    sampling = Sampling(max_tokens=tokens, top_k=top_k)
    found = []
    for vocabulary in vocabularies:
        model = build("tiny-small", device="cpu", vocabulary=vocabulary)
        peaks: list[int | None] = []
        kept = 0
        for one in (model.sharing(cache_bytes=0), model.reference()):
            one.generate(asked[:1], Sampling(max_tokens=2, top_k=top_k))
            grown = []
            for _ in range(_LOOKS):
                gauge.settle()
                with Peak("cpu") as peak:
                    drafts = one.generate(asked, sampling)
                if peak.most is not None and peak.before is not None:
                    grown.append(peak.most - peak.before)
            kept = sum(draft.top_logprobs.nbytes for draft in drafts)
            peaks.append(min(grown, default=None))
        whole = rows * tokens * vocabulary * 4
        found.append(Scoring(vocabulary, kept, whole, peaks[0], peaks[1]))
    return found


def scoring_table(found: Sequence[Scoring]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| vocabulary | scores kept | all logits | peak | peak, all kept |",
        "|--:|--:|--:|--:|--:|",
    ]
    for one in found:
        cells = [mib(one.kept), mib(one.all_logits), mib(one.peak), mib(one.peak_keeping_all)]
        lines.append(f"| {one.vocabulary} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def mib(size: int | None) -> str:
    """Bytes as text in MiB; nothing for None."""
    return "" if size is None else f"{size / 2**20:,.1f} MiB"
