"""Numbers with their units, read out of short texts."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
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
from speceyes.evaluation.grading.numerals import bound, holds, in_digits, span
from speceyes.evaluation.grading.units import PHRASES, UNIT, in_base, unit_of

_SCALES: Final = {"k": 1000, "K": 1000}
_CJK: Final = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "兩": 2}
_NUMERAL = "[零〇一二两兩三四五六七八九十百]{1,5}"
_MEASURE = (
    "個|个|只|隻|匹|つ|人|辆|輛|台|本|张|張|条|條|名|枚|頭|头|棵|把|位|朵|座|架|艘|杯|块|塊|根|"
    "扇|盏|件|双|雙|对|羽|軒|冊|명|마리|개"
)
_CJK_NUMBER = re.compile(
    f"^({_NUMERAL})(?:{_MEASURE})?[\u4e00-\u9fff\u3040-\u30ff]{{0,4}}$"
    f"|^[^0-9。]{{0,12}}(?:有|是|共|は|が)({_NUMERAL})(?:{_MEASURE})"
    "[\u4e00-\u9fff\u3040-\u30ff]{0,6}$"
)
_NUMBER = re.compile(
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
_ORDER = re.compile(r"^(?:no\.|nr\.|n°|number|#)\s*(?=\d)", re.I)
_NAMED = re.compile(r"^[a-z]\w{0,11}\s*=\s*(?=[-+]?[\d.$€£])", re.I)


@final
@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its unit.

    Args:
        value: The number.
        unit: The unit, or the noun that is counted; empty where there is none.
        measured: The unit is one of measure, which can't be left out.
        share: It was written as a fraction, such as "a quarter".
    """

    value: Fraction
    unit: str = ""
    measured: bool = False
    share: bool = False

    def same(self, other: Quantity) -> bool:
        """True if another quantity, a model's, is this one.

        A unit of measure must be there, and counts for what it is in another of its kind; a noun
        that is counted may be left out. Where this one has no unit, the question has it, and the
        other's doesn't count: "3%" is 3. A part of one is a share, so that "25%" is 0.25.

        Example:
            >>> of_gold("3 cm").same(only("30 mm")), of_gold("0.5").same(only("50%"))
            (True, True)
        """
        if self.measured and other.measured and self.unit != other.unit:
            mine, its = in_base(self.value, self.unit), in_base(other.value, other.unit)
            if mine is not None and its is not None:
                return mine[0] == its[0] and _close(mine[1], its[1])
        if not self.unit and other.unit == "%" and 0 < abs(self.value) < 1:
            return _close(self.value, other.value / 100)
        if self.unit == "%" and other.share and not other.unit:
            return _close(self.value / 100, other.value)
        if not _close(self.value, other.value):
            return False
        if not self.unit:
            return True
        if not other.unit:
            return not self.measured
        if self.measured or other.measured:
            return self.unit == other.unit or (self.unit[0] == other.unit == "°")
        return _noun(self.unit) == _noun(other.unit) or _noun(other.unit).startswith(
            _noun(self.unit) + " "
        )


def _close(one: Fraction, other: Fraction) -> bool:
    return math.isclose(one, other, rel_tol=1e-9)


def _noun(words: str) -> str:
    """Words in the singular, roughly."""
    return " ".join(
        re.sub(r"(?<=[^s\W]{2})(?:(?<=[sxh])es|s)$", "", word) for word in words.split()
    )


def prepared(text: str) -> str:
    """Number words as digits, halves and powers of ten included; the rest of the text as it was."""
    text = _POWER_OF_TEN.sub(lambda found: str(10 ** int(found[1])), text)
    return _HALVES.sub(r"\1.5", _digits(in_digits(text)))


def _digits(text: str) -> str:
    words = re.sub(
        r"(?<=[a-z])-(?=(?:one|two|three|four|five|six|seven|eight|nine)\b)", " ", text, flags=re.I
    )
    if not re.search(r"[A-Za-z]{3}", words):
        return words
    part = _PARTS.get(" ".join(words.replace("-", " ").casefold().strip(" .!").split()))
    if part:
        return part
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


