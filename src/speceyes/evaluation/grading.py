r"""Grading short answers by rules, without a model.

An answer is right where it names the gold answer and nothing else. What people and models wrap
around it is taken off first: "(A)", "A. red", "The answer is red.", "\boxed{3}", "It is on the
left", {"answer": "red"}, reasoning that ends in "Answer: B". An answer that hedges ("red or
blue", "2 or 3", "maybe") or denies ("not red", "(B) is wrong") is wrong: the rules never look for
the gold inside a longer text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_WORDS = {word: i for i, word in enumerate(_UNITS)} | {
    word: 20 + 10 * i for i, word in enumerate(_TENS)
}
_POWERS = {"hundred": 100, "thousand": 1000}
_SPELLING = {"grey": "gray", "colour": "color", "coloured": "colored"}
_ARTICLES = {"a", "an", "the"}
_DENIALS = {"no", "not", "none", "never", "cannot", "neither", "nope"}
_AFFIRMATIONS = {"yes", "yeah", "yep"}
_UNDECIDED = re.compile(
    r"\b(?:maybe|perhaps|possibly|probably|might|unsure|unclear|uncertain|unknown"
    r"|not (?:sure|certain|clear)|(?:hard|difficult|impossible) to (?:say|tell)"
    r"|(?:don't|do not) know|unable to"
    r"|(?:can't|cannot|can not|couldn't|could not) (?:be |really |quite )?"
    r"(?:tell|say|determined?|answer(?:ed)?|know|identify|confirm|sure))\b"
)
_BOTH = re.compile(r"\b(?:yes (?:or|and)? ?no|no (?:or|and)? ?yes)\b")
_INEXACT = re.compile(
    r"\b(?:about|around|approximately|roughly|nearly|almost|over|under|circa|at least|at most"
    r"|(?:more|less|fewer) than|up to)\b"
)

_THOUGHT = re.compile(r"^.*</think(?:ing)?>", re.S | re.I)
_UNFINISHED = re.compile(r"<think(?:ing)?>.*$", re.S | re.I)
_MARKUP = re.compile(r"<\|[^|<>]*\|>|</?(?:b|i|p|strong|em|br|code)\s*/?>", re.I)
_FENCE = re.compile(r"^```\w*\s*\n?(.*?)\n?```$", re.S)
_JSON = re.compile(
    r"""["']?(?:final[ _])?(?:answer|option|choice)["']?\s*:\s*"""
    r"""(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([^\s,}\]]+))""",
    re.I,
)
_CONCLUSION = re.compile(
    r"(?:^|\n|[.!?。]\s{1,4})\W{0,8}(?=(?:(?:so|thus|hence|therefore)\b[\s,]*)?(?:my |the )?"
    r"(?:(?:final |correct |right |best )?(?:answer|option|choice)(?: is\b|\W{0,3}[:=])))",
    re.I,
)
_TAG = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.S | re.I)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_LATEX_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}")
_LEAD = re.compile(
    r"^(?:so|thus|hence|therefore|ok|okay|well|sure)?[\s,]*"
    r"(?:my |the )?(?:final |correct |right |best )?(?:answer|option|choice)"
    r"(?:\s+(?:is|would be|must be|should be)\b)?\s*[:=]?\s*"
    r"|^(?:antwort|respuesta|réponse|risposta|答案|回答)\s*(?:ist|es|est|è|是|は)?\s*[:=]?\s*"
    r"|^i(?:'d| would)? (?:choose|pick|select|go with|say)\s+",
    re.I,
)
_COPULA = re.compile(
    r"^.*\b(?:is|are|was|were|looks|appears to be|seems to be|it's|they're|that's)\s+(\S.*)$", re.S
)
_PRONOUN = re.compile(r"^(?:(?:it|this|that) is|it's|that's|they are|they're)\s+")
_PLACE = re.compile(r"^(?:(?:on|to|in|at|of)\s+)+")
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?![\w]|\.\d)")
_BARE_LETTER = re.compile(r"^[(\[]?([A-Za-z])[)\]]?\s*[.:,)。!]?$")
_LETTER_AND_TEXT = re.compile(
    r"^(?:[(\[]([A-Za-z])[)\]]\s*[.:,-]?|([A-Za-z])\s*[.:)](?=\s)"
    r"|([A-Z])(?:\s*[,–—]|\s+-|(?=\s+(?:because|since)\b)|(?=\s*\(\w\w)))\s*(.+)$",
    re.S,
)
_TEXT_AND_LETTER = re.compile(r"^(.+?)[\s,]{0,3}[(\[]([A-Z])[)\]]\s*[.。]?$", re.S)
_OTHER_LETTER = re.compile(r"^\W*(?:or|and|/|&)\b|^\W*[(\[]?([A-Z])[)\]]?\W*$|[(\[][A-Z][)\]]")
_REFUSED = re.compile(
    r"^\W*(?:(?:is|was|can)\s+(?:not|wrong|incorrect|false)|isn't|wasn't|can't|cannot|not|wrong"
    r"|incorrect|false)\b",
    re.I,
)


