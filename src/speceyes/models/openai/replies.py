"""Completions from an engine's replies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from speceyes.errors import ModelError
from speceyes.models.control_tokens import whole
from speceyes.models.openai.logprobs import (
    UNKNOWN_ID,
    ReplyToken,
    check_complete,
    first_token,
    token_texts,
    top_rows,
)
from speceyes.models.openai.requests import EngineCapabilities
from speceyes.types import Completion, Finish, Sampling

_ENDED = frozenset(("stop", "eos", "eos_token", "end_turn", "complete"))
"""The model, or a stop string, ended the answer; in lower case, as gateways write them."""
_FINISH: Mapping[str, Finish] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "complete": "stop",
    "stop_sequence": "stop",
    "tool_calls": "stop",
    "tool_call": "stop",
    "tool_use": "stop",
    "function_call": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_length": "length",
    "model_length": "length",
}


def read_completion(reply: Any, sampling: Sampling, capabilities: EngineCapabilities) -> Completion:
    """The completion that a reply holds.

    Args:
        reply: The engine's JSON.
        sampling: What was asked for.
        capabilities: What the engine does beyond the protocol.

    Raises:
        ModelError: The reply is malformed, or lacks what was asked for.
    """
    try:
        choice = reply["choices"][0]
        ended = choice.get("finish_reason")
        finish = ended.lower() if isinstance(ended, str) else ""
        if choice.get("error"):  # a gateway's word of an engine that failed on the way
            raise ModelError(f"the engine failed: {json.dumps(choice['error'])[:400]}")
        raw_text = whole(_text(choice["message"]))
        stopped = choice.get("stop_reason", choice.get("matched_stop"))
        usage = reply.get("usage") or {}
        counted = _count(usage.get("completion_tokens"))
        prompt_tokens = _count(usage.get("prompt_tokens")) or 0
        cached = _cached(usage)
        listed = (choice.get("logprobs") or {}).get("content") or []
        tokens = [ReplyToken.read(entry) for entry in listed]
    except (LookupError, TypeError, AttributeError, ValueError) as exc:
        raise ModelError(
            f"the engine's reply isn't a chat completion ({type(exc).__name__}: {exc}), beginning "
            f"{json.dumps(reply)[:120]!r:.120}: check that base_url leads to an engine that speaks "
            "OpenAI's protocol"
        ) from None
    if finish not in _FINISH:
        raise ModelError(
            f"the engine ended the answer with finish_reason={ended!r:.60}; only "
            f"{', '.join(sorted(_FINISH))} are known: look into the engine's log"
        )
    met = stopped if isinstance(stopped, str) and stopped in sampling.stop else None
    text = _with_stop(raw_text, sampling, met, finish in _ENDED or finish == "stop_sequence")
    k = sampling.top_k
    if k or sampling.first_token:
        check_complete(tokens, counted, text)
    rows = top_rows(tokens, k)
    first: dict[str, float] = {}
    if sampling.first_token and tokens:
        top_rows(tokens[:1], 1)
        first = first_token(tokens[0])
    ids = tuple(token.id for token in tokens) if tokens else (UNKNOWN_ID,) * (counted or 0)
    natural = finish in _ENDED and not isinstance(stopped, str)
    if natural and tokens and _is_end(tokens[-1], (raw_text, text), capabilities):
        ids, rows, tokens = ids[:-1], rows[:-1], tokens[:-1]
    return Completion(
        text=text,
        token_ids=ids,
        top_logprobs=rows if k and len(rows) else np.zeros((0, 0), dtype=np.float32),
        # A text that was cut here had its stop string before its length.
        finish="stop" if len(text) < len(raw_text) else _FINISH[finish],
        prompt_tokens=prompt_tokens,
        first_token=first,
        tokens=token_texts(tokens) if sampling.token_texts else (),
        cached_tokens=None if cached is None else min(cached, prompt_tokens),
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _cached(usage: Mapping[str, Any]) -> int | None:
    """Tokens of the prompt that the engine had kept, in the protocol's words or in a gateway's.

    vLLM tells them with `--enable-prompt-tokens-details`, SGLang with `--enable-cache-report`.
    """
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    told = details.get("cached_tokens") if isinstance(details, Mapping) else None
    for name in ("prompt_cache_hit_tokens", "cache_read_input_tokens"):
        told = usage.get(name) if told is None else told
    return _count(told)


def _text(message: Mapping[str, Any]) -> str:
    """The text of the model, put together again where the engine took it apart.

    Raises:
        TypeError: There are parts, and none of them has a text.
    """
    content = message.get("content") or message.get("refusal") or ""
    text = content if isinstance(content, str) else _joined(_listed(content))
    thought = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(thought, str) and thought:
        text = _with_thought(thought, text)
    calls = [call for call in message.get("tool_calls") or () if call]
    if not calls and message.get("function_call"):  # the protocol's older form
        calls = [message["function_call"]]
    elif not calls and message.get("tool_calls") and not text:
        raise TypeError("its tool_calls are empty")
    said = text.rpartition("</think>")[2]
    if "<tool_call>" in said and all(_name(call) in said for call in calls):
        calls = []  # what was taken apart was left in the text as well
    return text + "".join(map(_taken_apart, calls))


def _with_thought(thought: str, text: str) -> str:
    """A text behind the thought that came beside it; some engines leave it in the text as well."""
    within, closed, after = text.partition("</think>")
    within = within.strip().removeprefix("<think>").strip()
    if closed and within in ("", thought.strip()):
        text = after
    return f"<think>{thought}</think>{text}"


def _name(call: Mapping[str, Any]) -> str:
    for holder in (call.get("function"), call.get("custom"), call):
        if isinstance(holder, Mapping) and isinstance(holder.get("name"), str):
            return str(holder["name"])
    return ""


def _taken_apart(call: Mapping[str, Any]) -> str:
    """A call of `tool_calls`: of a function, of a tool that takes a text, or flat."""
    custom = call.get("custom")
    if isinstance(custom, Mapping):
        said = custom.get("input")
        try:
            named = isinstance(said, str) and isinstance(json.loads(said), dict)
        except (ValueError, RecursionError):
            named = False
        return _call(custom.get("name"), said if named or not said else {"input": said})
    function = call.get("function")
    function = function if isinstance(function, Mapping) else call
    arguments = function.get("arguments")
    return _call(function.get("name"), call.get("arguments") if arguments is None else arguments)


def _listed(content: Any) -> list[Any]:
    if not isinstance(content, list):
        raise TypeError(f"content is a {type(content).__name__}, neither text nor a list of parts")
    return content


def _joined(parts: Sequence[Any]) -> str:
    """The texts of parts; what has none is left out, if another has one.

    Raises:
        TypeError: Parts that should say something, and none does.
    """
    read = [_part(part) for part in parts]
    if read and all(one is None for one in read):
        part = parts[0]
        kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
        raise TypeError(f"content has a part of type {kind!r} without text")
    return "".join(one for one in read if one)


def _part(part: Any) -> str | None:
    """The text of one part of a content that is a list; None for a part of another kind."""
    if part is None or isinstance(part, str):
        return part or ""
    if not isinstance(part, Mapping):
        return None
    kind = part.get("type") or "text"
    if kind in ("thinking", "reasoning", "reasoning_text"):
        thought = part.get("thinking") or part.get("reasoning") or part.get("text")
        thought = thought or part.get("summary") or ""
        inner = thought if isinstance(thought, str) else _joined(_listed(thought))
        return f"<think>{inner}</think>" if inner else ""
    if kind == "redacted_thinking":
        return ""
    if kind == "tool_use":
        return _call(part.get("name"), part.get("input"))
    if kind in ("tool_call", "function_call"):
        return _taken_apart(part)
    text = part.get("text", part.get("refusal", part.get("content")))
    if isinstance(text, Mapping):  # {"value": ..., "annotations": ...}
        text = text.get("value")
    if isinstance(text, str):
        return text
    return "" if "text" in str(kind) else None


def _call(name: Any, arguments: Any) -> str:
    """A call as the Hermes format writes it; engines leave out arguments where there are none."""
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments or {})
    arguments = arguments.strip() or "{}"
    if arguments == "null":
        arguments = "{}"
    # None of the characters of tags, which a program or a text in an argument may hold.
    arguments = arguments.replace("<", "\\u003c")
    return f'\n<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {arguments}}}\n</tool_call>'


def _with_stop(text: str, sampling: Sampling, met: str | None, ended: bool) -> str:
    """The text up to its first stop string, which engines leave out.

    Where the engine doesn't say which one it was, it is a closing tag whose opening tag the text
    has left open, the last such; otherwise the text is taken as it came.
    """
    start = _thought_end(text, sampling.stop_after)
    if start is None:
        return text
    ends = [text.find(s, start) + len(s) for s in sampling.stop if s in text[start:]]
    if ends:
        return text[: min(ends)]
    if met is not None:
        return text + met
    if ended and not sampling.stop_after:  # else the engine was given no stop strings
        tags = [s for s in sampling.stop if s.startswith("</") and s.endswith(">")]
        opened = {s: text.rfind("<" + s[2:]) for s in tags}
        last = max(opened, key=lambda s: opened[s], default=None)
        if last is not None and opened[last] >= 0:
            return text + last
    return text


def _thought_end(text: str, close: str) -> int | None:
    """Place from which stop strings count; None where a reasoning block was left open."""
    if not close:
        return 0
    end = text.find(close)
    if end >= 0:
        return end + len(close)
    return None if close.startswith("</") and "<" + close[2:] in text else 0


def _is_end(token: ReplyToken, texts: Sequence[str], capabilities: EngineCapabilities) -> bool:
    """True where the last token is the end of the sequence, which is no part of the answer.

    Args:
        token: The last one.
        texts: The text as it came, and with its stop string.
        capabilities: What the engine does.
    """
    if capabilities.lists_end is not None:
        return capabilities.lists_end
    spelling = token.text.encode() if token.spelling is None else token.spelling
    return not spelling or not any(
        text.encode("utf-8", "replace").endswith(spelling) for text in texts
    )
