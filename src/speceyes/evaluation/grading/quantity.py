"""Numbers with their units, read out of short texts."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, final

from speceyes.evaluation.grading.cleaning import canonical, plain
from speceyes.evaluation.grading.languages import (
    BOUND_AFTER,
    BOUND_BEFORE,
    DENIAL,
    HEDGE,
    RELATION,
)
from speceyes.evaluation.grading.normal_form import number_words

_ALIASES: Final = {
    "cm": "cm centimeter centimeters centimetre centimetres",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "m": "m meter meters metre metres",
    "km": "km kilometer kilometers kilometre kilometres",
    "in": "in inch inches ″",
    "ft": "ft foot feet ′",
    "yd": "yd yard yards",
    "mi": "mi mile miles",
    "mph": "mph",
    "km/h": "km/h kmh kph",
    "m/s": "m/s",
    "m^2": "m^2 sqm",
    "cm^2": "cm^2",
    "km^2": "km^2",
    "m^3": "m^3",
    "g": "g gram grams gramme grammes",
    "kg": "kg kgs kilogram kilograms kilo kilos",
    "mg": "mg milligram milligrams",
    "lb": "lb lbs pound pounds",
    "oz": "oz ounce ounces",
    "l": "l liter liters litre litres",
    "ml": "ml milliliter milliliters millilitre millilitres",
    "s": "s sec secs second seconds",
    "ms": "ms millisecond milliseconds",
    "min": "min mins minute minutes",
    "h": "h hr hrs hour hours",
    "d": "day days",
    "yr": "yr yrs year years",
    "%": "% percent pct",
    "°": "° deg degree degrees",
    "°c": "°c celsius",
    "°f": "°f fahrenheit",
    "$": "$ usd dollar dollars",
    "€": "€ eur euro euros",
    "£": "£ gbp",
    "¥": "¥ yen yuan rmb cny",
    "px": "px pixel pixels",
    "kb": "kb",
    "mb": "mb",
    "gb": "gb",
    "w": "w watt watts",
    "kw": "kw kilowatt kilowatts",
    "v": "v volt volts",
    "hz": "hz hertz",
    "khz": "khz",
    "mhz": "mhz",
    "ghz": "ghz",
    "kcal": "kcal",
    "x": "",
}
_UNIT: Final = {word: unit for unit, words in _ALIASES.items() for word in words.split()}
_PHRASES: Final = {
    "degrees celsius": "°c",
    "degree celsius": "°c",
    "degrees fahrenheit": "°f",
    "° c": "°c",
    "° f": "°f",
    "per cent": "%",
    "square meters": "m^2",
    "square metres": "m^2",
    "square centimeters": "cm^2",
    "cubic meters": "m^3",
    "kilometers per hour": "km/h",
    "kilometres per hour": "km/h",
    "miles per hour": "mph",
    "meters per second": "m/s",
    "us dollars": "$",
    "u.s. dollars": "$",
}
_SCALES: Final = {"k": 1000, "K": 1000}
_CJK: Final = {c: i for i, c in enumerate("零一二三四五六七八九十")} | {"〇": 0, "两": 2, "兩": 2}
_CJK_NUMBER = re.compile(
    "^([零〇一二两兩三四五六七八九十])(?:個|个|只|隻|匹|つ|人|辆|台|本|张|条|名|枚|頭|头|棵|把)?"
    "[\u4e00-\u9fff\u3040-\u30ff]{0,4}$"
)
_NUMBER = re.compile(
    r"(?P<sign>(?<![\w.)\]])[-+]\s?)?"
    r"(?P<currency>[$€£¥])?\s?"
    r"(?<![\w.,])(?P<whole>\d{1,3}(?:[, '\u2009]\d{3})+(?![\d,])|\d+)?(?P<part>\.\d+)?"
    r"(?:\s*[x×*]\s*10\s*\^\s*\{?(?P<power>[-+]?\d{1,3})\}?|[eE](?P<e>[-+]?\d{1,3})(?!\w))?"
)
_BROKEN = re.compile(r"[\d.]*\d[.,:]\d[\d.,:]*|\d*\.\d+")
_RATIO = re.compile(r"(?<![\w./])([-+]?)(?:(\d+)\s+)?(\d+)\s?/\s?(\d+)(?![\w/]|\.\d)")
_CURRENCIES: Final = ("$", "€", "£", "¥")
_DIGIT: Final = re.compile(r"\d")
_EXACT = re.compile(
    r"^(?:(?:exactly|precisely|only|just|a total of|in total|total of|altogether|all|genau|"
    r"insgesamt|exactement|en total|seulement|exactamente|solo|sólo|esattamente|apenas|precies|"
    r"一共有?|总共有?|共有?|有|全部で|합계|모두|총)\s*)+",
    re.I,
)
_TOTAL = re.compile(
    r"(?:\s*,?\s*(?:in total|altogether|total|overall|in all|insgesamt|en tout|en total|"
    r"in totale|no total))+$",
    re.I,
)
_SUM = re.compile(r"^[\d\s.,+\-*/×÷()]+(?:[a-z]{0,12}\s?[+×]?[\d\s]*)=\s*(?=[-+]?[\d.])", re.I)
_NAMED = re.compile(r"^[a-z]\w{0,11}\s*=\s*(?=[-+]?[\d.$€£])", re.I)


@final
@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its unit.

    Args:
        value: The number.
        unit: The unit, or the noun that is counted; empty where there is none.
        measured: The unit is one of measure, which can't be left out.
    """

    value: Fraction
    unit: str = ""
    measured: bool = False

    def same(self, other: Quantity) -> bool:
        """True if another quantity, a model's, is this one.

        A unit of measure must be there; a noun that is counted may be left out. Where this one
        has no unit, the other's doesn't count.
        """
        if not math.isclose(self.value, other.value, rel_tol=1e-9):
            return False
        if not self.unit:
            return True
        if not other.unit:
            return not self.measured
        if self.measured or other.measured:
            return self.unit == other.unit
        return _noun(self.unit) == _noun(other.unit) or _noun(other.unit).startswith(
            _noun(self.unit) + " "
        )


