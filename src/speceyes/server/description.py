"""The server's routes as OpenAPI describes them: requests, and responses."""

from __future__ import annotations

import base64
import io
from typing import Any, Final

from PIL import Image

from speceyes.server.chat_request import MAX_SEED, MAX_TOP_LOGPROBS, MOST_CHOICES, MOST_STOPS
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


_FOREIGN = "It was asked under a name of somebody else's, as a web page may do"


def describe_chat(name: str, limits: ServerLimits, *, keyed: bool) -> Schema:
    """The description of `/v1/chat/completions`, to be merged into FastAPI's.

    Args:
        name: The name that is served.
        limits: Limits of a request, thresholds settled.
        keyed: A key is needed.
    """
    what = {
        "200": {
            "description": "A chat completion, or with stream: true its chunks as events",
            "content": {
                "application/json": {"schema": _completion(name)},
                "text/event-stream": {},
            },
        }
    }
    for status, words in (
        ("400", "Something in the request is not served; the error names it"),
        ("401", "No key that is known"),
        ("404", "No such model"),
        ("408", "The body came too slowly"),
        ("413", "The body is too large"),
        *(() if keyed else (("403", _FOREIGN), ("415", "The body is not said to be JSON"))),
        ("422", "There is no answer to it"),
        ("429", "Too many requests are under way, or a key's budget is spent; see Retry-After"),
        ("500", "The server failed"),
        ("502", "A model failed"),
        ("503", "The server is closing"),
        ("504", "The request's time is over"),
    ):
        what[status] = failure(words)
    body = {"schema": _request(name, limits), "example": _example(name)}
    return {
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": what,
        **secured(keyed),
    }


def secured(keyed: bool) -> Schema:
    """The description of a key, for a route that asks for one."""
    return {"security": [{BEARER: []}]} if keyed else {}


def failure(words: str) -> Schema:
    """A response that is an error."""
    return {"description": words, "content": {"application/json": {"schema": _ERROR}}}


def describe_models(*, keyed: bool, one: bool) -> dict[int | str, Schema]:
    """The responses of `/v1/models`, or of `/v1/models/{model}`."""
    found: dict[int | str, Schema] = (
        {401: failure("No key that is known")} if keyed else {403: failure(_FOREIGN)}
    )
    return found | ({404: failure("No such model")} if one else {})


def _maybe(schema: Schema) -> Schema:
    """The same, or null, which is as if it were left out."""
    return {"anyOf": [schema, {"type": "null"}]}


def _whole(**range_: int) -> Schema:
    return {"type": "integer", **range_}


def _object(required: list[str], properties: Schema) -> Schema:
    return {
        "type": "object",
        "required": required,
        "additionalProperties": False,
        "properties": properties,
    }


