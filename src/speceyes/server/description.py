"""The request in the words of OpenAPI."""

from __future__ import annotations

from typing import Any

_ERROR: dict[str, Any] = {
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
_TEXT: dict[str, Any] = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
}
_IMAGE: dict[str, Any] = {
    "type": "object",
    "required": ["type", "image_url"],
    "properties": {
        "type": {"const": "image_url"},
        "image_url": {
            "type": "object",
            "required": ["url"],
            "additionalProperties": False,
            "properties": {
                "url": {"type": "string", "description": "data:image/...;base64,..."},
                "detail": {"enum": ["auto", "high"]},
            },
        },
    },
}
_MESSAGE: dict[str, Any] = {
    "type": "object",
    "required": ["role", "content"],
    "additionalProperties": False,
    "properties": {
        "role": {"const": "user"},
        "content": {"type": "array", "items": {"anyOf": [_TEXT, _IMAGE]}, "minItems": 2},
        "name": {"type": "string"},
    },
}
_EXTENSION: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "route": {"enum": ["auto", "agent"]},
        "threshold": {"type": "number", "minimum": 0, "maximum": 1},
        "deadline_s": {"type": "number", "exclusiveMinimum": 0},
        "choices": {"type": "array", "items": {"type": "string"}, "maxItems": 26},
    },
}
_REQUEST: dict[str, Any] = {
    "type": "object",
    "required": ["model", "messages"],
    "additionalProperties": False,
    "properties": {
        "model": {"type": "string"},
        "messages": {"type": "array", "items": _MESSAGE, "minItems": 1, "maxItems": 1},
        "stream": {"type": "boolean"},
        "stream_options": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"include_usage": {"type": "boolean"}},
        },
        "logprobs": {"type": "boolean"},
        "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
        "stop": {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 4},
            ]
        },
        "max_tokens": {"type": "integer", "minimum": 1},
        "max_completion_tokens": {"type": "integer", "minimum": 1},
        "temperature": {"const": 0},
        "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "n": {"const": 1},
        "seed": {"type": "integer"},
        "user": {"type": "string"},
        "speceyes": _EXTENSION,
    },
}


def _failure(what: str) -> dict[str, Any]:
    return {"description": what, "content": {"application/json": {"schema": _ERROR}}}


CHAT: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": _REQUEST}}},
    "responses": {
        "200": {
            "description": "A chat completion, or with stream: true its chunks as events",
            "content": {
                "application/json": {"schema": {"type": "object"}},
                "text/event-stream": {"schema": {"type": "string"}},
            },
        },
        "400": _failure("Something in the request is not served; the error names it"),
        "401": _failure("No key that is known"),
        "404": _failure("No such model"),
        "408": _failure("The body came too slowly"),
        "413": _failure("The body is too large"),
        "422": _failure("There is no answer to it"),
        "429": _failure("Too many requests are under way; see Retry-After"),
        "500": _failure("The server failed"),
        "502": _failure("A model failed"),
        "503": _failure("The server is closing"),
        "504": _failure("The request's time is over"),
    },
}
"""Merged into the description of `/v1/chat/completions`."""


def describe_models(name: str) -> dict[int | str, dict[str, Any]]:
    """The responses of `/v1/models`."""
    return {401: _failure(f"No key that is known; needed to see that {name!r} is served")}
