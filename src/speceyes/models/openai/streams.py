"""Replies that come as server-sent events, though no stream was asked for, put together again.

Gateways that always stream send the protocol's chunks: each has a piece of the message in "delta".
What stands around them differs: a byte order mark, comments, "event:" lines, no space behind
"data:", a "[DONE]" or none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_BLANK_LINE = re.compile(r"\n{2,}")


def reply_of_stream(reply: bytes) -> dict[str, Any] | None:
    """The whole reply that a stream of chunks stands for; None where the bytes are no such stream.

    A chunk that holds an error is the reply.

    Args:
        reply: Body of an HTTP reply.

    Raises:
        ValueError: A chunk is no JSON.

    Example:
        >>> chunk = b'data: {"choices": [{"delta": {"content": "red"}, "finish_reason": "stop"}]}'
        >>> reply_of_stream(chunk)["choices"][0]["message"]
        {'content': 'red'}
    """
    text = reply.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n")
    if not re.match(r"\s*(?:data|event|id|retry)?:", text):
        return None
    whole: dict[str, Any] = {}
    choice: dict[str, Any] = {}
    message: dict[str, Any] = {}
    listed: list[Any] = []
    chunks = 0
    for chunk in _chunks(text):
        chunks += 1
        if chunk.get("error") or chunk.get("object") == "error":
            return dict(chunk)
        whole |= {
            key: value
            for key, value in chunk.items()
            if key != "choices" and (value is not None or key not in whole)
        }
        for piece in chunk.get("choices") or ():
            if not isinstance(piece, dict) or piece.get("index") not in (None, 0):
                continue
            choice |= {
                key: value
                for key, value in piece.items()
                if key not in ("delta", "message", "logprobs") and value is not None
            }
            listed += (piece.get("logprobs") or {}).get("content") or ()
            _add(message, piece.get("delta") or piece.get("message") or {})
    if not chunks:
        return None
    if listed:
        choice["logprobs"] = {"content": listed}
    if message or choice:
        whole["choices"] = [{**choice, "message": message}]
    return whole


def _chunks(text: str) -> Iterator[Mapping[str, Any]]:
    """The JSON object of each event; data on several lines of one is one."""
    for event in _BLANK_LINE.split(text):
        lines = [line for line in event.split("\n") if line.lstrip().startswith("data:")]
        parts = [line.lstrip().removeprefix("data:").strip() for line in lines]
        parts = [part for part in parts if part and part != "[DONE]"]
        if not parts:
            continue
        try:
            found = [json.loads(part) for part in parts]  # some leave the blank lines out
        except ValueError:
            found = [json.loads("\n".join(parts))]
        yield from (one for one in found if isinstance(one, dict))


def _add(message: dict[str, Any], delta: Mapping[str, Any]) -> None:
    """Adds what a chunk brings to the message: texts grow, calls by their index."""
    for key, value in delta.items():
        if value is None or key == "role":
            continue
        before = message.get(key)
        if key == "tool_calls":
            calls = message.setdefault("tool_calls", [])
            for at, call in enumerate(value):
                _add_call(calls, call, at)
        elif key == "function_call" and isinstance(before, dict):
            _add_call_fields(before, value)
        elif isinstance(value, str) and isinstance(before, str):
            message[key] = before + value
        elif isinstance(value, list) and isinstance(before, list):
            message[key] = [*before, *value]
        else:
            message[key] = dict(value) if isinstance(value, dict) else value


def _add_call(calls: list[dict[str, Any]], piece: Mapping[str, Any], at: int) -> None:
    index = piece.get("index")
    index = at if not isinstance(index, int) else index
    found = next((call for call in calls if call["index"] == index), None)
    if found is None:
        calls.append({**piece, "index": index, "function": dict(piece.get("function") or {})})
        return
    _add_call_fields(found["function"], piece.get("function") or {})


def _add_call_fields(function: dict[str, Any], piece: Mapping[str, Any]) -> None:
    for key, value in piece.items():
        if key == "arguments" and isinstance(value, str):
            function[key] = (function.get(key) or "") + value
        elif value and not function.get(key):  # a name is sent once, or with every piece
            function[key] = value
