"""What a request asks for, read out of the body; what can't be served is refused by its name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from speceyes.server.fields import bad_field, flag, is_int, is_number, is_zero, shown, text_of
from speceyes.server.limits import ServerLimits
from speceyes.server.message import read_message
from speceyes.server.refusal import Refusal

MAX_TOP_LOGPROBS: Final = 20
"""As in OpenAI's protocol."""
MOST_STOPS: Final = 4
MOST_CHOICES: Final = 26
"""They are lettered."""
MAX_SEED: Final = 9_223_372_036_854_776_000
"""As OpenAI describes it: 2^63 as a double is written."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A chat completion that was asked for.

    Args:
        question: The texts of the message, a line each.
        urls: Its images, in order.
        wheres: The field of each, for errors.
        choices: Options, from the extension.
        stream: As server-sent events.
        include_usage: With a chunk of usage at the end of a stream.
        logprobs: With the draft's log-probabilities.
        top_logprobs: How many a token.
        stop: Texts before which the answer is cut.
        max_tokens: Where it is cut; None for nowhere.
        straight: To the agent at once.
        threshold: The request's own; None for the server's.
        seconds: The request's own limit; None for the server's.
    """

    question: str
    urls: tuple[str, ...]
    wheres: tuple[str, ...]
    choices: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False
    logprobs: bool = False
    top_logprobs: int = 0
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    straight: bool = False
    threshold: float | None = None
    seconds: float | None = None


# What changes nothing here, and may be sent: the value that is allowed, and in words.
_NEUTRAL: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "temperature": (is_zero, "0: models decode greedily here"),
    "top_p": (lambda v: is_number(v) and 0 < v <= 1, "a number above 0, up to 1"),
    "n": (lambda v: is_int(v) and v == 1, "1"),
    "seed": (lambda v: is_int(v) and -MAX_SEED <= v <= MAX_SEED, "a 64-bit whole number"),
    "presence_penalty": (is_zero, "0"),
    "frequency_penalty": (is_zero, "0"),
    "logit_bias": (lambda v: v == {}, "empty"),
    "tools": (lambda v: v == [], "empty: the agent's tools are the operator's"),
    "tool_choice": (lambda v: v == "none", '"none"'),
    "parallel_tool_calls": (lambda v: isinstance(v, bool), "true or false"),
    "response_format": (lambda v: v == {"type": "text"}, '{"type": "text"}'),
    "modalities": (lambda v: v == ["text"], '["text"]'),
    "store": (lambda v: v is False, "false: nothing is stored"),
    "service_tier": (lambda v: v in ("auto", "default"), '"auto" or "default"'),
    "user": (lambda v: isinstance(v, str), "text; it is not looked at"),
    "safety_identifier": (lambda v: isinstance(v, str), "text; it is not looked at"),
}
_READ = frozenset(
    "model messages stream stream_options logprobs top_logprobs stop max_tokens "
    "max_completion_tokens speceyes".split()
)


def read(body: bytes, model: str, limits: ServerLimits, top_k: int | None) -> Asked:
    """What the body asks for.

    Args:
        body: JSON.
        model: The name that is served.
        limits: What is allowed.
        top_k: How many log-probabilities drafts carry; None where nothing drafts.

    Raises:
        Refusal: 400, naming the field, or 404 for another model.

    Example:
        >>> body = b'{"model": "m", "n": 2, "messages": []}'
        >>> read(body, "m", ServerLimits(), 64)
        Traceback (most recent call last):
        speceyes.server.refusal.Refusal: n: it must be 1
    """
    data = _json(body)
    for name, value in data.items():
        if name in _NEUTRAL:
            allowed, words = _NEUTRAL[name]
            if value is not None and not allowed(value):
                raise bad_field(name, f"it must be {words}")
        elif name not in _READ and value is not None:
            raise bad_field(shown(name), "this field is not supported", "unsupported_parameter")
    if not isinstance(data.get("model"), str):
        raise bad_field("model", f"a text is needed; {model!r} is served")
    if data["model"] != model:
        raise Refusal(
            404,
            f"this server has no such model; it serves {model!r}",
            code="model_not_found",
            param="model",
        )
    question, urls, wheres = read_message(data.get("messages"), limits)
    stream = flag(data, "stream")
    logprobs = flag(data, "logprobs")
    more = _extension(data.get("speceyes"), limits)
    if len(question) + sum(map(len, more.get("choices", ()))) > limits.question_chars:
        raise bad_field("messages", f"more than {limits.question_chars} characters of text")
    return Asked(
        question=question,
        urls=urls,
        wheres=wheres,
        stream=stream,
        include_usage=_include_usage(data.get("stream_options"), stream),
        logprobs=logprobs,
        top_logprobs=_top(data.get("top_logprobs"), logprobs, top_k),
        stop=_stops(data.get("stop")),
        max_tokens=_max_tokens(data),
        **more,
    )


