"""Words that grading knows, by what they do to an answer, in the languages that models answer in.

English, German, French, Spanish, Italian, Portuguese, Dutch, Russian, Chinese, Japanese and
Korean. Chinese and Japanese write no spaces, so their words are found inside others.
"""

from __future__ import annotations

import re
from typing import Final


def _words(*groups: str) -> str:
    """An alternation of the words in these texts, which are regular expressions apart by |."""
    return "|".join(group.strip().replace("\n", "") for group in groups)


_PICTURE = (
    r"(?:images?|pictures?|photos?|photographs?|screenshots?|attachments?|files?|"
    r"image data|visual (?:content|input|information|data))"
)
_GIVEN = (
    r"(?:provided|attached|included|given|uploaded|supplied|available|shared|sent|accessible|"
    r"found|received|detected|loaded|visible to me|shown to me|here|"
    r"to (?:look at|analy[sz]e|view|see)|"
    r"(?:in|with) (?:your|this|the) (?:message|prompt|question|request|conversation|chat))"
)
_NO_PICTURE = _words(
    rf"(?:there(?:'s| is| are| was) )?(?:no|not any|not an?) (?:actual |accompanying )?{_PICTURE}"
    rf" (?:(?:was|is|were|are|has been|have been|seems to be|appears to be) )?{_GIVEN}|"
    rf"there(?:'s| is| was) no image(?=\s*[.!,;]|\s*$)|^no image(?=\s*[.!,;]|\s*$)|"
    rf"(?:don't|do not|didn't|did not|can't|cannot|can not|unable to|not able to) (?:actually |"
    rf"currently |directly )?(?:see|view|find|access|open|receive|have|detect|load|process)"
    rf" (?:access to )?(?:an|any|the|your|this|that)? ?(?:actual |attached )?{_PICTURE}"
    rf"(?=\s*[.!,;]|\s*$|\s+{_GIVEN}| you\b| that you| in your| so | and | but )|"
    rf"{_PICTURE} (?:you (?:mentioned|sent|provided|referr?ed to) )?(?:(?:is|was|are|were|has|"
    rf"have)(?:n't| not)"
    rf"(?: been)?|(?:seems|appears) (?:to be |not )?(?:missing|blank|broken|corrupted))"
    rf"(?: {_GIVEN}| visible| present| clear enough|(?=\s*[.!]|\s*$))|"
    rf"^(?:the )?{_PICTURE} (?:not {_GIVEN}|missing|unavailable|unreadable)(?=\s*[.!,;]|\s*$)|"
    rf"{_PICTURE} (?:is|seems to be|appears to be) (?:missing|blank|broken|corrupted|unavailable|"
    rf"unreadable|too (?:blurry|dark|small))(?=\s*[.,!]|\s*$)|"
    rf"{_PICTURE} (?:failed|didn't|did not|doesn't|does not|won't|will not|couldn't|could not)"
    rf" (?:to )?(?:be )?(?:load|open|display|upload|come through|render)(?:ed|ing)?|"
    rf"(?:doesn't|does not|don't|do not) (?:seem|appear) to be (?:an?|"
    rf"any) {_PICTURE}(?=\s*[.!,;]|\s*$|\s+{_GIVEN})|"
    rf"(?:message|prompt|question|request|you) (?:does not|doesn't|did not|didn't|haven't|have not)"
    rf" (?:include|contain|provide|attach|upload|share|send|sent|come with)(?:e?d)? (?:an?|any|"
    rf"the) {_PICTURE}|"
    rf"{_PICTURE} (?:isn't|is not|aren't|are not) (?:loading|displaying|showing up|opening|"
    rf"coming through)|"
    rf"need (?:to see|to view|access to) (?:the|an|your) {_PICTURE}|"
    rf"(?:please|could you|can you|need you to) (?:re-?)?(?:provide|upload|attach|share|send|"
    rf"supply) "
    rf"(?:it|me|us|an?|the|your)|without (?:seeing |access to )?(?:an|the|any) {_PICTURE}"
)
_EPISTEMIC = _words(
    _NO_PICTURE,
    # English
    r"maybe|perhaps|possibly|possible|probabl[ey]|presumably|conceivably|arguably|plausibl[ey]|"
    r"potentially|supposedly|(?:un|most )?likely|might|may (?:also |well |not )?(?:be|have|show)|"
    r"could (?:also |well |possibly |either |very well )?(?:be|have|go)|"
    r"i(?:'m| am)? guess(?:ing)?|(?:best|educated|wild|good) guess|i (?:would|'d|can only) guess|"
    r"guess(?:ing)?|"
    r"i (?:suppose|assume|suspect|imagine|reckon|hope)|assuming|hopefully|"
    r"not (?:(?:so|too|very|entirely|completely|totally|fully|quite|really|absolutely|100 ?%)"
    r" )?(?:sure|certain|clear|confident|positive|known|specified|visible enough)|"
    r"unsure|uncertain|unclear|ambiguous|unknown|undetermined|indeterminate|inconclusive|"
    r"(?:hard|difficult|tough|impossible|tricky) (?:for me )?to"
    r" (?:say|tell|see|know|determine|judge|make out|be sure)|"
    r"(?:don't|do not|didn't|did not|wouldn't) (?:really )?know|dunno|no (?:idea|clue)|"
    r"(?:can't|cannot|can not|couldn't|could not|unable to|not able to)"
    r" (?:be |really |quite |clearly |definitively )?"
    r"(?:tell|say|determined?|answer(?:ed)?|know|identify|identified|confirm(?:ed)?|sure|certain|"
    r"judge|verify|make out|decide|make a determination)|"
    r"insufficient|not enough (?:information|detail|context)|"
    r"(?:seems|looks|appears) (?:like )?(?:it|that it|they) (?:could|might|may)|"
    r"or (?:something|similar|maybe|perhaps|possibly)|depend(?:s|ing) on|"
    r"(?<!no )(?<!without )(?<!without a )doubt(?!less)(?:ful)?|inclined to|"
    r"(?:leaning|lean) (?:towards?|to)|tentatively|if i(?:'m| am) not mistaken|toss-?up|"
    r"(?<![\d.])(?!100\b)[\d.]+ ?(?:%|percent) (?:sure|certain|confident|chance|probability|"
    r"likely)|"
    r"not necessarily|possibilit(?:y|ies)|otherwise|questionable|debatable|no way to (?:tell|know)|"
    r"(?:as an ai|language model|text-based)|not able to (?:see|view) (?:images|pictures|photos)|"
    r"(?:can't|cannot|can not|unable to) (?:see|view|access|open|process|analy[sz]e)"
    r"(?: (?:or|and) \w+)? (?:images|pictures|photos)|not applicable|"
    r"(?:won't|will not|decline to) (?:answer|respond|say)|if (?:the|it|this|that|there|they|an?) "
    r"[^.\n]{1,80} then|"
    r"(?:isn't|aren't|wasn't) (?:(?:so|very|entirely|quite|really|completely|totally) )?"
    r"(?:clear|sure|certain|possible|known|obvious)|"
    r"enough (?:information|detail)|no way (?:to|of)|"
    r"(?:don't|do not) have (?:an|the|any) answer|no answer|n/a|"
    r"(?:can't|cannot|can not|unable to|won't) (?:assist|help|comply|provide)|"
    r"more like(?= \d)|as far as i (?:can (?:see|tell)|know)|"
    r"estimat(?:e|es|ed|ing|ion)|if not|(?:don't|do not) quote me|i (?:could|may) be wrong|"
    r"correct me if|if memory serves|for all i know|who knows|or thereabouts|"
    r"no (?:further |relevant |such |visual |clear )?(?:information|info|details?|context|data)|"
    r"(?:a|some|any|every|good|fair|slight|small|decent) chance(?= (?:that|there|it|of))|"
    r"(?:can't|cannot|couldn't|can not) (?:be )?(?:ruled? out|excluded?)|"
    r"(?:without|needs?|requires?) (?:more|further|additional) (?:information|context|details?)|"
    r"hunch|gut feeling|coin[- ]flip|"
    r"(?:not|in|un)[- ]?(?:determin|discern|recogni[sz])able|"
    r"no [^.\n]{1,40}? to (?:answer|tell|determine|judge|decide)|"
    r"no (?:clear |definite |definitive )?way of|beyond (?:me|my)|anyone's guess|"
    r"refuse to|not allowed to|"
    # German
    r"vielleicht|möglicherweise|wahrscheinlich|vermutlich|womöglich|eventuell|könnte|könnten|"
    r"(?:kann ich|ich kann|kann man|man kann|lässt sich)(?: das| es| leider| so)* nicht (?:\w+ )?"
    r"(?:sagen|erkennen|beantworten|beurteilen|feststellen|bestimmen|sehen)|"
    r"ich (?:rate|vermute)|unsicher|nicht sicher|nicht ganz sicher|weiß (?:es )?nicht|"
    r"keine ahnung|schwer zu sagen|unklar|"
    # French
    r"(?:peux|peut|puis|saurais|pouvons) pas (?:\w+ )?"
    r"(?:répondre|dire|déterminer|savoir|voir|confirmer|distinguer)|impossible (?:de|à) \w+|"
    r"peut[- ]être|probablement|possiblement|sans doute|(?:ne )?sais pas|"
    r"pas (?:tout à fait )?s[ûu]re?|difficile à dire|pourrait|"
    # Spanish
    r"no (?:lo )?(?:puedo|se puede|es posible) "
    r"(?:responder|decir|determinar|saber|ver|distinguir)(?:lo)?|"
    r"quizás?|tal vez|probablemente|posiblemente|puede (?:que|ser)|podría|no (?:lo )?sé|"
    r"no est(?:oy|á) segur[oa]|a lo mejor|difícil de decir|"
    # Italian
    r"non (?:lo )?(?:posso|si può|riesco a|è possibile) "
    r"(?:rispondere|dire|dirlo|determinare|stabilire|vedere)|"
    r"forse|probabilmente|possibilmente|magari|potrebbe|non (?:lo )?so|non sono sicur[oa]|"
    r"difficile da dire|"
    # Portuguese
    r"não (?:posso|consigo|dá para|é possível) (?:responder|dizer|determinar|saber|ver)|"
    r"talvez|provavelmente|possivelmente|pode ser|poderia|não sei|não tenho certeza|"
    r"difícil dizer|"
    # Dutch
    r"kan (?:ik )?(?:dat |het )?niet (?:zeggen|zien|beantwoorden|bepalen)|"
    r"misschien|waarschijnlijk|mogelijk|zou kunnen|weet (?:het )?niet|niet zeker|"
    # Russian
    r"не могу (?:ответить|сказать|определить|разглядеть)|невозможно \w+|"
    r"может быть|возможно|вероятно|наверно[е]?|не знаю|не уверена?|трудно сказать",
)
_EPISTEMIC_JOINED = _words(
    r"可能|也许|也許|或许|或許|大概|不确定|不確定|不知道|不清楚|无法确定|無法確定|无法判断|"
    r"無法判斷|难以|難以|看不清|无法(?:回答|确认|辨认|得知)|没法(?:看清|判断|确定)|好像|似乎|我猜|猜测|说不准|"
    r"かもしれ|たぶん|多分|おそらく|恐らく|だろう|でしょう|わから|分から|わかりません|不明|"
    r"(?:判断|特定|回答|確認)できません|答えられません|見えません(?:でした)?$|"
    r"알 수 없|(?:판단|확인|대답)할 수 없|"
    r"아마|모르|것 같|불확실|확실하지 않",
)
HEDGE: Final = re.compile(rf"(?<!\w)(?:{_EPISTEMIC})(?!\w)|{_EPISTEMIC_JOINED}", re.I)
"""The speaker doesn't know, or leaves it open."""

