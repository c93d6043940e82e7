"""Reading and writing tool calls as JSON between tags, as Hermes-style models do."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from speceyes.errors import ParseError
from speceyes.types import ToolCall

MAX_CALL_CHARS = 20_000
"""Longest text of one call that is read; real calls are some hundred characters."""

MAX_INTEGER = 2**63 - 1
"""Largest whole number that is read, either way; longer ones can't even be written by Python."""

_TOKEN = re.compile(
    r"""'(?:[^'\\\n]|\\(?:['"\\bfnrt]|u[0-9a-fA-F]{4}))*+'"""
    r"""|"(?:[^"\\\n]|\\(?:['"\\bfnrt]|u[0-9a-fA-F]{4}))*+\""""
    r"""|-?[0-9]++(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+|[A-Za-z]++|[][{}(),:]|\s++"""
)
_WORDS = {
    "true": "True",
    "false": "False",
    "null": "None",
    "True": "True",
    "False": "False",
    "None": "None",
}


def between(text: str, opening: str, closing: str) -> list[str]:
    """Text between each pair of tags, in order; a last unclosed tag counts to the end.

    Linear in the length of the text.
    """
    found: list[str] = []
    at = text.find(opening)
    while at >= 0:
        start = at + len(opening)
        end = text.find(closing, start)
        if end < 0:
            found.append(text[start:])
            break
        found.append(text[start:end])
        at = text.find(opening, end + len(closing))
    return found


def _no_constant(name: str) -> NoReturn:
    raise ParseError(f"{name} is not a JSON number; use finite numbers")


