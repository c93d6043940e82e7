"""Results as responses of OpenAI's Responses protocol, whole and as the events of a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from speceyes.server import chat_response
from speceyes.server.chat_request import ChatRequest
from speceyes.server.chat_response import Pieces
from speceyes.server.refusal import Refusal
from speceyes.types import Result

OPENING_EVENTS = 2
"""Events that are sent before there is an answer."""


def usage(results: Sequence[Result]) -> dict[str, Any]:
    """Tokens that all phases read and wrote."""
    spent = [chat_response.usage(result) for result in results]
    read = sum(one["prompt_tokens"] for one in spent)
    written = sum(one["completion_tokens"] for one in spent)
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + written,
    }


def begun(number: str, model: str, request: ChatRequest, created: int) -> dict[str, Any]:
    """A response that has no answer yet."""
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": False,
        "temperature": 0.0,
        "top_p": 1.0,
        "usage": None,
        "user": None,
        **request.echo,
    }


def ended(
    number: str,
    model: str,
    request: ChatRequest,
    result: Result,
    queued_s: float,
    pieces: Pieces | None,
    created: int,
) -> dict[str, Any]:
    """A response with its answer, or with calls of the client's tools.

    Raises:
        Refusal: 422, the answer isn't JSON of the form that was asked for.
    """
    text, finish, kept = chat_response.content(result, request, pieces)
    calls = chat_response.tool_calls(result)
    output: list[dict[str, Any]] = []
    if text.strip() or not calls:
        said = chat_response.logprobs(result, request, pieces, kept)
        rows = [_row(entry) for entry in said["content"]] if said else []
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": rows}
        output.append(
            {
                "id": f"msg_{number}",
                "type": "message",
                "status": "incomplete" if finish == "length" else "completed",
                "role": "assistant",
                "content": [part],
            }
        )
    for at, call in enumerate(calls):
        output.append(
            {
                "id": f"fc_{number}_{at}",
                "type": "function_call",
                "status": "completed",
                "call_id": call["id"],
                **call["function"],
            }
        )
    short = finish == "length"
    return {
        **begun(number, model, request, created),
        "status": "incomplete" if short else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if short else None,
        "output": output,
        "usage": usage([result]),
        "speceyes": chat_response.extension(result, queued_s),
    }


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    """A token as the protocol has it: bytes that aren't known are an empty list."""
    row = {**entry, "bytes": entry["bytes"] or []}
    if "top_logprobs" in entry:
        row["top_logprobs"] = [_row(one) for one in entry["top_logprobs"]]
    return row


def opening(response: dict[str, Any]) -> Iterator[str]:
    """Events that are sent as soon as the request is accepted."""
    for at, kind in enumerate(("response.created", "response.in_progress")):
        yield _event({"type": kind, "sequence_number": at, "response": response})


def events(response: dict[str, Any]) -> Iterator[str]:
    """The rest of a stream. A text is one delta: before it is decided there is nothing to send."""
    number = OPENING_EVENTS
    for at, item in enumerate(response["output"]):
        text = item["type"] == "message"
        for event in _of_message(item) if text else _of_call(item):
            yield _event({**event, "sequence_number": number, "output_index": at})
            number += 1
    last = f"response.{response['status']}"
    yield _event({"type": last, "sequence_number": number, "response": response})


def _of_message(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    [part] = item["content"]
    place = {"item_id": item["id"], "content_index": 0}
    empty = {**item, "status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "item": empty}
    bare = {**part, "text": "", "logprobs": []}
    yield {"type": "response.content_part.added", **place, "part": bare}
    said = {"logprobs": part["logprobs"]}
    yield {"type": "response.output_text.delta", **place, "delta": part["text"], **said}
    yield {"type": "response.output_text.done", **place, "text": part["text"], **said}
    yield {"type": "response.content_part.done", **place, "part": part}
    yield {"type": "response.output_item.done", "item": item}


def _of_call(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    given, place = item["arguments"], {"item_id": item["id"]}
    empty = {**item, "status": "in_progress", "arguments": ""}
    yield {"type": "response.output_item.added", "item": empty}
    yield {"type": "response.function_call_arguments.delta", **place, "delta": given}
    done = {"name": item["name"], "arguments": given}
    yield {"type": "response.function_call_arguments.done", **place, **done}
    yield {"type": "response.output_item.done", "item": item}


def failed(exc: Refusal) -> str:
    """The event of an answer that doesn't come: as the protocol has it, and with the `error` by
    which clients raise it.
    """
    error = exc.body()["error"]
    told = {"code": error["code"], "message": error["message"], "param": error["param"]}
    return _event({"type": "error", **told, "sequence_number": OPENING_EVENTS, "error": error})


def _event(data: dict[str, Any]) -> str:
    return f"event: {data['type']}\n{chat_response.event(data)}"