def _noun(words: str) -> str:
    """Words in the singular, roughly."""
    return " ".join(
        re.sub(r"(?<=[^s\W]{2})(?:(?<=[sxh])es|s)$", "", word) for word in words.split()
    )


def _prepared(text: str) -> str:
    """Number words as digits; the rest of the text as it was."""
    words = re.sub(
        r"(?<=[a-z])-(?=(?:one|two|three|four|five|six|seven|eight|nine)\b)", " ", text, flags=re.I
    )
    if not re.search(r"[A-Za-z]{3}", words):
        return words
    words = _NEGATIVE.sub("-", words)
    pieces = re.findall(r"\s+|[A-Za-z]+|\d+(?:\.\d+)?(?=\s+[A-Za-z])|[^A-Za-z\s]", words)
    tokens = [p for p in pieces if not p.isspace()]
    lowered = [t.casefold() for t in tokens]
    if not any(t in _NUMBER_HINT for t in lowered):
        return words
    out: list[str] = []
    run: list[str] = []
    # Words in unbroken runs, so that "one, two" stays two numbers.
    for piece in pieces:
        if piece.isspace() or piece.isalpha() or re.fullmatch(r"\d+(?:\.\d+)?", piece):
            run.append(piece)
        else:
            out += _counted(run)
            run = []
            out.append(piece)
    return "".join(out + _counted(run))


_NEGATIVE = re.compile(
    r"\b(?:minus|negative)\s+(?=\d|(?:zero|one|two|three|four|five|six|seven|eight|nine|ten)\b)",
    re.I,
)
_NUMBER_HINT: Final = frozenset(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety "
    "hundred thousand million billion dozen".split()
)


def _counted(run: list[str]) -> list[str]:
    words = [w if w.casefold() not in _NUMBER_HINT | {"a", "and"} else w.casefold() for w in run]
    words = [w for w in words if not w.isspace()]
    if not words:
        return run
    head = run[0] if run[0].isspace() else ""
    tail = run[-1] if run[-1].isspace() and len(run) > 1 else ""
    return [head, " ".join(number_words(words)), tail]


