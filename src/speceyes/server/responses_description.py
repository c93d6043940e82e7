"""`/v1/responses` as OpenAPI describes it."""

from __future__ import annotations

from speceyes.server.common_fields import MAX_TOP_LOGPROBS
from speceyes.server.limits import ServerLimits
from speceyes.server.responses_request import LOGPROBS, MOST_METADATA
from speceyes.server.schemas import (
    DATA_URL,
    Schema,
    asked,
    closed,
    example_url,
    maybe,
    route,
    told,
    whole_number,
)

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_PLAIN: Schema = {
    "type": "object",
    "required": ["type"],
    "additionalProperties": False,
    "properties": {"type": {"const": "text"}},
}


def describe_responses(name: str, limits: ServerLimits, *, keyed: bool) -> Schema:
    """The description of `/v1/responses`, to be merged into FastAPI's.

    Args:
        name: The name that is served.
        limits: Limits of a request, thresholds settled.
        keyed: A key is needed.
    """
    content = [
        {"type": "input_image", "image_url": example_url()},
        {"type": "input_text", "text": "Which colour is it?"},
    ]
    example = {"model": name, "input": [{"role": "user", "content": content}]}
    words = "A response, or with stream: true its events"
    return route(words, _response(name), _request(name, limits), example, keyed=keyed)


def parts(limits: ServerLimits) -> tuple[Schema, Schema, Schema]:
    """Parts of a content: a text, a text that isn't blank, and an image.

    Args:
        limits: Limits of a request.
    """
    image: Schema = {
        "type": "object",
        "required": ["type", "image_url"],
        "properties": {
            "type": {"const": "input_image"},
            "image_url": {**_TEXT, "format": DATA_URL, "description": "data:image/...;base64,..."},
            "detail": {} if limits.tolerant else maybe({"enum": ["auto", "high"]}),
            "file_id": {"type": "null"},
        },
    }

    def text(one: Schema) -> Schema:
        return {
            "type": "object",
            "required": ["type", "text"],
            "properties": {"type": {"const": "input_text"}, "text": one},
        }

    return text(_TEXT), text({**_TEXT, "pattern": "\\S"}), image


def question(limits: ServerLimits) -> Schema:
    """A message of the user with at least one image and a text.

    Args:
        limits: Limits of a request.
    """
    written, said, shown = parts(limits)
    return closed(
        ["role", "content"],
        {
            "type": maybe({"const": "message"}),
            "role": {"const": "user"},
            "content": {
                "type": "array",
                "description": "At least one image, and a text that isn't blank",
                "items": {"anyOf": [written, shown]},
                "allOf": [{"contains": shown}, {"contains": said}],
                "minItems": 2,
            },
        },
    )


