"""Asking a model about a query without an agent's system message and tools."""

from __future__ import annotations

from speceyes.models.control_tokens import said_by_others
from speceyes.protocols import VisionLanguageModel
from speceyes.texts import filled
from speceyes.types import Conversation, Message, Query


def ask_plainly(
    query: Query,
    system: str | None,
    text: str | None,
    model: VisionLanguageModel,
    *,
    thinking: bool | None = None,
) -> Conversation:
    """Images, then the text.

    Args:
        query: The query.
        system: System message; None sends none.
        text: {question} and the sizes of images as `Texts.user` has them; without {question} it
            stands below the question.
        model: Says how large it sees images.
        thinking: See `Conversation.thinking`.
    """
    text = text or ""
    if "{question}" not in text:
        text = f"{{question}}\n{text}"
    sizes: list[tuple[int, int]] = []
    if any(name in f"{text}{system}" for name in ("{images}", "{width}", "{height}")):
        sizes = [model.seen_size(image) for image in query.images]
    values = {"question": said_by_others(query.text)}
    if sizes:
        values |= {
            "images": ", ".join(f"{width}x{height}" for width, height in sizes),
            "width": str(sizes[0][0]),
            "height": str(sizes[0][1]),
        }
    said = filled(text, **values)
    head = () if system is None else (Message("system", (filled(system, **values),)),)
    user = Message("user", (*query.images, said))
    return Conversation((*head, user), thinking=thinking)