def quantities(text: str) -> list[tuple[Quantity, int, int]] | None:
    """Every number of a text as (quantity, start, end) in `prepared` text; None where one can't
    be read for sure, such as "1,5", "3rd" or "12:30".
    """
    found: list[tuple[Quantity, int, int]] = []
    at = 0
    while True:
        digit = _DIGIT.search(text, at)
        if digit is None:
            return found
        read = _one(text, digit.start(), at)
        if read is None:
            return None
        found.append(read)
        at = read[2]


def _one(text: str, digit: int, floor: int) -> tuple[Quantity, int, int] | None:
    start = digit
    if start > floor and text[start - 1] == ".":
        start -= 1
    if start > floor and text[start - 1] == " " and text[start - 2 : start - 1] in _CURRENCIES:
        start -= 1
    currency = ""
    if start > floor and text[start - 1] in "$€£¥":
        start -= 1
        currency = text[start]
    sign = ""
    back = start
    while back > floor and text[back - 1] == " " and start - back < 1:
        back -= 1
    signed = back > floor and text[back - 1] in "-+"
    if signed and not re.search(r"[\w)\]]\s?$", text[floor : back - 1]):
        start = back - 1
        sign = text[start]
    if start > 0 and re.match(r"[A-Za-z_.]", text[start - 1]) and not sign and not currency:
        return None  # "A4", "v2"
    body = text[start:].lstrip("+-$€£¥ ")
    offset = len(text) - len(body)
    ratio = _RATIO.match(body)
    if ratio:
        if int(ratio[4]) == 0:
            return None
        value = Fraction(int(ratio[3]), int(ratio[4])) + int(ratio[2] or 0)
        end = offset + ratio.end()
    else:
        match = _NUMBER.match(body)
        if match is None or match.end() == 0:
            return None
        whole = re.sub(r"[, '\u2009]", "", match["whole"] or "0")
        if not whole.isdecimal():
            return None
        value = Fraction(int(whole)) + Fraction("0" + _ascii(match["part"] or ".0"))
        power = int(match["power"] or match["e"] or 0)
        value *= Fraction(10) ** power
        end = offset + match.end()
    rest = text[end:]
    if re.match(r"[.,:]\d|\^|/\d|²|³", rest):
        return None
    if sign == "-":
        value = -value
    unit, measured, end, scale = _unit_after(text, end)
    if unit is None:
        return None
    if currency and not unit:
        unit, measured = currency, True
    return Quantity(value * scale, unit, measured), start, end


def _ascii(digits: str) -> str:
    return "".join(c if c == "." else str(int(c)) for c in digits)


_GLUED = re.compile(r"([A-Za-z°%″′$€£¥]+(?:/[A-Za-z]+)?(?:\^[23])?)")
_NEXT = re.compile(
    r"\s+([A-Za-z°%$€£¥][\w°%/^.-]*)(?:\s+([A-Za-z][\w.-]*))?(?:\s+([A-Za-z][\w-]*))?"
)


def _unit_after(text: str, at: int) -> tuple[str | None, bool, int, int]:
    """(unit, whether it is of measure, where it ends, factor); None where letters are glued to
    the number that are no unit.
    """
    glued = _GLUED.match(text, at)
    if glued:
        word = glued[1]
        if word in _SCALES:
            return "", False, glued.end(), _SCALES[word]
        rest = text[glued.end() :]
        degree = re.match(r"\s?([CF])\b", rest) if word == "°" else None
        if degree:
            return _UNIT[f"°{degree[1].casefold()}"], True, glued.end() + degree.end(), 1
        unit = _UNIT.get(word.casefold())
        return (unit, True, glued.end(), 1) if unit else (None, False, at, 1)
    if re.match(r"-[A-Za-z]", text[at:]):
        return None, False, at, 1
    after = _NEXT.match(text, at)
    if after is None:
        return "", False, at, 1
    two = f"{after[1]} {after[2] or ''}".strip().casefold()
    three = f"{two} {after[3] or ''}".strip()
    for phrase, end in ((three, after.end()), (two, after.end(2) if after[2] else after.end(1))):
        if phrase in _PHRASES:
            return _PHRASES[phrase], True, end, 1
    word = after[1].casefold().rstrip(".")
    if word in _UNIT and not (word in ("in", "a", "s", "d", "x") and after[2]):
        return _UNIT[word], True, after.end(1), 1
    return "", False, at, 1


