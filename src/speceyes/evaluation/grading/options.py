"""Multiple choice: the option that a right answer is, and the one that an answer names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from speceyes.evaluation.grading import polarity, quantity
from speceyes.evaluation.grading.by_value import by_doubt, by_kind, by_polarity, by_value
from speceyes.evaluation.grading.cleaning import Claim, claims, strip_wrapping, without_lead
from speceyes.evaluation.grading.contrasts import rather, said, without_contrast
from speceyes.evaluation.grading.corrections import last_word, ruled_out
from speceyes.evaluation.grading.languages import BUT, CORRECT, CORRECTION, DENIAL, HEDGE, REFUSED
from speceyes.evaluation.grading.letters import LETTER, OWN_LETTER, letter, letter_stands
from speceyes.evaluation.grading.normal_form import simplest
from speceyes.evaluation.grading.partial import by_part
from speceyes.evaluation.grading.sameness import equal, first_sentence, masked
from speceyes.evaluation.grading.wording import by_words

_ENDING = re.compile(
    r"(?:^|[\s,.;:])(?:(?:so|thus|hence|therefore|also|donc|quindi|→|=>|⇒|所以|因此)[,:]?\s*"
    r"(?:it(?:'s| is| must be) )?|(?:is|leaves|leads to|matches|be)\s+(?:answer |option |"
    r"choice )?)[(\[]?([A-Z])[)\]]?\s*[.!。]*$",
    re.I,
)
_ONLY = re.compile(
    r"(?i:\bonly\s+(?:option\s+|choice\s+|answer\s+)?)[(\[]?([A-Z])[)\]]?\s+(?i:matches|fits|works|"
    r"remains|applies|agrees|is (?:left|right|correct|true|possible|consistent))\b[^.\n]{0,40}\.?$"
)
_IT_IS = re.compile(r"^\s*(?:it|this|that)(?:'s| is)?\s", re.I)
_INSTEAD = re.compile(
    r"^[\s,;(–—-]*(?:(?:and|but) )?(?:not|rather than|instead of)\s+([^.\n]{1,60}?)[.\s]*$", re.I
)
_PLACES = ("first", "second", "third", "fourth", "fifth", "sixth")
_ORDINALS = (*_PLACES, "1st", "2nd", "3rd", "4th", "5th", "6th")
_PLACED = re.compile(rf"\b(?:{'|'.join(_ORDINALS)}|last|[1-6])\b", re.I)
_ORDINAL = re.compile(
    rf"(?:(?:it is|it's|i choose|the answer is) )?(?:the )?(?:({'|'.join(_ORDINALS)}|last) "
    r"(?:option|choice|answer|one)|(?:option|choice|answer) (?:number |no\. |#)?([1-6]))"
    r"(?: is (?:the )?(?:correct|right)(?: one| answer)?)?[.!]*",
    re.I,
)


def of_gold(gold: str, choices: Sequence[str]) -> int | None:
    """The option that a right answer is: by its text, by its letter, or by its value.

    The right answer is data, so that nothing is taken off it but spaces, brackets and marks.

    Example:
        >>> of_gold("A. red", ("B. blue", "A. red")), of_gold("(B)", ("red", "blue"))
        (1, 1)
    """
    found = equal(gold, choices)
    if found is not None:
        return found
    alone = LETTER.fullmatch(gold.strip())
    if alone:
        place = ord(alone[1].upper()) - 65
        return place if place < len(choices) else None
    lettered = OWN_LETTER.match(gold)
    if lettered:
        place = ord(lettered[1] or lettered[2]) - 65
        if equal(gold[lettered.end() :], choices) == place:
            return place
    return by_value(quantity.of_gold(gold), choices)


def named(answer: str, choices: Sequence[str]) -> int | None:
    """The option that an answer names; None where it names none or several, hedges or denies.

    Args:
        answer: What was answered.
        choices: The options, in the order in which they were lettered.

    Example:
        >>> named("The car is blue, so the answer is B.", ("red", "blue"))
        1
        >>> named("maybe B", ("red", "blue")) is None
        True
    """
    whole = equal(answer, choices)
    if whole is not None:
        return whole
    text = strip_wrapping(answer)
    whole = equal(text, choices)
    if whole is not None:
        return whole
    placed = _placed(text, choices)
    if placed is not None:
        return placed
    found = claims(text)
    found = [claim for claim in found if not _lists_all(claim.text, choices)] or found
    last = _claimed(found[-1], choices)
    if last is None and len(found) > 1:
        # A formula or a remark that looks like a conclusion says nothing of the options.
        return None
    taken_back = found[-1].corrects
    for earlier in reversed(found[:-1]):
        other = _claimed(earlier, choices)
        if other not in (None, last) and not taken_back:
            return None
        taken_back = taken_back or earlier.corrects
    return last


def _placed(text: str, choices: Sequence[str]) -> int | None:
    """The option that is named by its place: "the second option", "option 2"."""
    found = _ORDINAL.fullmatch(text.strip())
    if found is None or any(_PLACED.search(choice) for choice in choices):
        return None
    if found[2]:
        place = int(found[2]) - 1
    elif found[1].casefold() == "last":
        place = len(choices) - 1
    else:
        place = _ORDINALS.index(found[1].casefold()) % len(_PLACES)
    return place if place < len(choices) else None


def _lists_all(text: str, choices: Sequence[str]) -> bool:
    """True if a text repeats the options with their letters, all of them, in order."""
    listed = [rf"{chr(65 + i)}\s?[.):]\s*{re.escape(one)}" for i, one in enumerate(choices)]
    return len(choices) > 1 and bool(re.search(r"\b.{0,40}?\b".join(listed), text, re.I | re.S))


def _claimed(claim: Claim, choices: Sequence[str]) -> int | None:
    claim = replace(claim, text=rather(claim.text))
    text = opening(claim.text)
    if HEDGE.search(masked(claim.before, choices)) or turned_round(claim.same):
        return None
    found = resolve(text, choices)
    found = by_polarity(claim.text, choices) if found is None else found
    found = _lone_letter(text, choices) if found is None else found
    found = _after_all(text, choices) if found is None else found
    return _contrasted(claim, choices) if found is None else found


_LONE = re.compile(r"(?<![\w'’.])[(\[]?([A-HJ-Z])[)\]]?(?![\w'’])")
_NO_ANSWER = re.compile(
    r"\b(?:than|like|unlike|similar|near|next|and|or|vitamin|grade|point|points? [a-z] to|between|"
    r"but|from|with|versus|vs|if|only)\b|[/&+,?]\s*[(\[]?[A-Z]\b",
    re.I,
)
_LEADS_TO = re.compile(
    r"\b(?:is|are|was|be|it|es|est|soit|ist|sei|è|é|sia|seja|sea|la|это|points? to|leads? to)\s+$",
    re.I,
)


def _lone_letter(text: str, choices: Sequence[str]) -> int | None:
    """The option of the only letter of a short sentence that ends in it: "Creo que es la B"."""
    text = text.strip(" .!。")
    found = list(_LONE.finditer(text))
    if len(text) > 60 or len(found) != 1 or found[0].end() != len(text) or "\n" in text:
        return None
    before = text[: found[0].start()]
    place = ord(found[0][1]) - 65
    known = (
        1 < len(choices) > place and _LEADS_TO.search(before) and not re.search(r"[.!?;]", before)
    )
    said = masked(before, choices)
    if not known or DENIAL.search(said) or HEDGE.search(said) or CORRECTION.search(f" {said}"):
        return None
    if _NO_ANSWER.search(said) or any(
        by_words(part, choices) not in (None, place) for part in re.split(r"[,:]", before) if part
    ):
        return None
    return place


def _contrasted(claim: Claim, choices: Sequence[str]) -> int | None:
    """The option that is left where an answer says what it isn't too."""
    left = without_contrast(claim.text, preferred=claim.picked)
    if left == claim.text.strip() or HEDGE.search(masked(said(claim.text, left), choices)):
        return None
    found = resolve(opening(left), choices)
    return by_polarity(left, choices) if found is None else found