_BOUNDS = _words(
    r"about|around|approximately|approximate|approx\.?|roughly|nearly|almost|circa|c\.|ca\.?|some|"
    r"over|under|above|below|at least|at most|at minimum|at maximum|not even|"
    r"(?:more|less|fewer|greater|bigger|larger|smaller|higher|lower|other|rather) than|"
    r"no (?:more|less|fewer) than|up to|upwards? of|(?:close|near|next|equal or close) to|"
    r"near|minimum of|maximum of|min\.?|max\.?|a few|few|several|a couple|or|between|every|"
    r"exceed(?:s|ing)?|beyond|within|in the range of|more or less|in the (?:region|"
    r"neighbou?rhood|ballpark) of|but|except|besides|excluding|equal to|"
    r"as (?:many|few|much|little) as|half(?: of)?|twice|double|"
    r"ungefähr|etwa|zirka|rund|mindestens|höchstens|wenigstens|mehr als|weniger als|fast|"
    r"oder|zwischen|"
    r"environ|au moins|au plus|plus de|moins de|presque|ou|entre|"
    r"aproximadamente|alrededor de|al menos|como mínimo|más de|menos de|unos|unas|casi|o|"
    r"almeno|più di|meno di|quasi|oppure|tra|cerca de|pelo menos|mais de|quase|"
    r"ongeveer|minstens|meer dan|minder dan|"
    r"около|примерно|не менее|больше|меньше|более|менее|почти|или"
)
_BOUNDS_JOINED = (
    r"大约|大約|大概|至少|最多|超过|超過|将近|接近|或|约|約|およそ|少なくとも|多くとも|"
    r"대략|최소|최대|약\s"
)
BOUND_BEFORE: Final = re.compile(
    rf"(?:(?<!\w)(?:{_BOUNDS})(?:\s+(?:a|an|the|another|total|of|only))*|{_BOUNDS_JOINED})\s*$",
    re.I,
)
BOUND_AFTER: Final = re.compile(
    r"^\s*(?:[^\W\d]+\s+){0,2}?,?\s*(?:\(?(?:or|and (?:a half|more|above|up|counting|over)|plus|"
    r"more or less|something|odd|"
    r"at (?:the )?(?:very )?(?:least|most)|minimum|maximum|max|min|approximate(?:ly)?|approx|"
    r"roughly|estimated?|circa|"
    r"give or take|oder|bis|ou|o|oppure|или|mindestens|au moins|por lo menos|al menos|almeno|"
    r"pelo menos)(?!\w)|-?ish\b)"
    r"|^\s*(?:to|through|and|-|–|—|~|,)\s*\d|^[^\d\s]{0,3}(?:左右|以上|以下|或|くらい|ぐらい|"
    r"ほど|이상|이하|정도)",
    re.I,
)
"""A number beside this is a bound, a range or a guess."""
RELATION: Final = re.compile(
    r"[~≈≃≅∼≤≥≲≳<>±≠∓]|(?<=\d)\s*\+(?!\s*\d)|\d\s*(?:-|–|—|\.\.+|/)?\s*ish\b"
)

