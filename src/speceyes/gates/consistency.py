"""Drafts that must say the same at a second look: smaller images, or options in another order.

Agreement takes two drafts and a gate is given one, so it is the *answerer* that looks twice. What
it returns carries the tokens of both looks, and an error where they disagree. So every gate does
the right thing with it: one that takes the weakest token takes the weakest of both looks, and a
disagreement is rejected, whatever its log-probabilities are.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Final, Literal, final

import numpy as np

from speceyes.checks import checked_number, checked_whole
from speceyes.errors import ConfigError, describe
from speceyes.gates._wrapper import AnswererWrapper
from speceyes.models.rows import retry_per_row
from speceyes.texts import fingerprint
from speceyes.types import Completion, Query

_LETTER: Final = re.compile(r"\(?([a-z])\s*(?:[).:]\s*(.*))?", re.DOTALL)


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Smaller:
    """A view of a query with its images shrunk (area average), by a share of their sides.

    Args:
        scale: New side over old, above 0 and below 1. It only is another look where the model's
            own processor doesn't resize both to the same pixels.

    Example:
        >>> from PIL import Image
        >>> Smaller(0.5)(Query("Red?", (Image.new("RGB", (64, 48)),))).images[0].size
        (32, 24)
    """

    scale: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", checked_number("scale", self.scale, 0, 1))
        if self.scale in (0.0, 1.0):
            raise ConfigError(f"scale={self.scale}; it must lie strictly between 0 and 1")

    def __call__(self, query: Query) -> Query:
        """The query on the smaller images; none gets below one pixel."""
        from PIL import Image

        shrunk = tuple(
            image.resize(
                (max(1, round(image.width * self.scale)), max(1, round(image.height * self.scale))),
                Image.Resampling.BOX,
            )
            for image in query.images
        )
        return dataclasses.replace(query, images=shrunk)


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Reordered:
    """A view of a query with its options rotated, so that each stands behind another letter.

    A query with fewer than two options has no other order; the second look is the first then.

    Args:
        by: Places that each option moves up, at least 1; taken modulo their number.

    Example:
        >>> from PIL import Image
        >>> Reordered()(Query("Colour?", (Image.new("RGB", (8, 8)),), ("red", "blue"))).choices
        ('blue', 'red')
    """

    by: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "by", checked_whole("by", self.by, 1))

    def __call__(self, query: Query) -> Query:
        """The query with its options in the other order."""
        count = len(query.choices)
        at = self.by % count if count else 0
        return dataclasses.replace(query, choices=query.choices[at:] + query.choices[:at])


@final
class ConsistentAnswerer(AnswererWrapper):
    """Drafts each query twice, the second time on a view of it, and compares.

    Where both say the same, the draft is the first one's text with the tokens and rows of both
    looks (`rows="both"`) or of the first alone (`rows="first"`). Where they don't, it keeps the
    first one's text and rows and has an `error` that quotes both, which every gate rejects. A
    look that fails or is cut makes the draft fail or be cut.

    The same text at two views doesn't make an answer right; see docs/gate.md for what it bought.

    Args:
        answerer: Queries to completions, called twice a batch.
        view: What the second look sees: `Smaller`, `Reordered`, or any function of a query.
        rows: Whose rows the gate reads.

    Raises:
        ConfigError: An argument that can't be called, or an unknown `rows`.

    Example:
        >>> from PIL import Image
        >>> from speceyes.answerer import SpeculativeAnswerer
        >>> from speceyes.models.scripted import ScriptedModel
        >>> small = ScriptedModel(lambda asked, _: "red" if asked.images[0].width > 32 else "blue")
        >>> twice = ConsistentAnswerer(SpeculativeAnswerer(small, top_k=8), Smaller(0.5))
        >>> twice([Query("Which colour?", (Image.new("RGB", (64, 64)),))])[0].error
        "two looks disagree: 'red' and 'blue'"
    """

    def __init__(
        self,
        answerer: Callable[[Sequence[Query]], Sequence[Completion]],
        view: Callable[[Query], Query],
        *,
        rows: Literal["both", "first"] = "both",
    ) -> None:
        super().__init__(answerer)
        if not callable(view):
            raise ConfigError(f"view={view!r} can't be called")
        if rows not in ("both", "first"):
            raise ConfigError(f'rows={rows!r}; it must be "both" or "first"')
        self.view = view
        self.rows: Literal["both", "first"] = rows

    @property
    def prompt_hash(self) -> str | None:
        """Another than the answerer's: thresholds for single drafts don't hold for double ones."""
        inner = super().prompt_hash
        return None if inner is None else fingerprint(inner, repr(self.view), self.rows)

    def __call__(self, queries: Sequence[Query]) -> list[Completion]:
        """One completion a query, in order."""
        views = [self._viewed(query) for query in queries]
        first = retry_per_row(self.answerer, queries, Completion.failed)
        seen = [view for view in views if isinstance(view, Query)]
        again = iter(retry_per_row(self.answerer, seen, Completion.failed))
        second = [
            next(again) if isinstance(view, Query) else Completion.failed(view) for view in views
        ]
        found = []
        for query, view, one, two in zip(queries, views, first, second, strict=True):
            options = view.choices if isinstance(view, Query) else ()
            found.append(self._compared(query.choices, one, options, two))
        return found

    def _viewed(self, query: Query) -> Query | str:
        """The other view of a query; why there is none where it can't be made."""
        try:
            return self.view(query)
        except Exception as exc:  # noqa: BLE001 - a query's failure is its own
            return f"the other view could not be made: {describe(exc)}"

    def _compared(
        self, choices: Sequence[str], one: Completion, others: Sequence[str], two: Completion
    ) -> Completion:
        if one.error is not None:
            return one
        if two.error is not None:
            return dataclasses.replace(one, error=f"the second look failed: {two.error}")
        if "length" in (one.finish, two.finish):
            return dataclasses.replace(one, finish="length")
        if not one.text.strip() or meaning(one.text, choices) != meaning(two.text, others):
            error = f"two looks disagree: {one.text.strip()!r} and {two.text.strip()!r}"
            return dataclasses.replace(one, error=error)
        if self.rows == "first":
            return one
        width = min(one.top_logprobs.shape[1], two.top_logprobs.shape[1])
        rows = [c.top_logprobs[:, :width] for c in (one, two) if width]
        return dataclasses.replace(
            one,
            token_ids=one.token_ids + two.token_ids,
            top_logprobs=np.concatenate(rows) if rows else one.top_logprobs[:0, :0],
            prompt_tokens=one.prompt_tokens + two.prompt_tokens,
        )


def meaning(text: str, choices: Sequence[str] = ()) -> str:
    """The content of an answer, to be compared: in small letters, bare of punctuation around it; of
    a question with options the option, whether it was named by its letter or in words.

    Example:
        >>> meaning("(B)", ("red", "Dark blue")), meaning("Dark blue.", ("dark blue", "red"))
        ('dark blue', 'dark blue')
    """
    plain = _bare(text)
    options = [_bare(choice) for choice in choices]
    if plain in options:
        return plain
    found = _LETTER.fullmatch(text.strip().casefold())
    if found is not None and (at := ord(found[1]) - ord("a")) < len(options):
        named = _bare(found[2] or "")
        if named in ("", options[at]):
            return options[at]
    return plain


def _bare(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .,:;!?\"'`*()[]")
