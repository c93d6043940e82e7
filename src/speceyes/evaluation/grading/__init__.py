r"""Grading short answers by rules, without a model.

A right answer is data: it is looked up among the options, or read as what it is (yes or no, a
number with its unit, a letter, text), and never passed through the rules for models' answers. An
answer is right where it names that and nothing else. What people and models wrap around it is
taken off: "(A)", "A. red", "The answer is red.", "\boxed{3}", "It is on the left",
{"answer": "red"}, reasoning that ends in "Answer: B", an explanation after the answer. An answer
that hedges ("red or blue", "about 3", "maybe"), wherever the hedge stands, or denies ("not red",
"(B) is wrong"), or says two things, is wrong.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Final

from speceyes.evaluation.grading import (
    contrasts,
    corrections,
    counts,
    letters,
    options,
    partial,
    polarity,
    quantity,
    sameness,
    wording,
)
from speceyes.evaluation.grading.cleaning import (
    Claim,
    claims,
    plain,
    strip_wrapping,
    without_lead,
)
from speceyes.evaluation.grading.cleaning import unwrap as unwrap
from speceyes.evaluation.grading.languages import DENIAL, HEDGE
from speceyes.evaluation.grading.moments import moment
from speceyes.evaluation.grading.moments import same as same_moment
from speceyes.evaluation.grading.normal_form import normalise as normalise
from speceyes.evaluation.grading.normal_form import simplest

__all__ = ["is_correct", "normalise", "same_answer", "unwrap"]

_FORMULA = re.compile(r"[\d^=<>]")
_SINGLE = re.compile(r"(?<=\b[a-z]) (?=[a-z]\b)")
_CODE = re.compile(r"(?=[a-z]*\d)(?=\d*[a-z])[a-z\d]{2,12}")
_ALPHABET = tuple("" for _ in range(26))


def is_correct(
    answer: str | None, gold: str, choices: Sequence[str] = (), *, question: str = ""
) -> bool:
    """True if a short answer is right.

    Args:
        answer: What was answered; None (no answer) is wrong.
        gold: The right answer: text, a number with or without a unit, yes or no, an option's
            letter or its text.
        choices: The options, without letters, in the order in which they were shown.
        question: What was asked. With it "It is blue" is no to "Is it red?"; without it a sentence
            says yes to whatever was asked.

    Example:
        >>> is_correct("The collar is RED.", "red")
        True
        >>> is_correct("(B)", "blue", choices=("red", "blue"))
        True
        >>> is_correct("red or blue", "red"), is_correct("about 3", "3")
        (False, False)
    """
    if answer is None or not answer.strip():
        return False
    if choices:
        wanted = options.of_gold(gold, choices)
        return wanted is not None and options.named(answer, choices) == wanted
    if plain(answer) == plain(gold):
        return True
    text = strip_wrapping(answer)
    found = claims(text)
    verdicts = [_right(claim, gold, question) for claim in found]
    if not verdicts[-1]:
        return False
    # An earlier conclusion that differs has to be taken back before the last one.
    taken_back = found[-1].corrects
    for claim, right in zip(reversed(found[:-1]), reversed(verdicts[:-1]), strict=True):
        if not right and not taken_back and _same_type(claim, gold):
            return False
        taken_back = taken_back or claim.corrects
    return True


def same_answer(one: str | None, other: str | None, choices: Sequence[str] = ()) -> bool:
    """True if two answers of models say the same, where neither is known to be right.

    Args:
        one: An answer; None says nothing, and is the same as nothing.
        other: Another answer.
        choices: The options, in the order in which they were shown.

    Example:
        >>> same_answer("The answer is B.", "blue", ("red", "blue"))
        True
        >>> same_answer("It is red.", "Red")
        True
    """
    if one is None or other is None or not one.strip() or not other.strip():
        return False
    if choices:
        found = options.named(one, choices), options.named(other, choices)
        if found != (None, None):
            return found[0] == found[1]
    first, second = unwrap(one), unwrap(other)
    if simplest(first) == simplest(second):
        return True
    return not choices and (is_correct(one, second) or is_correct(other, first))


def _right(claim: Claim, gold: str, question: str) -> bool:
    """True if a claim says the right answer, by what kind of thing that is."""
    claim = dataclasses.replace(claim, text=contrasts.rather(claim.text))
    if _stated(claim, gold, question):
        return True
    left = contrasts.without_contrast(claim.text, preferred=claim.picked)
    if left == claim.text.strip() or HEDGE.search(contrasts.said(claim.text, left)):
        return False
    return _stated(dataclasses.replace(claim, text=left), gold, question)


def _stated(claim: Claim, gold: str, question: str) -> bool:
    """True if a claim says the right answer, with nothing that it is held against."""
    if plain(claim.text) == plain(gold):
        return not (claim.before and HEDGE.search(claim.before))
    if claim.before and (HEDGE.search(claim.before) or options.turned_round(claim.same)):
        return False
    last = corrections.last_word(claim.text)
    bare = plain(gold).casefold()
    if bare in _TRUTHS:
        said = None if last is None else polarity.own_word(last)
        said = polarity.answered(claim.text, question) if said is None else said
        return said is _TRUTHS[bare]
    if _says(claim.text, gold):
        return True
    return last is not None and not HEDGE.search(claim.text) and _says(last, gold)


_TRUTHS: Final = {"yes": True, "true": True, "no": False, "false": False}


def _says(text: str, gold: str) -> bool:
    """True if a text says what isn't yes or no."""
    ranged = quantity.same_span(without_lead(text), gold)
    if ranged is not None:
        return ranged
    when = moment(gold)
    if when is not None:
        told = moment(without_lead(text), dotted=True) or moment(text, dotted=True)
        if told is not None:
            return same_moment(when, told)
        if quantity.only(text) is not None:
            return False
    wanted = None if when is not None else quantity.of_gold(gold)
    if wanted is None and plain(gold).casefold() == "none" and quantity.only(text) is not None:
        wanted = quantity.of_gold("0")
    if wanted is not None:
        return not HEDGE.search(text) and counts.says_number(options.opening(text), wanted)
    lettered = letters.LETTER.fullmatch(gold.strip())
    if lettered:
        return options.resolve(options.opening(text), _ALPHABET) == ord(lettered[1].upper()) - 65
    said = options.opening(text)
    if options.resolve(said, _Only(gold)) == 0:
        return True
    if text.rstrip(" \"')").endswith("?"):
        return False
    if _listed(said) == _listed(gold) or _squeezed(said) == _squeezed(gold):
        return True
    if HEDGE.search(said) or DENIAL.search(said) or partial.AND_CLAUSE.search(said):
        return False
    predicates = wording.predicates_of(simplest(said))[-1:]
    return any(_squeezed(predicate) == _squeezed(gold) for predicate in predicates)


