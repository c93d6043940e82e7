r"""Taking an answer out of what models wrap around it: thoughts, tags, boxes, JSON, emphasis."""

from __future__ import annotations

import functools
import html
import json
import re
import unicodedata
from dataclasses import dataclass
from typing import Any, Final, final

from speceyes.evaluation.grading.languages import (
    CONCLUSION,
    CORRECTION,
    LEAD,
    NO_CONCLUSION,
    TRAIL,
)

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff]")
_POWERS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_POWER = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_FRACTION = re.compile("(?<=[0-9])(?=[¼½¾⅐-⅞])")
_MINUS = re.compile("[\u2212\u2010\u2011\ufe63]")
_DASH_SIGN = re.compile(r"(?<!\d)(?<!\d\s)[–—](?=\.?\d)")

_FEET = re.compile(r"(?<=\d)'(?!\w)|(?<=\d)'(?=\d{1,2}(?!\d))")
_INCHES = re.compile(r'(?<=\d)"(?!\w)')
_FEET_INCHES = re.compile(r"""\d'\s?\d{1,2}(?:"|''|\s?in)""")

_THOUGHT = re.compile(
    r"(?:</(?:think(?:ing)?|thought|reason(?:ing)?|reflection|analysis|scratchpad)>|"
    r"◁/think▷|\[/THINK\]|<\|message\|>)",
    re.I,
)
_UNFINISHED = re.compile(r"<think(?:ing)?>|◁think▷|\[THINK\]", re.I)
_RUN = re.compile(r"\s{2,}")
_TAG = re.compile(
    r"(?:<((?:final_?)?(?:answer|ans|response|choice)|solution|final|result|output)>|\[(ANSWER)\]|<\|begin_of_box\|>)(.*?)"
    r"(?:</(?:(?:final_?)?(?:answer|ans|response|choice)|solution|final|result|output)>|\[/ANSWER\]|<\|end_of_box\|>|$)",
    re.S | re.I,
)
_STOPPED = re.compile(
    r"</s>|<\|(?:endoftext|im_end|eot_id|end|eom_id|end_of_text)\|>|<(?:eos|eot|end_of_turn)>"
    r"|<\|end▁of▁sentence\|>",
    re.I,
)
_END = re.compile(
    r"</?s>|<\|[^|<>]{0,40}\|>|<(?:eos|bos|pad|unk|eot|end_of_turn|start_of_turn|"
    r"end_of_utterance|endoftext)>|\[/?(?:INST|EOS|BOS|PAD)\]|<0x0A>",
    re.I,
)
_DOUBLE = re.compile(r"(?:\[\[|<<|\(\()\s*([A-Za-z])\s*(?:\]\]|>>|\)\))|(?<!\S)<([A-Z])>(?!\S)")
_HTML = re.compile(r"</?(?:b|i|p|u|em|br|hr|strong|code|span|div|sup|mark)\s*/?>", re.I)
_STRUCK = re.compile(r"~~[^~\n]{1,200}~~|<(?:s|del|strike)>[^<]{1,200}</(?:s|del|strike)>")
_FENCE = re.compile(r"```\w*\s*\n?(.*?)\n?```", re.S)
_OBJECT = re.compile(r"\{[^{}]*\}\s*$")
_FIELD = re.compile(
    r"""["']?(?:final[ _])?(?:answer|option|choice)["']?\s*:\s*"""
    r"""(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([^\s,}\]]+))""",
    re.I,
)
_KEYS = frozenset(
    ("answer", "final_answer", "finalanswer", "final answer", "option", "choice", "final")
)

