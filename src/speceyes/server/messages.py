"""The messages of a request: the question with its images, and what stands around it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from speceyes.server.fields import bad_field, shown, text_of
from speceyes.server.image_sources import Picture
from speceyes.server.limits import ServerLimits
from speceyes.types import Message

SYSTEM: Final = ("system", "developer")
ROLES: Final = (*SYSTEM, "user", "assistant", "tool")
_TEXT: Final = ("text", "input_text", "output_text")
_IMAGE: Final = ("image_url", "input_image")


@dataclass(frozen=True, slots=True)
class ToolTurn:
    """A turn of the model that called the client's tools, and what they gave back.

    Args:
        text: The model's text, as this server sent it.
        calls: (name, arguments as JSON) of its calls.
        results: Texts and image URLs of the tools, in order.
    """

    text: str
    calls: tuple[tuple[str, str], ...] = ()
    results: tuple[str | Picture, ...] = ()


@dataclass(slots=True)
class Notes:
    """Names of fields that change less than a client may expect.

    Args:
        ignored: Without effect.
        agent_only: Told to the agent; judge and draft don't see them.
    """

    ignored: dict[str, None] = field(default_factory=dict)
    agent_only: dict[str, None] = field(default_factory=dict)

    def ignore(self, name: str) -> None:
        """Notes a field without effect."""
        self.ignored[_printable(name)] = None

    def hand_over(self, name: str) -> None:
        """Notes a field that the agent alone is told."""
        self.agent_only[_printable(name)] = None


def _printable(name: str) -> str:
    """A name as a header can carry it."""
    return "".join(sign if "!" <= sign <= "~" and sign != "," else "?" for sign in shown(name))


@dataclass(frozen=True, slots=True)
class Dialogue:
    """The messages, read.

    Args:
        question: The texts of the last user message that has any, a line each.
        where: The field of its content.
        pictures: Its images; the latest ones before it where it has none.
        instructions: The system's and the developer's texts.
        history: Earlier turns, texts only.
        turns: Turns since that called the client's tools.
        field: The field that holds all of them.
    """

    question: str
    where: str
    pictures: tuple[Picture, ...]
    instructions: str = ""
    history: tuple[Message, ...] = ()
    turns: tuple[ToolTurn, ...] = ()
    field: str = "messages"


@dataclass(frozen=True, slots=True)
class ReadMessage:
    """One message, read: its texts and images in order.

    Args:
        role: One of `ROLES`.
        where: The field of its content.
        content: Its texts and images.
        calls: (name, arguments as JSON) of an assistant's calls.
    """

    role: str
    where: str
    content: tuple[str | Picture, ...]
    calls: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        """Its texts that aren't blank, a line each."""
        texts = (part for part in self.content if isinstance(part, str))
        return "\n".join(text for text in texts if text.strip())

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Its images."""
        return tuple(part for part in self.content if isinstance(part, Picture))


def read_messages(messages: Any, limits: ServerLimits, notes: Notes, *, tools: bool) -> Dialogue:
    """Question, images, and what stands around them.

    Args:
        messages: The field of the request.
        limits: Limits of a request; `tolerant` decides on more than one message.
        notes: Told what has no effect, and what the agent alone is told.
        tools: The client offers tools, so that turns may follow the question.

    Raises:
        Refusal: There is no question or no image, or something is not served.
    """
    if not isinstance(messages, list) or not messages:
        raise bad_field("messages", "a list with a user message is needed")
    if not limits.tolerant:
        _check_strict(messages)
    parts = [_message(message, at, limits, notes) for at, message in enumerate(messages)]
    return dialogue_of(parts, limits, notes, tools=tools)


def dialogue_of(
    parts: Sequence[ReadMessage],
    limits: ServerLimits,
    notes: Notes,
    *,
    tools: bool,
    field: str = "messages",
) -> Dialogue:
    """Question, images, and what stands around them, out of messages that are read.

    Args:
        parts: The messages, oldest first.
        limits: Limits of a request.
        notes: Told what has no effect, and what the agent alone is told.
        tools: The client offers tools, so that turns may follow the question.
        field: The field that holds the messages.

    Raises:
        Refusal: There is no question or no image, or there are too many images.
    """
    asked = [at for at, one in enumerate(parts) if one.role == "user" and one.text]
    # A user message that shows images right behind tools' results is how clients send these.
    own = [
        at
        for at in asked
        if not (tools and at > asked[0] and parts[at - 1].role == "tool" and parts[at].pictures)
    ]
    where = parts[-1].where if len(parts) == 1 else field
    if not own:
        raise bad_field(where, "there is no text: ask a question in a user message")
    at = own[-1]
    question = parts[at]
    pictures = question.pictures or _latest([*parts[:at], *parts[at + 1 :]])
    if not pictures:
        raise bad_field(
            question.where if len(parts) == 1 else field,
            "there is no image: a question is about at least one",
        )
    turns = _turns(parts[at + 1 :], notes, field, tools=tools)
    used = [*pictures, *(one for turn in turns for one in turn.results if isinstance(one, Picture))]
    if len(used) > limits.images:
        raise bad_field(field, f"more than {limits.images} images", "too_many_images")
    instructions = "\n\n".join(one.text for one in parts if one.role in SYSTEM and one.text)
    history = _history(parts[:at], pictures, notes, field)
    if instructions:
        notes.hand_over("system")
    if history:
        notes.hand_over("history")
    return Dialogue(question.text, question.where, pictures, instructions, history, turns, field)


def _check_strict(messages: Sequence[Any]) -> None:
    """One user message and no other.

    Raises:
        Refusal: There is another.
    """
    for at, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role in ROLES and role != "user":
            raise bad_field(
                f"messages[{at}].role",
                f'role "{role}" is not supported: a query is one user message, without system '
                "prompt or history",
            )
    if len(messages) > 1:
        raise bad_field("messages", f"{len(messages)} messages; a query is one user message")


def _message(message: Any, at: int, limits: ServerLimits, notes: Notes) -> ReadMessage:
    where = f"messages[{at}]"
    role = message.get("role") if isinstance(message, dict) else None
    if role not in ROLES:
        raise bad_field(f"{where}.role", f"one of {', '.join(ROLES)} is needed")
    taken = {"role", "content", "name"}
    taken |= {"assistant": {"tool_calls"}, "tool": {"tool_call_id"}}.get(role, set())
    for name, value in message.items():
        if name not in taken and value is not None:
            if not limits.tolerant:
                raise bad_field(
                    f"{where}.{shown(name)}",
                    "this field is not supported",
                    "unsupported_parameter",
                )
            notes.ignore(f"messages.{name}")
    content = message.get("content")
    within = f"{where}.content"
    if isinstance(content, str):
        read: list[str | Picture] = [text_of(content, within)]
    elif isinstance(content, list):
        read = []
        for number, part in enumerate(content):
            one = read_part(part, f"{within}[{number}]", role, limits, notes)
            if one is not None:
                read.append(one)
    elif content is None and role != "user":
        read = []
    else:
        raise bad_field(within, "a text or a list of parts is needed")
    calls = _calls(message.get("tool_calls"), where) if role == "assistant" else ()
    return ReadMessage(role, within, tuple(read), calls)


def read_part(
    part: Any, where: str, role: str, limits: ServerLimits, notes: Notes
) -> str | Picture | None:
    """A part of a message's content; None where it has no effect.

    Raises:
        Refusal: It is neither text nor an image.
    """
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _TEXT:
        return text_of(part.get("text"), f"{where}.text")
    if kind in _IMAGE and role in ("user", "tool"):
        return _picture(part, f"{where}.image_url", limits, notes)
    if role == "user" or not isinstance(kind, str):
        raise bad_field(f"{where}.type", '"text" or "image_url" is needed')
    notes.ignore(
        f"{where.partition('[')[0]}.content.{kind}"
    )  # an assistant's reasoning, for instance
    return None


def _picture(part: Mapping[str, Any], where: str, limits: ServerLimits, notes: Notes) -> Picture:
    value = part.get("image_url")
    detail = part.get("detail")
    if isinstance(value, dict):
        for name in value:
            if name not in ("url", "detail"):
                if not limits.tolerant:
                    raise bad_field(f"{where}.{shown(name)}", "this field is not supported")
                notes.ignore(f"messages.content.image_url.{name}")
        detail = value.get("detail", detail)
        value, where = value.get("url"), f"{where}.url"
    elif not isinstance(value, str) or not (limits.tolerant or part["type"] == "input_image"):
        raise bad_field(where, 'an object {"url": ...} is needed')
    if detail not in (None, "auto", "high"):
        if not limits.tolerant:
            at = where.removesuffix(".url")
            raise bad_field(f"{at}.detail", '"auto" or "high": images are never made smaller here')
        notes.ignore("detail")
    return Picture(text_of(value, where).strip(), where)


def _calls(value: Any, where: str) -> tuple[tuple[str, str], ...]:
    """(name, arguments as JSON) of an assistant's calls.

    Raises:
        Refusal: They are not as this server sends them.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        raise bad_field(f"{where}.tool_calls", "a list is needed")
    found = []
    for at, call in enumerate(value):
        function = call.get("function") if isinstance(call, dict) else None
        within = f"{where}.tool_calls[{at}].function"
        if not isinstance(function, dict):
            raise bad_field(within, "an object with name and arguments is needed")
        arguments = function.get("arguments")
        found.append(
            (
                text_of(function.get("name"), f"{within}.name"),
                arguments if isinstance(arguments, str) else json.dumps(arguments or {}),
            )
        )
    return tuple(found)


