"""An option that is named by a part of it, or in other words: "S" for "S (small)".

The grader asks here only after no option is what an answer says word for word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from speceyes.evaluation.grading.cleaning import canonical, without_lead
from speceyes.evaluation.grading.languages import DENIAL
from speceyes.evaluation.grading.normal_form import simplest

POSITION = re.compile(r"^(?:(?:on|to|in|at|of|from|by|near|towards?|a|an|the)\s+)+")
ONE = re.compile(
    r"^(?:the )?ones?\s+(?=(?:on|in|at|to|with)\b)|\s+ones?$|\s+of (?:them|these|those|"
    r"the (?:two|above))$|\s+to me$|[\s-]+(?:in )?colou?r(?:ed)?$|[- ]sized$|"
    r"^(?:an? |the )?(?:slice|piece|bowl|pair|month|city|town) of\s+|"
    r"[- ](?:hand[- ])?(?:side|corner|area|part|portion|section)$",
    re.I,
)
AND_CLAUSE = re.compile(r"\b(?:and|but|while|whereas|or)\b|[,;]")
AROUND = re.compile(
    r"\s+(?:in|on|at|from|near)\s+(?:his|her|their|its|left|right|front|back|middle|center|"
    r"background|foreground|corner|hand|top|bottom|image|picture)\b.*$"
)
PREPOSITIONS: Final = frozenset(
    (
        "on", "in", "under", "over", "above", "below", "beneath", "behind", "beside", "near",
        "inside", "outside", "between", "on top of", "next to", "in front of", "left of",
        "right of", "to left of", "to right of", "against", "around",
    )
)  # fmt: skip


def in_other_words(text: str, forms: set[str], choices: Sequence[str]) -> int | None:
    """The one option that a text names by a part, in another tense, by a relation or as an object.

    Args:
        text: A sentence.
        forms: Its plainest forms.
        choices: The options.

    Example:
        >>> in_other_words("He rides a bike", set(), ("He is riding a bike", "He is walking"))
        0
    """
    found = by_part(forms, choices)
    found = _by_gist(text, choices) if found is None else found
    found = _by_own_words(text, choices) if found is None else found
    found = _by_synonym(forms, choices) if found is None else found
    found = _by_activity(text, choices) if found is None else found
    return _by_object(text, choices) if found is None else found


_PARTED = re.compile(r"([^()]+?)\s*(?:\(([^()]+)\)|(?::|\s[-–—=])\s+([^()]+))")
_GENERIC = re.compile(
    r"^(?:size|type|class|grade|level|group|category|model|line|gate|platform|section|room|exit|"
    r"team|brand|vitamin|plan|zone|row|column|figure|panel)\s+"
)
_OPEN = re.compile(r"(?:\s+(?:of|to|from|than|on|with))?\s+(?:it|them|him|her|this|that|there)$")


def by_part(forms: set[str], choices: Sequence[str]) -> int | None:
    """The one option of which a text is the name or the note: "S" and "small" of "S (small)"; or
    that goes on with a mere "of it".
    """
    found = [_PARTED.fullmatch(choice.strip(" .")) for choice in choices]
    parts = [
        {simplest(part) for part in (one.groups() if one else ()) if part} - {""} for one in found
    ]
    said = forms | {_GENERIC.sub("", form) for form in forms}
    same = [i for i, some in enumerate(parts) if some & said]
    if not same:
        ends = {_OPEN.sub("", form) for form in forms} - {""}
        same = [i for i, choice in enumerate(choices) if _OPEN.sub("", simplest(choice)) in ends]
        ends |= {_IT.sub("", form) for form in forms}
        ends = {_OF.sub("", end) for end in ends} - {""}
        ends = {placed_so(end) for end in ends}
        same = same or [
            i for i, c in enumerate(choices) if placed_so(_relation(simplest(c)) or "") in ends
        ]
    return same[0] if len(same) == 1 else None


_IT = re.compile(r"\s+(?:it|them|him|her|this|that|there)$")
_OF = re.compile(r"^(?:to|on)\s+(?=\w)|\s+of$")


def _relation(plainly: str) -> str | None:
    """The relation that an option about a place begins with, the longest one: "behind"."""
    bare = POSITION.sub("", plainly)
    found = {
        word
        for text in (plainly, bare)
        for word in (*PREPOSITIONS, "left", "right")
        if text.startswith(f"{word} ")
    }
    longest = max(found, key=len, default=None)
    return longest and _OF.sub("", longest)


_SAME_PLACE: Final = (
    (re.compile(r"^(?:inside(?: of)?|within|into)\b"), "in"),
    (re.compile(r"^(?:on top of|atop|onto|upon)\b"), "on"),
    (re.compile(r"^over\b"), "above"),
    (re.compile(r"^(?:beneath|underneath|below)\b"), "under"),
    (re.compile(r"^(?:beside|alongside|adjacent to|by)\b"), "next to"),
    (re.compile(r"\b(?:(?:on|to|at) )?left(?: hand)?(?: side)? of\b"), "left of"),
    (re.compile(r"\b(?:(?:on|to|at) )?right(?: hand)?(?: side)? of\b"), "right of"),
    (re.compile(r"\btop (?=left|right)"), "upper "),
    (re.compile(r"\bbottom (?=left|right)"), "lower "),
    (re.compile(r"^(?:in back of|to rear of|at back of)\b"), "behind"),
)


def _by_synonym(forms: set[str], choices: Sequence[str]) -> int | None:
    """The one option about a place in other words: "inside" is "in"."""
    said = {placed_so(form) for form in forms}
    same = [i for i, choice in enumerate(choices) if placed_so(simplest(choice)) in said]
    return same[0] if len(same) == 1 else None


def placed_so(plainly: str) -> str:
    """A place's plainest form in the commonest words: "on left side of x" is "left of x"."""
    for pattern, word in _SAME_PLACE:
        plainly = pattern.sub(word, plainly)
    return plainly


