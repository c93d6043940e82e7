"""The instructions and the history of a query, put around the agent's question."""

from __future__ import annotations

import dataclasses

from speceyes import prompts
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
    system = [message for message in conversation.messages if message.role == "system"]
    rest = [message for message in conversation.messages if message.role != "system"]
    if query.instructions:
        said = "\n\n".join(message.text for message in system)
        told = prompts.INSTRUCTIONS.format(text=query.instructions)
        system = [Message("system", (f"{said}\n\n{told}" if said else told,))]
    return dataclasses.replace(conversation, messages=(*system, *query.history, *rest))
