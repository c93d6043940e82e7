"""Letters of options: the one that a text says, and whether what stands beside it agrees."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from speceyes.evaluation.grading.languages import (
    ALTERNATIVE,
    CONTRAST,
    CORRECTION,
    DENIAL,
    EXPLANATION,
    HEDGE,
    REFUSED,
)
from speceyes.evaluation.grading.normal_form import simplest
from speceyes.evaluation.grading.sameness import SENTENCE, equal, masked
from speceyes.evaluation.grading.wording import COPULA, predicates_of

_BRACKETED = re.compile(r"^[(\[{<]\s*([A-Za-z])\s*[)\]}>]\s*[.:,)-]?\s*(.*)$", re.S)
_MARKED = re.compile(
    r"^([A-Za-z])\s*(?:[.)](?![A-Za-z]\.)|[:,;、．!/|&+]|[-–—=](?=\s))\s*(.*)$", re.S
)
_SPOKEN = re.compile(
    r"^([A-Z])(?=\s*\n|\s*\(|\s+(?:because|since|as|is|it|for|or|and|must|seems|looks|would|"
    r"weil|parce|porque|perché|omdat|maybe|perhaps|probably|i|not|isn't|rather|instead|"
    r"ist|est|es|è|é|está|это)\b|が|は|是|가|이|或|和|也)\s*(.*)$",
    re.S,
)
_ALONE = re.compile(r"^[(\[]?([A-Za-z])\W*$")
_SUBJECT = r"(?!\s+(?:is|are|was|shows?|has|looks|would|says)\b)"
_OTHERS = re.compile(
    rf"[(\[]([A-Z])[)\]]{_SUBJECT}|\b(?:option|choice|answer)\s+([A-Z])\b{_SUBJECT}"
)
_LISTED = re.compile(
    r"(?:^|\n)\s*[(\[]?([A-Z])[.):\]]\s|\b([A-Z])\s+(?:is|would be|could be)\s+(?:also\s+|"
    r"probably\s+)?"
    r"(?:correct|right|possible|plausible|true|the (?:right |correct )?answer)"
)
_AND_OTHER = re.compile(
    r"^\W*(?:no\s+)?([A-Z])\W*$|(?:\bor|\band|\bthen|/|&|,)\s*[(\[]?([A-Z])[)\]]?\s*(?:[.,!]|$)"
)
_DENIED = re.compile(
    r"(?:\bnot|rather than|instead of)\s+(?:option |choice )?[(\[]?[A-Z][)\]]?(?!\w)"
    r"|[(\[]?\b[A-Z][)\]]?\s+(?:is|was)(?:n't| not| wrong| incorrect| false)\b[^.\n]*"
)
LETTER: Final = re.compile(r"[(\[]?([A-Za-z])[)\].:]{0,2}")
"""A right answer that is an option's letter."""
OWN_LETTER = re.compile(r"^\s*(?:[(\[]([A-Z])[)\]]|([A-Z])[.):])\s*(?=\S)")


def own_letters(choices: Sequence[str]) -> list[tuple[str, str]] | None:
    """(letter, text) of options that bring letters of their own: "A. red", "B. blue". None where
    not all do, or the letters aren't the first ones of the alphabet, each once.

    Example:
        >>> own_letters(("B. blue", "A. red"))
        [('B', 'blue'), ('A', 'red')]
    """
    found = [OWN_LETTER.match(choice) for choice in choices]
    if len(choices) < 2 or not all(found):
        return None
    letters = [(one[1] or one[2]) for one in found if one]
    if sorted(letters) != [chr(65 + i) for i in range(len(choices))]:
        return None
    texts = [choice[one.end() :].strip() for choice, one in zip(choices, found, strict=True) if one]
    return list(zip(letters, texts, strict=True)) if all(texts) else None


def letter(text: str) -> tuple[str, str] | None:
    """The option letter that a claim begins with, and what follows it.

    Example:
        >>> letter("(b) blue"), letter("A dog"), letter("B is correct")
        (('B', 'blue'), None, ('B', 'is correct'))
    """
    text = text.strip()
    alone = _ALONE.match(text)
    if alone:
        return alone[1].upper(), text[alone.end(1) :].strip(" .,:;!*)]")
    found = _BRACKETED.match(text) or _MARKED.match(text)
    if found and (found[1].isupper() or text[0] in "([{<" or text[1:2] in ").:"):
        kept = text[found.end(1) : found.start(2)].strip()
        separator = kept if kept in ("/", "|", "&", "+", ",") else ""
        return found[1].upper(), f"{separator} {found[2]}".strip()
    spoken = _SPOKEN.match(text)
    if spoken and not (spoken[1] == "I" and re.match(r"I\s+(?!is\b)", text)):
        if spoken[1] == "A" and re.match(r"A\s+(?:for|it|i|as)\b", text):
            return None
        return spoken[1], spoken[2].strip()
    return None


def letter_stands(place: int, rest: str, choices: Sequence[str]) -> bool:
    """True if what follows an answer leaves it standing."""
    rest = rest.strip()
    if not rest.strip(" .,:;!*)"):
        return True
    said = masked(rest, choices, place)
    if HEDGE.search(said) or REFUSED.match(rest) or CORRECTION.search(f" {said}"):
        return False
    if rest.rstrip(" \"')").endswith("?") or ALTERNATIVE.match(rest):
        return False
    if _another_thing(rest, place, choices):
        return False
    spoken = _DENIED.sub(" ", CONTRAST.sub(" ", rest))
    mark = chr(65 + place)
    for pattern in (_OTHERS, _LISTED, _AND_OTHER):
        for found in pattern.finditer(spoken):
            other = found[1] or found[2]
            if other != mark and ord(other) - 65 < len(choices):
                return False
    return not _contradicted(place, spoken, choices)


_REMARK = re.compile(
    r"confiden|certain|sure|done|end|thank|correct|right|explanation|reason|note|final|answer|"
    r"clear|hope|as |see|yes|in |on |at |of |from |with ",
    re.I,
)
_WORDS_ONLY = re.compile(r"[^\W\d_]+(?:[ -][^\W\d_]+){0,2}")


def _another_thing(rest: str, place: int, choices: Sequence[str]) -> bool:
    """True if what follows an answer is just another thing, in a few words: "dog", then "cat"."""
    bare = rest.strip(" \t\n.,:;!*)")
    if equal(bare, choices) not in (None, place):
        return True
    if len(choices) > 1 or not _WORDS_ONLY.fullmatch(bare) or COPULA.search(f"{bare} "):
        return False
    shared = set(simplest(bare).split()) & set(simplest(choices[place]).split())
    return not shared and not _REMARK.search(bare)


def _contradicted(place: int, rest: str, choices: Sequence[str]) -> bool:
    """True if an explanation says of the thing what another option says of it."""
    texts = [simplest(choice).split() for choice in choices]
    own = " ".join(texts[place])
    for sentence in SENTENCE.split(EXPLANATION.sub("", rest)):
        if DENIAL.search(sentence):
            continue
        said = simplest(sentence)
        padded = f" {said} "
        if own and f" {own} " in padded:
            continue
        for at, words in enumerate(texts):
            joined = " ".join(words)
            if at == place or not joined:
                continue
            if len(words) >= 3 and len(texts[place]) >= 2:
                unique = set(words) - set(texts[place])
                mine = set(texts[place]) - set(words)
                spoken = set(said.split())
                if unique and unique <= spoken and not mine & spoken:
                    return True
            if any(
                after == joined or after.startswith(f"{joined} and ")
                for after in predicates_of(said)
            ):
                return True
    return False
