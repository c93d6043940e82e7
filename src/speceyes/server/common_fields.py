"""Fields that requests of several protocols have in common, checked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from speceyes.server.fields import bad_field, is_int, is_number, is_zero, shown, text_of
from speceyes.server.limits import ServerLimits
from speceyes.server.messages import Notes
from speceyes.strategies.turn_taking import OfferedTool

MAX_TOP_LOGPROBS: Final = 20
"""As in OpenAI's protocol."""
MOST_CHOICES: Final = 26
"""They are lettered."""
MAX_SEED: Final = 9_223_372_036_854_776_000
"""As OpenAI describes it: 2^63 as a double is written."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A field without effect.

    Args:
        neutral: True for values that promise none.
        words: These, in words.
        tolerated: True for further ones, which a tolerant server ignores.
    """

    neutral: Callable[[Any], bool]
    words: str
    tolerated: Callable[[Any], bool] = lambda value: False


RULES: Mapping[str, Rule] = {
    "temperature": Rule(
        is_zero, "0: models decode greedily here", lambda v: is_number(v) and 0 <= v <= 2
    ),
    "top_p": Rule(lambda v: is_number(v) and 0 < v <= 1, "a number above 0, up to 1"),
    "n": Rule(lambda v: is_int(v) and v == 1, "1"),
    "seed": Rule(lambda v: is_int(v) and -MAX_SEED <= v <= MAX_SEED, "a 64-bit whole number"),
    "presence_penalty": Rule(is_zero, "0", lambda v: is_number(v) and -2 <= v <= 2),
    "frequency_penalty": Rule(is_zero, "0", lambda v: is_number(v) and -2 <= v <= 2),
    "logit_bias": Rule(lambda v: v == {}, "empty", lambda v: isinstance(v, dict)),
    "parallel_tool_calls": Rule(lambda v: isinstance(v, bool), "true or false"),
    "modalities": Rule(lambda v: v == ["text"], '["text"]'),
    "store": Rule(lambda v: v is False, "false: nothing is stored", lambda v: isinstance(v, bool)),
    "service_tier": Rule(
        lambda v: v in ("auto", "default"), '"auto" or "default"', lambda v: isinstance(v, str)
    ),
    "user": Rule(lambda v: isinstance(v, str), "text; it is not looked at"),
    "safety_identifier": Rule(lambda v: isinstance(v, str), "text; it is not looked at"),
    # What asks for another kind of answer is never ignored.
    "functions": Rule(lambda v: v == [], "empty: use tools"),
    "function_call": Rule(lambda v: v == "none", '"none": use tools'),
    "audio": Rule(lambda v: False, "left out: answers are text"),
}


def check_others(
    data: Mapping[str, Any],
    read: Collection[str],
    rules: Mapping[str, Rule],
    limits: ServerLimits,
    notes: Notes,
) -> None:
    """Notes the fields of a request that have no effect.

    Args:
        data: The request.
        read: Fields that have one.
        rules: Fields whose value decides.
        limits: Limits of a request; `tolerant` decides on fields that are in neither.
        notes: Told what is ignored.

    Raises:
        Refusal: One asks for something that isn't served.
    """
    for name, value in data.items():
        if value is None or name in read:
            continue
        rule = rules.get(name)
        if rule is not None and rule.neutral(value):
            continue
        if limits.tolerant and (rule is None or rule.tolerated(value)):
            notes.ignore(name)
        elif rule is not None:
            raise bad_field(name, f"it must be {rule.words}")
        else:
            raise bad_field(shown(name), "this field is not supported", "unsupported_parameter")


def offered_tools(
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


def answer_schema(
    value: Any, limits: ServerLimits, where: str = "response_format"
) -> Mapping[str, Any] | None:
    """The schema of the answer; {} for any JSON object, None for plain text.

    Raises:
        Refusal: It is none of OpenAI's formats, or the server is strict.
    """
    if value is None or value == {"type": "text"}:
        return None
    kind = value.get("type") if isinstance(value, dict) else None
    if not limits.tolerant:
        raise bad_field(where, 'it must be {"type": "text"}')
    if kind == "json_object":
        return {"type": "object"}
    if kind == "json_schema":
        inner = value.get("json_schema")
        schema = inner.get("schema", {}) if isinstance(inner, dict) else None
        if isinstance(schema, dict):
            return schema
        raise bad_field(f"{where}.json_schema", "an object with a schema is needed")
    raise bad_field(where, 'type "text", "json_object" or "json_schema" is needed')


def top_logprobs(value: Any, logprobs: bool, top_k: int | None, how: str) -> int:
    """The number of log-probabilities that are wanted of each token.

    Raises:
        Refusal: It is out of range, or log-probabilities weren't asked for, which is done by `how`.
    """
    if value is None:
        return 0
    if not is_int(value) or not 0 <= value <= MAX_TOP_LOGPROBS:
        raise bad_field("top_logprobs", f"a whole number from 0 to {MAX_TOP_LOGPROBS} is needed")
    if value and not logprobs:
        raise bad_field("top_logprobs", f"only with {how}")
    if top_k is not None and value > top_k:
        raise bad_field("top_logprobs", f"drafts carry {top_k} log-probabilities a token")
    return int(value)


def read_extension(value: Any, limits: ServerLimits) -> dict[str, Any]:
    """The fields under "speceyes", as `ChatRequest` names them.

    Raises:
        Refusal: One is unknown, or not allowed.
    """
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