_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_LATEX_TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt)?|math(?:rm|bf|it|sf|tt)|mbox|operatorname)\s*\{([^{}]*)\}"
)
_LATEX_INDEX = re.compile(r"(?<=[A-Za-z])_\{?(\d{1,3})\}?")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_LATEX_SIGNS = {
    r"\approx": "≈", r"\sim": "~", r"\simeq": "≈", r"\pm": "±", r"\geq": "≥", r"\ge": "≥",
    r"\leq": "≤", r"\le": "≤", r"\gt": ">", r"\lt": "<", r"\neq": "≠", r"\ne": "≠",
    r"\times": "×", r"\cdot": "×", r"\circ": "°", r"\degree": "°", r"\rightarrow": "→",
    r"\to": "→", r"\leftarrow": "←", r"\quad": " ", r"\left": "", r"\right": "",
}  # fmt: skip
_LATEX_SIGN = re.compile(r"\\[a-z]+(?![a-z])|\\[%$#&_{}]|\\[,;:! ()\[\]]")
_MATH = re.compile(r"\$\$?(?! )([^$\n]{1,200}?)(?<! )\$\$?(?!\d)")
_DOLLARS = re.compile(r"\$\s?(\d[\d,]*(?:\.\d+)?)")
_CONFIDENCE = re.compile(
    r"(?:^|(?<=[\n.;,!?)\s]))\s*\|?\s*[(\[]?\b(?:confiden(?:ce|t)|certainty|probability)"
    r"(?: (?:level|score))?\s*"
    r"(?:[:=]|is)?\s*(?:very )?(?:high|medium|low|\d[\d./]{0,6}\s?%?)[)\]]?\.?(?=\s*(?:\n|$))"
    r"|\s*[(\[](?:very )?(?:high|medium|low) (?:confidence|certainty)[)\]]\.?(?=\s*(?:\n|$))",
    re.I,
)
_EMPHASIS = re.compile(
    r"\*+|`+|(?<!\w)_+(?=\S)|(?<=\S)_+(?!\w)|^#+\s+|^[-•]\s+(?=[A-Za-z(])|^>+\s+(?=[^\W\d])|"
    r"[\"“”«»„‟「」『』]",
    re.M,
)

LONGEST: Final = 3000
"""Characters that are read of an answer: of a longer one the start and the end."""
_MOST: Final = 6
"""Conclusions of a text that are held against each other, the last ones."""


@final
@dataclass(frozen=True, slots=True)
class Claim:
    """A place where an answer says what the answer is.

    Args:
        text: What it says, with all that follows it.
        before: The rest of its own sentence before it, and the sentence before that.
        same: The part of `before` that is in the claim's own sentence.
        corrects: The speaker takes back what was said before it.
        picked: It is introduced as a choice: "I'd pick".
    """

    text: str
    before: str = ""
    same: str = ""
    corrects: bool = False
    picked: bool = False


@functools.lru_cache(1024)  # the same few texts are compared over and over
def canonical(text: str) -> str:
    """The text in one spelling of Unicode: signs, widths and quotes alike, nothing invisible.

    Superscripts become powers ("3²" is "3^2", not "32"), minus signs become "-".

    Example:
        >>> canonical("３² ≠ −½")
        '3^2 ≠ -1/2'
    """
    text = _INVISIBLE.sub("", text).replace("\u00a0", " ").replace("\u202f", " ")
    text = text.replace("º", "°").replace("˚", "°")
    text = _POWER.sub(lambda found: "^" + found[0].translate(_POWERS), text)
    text = _FRACTION.sub(" ", text)
    text = (
        unicodedata.normalize("NFKC", text).replace("\u2044", "/").replace("\u2032\u2032", "\u2033")
    )
    text = _MINUS.sub("-", text)
    text = re.sub("[’‘‛´ʼ](?=\\w)|(?<=\\w)[’‘‛´ʼ]", "'", text)
    if text.count("'") == 1 or _FEET_INCHES.search(text):
        text = _FEET.sub("\u2032", text)
    if text.count('"') == 1:
        text = _INCHES.sub("\u2033", text)
    return _DASH_SIGN.sub("-", text).strip()


def plain(text: str) -> str:
    """The text as it is held against an option as it was written: case and signs count.

    Example:
        >>> plain(" **x  > y.** ")
        'x > y'
    """
    text = " ".join(canonical(text).split())
    bare = text.strip("*_` \"'“”‘’«»")
    bare = bare[:-1].rstrip() if bare.endswith((".", "。")) and len(bare) > 1 else bare
    return bare.strip("*_` \"'“”‘’«»") or text


def _fields(text: str) -> str | None:
    """The answer out of a JSON object; None where there is no object, or not one answer in it."""
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError):
        found = {"".join(one) for one in _FIELD.findall(text)}
        return found.pop() if len(found) == 1 else None
    if isinstance(data, list) and len(data) == 1:
        return _said(data[0])
    if not isinstance(data, dict):
        return None
    values = {_said(v) for k, v in data.items() if str(k).casefold() in _KEYS}
    return values.pop() if len(values) == 1 else None


def _said(value: Any) -> str | None:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, str | int | float) else None


