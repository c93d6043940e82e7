"""A request for a response of OpenAI's Responses protocol, read as a chat completion is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from speceyes.server.chat_request import ChatRequest, check_length, check_model, read_json
from speceyes.server.common_fields import (
    RULES,
    Rule,
    answer_schema,
    check_others,
    offered_tools,
    read_extension,
    top_logprobs,
)
from speceyes.server.fields import bad_field, flag, is_int, shown, text_of
from speceyes.server.image_sources import Picture
from speceyes.server.limits import ServerLimits
from speceyes.server.messages import SYSTEM, Notes, ReadMessage, dialogue_of, read_part

LOGPROBS: Final = "message.output_text.logprobs"
"""What `include` names where log-probabilities are wanted."""
MOST_METADATA: Final = 16
"""Pairs, as OpenAI describes it."""
_SAID: Final = (*SYSTEM, "user", "assistant")
_KEPT: Final = "left out: nothing is stored here; send the earlier items in input"

_RULES: Final[Mapping[str, Rule]] = {
    **{
        name: RULES[name]
        for name in (
            "temperature top_p parallel_tool_calls store service_tier user safety_identifier "
            "n modalities functions audio"
        ).split()
    },
    "background": Rule(lambda v: v is False, "false: an answer is waited for"),
    "previous_response_id": Rule(lambda v: False, _KEPT),
    "conversation": Rule(lambda v: False, _KEPT),
    "prompt": Rule(lambda v: False, "left out: no prompts are stored here; send instructions"),
    "truncation": Rule(lambda v: v == "disabled", '"disabled" or "auto"', lambda v: v == "auto"),
    "prompt_cache_key": Rule(lambda v: isinstance(v, str), "text; it is not looked at"),
}
_READ: Final = frozenset(
    "model input instructions stream stream_options tools tool_choice text include top_logprobs "
    "max_output_tokens metadata speceyes".split()
)


def read_response_request(
    body: bytes, model: str, limits: ServerLimits, top_k: int | None, *, takes_turns: bool = True
) -> ChatRequest:
    """The request in a body; see `speceyes.server.chat_request.read_request`.

    Raises:
        Refusal: 400, naming the field, or 404 for another model.

    Example:
        >>> body = b'{"model": "m", "input": "Which colour?"}'
        >>> read_response_request(body, "m", ServerLimits(), 64)
        Traceback (most recent call last):
        speceyes.server.refusal.Refusal: input: there is no image: a question is about at least one
    """
    data = read_json(body)
    notes = Notes()
    check_others(data, _READ, _RULES, limits, notes)
    check_model(data.get("model"), model)
    tools = offered_tools(_nested(data), limits, notes, takes_turns=takes_turns)
    schema = answer_schema(_format(data.get("text"), limits, notes), limits, "text.format")
    if schema is not None:
        notes.hand_over("text.format")
    told = data.get("instructions")
    told = "" if told is None else text_of(told, "instructions")
    said = read_input(data.get("input"), limits, notes)
    if told:
        if not limits.tolerant:
            raise bad_field("instructions", "a query has none: leave it out")
        said.insert(0, ReadMessage("system", "instructions", (told,)))
    dialogue = dialogue_of(said, limits, notes, tools=bool(tools), field="input")
    more = read_extension(data.get("speceyes"), limits)
    check_length(dialogue, more.get("choices", ()), limits)
    more["straight"] = bool(more.get("straight") or tools or schema is not None)
    logprobs = _includes_logprobs(data.get("include"), limits, notes)
    most = data.get("max_output_tokens")
    if most is not None and (not is_int(most) or most < 1):
        raise bad_field("max_output_tokens", "a whole number of at least 1 is needed")
    stream = flag(data, "stream")
    _check_stream_options(data.get("stream_options"), stream)
    return ChatRequest(
        dialogue=dialogue,
        stream=stream,
        logprobs=logprobs,
        top_logprobs=top_logprobs(
            data.get("top_logprobs"), logprobs, top_k, f'include: ["{LOGPROBS}"]'
        ),
        max_tokens=None if most is None else int(most),
        tools=tools,
        json_schema=schema,
        notes=notes,
        echo=_echo(data, tools=bool(tools)),
        **more,
    )


def read_input(value: Any, limits: ServerLimits, notes: Notes) -> list[ReadMessage]:
    """The messages of an input: a text, or items.

    Raises:
        Refusal: An item is of a kind that isn't served; the message names it.
    """
    if isinstance(value, str):
        return [ReadMessage("user", "input", (text_of(value, "input"),))]
    if not isinstance(value, list) or not value:
        raise bad_field("input", "a list with a user message is needed")
    if not limits.tolerant and len(value) > 1:
        raise bad_field("input", f"{len(value)} items; a query is one user message")
    said: list[ReadMessage] = []
    for at, item in enumerate(value):
        where = f"input[{at}]"
        if not isinstance(item, dict):
            raise bad_field(where, "an item, an object, is needed")
        kind = item.get("type")
        if kind is None and "role" in item:
            kind = "message"
        if kind == "message":
            said.append(_message(item, where, limits, notes))
        elif not limits.tolerant:
            raise bad_field(f"{where}.type", "a query is one user message")
        elif kind == "function_call":
            _add_call(said, item, where)
        elif kind == "function_call_output":
            content = _content(item.get("output"), f"{where}.output", "tool", limits, notes)
            said.append(ReadMessage("tool", f"{where}.output", content))
        elif kind == "reasoning":
            notes.ignore("input.reasoning")
        elif kind == "item_reference":
            raise bad_field(f"{where}.type", "nothing is stored here: send the item itself")
        else:
            raise bad_field(
                f"{where}.type",
                '"message", "function_call", "function_call_output" or "reasoning" is needed',
            )
    return said


def _message(
    item: Mapping[str, Any], where: str, limits: ServerLimits, notes: Notes
) -> ReadMessage:
    role: Any = item.get("role")
    if role not in (_SAID if limits.tolerant else ("user",)):
        served = ", ".join(_SAID) if limits.tolerant else "user: a query is one user message"
        raise bad_field(f"{where}.role", f"one of {served} is needed")
    for name, value in item.items():
        if name in ("type", "role", "content") or value is None:
            continue
        if not limits.tolerant:
            raise bad_field(
                f"{where}.{shown(name)}", "this field is not supported", "unsupported_parameter"
            )
        if name not in ("id", "status", "phase"):  # as they were sent, which changes nothing
            notes.ignore(f"input.{name}")
    within = f"{where}.content"
    return ReadMessage(role, within, _content(item.get("content"), within, role, limits, notes))


def _content(
    value: Any, where: str, role: str, limits: ServerLimits, notes: Notes
) -> tuple[str | Picture, ...]:
    if isinstance(value, str):
        return (text_of(value, where),)
    if not isinstance(value, list):
        raise bad_field(where, "a text or a list of parts is needed")
    found = []
    for number, part in enumerate(value):
        within = f"{where}[{number}]"
        if role in ("user", "tool"):
            _check_part(part, within)
        one = read_part(part, within, role, limits, notes)
        if one is not None:
            found.append(one)
    return tuple(found)


def _check_part(part: Any, where: str) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in ("input_text", "input_image"):
        raise bad_field(f"{where}.type", '"input_text" or "input_image" is needed')
    if kind == "input_image":
        if part.get("file_id") is not None:
            raise bad_field(f"{where}.file_id", "no files are kept here: send image_url")
        if not isinstance(part.get("image_url"), str):
            raise bad_field(f"{where}.image_url", "a text is needed: data:image/...;base64,...")


def _add_call(said: list[ReadMessage], item: Mapping[str, Any], where: str) -> None:
    """A call of a client's tool: it belongs to the assistant's message right before it."""
    name = text_of(item.get("name"), f"{where}.name")
    given = item.get("arguments")
    call = (name, given if isinstance(given, str) else json.dumps(given or {}))
    if said and said[-1].role == "assistant":
        said[-1] = dataclasses.replace(said[-1], calls=(*said[-1].calls, call))
    else:
        said.append(ReadMessage("assistant", where, (), (call,)))


def _nested(data: Mapping[str, Any]) -> dict[str, Any]:
    """Tools as chat completions nest them.

    Raises:
        Refusal: One is not a function.
    """
    tools = data.get("tools")
    if isinstance(tools, list):
        for at, one in enumerate(tools):
            kind = one.get("type") if isinstance(one, dict) else None
            if kind != "function":
                raise bad_field(
                    f"tools[{at}].type", '"function" is needed: a tool that the client itself runs'
                )
        tools = [{"function": one} for one in tools]
    return {"tools": tools, "tool_choice": data.get("tool_choice")}


def _format(value: Any, limits: ServerLimits, notes: Notes) -> Any:
    """The format of an answer as chat completions nest it; None for plain text."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise bad_field("text", "an object is needed")
    for name, one in value.items():
        if name != "format" and one is not None:
            if not limits.tolerant:
                raise bad_field(f"text.{shown(name)}", "this field is not supported")
            notes.ignore(f"text.{name}")
    form = value.get("format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        return {"type": "json_schema", "json_schema": form}
    return form


def _includes_logprobs(value: Any, limits: ServerLimits, notes: Notes) -> bool:
    if value is None:
        return False
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise bad_field("include", "a list of texts is needed")
    if any(one != LOGPROBS for one in value):
        if not limits.tolerant:
            raise bad_field("include", f'only "{LOGPROBS}" is served')
        notes.ignore("include")
    return LOGPROBS in value


def _check_stream_options(value: Any, stream: bool) -> None:
    if value is None:
        return
    if not stream:
        raise bad_field("stream_options", "only with stream: true")
    if not isinstance(value, dict) or any(name != "include_obfuscation" for name in value):
        raise bad_field("stream_options", "only include_obfuscation is known")
    flag(value, "include_obfuscation")  # nothing is padded here, whatever it says


def _echo(data: Mapping[str, Any], *, tools: bool) -> dict[str, Any]:
    """Fields that a response repeats.

    Raises:
        Refusal: `metadata` isn't texts by name.
    """
    pairs: Any = data.get("metadata")
    if pairs is not None and not (
        isinstance(pairs, dict)
        and len(pairs) <= MOST_METADATA
        and all(isinstance(value, str) for value in pairs.values())
    ):
        raise bad_field("metadata", f"up to {MOST_METADATA} texts by name are needed")
    given: Sequence[Any] = data.get("tools") or () if tools else ()
    form = (data.get("text") or {}).get("format") or {"type": "text"}
    choice = data.get("tool_choice")
    return {
        "instructions": data.get("instructions"),
        "max_output_tokens": data.get("max_output_tokens"),
        "metadata": pairs or {},
        "parallel_tool_calls": data.get("parallel_tool_calls") is not False,
        "text": {"format": form},
        "tool_choice": "auto" if choice is None else choice,
        "tools": [{"strict": None, "parameters": None, **tool} for tool in given],
        "top_logprobs": data.get("top_logprobs") or 0,
        "truncation": data.get("truncation") or "disabled",
    }
