"""A rejected draft, handed to the agent's first turn."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

from speceyes import prompts
from speceyes.errors import ConfigError
from speceyes.isolation import describe
from speceyes.types import Completion, Conversation, Query, Verdict

_log = logging.getLogger(__name__)

Hint: TypeAlias = Literal["answer", "reasoning"] | Callable[[Query, Completion, Verdict], str]
"""What of a rejected draft the agent is told: its answer with its score; all that was said, with
the score; or what a function of query, draft and verdict makes of it, "" for nothing."""


def checked(hint: Hint | None) -> Hint | None:
    """The hint, if it is one.

    Raises:
        ConfigError: It isn't.
    """
    known = get_args(get_args(Hint)[0])
    if hint is None or callable(hint) or hint in known:
        return hint
    raise ConfigError(
        f"hint={hint!r}; it must be one of {known}, a function of query, draft and verdict, or "
        "None for no hint"
    )


def told(hint: Hint, query: Query, draft: Completion, verdict: Verdict) -> str:
    """What the agent is told; "" where the draft was accepted, failed, was cut or says nothing.

    Example:
        >>> from PIL import Image
        >>> query = Query("Which colour?", (Image.new("RGB", (8, 8)),))
        >>> told("answer", query, Completion("red"), Verdict(False, 0.42, 1.0, 0.98))[:52]
        'At a quick glance somebody answered: red (confidence'
    """
    if verdict.accepted or draft.error is not None or draft.finish != "stop":
        return ""
    if callable(hint):
        try:
            return str(hint(query, draft, verdict) or "")
        except Exception as exc:  # noqa: BLE001 - the agent works without a hint as well
            _log.warning("a hint could not be made: %s", describe(exc))
            return ""
    said = draft.text.rpartition("</think>")[2] if hint == "answer" else draft.text
    if not said.strip():
        return ""
    score = "unknown" if verdict.score is None else f"{verdict.score:.2f}"
    text = prompts.HINT_ANSWER if hint == "answer" else prompts.HINT_REASONING
    return text.replace("{score}", score).replace("{said}", said.strip())


def hinted(conversation: Conversation, text: str) -> Conversation:
    """The conversation with a text behind all that its last message says, so that what is in
    front of it, images above all, is read as it is without.
    """
    if not text:
        return conversation
    *before, last = conversation.messages
    *parts, end = last.content or ("",)
    content = (*parts, f"{end}\n{text}") if isinstance(end, str) else (*parts, end, text)
    return dataclasses.replace(
        conversation, messages=(*before, dataclasses.replace(last, content=content))
    )
