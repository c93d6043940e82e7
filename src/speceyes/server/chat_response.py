"""Results as chat completions of OpenAI's protocol, with route, score and timings beside them."""

from __future__ import annotations

import json
import math
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from speceyes.errors import Fault
from speceyes.protocols import SpellsTokens, offers
from speceyes.server.chat_request import ChatRequest
from speceyes.server.refusal import Refusal
from speceyes.types import Completion, Result, Trajectory

_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)
_MOST_NAMED = 24
_WORD = re.compile(r"\s*\S+")
_KIND = re.compile(r"\b([A-Z]\w{0,40}(?:Error|Exception|Warning))\b")
_REASON = re.compile(r"^.*?\b\w+Error: ", re.DOTALL)

_FAULTS: Final[Mapping[Fault, str]] = {
    "text": "the text holds words that the model's prompt can't",
    "image": "the model can't be shown this image",
    "length": "text and images together are longer than the model's context",
    "tools": "the model behind this server can't be told of tools",
    "request": "the engine behind this server refuses this request, as it will every time",
}
"""Reasons for a request that can't succeed, where the model's own words must not be shown."""

Pieces = Callable[[Sequence[int]], Sequence[str]]
"""The text of each token."""


def pieces_of(model: object) -> Pieces | None:
    """The text of each token, where the model's tokenizer is in this process."""
    if not offers(model, SpellsTokens):
        return None
    return lambda tokens: [model.piece(token) for token in tokens]


def fault_in(result: Result) -> tuple[Fault, str] | None:
    """The part of the request that is at fault, and why; None where asking again may help.

    The agent's word counts where it was asked, for it has the last one.
    """
    said: Trajectory | Completion | None = result.trajectory or result.draft
    if said is None or said.fault is None:
        return None
    reason = _REASON.sub("", said.error or "", count=1).strip()
    # An engine's own words come with its address, and may quote what it was sent.
    hidden = not reason or "://" in reason or said.fault in ("tools", "request")
    return said.fault, _FAULTS[said.fault] if hidden else reason


def refusal_of(result: Result, request: ChatRequest) -> Refusal:
    """The error for a result without an answer. The reason of a model's failure stays here: it
    can hold addresses of engines, or pieces of a prompt.

    Example:
        >>> from speceyes.server.messages import Dialogue
        >>> request = ChatRequest(Dialogue("?", "messages[0].content", ()))
        >>> failed = Result("1", None, "error", error="the agent failed: ModelError: x")
        >>> refusal_of(failed, request).status
        502
    """
    fault = fault_in(result)
    # That the agent's own tools can't be told of is not for the client to mend.
    if fault is not None and (fault[0] != "tools" or request.tools):
        kind, why = fault
        asked = request.dialogue
        pictures = asked.pictures
        # A text may be any message's; what makes an image impossible is told by the image.
        alone = not (asked.instructions or asked.history or asked.turns)
        param = asked.where if kind == "image" or (kind == "text" and alone) else asked.field
        if kind == "image" and len(pictures) == 1:
            param = pictures[0].where
        elif kind == "tools":
            param = "tools"
        code = "context_length_exceeded" if kind == "length" else "unanswerable"
        return Refusal(400, f"{param}: {why}", code=code, param=param)
    if result.trajectory is not None and result.trajectory.stop == "max_steps":
        turns = len(result.trajectory.steps)
        return Refusal(422, f"the agent gave no answer within {turns} turns", code="no_answer")
    failed = result.draft is not None and result.draft.error is not None
    tried = result.judgement is not None or result.verdict is not None
    if result.trajectory is None and tried and not failed:
        return Refusal(
            422,
            "the draft was not accepted, and this server has no agent",
            code="no_answer",
        )
    return Refusal(502, "a model failed on this request; try again", code="model_error")


def kind_of(result: Result) -> str:
    """Why there is no answer, for the log: reasons of our own, and of others' an exception's name,
    for their texts may hold what a client sent.
    """
    fault = fault_in(result)
    if fault is not None:
        return f"{fault[0]}: {fault[1]}"
    found = _KIND.search((result.error or "")[:400])
    if found:
        return found[1]
    way = result.trajectory
    if way is not None and way.stop == "max_steps":
        return f"the agent gave no answer within {len(way.steps)} turns"
    if way is None:
        return "the draft was not accepted, and there is no agent"
    return "no reason was given"


