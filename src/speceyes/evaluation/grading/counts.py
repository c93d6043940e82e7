"""A number that a claim names beside others that it is made of: "3: one red and two blue"."""

from __future__ import annotations

import re

from speceyes.evaluation.grading import quantity, sameness
from speceyes.evaluation.grading.languages import (
    BOUND_AFTER,
    BOUND_BEFORE,
    CONTRAST,
    CORRECTION,
    DENIAL,
    HEDGE,
)

_ASIDE = re.compile(r"([^()\n]{1,60})\(([^()]+)\)[.\s]*$")
_TOTAL = re.compile(
    r"[.,;:]?\s(?:so|thus|hence|therefore|that makes|which makes|making|which gives|giving|"
    r"for a total of|in total|altogether|total:)[,:]?\s+((?:there (?:are|is) |it(?:'s| is) |"
    r"that(?:'s| is) |"
    r"(?:the |a )?total (?:is|of) )?[^.,;:\n]{1,60})[.!]?$",
    re.I,
)
_ADDED = re.compile(r"\+|\bplus\b|\band\b", re.I)


def says_number(text: str, wanted: quantity.Quantity) -> bool:
    """True if a claim names that number, with no other in what it adds but what it is made of.

    Args:
        text: The claim, without what leads up to it.
        wanted: The number.

    Example:
        >>> says_number("3 chairs: 1 red and 2 blue", quantity.only("3"))
        True
        >>> says_number("2 red and 3 blue", quantity.only("3"))
        False
    """
    if text.rstrip(" \"')").endswith("?"):
        return False
    if HEDGE.search(text):
        return False
    text = CONTRAST.sub("", text)
    if wanted.value == 0 and quantity.none_there(text):
        return True
    whole = quantity.only(text)
    if whole is not None:
        return wanted.same(whole)
    made = _TOTAL.search(text)
    if made and not (DENIAL.search(text) or CORRECTION.search(text)):
        bounded = any(
            BOUND_BEFORE.search(text[max(0, start - quantity.NEAR) : start])
            for _, start, _ in quantity.quantities(text) or ()
        )
        summed = None if bounded else quantity.only(made[1])
        return summed is not None and wanted.same(summed)
    sides = text.split("=")
    if len(sides) == 2 and _ADDED.search(sides[0]):
        parts_of = quantity.quantities(quantity.prepared(sides[0])) or ()
        sum_of, told = sum(one.value for one, _, _ in parts_of), quantity.only(sides[1])
        return told is not None and wanted.same(told) and sum_of == wanted.value
    parts = text.split(":")
    if len(parts) == 2:
        for total, addends in (parts, parts[::-1]):
            some = quantity.quantities(quantity.prepared(addends)) or ()
            named = quantity.only(total)
            if named is not None and len(some) > 1 and wanted.same(named):
                return sum(one.value for one, _, _ in some) == wanted.value
    aside = _ASIDE.match(text)
    head, rest = (aside[1], aside[2]) if aside else sameness.first_sentence(text)
    first = quantity.only(head)
    if first is None or not rest or not wanted.same(first):
        return False
    if HEDGE.search(rest) or BOUND_AFTER.match(rest) or CORRECTION.search(f" {rest}"):
        return False
    found = quantity.quantities(rest)
    if not found:
        return found is not None
    values = [one.value for one, _, _ in found]
    same = wanted.value in values or any(wanted.same(one) for one, _, _ in found)
    return same or sum(values) == wanted.value
