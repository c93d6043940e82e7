"""A request for a chat completion, read out of the body; a field that can't be served is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from speceyes import prompts
from speceyes.server.fields import bad_field, flag, is_int, is_number, is_zero, shown, text_of
from speceyes.server.limits import ServerLimits
from speceyes.server.messages import Dialogue, Notes, read_messages
from speceyes.server.refusal import Refusal
from speceyes.strategies.turn_taking import OfferedTool

MAX_TOP_LOGPROBS: Final = 20
"""As in OpenAI's protocol."""
MOST_STOPS: Final = 4
MOST_CHOICES: Final = 26
"""They are lettered."""
MOST_VALUES: Final = 500_000
"""Of a body, roughly: each takes some hundred bytes once it is read, whatever it is."""
MAX_SEED: Final = 9_223_372_036_854_776_000
"""As OpenAI describes it: 2^63 as a double is written."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat completion that was asked for.

    Args:
        dialogue: Question, images, instructions and history.
        choices: Options, from the extension.
        stream: As server-sent events.
        include_usage: With a chunk of usage at the end of a stream.
        logprobs: With the draft's log-probabilities.
        top_logprobs: Their number for each token.
        stop: Texts before which the answer is cut.
        max_tokens: Tokens or words after which it is cut; None for no cut.
        straight: To the agent at once.
        threshold: The request's own; None for the server's.
        seconds: The request's own limit; None for the server's.
        tools: Tools that the client runs.
        json_schema: Schema that the answer must follow; {} for any JSON, None for plain text.
        notes: Names of fields that change less than a client may expect.
    """

    dialogue: Dialogue
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
    tools: tuple[OfferedTool, ...] = ()
    json_schema: Mapping[str, Any] | None = None
    notes: Notes = field(default_factory=Notes)

    @property
    def question(self) -> str:
        """The question in words."""
        return self.dialogue.question

    @property
    def instructions(self) -> str:
        """Instructions of the agent besides the question."""
        told = [self.dialogue.instructions] if self.dialogue.instructions else []
        if self.json_schema is not None:
            schema = f", of this schema: {json.dumps(self.json_schema)}" if self.json_schema else ""
            told.append(prompts.JSON_ANSWER.format(schema=schema))
        return "\n\n".join(told)


@dataclass(frozen=True, slots=True)
class _Rule:
    """A field without effect: the values that promise none, others of its type, and in words."""

    neutral: Callable[[Any], bool]
    words: str
    tolerated: Callable[[Any], bool] = lambda value: False


_RULES: Mapping[str, _Rule] = {
    "temperature": _Rule(
        is_zero, "0: models decode greedily here", lambda v: is_number(v) and 0 <= v <= 2
    ),
    "top_p": _Rule(lambda v: is_number(v) and 0 < v <= 1, "a number above 0, up to 1"),
    "n": _Rule(lambda v: is_int(v) and v == 1, "1"),
    "seed": _Rule(lambda v: is_int(v) and -MAX_SEED <= v <= MAX_SEED, "a 64-bit whole number"),
    "presence_penalty": _Rule(is_zero, "0", lambda v: is_number(v) and -2 <= v <= 2),
    "frequency_penalty": _Rule(is_zero, "0", lambda v: is_number(v) and -2 <= v <= 2),
    "logit_bias": _Rule(lambda v: v == {}, "empty", lambda v: isinstance(v, dict)),
    "parallel_tool_calls": _Rule(lambda v: isinstance(v, bool), "true or false"),
    "modalities": _Rule(lambda v: v == ["text"], '["text"]'),
    "store": _Rule(lambda v: v is False, "false: nothing is stored", lambda v: isinstance(v, bool)),
    "service_tier": _Rule(
        lambda v: v in ("auto", "default"), '"auto" or "default"', lambda v: isinstance(v, str)
    ),
    "user": _Rule(lambda v: isinstance(v, str), "text; it is not looked at"),
    "safety_identifier": _Rule(lambda v: isinstance(v, str), "text; it is not looked at"),
    # What asks for another kind of answer is never ignored.
    "functions": _Rule(lambda v: v == [], "empty: use tools"),
    "function_call": _Rule(lambda v: v == "none", '"none": use tools'),
    "audio": _Rule(lambda v: False, "left out: answers are text"),
}
_READ = frozenset(
    "model messages stream stream_options logprobs top_logprobs stop max_tokens "
    "max_completion_tokens speceyes tools tool_choice response_format".split()
)


def read_request(
    body: bytes, model: str, limits: ServerLimits, top_k: int | None, *, takes_turns: bool = True
) -> ChatRequest:
    """The request in a body.

    Args:
        body: JSON.
        model: The name that is served.
        limits: Limits of a request.
        top_k: Log-probabilities that a draft's token carries; None where nothing drafts.
        takes_turns: The agent is a model, which can call a client's tools.

    Raises:
        Refusal: 400, naming the field, or 404 for another model.

    Example:
        >>> body = b'{"model": "m", "n": 2, "messages": []}'
        >>> read_request(body, "m", ServerLimits(), 64)
        Traceback (most recent call last):
        speceyes.server.refusal.Refusal: n: it must be 1
    """
    return request_of(read_json(body), model, limits, top_k, takes_turns=takes_turns)


