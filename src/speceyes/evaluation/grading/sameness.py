"""The option that a text is word for word, and options that no text can tell apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from speceyes.evaluation.grading.cleaning import canonical, plain
from speceyes.evaluation.grading.normal_form import simplest

_LEVELS: Final[tuple[Callable[[str], str], ...]] = (
    str.strip,
    plain,
    lambda text: plain(text).casefold(),
    simplest,
    lambda text: _signs(plain(text).casefold()),
    lambda text: _closed_up(simplest(text)),
)
"""From the text as it stands to its plainest form. Options that one form can't tell apart another
may.
"""
LAST = re.compile(
    r"^(.*\S)[\s,:–—-]{0,4}(?:[(\[]\s*(?:(?:option|choice|answer)\s+)?([A-Z])\s*[)\]]"
    r"|[(\s,]\s?(?:option|choice|answer)\s+([A-Z])\)?)\s*[.。]?$",
    re.S,
)
SENTENCE = re.compile(
    r"(?<=[^\W\d_]{2})[.!](?=\s)|(?<=[)\]\"'%°\d])[.!](?=\s)|[。！；\n;]+|\.\s*\n"
)
_BRACKET = re.compile(r"[(\[{][A-Za-z][)\]}]\W?")
_SIGNED = re.compile(r"(?<!\w)([a-z])((?:[\s-]*(?:\+|#|plus\b|sharp\b))+)")
_SIGNS: Final = {"plus": "+", "sharp": "#"}


def _signs(plainly: str) -> str:
    """A letter and its signs together, and the signs as such: "c plus plus" is "c++"."""
    return _SIGNED.sub(
        lambda one: (
            one[1] + re.sub(r"[\s-]*(plus|sharp|.)", lambda s: _SIGNS.get(s[1], s[1]), one[2])
        ),
        plainly,
    )


_SHORT: Final = {
    short: whole
    for whole, shorts in {
        "1st": "first", "2nd": "second", "3rd": "third", "4th": "fourth", "5th": "fifth",
        "6th": "sixth", "7th": "seventh", "8th": "eighth", "9th": "ninth", "10th": "tenth",
    }.items()
    for short in shorts.split()
} | {"sun": "sunday", "sat": "saturday", "mar": "march"}  # fmt: skip


def _closed_up(plainly: str) -> str:
    """Words without what is between them: "north east" is "northeast"."""
    if plainly in _SHORT:
        return _SHORT[plainly]
    joined = re.sub(r"[\s'-]", "", plainly)
    return joined if joined.isalpha() and len(joined) > 5 else plainly


def equal(text: str, choices: Sequence[str]) -> int | None:
    """The one option that a text is; None where it is none, or can't be told apart from another.

    Example:
        >>> equal("x < y", ("x > y", "x < y")), equal("Red.", ("red", "blue"))
        (1, 0)
        >>> equal("cat", ("a cat", "the cat")) is None
        True
    """
    asks = text.rstrip(" \"')*_").endswith(("?", "？"))
    lettered = _BRACKET.fullmatch(text.strip())
    for form in _LEVELS[:3] if asks or lettered else _LEVELS:
        wanted = form(text)
        same = [
            i
            for i, choice in enumerate(choices)
            if form(choice) == wanted and (form in _LEVELS[:3] or len(choice.strip()) > 1)
        ]
        if same:
            return same[0] if len(same) == 1 and wanted else None
    return None


def indistinguishable(choices: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of options that no answer in words can tell apart: they differ in nothing but spaces,
    quotes, emphasis and a full stop.

    Example:
        >>> indistinguishable(("red", "Red", "blue", "red."))
        [('red', 'red.')]
    """
    forms = [plain(choice) for choice in choices]
    return [
        (choices[i], choices[j])
        for i in range(len(choices))
        for j in range(i + 1, len(choices))
        if forms[i] == forms[j]
    ]


def first_sentence(text: str) -> tuple[str, str]:
    """The first sentence, and the rest; a letter's full stop ends none."""
    for found in SENTENCE.finditer(text):
        if text[: found.start()].strip():
            return text[: found.start()].strip(), text[found.end() :].strip()
    return text.strip(), ""


def masked(text: str, choices: Sequence[str], only: int | None = None) -> str:
    """The text without the options' own words, which may hold "about" or "not sure"."""
    text = canonical(text)
    some = choices if only is None else (choices[only],)
    for choice in sorted(some, key=len, reverse=True):
        bare = plain(choice)
        if len(bare) > 2:
            flags = re.NOFLAG if bare in ("May", "Might", "Will") else re.I
            text = re.sub(rf"(?<!\w){re.escape(bare)}(?!\w)", " # ", text, flags=flags)
    return text