_DENIAL = _words(
    r"no|not|\w+n't|cannot|none|never|neither|nor|nobody|nothing|nowhere|nope|nah|without|"
    r"wrong|incorrect|false|untrue|hardly|barely|scarcely|except|anything but|other than|"
    r"far from|opposite of|unlike|instead of|rather than|fails? to|lacks?|lacking|absent|"
    r"missing|rule out|ruled out|exclude[sd]?|eliminated?|"
    r"nicht|kein\w*|falsch|weder|nein|niemals|"
    r"ne|n'\w+|pas|aucune?|faux|fausse|jamais|non|"
    r"ningun[oa]?|ningún|incorrect[oa]s?|fals[oa]|nunca|sin|"
    r"nessun[oa]?|sbagliat[oa]|mai|"
    r"não|nenhuma?|errad[oa]|nem|"
    r"niet|geen|fout|nooit|nee|"
    r"не|нет|никогда|неверно|неправильно"
)
_DENIAL_JOINED = _words(r"不|没|沒|无|無|非|错|錯|别|ない|ません|違|間違|誤|아니|아닙|않|없|틀")
DENIAL: Final = re.compile(rf"(?<!\w)(?:{_DENIAL})(?!\w)|{_DENIAL_JOINED}", re.I)
"""Denials: the statement, or something in it, is denied."""

