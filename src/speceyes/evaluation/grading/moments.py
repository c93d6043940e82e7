"""Times of day and dates, in figures and in words."""

from __future__ import annotations

import re
from typing import Final

from speceyes.evaluation.grading.cleaning import canonical
from speceyes.evaluation.grading.normal_form import number_words

_DAY_HALVES: Final = {
    "am": "am", "pm": "pm", "in morning": "am", "in afternoon": "pm", "in evening": "pm",
    "at night": "pm",
}  # fmt: skip
_HALF = rf"(?:\s*(?P<half>{'|'.join(_DAY_HALVES)}))?"
_FIGURES = re.compile(
    rf"(?P<hour>\d{{1,2}})[:.h]\s?(?P<minute>\d\d)(?::(?P<second>\d\d))?"
    rf"(?: ?(?:h|hrs?|hours|uhr|o'clock))?{_HALF}"
)
_DOTTED = re.compile(r"\d+\.\d")
_SPOKEN = re.compile(rf"(?P<hour>\d{{1,2}})\s(?P<minute>\d\d|0 \d){_HALF}")
_WHOLE = re.compile(rf"(?P<hour>\d{{1,2}})\s*(?:o'?clock{_HALF}|(?P<alone>am|pm))")
_AROUND = re.compile(
    rf"(?P<part>\d{{1,2}}|half|(?:a )?quarter)(?: minutes?)? (?P<way>past|after|to|before|till) "
    rf"(?P<hour>\d{{1,2}})(?: o'?clock)?{_HALF}"
)
_NAMED: Final = {"noon": (720, "pm"), "midday": (720, "pm"), "midnight": (0, "am")}
_MONTHS: Final = (
    "january february march april may june july august september october november december".split()
)
_MONTH = "|".join(f"{name[:3]}(?:{name[3:]}|t)?" for name in _MONTHS)
_DATES: Final = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?:\w+day )?(?P<month>{_MONTH}) (?:the )?(?P<day>\d{{1,2}})(?:st|nd|rd|th)?"
        r"(?: (?P<year>\d{4}))?",
        rf"(?:\w+day )?(?:the )?(?P<day>\d{{1,2}})(?:st|nd|rd|th)? (?:of )?(?P<month>{_MONTH})"
        r"(?: (?P<year>\d{4}))?",
        r"(?P<year>\d{4})[-/](?P<number>\d{1,2})[-/](?P<day>\d{1,2})",
    )
)
_LEAD = re.compile(
    r"^(?:(?:the |this )?(?:clock|watch|time|display|date|sign|calendar)(?: on (?:the )?\w+)?"
    r"(?: (?:shows?|shown|reads|says|displays|indicates|is))+ |it(?:'s| is| shows| reads| says) |"
    r"(?:the )?(?:current )?(?:time|date)(?: is)? |exactly |at |on )+(?:the time )?"
)

Moment = tuple[str, int, int, str]
"""("time", minutes of the half day, seconds, am, pm or nothing) or ("date", month and day, "
"year)."""


def moment(text: str, *, dotted: bool = False) -> Moment | None:
    """The time of day or the date that a text is; None where it is none.

    Args:
        text: The text.
        dotted: "7.30" is a time too, and not a number.

    Example:
        >>> moment("half past seven"), moment("The clock shows 7:30.")
        (('time', 450, 0, ''), ('time', 450, 0, ''))
        >>> moment("5 January 2020") == moment("2020-01-05")
        True
    """
    folded = canonical(text).casefold().strip(" .!\"'")
    folded = re.sub(r"\b([ap])\.\s?m\b\.?", r"\1m", folded).replace(" the ", " ")
    folded = re.sub(r"\boh (?=(?:one|two|three|four|five|six|seven|eight|nine|\d)\b)", "0 ", folded)
    folded = re.sub(r"(?<=[a-z]{3})\.(?= \d)", "", folded)
    words = re.sub(r"[,]|(?<=[a-z])-(?=[a-z])", " ", folded).split()
    plainly = " ".join(number_words([word for word in words if word != "the"]))
    # "Seven thirty" is read as 37 by no one; number words of a time stay apart.
    apart = " ".join(part for word in words for part in number_words([word]) if word != "the")
    for form in (plainly, apart):
        bare = _LEAD.sub("", form)
        if not dotted and _DOTTED.match(bare):
            return None
        found = _time(bare) or _date(bare)
        if found is not None:
            return found
    return None


def same(gold: Moment, said: Moment) -> bool:
    """True if a moment that was said is the right one: what the right one leaves open (half of
    the day, year) doesn't count.
    """
    if gold == ("time", 0, 0, "pm") and said == ("time", 0, 0, ""):
        return True  # noon, by a clock of 24 hours
    return gold[:2] == said[:2] and all(
        not mine or mine == its for mine, its in zip(gold[2:], said[2:], strict=True)
    )


def _time(text: str) -> Moment | None:
    if text in _NAMED:
        minutes, half = _NAMED[text]
        return "time", minutes % 720, 0, half
    around = _AROUND.fullmatch(text)
    if around:
        part = around["part"].removeprefix("a ")
        minutes = {"half": 30, "quarter": 15}.get(part) or int(part)
        minutes = minutes if around["way"] in ("past", "after") else -minutes
        return _at(int(around["hour"]) * 60 + minutes, 0, around["half"])
    found = _FIGURES.fullmatch(text) or _SPOKEN.fullmatch(text)
    if found:
        minute = int(found["minute"].replace(" ", ""))
        if minute > 59:
            return None
        minutes = int(found["hour"]) * 60 + minute
        seconds = found.groupdict().get("second")
        return _at(minutes, int(seconds or 0), found["half"])
    whole = _WHOLE.fullmatch(text)
    return whole and _at(int(whole["hour"]) * 60, 0, whole["half"] or whole["alone"])


def _at(minutes: int, seconds: int, half: str | None) -> Moment | None:
    if not 0 <= minutes < 1440 or seconds > 59:
        return None
    named = _DAY_HALVES.get(half or "", "")
    if not named and (minutes >= 780 or minutes < 60):
        named = "pm" if minutes >= 780 else "am"
    return "time", minutes % 720, seconds, named


def _date(text: str) -> Moment | None:
    for pattern in _DATES:
        found = pattern.fullmatch(text)
        if found is None:
            continue
        parts = found.groupdict()
        month = (
            int(parts["number"])
            if parts.get("number")
            else 1 + next(i for i, name in enumerate(_MONTHS) if name[:3] == parts["month"][:3])
        )
        if 1 <= month <= 12 and 1 <= int(parts["day"]) <= 31:
            return "date", month * 100 + int(parts["day"]), int(parts["year"] or 0), ""
    return None
