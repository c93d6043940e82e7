"""The server's routes as OpenAPI describes them: requests, and responses."""

from __future__ import annotations

from speceyes.server.chat_request import MOST_STOPS
from speceyes.server.common_fields import MAX_SEED, MAX_TOP_LOGPROBS
from speceyes.server.limits import ServerLimits
from speceyes.server.schemas import (
    DATA_URL,
    FOREIGN,
    Schema,
    asked,
    closed,
    example_url,
    failure,
    maybe,
    route,
    told,
    whole_number,
)


def describe_chat(name: str, limits: ServerLimits, *, keyed: bool) -> Schema:
    """The description of `/v1/chat/completions`, to be merged into FastAPI's.

    Args:
        name: The name that is served.
        limits: Limits of a request, thresholds settled.
        keyed: A key is needed.
    """
    words = "A chat completion, or with stream: true its chunks as events"
    return route(words, _completion(name), _request(name, limits), _example(name), keyed=keyed)


def describe_models(*, keyed: bool, one: bool) -> dict[int | str, Schema]:
    """The responses of `/v1/models`, or of `/v1/models/{model}`."""
    found: dict[int | str, Schema] = (
        {401: failure("No key that is known")} if keyed else {403: failure(FOREIGN)}
    )
    return found | ({404: failure("No such model")} if one else {})


def _request(name: str, limits: ServerLimits) -> Schema:
    text = {"type": "string"}
    flag = {"type": "boolean"}
    zero = {"type": "number", "const": 0}
    image = closed(
        ["url"],
        {
            "url": {
                "type": "string",
                "format": DATA_URL,
                "description": "data:image/...;base64,...",
            },
            "detail": maybe({"enum": ["auto", "high"]}),
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
    message = closed(
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
        "stream": maybe(flag),
        "stream_options": maybe(
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {"include_usage": maybe(flag)},
                "description": "Only with stream: true",
            }
        ),
        "logprobs": maybe(flag),
        "top_logprobs": {
            **maybe(whole_number(minimum=0, maximum=MAX_TOP_LOGPROBS)),
            "description": "Only with logprobs: true",
        },
        "stop": maybe({"anyOf": [stop, {"type": "array", "items": stop, "maxItems": MOST_STOPS}]}),
        "max_tokens": maybe(whole_number(minimum=1)),
        "max_completion_tokens": {
            **maybe(whole_number(minimum=1)),
            "description": "Not together with max_tokens",
        },
        "speceyes": maybe(asked(limits)),
        # What changes nothing here.
        "temperature": maybe(zero),
        "top_p": maybe({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
        "n": maybe(whole_number(const=1)),
        "seed": maybe(whole_number(minimum=-MAX_SEED, maximum=MAX_SEED)),
        "presence_penalty": maybe(zero),
        "frequency_penalty": maybe(zero),
        "logit_bias": maybe({"type": "object", "maxProperties": 0}),
        "tools": maybe({"type": "array", "maxItems": 0}),
        "tool_choice": maybe({"const": "none"}),
        "parallel_tool_calls": maybe(flag),
        "response_format": maybe({"const": {"type": "text"}}),
        "modalities": maybe({"const": ["text"]}),
        "store": maybe({"const": False}),
        "service_tier": maybe({"enum": ["auto", "default"]}),
        "user": maybe(text),
        "safety_identifier": maybe(text),
        "functions": maybe({"type": "array", "maxItems": 0}),
        "function_call": maybe({"const": "none"}),
        "audio": {"type": "null"},
    }
    if limits.tolerant:
        fields |= _tolerated()
        fields["messages"] = _messages(written, shown)
    whole = closed(["model", "messages"], fields)
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
            "description": maybe({"type": "string"}),
            "parameters": maybe({"type": "object"}),
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
        "temperature": maybe({"type": "number", "minimum": 0, "maximum": 2}),
        "presence_penalty": maybe(penalty),
        "frequency_penalty": maybe(penalty),
        "logit_bias": maybe({"type": "object"}),
        "tools": {
            **maybe({"type": "array", "items": tool}),
            "description": "Run by the client; the agent alone is told",
        },
        "tool_choice": maybe(
            {"anyOf": [{"enum": ["none", "auto", "required"]}, {"type": "object"}]}
        ),
        "response_format": maybe(form),
        "store": maybe(flag),
        "service_tier": maybe({"type": "string"}),
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


def _completion(name: str) -> Schema:
    """A chat completion as it comes back."""
    count = {"type": "integer", "minimum": 0}
    text = {"type": "string"}
    message = closed(
        ["role", "content", "refusal"],
        {
            "role": {"const": "assistant"},
            "content": text,
            "refusal": {"type": "null"},
            "tool_calls": {"type": "array", "items": {"type": "object"}},
        },
    )
    choice = closed(
        ["index", "message", "logprobs", "finish_reason"],
        {
            "index": {"const": 0},
            "message": message,
            "logprobs": {"type": ["object", "null"]},
            "finish_reason": {"enum": ["stop", "length", "tool_calls"]},
        },
    )
    tokens = ("prompt_tokens", "completion_tokens", "total_tokens")
    whole = {
        "id": text,
        "object": {"const": "chat.completion"},
        "created": count,
        "model": {"const": name},
        "choices": {"type": "array", "items": choice, "minItems": 1, "maxItems": 1},
        "usage": closed(list(tokens), dict.fromkeys(tokens, count)),
        "speceyes": told(),
    }
    return closed(list(whole), whole)


def _example(name: str) -> Schema:
    """A request that can be sent as it stands."""
    content = [
        {"type": "image_url", "image_url": {"url": example_url()}},
        {"type": "text", "text": "Which colour is it?"},
    ]
    return {"model": name, "messages": [{"role": "user", "content": content}]}
