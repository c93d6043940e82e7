"""Answers that change on the way: what is taken back, and what is ruled out before the answer."""

from __future__ import annotations

import re
from typing import Final

from speceyes.evaluation.grading.languages import CORRECTION, DENIAL, REFUSED

_MARK = re.compile(r"[(\[]?\b(?!A\s+[a-z])([A-Z])\b[)\]]?")
_CLAUSE = re.compile(
    r"(?<=[^\s.])[.;\n]+\s+|[;\n]+|:\s+(?=[(\[]?(?-i:[A-Z])\b)|,\s+(?=(?:not|so|but|and|therefore|thus|hence)\b|(?-i:[(\[]?(?!I\b)[A-Z]\b))",
    re.I,
)
_JOINER = re.compile(r"^(?:(?:so|but|and|therefore|thus|hence|then|which leaves)\b[\s,:]*)+", re.I)
_ASKED = re.compile(r"\W*[^.?!\n]{1,40}\?\s+(?=\S)")
_ARROW = re.compile(r"[^.!?\n]{1,40}?\s*(?:-+>|=+>|>>+|→|⇒)\s*(?=\S)")
_REFUSAL = re.compile(
    r"^(?:(?:no|nope|not (?:that|quite|right|it)|(?:that|this|it)(?:'s| is| was| isn't| is not)"
    r"(?: not)? (?:wrong|incorrect|right|correct|it|a mistake))(?:[.,!;]|\s[—–-])\s+)+(?=\S)",
    re.I,
)
_LONGEST: Final = 600


def last_word(text: str) -> str | None:
    """The words after a text has taken something back; None where it takes nothing back.

    Example:
        >>> last_word("A. red? No, wait. C."), last_word("A. red")
        ('C.', None)
    """
    text = text[-_LONGEST:]
    found = list(CORRECTION.finditer(text))
    end = found[-1].end() if found else 0
    while asked := _ASKED.match(text, end):
        end = asked.end()
    arrow = _ARROW.match(text)
    end = arrow.end() if arrow and not end else end
    rest = _REFUSAL.sub("", text[end:].lstrip(" ,.:;!—–-\n"))
    return rest if end and rest else None


def ruled_out(text: str) -> tuple[list[str], list[str]] | None:
    """The clauses of a text that rule nothing out, and those that do: "A is wrong; so B".

    Returns:
        Both without what joins them; None where one of them is empty, where an option is named
        on both sides, or where it isn't said what is ruled out.

    Example:
        >>> ruled_out("A is wrong, C is wrong; so B"), ruled_out("B")
        ((['B'], ['A is wrong', 'C is wrong']), None)
    """
    if len(text) > _LONGEST:
        return None
    out: list[str] = []
    kept: list[str] = []
    for clause in _CLAUSE.split(text):
        bare = _JOINER.sub("", clause.strip())
        if not bare.strip(" .,:;!"):
            continue
        marked = _MARK.search(bare)
        if REFUSED.match(bare) and not marked:
            return None
        denied = DENIAL.search(bare) or (marked and REFUSED.match(bare[marked.end() :]))
        (out if denied else kept).append(bare)
    if not out or not kept:
        return None
    marks, again = (
        {found[1] for clause in side for found in _MARK.finditer(clause)} for side in (out, kept)
    )
    return (kept, out) if marks.isdisjoint(again) else None