def strip_wrapping(text: str) -> str:
    """The text without thoughts, tags, end tokens, fences, LaTeX and emphasis; a box is kept as
    a line "answer: ..." where it stood.
    """
    text = _RUN.sub(lambda run: "\n\n" if "\n" in run[0] else " ", canonical(text))
    ends = [match.end() for match in _THOUGHT.finditer(text)]
    text = text[ends[-1] :] if ends else text
    parts = _STOPPED.split(text)
    text = next((part for part in parts if part.strip()), text)
    tags = _TAG.findall(text)
    text = tags[-1][2] if tags else _UNFINISHED.split(text, maxsplit=1)[0]
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]}\n{text[-LONGEST // 2 :]}"
    text = _END.sub("\n" if "\n" in text else " ", _STRUCK.sub(" ", text)).strip()
    fenced = _FENCE.fullmatch(text)
    text = fenced[1].strip() if fenced else text
    if text[:1] in ("{", "["):
        text = _fields(text) or text
    elif '"answer"' in text or "'answer'" in text:
        held = _OBJECT.search(_FENCE.sub(r"\1", text))
        text = (held and _fields(held[0].strip())) or text
    return _undressed(text)


def _undressed(text: str) -> str:
    text = _DOUBLE.sub(lambda one: f"({one[1] or one[2]})", text)
    text = _LATEX_TEXT.sub(r"\1", _LATEX_TEXT.sub(r"\1", text))
    text = _LATEX_INDEX.sub(r"\1", text)
    text = _LATEX_FRACTION.sub(r"\1/\2", text)
    if "\\boxed" in text or "\\fbox" in text:
        whole = _BOXED.fullmatch(text.strip().strip("$.").strip())
        text = whole[1] if whole else _BOXED.sub(lambda b: f"\nanswer: {b[1]}\n", text)
    text = _MATH.sub(r"\1", text)
    text = _LATEX_SIGN.sub(_sign, text)
    text = html.unescape(_HTML.sub(" ", text))
    text = text.replace("^°", "°").replace("^{°}", "°")
    text = _DOLLARS.sub(r"\1 dollars", text)
    text = _EMPHASIS.sub(" ", text).strip()
    return _CONFIDENCE.sub(" ", text).strip() or text


def _sign(found: re.Match[str]) -> str:
    sign = found[0]
    if sign[1] in "%$#&_{}":
        return sign[1]
    return _LATEX_SIGNS.get(sign, " ")


def without_lead(text: str) -> str:
    """The text without what leads up to the answer: "I think it is", "Option", "So".

    Example:
        >>> without_lead("So I think it is (B).")
        '(B)'
    """
    text = text.strip().strip("'").strip()
    for _ in range(12):
        rest = LEAD.sub("", text, count=1).strip()
        if rest in ("", text):
            break
        text = rest
    return TRAIL.sub("", text).strip() or text


def claims(text: str) -> list[Claim]:
    """Where a text without wrapping says what the answer is, in order; the whole text where it
    says so nowhere.
    """
    found = []
    for match in list(CONCLUSION.finditer(text))[-_MOST:]:
        start = match.start()
        sentence = _sentence(text, start)
        same = text[sentence:start]
        if NO_CONCLUSION.search(same.strip()):
            continue
        earlier = _sentence(text, max(0, sentence - 2))
        found.append((match, earlier, sentence))
    made: list[Claim] = []
    for at, (match, earlier, sentence) in enumerate(found):
        end = found[at + 1][2] if at + 1 < len(found) else len(text)
        before = found[at - 1][0].end() if at else 0
        if end <= match.end():
            end = found[at + 1][0].start() if at + 1 < len(found) else len(text)
        between = text[before : match.start()]
        made.append(
            Claim(
                text[match.end() : end].strip(),
                text[max(earlier, before) : match.start()],
                text[max(sentence, before) : match.start()],
                bool(CORRECTION.search(between)),
                bool(_PICKED.match(match[0])),
            )
        )
    made = [claim for claim in made if claim.text.strip(" .,:;!*-")]
    return made or [Claim(text)]


_PICKED = re.compile(r"i(?:'d|'ll|\s)", re.I)
_STOP = re.compile(r"[.!?。！？;；\n](?=\s|$|[^\x00-\x7f])|[。！？；\n]")


def _sentence(text: str, at: int) -> int:
    """Where the sentence that holds a place begins."""
    window = max(0, at - 300)
    ends = [match.end() for match in _STOP.finditer(text, window, at)]
    return ends[-1] if ends else window


def unwrap(text: str) -> str:
    """The answer itself: out of thoughts, tags, boxes, JSON and emphasis, without "the answer is".

    Example:
        >>> unwrap("<think>Red or blue?</think> So the answer is **blue**")
        'blue'
    """
    return " ".join(without_lead(claims(strip_wrapping(text))[-1].text).split())