_POWER_OF_TEN = re.compile(r"(?<![\w.^])(?<![*×x])(?<![*×x]\s)10\s?\^\s?\{?(\d{1,2})\}?(?!\w)")
_DECIMAL_COMMA = re.compile(r"(?<![\d.,])(\d+|\d{1,3}(?:\.\d{3})+),(\d{1,2}|\d{4,9})(?![\d,]|\.\d)")
_HALVES = re.compile(r"(?<![\w.,/])(\d+)\s+and\s+a\s+half(?!\w)", re.I)
_PARTS: Final = {
    "half": "1/2", "a half": "1/2", "one half": "1/2", "a third": "1/3", "a quarter": "1/4",
    "quarter": "1/4", "a fourth": "1/4", "a fifth": "1/5", "a tenth": "1/10", "two fifths": "2/5",
    "one third": "1/3",
    "two thirds": "2/3", "one quarter": "1/4", "one fourth": "1/4", "three quarters": "3/4",
    "three fourths": "3/4", "one fifth": "1/5", "one tenth": "1/10",
}  # fmt: skip
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
    if start > 0 and re.match(r"[A-Za-z_.^]", text[start - 1]) and not sign and not currency:
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
    if ratio:
        return Quantity(value * scale, unit, measured, share=True), start, end
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
            return UNIT[f"°{degree[1].casefold()}"], True, glued.end() + degree.end(), 1
        unit = unit_of(word)
        return (unit, True, glued.end(), 1) if unit else (None, False, at, 1)
    if re.match(r"-[A-Za-z]", text[at:]):
        return None, False, at, 1
    after = _NEXT.match(text, at)
    if after is None:
        return "", False, at, 1
    two = f"{after[1]} {after[2] or ''}".strip().casefold()
    three = f"{two} {after[3] or ''}".strip()
    for phrase, end in ((three, after.end()), (two, after.end(2) if after[2] else after.end(1))):
        if phrase in PHRASES:
            return PHRASES[phrase], True, end, 1
    if after[1] in ("C", "F") and not after[2]:
        return UNIT[f"°{after[1].casefold()}"], True, after.end(1), 1
    word = after[1].casefold().rstrip(".")
    rate = unit_of(word) if "/" in word else unit_of(f"{word}/{after[3] or ''}")
    if rate and ("/" in word or after[2] in ("per", "an", "a")):
        return rate, True, after.end(1) if "/" in word else after.end(3), 1
    if word in UNIT and not (word in ("in", "a", "s", "d", "x") and after[2]):
        return UNIT[word], True, after.end(1), 1
    return "", False, at, 1


def _cjk_value(numeral: str) -> int | None:
    """A Chinese or Japanese numeral below a thousand; None where it is none.

    Example:
        >>> _cjk_value("三"), _cjk_value("二十一"), _cjk_value("一百零五"), _cjk_value("一二")
        (3, 21, 105, None)
    """
    total, digit = 0, None
    for sign in numeral:
        power = {"十": 10, "百": 100}.get(sign)
        if power is None:
            if digit:
                return None
            digit = _CJK[sign]
        elif total % (power * 10) or (digit == 0 and not total):
            return None
        else:
            total, digit = total + (digit or 1) * power, None
    return total + (digit or 0)


_COUNTED = re.compile(r"(?:[^\W\d]+(?:[ -][^\W\d]+){0,3})?")


_JOINT = re.compile(r"\s*(?:,|,?\s*and)?\s*")


def _joined(text: str, found: list[tuple[Quantity, int, int]]) -> list[tuple[Quantity, int, int]]:
    """The quantities, with "1 h 30 min" as the one that it is."""
    made = found[:1]
    for quantity, start, end in found[1:]:
        last, begin, stop = made[-1]
        one, more = in_base(last.value, last.unit), in_base(quantity.value, quantity.unit)
        unit = in_base(Fraction(1), last.unit)
        if (
            one is not None
            and more is not None
            and unit is not None
            and _JOINT.fullmatch(text[stop:start])
            and one[0] == more[0]
            and 0 < more[1] < unit[1]
        ):
            whole = last.value + more[1] / unit[1]
            made[-1] = Quantity(whole, last.unit, True), begin, end
        else:
            made.append((quantity, start, end))
    return made


def of_gold(text: str) -> Quantity | None:
    """The quantity that a right answer is; None where it is no number with at most a unit.

    Example:
        >>> of_gold("3 cm").unit, of_gold("three").value, of_gold("3 or 4")
        ('cm', Fraction(3, 1), None)
    """
    ready = prepared(plain(text))
    if of_comma := _point(ready):
        # "2,5 kg" is a number; "2,5" may be two.
        pointed = of_gold(of_comma)
        return pointed if pointed and pointed.measured else None
    if RELATION.search(ready):
        return None
    found = quantities(ready)
    found = found and _joined(ready, found)
    if found is None or len(found) != 1:
        return None
    quantity, start, end = found[0]
    rest = ready[end:].strip(" .")
    if ready[:start].strip(" (") or not _COUNTED.fullmatch(rest):
        return None
    if rest and (quantity.measured or BOUND_AFTER.match(rest) or DENIAL.search(rest)):
        return None
    return Quantity(quantity.value, rest.casefold() or quantity.unit, quantity.measured)


