"""Yes or no, said in a word or in a whole sentence, by one rule for both.

A word of its own ("Yes", "no,") counts most; without one a sentence with a verb says yes, and no
where it is negated: "There is a dog." and "There is no dog.". Where a text says both, it says
neither.
"""

from __future__ import annotations

import re
from typing import Final

from speceyes.evaluation.grading import statements
from speceyes.evaluation.grading.languages import (
    ADVERBS,
    AFFIRMATIONS,
    HEDGE,
    NEGATIONS,
    TAKEN_BACK,
    TRAIL,
)

_IDIOMS: Final = re.compile(
    r"\b(?:no doubt(?: about it)?|without (?:a |any )?doubt|undoubtedly|not only|no problem|"
    r"no wonder|no longer than|of course(?! not)|sure thing|sure(?=[.!]*$)|by all means|"
    r"that's right(?=[.!]*$)|exactly(?=[.!]*$)|right(?=[.!]*$)|i have no doubts?(?: that)?|"
    r"no question(?: about it| about that)?)\b",
    re.I,
)
_ELLIPSIS: Final = re.compile(
    r"(?:yes|yeah|yep),? (?:it|there|they|he|she|this|that)"
    r"(?: (?:is|are|was|were|does|do|has|have) not|"
    r" ?(?:isn't|aren't|wasn't|weren't|doesn't|don't|hasn't|haven't)|'s not|'re not)"
    r"|(?:no|nope|nah),? (?:it|there|they|he|she|this|that)"
    r" (?:is|are|was|were|does|do|has|have)",
    re.I,
)
"""A word and a short sentence that say opposite things."""
_OR: Final = re.compile(r"\bor\b", re.I)
_UNLIKE: Final = re.compile(r"(?<=\w),\s*(?:and |but )?not\s+[^.,;!?\n]+", re.I)
"""What a statement is held against: "on the mat, not under it"."""
_NOT_THE_OTHER = re.compile(
    r"(?<=\w),\s*(?:and |but )?(?:definitely |certainly |clearly )?not (?:an? )?"
    r"[\"']?(?:yes|no)\b[\"']?",
    re.I,
)
"""Behind the word: that it isn't the other one."""
_NOT_WORD = re.compile(
    r"(?<!\w)(?:not|\w+n't)\s+(?:a\s+)?[\"']?(?:yes|no)[\"']?\s*(?:[.,;!]|$)", re.I
)
"""The word that is denied."""
_WORDS = "|".join(
    sorted((re.escape(w) for w in (AFFIRMATIONS | NEGATIONS) if w.isascii()), key=len, reverse=True)
)
_WORD: Final = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_BARELY = re.compile(
    r"\b(?:hardly|barely|scarcely|partly|partially|in part|to some extent|half(?= (?:yes|no)))\b",
    re.I,
)
_FLAT: Final = {
    True: re.compile(r"present|visible|for sure|by all means|you bet|naturally|surely", re.I),
    False: re.compile(
        r"absent|missing|by no means|in no way|not? (?:a )?chance|far from it|no way|hell no|"
        r"nothing (?:of the (?:sort|kind)|like (?:that|it|this))|"
        r"definitely not|surely not|under no circumstances",
        re.I,
    ),
}
"""Whole answers that say yes or no without the word."""
_NOT = re.compile(
    r"(?<!\w)(?:no|not|\w+n't|cannot|none|never|neither|nor|nobody|nothing|nowhere|absent|missing|"
    r"lacks?|lacking|without any|free of|devoid of|fails? to|false|untrue|impossible(?= that)|"
    r"incorrect|"
    r"(?<=that is )wrong|(?<=that's )wrong|(?<=this is )wrong|kein\w*|nicht|nie|niemals|"
    r"ne|n'(?=\w)|pas|aucune?|jamais|"
    r"ningun[oa]?|ningún|nunca|"
    r"non|nessun[oa]?|"
    r"não|nenhuma?|"
    r"niet|geen|"
    r"не|нет|никаких)(?!\w)|n'(?=y\b|est\b|a\b)"
    r"|不|没|沒|无|無|ない|ません|いません|ありません|없|않|아니|아닙",
    re.I,
)
_VERB = re.compile(
    r"(?<!\w)(?:is|are|was|were|am|isn't|aren't|wasn't|weren't|\w+'s|\w+'re|there's|do|does|did|"
    r"don't|doesn't|didn't|can|can't|cannot|could|couldn't|see|sees|saw|shows?|contains?|has|have|"
    r"hasn't|haven't|had|includes?|features?|depicts?|displays?|appears?|seems?|exists?|holds?|"
    r"hangs?|rides?|carr(?:y|ies)|eats?|runs?|walks?|plays?|flies|drives?|touch(?:es)?|faces?|"
    r"covers?|leans?|rests?|surrounds?|belongs?|match(?:es)?|goes|works?|remains?|"
    r"looks?|find|found|observe|spot|detect|notice|lacks?|wears?|stands?|sits?|lies|must|will|"
    r"won't|"
    r"ist|sind|gibt|sehe|zeigt|hat|enthält|befindet|"
    r"est|sont|y a|voit|montre|contient|"
    r"es|son|hay|está|están|veo|muestra|contiene|tiene|"
    r"è|sono|c'è|vedo|mostra|"
    r"há|é|são|estão|vejo|existe|tem|"
    r"zijn|heeft|zie|toont|"
    r"есть|нет|вижу|видно|находится|имеется)(?!\w)"
    r"|有|是|在|いる|います|ある|あります|です|ません|ない|있|없|이다|입니다",
    re.I,
)
_CLAUSE = re.compile(
    r"[.!?;:。！？；\n]+|,\s*(?=(?:but|however|though|although|while|and|so|yet|aber|mais|pero|ma|"
    r"mas)\b)"
    r"|\b(?:but|however|although|though|whereas|because|since|aber|mais|pero|weil|porque)\b|，|但",
    re.I,
)
_STATEMENTS: Final = 3
"""Clauses of a sentence that are read; what follows explains."""


