"""Contrasts in an answer: "instead of red, it is green", "B over A", "不是A，而是B"."""

from __future__ import annotations

import re
from typing import Final

_IT: Final = (
    r"(?:(?:it|this|that|the (?:answer|\w+))(?:'s| is| was)?|there(?:'s| is| are)|"
    r"they(?:'re| are)|c'est|es|das|è|é|het|это|答案)?\s*(?:definitely |certainly |clearly )?"
)
_AGAINST: Final = (
    r"instead of|in place of|rather than|unlike|as opposed to|in contrast (?:to|with)|contrary to|"
    r"far from(?: being)?|anything but|anstatt|statt|anders als|au lieu (?:de |d')|"
    r"en (?:lugar|vez) de|al posto di|invece di|em vez de|in plaats van|вместо"
)
_PAIRS: Final = (
    (r"not|no|(?:is|are|was|were)n't", r"but(?: rather)?"),
    (r"(?:ist )?(?:nicht|kein\w*)", r"sondern"),
    (r"(?:n'est |ce n'est )?pas", r"mais"),
    (r"no(?: es| son)?", r"sino(?: que)?"),
    (r"non(?: è)?", r"ma|bensì"),
    (r"não(?: é)?", r"mas(?: sim)?"),
    (r"(?:is )?niet|geen", r"maar"),
    (r"не", r"а"),
)
"""Words for "not" and for the "but" that goes with it, a language each."""
_BEFORE: Final = (
    re.compile(
        rf"^{_IT}(?:{_AGAINST})\s*[^.;:!?\n]{{1,60}}?[,;:，]\s*(?P<rest>\S.*)$", re.I | re.S
    ),
    *(
        re.compile(
            rf"^{_IT}(?:{no})\s+[^.;:!?\n]{{1,60}}?[\s,;—–-]+(?:{but})\s+(?P<rest>\S.*)$",
            re.I | re.S,
        )
        for no, but in _PAIRS
    ),
    re.compile(
        rf"^{_IT}(?:not|no|(?:is|are|was|were)n't)\s+[^.;:!?\n]{{1,60}}?\s*[,;—–]\s*"
        r"(?:it's|it is|just|only|more of|rather|instead)\s+(?P<rest>\S.*)$",
        re.I | re.S,
    ),
    re.compile(r"^not (?:an?|the) [^.;:!?,\n]{1,40},\s*(?P<rest>(?:an?|the)\s\S.*)$", re.I | re.S),
    re.compile(
        r"^(?:nothing (?:but|except(?: for)?|other than)|no(?:ne|body)? (?:but|other than))\s+"
        r"(?P<rest>\S.*)$",
        re.I | re.S,
    ),
    re.compile(
        r"^(?:any(?:thing|one)?|every(?:thing|one)?|all)\b[^.;:!?\n]{0,30}?"
        r"\b(?:but|except(?: for)?|other than)\s+[^.;:!?\n]{1,40}:\s*(?P<rest>\S.*)$",
        re.I | re.S,
    ),
    re.compile(
        r"^(?:at first(?: (?:glance|sight|look))?|initially|originally|first|"
        r"my first (?:guess|thought|impression|answer)(?: was)?|"
        r"i (?:was going to|almost|nearly) (?:say|said|answer(?:ed)?|pick(?:ed)?)|"
        r"auf den ersten blick|à première vue|a primera vista)\b,?\s+[^;\n]{1,80}?[.,;]?\s+"
        r"(?:but|however|yet|then|(?:it's |it is )?actually|aber|mais|pero)\b,?\s+"
        r"(?P<rest>\S.*)$",
        re.I | re.S,
    ),
    re.compile(
        r"^(?:i|we)\s+(?:(?:initially|originally|at first|first|previously|had)\s+)*"
        r"(?:said|thought|counted|wrote|guessed|saw|assumed|believed|picked|chose|answered|read|"
        r"put|had)\s+[^;\n]{1,60}?[.,;]?\s+(?:but|however|yet|then|though)\b,?\s+"
        r"(?:(?:i|it|we)\s+)?(?:(?:now|really|actually)\s+)?(?:mean[st]?\s+|see\s+|count\s+|"
        r"think\s+)?(?P<rest>\S.*)$",
        re.I | re.S,
    ),
    re.compile(
        r"^(?:它|这|這|答案|颜色|顏色)?(?:并|並)?不是[^。；;\n]{1,40}?[,，]\s*(?:而是|是)\s*(?P<rest>\S.*)$",
        re.S,
    ),
    re.compile(r"^.{1,40}?(?:ではなく|じゃなくて?|でなく)[、,]?\s*(?P<rest>\S.*)$", re.S),
    re.compile(r"^.{1,40}?(?:이|가)?\s*아니라\s+(?P<rest>\S.*)$", re.S),
)
"""What the answer is not, and then the answer."""
_RATHER: Final = re.compile(
    r"^(?:rather|sooner|eher|plutôt)\s+(?P<rest>[^.;:!?\n]{1,60}?)\s+(?:than|als|que)\s.{1,60}$",
    re.I,
)
_AFTER: Final = (
    re.compile(r"\s*,\s*never\s+(?:an?|the)\s+[^.;:!?,\n]{1,40}(?=[.!\n]|$)", re.I),
    re.compile(r",\s*not\s+[^.;:!?,\n]{1,30},(?=\s)", re.I),
    re.compile(rf"\s*[,;(–—-]?\s*\b(?:{_AGAINST})\s+[^.;:!?\n]{{1,60}}?\)?(?=[.!\n]|$)", re.I),
    re.compile(
        r"\s*[,;(–—-]?\s*\b(?:and|but)\s+(?:is |it's |it is )?(?:definitely|certainly|clearly|"
        r"obviously|absolutely|surely|most certainly|by no means|in no way)(?: not)?\s+"
        r"[^.;:!?\n]{1,60}?\)?(?=[.!\n]|$)",
        re.I,
    ),
)
"""The answer, and then what it is not."""
_OVER: Final = re.compile(
    r"^(?P<rest>[(\[]?(?:option |choice )?(?:[A-Z]|\w{1,30})[)\]]?)\s+(?:over|to)\s+"
    r"[(\[]?(?:option |choice )?(?:[A-Z]|\w{1,30})[)\]]?\s*[.!]*$"
)


def without_contrast(text: str, *, preferred: bool = False) -> str:
    """The text without what the answer is said not to be.

    Args:
        text: A claim.
        preferred: It was said to be picked, so that "B over A" is B.

    Example:
        >>> without_contrast("Instead of red, it is green"), without_contrast("Rather B than A")
        ('it is green', 'B')
        >>> without_contrast("The cup is red")
        'The cup is red'
    """
    text = text.strip()
    for pattern in (*_BEFORE, _RATHER, *((_OVER,) if preferred else ())):
        found = pattern.match(text)
        if found:
            return str(found["rest"])
    for pattern in _AFTER:
        shorter = pattern.sub("", text).strip()
        if shorter:
            text = shorter
    return text


def rather(text: str) -> str:
    """The text, or what somebody would rather say: "Rather no than yes" is "no"."""
    found = _RATHER.match(text.strip())
    return str(found["rest"]) if found else text


def said(text: str, left: str) -> str:
    """The part of a text in which a hedge counts: what follows where what it isn't came first."""
    return left if text.strip().endswith(left) else text
