"""`/v1/decisions` as OpenAPI describes it."""

from __future__ import annotations

from speceyes.server.common_fields import MOST_CHOICES
from speceyes.server.decisions_request import MOST_CHOICE_CHARS, MOST_QUESTIONS
from speceyes.server.limits import ServerLimits
from speceyes.server.responses_description import parts, usage
from speceyes.server.schemas import (
    Schema,
    asked,
    closed,
    example_url,
    maybe,
    route,
    told,
)

_TEXT: Schema = {"type": "string"}
_WORDS: Schema = {**_TEXT, "pattern": "\\S"}
_CHANCE: Schema = {"type": "number", "minimum": 0, "maximum": 1}


def describe_decisions(name: str, limits: ServerLimits, *, keyed: bool) -> Schema:
    """The description of `/v1/decisions`, to be merged into FastAPI's.

    Args:
        name: The name that is served.
        limits: Limits of a request, thresholds settled.
        keyed: A key is needed.
    """
    image = {"type": "input_image", "image_url": example_url()}
    example = {
        "model": name,
        "input": [{"role": "user", "content": [image]}],
        "questions": [{"type": "predicate", "name": "red", "instructions": "Is it red?"}],
    }
    words, request = "An answer to each question, in order", _request(name, limits)
    return route(words, _decision(name), request, example, keyed=keyed, streams=False)


def _request(name: str, limits: ServerLimits) -> Schema:
    written, _, shown = parts(limits)
    content = {
        "type": "array",
        "description": "At least one image; texts stand before each question",
        "items": {"anyOf": [written, shown]},
        "contains": shown,
    }
    message = closed(
        ["role", "content"],
        {"type": maybe({"const": "message"}), "role": {"const": "user"}, "content": content},
    )
    part = {
        "type": "object",
        "required": ["type", "text"],
        "properties": {"type": {"const": "input_text"}, "text": _WORDS},
    }
    words: Schema = {"anyOf": [_WORDS, {"type": "array", "items": part, "minItems": 1}]}
    choice = closed(
        ["value"],
        {
            "value": {"anyOf": [{**_WORDS, "maxLength": MOST_CHOICE_CHARS}, {"type": "boolean"}]},
            "description": maybe({**_TEXT, "maxLength": MOST_CHOICE_CHARS}),
        },
    )
    choices: Schema = {
        "type": "array",
        "items": choice,
        "minItems": 2,
        "maxItems": MOST_CHOICES,
        "uniqueItems": True,
        "description": "The values must differ",
    }
    named: Schema = {"name": maybe(_TEXT), "instructions": words}
    predicate = closed(["type", "instructions"], {"type": {"const": "predicate"}, **named})
    chosen = closed(
        ["type", "instructions", "choices"],
        {"type": {"const": "choice"}, **named, "choices": choices},
    )
    own = asked(limits)
    own["properties"].pop("choices")
    fields: Schema = {
        "model": {**_TEXT, "const": name},
        "input": {"type": "array", "items": message, "minItems": 1, "maxItems": 1},
        "questions": {
            "type": "array",
            "items": {"anyOf": [predicate, chosen]},
            "minItems": 1,
            "maxItems": MOST_QUESTIONS,
        },
        "speceyes": maybe(own),
        "safety_identifier": maybe(_TEXT),
        "prompt_cache_key": maybe(_TEXT),
        "stream": maybe({"const": False}),
    }
    whole = closed(["model", "input", "questions"], fields)
    if limits.tolerant:
        del whole["additionalProperties"]  # they are ignored, and named in a header
        fields["input"] = {
            "type": "array",
            "minItems": 1,
            "contains": message,
            "description": "As in /v1/responses; questions are about the last user message",
        }
    return whole


def _decision(name: str) -> Schema:
    """A decision as it comes back."""
    maybe_text: Schema = {"type": ["string", "null"]}
    pair: Schema = {"type": "array", "items": _CHANCE, "minItems": 2, "maxItems": 2}
    way = told()
    own: Schema = {
        **way["properties"],
        "source": {"enum": ["draft", "agent"]},
        "calibrated": {
            "type": "boolean",
            "description": "By the labels of the calibration that the gate is of",
        },
        "of": {
            "enum": ["truth", "agent", None],
            "description": "What the probability is of: being right, or what the agent would say",
        },
        "interval": maybe(pair),
        "raw": {
            "anyOf": [_CHANCE, {"type": "null"}],
            "description": "What the drafter gave to its own words",
        },
    }
    said = closed(list(own), own)
    predicate = closed(
        ["type", "name", "probability", "speceyes"],
        {
            "type": {"const": "predicate"},
            "name": maybe_text,
            "probability": {**_CHANCE, "description": "Of yes"},
            "speceyes": said,
        },
    )
    value: Schema = {"type": ["string", "boolean"]}
    share = closed(["value", "probability"], {"value": value, "probability": _CHANCE})
    choice = closed(
        ["type", "name", "choice", "confidence", "probabilities", "speceyes"],
        {
            "type": {"const": "choice"},
            "name": maybe_text,
            "choice": value,
            "confidence": _CHANCE,
            "probabilities": {"type": "array", "items": share},
            "speceyes": said,
        },
    )
    refusal = closed(
        ["type", "name", "speceyes"],
        {"type": {"const": "refusal"}, "name": maybe_text, "speceyes": {"type": "object"}},
    )
    whole: Schema = {
        "id": _TEXT,
        "object": {"const": "decision"},
        "model": {"const": name},
        "answers": {"type": "array", "items": {"anyOf": [predicate, choice, refusal]}},
        "usage": usage(),
    }
    return closed(list(whole), whole)