def _after_all(text: str, choices: Sequence[str]) -> int | None:
    """The option that stands at the end of an answer that takes something back, or rules others
    out, before it.
    """
    if HEDGE.search(masked(text, choices)) or text.rstrip(" \"')").endswith("?"):
        return None
    last = last_word(text)
    listed = {found[1]: found[2] for found in _VERDICTS.finditer(text)}
    right = [mark for mark, verdict in listed.items() if _AGREES.fullmatch(verdict)]
    if len(listed) > 1 and len(right) == 1 and ord(right[0]) - 65 < len(choices):
        return ord(right[0]) - 65
    kept, out = ([last], []) if last is not None else ruled_out(text) or ([], [])
    found = {resolve(opening(clause), choices) for clause in kept}
    if any(resolve(opening(clause), choices) is not None for clause in out):
        return None  # it is an option that sounds like a denial
    return found.pop() if len(found) == 1 else None


_CROSSED = re.compile(r"\W*(?:no|false|incorrect|wrong)\s*(?:[.,;)\n]|$)|\W*[✗✘]", re.I)
"""After a letter: that it isn't the one."""
_AGREES = re.compile("yes|true|correct|right|[✓✔]", re.I)
_VERDICTS = re.compile(
    r"(?<!\w)[(\[]?([A-Z])[)\].]?\s*[:(?–—-]\s*((?i:yes|true|correct|right|no|false|incorrect|"
    r"wrong)|"
    r"[✓✔✗✘])(?!\w)"
)
"""One verdict for each letter: "A: no. B: yes"."""


