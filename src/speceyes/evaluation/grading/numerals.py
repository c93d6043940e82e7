"""Number words of other languages than English, up to twenty, and spans of two numbers."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

_NUMERALS: Final = {
    0: "null cero zéro nul ноль нуль",
    1: "eins uno één один одна одно 하나",
    2: "zwei deux dos due dois duas twee два две 둘",
    3: "drei trois tres tre três drie три 셋",
    4: "vier quatre cuatro quattro quatro четыре 넷",
    5: "fünf fuenf cinq cinco cinque vijf пять 다섯",
    6: "sechs seis sei zes шесть 여섯",
    7: "sieben sept siete sette sete zeven семь 일곱",
    8: "acht huit ocho otto oito восемь 여덟",
    9: "neun neuf nueve nove negen девять 아홉",
    10: "zehn dix diez dieci dez tien десять 열",
    11: "elf onze once undici одиннадцать",
    12: "zwölf douze doce dodici doze twaalf двенадцать",
    13: "dreizehn treize trece tredici treze dertien тринадцать",
    14: "vierzehn quatorze catorce quattordici catorze veertien четырнадцать",
    15: "fünfzehn quinze quince quindici vijftien пятнадцать",
    16: "sechzehn dieciséis sedici dezesseis zestien шестнадцать",
    17: "siebzehn dix-sept diecisiete diciassette dezessete zeventien семнадцать",
    18: "achtzehn dix-huit dieciocho diciotto dezoito achttien восемнадцать",
    19: "neunzehn dix-neuf diecinueve diciannove dezenove negentien девятнадцать",
    20: "zwanzig vingt veinte venti vinte twintig двадцать 스물",
}
_VALUE: Final = {word: value for value, words in _NUMERALS.items() for word in words.split()}
_ENGLISH_TOO: Final = frozenset("null due once elf otto sei nul sept quince tre".split())
"""Words that mean something else in English text; numbers where they are the whole answer."""
_WORD = re.compile(
    rf"(?<![\w-])(?:{'|'.join(sorted(_VALUE.keys() - _ENGLISH_TOO, key=len, reverse=True))})"
    r"(?![\w-])",
    re.I,
)
_COUNTED: Final = {"한": 1, "두": 2, "세": 3, "네": 4}
_KOREAN = re.compile(r"(?<!\w)([한두세네])(?=\s?(?:마리|개|명|대|권|잔|그루|송이|사람)\b)")


def in_digits(text: str) -> str:
    """A text with number words of other languages as digits.

    Example:
        >>> in_digits("Es sind drei Hunde"), in_digits("elf"), in_digits("the elf")
        ('Es sind 3 Hunde', '11', 'the elf')
    """
    whole = text.strip(" .!").casefold()
    if whole in _VALUE:
        return str(_VALUE[whole])
    text = _KOREAN.sub(lambda found: str(_COUNTED[found[1]]), text)
    return _WORD.sub(lambda found: str(_VALUE[found[0].casefold()]), text)


_NUMBER = r"-?\d[\d,]*(?:\.\d+)?"
_SPAN = re.compile(
    r"(?P<between>(?:between|zwischen|entre|tra|между|从|從)\s*)?(?:(?:from|von|de|da|от)\s+)?"
    rf"[$€£]?(?P<low>{_NUMBER})\s?(?P<first>[^\W\d]{{0,12}}|[%°])\s*"
    r"(?P<joint>-|–|—|~|to|until|till|through|bis|à|a|до|到|至|and|und|et|y|e|en|и|和)\s*"
    rf"[$€£]?(?P<high>{_NUMBER})\s?(?P<unit>[^\W\d][\w /.²³^]{{0,24}}|[%°])?",
    re.I,
)
_AND: Final = frozenset(("and", "und", "et", "y", "e", "en", "и", "和"))


_OPEN_ENDED: Final = (
    (
        re.compile(
            rf"(?:(?P<over>more than|over|above|greater than|>)|at least|from|≥)"
            rf"\s*(?P<low>{_NUMBER})|(?P<plus>{_NUMBER})\s*"
            r"(?:\+|(?:\w+ )?(?:or|and) (?:more|above|over|up|higher|older))",
            re.I,
        ),
        True,
    ),
    (
        re.compile(
            rf"(?:(?P<over>less than|fewer than|under|below|<)|at most|up to|≤)"
            rf"\s*(?P<low>{_NUMBER})|(?P<plus>{_NUMBER})\s*"
            r"(?:or|and) (?:less|fewer|below|under|lower|younger)",
            re.I,
        ),
        False,
    ),
)


def bound(text: str) -> tuple[Fraction, bool, bool] | None:
    """An open range as its end, whether it goes upwards, and whether the end is part of it.

    Example:
        >>> bound("over 50 km/h") == bound("more than 50"), bound("50")
        (True, None)
    """
    for pattern, upwards in _OPEN_ENDED:
        found = pattern.match(text.strip(" ."))
        if found:
            end = Fraction((found["low"] or found["plus"]).replace(",", ""))
            return end, upwards, not found["over"]
    return None


def holds(text: str, value: Fraction) -> bool | None:
    """True if a number lies in the range that a text is, open ones included; None where it is no
    range. Number words are digits already.

    Example:
        >>> holds("4-6", Fraction(5)), holds("10 or more", Fraction(9)), holds("ten", Fraction(9))
        (True, False, None)
    """
    closed = span(text)
    if closed is not None:
        return closed[0] <= value <= closed[1]
    open_ended = bound(text)
    if open_ended is None:
        return None
    end, upwards, included = open_ended
    return included if value == end else (value > end) is upwards


def span(text: str) -> tuple[Fraction, Fraction, str] | None:
    """The two ends of a range and its unit, with number words as digits already; None where a
    text is no range.

    Example:
        >>> span("between 2 and 4 cm") == span("2 cm to 4 cm") == span("2-4 cm")
        True
        >>> span("2 and 4") is None
        True
    """
    found = _SPAN.fullmatch(text.strip(" .!"))
    if found is None or (found["joint"].casefold() in _AND) is not bool(found["between"]):
        return None
    low, high = (Fraction(found[name].replace(",", "")) for name in ("low", "high"))
    unit = (found["unit"] or found["first"] or "").strip().casefold()
    return (low, high, unit) if low < high else None