def _listed(text: str) -> list[str]:
    """The parts of a list in their plainest form: "red, blue" is "red and blue"."""
    parts = re.split(r"\s*[,;/]\s*(?:and\s+)?|\s+(?:and|&)\s+|\n[\s•*-]*", text.strip(" .-•*\n"))
    return [simplest(part) for part in parts if part.strip()] if len(parts) > 1 else [text]


def _squeezed(text: str) -> str:
    """A text without apostrophes; a code, or a word of some length, without spaces either."""
    bare = _SINGLE.sub("", simplest(text).replace("'", "")).removeprefix("pair of ")
    joined = re.sub(r"[\s-]", "", bare)
    return joined if _CODE.fullmatch(joined) or len(joined) > 3 else bare


def _same_type(claim: Claim, gold: str) -> bool:
    """True if a claim that isn't right says another thing of the same kind."""
    text = options.opening(claim.text)
    if quantity.of_gold(gold) is not None:
        return quantity.only(sameness.first_sentence(text)[0]) is not None
    if plain(gold).casefold() in _TRUTHS:
        return polarity.answered(text) is not None
    said = simplest(sameness.first_sentence(text)[0])
    if letters.LETTER.fullmatch(gold.strip()):
        return letters.letter(said) is not None
    return bool(said) and bool(_FORMULA.search(said)) <= bool(_FORMULA.search(gold))


class _Only(tuple[str, ...]):
    """A single right text as if it were the only option; letters mean nothing then."""

    __slots__ = ()

    def __new__(cls, gold: str) -> _Only:
        return super().__new__(cls, (gold,))