def _json_value(value: Any) -> Any:
    """The value with nothing in it but JSON; Python literals have more (sets, bytes, tuples)."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ParseError(f"an argument has a {type(key).__name__} for a name, not text")
        return {key: _json_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ParseError(f"{value} is not a finite number")
    if isinstance(value, int) and not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise ParseError("a whole number has too many digits")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ParseError(f"a {type(value).__name__} is not a JSON value")


def _literal(body: str) -> Any:
    """A Python literal, which models trained on Python write for JSON, also mixed with JSON's
    words. It is cut into tokens first: what Python's own parser doesn't expect it warns about.

    Raises:
        ValueError: It isn't one.
        KeyError: It holds a word other than true, false, null and Python's.
    """
    tokens, at = [], 0
    while at < len(body):
        match = _TOKEN.match(body, at)
        if match is None:
            raise ValueError(f"unexpected {body[at]!r}")
        token, at = match[0], match.end()
        tokens.append(_WORDS[token] if token.isalpha() else token)
    try:
        return ast.literal_eval("".join(tokens))
    except (SyntaxError, TypeError, RecursionError, MemoryError) as exc:
        raise ValueError(str(exc)) from exc


def read_json(text: str, what: str = "the call") -> Any:
    """A JSON value; code fences, single quotes and Python's words are forgiven.

    Args:
        text: The text, at most `MAX_CALL_CHARS` characters.
        what: Names it in errors.

    Raises:
        ParseError: It isn't one; the message is written for the model.
    """
    body = text.strip()
    if len(body) > MAX_CALL_CHARS:
        kind = what.removeprefix("the ")
        raise ParseError(f"a {kind} of {len(body)} characters; at most {MAX_CALL_CHARS} are read")
    if body.startswith("```"):
        body = body.strip("`").strip()
        body = body[4:].strip() if body[:4].lower() == "json" else body
    try:
        # Line breaks within texts, as in programs, are read.
        return json.loads(body, parse_constant=_no_constant, strict=False)
    except ParseError:
        raise
    except (ValueError, RecursionError) as exc:
        try:
            return _literal(body)
        except (ValueError, KeyError):
            where = f" ({exc})" if isinstance(exc, json.JSONDecodeError) else ""
            raise ParseError(f"{what} is not valid JSON{where}") from None


def clean(value: Any) -> Any:
    """Value from `read_json` with nothing in it but finite JSON.

    Raises:
        ParseError: It has something else in it.
    """
    try:
        return _json_value(value)
    except RecursionError:
        raise ParseError("the call is nested too deeply") from None


CALL_FIELDS = frozenset(("name", "arguments", "parameters", "function", "id", "type"))
_OTHER_WORDS = frozenset(("args", "params", "input", "kwargs"))
"""Names that "arguments" goes by elsewhere."""
_BLANK = ("", "null", "none")


def nothing(value: Any) -> bool:
    """True for null, and for a text that is blank or says null."""
    return value is None or (isinstance(value, str) and value.strip().lower() in _BLANK)


def call_of(data: Any, raw: str) -> ToolCall:
    """The call that a JSON value `{"name": ..., "arguments": {...}}` stands for.

    Arguments that are absent, null, blank or an empty list are none; where the field is absent,
    what stands beside the name is the arguments.

    Raises:
        ParseError: It isn't one.
    """
    if not isinstance(data, dict):
        raise ParseError(f"the call is a {type(data).__name__}; a JSON object is needed")
    name = data.get("name")
    if not isinstance(name, str) or not name.strip():
        raise ParseError('the call has no "name"; write the tool\'s name there')
    return ToolCall(name, clean(_arguments(data)), raw)


def _arguments(data: Mapping[str, Any]) -> dict[str, Any]:
    if "arguments" not in data:
        beside = {key: value for key, value in data.items() if key not in CALL_FIELDS}
        inner = next(iter(beside.values())) if beside.keys() & _OTHER_WORDS else None
        return inner if len(beside) == 1 and isinstance(inner, dict) else beside
    arguments = data["arguments"]
    for _ in range(2):  # some engines and models encode twice
        if isinstance(arguments, str):
            arguments = _arguments_in(arguments)
    if arguments is None or arguments == []:
        return {}
    if not isinstance(arguments, dict):
        raise ParseError(f'"arguments" is a {type(arguments).__name__}; an object is needed')
    return arguments


def _arguments_in(text: str) -> Any:
    """Value of arguments that are written as text."""
    if nothing(text):
        return {}
    try:
        return read_json(text)
    except ParseError:
        raise ParseError('"arguments" is text; a JSON object is needed') from None


def parse_call(text: str) -> ToolCall:
    """One call: `{"name": ..., "arguments": {...}}`, read as `read_json` reads.

    Raises:
        ParseError: It isn't one; the message is written for the model.
    """
    return call_of(plain_form(read_json(text)), text)


def parse_calls(text: str) -> list[ToolCall]:
    """One call, or several in a list, in any of the forms that templates teach.

    Raises:
        ParseError: One can't be read, or there is none.
    """
    data = read_json(text)
    listed = data if isinstance(data, list) else [data]
    if not listed:
        raise ParseError("the list of calls is empty")
    return [call_of(plain_form(one), text) for one in listed]


def plain_form(data: Any) -> Any:
    """`{"name", "arguments"}` of OpenAI's `{"function": {...}}`, Llama's "parameters", and a
    function named without its object.
    """
    if not isinstance(data, dict):
        return data
    if isinstance(data.get("function"), dict):
        data = data["function"]
    elif "name" not in data and isinstance(data.get("function"), str):
        data = {**data, "name": data["function"]}
    if "arguments" not in data and "parameters" in data:
        data = {**data, "arguments": data["parameters"]}
    return data


def render_json(call: ToolCall, tags: tuple[str, str] = ("<tool_call>", "</tool_call>")) -> str:
    """A call as a JSON object between tags, a line each."""
    body = written({"name": call.name, "arguments": dict(call.arguments)})
    return f"{tags[0]}\n{body}\n{tags[1]}"


def written(value: Any) -> str:
    """JSON that can stand between tags and fences: none of their characters are in it."""
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("`", "\\u0060")


def shown(value: Any) -> str:
    """A value as an error tells the model of it; never long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of thousands of digits; deep nesting
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