_TAKEN_BACK = (
    r"(?:^|[\s.!?,;(\[—–-])(?:wait|hold on|"
    r"(?:scratch|strike|forget|disregard|ignore|drop|ditch|discard)\s+(?:that|this|it|[(\[]?(?-i:[A-Z])[)\]]?)|"
    r"make that|never ?mind|"
    r"on (?:reflection|second (?:thoughts?|look|glance))|thinking again|come to think of it|"
    r"looking closer|on closer (?:inspection|look|examination)|"
    r"correction|corrected(?: to)?|edit(?=:)|update(?=:)|my mistake|"
    r"my bad|oops|sorry|i meant?|on (?:closer|second|further) (?:inspection|look)|"
    r"let me (?:re-?\w+|correct(?: (?:that|this|myself))?|look again|check again)|"
    r"(?:i(?:'m| am) )?chang(?:e|ed|ing) my (?:answer|mind)(?: to)?|correcting myself|i misread|"
    r"my apologies|looking (?:again|closer)|no(?=:)|"
    r"i (?:was|am) wrong|i made a mistake)(?=[\s,.!:;—–-]|$)"
    r"|(?:^\s*|[.!?\n,;—–-]\s*)(?:but )?(?:actually|hmm+|rather|or rather)\b(?=[\s,.])"
    r"|\sbut (?:actually|in fact)\b"
)
TAKEN_BACK: Final = re.compile(_TAKEN_BACK, re.I)
"""The speaker takes back what came before."""
CORRECTION: Final = re.compile(
    rf"{_TAKEN_BACK}|[\s.!?,;—–-]no,"
    r"|(?:^|[.!?\n]\s*)(?:nein|non|moment|doch|不对|不對|等等|いや|아니)\b",
    re.I,
)
"""The same, or by a "no" in between."""
ALTERNATIVE: Final = re.compile(
    r"^[\W_]*(?:or|and|and/or|oder|und|ou|et|o|y|oppure|e|of|en|или|и|或|或者|和|と|か|または|"
    r"또는|혹은|과|와)(?!\w)|^\s*[/|&+]|^(?:或|和|または)",
    re.I,
)
"""Another possibility follows."""

