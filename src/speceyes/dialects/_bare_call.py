"""Calls whose tags are lost, told from answers that happen to be JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from speceyes.dialects._json_call import (
    CALL_FIELDS,
    MAX_CALL_CHARS,
    nothing,
    plain_form,
    read_json,
)
from speceyes.errors import ParseError

_NAMED = re.compile(r"""["'\u201c\u201d](?:name|function)["'\u201c\u201d]""")
_HAS_ARGUMENTS = re.compile(
    r"""["'\u201c\u201d](?:arguments|parameters)["'\u201c\u201d]\s{0,9}[:\uff1a]"""
)
_BEGINS = re.compile(r"""[\[{]\s{0,9}(?:\{\s{0,9})?["'](?:name|type|function)["']\s{0,9}:""")


def bare_call(text: str, known: Collection[str]) -> bool:
    """True where a text without tags is a call: JSON with a name, and with what can be arguments or
    the name of a tool that there is. Any other JSON may be an answer: "parameters" and "arguments"
    are words that answers use too, and what they hold then is no object.

    Text that begins like such JSON and is broken counts as one too, for it says "arguments" or
    names a tool.

    Example:
        >>> bare_call('{"name": "zoom", "arguments": {"by": 2}}', ())
        True
        >>> bare_call('{"name": "Bob", "parameters": "none"}', ())
        False
    """
    body = unfenced(text)
    if body[:1] not in ("{", "[") or not _NAMED.search(body):
        return False
    try:
        data = read_json(text)
    except ParseError:
        return bool(_HAS_ARGUMENTS.search(body)) or _names_one(body, known)
    listed = [plain_form(one) for one in (data if isinstance(data, list) else [data])]
    return any(
        isinstance(one, dict)
        and isinstance(one.get("name"), str)
        and bool(one["name"].strip())
        and (one["name"] in known or ("arguments" in one and _arguments(one["arguments"])))
        for one in listed
    )


def unfenced(text: str) -> str:
    """A text from behind the fence of Markdown that it may begin with."""
    return text.strip().removeprefix("```json").removeprefix("```").lstrip()


def _arguments(value: Any) -> bool:
    """True for what a call has as arguments: an object, also as text, or nothing at all."""
    if value in (None, []) or (isinstance(value, str) and not value.strip()):
        return True
    return isinstance(_unwrapped(_unwrapped(value)), dict)


def call_within(text: str, known: Collection[str]) -> str | None:
    """The call without tags that a text is, or that stands behind other words; None for none.

    Args:
        text: The text.
        known: Names of tools. Behind other words a call has arguments, and the name of one of
            them, if they are known.
    """
    if bare_call(text, known):
        return text
    found = _BEGINS.search(text)
    if found is None:
        return None
    body = text[found.start() :]
    if (first := _first_value(body)) is not None and not bare_call(first, known):
        return None
    body = body[: max(body.rfind("}"), body.rfind("]")) + 1] or body
    named = not known or _names_one(body, known)
    return body if named and _HAS_ARGUMENTS.search(body) and bare_call(body, known) else None


def _first_value(body: str) -> str | None:
    """The text of the JSON value that a text begins with; None where it is broken."""
    try:
        _, end = json.JSONDecoder(strict=False).raw_decode(body[:MAX_CALL_CHARS])
    except (ValueError, RecursionError):
        return None
    return body[:end]


def _names_one(text: str, known: Collection[str]) -> bool:
    return any(f'"{name}"' in text or f"'{name}'" in text for name in known)


def empty_call(text: str) -> bool:
    """True where a text is a call's empty shell, or nothing but an empty fence: it neither calls
    nor answers.

    Example:
        >>> empty_call('{"name": null, "arguments": {}}'), empty_call("[]"), empty_call("{}")
        (True, True, True)
        >>> empty_call('{"name": "Bob"}'), empty_call('{"name": 7}'), empty_call("none")
        (False, False, False)
    """
    body = text.strip()
    if re.fullmatch(r"```\w*\s*(?:```)?", body):
        return True
    if len(body) > MAX_CALL_CHARS or unfenced(body)[:1] not in ("{", "["):
        return False
    try:
        data = read_json(body)
    except ParseError:
        return False
    return all(_shell(one) for one in (data if isinstance(data, list) else [data]))


def _shell(data: Any) -> bool:
    """True for an object of a call's fields whose name is missing and whose other fields are as
    calls have them; with any other value in them it says something.
    """
    if not isinstance(data, dict) or not data.keys() <= CALL_FIELDS:
        return False
    function = data.get("function")
    if isinstance(function, dict):
        if not _shell(function):
            return False
    elif not nothing(function):
        return False
    name = data.get("name")
    if not (name is None or (isinstance(name, str) and not name.strip())):
        return False
    for key in ("arguments", "parameters"):
        value = data.get(key)
        if not (nothing(value) or value == [] or isinstance(_unwrapped(value), dict)):
            return False
    return not data or bool(data.keys() - {"id", "type"})


def _unwrapped(value: Any) -> Any:
    """A text's JSON value; the value itself where it is no text, or no JSON."""
    if not isinstance(value, str):
        return value
    try:
        return read_json(value)
    except ParseError:
        return value
