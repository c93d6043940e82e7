"""The one message of a request: a question about images."""

from __future__ import annotations

from typing import Any

from speceyes.server.fields import bad_field, shown, text_of
from speceyes.server.limits import ServerLimits
from speceyes.server.remote import check_source


def read_message(
    messages: Any, limits: ServerLimits
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """(question, URLs, the field of each URL) of the one message.

    Raises:
        Refusal: There is another number of messages, or something in it is not served.
    """
    if not isinstance(messages, list) or not messages:
        raise bad_field("messages", "a list with one user message is needed")
    for at, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role != "user":
            known = role if role in ("system", "developer", "assistant", "tool") else "that"
            raise bad_field(
                f"messages[{at}].role",
                f'role "{known}" is not supported: a query is one user message, without system '
                "prompt or history"
                if known != "that"
                else '"user" is needed',
            )
    if len(messages) > 1:
        raise bad_field("messages", f"{len(messages)} messages; a query is one user message")
    message = messages[0]
    for name, value in message.items():
        if name not in ("role", "content", "name") and value is not None:
            raise bad_field(
                f"messages[0].{shown(name)}",
                "this field is not supported",
                "unsupported_parameter",
            )
    content = message.get("content")
    texts, urls, wheres = [], [], []
    for at, part in enumerate([content] if isinstance(content, str) else _parts(content)):
        where = f"messages[0].content[{at}]"
        if isinstance(part, str):
            texts.append(text_of(part, "messages[0].content"))
            continue
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            texts.append(text_of(part.get("text"), f"{where}.text"))
        elif kind == "image_url":
            urls.append(_url(part.get("image_url"), f"{where}.image_url"))
            wheres.append(f"{where}.image_url.url")
        else:
            raise bad_field(f"{where}.type", '"text" or "image_url" is needed')
        if len(urls) > limits.images:
            raise bad_field("messages", f"more than {limits.images} images", "too_many_images")
    for url, where in zip(urls, wheres, strict=True):
        check_source(url, where, limits)
    question = "\n".join(text for text in texts if text.strip())
    if not question:
        raise bad_field("messages[0].content", "there is no text: ask a question")
    if not urls:
        raise bad_field(
            "messages[0].content", "there is no image: a question is about at least one"
        )
    return question, tuple(urls), tuple(wheres)


def _parts(content: Any) -> list[Any]:
    if not isinstance(content, list):
        raise bad_field("messages[0].content", "a text or a list of parts is needed")
    return [part if isinstance(part, dict) else {} for part in content]


def _url(value: Any, where: str) -> str:
    if not isinstance(value, dict):
        raise bad_field(where, 'an object {"url": ...} is needed')
    for name in value:
        if name not in ("url", "detail"):
            raise bad_field(f"{where}.{shown(name)}", "this field is not supported")
    if value.get("detail") not in (None, "auto", "high"):
        raise bad_field(f"{where}.detail", '"auto" or "high": images are never made smaller here')
    return text_of(value.get("url"), f"{where}.url")
