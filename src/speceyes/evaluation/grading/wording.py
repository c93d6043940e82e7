"""The option that a text names in its own words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from speceyes.evaluation.grading.cleaning import canonical, without_lead
from speceyes.evaluation.grading.languages import (
    CONTRAST,
    CORRECT,
    DENIAL,
    EXPLANATION,
    FOREIGN_ARTICLES,
    PLACE,
)
from speceyes.evaluation.grading.normal_form import simplest
from speceyes.evaluation.grading.partial import (
    AND_CLAUSE,
    AROUND,
    ONE,
    POSITION,
    PREPOSITIONS,
    in_other_words,
    placed_so,
)
from speceyes.evaluation.grading.sameness import LAST, equal

COPULA = re.compile(
    r"\b(?:is|are|was|were|looks(?: like)?|appears(?: to be)?|seems(?: to be)?|be|it's|they're|"
    r"that's|there's|has|have|points?(?: to)?|faces?|indicates?|equals?|shows?|displays?|"
    r"depicts?|he's|she's|says|reads|spells?(?: out)?|states?|contains?|see|"
    r"ist|sind|zeigt|gibt|est|sont|y a|es|son|está|están|hay|è|sono|é|são|zijn|"
    r"это)(?!\w)[\s:]*|c'est\s+|(?:是|は|が|은|는|이|가)\s*"
)
_DOING = re.compile(
    r"^(?:clearly|definitely|just|simply|only|actually|indeed|obviously|currently|located|"
    r"situated|positioned|placed|standing|sitting|lying|parked|colou?red|painted|"
    r"taken(?= (?:in|at|on|inside) )|"
    r"made (?:out )?of|"
    r"called|named|holding|wearing|riding|carrying|eating|using|written|marked|"
    r"labell?ed|"
    r"(?:the )?(?:words?|text|phrase|letters|digits|name)(?= \w))\s+"
)
_IS_COLOUR = re.compile(
    r"^(.+?)\s+(?:is|are|would be|must be) (?:the |its |their )(?:correct |right |best |main )?"
    r"(?:answer|option|choice|colou?r|one|shape|material|number|object|animal|name|word)\b[^.]*$"
    r"|^(.+?)\s+(?:is|are) (?:written|printed|painted|displayed)\b(?: (?:on|in|at) .{1,40})?$",
    re.I,
)
_LONGEST: Final = 400
"""Characters of a sentence that may name an option in words."""


def by_words(text: str, choices: Sequence[str]) -> int | None:
    """The option that a sentence is: "The car is blue", "blue (B)", "Blue is right"."""
    text = text.strip(" \t\n.,:;!")
    if not text or len(text) > _LONGEST:
        return None
    found = equal(text, choices)
    if found is not None:
        return found
    last = LAST.match(text)
    if last:
        mark = last[2] or last[3]
        place = ord(mark) - 65
        named_too = by_words(last[1], choices)
        return place if named_too == place and place < len(choices) else None
    shorter = CONTRAST.sub("", EXPLANATION.sub("", text)).strip(" .,:;!(-–—")
    for cut in (shorter, PLACE.sub("", shorter)):
        if cut and cut != text:
            found = by_words(cut, choices)
            if found is not None:
                return found
    colour = _IS_COLOUR.match(text)
    if colour:
        found = equal(colour[1] or colour[2], choices)
        if found is not None:
            return found
    correct = re.search(r"\s(?:is|ist|est|es|è|é)\s|が|是", text)
    if correct:
        head, tail = text[: correct.start()], text[correct.start() :]
        if (match := CORRECT.match(tail)) and match.end() == len(tail):
            found = equal(without_lead(head), choices)
            if found is not None:
                return found
    found = _by_forms(text, choices)
    return _by_colour(text, choices) if found is None else found


_COLOURS: Final = frozenset("red blue green yellow purple pink brown black white gray".split())
_COLOURED = re.compile(r"(?:(?:a|an|the|it(?:'s| is) an?) )([a-z]+) ([a-z]+)", re.I)


def _by_colour(text: str, choices: Sequence[str]) -> int | None:
    """The one colour of a thing, where the options are colours: "a blue car"."""
    found = _COLOURED.fullmatch(canonical(text).strip(" ."))
    plainly = [simplest(choice) for choice in choices]
    if found is None or not _COLOURS.issuperset(plainly):
        return None
    colour, thing = simplest(found[1]), simplest(found[2])
    if colour not in plainly or thing in _COLOURS or thing in ("one", "ish", "and", "or"):
        return None
    return plainly.index(colour)


def _by_forms(text: str, choices: Sequence[str]) -> int | None:
    forms = all_forms(text)
    same = [i for i, choice in enumerate(choices) if simplest(choice) in forms]
    if not same:
        related = {word for form in forms for word in _relations(form)}
        related |= {_side(form) for form in forms} - {""}
        same = [i for i, choice in enumerate(choices) if simplest(choice) in related]
    if not same:
        short = {POSITION.sub("", form) for form in forms if len(form.split()) <= 4}
        same = [
            i
            for i, choice in enumerate(choices)
            if short - {""} & short and (all_forms(choice) & (forms | short) - {""})
        ]
    if not same:
        part = in_other_words(text, forms, choices)
        same = [] if part is None else [part]
    if len(same) == 1:
        return None if _other_predicate(text, same[0], choices) else same[0]
    if not same:
        bare = _without_article(simplest(text))
        if bare != simplest(text):
            again = [
                i for i, c in enumerate(choices) if _without_article(simplest(c)) == bare and bare
            ]
            return again[0] if len(again) == 1 else None
    return None


_MEASURED = re.compile("^一?(?:只|個|个|辆|条|张|把|位|名|头|匹|棵|台|本)(?=.)")


def _relations(text: str) -> set[str]:
    """The relation that a phrase about a place begins with: "next to the table" is "next to"."""
    return {
        word
        for word in PREPOSITIONS
        if text.startswith(f"{word} ")
        and len(text[len(word) :].split()) <= 3
        and not {"or", "and"} & set(text.split())
    }


def _side(text: str) -> str:
    """The side that a phrase about a place names: "left of bench" is "left"; else nothing."""
    found = _SIDED.fullmatch(placed_so(text))
    return found[1] if found else ""


_SIDED = re.compile(
    r"(?:(?:\w+ ){1,3}(?:sits|stands|lies|hangs|rests|walks|runs|drives) )?"
    r"(left|right) of (?!.*\b(?:left|right|or|and)\b)\S.{0,40}"
)


def _without_article(text: str) -> str:
    counted = _MEASURED.sub("", text)
    if counted not in ("", text):
        return counted
    first, _, rest = text.partition(" ")
    return rest if first in FOREIGN_ARTICLES and rest else text


def all_forms(text: str) -> set[str]:
    """The plainest form of a text, whole and as what follows "is": "collar is red" and "red"."""
    text = without_lead(PLACE.sub("", text.strip(" .,:;!")))
    whole = simplest(ONE.sub("", text) or text)
    subject = COPULA.search(whole)
    forms = {whole, POSITION.sub("", whole), POSITION.sub("", _DOING.sub("", whole))}
    if subject is not None and not DENIAL.search(whole[: subject.start()]):
        for after in predicates_of(whole)[-1:]:
            forms |= {after, POSITION.sub("", after), _without_article(after)}
            forms |= {_without_article(POSITION.sub("", after)), AROUND.sub("", after)}
    return forms - {""}


def predicates_of(plainly: str) -> list[str]:
    """The predicates of a text in its plainest form: the words after each "is"."""
    found = []
    for match in COPULA.finditer(plainly):
        after = plainly[match.end() :].strip()
        while (shorter := _DOING.sub("", after)) not in ("", after):
            after = shorter
        if after:
            found.append(POSITION.sub("", after) if after not in ("the", "a") else after)
            if found[-1] != after:
                found.append(after)
    return found


def _other_predicate(text: str, place: int, choices: Sequence[str]) -> bool:
    """True if another clause of the text says another option, or says anything at all of another
    thing: "The car is red and the truck is blue".
    """
    clauses = [part for part in AND_CLAUSE.split(text) if COPULA.search(simplest(part))]
    if len(clauses) < 2:
        return False
    if len(choices) == 1:
        return True
    for clause in clauses:
        others = {simplest(c) for i, c in enumerate(choices) if i != place}
        if others & all_forms(clause):
            return True
    return False