def unwrap(text: str) -> str:
    """The answer itself: out of thoughts, tags, boxes, JSON and emphasis, without "the answer is".

    Example:
        >>> unwrap("<think>Red or blue?</think> So the answer is **blue**")
        'blue'
    """
    text = unicodedata.normalize("NFKC", text).replace("’", "'").replace("‘", "'").strip()
    text = _THOUGHT.sub("", text)
    tags = _TAG.findall(text)
    text = tags[-1] if tags else _UNFINISHED.sub("", text)
    boxes = _BOXED.findall(text)
    text = boxes[-1] if boxes else text
    text = _MARKUP.sub(" ", _LATEX_TEXT.sub(r"\1", text)).strip()
    text = text.replace("\\(", "").replace("\\)", "").replace("$", "")
    fenced = _FENCE.match(text)
    text = fenced[1].strip() if fenced else text
    if text.startswith("{"):
        fields = _JSON.findall(text)
        if len(fields) == 1:
            text = "".join(fields[0])
            text = {"true": "yes", "false": "no"}.get(text, text)
    text = re.sub(r"[*_`\"“”#]+", " ", text).strip()
    ends = [found.end() for found in _CONCLUSION.finditer(text)]
    text = text[ends[-1] :] if ends else text
    while (without := _LEAD.sub("", text, count=1).strip()) not in ("", text):
        text = without
    return text


def _number_words(words: list[str]) -> list[str]:
    """Number words as digits: up to ninety-nine, and whole hundreds and thousands."""
    out: list[str] = []
    for word in words:
        value = _WORDS.get(word)
        if word in _POWERS and out and out[-1].isdecimal():
            out[-1] = str(int(out[-1]) * _POWERS[word])
        elif value is None:
            out.append(word)
        elif out and value < 10 and value > 0 and out[-1] in {str(t) for t in range(20, 100, 10)}:
            out[-1] = str(int(out[-1]) + value)
        else:
            out.append(str(value))
    return out


def normalise(text: str) -> str:
    """The answer in its plainest form: lower case, digits, no punctuation, no articles.

    Example:
        >>> normalise("The answer is: Twenty-One Grey cats.")
        '21 gray cats'
    """
    text = unwrap(text).casefold()
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"\b(\d+)\.0+\b", r"\1", text)
    text = re.sub(r"(?<!\d)\.|\.(?!\d)|[^\w\s.+'-]", " ", text)
    text = re.sub(r"(?<=\w)-(?=\w)|(?<!\w)[-+'](?!\w)|'(?=\s|$)|(?<!\S)'", " ", text)
    words = [_SPELLING.get(word, word) for word in text.split()]
    kept = [word for word in words if word not in _ARTICLES]
    return " ".join(_number_words(kept or words))


def _forms(text: str) -> set[str]:
    """The normalised answer, whole and as what follows "is": "the collar is red" and "red"."""
    whole = normalise(text)
    forms = {whole, _PLACE.sub("", whole)}
    after = _COPULA.match(whole)
    if after:
        forms |= {after[1], _PLACE.sub("", after[1])}
    return forms - {""}


def _yes_or_no(text: str) -> str | None:
    """What the text says, yes or no; its first word counts most. None where it says neither, or
    doesn't decide.
    """
    plain = normalise(text)
    if _UNDECIDED.search(plain) or _BOTH.search(plain):
        return None
    words = plain.split()
    said = [
        "no" if word in _DENIALS or word.endswith("n't") else "yes"
        for word in words
        if word in _DENIALS or word in _AFFIRMATIONS or word.endswith("n't")
    ]
    if not said:
        return None
    first = words[0]
    if first in _AFFIRMATIONS or first in {"no", "nope"}:
        return said[0]
    return said[0] if len(set(said)) == 1 else None


