"""From rows as a loader read them to samples: what holds for every benchmark."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from speceyes.errors import ImageError, InputError
from speceyes.evaluation.benchmarks.sample import (
    BadRow,
    Cell,
    Entry,
    Loaded,
    ParquetCell,
    Samples,
    Source,
    rank,
    read_bytes,
)
from speceyes.evaluation.grading import letters, options, sameness
from speceyes.images import ImageLimits, fingerprint, load_image
from speceyes.images.similarity import look


@dataclass(frozen=True, slots=True)
class Draft:
    """A row as its file has it.

    Args:
        name: Where it stands, for people.
        id: Its id, the same in every run.
        question: The question without options.
        choices: The options in published order.
        answer: The right answer: an option's text, its letter, or a text.
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


def _are_letters(choices: tuple[str, ...]) -> bool:
    """True if options are the very letters that they would be shown with, as where points in a
    picture are called A, B and C. Shuffled, "A" would mean two options.
    """
    letters = [(i, choice) for i, choice in enumerate(choices) if len(choice.strip()) == 1]
    return bool(letters) and all(choice.strip() == chr(65 + i) for i, choice in letters)


def shuffled(choices: tuple[str, ...], *key: object) -> tuple[str, ...]:
    """The choices in an order that depends on the key and on nothing else."""
    order = sorted(range(len(choices)), key=lambda i: rank("choices", *key, i))
    return tuple(choices[i] for i in order)


def _wrong_with(draft: Draft, *, labels: bool) -> str | None:
    """Why the row's texts can't be used; None where they can."""
    for text in (draft.id, draft.question, draft.answer, draft.kind, *draft.choices):
        try:
            text.encode()
        except UnicodeEncodeError:
            return f"{text[:40]!r:.60} holds half a character, which can't be written"
    if not draft.question.strip():
        return "the question is blank"
    if labels and not draft.answer.strip():
        return "there is no answer"
    if not draft.sources:
        return "there is no image"
    if len(draft.choices) == 1 or len(draft.choices) > 26:
        return f"{len(draft.choices)} options; there must be 2 to 26, or none"
    if any(not choice.strip() for choice in draft.choices):
        return "an option is blank"
    times = draft.choices.count(draft.answer)
    if times > 1:
        return f"the answer {draft.answer!r} stands {times} times among the options; once is right"
    alike = sameness.indistinguishable(draft.choices)
    if alike:
        one, other = alike[0]
        return f"options {one!r} and {other!r} can't be told apart"
    return None


def _settled(draft: Draft) -> Draft:
    """The row with the text of its right option as the answer, and options without letters of
    their own ("A. red"), which would stand beside those that are shown.

    Raises:
        InputError: The answer is none of the options, or may be two of them.
    """
    if not draft.choices:
        return draft
    own = letters.own_letters(draft.choices)
    texts = draft.choices if own is None else tuple(text for _, text in own)
    if not draft.answer.strip():
        if own is not None and sameness.indistinguishable(texts):
            raise InputError(f"options {draft.choices} can't be told apart without their letters")
        return replace(draft, choices=texts)
    place = options.of_gold(draft.answer, draft.choices)
    if place is None and own is not None:
        place = options.of_gold(draft.answer, texts)
    if place is None:
        shown = ", ".join(repr(choice) for choice in draft.choices)
        raise InputError(
            f"the answer {draft.answer[:80]!r:.80} stands 0 times among the options: {shown[:200]}"
        )
    letter = letters.LETTER.fullmatch(draft.answer.strip())
    if own is not None and letter and own[place][0] != letter[1].upper():
        raise InputError(
            f"the answer {draft.answer!r} may be the letter that {draft.choices[place]!r} is shown "
            "with, or the one that another option brings: give the option's text"
        )
    if own is not None and sameness.indistinguishable(texts):
        raise InputError(f"options {draft.choices} can't be told apart without their letters")
    return replace(draft, choices=texts, answer=texts[place])


def gather(
    rows: Iterable[Draft | BadRow],
    benchmark: str,
    *,
    limit: int | None,
    seed: int,
    parity: bool,
    limits: ImageLimits,
    labels: bool = True,
) -> Loaded:
    """The samples: texts of all rows are checked, then images are decoded once each.

    With a limit, rows are tried in an order drawn from the seed until so many are good; those
    come in published order, and a smaller limit gives some of a larger one's. Without `labels`
    a row may have no answer.
    """
    bad: list[BadRow] = []
    good: list[tuple[int, Draft]] = []
    seen: dict[str, str] = {}
    for place, row in enumerate(rows):
        if isinstance(row, BadRow):
            bad.append(row)
            continue
        why = _wrong_with(row, labels=labels)
        if why is None:
            try:
                row = _settled(row)
            except InputError as exc:
                why = str(exc)
        if why is None and row.id in seen:
            why = f"its id {row.id!r} is that of {seen[row.id]} too"
        if why is not None:
            bad.append(BadRow(row.name, why))
            continue
        seen[row.id] = row.name
        good.append((place, row))
    if limit is not None:
        good.sort(key=lambda pair: rank("limit", seed, benchmark, pair[1].id))
    keys: dict[str, tuple[str, bytes] | ImageError] = {}
    kept: list[tuple[int, Entry]] = []
    for place, row in good:
        if limit is not None and len(kept) >= limit:
            break
        try:
            checked = [_checked(source, limits, keys) for source in row.sources]
        except ImageError as exc:
            bad.append(BadRow(row.name, str(exc)))
            continue
        keep = parity or _are_letters(row.choices)
        choices = row.choices if keep else shuffled(row.choices, seed, benchmark, row.id)
        prompt = row.parity_prompt if parity else None
        entry = Entry(
            row.id,
            row.question,
            choices,
            row.answer,
            row.kind,
            checked[0][0],
            benchmark,
            row.sources,
            prompt,
            tuple(key for key, _ in checked),
            tuple(seen for _, seen in checked),
        )
        kept.append((place, entry))
    kept.sort(key=lambda pair: pair[0])
    return Loaded(Samples([entry for _, entry in kept], limits), tuple(bad))


def _checked(
    source: Source, limits: ImageLimits, keys: dict[str, tuple[str, bytes] | ImageError]
) -> tuple[str, bytes | None]:
    """The image's fingerprint and look; a picture that comes again isn't decoded again.

    Raises:
        ImageError: It can't be used.
    """
    if not isinstance(source, Path | bytes | Cell | ParquetCell):
        return source.key, None
    data = read_bytes(source, limits)
    digest = hashlib.sha256(data).hexdigest()
    if digest not in keys:
        try:
            image = load_image(data, limits=limits)
            keys[digest] = fingerprint(image), look(image)
        except ImageError as exc:
            keys[digest] = exc
    known = keys[digest]
    if isinstance(known, ImageError):
        raise ImageError(str(known))
    return known
