"""Yes/no questions and choices about images, in the form of OpenAI's decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, final

from speceyes.server.chat_request import ChatRequest, check_length, check_model, read_json
from speceyes.server.common_fields import (
    MOST_CHOICES,
    RULES,
    Rule,
    check_others,
    read_extension,
)
from speceyes.server.fields import bad_field, shown, text_of
from speceyes.server.limits import ServerLimits
from speceyes.server.messages import Notes, ReadMessage, dialogue_of
from speceyes.server.responses_request import read_input

MOST_QUESTIONS: Final = 16
"""Of one request; it takes one place, whatever their number."""
MOST_CHOICE_CHARS: Final = 100
"""Of a choice, and of its description."""
_NAME: Final = "questions"

_RULES: Final[Mapping[str, Rule]] = {
    "safety_identifier": RULES["safety_identifier"],
    "prompt_cache_key": Rule(lambda v: isinstance(v, str), "text; it is not looked at"),
    "stream": Rule(lambda v: v is False, "false: probabilities come together"),
}


@final
@dataclass(frozen=True, slots=True)
class AskedDecision:
    """One question of a request.

    Args:
        kind: "predicate", which is answered by yes or no, or "choice".
        text: The question in words.
        name: The client's name for it; None where it has none.
        values: The values that are chosen among, texts or truths; empty for a predicate.
        options: The same in words, as models see them.
    """

    kind: Literal["predicate", "choice"]
    text: str
    name: str | None = None
    values: tuple[str | bool, ...] = ()
    options: tuple[str, ...] = ()


def read_decision_request(body: bytes, model: str, limits: ServerLimits) -> ChatRequest:
    """The request in a body; its `echo` holds the questions as `AskedDecision`.

    What is said in `input` besides images stands before each question.

    Raises:
        Refusal: 400, naming the field, or 404 for another model.

    Example:
        >>> body = b'{"model": "m", "input": "?", "questions": []}'
        >>> read_decision_request(body, "m", ServerLimits())
        Traceback (most recent call last):
        speceyes.server.refusal.Refusal: questions: a list of 1 to 16 questions is needed
    """
    data = read_json(body)
    notes = Notes()
    check_others(data, ("model", "input", _NAME, "speceyes"), _RULES, limits, notes)
    check_model(data.get("model"), model)
    asked = _questions(data.get(_NAME), limits, notes)
    more = read_extension(data.get("speceyes"), limits)
    if more.pop("choices", None) is not None:
        raise bad_field("speceyes.choices", 'a question of type "choice" has them')
    said = read_input(data.get("input"), limits, notes)
    # The last message of the user is the evidence that questions follow, be there words in it or
    # images alone.
    at = max((n for n, one in enumerate(said) if one.role == "user"), default=None)
    if at is None:
        raise bad_field("input", "a user message with an image is needed")
    before, evidence = said[at].text, said[at]
    texts = ["\n".join(part for part in (before, one.text) if part) for one in asked]
    pictures = tuple(part for part in evidence.content if not isinstance(part, str))
    said[at] = ReadMessage("user", evidence.where, (*pictures, texts[0]))
    dialogue = dialogue_of(said, limits, notes, tools=False, field="input")
    every = [*texts[1:], *(option for one in asked for option in one.options)]
    check_length(dialogue, every, limits)
    return ChatRequest(
        dialogue=dialogue,
        notes=notes,
        echo={_NAME: asked},
        questions=tuple((text, one.options) for text, one in zip(texts, asked, strict=True)),
        **more,
    )


def _questions(value: Any, limits: ServerLimits, notes: Notes) -> tuple[AskedDecision, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_QUESTIONS:
        raise bad_field(_NAME, f"a list of 1 to {MOST_QUESTIONS} questions is needed")
    return tuple(_question(one, f"{_NAME}[{at}]", limits, notes) for at, one in enumerate(value))


def _question(value: Any, where: str, limits: ServerLimits, notes: Notes) -> AskedDecision:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind not in ("predicate", "choice"):
        raise bad_field(f"{where}.type", '"predicate" or "choice" is needed')
    _check_names(value, ("type", "name", "instructions", "choices"), where, limits, notes)
    name = value.get("name")
    if name is not None:
        name = text_of(name, f"{where}.name")
    text = _instructions(value.get("instructions"), f"{where}.instructions")
    if kind == "predicate":
        if value.get("choices") is not None:
            raise bad_field(f"{where}.choices", 'only with type: "choice"')
        return AskedDecision("predicate", text, name)
    values, options = _choices(value.get("choices"), f"{where}.choices", limits, notes)
    return AskedDecision("choice", text, name, values, options)


def _instructions(value: Any, where: str) -> str:
    """A question in words: a text, or parts that are texts."""
    if isinstance(value, list):
        texts = []
        for at, part in enumerate(value):
            if not isinstance(part, dict) or part.get("type") != "input_text":
                raise bad_field(
                    f"{where}[{at}].type", '"input_text" is needed; images belong in input'
                )
            texts.append(text_of(part.get("text"), f"{where}[{at}].text"))
        value = "\n".join(texts)
    text = text_of(value, where)
    if not text.strip():
        raise bad_field(where, "a question in words is needed")
    return text


def _choices(
    value: Any, where: str, limits: ServerLimits, notes: Notes
) -> tuple[tuple[str | bool, ...], tuple[str, ...]]:
    if not isinstance(value, list) or not 2 <= len(value) <= MOST_CHOICES:
        raise bad_field(where, f"a list of 2 to {MOST_CHOICES} choices is needed")
    values: list[str | bool] = []
    options: list[str] = []
    for at, one in enumerate(value):
        within = f"{where}[{at}]"
        if not isinstance(one, dict):
            raise bad_field(within, 'an object {"value": ...} is needed')
        _check_names(one, ("value", "description"), within, limits, notes)
        found = one.get("value")
        if not isinstance(found, bool):
            found = _short(found, f"{within}.value")
            if not found.strip():
                raise bad_field(f"{within}.value", "a text that isn't blank is needed")
        if one in value[:at]:
            raise bad_field(f"{within}.value", "the choices must differ")
        values.append(found)
        options.append(("yes" if found else "no") if isinstance(found, bool) else found.strip())
    for at, one in enumerate(value):
        about = one.get("description")
        if about is not None and (text := _short(about, f"{where}[{at}].description").strip()):
            options[at] = f"{options[at]}: {text}"
    return tuple(values), tuple(options)


def _short(value: Any, where: str) -> str:
    text = text_of(value, where)
    if len(text) > MOST_CHOICE_CHARS:
        raise bad_field(where, f"more than {MOST_CHOICE_CHARS} characters")
    return text


def _check_names(
    value: Mapping[str, Any], known: Sequence[str], where: str, limits: ServerLimits, notes: Notes
) -> None:
    for name, one in value.items():
        if name not in known and one is not None:
            if not limits.tolerant:
                raise bad_field(
                    f"{where}.{shown(name)}", "this field is not supported", "unsupported_parameter"
                )
            notes.ignore(f"{_NAME}.{name}")