def turned_round(text: str) -> bool:
    """True if the words before "the answer is" turn it round: "I don't think that"."""
    clause = re.split(r"[,;:]|\bso\b|\btherefore\b|\bthus\b|\bhence\b", text)[-1]
    return bool(DENIAL.search(clause))


def opening(text: str) -> str:
    """A claim without what leads up to it, and without what it is said not to be first."""
    but = BUT.match(text.strip())
    return without_lead(but["rest"] if but else text)


def resolve(text: str, choices: Sequence[str]) -> int | None:
    """The option that a claim names, which begins with the answer."""
    whole = equal(text, choices)
    if whole is not None:
        return whole
    if text.rstrip(" \"')").endswith("?"):
        return None
    lettered = letter(text)
    if lettered is not None:
        found = _lettered(*lettered, choices)
        outside = ord(lettered[0]) - 65 >= len(choices) and not lettered[1].strip()
        if found is not None or not outside:
            return found
        found = by_part({simplest(text)}, choices)
        starts = [choice.strip()[:1].upper() for choice in choices]
        once = found is None and len(choices) > 1 and starts.count(lettered[0]) == 1
        return starts.index(lettered[0]) if once else found
    said = masked(text, choices)
    if HEDGE.search(said):
        return by_doubt(text, choices)
    if _ASKS.match(text):
        return None
    head, rest = first_sentence(text)
    found = by_words(head, choices)
    if found is None and rest:
        found = by_words(text, choices)
        rest = "" if found is not None else rest
    if found is not None:
        return found if letter_stands(found, rest, choices) else None
    ending = _ENDING.search(text)
    taken_back = CORRECTION.search(text) or (ending and turned_round(text[: ending.start()]))
    if ending and ord(ending[1].upper()) - 65 < len(choices) and not taken_back:
        return ord(ending[1].upper()) - 65
    only = _ONLY.search(text)
    if (
        only
        and ord(only[1]) - 65 < len(choices)
        and not (
            taken_back or DENIAL.search(re.split(r"[.,;]", text[: only.end()].rstrip("."))[-1])
        )
    ):
        return ord(only[1]) - 65
    found = by_kind(text, choices)
    return by_doubt(text, choices) if found is None else found


_ASKS = re.compile(r"(?:which|what|who|where|when|why|how)\b", re.I)


def _lettered(mark: str, rest: str, choices: Sequence[str]) -> int | None:
    """The option of that letter; None where what follows names another, hedges or denies."""
    place = ord(mark) - 65
    if place >= len(choices):
        return None
    if not rest.strip(" .,:;!*"):
        return place
    instead = _INSTEAD.match(rest)
    if instead:
        denied = instead[1] if "(" in instead[1] else instead[1].rstrip(")")
        other = resolve(opening(denied), choices)
        if other not in (None, place):
            return place
    correct = CORRECT.match(rest)
    if correct and not REFUSED.match(rest):
        rest = rest[correct.end() :]
    same = equal(rest, choices)
    if same is not None:
        return place if same == place else None
    if _CROSSED.match(rest) and polarity.own_word(choices[place]) is not False:
        return None
    named_too = by_words(first_sentence(opening(rest))[0], choices)
    counted = by_value(quantity.only(first_sentence(rest)[0]), choices)
    if any(other not in (None, place) for other in (named_too, counted)):
        return None
    return place if letter_stands(place, rest, choices) else None
