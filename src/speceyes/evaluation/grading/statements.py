"""Statements held against the question that they answer: "It is blue" and "Is it red?"."""

from __future__ import annotations

import re
from typing import Final

from speceyes.evaluation.grading.normal_form import simplest

_CLASSES: Final = tuple(
    frozenset(words.split())
    for words in (
        "red blue green yellow orange purple violet pink brown black white gray silver gold beige "
        "turquoise cyan magenta",
        "left right",
        "above below",
        "top bottom",
        "inside outside",
        "open closed",
        "wooden metal plastic glass",
        "round square rectangular triangular oval",
        "circle square rectangle triangle star",
        "man woman",
        "boy girl",
        "day night",
        "indoors outdoors",
        "big small",
        "large small",
        "full empty",
        "sunny rainy cloudy snowy",
        "cat dog horse cow sheep bird elephant bear zebra giraffe",
        "car bus truck bicycle motorcycle train boat airplane",
        "apple banana pear orange pizza cake sandwich",
    )
)
"""Words that exclude each other of one thing."""
_NUMBER = re.compile(r"\d+")
_VAGUE = re.compile(r"^(?:it|this|that|they|these|those|there|here|he|she|i|we)$")
_EMPTY: Final = frozenset(
    "is are was were am be been it it's this that these those they there there's here he she i we "
    "you its their his her the a an in on at of to from with by for and or any some one image "
    "picture photo photograph scene does do did has have had can could see seen look looks like "
    "visible shown present show shows contain contains what which clearly so as not no n't isn't "
    "aren't don't doesn't not".split()
)


def repeats(text: str, question: str) -> bool:
    """True if a statement says of the thing what was asked, or nothing that speaks against it.

    Example:
        >>> repeats("There is a brown dog.", "Is there a dog?"), repeats("It is blue", "Is it red?")
        (True, False)
    """
    said, asked = _content(text), _content(question)
    if _excluded(said, asked):
        return False
    vague = simplest(text).split()[:1]
    return not said or not asked or bool(said & asked) or not (vague and _VAGUE.match(vague[0]))


def names(text: str, question: str) -> bool:
    """True if a phrase names what was asked about, and nothing that speaks against it.

    Example:
        >>> names("A brown dog.", "Is there a dog?"), names("A car.", "Is there a dog?")
        (True, False)
    """
    said, asked = _content(text), _content(question)
    return bool(said & asked) and not _excluded(said, asked)


def other(text: str, question: str, said: bool) -> bool | None:
    """No, where a statement says a thing that excludes what was asked; else None.

    Args:
        text: The statement.
        question: What was asked.
        said: The statement isn't negated.
    """
    return False if said and _excluded(_content(text), _content(question)) else None


def _content(text: str) -> set[str]:
    words = set(re.findall(r"[^\W_]+(?:'[^\W_]+)?", simplest(text))) - _EMPTY
    return {word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words}


def _excluded(said: set[str], asked: set[str]) -> bool:
    """True if a class of words has one in each, and none in both."""
    for words in _CLASSES:
        mine, its = said & words, asked & words
        if mine and its and not mine & its:
            return True
    mine, its = ({w for w in words if _NUMBER.fullmatch(w)} for words in (said, asked))
    return bool(mine and its and not mine & its)