def answered(text: str, question: str = "") -> bool | None:
    """True if a claim says yes, with or without what may follow the word, such as "desu".

    Args:
        text: The claim.
        question: What was asked, which a sentence without yes or no is held against.

    Example:
        >>> answered("It is blue", "Is it red?"), answered("It is red", "Is it red?")
        (False, True)
    """
    if _ELLIPSIS.fullmatch(text.strip(" .!")):
        return None
    said = says(TRAIL.sub("", text))
    said = says(text) if said is None else said
    if said is None and question and _THING.fullmatch(text.strip()):
        # "A dog." answers "Is there a dog?", as "No dog." does; "A car." doesn't.
        return True if statements.names(text, question) else None
    if said is None or not question or _own_words(text):
        return said
    if _OR.search(text) and not _OR.search(question):
        return None
    text = _UNLIKE.sub("", text)
    return said if statements.repeats(text, question) else statements.other(text, question, said)


def says(text: str) -> bool | None:
    """True if a text without wrapping says yes; None where it doesn't decide.

    Example:
        >>> says("Yes, there is one."), says("There is no dog."), says("There is a dog.")
        (True, False, True)
        >>> says("Yes. Wait, no."), says("maybe"), says("a dog")
        (None, None, None)
    """
    text = " ".join(text.split()) if "\n" not in text else text
    if HEDGE.search(text) or _BARELY.search(text) or text.rstrip(" \"')").endswith(("?", "？")):
        return None
    text, sure = _IDIOMS.subn(" ", text)
    text = text.strip()
    if text.strip(" .!()").casefold() in ("y", "n"):
        return text.strip(" .!()").casefold() == "y"
    if not text.strip(" .,!"):
        return True if sure else None
    text = _NOT_THE_OTHER.sub("", text)
    if _NOT_WORD.search(text):
        return None
    back = TAKEN_BACK.search(text)
    if back and back.start() and text[back.end() :].strip(" .,!"):
        return None
    words = _own_words(text)
    if words:
        said = words[0] if len(set(words)) == 1 else None
        return None if said and _YES_BUT.match(text) and not _VERB.search(text) else said
    for whole, flat in _FLAT.items():
        if flat.fullmatch(text.strip(" .,!")):
            return whole
    text = _UNLIKE.sub("", text)
    verdicts = [
        not _NOT.search(clause) for clause in _CLAUSE.split(text) if clause and _VERB.search(clause)
    ]
    if not verdicts:
        return _elliptic(text)
    verdicts = verdicts[:_STATEMENTS]
    return verdicts[0] if len(set(verdicts)) == 1 else None


def own_word(text: str) -> bool | None:
    """Yes or no where a text says it in a word of its own; None where it doesn't.

    Example:
        >>> own_word("no."), own_word("there is one")
        (False, None)
    """
    words = set(_own_words(text)) if not HEDGE.search(text) else set()
    return words.pop() if len(words) == 1 else None


def _own_words(text: str) -> list[bool]:
    """Yes (True) and no (False) as words of their own, in order, at a clause's start or end."""
    found: list[bool] = []
    folded = text.casefold()
    first = _cjk(folded)
    if first is not None:
        return [first]
    clauses = re.split(r"[.,;:!?\n/|()–—。，、！？；：]+|\s-\s", folded)
    # "Indeed, there is none." agrees with what it goes on to deny.
    then = re.sub(r"^\s*(?:and|but|though)\b.*", "", "".join(clauses[1:2]))
    denied = _NOT.search(then) and _VERB.search(then)
    for clause in clauses:
        words = _WORD.findall(clause)
        if not words:
            continue
        at = 0
        while at < len(words) and words[at] in _FILLERS:
            at += 1
        start = words[at] if at < len(words) else ""
        alone = len(words) - at == 1
        if (
            start in NEGATIONS
            and (alone or start not in _DETERMINERS or words[at + 1] in _AFTER_NO)
        ) or (start in ADVERBS and words[at + 1 : at + 2] == ["not"]):
            found.append(False)
        elif start in AFFIRMATIONS and (alone or start in _PLAIN_YES):
            if start in _PLAIN_YES or not denied:
                found.append(True)
        elif not found and start == "not" and (alone or words[at + 1] in _AFTER_NOT):
            found.append(False)
        for before, word in zip(words[at:], words[at + 1 :], strict=False):
            if word in _PLAIN_YES:
                found.append(True)
            elif (word in ("no", "nope") and (before in _LINKS and word == words[-1])) or (
                word == "no" and before in ("or", "and", "yes")
            ):
                found.append(False)
    return found


