"""Multiple choice: the option that a right answer is, and the one that an answer names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from speceyes.evaluation.grading import polarity, quantity
from speceyes.evaluation.grading.cleaning import (
    Claim,
    canonical,
    claims,
    plain,
    strip_wrapping,
    without_lead,
)
from speceyes.evaluation.grading.corrections import last_word, ruled_out
from speceyes.evaluation.grading.languages import (
    ALTERNATIVE,
    BUT,
    CONTRAST,
    CORRECT,
    CORRECTION,
    DENIAL,
    EXPLANATION,
    FOREIGN_ARTICLES,
    HEDGE,
    PLACE,
    REFUSED,
)
from speceyes.evaluation.grading.moments import moment
from speceyes.evaluation.grading.moments import same as same_moment
from speceyes.evaluation.grading.normal_form import simplest

_LEVELS: Final[tuple[Callable[[str], str], ...]] = (
    str.strip,
    plain,
    lambda text: plain(text).casefold(),
    simplest,
)
"""From the text as it stands to its plainest form. Options that one form can't tell apart another
may.
"""
_BRACKETED = re.compile(r"^[(\[{<]\s*([A-Za-z])\s*[)\]}>]\s*[.:,)-]?\s*(.*)$", re.S)
_MARKED = re.compile(
    r"^([A-Za-z])\s*(?:[.)](?![A-Za-z]\.)|[:,;、．!/|&+]|[-–—](?=\s))\s*(.*)$", re.S
)
_SPOKEN = re.compile(
    r"^([A-Z])(?=\s*\n|\s*\(|\s+(?:because|since|as|is|it|for|or|and|must|seems|looks|would|"
    r"weil|parce|porque|perché|omdat|maybe|perhaps|probably|i|not|isn't|rather|instead|"
    r"ist|est|es|è|é|это)\b|が|は|是|가|이|或|和|也)\s*(.*)$",
    re.S,
)
_ALONE = re.compile(r"^[(\[]?([A-Za-z])\W*$")
_LAST = re.compile(
    r"^(.*\S)[\s,:–—-]{0,4}(?:[(\[]\s*(?:(?:option|choice|answer)\s+)?([A-Z])\s*[)\]]"
    r"|[(\s,]\s?(?:option|choice|answer)\s+([A-Z])\)?)\s*[.。]?$",
    re.S,
)
_ENDING = re.compile(
    r"(?:^|[\s,.;:])(?:(?:so|thus|hence|therefore|also|donc|quindi|→|=>|⇒|所以|因此)[,:]?\s*"
    r"(?:it(?:'s| is| must be) )?|(?:is|leaves|leads to|matches|be)\s+(?:answer |option |"
    r"choice )?)[(\[]?([A-Z])[)\]]?\s*[.!。]*$",
    re.I,
)
_IT_IS = re.compile(r"^\s*(?:it|this|that)(?:'s| is)?\s", re.I)
_SUBJECT = r"(?!\s+(?:is|are|was|shows?|has|looks|would|says)\b)"
_OTHERS = re.compile(
    rf"[(\[]([A-Z])[)\]]{_SUBJECT}|\b(?:option|choice|answer)\s+([A-Z])\b{_SUBJECT}"
)
_LISTED = re.compile(
    r"(?:^|\n)\s*[(\[]?([A-Z])[.):\]]\s|\b([A-Z])\s+(?:is|would be|could be)\s+(?:also\s+|"
    r"probably\s+)?"
    r"(?:correct|right|possible|plausible|true|the (?:right |correct )?answer)"
)
_AND_OTHER = re.compile(
    r"^\W*(?:no\s+)?([A-Z])\W*$|(?:\bor|\band|/|&|,)\s*[(\[]?([A-Z])[)\]]?\s*(?:[.,!]|$)"
)
_DENIED = re.compile(
    r"(?:\bnot|rather than|instead of)\s+(?:option |choice )?[(\[]?[A-Z][)\]]?(?!\w)"
    r"|[(\[]?\b[A-Z][)\]]?\s+(?:is|was)(?:n't| not| wrong| incorrect| false)\b[^.\n]*"
)
_COPULA = re.compile(
    r"\b(?:is|are|was|were|looks(?: like)?|appears(?: to be)?|seems(?: to be)?|be|it's|they're|"
    r"that's|there's|has|have|points?(?: to)?|faces?|indicates?|equals?|shows?|displays?|"
    r"depicts?|he's|she's|says|reads|contains?|see|"
    r"ist|sind|zeigt|gibt|est|sont|y a|es|son|está|están|hay|è|sono|é|são|zijn|"
    r"это)(?!\w)[\s:]*|c'est\s+|(?:是|は|が|은|는|이|가)\s*"
)
_DOING = re.compile(
    r"^(?:clearly|definitely|just|simply|only|actually|indeed|obviously|currently|located|"
    r"situated|positioned|placed|standing|sitting|lying|parked|colou?red|painted|made (?:out )?of|"
    r"called|named|holding|wearing|riding|carrying|eating|using|written|labell?ed|marked)\s+"
)
_POSITION = re.compile(r"^(?:(?:on|to|in|at|of|from|by|near|a|an|the)\s+)+")
_INSTEAD = re.compile(
    r"^[\s,;(–—-]*(?:and )?(?:not|rather than|instead of)\s+([^.\n]{1,60}?)[.\s]*$", re.I
)
_SENTENCE = re.compile(
    r"(?<=[^\W\d_]{2})[.!](?=\s)|(?<=[)\]\"'%°\d])[.!](?=\s)|[。！；\n;]+|\.\s*\n"
)
_ONE = re.compile(
    r"^(?:the )?ones?\s+(?=(?:on|in|at|to|with)\b)|\s+ones?$|\s+of (?:them|these|those|"
    r"the (?:two|above))$|\s+to me$|\s+(?:in )?colou?r(?:ed)?$|[- ](?:hand[- ])?(?:side|corner|"
    r"area|part|portion|section)$",
    re.I,
)
_AND_CLAUSE = re.compile(r"\b(?:and|but|while|whereas|or)\b|[,;]")
_BRACKET = re.compile(r"[(\[{][A-Za-z][)\]}]\W?")
_PLACES = ("first", "second", "third", "fourth", "fifth", "sixth")
_ORDINALS = (*_PLACES, "1st", "2nd", "3rd", "4th", "5th", "6th")
_PLACED = re.compile(rf"\b(?:{'|'.join(_ORDINALS)}|last|[1-6])\b", re.I)
_ORDINAL = re.compile(
    rf"(?:(?:it is|it's|i choose|the answer is) )?(?:the )?(?:({'|'.join(_ORDINALS)}|last) "
    r"(?:option|choice|answer)|(?:option|choice|answer) (?:number |no\. |#)?([1-6]))"
    r"(?: is (?:the )?(?:correct|right)(?: one| answer)?)?[.!]*",
    re.I,
)
LETTER: Final = re.compile(r"[(\[]?([A-Za-z])[)\].:]{0,2}")
"""A right answer that is an option's letter."""
_OWN = re.compile(r"^\s*(?:[(\[]([A-Z])[)\]]|([A-Z])[.):])\s*(?=\S)")
_IS_COLOUR = re.compile(
    r"^(.+?)\s+(?:is|are|would be|must be) (?:the |its |their )(?:correct |right |best |main )?"
    r"(?:answer|option|choice|colou?r|one|shape|material|number|object|animal|name|word)\b[^.]*$"
    r"|^(.+?)\s+(?:is|are) (?:written|printed|painted|displayed)\b(?: (?:on|in|at) .{1,40})?$",
    re.I,
)