def _latest(parts: Sequence[ReadMessage]) -> tuple[Picture, ...]:
    """The images of the latest message of the user that has any."""
    shown = [one.pictures for one in parts if one.role == "user" and one.pictures]
    return shown[-1] if shown else ()


def _history(
    parts: Sequence[ReadMessage], pictures: Sequence[Picture], notes: Notes, field: str
) -> tuple[Message, ...]:
    """The turns before the question, texts only: tools number images from the question's."""
    said: list[Message] = []
    for one in parts:
        if one.role in SYSTEM:
            continue
        if any(picture not in pictures for picture in one.pictures):
            notes.ignore(f"{field}.images")
        if one.text:
            speaker: Literal["assistant", "user"] = (
                "assistant" if one.role == "assistant" else "user"
            )
            said.append(Message(speaker, (one.text,)))
    return tuple(said)


def _turns(
    parts: Sequence[ReadMessage], notes: Notes, field: str, *, tools: bool
) -> tuple[ToolTurn, ...]:
    """The turns behind the question: calls of the client's tools, and their results."""
    turns: list[ToolTurn] = []
    for one in parts:
        if one.role in SYSTEM:
            continue
        if not tools:
            if one.role != "user":  # without text; its images may be the question's
                notes.ignore(f"{field}.{one.role}")
            continue
        if one.role == "assistant":
            turns.append(ToolTurn(one.text, one.calls))
        elif turns:
            last = turns[-1]
            turns[-1] = ToolTurn(last.text, last.calls, (*last.results, *one.content))
    return tuple(turns)
