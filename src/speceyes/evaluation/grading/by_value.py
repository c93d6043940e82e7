"""The option whose value a text gives: a number, a time, a yes or no, or that nobody can tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from speceyes.evaluation.grading import polarity, quantity
from speceyes.evaluation.grading.cleaning import canonical, without_lead
from speceyes.evaluation.grading.counts import says_number
from speceyes.evaluation.grading.languages import HEDGE
from speceyes.evaluation.grading.letters import letter
from speceyes.evaluation.grading.moments import moment
from speceyes.evaluation.grading.moments import same as same_moment
from speceyes.evaluation.grading.normal_form import simplest
from speceyes.evaluation.grading.sameness import LAST, first_sentence
from speceyes.evaluation.grading.wording import all_forms


def by_value(found: quantity.Quantity | None, choices: Sequence[str]) -> int | None:
    """The one option of that number, where all options are numbers that differ."""
    if found is None:
        return None
    values = [quantity.of_gold(choice) for choice in choices]
    same = [i for i, value in enumerate(values) if value is not None and value.same(found)]
    if not same and all(value is not None for value in values):
        bare = [i for i, v in enumerate(values) if v is not None and v.value == found.value]
        same = bare if not found.unit else []
    return same[0] if len(same) == 1 else None


def by_kind(text: str, choices: Sequence[str]) -> int | None:
    """By yes and no, or by number, where the options are such."""
    last = LAST.match(text.strip(" .!"))
    if last:
        place = ord(last[2] or last[3]) - 65
        return place if by_kind(last[1], choices) == place < len(choices) else None
    found = by_polarity(text, choices)
    found = _by_moment(text, choices) if found is None else found
    found = _by_span(text, choices) if found is None else found
    found = _by_quantifier(text, choices) if found is None else found
    if found is None and quantity.none_there(without_lead(text)):
        found = by_value(quantity.of_gold("0"), choices)
    found = by_value(quantity.only(text), choices) if found is None else found
    return _by_count(text, choices) if found is None else found


def _by_count(text: str, choices: Sequence[str]) -> int | None:
    """The one option that a text counts up to, where all are numbers: "1, 2, 3. So three"."""
    values = [quantity.of_gold(choice) for choice in choices]
    same = [i for i, one in enumerate(values) if one and says_number(text, one)]
    return same[0] if len(same) == 1 and None not in values else None


def _by_moment(text: str, choices: Sequence[str]) -> int | None:
    """The one option that is the time or date of a text, where all are such."""
    hour = _HOUR.fullmatch(without_lead(text).strip(" ."))
    said = moment(f"{hour[1]}:00" if hour else text, dotted=True)
    when = [moment(choice) for choice in choices]
    same = [i for i, one in enumerate(when) if one and said and same_moment(one, said)]
    return same[0] if len(same) == 1 and all(when) else None


_QUANTIFIERS: Final = (
    (re.compile(r"both(?: of (?:them|these|those))?"), re.compile(r"^both\b|\band\b")),
    (re.compile(r"neither(?: of (?:them|these|those|the two))?|none(?: of .{1,20})?"),
     re.compile(r"^(?:neither|none|no )")),
    (re.compile(r"all(?: of .{1,20})?"), re.compile(r"^all\b")),
)  # fmt: skip


def _by_quantifier(text: str, choices: Sequence[str]) -> int | None:
    """The one option that is meant by "both", "neither" or "all of them"."""
    said = simplest(without_lead(text))
    for word, meant in _QUANTIFIERS:
        if word.fullmatch(said):
            same = [i for i, choice in enumerate(choices) if meant.search(simplest(choice))]
            return same[0] if len(same) == 1 else None
    return None


_HOUR = re.compile(r"(?:(?:just |exactly )?(?:at )?)?(1?\d)", re.I)


def _by_span(text: str, choices: Sequence[str]) -> int | None:
    """The one option that is the range of a text."""
    same = [i for i, c in enumerate(choices) if quantity.same_span(without_lead(text), c)]
    if not same:
        return quantity.within(without_lead(text), choices)
    return same[0] if len(same) == 1 else None


def by_polarity(text: str, choices: Sequence[str]) -> int | None:
    """The option that says yes, or the one that says no, as the text does."""
    said = [polarity.says(choice) for choice in choices]
    if said.count(True) != 1 or said.count(False) != 1:
        return None
    marked = letter(text.strip())
    if marked is not None and ord(marked[0]) - 65 < len(choices):
        return None
    if not _YES.match(choices[said.index(True)]):
        return None
    answer = polarity.answered(text)
    last = LAST.match(text.strip(" .!"))
    if answer is None or (last and ord(last[2] or last[3]) - 65 != said.index(answer)):
        return None
    return said.index(answer)


_YES = re.compile(r"\W*(?:yes|true|correct|ja|oui|s[ií]|sim|да|是|有|对|はい|네|예)", re.I)


def by_doubt(text: str, choices: Sequence[str]) -> int | None:
    """The option that says that it can't be told, where the answer says just that."""
    forms = {_SPEAKER.sub("", form) for form in all_forms(first_sentence(text)[0])}
    unsure = [i for i, choice in enumerate(choices) if HEDGE.search(canonical(choice))]
    same = [i for i in unsure if all_forms(choices[i]) & forms]
    if not same and _CANNOT_TELL.fullmatch(canonical(text).strip(" .!")):
        same = [i for i in unsure if _UNKNOWN.search(canonical(choices[i]))]
    return same[0] if len(same) == 1 else None


_CANNOT_TELL = re.compile(
    r"(?:sorry,? |i'm sorry,? (?:but )?)?(?:i |we |it |this |that |the answer |the \w+ )?"
    r"(?:(?:really |simply |just )?(?:can't|cannot|can not|couldn't)(?: be)? (?:tell|say|know|see|"
    r"determine|judge|answer|identify|make out)(?:ed|d|n)?|(?:don't|do not) know|"
    r"(?:is |am |'m )?(?:not sure|unsure|not certain|unclear|unknown|not clear|"
    r"impossible to (?:say|tell|know|determine))|"
    r"(?:there is |there's )?(?:not enough|insufficient) (?:information|context|detail))"
    r"(?: (?:from|in|by|with|based on|that|this|it|the|image|picture|photo)){0,5}",
    re.I,
)
"""An answer that says of everything that it can't be told."""
_UNKNOWN = re.compile(
    r"can't|cannot|can not|not (?:sure|enough|clear|known|certain)|unknown|unclear|unsure|"
    r"insufficient|uncertain|(?:don't|do not) know|impossible|undetermin|indetermin|not determin",
    re.I,
)
_SPEAKER = re.compile(r"^(?:it|this|that|answer|i'm|i am|we|i)\s+(?:is\s+)?")
