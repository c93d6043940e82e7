"""From rows as a loader read them to samples: what holds for every benchmark."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from speceyes.errors import ImageError
from speceyes.evaluation.benchmarks.sample import (
    BadRow,
    Cell,
    Entry,
    Loaded,
    Samples,
    Source,
    rank,
    read_bytes,
)
from speceyes.images import ImageLimits, fingerprint, load_image


@dataclass(frozen=True, slots=True)
class Draft:
    """A row as its file has it.

    Args:
        name: Where it stands, for people.
        id: Its id, the same in every run.
        question: The question without options.
        choices: The options in published order.
        answer: The right answer's text.
        kind: The category.
        sources: Where its images are.
        parity_prompt: The text that published evaluations send.
    """

    name: str
    id: str
    question: str
    choices: tuple[str, ...]
    answer: str
    kind: str
    sources: tuple[Source, ...]
    parity_prompt: str | None = None


def lettered_prompt(question: str, choices: tuple[str, ...]) -> str:
    """The question as the published evaluations of V* and HR-Bench put it; of POPE too, where
    there are no options.
    """
    if not choices:
        return f"Question: {question}\n"
    options = "".join(f"{chr(65 + i)}. {choice}\n" for i, choice in enumerate(choices))
    return f"Question: {question}\nOptions: \n{options}"


def shuffled(choices: tuple[str, ...], *key: object) -> tuple[str, ...]:
    """The choices in an order that depends on the key and on nothing else."""
    order = sorted(range(len(choices)), key=lambda i: rank("choices", *key, i))
    return tuple(choices[i] for i in order)


def _wrong_with(draft: Draft) -> str | None:
    """Why the row's texts can't be used; None where they can."""
    if not draft.question.strip():
        return "the question is blank"
    if not draft.answer.strip():
        return "there is no answer"
    if not draft.sources:
        return "there is no image"
    if len(draft.choices) == 1 or len(draft.choices) > 26:
        return f"{len(draft.choices)} options; there must be 2 to 26, or none"
    if any(not choice.strip() for choice in draft.choices):
        return "an option is blank"
    if draft.choices and draft.choices.count(draft.answer) != 1:
        times = draft.choices.count(draft.answer)
        return f"the answer {draft.answer!r} stands {times} times among the options; once is right"
    return None


def gather(
    rows: Iterable[Draft | BadRow],
    benchmark: str,
    *,
    limit: int | None,
    seed: int,
    parity: bool,
    limits: ImageLimits,
) -> Loaded:
    """The samples: texts of all rows are checked, then images are decoded once each.

    With a limit, rows are tried in an order drawn from the seed until so many are good; those
    come in published order, and a smaller limit gives some of a larger one's.
    """
    bad: list[BadRow] = []
    good: list[tuple[int, Draft]] = []
    seen: dict[str, str] = {}
    for place, row in enumerate(rows):
        if isinstance(row, BadRow):
            bad.append(row)
            continue
        why = _wrong_with(row)
        if why is None and row.id in seen:
            why = f"its id {row.id!r} is that of {seen[row.id]} too"
        if why is not None:
            bad.append(BadRow(row.name, why))
            continue
        seen[row.id] = row.name
        good.append((place, row))
    if limit is not None:
        good.sort(key=lambda pair: rank("limit", seed, benchmark, pair[1].id))
    keys: dict[str, str | ImageError] = {}
    kept: list[tuple[int, Entry]] = []
    for place, row in good:
        if limit is not None and len(kept) >= limit:
            break
        try:
            image_key, *_ = [_checked(source, limits, keys) for source in row.sources]
        except ImageError as exc:
            bad.append(BadRow(row.name, str(exc)))
            continue
        choices = row.choices if parity else shuffled(row.choices, seed, benchmark, row.id)
        prompt = row.parity_prompt if parity else None
        entry = Entry(
            row.id,
            row.question,
            choices,
            row.answer,
            row.kind,
            image_key,
            benchmark,
            row.sources,
            prompt,
        )
        kept.append((place, entry))
    kept.sort(key=lambda pair: pair[0])
    return Loaded(Samples([entry for _, entry in kept], limits), tuple(bad))


def _checked(source: Source, limits: ImageLimits, keys: dict[str, str | ImageError]) -> str:
    """The image's fingerprint; a picture that comes again isn't decoded again.

    Raises:
        ImageError: It can't be used.
    """
    if not isinstance(source, Path | bytes | Cell):
        return source.key
    data = read_bytes(source, limits)
    digest = hashlib.sha256(data).hexdigest()
    if digest not in keys:
        try:
            keys[digest] = fingerprint(load_image(data, limits=limits))
        except ImageError as exc:
            keys[digest] = exc
    known = keys[digest]
    if isinstance(known, ImageError):
        raise ImageError(str(known))
    return known