_FILLERS: Final = frozenset(
    "so well oh ah ok okay thus hence therefore then um uh the answer is and hmm sure of course "
    "i think believe say would guess".split()
)
_DETERMINERS: Final = frozenset(("no", "non", "não", "negative", "false", "incorrect", "wrong"))
_AFTER_NO: Final = frozenset(
    "no nope there it i they he she we this that the its because as sir es hay está están se "
    "son veo tiene".split()
)
_AFTER_NOT: Final = frozenset("at really in that so as any visible present there exactly".split())
_PLAIN_YES: Final = frozenset("yes yeah yep yup ja oui sí sì sim да evet".split())
_LINKS: Final = frozenset(
    "be is a an say answer wait actually or and definitely clearly firm clear definite hard "
    "resounding big simple strong solid flat".split()
)


def _cjk(text: str) -> bool | None:
    """The polarity that a Chinese, Japanese or Korean answer begins with; None in others."""
    text = text.lstrip(" \"'(（")
    if re.match(
        r"不是|不对|不對|不[,，。!]|不$|否|没有|沒有|没[,，。]|没$|いいえ|いや|아니요|아니오|아뇨",
        text,
    ):
        return False
    if re.match(
        r"是的|是[,，。!]|是$|对的?[,，。!]|对的?$|對|有的|有[,，。!]|有$|はい|ええ|네|예[,.\s]|예$|正确",
        text,
    ):
        return True
    return None


def _elliptic(text: str) -> bool | None:
    """A phrase without a verb: "Not that I can see" and "No dog in sight" say no, a noun says
    nothing.
    """
    words = _WORD.findall(text.casefold())
    if words[:1] == ["not"] and len(words) <= 6:
        return False
    denied = _NO_THING.match(text.casefold())
    if denied is None or len(words) > _PHRASE:
        return None
    return None if _NO_CLAIM.match(text.casefold()[denied.end() :]) else False


_THING = re.compile(r"(?:an?|one|some|two|three|several)\s+(?:[^\W\d]+[ .!]*){1,5}", re.I)
"""A phrase that names a thing."""
_YES_BUT = re.compile(
    r"(?:yes|yeah|ja|oui|s[ií])[,.;!]?\s+"
    r"(?:no|kein\w*|aucune?|ningun[oa]?|ningún)\s+[^\W\d].{1,60}$",
    re.I,
)
"""Yes, and then a phrase that denies a thing."""
_PHRASE: Final = 12
_NO_THING = re.compile(
    r"\W*(?:(?:well|so|nope?|sorry)\W+)?(?:(?:no|zero|kein\w*|aucune?|ningun[oa]?|ningún|"
    r"nessun[oa]?|nenhuma?|geen|никак\w+|нет|"
    r"sin|sans|ohne|senza|sem|zonder|без)\s+|pas (?:de |d'|une? )|nessun')(?=[^\W\d])"
)
"""The beginning of a phrase that denies a thing."""
_NO_CLAIM = re.compile(
    r"(?:(?:clear|definite|definitive|good|real|actual|accompanying|attached|valid|visual|single|"
    r"further|more|such|final|correct|right)\s+)*"
    r"(?:images?|pictures?|photos?|photographs?|screenshots?|attachments?|files?|input|ideas?|"
    r"clues?|comments?|answers?|problems?|problem|doubts?|wonder|matter|ways?|worries|need|"
    r"thanks?|longer|more|less|fewer|information|info|data|details?|context|contents?|responses?|results?|"
    r"outputs?|options?|choices?|opinions?|preferences?|certainty|guarantees?|questions?|exceptions?|"
    r"offence|zweifel|doute|duda|dubbio|dúvida|twijfel|сомнени\w|angaben?|informaci[oó]n\w*|"
    r"informazion\w|daten|möglichkeit|meinung|donnée\w?|datos|dati|explanation|reply|solution|bild|antwort|ahnung|idée|image|réponse|respuesta|imagen|"
    r"risposta|immagine|resposta|imagem|antwoord|idee|idea|sé|so|sei|better|other|one)\b"
)
"""Denials that say nothing of what is seen."""