def _request(name: str, limits: ServerLimits) -> Schema:
    text = {"type": "string"}
    flag = {"type": "boolean"}
    zero = {"type": "number", "const": 0}
    image = _object(
        ["url"],
        {
            "url": {
                "type": "string",
                "format": DATA_URL,
                "description": "data:image/...;base64,...",
            },
            "detail": _maybe({"enum": ["auto", "high"]}),
        },
    )
    # A part may hold fields beyond these; they are not looked at.
    written = {
        "type": "object",
        "required": ["type", "text"],
        "properties": {"type": {"const": "text"}, "text": text},
    }
    shown = {
        "type": "object",
        "required": ["type", "image_url"],
        "properties": {"type": {"const": "image_url"}, "image_url": image},
    }
    said = {
        "type": "object",
        "required": ["type", "text"],
        "properties": {"type": {"const": "text"}, "text": {"type": "string", "pattern": "\\S"}},
    }
    message = _object(
        ["role", "content"],
        {
            "role": {"const": "user"},
            "content": {
                "type": "array",
                "description": "At least one image, and a text that isn't blank",
                "items": {"anyOf": [written, shown]},
                "allOf": [{"contains": shown}, {"contains": said}],
                "minItems": 2,
            },
            "name": {},
        },
    )
    stop = {"type": "string", "minLength": 1}
    fields: Schema = {
        "model": {"type": "string", "const": name},
        "messages": {"type": "array", "items": message, "minItems": 1, "maxItems": 1},
        "stream": _maybe(flag),
        "stream_options": _maybe(
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {"include_usage": _maybe(flag)},
                "description": "Only with stream: true",
            }
        ),
        "logprobs": _maybe(flag),
        "top_logprobs": {
            **_maybe(_whole(minimum=0, maximum=MAX_TOP_LOGPROBS)),
            "description": "Only with logprobs: true",
        },
        "stop": _maybe({"anyOf": [stop, {"type": "array", "items": stop, "maxItems": MOST_STOPS}]}),
        "max_tokens": _maybe(_whole(minimum=1)),
        "max_completion_tokens": {
            **_maybe(_whole(minimum=1)),
            "description": "Not together with max_tokens",
        },
        "speceyes": _maybe(_extension(limits)),
        # What changes nothing here.
        "temperature": _maybe(zero),
        "top_p": _maybe({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
        "n": _maybe(_whole(const=1)),
        "seed": _maybe(_whole(minimum=-MAX_SEED, maximum=MAX_SEED)),
        "presence_penalty": _maybe(zero),
        "frequency_penalty": _maybe(zero),
        "logit_bias": _maybe({"type": "object", "maxProperties": 0}),
        "tools": _maybe({"type": "array", "maxItems": 0}),
        "tool_choice": _maybe({"const": "none"}),
        "parallel_tool_calls": _maybe(flag),
        "response_format": _maybe({"const": {"type": "text"}}),
        "modalities": _maybe({"const": ["text"]}),
        "store": _maybe({"const": False}),
        "service_tier": _maybe({"enum": ["auto", "default"]}),
        "user": _maybe(text),
        "safety_identifier": _maybe(text),
        "functions": _maybe({"type": "array", "maxItems": 0}),
        "function_call": _maybe({"const": "none"}),
        "audio": {"type": "null"},
    }
    if limits.tolerant:
        fields |= _tolerated()
        fields["messages"] = _messages(written, shown)
    whole = _object(["model", "messages"], fields)
    if limits.tolerant:
        del whole["additionalProperties"]  # they are ignored, and named in a header

    def on(field: str) -> Schema:
        return {"required": [field], "properties": {field: {"const": True}}}

    return whole | {
        "dependentSchemas": {"stream_options": on("stream"), "top_logprobs": on("logprobs")},
        "not": {"required": ["max_tokens", "max_completion_tokens"]},
    }


def _tolerated() -> Schema:
    """Fields as a tolerant server takes them."""
    flag: Schema = {"type": "boolean"}
    penalty = {"type": "number", "minimum": -2, "maximum": 2}
    function = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string"},
            "description": _maybe({"type": "string"}),
            "parameters": _maybe({"type": "object"}),
        },
    }
    tool = {"type": "object", "required": ["function"], "properties": {"function": function}}
    form = {
        "anyOf": [
            {"const": {"type": "text"}},
            {
                "type": "object",
                "required": ["type"],
                "properties": {"type": {"const": "json_object"}},
            },
            {
                "type": "object",
                "required": ["type", "json_schema"],
                "properties": {
                    "type": {"const": "json_schema"},
                    "json_schema": {
                        "type": "object",
                        "properties": {"schema": {"type": "object"}},
                    },
                },
            },
        ],
        "description": "The agent alone is told",
    }
    return {
        "temperature": _maybe({"type": "number", "minimum": 0, "maximum": 2}),
        "presence_penalty": _maybe(penalty),
        "frequency_penalty": _maybe(penalty),
        "logit_bias": _maybe({"type": "object"}),
        "tools": {
            **_maybe({"type": "array", "items": tool}),
            "description": "Run by the client; the agent alone is told",
        },
        "tool_choice": _maybe(
            {"anyOf": [{"enum": ["none", "auto", "required"]}, {"type": "object"}]}
        ),
        "response_format": _maybe(form),
        "store": _maybe(flag),
        "service_tier": _maybe({"type": "string"}),
    }