def extension(result: Result, queued_s: float) -> dict[str, Any]:
    """The `speceyes` field."""
    judgement, verdict, way, spent = (
        result.judgement,
        result.verdict,
        result.trajectory,
        result.timings,
    )
    return {
        "route": result.route,
        "score": _finite(verdict.score if verdict else None),
        "separability": _finite(verdict.separability if verdict else None),
        "threshold": _finite(verdict.threshold if verdict else None),
        "needs_tools": judgement.needs_tools if judgement else None,
        "p_tools": _finite(judgement.p_tools if judgement else None),
        "depth": way.depth if way else 0,
        "turns": len(way.steps) if way else 0,
        "timings": {
            "queue": round(queued_s, 6),
            **{
                name: None if (value := getattr(spent, name)) is None else round(value, 6)
                for name in ("judge", "draft", "gate", "fallback", "latency")
            },
        },
        "tokens": {name: list(pair) for name, pair in _tokens(result).items()},
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _tokens(result: Result) -> dict[str, tuple[int, int]]:
    """(read, written) of each phase that ran."""
    found: dict[str, tuple[int, int]] = {}
    judged = result.judgement.completion if result.judgement else None
    for name, said in (("judge", judged), ("draft", result.draft)):
        if said is not None:
            found[name] = (said.prompt_tokens, len(said.token_ids))
    if result.trajectory is not None:
        steps = result.trajectory.steps
        found["agent"] = (sum(s.prompt_tokens for s in steps), sum(s.tokens for s in steps))
    return found


def usage(result: Result) -> dict[str, int]:
    """Tokens that all phases read and wrote for it."""
    spent = _tokens(result).values()
    read, written = sum(pair[0] for pair in spent), sum(pair[1] for pair in spent)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
    }


def content(
    result: Result, request: ChatRequest, pieces: Pieces | None
) -> tuple[str, str, int | None]:
    """The answer as it is sent.

    Returns:
        (text, finish reason, tokens of the draft that it keeps; None for all). `max_tokens`
        counts the draft's own tokens where it answered and their texts are known, else words.
    """
    text, finish, kept = result.answer or "", "stop", None
    if result.answer is None and result.trajectory is not None:
        # A turn with calls: the model is shown its own text again, so the client keeps it.
        return result.trajectory.steps[-1].text, finish, kept
    if request.json_schema is not None:
        return checked_json(text, request.json_schema), finish, kept
    most = request.max_tokens
    draft = result.draft if result.route == "draft" else None
    if most is not None:
        if draft is not None and pieces is not None:
            if len(draft.token_ids) > most:
                text = "".join(pieces(draft.token_ids[:most])).strip()
                finish, kept = "length", most
        else:
            words = _WORD.findall(text)
            if len(words) > most:
                text, finish = "".join(words[:most]).strip(), "length"
    ends = [at for stop in request.stop if (at := text.find(stop)) >= 0]
    if ends:
        text, finish = text[: min(ends)], "stop"
    return text, finish, kept


def logprobs(
    result: Result, request: ChatRequest, pieces: Pieces | None, kept: int | None
) -> dict[str, Any] | None:
    """The draft's, where it answered: each token and the log-probabilities of its K best.

    The gate needs numbers and no names, so that those of the runners-up are not kept: they are
    listed as "rank:2", "rank:3", ... A token whose text isn't known here is "token_id:N".
    """
    draft = result.draft
    if not request.logprobs or result.route != "draft" or draft is None:
        return None
    names = _names(draft, pieces)
    rows = draft.top_logprobs[:kept]
    entries = []
    for name, row in zip(names, rows.tolist(), strict=False):
        own = {"token": name, "logprob": _floor(row[0]), "bytes": _bytes(name)}
        ranked = [own] + [
            {"token": f"rank:{at}", "logprob": _floor(value), "bytes": None}
            for at, value in enumerate(row[1 : request.top_logprobs], 2)
        ]
        entries.append({**own, "top_logprobs": ranked[: request.top_logprobs]})
    return {"content": entries, "refusal": None}


def _names(draft: Completion, pieces: Pieces | None) -> list[str]:
    if pieces is not None:
        return list(pieces(draft.token_ids))
    return [f"token_id:{token}" for token in draft.token_ids]


def _bytes(name: str) -> list[int] | None:
    return None if name.startswith("token_id:") else list(name.encode("utf-8", "replace"))