_MOST: Final = 100
"""Numbers of a text that are read; one of more names none."""
NEAR: Final = 200
"""Characters before a number in which a bound stands."""


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
        value = _cjk_value(numeral[1] or numeral[2])
        return None if value is None else Quantity(Fraction(value))
    text = _NAMED.sub("", _SUM.sub("", _ORDER.sub("", text)))
    ready = prepared(text)
    ready = _point(ready) or ready
    ready = _TOTAL.sub("", _EXACT.sub("", ready).rstrip(" .!。"))
    if RELATION.search(ready) or HEDGE.search(ready) or DENIAL.search(ready):
        return None
    found = quantities(ready)
    if not found or len(found) > _MOST:
        return None
    found = _joined(ready, found)
    for _, start, end in found:
        if BOUND_BEFORE.search(ready[max(0, start - NEAR) : start]) or BOUND_AFTER.match(
            ready[end:]
        ):
            return None
    named = [one for one, _, _ in found if one.unit]
    if len({one.value for one, _, _ in found}) != 1:
        # The same in two units is one quantity: "3 cm (30 mm)".
        same = len(named) == len(found) and all(named[0].same(one) for one in named)
        return named[0] if same else None
    if len({one.unit for one in named}) > 1:
        return None
    if named:
        return named[0]
    quantity, _, end = found[0]
    if quantity.share:
        return quantity
    noun = re.match(r"\s*((?:[^\W\d]+[ -]?){1,4})", ready[end:])
    return Quantity(quantity.value, noun[1].strip().casefold() if noun else "")


def _point(text: str) -> str | None:
    """A text with points for decimal commas; None where it has none. Three digits behind a comma
    are thousands.

    Example:
        >>> _point("4,50 €"), _point("1.200,50"), _point("1,200"), _point("1,2,3")
        ('4.50 €', '1200.50', None, None)
    """
    pointed = _DECIMAL_COMMA.sub(lambda one: f"{one[1].replace('.', '')}.{one[2]}", text)
    return None if pointed == text else pointed


def same_span(text: str, gold: str) -> bool | None:
    """True if a text is the range that a right answer is; None where the right answer is none, or
    the text isn't.

    Example:
        >>> same_span("two to four", "2-4"), same_span("2-5", "2-4"), same_span("3", "2-4")
        (True, False, None)
    """
    wanted, said = (span(prepared(canonical(one))) for one in (gold, text))
    if wanted is None or said is None:
        return None
    return wanted[:2] == said[:2] and (
        not wanted[2] or UNIT.get(wanted[2], wanted[2]) == UNIT.get(said[2], said[2])
    )


def within(text: str, options: Sequence[str]) -> int | None:
    """The one option, where each is a range, in which the number that a text says lies.

    Example:
        >>> within("There are 5", ("1-3", "4-6", "7 or more"))
        1
    """
    if len(options) < 2:
        return None
    limit = bound(prepared(canonical(text)))
    if limit is not None:
        ends = [bound(prepared(canonical(option))) for option in options]
        return ends.index(limit) if ends.count(limit) == 1 else None
    said = only(text)
    if said is None:
        return None
    found = [holds(prepared(canonical(option)), said.value) for option in options]
    return found.index(True) if None not in found and found.count(True) == 1 else None


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
        r"none(?: (?:at all|of them))?|nothing|nobody|no one|nil|null|"
        r"no (?:[a-z]+s|people|men|women|children|sheep|fish)",
        r"(?:there (?:are|is)|there're|(?:i|we) (?:can )?see|(?:the \w+|it) "
        r"(?:shows|contains|has|displays)) "
        r"(?:none|no [a-z ]{2,40}|nothing|not a single [a-z ]+)",
        r"there (?:aren't|are not|isn't) any(?: [a-z ]{2,40})?",
        r"(?:i|we) (?:don't|do not|can't|cannot) see any(?: [a-z ]{2,40})?",
        r"no [a-z ]{2,40} are (?:visible|present|shown)[a-z ]*",
    )
)
