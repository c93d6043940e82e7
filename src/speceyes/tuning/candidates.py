"""Settings of a funnel that are tried: judge, resolution, ladder, K, aggregate and span."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, final

from speceyes.errors import ConfigError
from speceyes.judge import DRAFT_JUDGES, NO_JUDGE
from speceyes.scoring.scores import AGGREGATES, Aggregate

JudgeModel: TypeAlias = Literal["large", "small", "none", "draft"]
Span: TypeAlias = Literal["whole", "answer"]
DraftKind: TypeAlias = tuple[bool, int | None]
"""Whether drafts may ask to look closer, and the most pixels that they are made from."""
JUDGES: Final[tuple[JudgeModel, ...]] = ("none", "small", "large", "draft")
SPANS: Final[tuple[Span, ...]] = ("whole", "answer")


@final
@dataclass(frozen=True, slots=True)
class Candidate:
    """One setting of a funnel, its threshold aside.

    Args:
        judge: Which model judges; "draft" for the drafter, which answers or says that it must look
            closer.
        judge_pixels: Most pixels that it judges by; None for all that it takes.
        judge_threshold: Tools are needed where their probability is at least this.
        draft_pixels: Most pixels that drafts are made from; None for all that the model takes.
        aggregate: Of the gate.
        top_k: K of the gate; 1 for "log", which needs no more.
        span: Tokens that are scored: of the "whole" draft or of its "answer" alone.
        rung: Pixels of a first draft, fewer than `draft_pixels`, and the threshold of its gate;
            None drafts once.
    """

    judge: JudgeModel
    judge_pixels: int | None
    judge_threshold: float
    draft_pixels: int | None
    aggregate: Aggregate
    top_k: int
    span: Span = "whole"
    rung: tuple[int, float] | None = None

    @property
    def draft(self) -> DraftKind:
        """Kind of drafts that it takes: whether they may ask to look, and their pixels."""
        return self.judge == DRAFT_JUDGES, self.draft_pixels

    @property
    def judge_words(self) -> str:
        """The judge in words.

        Example:
            >>> Candidate("small", 65536, 0.5, 65536, "min", 9).judge_words
            'small on 65536 px'
        """
        if self.judge in (NO_JUDGE, DRAFT_JUDGES):
            return self.judge
        at = "" if self.judge_threshold == 0.5 else f" at {self.judge_threshold:g}"
        return f"{self.judge}{at}{_on(self.judge_pixels)}"

    @property
    def gate_words(self) -> str:
        """The gate in words, without its threshold."""
        of = "" if self.aggregate == "log" else f", K {self.top_k}"
        return f"{self.aggregate}{of}" + (", answer's tokens" if self.span == "answer" else "")

    @property
    def name(self) -> str:
        """Everything, in one line; no two candidates share it."""
        return f"judge {self.judge_words}; draft {self.draft_words}; gate {self.gate_words}"

    @property
    def draft_words(self) -> str:
        """Resolutions of the drafts in words.

        Example:
            >>> Candidate("none", None, 0.5, None, "min", 9, rung=(3600, 0.9)).draft_words
            'on 3600 px from 0.9, then full'
        """
        last = _on(self.draft_pixels).strip() or "full"
        if self.rung is None:
            return last
        return f"on {self.rung[0]} px from {self.rung[1]:.6g}, then {last}"


def _on(pixels: int | None) -> str:
    return "" if pixels is None else f" on {pixels} px"


def judge_named(text: str) -> tuple[JudgeModel, int | None]:
    """A judge and its pixels, by "large", "small", "draft", "none", or one of the first two with
    "@PIXELS" behind.

    Raises:
        ConfigError: It is none of these.

    Example:
        >>> judge_named("large@262144"), judge_named("none")
        (('large', 262144), ('none', None))
    """
    which, at, pixels = text.partition("@")
    if which not in JUDGES or (at and (which in ("none", "draft") or not pixels.isdecimal())):
        raise ConfigError(
            f"judge {text!r}; there are large, small, draft and none, the first two with @PIXELS "
            "where they are to see fewer"
        )
    if at and not int(pixels):
        raise ConfigError(f"judge {text!r}: it must see at least 1 pixel")
    return which, int(pixels) if at else None


def grid(
    judges: Iterable[str],
    draft_pixels: Sequence[int | None],
    ks: Sequence[int],
    *,
    aggregates: Sequence[Aggregate] = AGGREGATES,
    spans: Sequence[Span] = ("whole",),
    judge_thresholds: Sequence[float] = (0.5,),
) -> list[Candidate]:
    """All combinations, the plainest first: among equals the first is taken.

    Args:
        judges: See `judge_named`. A small judge without pixels of its own has the draft's, so that
            both are asked about one image.
        draft_pixels: Resolutions of drafts; None for all that the model takes.
        ks: K of the gate.
        aggregates: Of the gate.
        spans: Tokens that are scored.
        judge_thresholds: Of every judge.

    Raises:
        ConfigError: There is nothing to try, or a judge is unknown.

    Example:
        >>> len(grid(["none", "small"], [None, 65536], [9, 64], aggregates=["min", "log"]))
        12
    """
    found: dict[Candidate, None] = {}
    for text in judges:
        which, own = judge_named(text)
        for threshold in (0.5,) if which in ("none", "draft") else judge_thresholds:
            for pixels in draft_pixels:
                for span in spans:
                    for aggregate in aggregates:
                        for k in (1,) if aggregate == "log" else ks:
                            seen = pixels if which == "small" and own is None else own
                            one = Candidate(which, seen, threshold, pixels, aggregate, k, span)
                            found[one] = None
    if not found:
        raise ConfigError("nothing to try: name judges, resolutions, aggregates and K")
    return list(found)
