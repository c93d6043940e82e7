"""The instructions and the history of a query, put around the agent's question."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from speceyes import prompts
from speceyes.models.control_tokens import SPOKEN_TAGS, neutral_parts, said_by_others
from speceyes.protocols import Dialect, ForeseesLength, Tool, offers
from speceyes.types import Conversation, Message, Query


def in_context(conversation: Conversation, query: Query) -> Conversation:
    """The agent's first conversation with the query's instructions and history in it.

    Instructions end the system message, which says first how tools are called; history stands
    between the system message and the question. Images keep their numbers, since history has none.

    Example:
        >>> from PIL import Image
        >>> before = (Message("user", ("Hello",)), Message("assistant", ("Hello!",)))
        >>> query = Query("Which colour?", (Image.new("RGB", (8, 8)),), history=before)
        >>> asked = Conversation((Message("user", (*query.images, query.text)),))
        >>> [message.role for message in in_context(asked, query).messages]
        ['user', 'assistant', 'user']
    """
    if not (query.instructions or query.history):
        return conversation
    # Whoever asks has written both, what the assistant is said to have answered too.
    history = [
        dataclasses.replace(message, content=neutral_parts(message.content, SPOKEN_TAGS))
        for message in query.history
    ]
    system = [message for message in conversation.messages if message.role == "system"]
    rest = [message for message in conversation.messages if message.role != "system"]
    if query.instructions:
        said = "\n\n".join(message.text for message in system)
        told = prompts.INSTRUCTIONS.format(text=said_by_others(query.instructions))
        system = [Message("system", (f"{said}\n\n{told}" if said else told,))]
    return dataclasses.replace(conversation, messages=(*system, *history, *rest))


def opening(
    dialect: Dialect, query: Query, tools: Sequence[Tool], *, max_steps: int
) -> Conversation:
    """The agent's first conversation about a query; with a single turn, which is the last, it is
    asked for its answer.
    """
    asked = dialect.open if max_steps > 1 else dialect.ask_direct
    return in_context(asked(query, tools), query)


def too_long(model: object, conversation: Conversation) -> str | None:
    """The reason for which a model can never read a conversation, where it can tell beforehand."""
    return model.too_long(conversation) if offers(model, ForeseesLength) else None