def _messages(written: Schema, shown: Schema) -> Schema:
    """Messages as a tolerant server takes them: one of the user's has a question, one an image."""
    words = {"type": "string", "pattern": "\\S"}
    said = {**written, "properties": {**written["properties"], "text": words}}

    def user(content: Schema) -> Schema:
        return {
            "type": "object",
            "required": ["role", "content"],
            "properties": {"role": {"const": "user"}, "content": content},
        }

    def holding(part: Schema) -> Schema:
        parts = {"type": "array", "items": {"anyOf": [written, shown]}, "contains": part}
        return user(parts)

    asked = {"anyOf": [user(words), holding(said)]}
    other = {
        "type": "object",
        "required": ["role", "content"],
        "properties": {
            "role": {"enum": ["system", "developer", "assistant"]},
            "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": written}]},
        },
    }
    return {
        "type": "array",
        "items": {"anyOf": [asked, holding(shown), other]},
        "minItems": 1,
        "allOf": [{"contains": asked}, {"contains": holding(shown)}],
        "description": "The last user message with text is the question; the agent alone is told "
        "the others. Images are its own, or the latest ones before it",
    }


def _extension(limits: ServerLimits) -> Schema:
    text = {"type": "string"}
    fields: Schema = {
        "choices": _maybe({"type": "array", "items": text, "maxItems": MOST_CHOICES}),
        "deadline_s": _maybe({"type": "number", "exclusiveMinimum": 0, "maximum": limits.seconds}),
        "route": _maybe({"enum": ["auto", "agent"] if limits.agent_on_request else ["auto"]}),
    }
    if limits.thresholds is not None:
        low, high = limits.thresholds
        fields["threshold"] = _maybe({"type": "number", "minimum": low, "maximum": high})
    return {"type": "object", "additionalProperties": False, "properties": fields}


def _completion(name: str) -> Schema:
    """A chat completion as it comes back."""
    number = {"type": ["number", "null"]}
    count = {"type": "integer", "minimum": 0}
    text = {"type": "string"}
    message = _object(
        ["role", "content", "refusal"],
        {
            "role": {"const": "assistant"},
            "content": text,
            "refusal": {"type": "null"},
            "tool_calls": {"type": "array", "items": {"type": "object"}},
        },
    )
    choice = _object(
        ["index", "message", "logprobs", "finish_reason"],
        {
            "index": {"const": 0},
            "message": message,
            "logprobs": {"type": ["object", "null"]},
            "finish_reason": {"enum": ["stop", "length", "tool_calls"]},
        },
    )
    tokens = ("prompt_tokens", "completion_tokens", "total_tokens")
    phases = ("queue", "judge", "draft", "gate", "fallback", "latency")
    pair = {"type": "array", "items": count, "minItems": 2, "maxItems": 2}
    own = {
        "route": {"enum": ["draft", "agent"]},
        **dict.fromkeys(("score", "separability", "threshold", "p_tools"), number),
        "needs_tools": {"type": ["boolean", "null"]},
        **dict.fromkeys(("depth", "turns"), count),
        "timings": _object(list(phases), dict.fromkeys(phases, number)),
        "tokens": {"type": "object", "additionalProperties": pair},
    }
    whole = {
        "id": text,
        "object": {"const": "chat.completion"},
        "created": count,
        "model": {"const": name},
        "choices": {"type": "array", "items": choice, "minItems": 1, "maxItems": 1},
        "usage": _object(list(tokens), dict.fromkeys(tokens, count)),
        "speceyes": _object(list(own), own),
    }
    return _object(list(whole), whole)


def _example(name: str) -> Schema:
    """A request that can be sent as it stands."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(buffer, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "Which colour is it?"},
    ]
    return {"model": name, "messages": [{"role": "user", "content": content}]}