def _floor(value: float) -> float:
    """As engines write what is infinitely unlikely, for JSON has no infinity."""
    return max(value, -9999.0)


def headers_of(request: ChatRequest) -> dict[str, str]:
    """Names of fields that had less effect than a client may expect; none where all was served."""
    named = {
        "x-speceyes-ignored": request.notes.ignored,
        "x-speceyes-agent-only": request.notes.agent_only,
    }
    return {name: ",".join(list(found)[:_MOST_NAMED]) for name, found in named.items() if found}


def tool_calls(result: Result) -> list[dict[str, Any]]:
    """The calls of the client's tools that a turn ended with; none where it answered."""
    way = result.trajectory
    calls = way.steps[-1].calls if result.answer is None and way and way.steps else ()
    return [
        {
            "id": f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
        }
        for call in calls
    ]


def checked_json(text: str, schema: Mapping[str, Any]) -> str:
    """The JSON value in an answer, checked against a schema.

    Patterns of the schema are not applied, for a client's regular expression could hold the
    server up; references out of the schema are never fetched.

    Raises:
        Refusal: 422, it is none.

    Example:
        >>> checked_json('```{"colour": "red"}```', {"required": ["colour"]})
        '{"colour": "red"}'
    """
    import jsonschema  # type: ignore[import-untyped, unused-ignore]
    import referencing

    found = _FENCE.fullmatch(text.strip())
    text = found[1] if found else text.strip()
    try:
        value = json.loads(text)
        validator = jsonschema.Draft202012Validator(
            _without_patterns(schema), registry=referencing.Registry()
        )
        good = validator.is_valid(value)
    except (
        ValueError,
        RecursionError,
        jsonschema.SchemaError,
        referencing.exceptions.Unresolvable,
    ):
        good = False
    if not good:
        raise Refusal(422, "the agent's answer is not JSON of the form asked for", code="no_answer")
    return text


def _without_patterns(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {
            name: _without_patterns(value)
            for name, value in schema.items()
            # A property may be called so too; then its value is a schema.
            if name != "patternProperties" and not (name == "pattern" and isinstance(value, str))
        }
    return [_without_patterns(one) for one in schema] if isinstance(schema, list) else schema


def completion(
    number: str,
    model: str,
    request: ChatRequest,
    result: Result,
    queued_s: float,
    pieces: Pieces | None,
) -> dict[str, Any]:
    """A whole chat completion."""
    text, finish, kept = content(result, request, pieces)
    calls = tool_calls(result)
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if calls:
        message["tool_calls"], finish = calls, "tool_calls"
    return {
        "id": number,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": logprobs(result, request, pieces, kept),
                "finish_reason": finish,
            }
        ],
        "usage": usage(result),
        "speceyes": extension(result, queued_s),
    }


def opening(number: str, model: str, created: int) -> dict[str, Any]:
    """The first chunk of a stream: sent as soon as the request is accepted."""
    return _chunk(number, model, created, {"role": "assistant", "content": ""})


def chunks(
    number: str,
    model: str,
    created: int,
    request: ChatRequest,
    result: Result,
    queued_s: float,
    pieces: Pieces | None,
) -> Iterator[dict[str, Any]]:
    """The rest of it. An answer is one chunk: before it is decided there is nothing to send."""
    text, finish, kept = content(result, request, pieces)
    said = logprobs(result, request, pieces, kept)
    delta: dict[str, Any] = {"content": text}
    calls = tool_calls(result)
    if calls:
        delta["tool_calls"] = [{"index": at, **call} for at, call in enumerate(calls)]
        finish = "tool_calls"
    yield _chunk(number, model, created, delta, logprobs=said)
    last = _chunk(number, model, created, {}, finish=finish)
    yield {**last, "speceyes": extension(result, queued_s)}
    if request.include_usage:
        head = _chunk(number, model, created, {})
        yield {**head, "choices": [], "usage": usage(result)}


def _chunk(
    number: str,
    model: str,
    created: int,
    delta: dict[str, Any],
    *,
    finish: str | None = None,
    logprobs: dict[str, Any] | None = None,
) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
    return {
        "id": number,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": [choice],
    }


def event(data: dict[str, Any]) -> str:
    """One server-sent event. Some clients end a line at signs that JSON leaves as they are."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for sign in "\x85\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return f"data: {text}\n\n"