def equal(text: str, choices: Sequence[str]) -> int | None:
    """The one option that a text is; None where it is none, or can't be told apart from another.

    Example:
        >>> equal("x < y", ("x > y", "x < y")), equal("Red.", ("red", "blue"))
        (1, 0)
        >>> equal("cat", ("a cat", "the cat")) is None
        True
    """
    asks = text.rstrip(" \"')*_").endswith(("?", "？"))
    lettered = _BRACKET.fullmatch(text.strip())
    for form in _LEVELS[:3] if asks or lettered else _LEVELS:
        wanted = form(text)
        same = [
            i
            for i, choice in enumerate(choices)
            if form(choice) == wanted and (form is not simplest or len(choice.strip()) > 1)
        ]
        if same:
            return same[0] if len(same) == 1 and wanted else None
    return None


def indistinguishable(choices: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of options that no answer in words can tell apart: they differ in nothing but spaces,
    quotes, emphasis and a full stop.

    Example:
        >>> indistinguishable(("red", "Red", "blue", "red."))
        [('red', 'red.')]
    """
    forms = [plain(choice) for choice in choices]
    return [
        (choices[i], choices[j])
        for i in range(len(choices))
        for j in range(i + 1, len(choices))
        if forms[i] == forms[j]
    ]


def own_letters(choices: Sequence[str]) -> list[tuple[str, str]] | None:
    """(letter, text) of options that bring letters of their own: "A. red", "B. blue". None where
    not all do, or the letters aren't the first ones of the alphabet, each once.

    Example:
        >>> own_letters(("B. blue", "A. red"))
        [('B', 'blue'), ('A', 'red')]
    """
    found = [_OWN.match(choice) for choice in choices]
    if len(choices) < 2 or not all(found):
        return None
    letters = [(one[1] or one[2]) for one in found if one]
    if sorted(letters) != [chr(65 + i) for i in range(len(choices))]:
        return None
    texts = [choice[one.end() :].strip() for choice, one in zip(choices, found, strict=True) if one]
    return list(zip(letters, texts, strict=True)) if all(texts) else None


def of_gold(gold: str, choices: Sequence[str]) -> int | None:
    """The option that a right answer is: by its text, by its letter, or by its value.

    The right answer is data, so that nothing is taken off it but spaces, brackets and marks.

    Example:
        >>> of_gold("A. red", ("B. blue", "A. red")), of_gold("(B)", ("red", "blue"))
        (1, 1)
    """
    found = equal(gold, choices)
    if found is not None:
        return found
    alone = LETTER.fullmatch(gold.strip())
    if alone:
        place = ord(alone[1].upper()) - 65
        return place if place < len(choices) else None
    lettered = _OWN.match(gold)
    if lettered:
        place = ord(lettered[1] or lettered[2]) - 65
        if equal(gold[lettered.end() :], choices) == place:
            return place
    return _by_value(quantity.of_gold(gold), choices)


def _by_value(found: quantity.Quantity | None, choices: Sequence[str]) -> int | None:
    """The one option of that number, where all options are numbers that differ."""
    if found is None:
        return None
    values = [quantity.of_gold(choice) for choice in choices]
    same = [i for i, value in enumerate(values) if value is not None and value.same(found)]
    if not same and all(value is not None for value in values):
        bare = [i for i, v in enumerate(values) if v is not None and v.value == found.value]
        same = bare if not found.unit else []
    return same[0] if len(same) == 1 else None


def named(answer: str, choices: Sequence[str]) -> int | None:
    """The option that an answer names; None where it names none or several, hedges or denies.

    Args:
        answer: What was answered.
        choices: The options, in the order in which they were lettered.

    Example:
        >>> named("The car is blue, so the answer is B.", ("red", "blue"))
        1
        >>> named("maybe B", ("red", "blue")) is None
        True
    """
    whole = equal(answer, choices)
    if whole is not None:
        return whole
    text = strip_wrapping(answer)
    whole = equal(text, choices)
    if whole is not None:
        return whole
    placed = _placed(text, choices)
    if placed is not None:
        return placed
    found = claims(text)
    last = _claimed(found[-1], choices)
    if last is None and len(found) > 1:
        # A formula or a remark that looks like a conclusion says nothing of the options.
        return None
    taken_back = found[-1].corrects
    for earlier in reversed(found[:-1]):
        other = _claimed(earlier, choices)
        if other not in (None, last) and not taken_back:
            return None
        taken_back = taken_back or earlier.corrects
    return last


def _placed(text: str, choices: Sequence[str]) -> int | None:
    """The option that is named by its place: "the second option", "option 2"."""
    found = _ORDINAL.fullmatch(text.strip())
    if found is None or any(_PLACED.search(choice) for choice in choices):
        return None
    if found[2]:
        place = int(found[2]) - 1
    elif found[1].casefold() == "last":
        place = len(choices) - 1
    else:
        place = _ORDINALS.index(found[1].casefold()) % len(_PLACES)
    return place if place < len(choices) else None


def _claimed(claim: Claim, choices: Sequence[str]) -> int | None:
    text = opening(claim.text)
    if HEDGE.search(_masked(claim.before, choices)) or turned_round(claim.same):
        return None
    found = resolve(text, choices)
    found = _by_polarity(claim.text, choices) if found is None else found
    return _after_all(text, choices) if found is None else found


def _after_all(text: str, choices: Sequence[str]) -> int | None:
    """The option that stands at the end of an answer that takes something back, or rules others
    out, before it.
    """
    if HEDGE.search(_masked(text, choices)) or text.rstrip(" \"')").endswith("?"):
        return None
    last = last_word(text)
    listed = {found[1]: found[2] for found in _VERDICTS.finditer(text)}
    right = [mark for mark, verdict in listed.items() if _AGREES.fullmatch(verdict)]
    if len(listed) > 1 and len(right) == 1 and ord(right[0]) - 65 < len(choices):
        return ord(right[0]) - 65
    kept, out = ([last], []) if last is not None else ruled_out(text) or ([], [])
    found = {resolve(opening(clause), choices) for clause in kept}
    if any(resolve(opening(clause), choices) is not None for clause in out):
        return None  # it is an option that sounds like a denial
    return found.pop() if len(found) == 1 else None


_CROSSED = re.compile(r"\W*(?:no|false|incorrect|wrong)\s*(?:[.,;)\n]|$)|\W*[✗✘]", re.I)
"""After a letter: that it isn't the one."""
_AGREES = re.compile("yes|true|correct|right|[✓✔]", re.I)
_VERDICTS = re.compile(
    r"(?<!\w)[(\[]?([A-Z])[)\].]?\s*[:(–—-]\s*((?i:yes|true|correct|right|no|false|incorrect|"
    r"wrong)|"
    r"[✓✔✗✘])(?!\w)"
)
"""One verdict for each letter: "A: no. B: yes"."""


def turned_round(text: str) -> bool:
    """True if the words before "the answer is" turn it round: "I don't think that"."""
    clause = re.split(r"[,;:]|\bso\b|\btherefore\b|\bthus\b|\bhence\b", text)[-1]
    return bool(DENIAL.search(clause))


def opening(text: str) -> str:
    """A claim without what leads up to it, and without what it is said not to be first."""
    but = BUT.match(text.strip())
    return without_lead(but["rest"] if but else text)


def resolve(text: str, choices: Sequence[str]) -> int | None:
    """The option that a claim names, which begins with the answer."""
    whole = equal(text, choices)
    if whole is not None:
        return whole
    if text.rstrip(" \"')").endswith("?"):
        return None
    lettered = letter(text)
    if lettered is not None:
        return _lettered(*lettered, choices)
    said = _masked(text, choices)
    if HEDGE.search(said):
        return _unsure(text, choices)
    if _ASKS.match(text):
        return None
    head, rest = first_sentence(text)
    found = _worded(head, choices)
    if found is None and rest:
        found = _worded(text, choices)
        rest = "" if found is not None else rest
    if found is not None:
        return found if _stands(found, rest, choices) else None
    ending = _ENDING.search(text)
    taken_back = CORRECTION.search(text) or (ending and turned_round(text[: ending.start()]))
    if ending and ord(ending[1].upper()) - 65 < len(choices) and not taken_back:
        return ord(ending[1].upper()) - 65
    found = _typed(text, choices)
    return _unsure(text, choices) if found is None else found


def _typed(text: str, choices: Sequence[str]) -> int | None:
    """By yes and no, or by number, where the options are such."""
    last = _LAST.match(text.strip(" .!"))
    if last:
        place = ord(last[2] or last[3]) - 65
        return place if _typed(last[1], choices) == place < len(choices) else None
    found = _by_polarity(text, choices)
    found = _by_moment(text, choices) if found is None else found
    return _by_value(quantity.only(text), choices) if found is None else found


def _by_moment(text: str, choices: Sequence[str]) -> int | None:
    """The one option that is the time or date of a text, where all are such."""
    said = moment(text, dotted=True)
    when = [moment(choice) for choice in choices]
    same = [i for i, one in enumerate(when) if one and said and same_moment(one, said)]
    return same[0] if len(same) == 1 and all(when) else None


def _by_polarity(text: str, choices: Sequence[str]) -> int | None:
    """The option that says yes, or the one that says no, as the text does."""
    said = [polarity.says(choice) for choice in choices]
    if said.count(True) != 1 or said.count(False) != 1:
        return None
    marked = letter(text.strip())
    if marked is not None and ord(marked[0]) - 65 < len(choices):
        return None
    if not _YES.match(choices[said.index(True)]):
        return None
    answer = polarity.answered(text)
    return None if answer is None else said.index(answer)


_LONGEST: Final = 400
"""Characters of a sentence that may name an option in words."""
_YES = re.compile(r"\W*(?:yes|true|correct|ja|oui|s[ií]|sim|да|是|有|对|はい|네|예)", re.I)


def _unsure(text: str, choices: Sequence[str]) -> int | None:
    """The option that says that it can't be told, where the answer says just that."""
    forms = {_SPEAKER.sub("", form) for form in _forms(first_sentence(text)[0])}
    unsure = [i for i, choice in enumerate(choices) if HEDGE.search(canonical(choice))]
    same = [i for i in unsure if _forms(choices[i]) & forms]
    return same[0] if len(same) == 1 else None


_ASKS = re.compile(r"(?:which|what|who|where|when|why|how)\b", re.I)
_SPEAKER = re.compile(r"^(?:it|this|that|answer|i'm|i am|we|i)\s+(?:is\s+)?")


def letter(text: str) -> tuple[str, str] | None:
    """The option letter that a claim begins with, and what follows it.

    Example:
        >>> letter("(b) blue"), letter("A dog"), letter("B is correct")
        (('B', 'blue'), None, ('B', 'is correct'))
    """
    text = text.strip()
    alone = _ALONE.match(text)
    if alone:
        return alone[1].upper(), text[alone.end(1) :].strip(" .,:;!*)]")
    found = _BRACKETED.match(text) or _MARKED.match(text)
    if found and (found[1].isupper() or text[0] in "([{<" or text[1:2] in ").:"):
        kept = text[found.end(1) : found.start(2)].strip()
        separator = kept if kept in ("/", "|", "&", "+", ",") else ""
        return found[1].upper(), f"{separator} {found[2]}".strip()
    spoken = _SPOKEN.match(text)
    if spoken and not (spoken[1] == "I" and re.match(r"I\s+(?!is\b)", text)):
        if spoken[1] == "A" and re.match(r"A\s+(?:for|it|i|as)\b", text):
            return None
        return spoken[1], spoken[2].strip()
    return None


def _lettered(mark: str, rest: str, choices: Sequence[str]) -> int | None:
    """The option of that letter; None where what follows names another, hedges or denies."""
    place = ord(mark) - 65
    if place >= len(choices):
        return None
    if not rest.strip(" .,:;!*"):
        return place
    instead = _INSTEAD.match(rest)
    if instead:
        denied = instead[1] if "(" in instead[1] else instead[1].rstrip(")")
        other = resolve(opening(denied), choices)
        if other not in (None, place):
            return place
    correct = CORRECT.match(rest)
    if correct and not REFUSED.match(rest):
        rest = rest[correct.end() :]
    same = equal(rest, choices)
    if same is not None:
        return place if same == place else None
    if _CROSSED.match(rest) and polarity.own_word(choices[place]) is not False:
        return None
    named_too = _worded(first_sentence(opening(rest))[0], choices)
    counted = _by_value(quantity.only(first_sentence(rest)[0]), choices)
    if any(other not in (None, place) for other in (named_too, counted)):
        return None
    return place if _stands(place, rest, choices) else None


def _stands(place: int, rest: str, choices: Sequence[str]) -> bool:
    """True if what follows an answer leaves it standing."""
    rest = rest.strip()
    if not rest.strip(" .,:;!*)"):
        return True
    said = _masked(rest, choices, place)
    if HEDGE.search(said) or REFUSED.match(rest) or CORRECTION.search(f" {said}"):
        return False
    if rest.rstrip(" \"')").endswith("?") or ALTERNATIVE.match(rest):
        return False
    if _another_thing(rest, place, choices):
        return False
    spoken = _DENIED.sub(" ", CONTRAST.sub(" ", rest))
    mark = chr(65 + place)
    for pattern in (_OTHERS, _LISTED, _AND_OTHER):
        for found in pattern.finditer(spoken):
            other = found[1] or found[2]
            if other != mark and ord(other) - 65 < len(choices):
                return False
    return not _contradicted(place, spoken, choices)


_REMARK = re.compile(
    r"confiden|certain|sure|done|end|thank|correct|right|explanation|reason|note|final|answer|"
    r"clear|hope|as |see|yes|in |on |at |of |from |with ",
    re.I,
)
_WORDS_ONLY = re.compile(r"[^\W\d_]+(?:[ -][^\W\d_]+){0,2}")


def _another_thing(rest: str, place: int, choices: Sequence[str]) -> bool:
    """True if what follows an answer is just another thing, in a few words: "dog", then "cat"."""
    bare = rest.strip(" \t\n.,:;!*)")
    if equal(bare, choices) not in (None, place):
        return True
    if len(choices) > 1 or not _WORDS_ONLY.fullmatch(bare) or _COPULA.search(f"{bare} "):
        return False
    shared = set(simplest(bare).split()) & set(simplest(choices[place]).split())
    return not shared and not _REMARK.search(bare)


def _contradicted(place: int, rest: str, choices: Sequence[str]) -> bool:
    """True if an explanation says of the thing what another option says of it."""
    texts = [simplest(choice).split() for choice in choices]
    own = " ".join(texts[place])
    for sentence in _SENTENCE.split(EXPLANATION.sub("", rest)):
        if DENIAL.search(sentence):
            continue
        said = simplest(sentence)
        padded = f" {said} "
        if own and f" {own} " in padded:
            continue
        for at, words in enumerate(texts):
            joined = " ".join(words)
            if at == place or not joined:
                continue
            if len(words) >= 3 and len(texts[place]) >= 2:
                unique = set(words) - set(texts[place])
                mine = set(texts[place]) - set(words)
                spoken = set(said.split())
                if unique and unique <= spoken and not mine & spoken:
                    return True
            if any(
                after == joined or after.startswith(f"{joined} and ") for after in _predicates(said)
            ):
                return True
    return False


def _worded(text: str, choices: Sequence[str]) -> int | None:
    """The option that a sentence is: "The car is blue", "blue (B)", "Blue is right"."""
    text = text.strip(" \t\n.,:;!")
    if not text or len(text) > _LONGEST:
        return None
    found = equal(text, choices)
    if found is not None:
        return found
    last = _LAST.match(text)
    if last:
        mark = last[2] or last[3]
        place = ord(mark) - 65
        named_too = _worded(last[1], choices)
        return place if named_too == place and place < len(choices) else None
    shorter = CONTRAST.sub("", EXPLANATION.sub("", text)).strip(" .,:;!(-–—")
    for cut in (shorter, PLACE.sub("", shorter)):
        if cut and cut != text:
            found = _worded(cut, choices)
            if found is not None:
                return found
    colour = _IS_COLOUR.match(text)
    if colour:
        found = equal(colour[1] or colour[2], choices)
        if found is not None:
            return found
    correct = re.search(r"\s(?:is|ist|est|es|è|é)\s|が|是", text)
    if correct:
        head, tail = text[: correct.start()], text[correct.start() :]
        if (match := CORRECT.match(tail)) and match.end() == len(tail):
            found = equal(without_lead(head), choices)
            if found is not None:
                return found
    found = _by_forms(text, choices)
    return _by_colour(text, choices) if found is None else found


_COLOURS: Final = frozenset("red blue green yellow purple pink brown black white gray".split())
_COLOURED = re.compile(r"(?:(?:a|an|the|it(?:'s| is) an?) )([a-z]+) ([a-z]+)", re.I)


def _by_colour(text: str, choices: Sequence[str]) -> int | None:
    """The one colour of a thing, where the options are colours: "a blue car"."""
    found = _COLOURED.fullmatch(canonical(text).strip(" ."))
    plainly = [simplest(choice) for choice in choices]
    if found is None or not _COLOURS.issuperset(plainly):
        return None
    colour, thing = simplest(found[1]), simplest(found[2])
    if colour not in plainly or thing in _COLOURS or thing in ("one", "ish", "and", "or"):
        return None
    return plainly.index(colour)


def _by_forms(text: str, choices: Sequence[str]) -> int | None:
    forms = _forms(text)
    same = [i for i, choice in enumerate(choices) if simplest(choice) in forms]
    if not same:
        related = {word for form in forms for word in _relations(form)}
        same = [i for i, choice in enumerate(choices) if simplest(choice) in related]
    if not same:
        short = {_POSITION.sub("", form) for form in forms if len(form.split()) <= 4}
        same = [
            i
            for i, choice in enumerate(choices)
            if short - {""} & short and (_forms(choice) & (forms | short) - {""})
        ]
    if len(same) == 1:
        return None if _other_predicate(text, same[0], choices) else same[0]
    if not same:
        bare = _without_article(simplest(text))
        if bare != simplest(text):
            again = [
                i for i, c in enumerate(choices) if _without_article(simplest(c)) == bare and bare
            ]
            return again[0] if len(again) == 1 else None
    return None


_MEASURED = re.compile("^一?(?:只|個|个|辆|条|张|把|位|名|头|匹|棵|台|本)(?=.)")
_AROUND = re.compile(
    r"\s+(?:in|on|at|from|near)\s+(?:his|her|their|its|left|right|front|back|middle|center|"
    r"background|foreground|corner|hand|top|bottom|image|picture)\b.*$"
)
_PREPOSITIONS: Final = frozenset(
    (
        "on", "in", "under", "over", "above", "below", "beneath", "behind", "beside", "near",
        "inside", "outside", "between", "on top of", "next to", "in front of", "left of",
        "right of", "to left of", "to right of", "against", "around",
    )
)  # fmt: skip


def _relations(text: str) -> set[str]:
    """The relation that a phrase about a place begins with: "next to the table" is "next to"."""
    return {
        word
        for word in _PREPOSITIONS
        if text.startswith(f"{word} ")
        and len(text[len(word) :].split()) <= 3
        and not {"or", "and"} & set(text.split())
    }


def _without_article(text: str) -> str:
    counted = _MEASURED.sub("", text)
    if counted not in ("", text):
        return counted
    first, _, rest = text.partition(" ")
    return rest if first in FOREIGN_ARTICLES and rest else text


def _forms(text: str) -> set[str]:
    """The plainest form of a text, whole and as what follows "is": "collar is red" and "red"."""
    text = without_lead(PLACE.sub("", text.strip(" .,:;!")))
    whole = simplest(_ONE.sub("", text) or text)
    subject = _COPULA.search(whole)
    forms = {whole, _POSITION.sub("", whole), _POSITION.sub("", _DOING.sub("", whole))}
    if subject is not None and not DENIAL.search(whole[: subject.start()]):
        for after in _predicates(whole)[-1:]:
            forms |= {after, _POSITION.sub("", after), _without_article(after)}
            forms |= {_without_article(_POSITION.sub("", after)), _AROUND.sub("", after)}
    return forms - {""}


def _predicates(plainly: str) -> list[str]:
    """The predicates of a text in its plainest form: the words after each "is"."""
    found = []
    for match in _COPULA.finditer(plainly):
        after = plainly[match.end() :].strip()
        while (shorter := _DOING.sub("", after)) not in ("", after):
            after = shorter
        if after:
            found.append(_POSITION.sub("", after) if after not in ("the", "a") else after)
            if found[-1] != after:
                found.append(after)
    return found


def _other_predicate(text: str, place: int, choices: Sequence[str]) -> bool:
    """True if another clause of the text says another option, or says anything at all of another
    thing: "The car is red and the truck is blue".
    """
    clauses = [part for part in _AND_CLAUSE.split(text) if _COPULA.search(simplest(part))]
    if len(clauses) < 2:
        return False
    if len(choices) == 1:
        return True
    for clause in clauses:
        others = {simplest(c) for i, c in enumerate(choices) if i != place}
        if others & _forms(clause):
            return True
    return False


def first_sentence(text: str) -> tuple[str, str]:
    """The first sentence, and the rest; a letter's full stop ends none."""
    for found in _SENTENCE.finditer(text):
        if text[: found.start()].strip():
            return text[: found.start()].strip(), text[found.end() :].strip()
    return text.strip(), ""


def _masked(text: str, choices: Sequence[str], only: int | None = None) -> str:
    """The text without the options' own words, which may hold "about" or "not sure"."""
    text = canonical(text)
    some = choices if only is None else (choices[only],)
    for choice in sorted(some, key=len, reverse=True):
        bare = plain(choice)
        if len(bare) > 2:
            flags = re.NOFLAG if bare in ("May", "Might", "Will") else re.I
            text = re.sub(rf"(?<!\w){re.escape(bare)}(?!\w)", " # ", text, flags=flags)
    return text