AFFIRMATIONS: Final = frozenset(
    "yes yeah yep yup yea aye correct true indeed affirmative certainly definitely absolutely "
    "ja jawohl oui si sí sì sim да evet はい ええ うん "
    "예 네 是 是的 对 對 对的 有 有的 正确".split()
)
NEGATIONS: Final = frozenset(
    "no nope nah nay never wrong incorrect false negative untrue nein non não нет nee hayır "
    "いいえ いや "
    "아니요 아니오 아뇨 否 不 不是 没有 沒有 不对 不對 没 不是的 错误".split()
)
ADVERBS: Final = frozenset("certainly definitely absolutely indeed".split())
"""Affirmations that a negation may follow: "certainly not"."""

ARTICLES: Final = frozenset(("a", "an", "the"))
FOREIGN_ARTICLES: Final = frozenset(
    "der die das den dem des ein eine einen einem einer le la les un une el los las una il lo gli "
    "uno i o os as um uma uns umas de het een du".split()
)
"""Taken off where nothing else makes the answer the right one."""

_NOUN = (
    r"answers?|ans\.?|output|conclusion|verdict|tl;?dr|options?|choices?|solution|result|selection|response|pick|antwort|lösung|"
    r"option|"
    r"réponse|respuesta|opción|risposta|opzione|resposta|alternativa|opção|antwoord|optie|ответ|"
    r"вариант"
)
NOUN: Final = rf"(?:{_NOUN})"
_AFTER_NOUN = (
    r"(?:correct[ae]?|final[e]?|correcta|corretta|giusta|correta|certa|exacta|juste|here|then|"
    r"therefore|thus|clearly|definitely|choice|option|letter)"
)
_IS = (
    r"is|was|would be|should be|must be|has to be|will be|are|ist|lautet|wäre|est|serait|es|sería|"
    r"è|sarebbe|é|seria|=>|->|→|=|это|:|："
)
_TAIL = r"(?:\s*(?:option|choice|letter|the option|that)\b)?\s*[:：]?\s*[-–—]?\s*"
CONCLUSION: Final = re.compile(
    # "the (final) answer to the question is (option)"
    rf"(?<!\w){NOUN}(?:\s+{_AFTER_NOUN})*(?:\s*\((?:letter|option|choice)\))?"
    r"(?:\s+(?:to|for|of)\s+(?:the|this|your|that)\s+\w+)?"
    rf"\s*(?:(?<=\s)|(?=[=:：]))(?:{_IS})(?!\w)(?!\s*(?:not|no|nicht|pas|non|não|не)\b\s+\w)"
    rf"(?:\s+(?:clearly|definitely|therefore|thus|simply|indeed|most definitely)\b)?"
    r"\s*[:：]?\s*"
    rf"|(?<!\w){NOUN}\s+[-–—]\s+"
    r"|(?<!\w)(?:correct|right|best)\s+(?:one|letter)\s+(?:is|would\s+be)(?!\w)(?!\s+not\b)\s*:?\s*"
    # a heading of its own
    rf"|(?:^|\n)[\W_]*(?:(?:final|correct)\s+)?{NOUN}[\W_]*\n\s*"
    r"|(?<=[.!?\n])\s*(?:final|verdict|conclusion)\s*[:=]\s*(?=\S)"
    # German turns it round
    r"|(?<!\w)(?:ist|wäre|lautet)\s+(?:somit\s+|daher\s+|also\s+)?die\s+"
    r"(?:richtige\s+|korrekte\s+)?(?:antwort|lösung)(?!\w)\s*:?\s*"
    r"|(?<!\w)(?:richtig|korrekt)\s+ist\s+"
    r"|(?<!\w)i(?:'d|'ll|\s+would|\s+will)?\s+(?:choose|pick|prefer|favou?r|select|go\s+(?:with|for)|opt\s+for|answer)"
    r"(?!\w)\s*:?\s*"
    r"|(?<!\w)(?:i(?:'ll|\s+will)?\s+(?:take|vote(?:\s+for)?)|(?:let's\s+go|going)\s+with)\s+"
    r"(?=(?:option\s+)?[(\[]?(?-i:[A-Z])[)\]]?\s*[.!]*\s*$)"
    r"|(?<!\w)(?:ich\s+wähle|je\s+choisis|elijo|escojo|scelgo|escolho|ik\s+kies|я\s+выбираю)\s+"
    r"|(?:正确|正確|最终|最終|最佳)?的?(?:答案|选项|選項|回答)(?:应该|應該|应|應)?"
    r"(?:是|为|為|选择|選擇|选|選|:|：|=)\s*(?:选项|選項)?\s*"
    r"|(?<![不别沒没可])(?:选择|選擇|选|選)(?:项|項|定)?\s*(?=[(\[（]?[A-Za-z])"
    r"|(?:正解|答え|こたえ|回答|解答|答案)(?:は|:|：)\s*"
    r"|(?:정답|답변|답)(?:은|는|:|：)\s*",
    re.I,
)
"""Words after which the answer follows."""
NO_CONCLUSION: Final = re.compile(
    r"(?<!\w)(?:wrong|incorrect|other|another|false|one|possible|falsche|mauvaise|incorrecta|"
    r"sbagliata|errada|不正确|错误)\s*(?:的)?$",
    re.I,
)
"""Before "answer is": it isn't the answer that follows, or one of several."""

