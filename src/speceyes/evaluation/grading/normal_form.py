"""The plainest form of a text: lower case, digits for number words, no punctuation, no articles."""

from __future__ import annotations

import functools
import math
import re
from typing import Final

from speceyes.evaluation.grading.cleaning import canonical, unwrap
from speceyes.evaluation.grading.languages import ARTICLES

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_WORDS: Final = {word: i for i, word in enumerate(_UNITS)} | {
    word: 20 + 10 * i for i, word in enumerate(_TENS)
}
_POWERS: Final = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
}
_SPELLING: Final = {
    "grey": "gray",
    "colour": "color",
    "colours": "colors",
    "coloured": "colored",
    "centre": "center",
    "&": "and",
    "can't": "cannot",
    "wooden": "wood",
    "woolen": "wool",
    "woollen": "wool",
} | {
    short: whole
    for whole, shorts in {
        "monday": "mon", "tuesday": "tue tues", "wednesday": "wed", "thursday": "thu thur thurs",
        "friday": "fri", "january": "jan", "february": "feb", "april": "apr", "june": "jun",
        "july": "jul", "august": "aug", "september": "sep sept", "october": "oct",
        "november": "nov", "december": "dec",
    }.items()
    for short in shorts.split()
}  # fmt: skip
_ARTICLE: Final = re.compile(
    rf"(?<![\w'])(?:{'|'.join(ARTICLES)})\s+(?=[\w\"'“‘*_])(?!(?:hundred|thousand|million|dozen)\b)"
)
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")


def number_words(words: list[str]) -> list[str]:
    """Number words as digits, whole ones up to billions: "one hundred and five" is "105".

    Example:
        >>> number_words("two thousand three hundred cats".split())
        ['2300', 'cats']
    """
    out: list[str] = []
    at = 0
    while at < len(words):
        read = _number_at(words, at)
        if read is None:
            out.append(words[at])
            at += 1
        else:
            out.append(read[0])
            at = read[1]
    return out


def _number_at(words: list[str], at: int) -> tuple[str, int] | None:
    """(digits, where the words go on) of the number that begins here."""
    total, part, last = 0.0, 0.0, 10**12
    start, i, seen = at, at, False
    if words[i] == "a" and i + 1 < len(words) and words[i + 1] in _POWERS:
        part, i, seen = 1.0, i + 1, True
    while i < len(words):
        word = words[i]
        if word in _POWERS and seen:
            power = _POWERS[word]
            if power == 100:
                part *= 100
            else:
                total, part = total + part * power, 0.0
            last = power
        elif word in _WORDS:
            value = _WORDS[word]
            room = not seen or last >= 100 or (last == 10 and 0 < value < 10)
            if not room or (seen and value == 0):
                break
            part += value
            last = 10 if value >= 20 else 1
            seen = True
        elif _NUMBER.fullmatch(word) and not seen:
            power_next = i + 1 < len(words) and words[i + 1] in _POWERS
            if not power_next:
                return None
            part, seen, last = float(word), True, 10**12
        elif word == "and" and seen and last in (100, 1000) and i + 1 < len(words):
            if words[i + 1] not in _WORDS:
                break
        else:
            break
        i += 1
    whole = total + part
    if not seen or i == start or not math.isfinite(whole):
        return None
    return (str(int(whole)) if whole == int(whole) else repr(whole)), i


@functools.lru_cache(1024)  # the same few texts are compared over and over
def simplest(text: str) -> str:
    """The plainest form of a text that has no wrapping; signs that mean something are kept.

    Example:
        >>> simplest("The 2 Grey cats."), simplest("x > y"), simplest("C++")
        ('2 gray cats', 'x > y', 'c++')
    """
    text = canonical(text).casefold()
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    # An article stands before a word; "(a)" and "a." are letters.
    bare = _ARTICLE.sub("", text)
    text = bare if bare.strip(" .,:;!?") else text
    text = re.sub(r"(?<![\d.])\.(?=\d)", "0.", text)
    text = re.sub(r"(?<![\w.])(-?\d+)\.0+(?![\d.])", r"\1", text)
    text = re.sub(r"(?<!\d)\.|\.(?!\d)|[,;:!?\"“”«»„()\[\]{}|_`*¡¿。，、！？；：「」]", " ", text)
    text = re.sub(r"(?<=\w)[-–—](?=\w)|(?<!\S)[-–—](?!\w)", " ", text)
    text = re.sub(r"(?<!\w)'|'(?!\w)", " ", text)
    words = [_SPELLING.get(word, word) for word in text.split()]
    return " ".join(number_words(words))


def normalise(text: str) -> str:
    """The answer in its plainest form: lower case, digits, no punctuation, no articles.

    Example:
        >>> normalise("The answer is: Twenty-One Grey cats.")
        '21 gray cats'
    """
    return simplest(unwrap(text))