_DOING_WHERE = r"(?:\w+ )*?(?:is|are|was|were) (?:\w+ly )?{} (?:on|in|at|to|along|down|up|across|"
_DOING_WHERE += r"through|towards?|near|by|beside|under|over|behind|around|from|with)\b"


def _by_activity(text: str, choices: Sequence[str]) -> int | None:
    """The one option that somebody is said to be doing somewhere, where all are things to do:
    "The man is sitting on a chair".
    """
    plainly = [simplest(choice) for choice in choices]
    if len(choices) < 2 or not all(re.match(r"\w+ing\b", one) for one in plainly):
        return None
    if DENIAL.search(text) or AND_CLAUSE.search(text):
        return None
    said = simplest(text)
    same = [i for i, one in enumerate(plainly) if f" {one} " in f" {said} "]
    if len(same) != 1:
        return None
    doing = _DOING_WHERE.format(re.escape(plainly[same[0]]))
    return same[0] if re.match(doing, said) else None


_OBJECT = re.compile(
    r"^(?:he|she|it|they|i|(?:the|a|this) \w+)(?:'s| is| are)? (?:clearly |also )?"
    r"(?:\w{3,}s(?: as)?|\w+ing(?: as)?|see|carry|hold|wear|use|ride) "
    r"(?:an?|the|his|her|its|their|some)\s+"
    r"(?P<thing>[^,.;:]+)$",
    re.I,
)


def _by_object(text: str, choices: Sequence[str]) -> int | None:
    """The one option that is what somebody is said to have or to do something with."""
    found = _OBJECT.match(canonical(text).strip(" .!"))
    if found is None or DENIAL.search(text) or AND_CLAUSE.search(text) or len(choices) < 2:
        return None
    thing = simplest(found["thing"])
    said = {thing, AROUND.sub("", thing)}
    same = [i for i, choice in enumerate(choices) if simplest(choice) in said]
    return same[0] if len(same) == 1 else None


_FILLER: Final = frozenset(
    "it is that this one ones they are he she side of to in on at with by from for a an the and"
    " belongs which i think there s be".split()
)
_JOINED = re.compile(r"\b(?:and|or|not|no|without|only|nor|but|neither|both|all|none)\b|[/&+]")


def _by_own_words(text: str, choices: Sequence[str]) -> int | None:
    """The one option that has all words of a text, one of them its own: "the large one" of large
    and small packs, "towards the camera" of ways to walk.
    """
    folded = canonical(text).casefold()
    if len(choices) < 2 or DENIAL.search(text) or _JOINED.search(folded):
        return None
    if not _POINTS.search(folded):
        return None
    text = ONE.sub("", text.strip(" .!"))
    words = [set(_possessed(simplest(choice)).split()) for choice in choices]
    said = set(_possessed(simplest(without_lead(text))).split()) - _FILLER
    same = [i for i, own in enumerate(words) if said and said <= own]
    if len(same) != 1 or _JOINED.search(canonical(choices[same[0]]).casefold()):
        return None
    shared = set.union(set(), *(own for i, own in enumerate(words) if i != same[0]))
    return same[0] if said - shared and max(map(len, said)) > 2 else None


_POINTS = re.compile(
    r"\bones?[ .!]*$|\bbelongs? to\b|^(?:it is |it's )?(?:towards?|away|into|onto|out|up|down|"
    r"along|across|past|through|against|around)\b"
)
"""A phrase that points at one of several, and leaves out what all have."""


def _possessed(plainly: str) -> str:
    return re.sub(r"(?<=\w)'s?(?!\w)|\b(toward)s\b", r"\1", plainly)


_SAID_OF = re.compile(
    r"^(?:he|she|it|they|there|man|woman|boy|girl|person|people|dog|cat|child)\s+(?=\w+)"
)
_AUXILIARY: Final = frozenset(("is", "are", "was", "were", "be", "being", "am", "he's", "she's"))
_INFLECTED = re.compile(r"(?<=[^\W\d_]{3})(?:ing|ed|es|s|e)$|(?<=[^\W\d_]{2})e$")


def _by_gist(text: str, choices: Sequence[str]) -> int | None:
    """The one option that says the same in another tense: "He rides" and "he is riding"."""
    if DENIAL.search(text) or AND_CLAUSE.search(text):
        return None
    plainly = simplest(without_lead(text))
    for bare in (False, True):
        said = _gist(plainly, bare)
        same = [
            i
            for i, choice in enumerate(choices)
            if _gist(simplest(choice), bare) == said
            and _TENSE.search(f"{simplest(choice)} {plainly} ")
        ]
        if same:
            return same[0] if len(said) > 1 and len(same) == 1 else None
    return None


_TENSE = re.compile(r"\w(?:ing|ed) ")


def _gist(plainly: str, bare: bool) -> tuple[str, ...]:
    """Words without auxiliaries and endings, and without the subject where it is to be bare."""
    plainly = _SAID_OF.sub("", plainly) if bare else plainly
    words = [word for word in plainly.split() if word not in _AUXILIARY]
    return tuple(re.sub(r"([a-z])\1$", r"\1", _INFLECTED.sub("", word)) for word in words)
