"""A request for a chat completion, read out of the body; a field that can't be served is named."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from speceyes import prompts
from speceyes.server.common_fields import (
    RULES,
    answer_schema,
    check_others,
    offered_tools,
    read_extension,
    top_logprobs,
)
from speceyes.server.fields import bad_field, flag, is_int, text_of
from speceyes.server.limits import ServerLimits
from speceyes.server.messages import Dialogue, Notes, read_messages
from speceyes.server.refusal import Refusal
from speceyes.strategies.turn_taking import OfferedTool

MOST_STOPS: Final = 4
MOST_VALUES: Final = 500_000
"""Of a body, roughly: each takes some hundred bytes once it is read, whatever it is."""


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
        echo: Fields that the response repeats, where its protocol does so.
        questions: (question, choices) of each query, where there are several on the same images.
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
    echo: Mapping[str, Any] = field(default_factory=dict)
    questions: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def parts(self) -> tuple[ChatRequest, ...]:
        """A request for each of its queries."""
        return tuple(
            replace(self, dialogue=replace(self.dialogue, question=asked), choices=options)
            for asked, options in self.questions
        ) or (self,)

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


DEEPEST: Final = 100
"""Values within each other; schemas have a dozen, and whatever walks through one calls itself."""
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
    check_others(data, _READ, RULES, limits, notes)
    check_model(data.get("model"), model)
    tools = offered_tools(data, limits, notes, takes_turns=takes_turns)
    schema = answer_schema(data.get("response_format"), limits)
    if schema is not None:
        notes.hand_over("response_format")
    dialogue = read_messages(data.get("messages"), limits, notes, tools=bool(tools))
    stream = flag(data, "stream")
    logprobs = flag(data, "logprobs")
    more = read_extension(data.get("speceyes"), limits)
    check_length(dialogue, more.get("choices", ()), limits)
    more["straight"] = bool(more.get("straight") or tools or schema is not None)
    return ChatRequest(
        dialogue=dialogue,
        stream=stream,
        include_usage=_include_usage(data.get("stream_options"), stream),
        logprobs=logprobs,
        top_logprobs=top_logprobs(data.get("top_logprobs"), logprobs, top_k, "logprobs: true"),
        stop=_stops(data.get("stop")),
        max_tokens=_max_tokens(data),
        tools=tools,
        json_schema=schema,
        notes=notes,
        **more,
    )


def check_length(dialogue: Dialogue, choices: Iterable[str], limits: ServerLimits) -> None:
    """Lets a text pass that isn't too long.

    Raises:
        Refusal: It is.
    """
    length = len(dialogue.question) + len(dialogue.instructions) + sum(map(len, choices))
    length += sum(len(message.text) for message in dialogue.history)
    if length > limits.question_chars:
        raise bad_field(dialogue.field, f"more than {limits.question_chars} characters of text")


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
    if body.count(b"[") + body.count(b"{") > DEEPEST and _deeper(data):
        raise Refusal(400, f"the body is nested more than {DEEPEST} deep", code="bad_json")
    return data


def _include_usage(value: Any, stream: bool) -> bool:
    if value is None:
        return False
    if not stream:
        raise bad_field("stream_options", "only with stream: true")
    if not isinstance(value, dict) or any(name != "include_usage" for name in value):
        raise bad_field("stream_options", "only include_usage is supported")
    return flag(value, "include_usage")


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


def _deeper(value: Any) -> bool:
    """True where values lie more than `DEEPEST` deep within each other."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