_COUNTED = re.compile(r"(?:[^\W\d]+(?:[ -][^\W\d]+){0,3})?")


def of_gold(text: str) -> Quantity | None:
    """The quantity that a right answer is; None where it is no number with at most a unit.

    Example:
        >>> of_gold("3 cm").unit, of_gold("three").value, of_gold("3 or 4")
        ('cm', Fraction(3, 1), None)
    """
    prepared = _prepared(plain(text))
    if RELATION.search(prepared):
        return None
    found = quantities(prepared)
    if found is None or len(found) != 1:
        return None
    quantity, start, end = found[0]
    rest = prepared[end:].strip(" .")
    if prepared[:start].strip(" (") or not _COUNTED.fullmatch(rest):
        return None
    if rest and (quantity.measured or BOUND_AFTER.match(rest) or DENIAL.search(rest)):
        return None
    return Quantity(quantity.value, rest.casefold() or quantity.unit, quantity.measured)


def only(text: str) -> Quantity | None:
    """The one exact quantity that a text without wrapping names; None where it names none, two
    that differ, or a bound or a guess.

    Example:
        >>> only("There are three dogs").value
        Fraction(3, 1)
        >>> only("about 3"), only("3+"), only("2 or 3")
        (None, None, None)
    """
    text = canonical(text).strip()
    numeral = _CJK_NUMBER.match(_EXACT.sub("", text).rstrip("。. "))
    if numeral:
        return Quantity(Fraction(_CJK[numeral[1]]))
    text = _NAMED.sub("", _SUM.sub("", text))
    prepared = _prepared(text)
    prepared = _TOTAL.sub("", _EXACT.sub("", prepared).rstrip(" .!。"))
    if RELATION.search(prepared) or HEDGE.search(prepared) or DENIAL.search(prepared):
        return None
    found = quantities(prepared)
    if not found:
        return None
    for _, start, end in found:
        if BOUND_BEFORE.search(prepared[:start]) or BOUND_AFTER.match(prepared[end:]):
            return None
    values = {one.value for one, _, _ in found}
    if len(values) != 1:
        return None
    named = [one for one, _, _ in found if one.unit]
    if len({one.unit for one in named}) > 1:
        return None
    if named:
        return named[0]
    quantity, _, end = found[0]
    noun = re.match(r"\s*((?:[^\W\d]+[ -]?){1,4})", prepared[end:])
    return Quantity(quantity.value, noun[1].strip().casefold() if noun else "")


def none_there(text: str) -> bool:
    """True if a text says that there are none: the number zero in words.

    Example:
        >>> none_there("There are no dogs in the image."), none_there("No"), none_there("none")
        (True, False, True)
    """
    plainly = canonical(text).casefold().strip(" .!")
    if HEDGE.search(plainly) or re.search(r"\bno (?:more|less|fewer|idea|way)\b", plainly):
        return False
    return any(pattern.fullmatch(plainly) for pattern in _NONE)


_NONE: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"none(?: (?:at all|of them))?|nothing|nil|null|no [a-z]+s",
        r"(?:there (?:are|is)|there're|(?:i|we) (?:can )?see|(?:the \w+|it) "
        r"(?:shows|contains|has|displays)) "
        r"(?:none|no [a-z ]{2,40}|nothing|not a single [a-z ]+)",
        r"there aren't any(?: [a-z ]{2,40})?",
        r"no [a-z ]{2,40} are (?:visible|present|shown)[a-z ]*",
    )
)