LEAD: Final = re.compile(
    r"^(?:"
    r"1[.)]\s+(?=[(\[]?(?-i:[A-Z])[)\]]?[.\s]*$)|(?:-+>|=+>|→|⇒)\s*(?=\w)|"
    r"(?:either way|regardless|in any case|anyway|all in all|overall|ultimately)\s*[,:]\s*|"
    r"(?:got it|sure thing|here (?:goes|it is|you go|we go)|simple|easy)\s*[:!,.—–-]+\s*|"
    r"(?:choose|pick|select|go(?:ing)? with|opt for|click|mark|circle|take)\s+"
    r"(?=(?:option |answer |choice )?[(\[]?(?-i:[A-Z])[)\]]?[\s.!]*$)|"
    r"what (?:he|she|it|they|i|we|you|this|that|the \w+)\s[^,.:?\n]{1,40}?\s(?:is|are|was)\s+"
    r"(?=\w)|(?:after|upon|having)\s[^,.:?\n]{3,60},\s+|"
    r"because of [^,.:?\n]{3,60},\s+|without (?:a )?(?:doubt|question)(?: about it)?[\s,:]+|"
    r"(?:100 ?%|a hundred percent)[\s,:]+(?=(?:option )?[(\[]?(?-i:[A-Z])[)\]]?[\s.!]*$)|"
    r"(?:easily|evidently|surely|plainly|simply|unquestionably|unmistakably|undeniably)[\s,:]+|"
    r"(?:es|est|ist|è|é|это)\s+(?=(?:la|die|der|il|el|a|l'|вариант)\s?\w)|"
    r"(?:верный|правильный|правильная)\s+(?=(?:вариант|ответ))|"
    r"[✅✔✓☑👉➡]\s*|(?:selected|chosen|picked|marked)(?: (?:option|choice|answer))?\s*[:=]\s*|"
    r"final\s*[:=]\s*|(?:it )?(?:looks|seems|appears) (?:like|to be) (?=[(\[]?(?-i:[A-Z])\b)|"
    r"only\s+(?=[(\[]?[A-Z][)\]]?\s+(?:is|seems)\b)|"
    r"(?:so|thus|hence|therefore|then|ok|okay|well|sure|alright|right|great|certainly|of course|"
    r"clearly|obviously|definitely|indeed|finally|hmm+|also|donc|por lo tanto|quindi|portanto|dus|"
    r"daher|somit|demnach|folglich|итак|所以|因此|故)(?![\w'])[\s,:.!]*"
    r"|(?:without (?:a |any )?doubt|(?:there(?:'s| is) )?no doubt(?: about it)?(?: that)?|"
    r"undoubtedly)[\s,:]+"
    r"|(?:colou?r|shape|number|count|object|material|position|location|size|text|animal|brand|"
    r"direction|material)(?: of (?:the )?\w+)?\s*[:=]\s*"
    r"|(?:in conclusion|to conclude|in short|in summary|to sum up|"
    r"in my (?:opinion|view|judge?ment|eyes)|"
    r"as a result|"
    r"based on (?:the|this|what)[^,.:\n]{0,60}|"
    r"(?:looking at|judging by|judging from|according to|from|given) (?:the|this)"
    r" (?:image|picture|photo|scene|question|context|figure|chart)[^,.:\n]{0,30}|"
    r"in (?:the|this) (?:image|picture|photo|scene|figure|chart)|"
    r"auf dem bild|sur l'image|dans l'image|en la imagen|nell'immagine|na imagem|"
    r"op de afbeelding|на изображении|на картинке)\s*[,:]\s*"
    r"|(?:(?:as )?(?:we|i|you|one) (?:can )?(?:clearly )?(?:see|observe|conclude|notice|infer|say)|"
    r"it (?:is|'s) (?:clear|evident|obvious)(?= that\b)|this means|which means|that means|"
    r"i(?:'m| am) (?:(?:100 ?%|completely|absolutely|quite|very|totally) )?"
    r"(?:sure|certain|confident|positive)|"
    r"i (?:think|believe|find|feel|would say)|i'd say|my view is|"
    r"ich (?:denke|glaube|meine)|je (?:pense|crois)|creo|pienso|penso|credo|acho|ik denk|"
    r"я думаю|我认为|我認為|我觉得)(?![\w'])\s*[,:]?\s*(?:that|dass|que|che|dat|что)?(?![\w'])"
    r"\s*[,:]?\s*"
    rf"|(?:my |the |your |la |die |der |das |le |el |il |lo |a |o |de |het |l')?"
    rf"(?:(?:final|correct|right|best|true|actual|richtige|korrekte|bonne|mejor|juiste)\s+)*"
    rf"(?:{_NOUN}|letter|buchstabe|lettre|letra|lettera|буква)(?:\s+(?:letter|option|"
    rf"choice|{_AFTER_NOUN}))*"
    rf"(?:\s*[:：=]|\s+(?:{_IS})(?!\w)|(?=\s+[(\[]?[A-Z][)\]]?(?:[\s.,:;)!]|$))|(?=\s*[(\[]))"
    rf"\s*[:：]?\s*"
    r"|(?:it|this|that|they|c'|ce|es|das|esto|eso|è|zij|het|dit|это|它)\s?"
    r"(?:is|'s|are|'re|must be|should be|would be|has to be|was|were|ist|sind|est|es|son|è|"
    r"é|is|zijn)(?!\w)\s*(?:clearly |definitely |just |simply |only )?"
    r"|(?:it's|they're|that's|c'est|it’s)(?!\w)\s*(?:clearly |definitely |just |simply |only )?"
    r"|(?:is|are|est|ist|es|è|é)\s*:\s*"
    r"|(?:an? |the )?(?:close-?up )?(?:image|picture|photo|photograph) of (?=\S)"
    r"|(?:选项|選項|选|選|应该是|應該是|应选|应为|是|它是|这是|為|为)\s*"
    r"|(?:la|die|el|l'|het|de|le|il|a)\s*(?=[(\[]?[A-Z][)\]]?[\s.]*$)"
    r")",
    re.I,
)
"""Words before the answer itself; taken off one after the other."""
TRAIL: Final = re.compile(
    r"(?:\s*(?:だと思います|だと思う|と思います|です|である|だ|になります|となります|입니다|이다|이에요|예요|이에요|이야)\s*[。.!]*"
    r"|\s*(?:选项|選項|项|項|啊|吧)?[。.!]+"
    r"|(?<=[A-Za-z])(?:选项|選項|项|項)"
    r"|,?\s*(?:i think|i believe|of course|for sure|definitely|clearly|obviously|it is|indeed)"
    r"\s*[.!]*)$",
    re.I,
)
"""Words after the answer itself."""
CORRECT: Final = re.compile(
    rf"^\s*[,:–—-]?\s*(?:it )?(?:is|was|would be|must be|should be|seems|looks|ist|est|es|è|é|"
    rf"está|это)\s+"
    r"(?:definitely |clearly |indeed |therefore |the |die |la |a |le )*"
    r"(?:correct|right|true|best|only correct|only|most accurate|proper|valid|richtig\w*|"
    r"korrekt\w*|"
    r"bonne|correcte?|correct[ao]|corretta|giusta|certa|juist\w*|верн\w*|правильн\w*)?\s*"
    rf"(?:{_NOUN}|one|correct)?\s*(?=[.!,;:\n]|because\b|since\b|as\b|here\b|$)"
    r"|^\s*(?:是|才是|为)?(?:正确|正確|对|對)(?:的)?(?:答案|选项|選項)?"
    r"|^\s*が(?:正解|正しい)(?:です)?|^\s*[이가] 정답(?:입니다)?|^\s+it is\b",
    re.I,
)
"""After an option: that it is the right one."""
REFUSED: Final = re.compile(
    r"^[\s)\].,:;–—-]*(?:(?:option|answer|choice)\s+)?"
    r"(?:(?:is|was|can|are|ist|est|es|è|é)\s+(?:also\s+|clearly\s+|definitely\s+)?"
    r"(?:not|wrong|incorrect|false|out|impossible|eliminated|excluded|falsch|nicht|fausse|faux|"
    r"incorrect[oa]|sbagliata|errada|ruled)|isn't|wasn't|can't|cannot|doesn't|does\s+not|not|wrong|"
    r"incorrect|false|ist\s+falsch|n'est|no\s+es|non\s+è|não\s+é|不|错|錯|ではない|じゃない|"
    r"は違|가 아|이 아)",
    re.I,
)
"""After an option: that it isn't the right one."""
EXPLANATION: Final = re.compile(
    r"\s*[,;:(–—-]?\s*\b(?:because|since|as (?:it|they|the|we|you|i|can|seen|shown|indicated)|"
    r"due to|based on|judging|according to|given that|given the|considering|which|where|"
    r"as evidenced|weil|denn|da (?:es|das|die|der)|parce que|porque|ya que|perché|poiché|"
    r"omdat|потому что|так как)\b.*$"
    r"|\s*[,，]?\s*(?:因为|因為|なぜなら|왜냐하면).*$",
    re.I | re.S,
)
"""From here on the speaker gives reasons."""
PLACE: Final = re.compile(
    r"\s*,?\s+(?:(?:shown|seen|visible|depicted|displayed|present|here) )?(?:in|on|of|from|"
    r"within) (?:the|this)"
    r" (?:given |provided |above )?(?:image|picture|photo|photograph|scene|figure)$",
    re.I,
)
"""That it is seen in the picture."""
CONTRAST: Final = re.compile(
    r"\s*[,;(–—-]?\s*\b(?:(?:and|but)\s+)?(?:not|rather than|instead of|nicht|und nicht|et non|"
    r"pas|y no|e non|e não|en niet|а не)\s+(?!.{0,80}\b(?:but|sondern|mais|sino|ma|mas)\b)"
    r"[^.!?\n]{1,80}?\)?(?=[.!?\n]|$)"
    r"|\s*[,，]?(?:而)?不是[^。.!?\n]{1,40}(?=[。.!?\n]|$)",
    re.I,
)
"""A contrast that the answer is held against: "blue, not red"."""
BUT: Final = re.compile(
    r"^(?:(?:(?:(?:it|this|that|the \w+) (?:is|was)|it's|that's)?\s*not)|"
    r"(?:it|this|that|the \w+) (?:is|was)n't)\s+(?P<not>[^.!?\n]{1,60}?)\s*"
    r"(?:[,;]\s*(?:but|it's|it is|rather)|\bbut)\s+(?:rather\s+)?(?P<rest>\S.*)$",
    re.I | re.S,
)
"""'Not red but blue'."""
