r"""Grading short answers by rules, without a model.

An answer is right where it names the gold answer and nothing else. What people and models wrap
around it is taken off first: "(A)", "A. red", "The answer is red.", "\boxed{3}", "It is on the
left". An answer that hedges ("red or blue", "2 or 3") or denies ("not red") is wrong: the rules
never look for the gold inside a longer text.
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
_SPELLING = {"grey": "gray", "colour": "color", "coloured": "colored"}
_ARTICLES = {"a", "an", "the"}
_DENIALS = {"no", "not", "none", "never", "cannot", "neither", "nope"}
_AFFIRMATIONS = {"yes", "yeah", "yep"}

_TAG = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.S | re.I)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_LATEX_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}")
_LEAD = re.compile(
    r"^(?:so|thus|hence|therefore|ok|okay|well|sure)?[\s,]*"
    r"(?:my |the )?(?:final |correct |right |best )?(?:answer|option|choice)"
    r"(?:\s+(?:is|would be|must be|should be))?\s*[:=]?\s*",
    re.I,
)
_COPULA = re.compile(
    r"^.*\b(?:is|are|was|were|looks|appears to be|seems to be|it's|they're|that's)\s+(\S.*)$", re.S
)
_PLACE = re.compile(r"^(?:(?:on|to|in|at|of)\s+)+")
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?![\w]|\.\d)")
_BARE_LETTER = re.compile(r"^[(\[]?([A-Za-z])[)\]]?\s*[.:,)]?$")
_LETTER_AND_TEXT = re.compile(
    r"^(?:[(\[]([A-Za-z])[)\]]\s*[.:,-]?|([A-Za-z])\s*[.:)](?=\s))\s*(.+)$", re.S
)


def _unwrap(text: str) -> str:
    """The answer itself: out of tags, boxes and emphasis, without "the answer is"."""
    text = unicodedata.normalize("NFKC", text).replace("’", "'").strip()
    tags = _TAG.findall(text)
    text = tags[-1] if tags else text
    boxes = _BOXED.findall(text)
    text = boxes[-1] if boxes else text
    text = _LATEX_TEXT.sub(r"\1", text).replace("$", "")
    text = re.sub(r"[*_`\"“”]+", " ", text).strip()
    without = _LEAD.sub("", text, count=1).strip()
    return without or text


def _number_words(words: list[str]) -> list[str]:
    """Number words up to ninety-nine as digits."""
    out: list[str] = []
    for word in words:
        value = _WORDS.get(word)
        if value is None:
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
    text = _unwrap(text).casefold()
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"\b(\d+)\.0+\b", r"\1", text)
    text = re.sub(r"(?<!\d)\.|\.(?!\d)|[^\w\s.+'-]", " ", text)
    text = re.sub(r"(?<=\w)-(?=\w)|(?<!\w)[-+'](?!\w)|'(?=\s|$)|(?<=\s)'", " ", text)
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
    """What the text says, yes or no; its first word counts most. None where it says neither."""
    words = normalise(text).split()
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
    text = _unwrap(text)
    bare = _BARE_LETTER.match(text)
    if bare:
        return bare[1].upper(), ""
    both = _LETTER_AND_TEXT.match(text)
    if both:
        return (both[1] or both[2]).upper(), both[3].strip()
    return None


def _option(text: str, choices: Sequence[str]) -> int | None:
    """Which option the answer names; None where it names none, or contradicts itself."""
    options = [normalise(choice) for choice in choices]
    forms = _forms(text)
    named = {i for i, option in enumerate(options) if option in forms}
    # Options that are letters themselves are read as text.
    if len(named) == 1 and all(len(option) == 1 for option in options):
        return named.pop()
    lettered = _letter(text)
    if lettered is not None:
        letter, rest = lettered
        index = ord(letter) - 65
        if index >= len(choices):
            return None
        meant = _forms(rest)
        others = {i for i, option in enumerate(options) if option in meant and i != index}
        return index if not others or options[index] in meant else None
    return named.pop() if len(named) == 1 else None


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
        return _numbers(answer) == numbers
    lettered = _letter(gold)
    if lettered is not None and not lettered[1]:
        found = _letter(answer)
        return found is not None and found[0] == lettered[0]
    return bool(target) and target in _forms(answer)