def _numbers(text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in _NUMBER.findall(normalise(text))]


def _letter(text: str) -> tuple[str, str] | None:
    """The option letter that the answer begins with, and what follows it."""
    text = unwrap(text)
    bare = _BARE_LETTER.match(text)
    if bare:
        return bare[1].upper(), ""
    both = _LETTER_AND_TEXT.match(text)
    if both:
        return (both[1] or both[2] or both[3]).upper(), both[4].strip()
    return None


def _only_number(text: str) -> float | None:
    """The number that the text names; None where it names none, several, or no exact one."""
    plain = normalise(text)
    denied = any(word in _DENIALS or word.endswith("n't") for word in plain.split())
    if denied or _INEXACT.search(plain) or _UNDECIDED.search(plain):
        return None
    numbers = _numbers(text)
    return numbers[0] if len(numbers) == 1 else None


def _named(text: str, choices: Sequence[str]) -> set[int]:
    """The options that the text is: "blue" is "The car is blue", and the other way round."""
    forms, whole = _forms(text), _PRONOUN.sub("", normalise(text))
    options = [normalise(choice) for choice in choices]
    named = {i for i, option in enumerate(options) if option == whole}
    named = named or {i for i, option in enumerate(options) if option in forms}
    return named or {i for i, choice in enumerate(choices) if whole and whole in _forms(choice)}


def _option(text: str, choices: Sequence[str]) -> int | None:
    """Which option the answer names; None where it names none, or contradicts itself."""
    options = [normalise(choice) for choice in choices]
    named = _named(text, choices)
    # Options that are letters themselves are read as text.
    if len(named) == 1 and all(len(option) == 1 for option in options):
        return named.pop()
    lettered = _letter(text)
    if lettered is not None:
        return _lettered(*lettered, choices)
    if len(named) == 1:
        return named.pop()
    after = _TEXT_AND_LETTER.match(unwrap(text))
    if after is not None:  # "blue (B)"
        index = ord(after[2]) - 65
        return index if _named(after[1], choices) == {index} else None
    if sorted(options) == ["no", "yes"]:
        said = _yes_or_no(text)
        return None if said is None else options.index(said)
    if all(_NUMBER.fullmatch(option) for option in options):
        number = _only_number(text)
        found = [i for i, option in enumerate(options) if float(option) == number]
        return found[0] if len(found) == 1 else None
    return None


def _lettered(letter: str, rest: str, choices: Sequence[str]) -> int | None:
    """The option of that letter; None where what follows names another, hedges or denies."""
    index = ord(letter) - 65
    if index >= len(choices):
        return None
    named = _named(rest, choices)
    if index in named or not rest:
        return index
    if named or _OTHER_LETTER.search(rest) or _REFUSED.search(rest):
        return None
    return None if _UNDECIDED.search(normalise(rest)) else index


def is_correct(answer: str | None, gold: str, choices: Sequence[str] = ()) -> bool:
    """Whether a short answer is right.

    Args:
        answer: What was answered; None (no answer) is wrong.
        gold: The right answer: text, a number, yes or no, an option's letter or its text.
        choices: The options, without letters, in the order in which they were shown.

    Example:
        >>> is_correct("The collar is RED.", "red")
        True
        >>> is_correct("(B)", "blue", choices=("red", "blue"))
        True
        >>> is_correct("red or blue", "red")
        False
    """
    if answer is None or not answer.strip():
        return False
    if choices:
        wanted = _option(gold, choices)
        return wanted is not None and _option(answer, choices) == wanted
    target = normalise(gold)
    if target in {"yes", "no"}:
        return _yes_or_no(answer) == target
    numbers = _numbers(gold)
    if len(numbers) == 1 and re.fullmatch(r"[-+]?\d+(?:\.\d+)?", target):
        return _only_number(answer) == numbers[0]
    lettered = _letter(gold)
    if lettered is not None and not lettered[1]:
        found = _letter(answer)
        return found is not None and found[0] == lettered[0]
    return bool(target) and target in _forms(answer)
