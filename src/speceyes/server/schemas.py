"""Pieces of OpenAPI descriptions that several routes share."""

from __future__ import annotations

from typing import Any, Final

from PIL import Image

from speceyes.encoded import data_url
from speceyes.server.common_fields import MOST_CHOICES
from speceyes.server.limits import ServerLimits

Schema = dict[str, Any]

BEARER: Final = "key"
"""The name of the security scheme."""
DATA_URL: Final = "image-data-url"
"""The format of an image's address: "data:image/png;base64,..." and the like."""

_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


FOREIGN = "It was asked under a name of somebody else's, as a web page may do"


def refusals(*, keyed: bool) -> Schema:
    """The responses of a route that answers questions, but for the answer.

    Args:
        keyed: A key is needed.
    """
    what: Schema = {}
    for status, words in (
        ("400", "Something in the request is not served; the error names it"),
        ("401", "No key that is known"),
        ("404", "No such model"),
        ("408", "The body came too slowly"),
        ("413", "The body is too large"),
        *(() if keyed else (("403", FOREIGN), ("415", "The body is not said to be JSON"))),
        ("422", "There is no answer to it"),
        ("429", "Too many requests are under way, or a key's budget is spent; see Retry-After"),
        ("500", "The server failed"),
        ("502", "A model failed"),
        ("503", "The server is closing"),
        ("504", "The request's time is over"),
    ):
        what[status] = failure(words)
    return what


def route(
    words: str,
    answer: Schema,
    request: Schema,
    example: Schema,
    *,
    keyed: bool,
    streams: bool = True,
) -> Schema:
    """The description of a route that answers questions, to be merged into FastAPI's.

    Args:
        words: About the response that is an answer.
        answer: The schema of that response.
        request: The schema of the body.
        example: A body that can be sent as it stands.
        keyed: A key is needed.
        streams: The answer may also be asked for as events.
    """
    written: Schema = {"application/json": {"schema": answer}}
    if streams:
        written["text/event-stream"] = {}
    good = {"description": words, "content": written}
    body = {"schema": request, "example": example}
    return {
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {"200": good, **refusals(keyed=keyed)},
        **secured(keyed),
    }


def secured(keyed: bool) -> Schema:
    """The description of a key, for a route that asks for one."""
    return {"security": [{BEARER: []}]} if keyed else {}


def failure(words: str) -> Schema:
    """A response that is an error."""
    return {"description": words, "content": {"application/json": {"schema": _ERROR}}}


def maybe(schema: Schema) -> Schema:
    """The same, or null, which is as if it were left out."""
    return {"anyOf": [schema, {"type": "null"}]}


def whole_number(**range_: int) -> Schema:
    """A whole number within a range."""
    return {"type": "integer", **range_}


def closed(required: list[str], properties: Schema) -> Schema:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "required": required,
        "additionalProperties": False,
        "properties": properties,
    }


def asked(limits: ServerLimits) -> Schema:
    """The fields of `speceyes` in a request."""
    text = {"type": "string"}
    fields: Schema = {
        "choices": maybe({"type": "array", "items": text, "maxItems": MOST_CHOICES}),
        "deadline_s": maybe({"type": "number", "exclusiveMinimum": 0, "maximum": limits.seconds}),
        "route": maybe({"enum": ["auto", "agent"] if limits.agent_on_request else ["auto"]}),
    }
    if limits.thresholds is not None:
        low, high = limits.thresholds
        fields["threshold"] = maybe({"type": "number", "minimum": low, "maximum": high})
    return {"type": "object", "additionalProperties": False, "properties": fields}


def told() -> Schema:
    """The fields of `speceyes` in a response."""
    number = {"type": ["number", "null"]}
    count = {"type": "integer", "minimum": 0}
    phases = ("queue", "judge", "draft", "gate", "fallback", "latency")
    pair = {"type": "array", "items": count, "minItems": 2, "maxItems": 2}
    own = {
        "route": {"enum": ["draft", "agent"]},
        **dict.fromkeys(("score", "separability", "threshold", "p_tools"), number),
        "needs_tools": {"type": ["boolean", "null"]},
        **dict.fromkeys(("depth", "turns"), count),
        "timings": closed(list(phases), dict.fromkeys(phases, number)),
        "tokens": {"type": "object", "additionalProperties": pair},
    }
    return closed(list(own), own)


def example_url() -> str:
    """A picture that can be sent as it stands."""
    return data_url(Image.new("RGB", (64, 48), "red"))