def request_of(
    data: Mapping[str, Any],
    model: str,
    limits: ServerLimits,
    top_k: int | None,
    *,
    takes_turns: bool = True,
) -> ChatRequest:
    """The request in a JSON object; see `read_request`."""
    notes = Notes()
    for name, value in data.items():
        if value is None or name in _READ:
            continue
        rule = _RULES.get(name)
        if rule is not None and rule.neutral(value):
            continue
        if limits.tolerant and (rule is None or rule.tolerated(value)):
            notes.ignore(name)
        elif rule is not None:
            raise bad_field(name, f"it must be {rule.words}")
        else:
            raise bad_field(shown(name), "this field is not supported", "unsupported_parameter")
    check_model(data.get("model"), model)
    tools = _tools(data, limits, notes, takes_turns=takes_turns)
    schema = _json_schema(data.get("response_format"), limits)
    if schema is not None:
        notes.hand_over("response_format")
    dialogue = read_messages(data.get("messages"), limits, notes, tools=bool(tools))
    stream = flag(data, "stream")
    logprobs = flag(data, "logprobs")
    more = _extension(data.get("speceyes"), limits)
    length = len(dialogue.question) + len(dialogue.instructions)
    length += sum(map(len, more.get("choices", ())))
    length += sum(len(message.text) for message in dialogue.history)
    if length > limits.question_chars:
        raise bad_field("messages", f"more than {limits.question_chars} characters of text")
    more["straight"] = bool(more.get("straight") or tools or schema is not None)
    return ChatRequest(
        dialogue=dialogue,
        stream=stream,
        include_usage=_include_usage(data.get("stream_options"), stream),
        logprobs=logprobs,
        top_logprobs=_top(data.get("top_logprobs"), logprobs, top_k),
        stop=_stops(data.get("stop")),
        max_tokens=_max_tokens(data),
        tools=tools,
        json_schema=schema,
        notes=notes,
        **more,
    )


def check_model(given: Any, model: str) -> None:
    """Lets the name that is served pass.

    Raises:
        Refusal: 400 for no name, 404 for another.
    """
    if not isinstance(given, str):
        raise bad_field("model", f"a text is needed; {model!r} is served")
    if given != model:
        raise Refusal(
            404,
            f"this server has no such model; it serves {model!r}",
            code="model_not_found",
            param="model",
        )


def read_json(body: bytes) -> dict[str, Any]:
    """The JSON object of a body.

    Raises:
        Refusal: It is none.
    """
    if sum(body.count(sign) for sign in (b",", b"[", b"{")) > MOST_VALUES:
        raise Refusal(400, f"the body has more than {MOST_VALUES} values", code="bad_json")

    def constant(name: str) -> Any:
        raise ValueError(name)

    try:
        data = json.loads(body, parse_constant=constant)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON that can be read", code="bad_json") from None
    if not isinstance(data, dict):
        raise Refusal(400, "the body must be a JSON object", code="bad_json")
    return data


def _tools(
    data: Mapping[str, Any], limits: ServerLimits, notes: Notes, *, takes_turns: bool
) -> tuple[OfferedTool, ...]:
    """The tools that the client runs.

    Raises:
        Refusal: They aren't functions, or this server takes none.
    """
    value, choice = data.get("tools"), data.get("tool_choice")
    if value is not None and not isinstance(value, list):
        raise bad_field("tools", "a list is needed")
    if value and not limits.tolerant:
        raise bad_field("tools", "it must be empty: the agent's tools are the operator's")
    if choice not in (None, "none"):
        if not limits.tolerant:
            raise bad_field("tool_choice", 'it must be "none"')
        if choice != "auto":
            if choice != "required" and not isinstance(choice, dict):
                raise bad_field("tool_choice", '"none", "auto", "required" or an object is needed')
            notes.ignore("tool_choice")  # a model can't be made to call
    found = []
    for at, one in enumerate(value or ()):
        function = one.get("function") if isinstance(one, dict) else None
        where = f"tools[{at}].function"
        if not isinstance(function, dict):
            raise bad_field(where, "an object with name, description and parameters is needed")
        schema = function.get("parameters") or {"type": "object", "properties": {}}
        if not isinstance(schema, dict):
            raise bad_field(f"{where}.parameters", "a JSON schema is needed")
        about = text_of(function.get("description") or "", f"{where}.description")
        found.append(OfferedTool(text_of(function.get("name"), f"{where}.name"), about, schema))
    if not found or choice == "none":
        return ()
    if not takes_turns:
        raise bad_field("tools", "this server's agent runs its own tools only", "not_allowed")
    notes.hand_over("tools")
    return tuple(found)


def _json_schema(value: Any, limits: ServerLimits) -> Mapping[str, Any] | None:
    """The schema of the answer; {} for any JSON object, None for plain text.

    Raises:
        Refusal: It is none of OpenAI's formats, or the server is strict.
    """
    if value is None or value == {"type": "text"}:
        return None
    kind = value.get("type") if isinstance(value, dict) else None
    if not limits.tolerant:
        raise bad_field("response_format", 'it must be {"type": "text"}')
    if kind == "json_object":
        return {"type": "object"}
    if kind == "json_schema":
        inner = value.get("json_schema")
        schema = inner.get("schema", {}) if isinstance(inner, dict) else None
        if isinstance(schema, dict):
            return schema
        raise bad_field("response_format.json_schema", "an object with a schema is needed")
    raise bad_field("response_format", 'type "text", "json_object" or "json_schema" is needed')


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