def _json(body: bytes) -> dict[str, Any]:
    def constant(name: str) -> Any:
        raise ValueError(name)

    try:
        data = json.loads(body, parse_constant=constant)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON that can be read", code="bad_json") from None
    if not isinstance(data, dict):
        raise Refusal(400, "the body must be a JSON object", code="bad_json")
    return data


def _include_usage(value: Any, stream: bool) -> bool:
    if value is None:
        return False
    if not stream:
        raise bad_field("stream_options", "only with stream: true")
    if not isinstance(value, dict) or any(name != "include_usage" for name in value):
        raise bad_field("stream_options", "only include_usage is supported")
    return flag(value, "include_usage")


def _top(value: Any, logprobs: bool, top_k: int | None) -> int:
    if value is None:
        return 0
    if not is_int(value) or not 0 <= value <= MAX_TOP_LOGPROBS:
        raise bad_field("top_logprobs", f"a whole number from 0 to {MAX_TOP_LOGPROBS} is needed")
    if value and not logprobs:
        raise bad_field("top_logprobs", "only with logprobs: true")
    if top_k is not None and value > top_k:
        raise bad_field("top_logprobs", f"drafts carry {top_k} log-probabilities a token")
    return int(value)


def _stops(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MOST_STOPS:
        raise bad_field("stop", f"a text, or a list of up to {MOST_STOPS}, is needed")
    found = tuple(text_of(stop, "stop") for stop in stops)
    if "" in found:
        raise bad_field("stop", "an empty text would stop every answer at once")
    return found


def _max_tokens(data: Mapping[str, Any]) -> int | None:
    names = ("max_tokens", "max_completion_tokens")
    given: dict[str, Any] = {name: data[name] for name in names if data.get(name) is not None}
    if len(given) == 2:
        raise bad_field("max_tokens", "pass max_tokens or max_completion_tokens, not both")
    for name, value in given.items():
        if not is_int(value) or value < 1:
            raise bad_field(name, "a whole number of at least 1 is needed")
        return int(value)
    return None


def _extension(value: Any, limits: ServerLimits) -> dict[str, Any]:
    """The fields under "speceyes"."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_field("speceyes", "an object is needed")
    for name in value:
        if name not in ("route", "threshold", "deadline_s", "choices"):
            raise bad_field(
                f"speceyes.{shown(name)}",
                "there are route, threshold, deadline_s and choices",
                "unsupported_parameter",
            )
    found: dict[str, Any] = {}
    route = value.get("route")
    if route not in (None, "auto", "agent"):
        raise bad_field("speceyes.route", '"auto" or "agent" is needed')
    if route == "agent" and not limits.agent_on_request:
        raise bad_field("speceyes.route", 'this server takes "auto" only', "not_allowed")
    found["straight"] = route == "agent"
    threshold = value.get("threshold")
    if threshold is not None:
        if limits.thresholds is None:
            raise bad_field("speceyes.threshold", "this server's is fixed", "not_allowed")
        low, high = limits.thresholds
        if not is_number(threshold) or not low <= threshold <= high:
            raise bad_field(
                "speceyes.threshold", f"a number from {low:g} to {high:g} is allowed", "not_allowed"
            )
        found["threshold"] = float(threshold)
    seconds = value.get("deadline_s")
    if seconds is not None:
        if not is_number(seconds) or not 0 < seconds <= limits.seconds:
            raise bad_field(
                "speceyes.deadline_s", f"above 0, up to {limits.seconds:g} seconds, is allowed"
            )
        found["seconds"] = float(seconds)
    choices = value.get("choices")
    if choices is not None:
        if not isinstance(choices, list) or len(choices) > MOST_CHOICES:
            raise bad_field("speceyes.choices", f"a list of up to {MOST_CHOICES} texts is needed")
        found["choices"] = tuple(text_of(choice, "speceyes.choices") for choice in choices)
    return found