def _request(name: str, limits: ServerLimits) -> Schema:
    zero: Schema = {"type": "number", "const": 0}
    fields: Schema = {
        "model": {**_TEXT, "const": name},
        "input": {"type": "array", "items": question(limits), "minItems": 1, "maxItems": 1},
        "stream": maybe(_FLAG),
        "stream_options": {
            **maybe(
                {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"include_obfuscation": maybe(_FLAG)},
                }
            ),
            "description": "Only with stream: true",
        },
        "include": maybe({"type": "array", "items": {"const": LOGPROBS}}),
        "top_logprobs": {
            **maybe(whole_number(minimum=0, maximum=MAX_TOP_LOGPROBS)),
            "description": f'Only with include: ["{LOGPROBS}"]',
        },
        "max_output_tokens": maybe(whole_number(minimum=1)),
        "metadata": maybe(
            {"type": "object", "additionalProperties": _TEXT, "maxProperties": MOST_METADATA}
        ),
        "speceyes": maybe(asked(limits)),
        "instructions": {"anyOf": [{"type": "null"}, {**_TEXT, "maxLength": 0}]},
        "tools": maybe({"type": "array", "maxItems": 0}),
        "tool_choice": maybe({"const": "none"}),
        "text": maybe(closed([], {"format": maybe(_PLAIN), "verbosity": {"type": "null"}})),
        # What changes nothing here.
        "temperature": maybe(zero),
        "top_p": maybe({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
        "parallel_tool_calls": maybe(_FLAG),
        "store": maybe({"const": False}),
        "background": maybe({"const": False}),
        "previous_response_id": {"type": "null"},
        "conversation": {"type": "null"},
        "prompt": {"type": "null"},
        "truncation": maybe({"const": "disabled"}),
        "service_tier": maybe({"enum": ["auto", "default"]}),
        "user": maybe(_TEXT),
        "safety_identifier": maybe(_TEXT),
        "prompt_cache_key": maybe(_TEXT),
    }
    if limits.tolerant:
        fields |= _tolerated(limits)
    whole = closed(["model", "input"], fields)
    if limits.tolerant:
        del whole["additionalProperties"]  # they are ignored, and named in a header
    logprobs = {
        "required": ["include"],
        "properties": {"include": {"type": "array", "contains": {"const": LOGPROBS}}},
    }
    return whole | {
        "dependentSchemas": {
            "stream_options": {"required": ["stream"], "properties": {"stream": {"const": True}}},
            "top_logprobs": logprobs,
        }
    }


def _tolerated(limits: ServerLimits) -> Schema:
    """Fields as a tolerant server takes them."""
    written, said, shown = parts(limits)
    content = {"type": "array", "items": {"anyOf": [written, shown]}}

    def user(one: Schema) -> Schema:
        return {
            "type": "object",
            "required": ["role", "content"],
            "properties": {"role": {"const": "user"}, "content": one},
        }

    def kind(name: str, required: list[str], fields: Schema) -> Schema:
        own = {"type": {"const": name}, **fields}
        return {"type": "object", "required": ["type", *required], "properties": own}

    called = {"name": _TEXT, "arguments": _TEXT}
    question = {"anyOf": [user({**_TEXT, "pattern": "\\S"}), user({**content, "contains": said})]}
    pictures = user({**content, "contains": shown})
    other = {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": {"enum": ["system", "developer", "assistant"]}, "content": _TEXT},
    }
    function: Schema = kind(
        "function",
        ["name"],
        {"name": _TEXT, "description": maybe(_TEXT), "parameters": maybe({"type": "object"})},
    )
    form = kind("json_schema", ["schema"], {"name": _TEXT, "schema": {"type": "object"}})
    return {
        "input": {
            "type": "array",
            "items": {
                "anyOf": [
                    question,
                    pictures,
                    other,
                    kind("function_call", list(called), called),
                    kind("function_call_output", ["output"], {"output": _TEXT}),
                    kind("reasoning", [], {}),
                ]
            },
            "minItems": 1,
            "allOf": [{"contains": question}, {"contains": pictures}],
            "description": "The last user message with text is the question; the agent alone is "
            "told the others. Images are its own, or the latest ones before it",
        },
        "instructions": {**maybe(_TEXT), "description": "The agent alone is told"},
        "tools": {
            **maybe({"type": "array", "items": function}),
            "description": "Run by the client; the agent alone is told",
        },
        "tool_choice": maybe(
            {"anyOf": [{"enum": ["none", "auto", "required"]}, {"type": "object"}]}
        ),
        "text": maybe(
            {
                "type": "object",
                "properties": {
                    "format": maybe({"anyOf": [_PLAIN, kind("json_object", [], {}), form]})
                },
            }
        ),
        "include": maybe({"type": "array", "items": _TEXT}),
        "temperature": maybe({"type": "number", "minimum": 0, "maximum": 2}),
        "store": maybe(_FLAG),
        "truncation": maybe({"enum": ["auto", "disabled"]}),
        "service_tier": maybe(_TEXT),
    }


def _response(name: str) -> Schema:
    """A response as it comes back."""
    count: Schema = {"type": "integer", "minimum": 0}
    part = closed(
        ["type", "text", "annotations", "logprobs"],
        {
            "type": {"const": "output_text"},
            "text": _TEXT,
            "annotations": {"type": "array", "maxItems": 0},
            "logprobs": {"type": "array", "items": {"type": "object"}},
        },
    )
    message = closed(
        ["id", "type", "status", "role", "content"],
        {
            "id": _TEXT,
            "type": {"const": "message"},
            "status": {"enum": ["completed", "incomplete"]},
            "role": {"const": "assistant"},
            "content": {"type": "array", "items": part, "minItems": 1, "maxItems": 1},
        },
    )
    call = closed(
        ["id", "type", "status", "call_id", "name", "arguments"],
        {
            "type": {"const": "function_call"},
            "status": {"const": "completed"},
            **dict.fromkeys(("id", "call_id", "name", "arguments"), _TEXT),
        },
    )
    reason = closed(["reason"], {"reason": {"const": "max_output_tokens"}})
    whole: Schema = {
        "id": _TEXT,
        "object": {"const": "response"},
        "created_at": count,
        "status": {"enum": ["completed", "incomplete"]},
        "background": {"const": False},
        "error": {"type": "null"},
        "incomplete_details": {"anyOf": [{"type": "null"}, reason]},
        "model": {"const": name},
        "output": {"type": "array", "items": {"anyOf": [message, call]}, "minItems": 1},
        "previous_response_id": {"type": "null"},
        "reasoning": {"type": "object"},
        "service_tier": {"const": "default"},
        "store": {"const": False},
        "temperature": {"type": "number"},
        "top_p": {"type": "number"},
        "usage": usage(),
        "user": {"type": "null"},
        "speceyes": told(),
        "instructions": {"type": ["string", "null"]},
        "max_output_tokens": {"type": ["integer", "null"]},
        "metadata": {"type": "object"},
        "parallel_tool_calls": _FLAG,
        "text": {"type": "object"},
        "tool_choice": {},
        "tools": {"type": "array"},
        "top_logprobs": count,
        "truncation": {"enum": ["auto", "disabled"]},
    }
    return closed(list(whole), whole)


def usage() -> Schema:
    """Tokens that all phases read and wrote."""
    count: Schema = {"type": "integer", "minimum": 0}
    inner = closed(
        ["cached_tokens", "cache_write_tokens"],
        dict.fromkeys(("cached_tokens", "cache_write_tokens"), count),
    )
    fields: Schema = {
        "input_tokens": count,
        "input_tokens_details": inner,
        "output_tokens": count,
        "output_tokens_details": closed(["reasoning_tokens"], {"reasoning_tokens": count}),
        "total_tokens": count,
    }
    return closed(list(fields), fields)
