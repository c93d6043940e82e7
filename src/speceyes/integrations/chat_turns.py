"""A funnel in conversations that are written as OpenAI's chat messages: what gateways and agent
frameworks have in common.

The funnel answers the last question; where tools are offered, an accepted draft is the answer at
once, and otherwise the large model takes a turn and may call them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

from speceyes.errors import ImageError, InputError, ModelError
from speceyes.images import load_image
from speceyes.integrations.langchain_images import image_block
from speceyes.pipeline import SpecPipeline
from speceyes.server.backend import rounds_of
from speceyes.server.chat_request import ChatRequest, request_of
from speceyes.server.image_sources import Picture
from speceyes.server.limits import ServerLimits
from speceyes.server.refusal import Refusal
from speceyes.strategies.turn_taking import OfferedTool, Round, Said, TurnTaking
from speceyes.types import Image, Query

_LIMITS: Final = ServerLimits(images=64, question_chars=1_000_000)
"""Callers are in this process; the pipeline's own limits hold for images."""


@final
class ChatTurns:
    """Takes a funnel's turns in chats. Threads may share it where they may share the models.

    System messages and history are told to the large model alone; see docs/embedding.md.

    Args:
        pipe: The funnel.

    Example:
        >>> import numpy as np
        >>> from speceyes.models.scripted import ScriptedModel
        >>> pipe = SpecPipeline.from_pretrained(small=ScriptedModel("red"), judge=None)
        >>> from speceyes.integrations.chat_turns import ChatTurns, image_part
        >>> asked = [image_part(load_image(np.zeros((48, 64, 3), dtype=np.uint8)))]
        >>> asked.append({"type": "text", "text": "Which colour?"})
        >>> ChatTurns(pipe)([{"role": "user", "content": asked}]).answer
        'red'
        >>> pipe.close()
        True
    """

    def __init__(self, pipe: SpecPipeline) -> None:
        self.pipe = pipe
        self._taking = TurnTaking(pipe)

    def __call__(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        stop: str | Sequence[str] | None = None,
        *,
        must_call: bool = False,
    ) -> Said:
        """The next turn.

        Args:
            messages: Chat messages; images as data URLs, or addresses where the pipeline fetches.
            tools: In OpenAI's function form.
            stop: Texts before which an answer is cut.
            must_call: Text is no answer here, so that nothing is drafted.

        Raises:
            InputError: There is no question or no image, or one can't be read.
            ModelError: There is no answer.
        """
        query, rounds, offered = self._read(messages, tools)
        if must_call and offered:
            return self._taking.turn(query, rounds, offered)
        return _cut(self._taking(query, rounds, offered), stop)

    async def ask(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        stop: str | Sequence[str] | None = None,
        *,
        must_call: bool = False,
    ) -> Said:
        """The same without holding up the event loop; what is asked at a time shares batches."""
        if must_call:
            return await asyncio.to_thread(self, messages, tools, stop, must_call=True)
        query, rounds, offered = await asyncio.to_thread(self._read, messages, tools)
        return _cut(await self._taking.ask(query, rounds, offered), stop)

    def _read(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
    ) -> tuple[Query, list[Round], tuple[OfferedTool, ...]]:
        data = {"model": "speceyes", "messages": list(messages), "tools": list(tools)}
        try:
            request: ChatRequest = request_of(data, "speceyes", _LIMITS, None)
        except Refusal as exc:
            raise InputError(str(exc)) from None
        said = request.dialogue
        later = [one for turn in said.turns for one in turn.results if isinstance(one, Picture)]
        shown = {one: self._image(one) for one in (*said.pictures, *later)}
        query = Query(
            said.question,
            tuple(shown[one] for one in said.pictures),
            instructions=said.instructions,
            history=said.history,
        )
        fallback = self.pipe.fallback
        dialect = None if fallback is None else fallback.dialect
        return query, rounds_of(dialect, said.turns, shown), request.tools

    def _image(self, picture: Picture) -> Image:
        """Raises ImageError for what is no URL: a chat's message never opens a file."""
        if not picture.url[:5].lower().startswith(("data:", "http")):
            raise ImageError(f"{picture.where} must be a data URL or an http(s) address")
        return load_image(
            picture.url, limits=self.pipe.inputs.limits, allow_urls=self.pipe.inputs.allow_urls
        )


def image_part(image: Image) -> dict[str, Any]:
    """A PIL image as a part of a message's content."""
    return image_block(image)


def tool_calls(said: Said) -> list[dict[str, Any]]:
    """The calls of a turn in OpenAI's form; none where it answered."""
    return [
        {
            "id": f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
        }
        for call in said.calls
    ]


def _cut(said: Said, stop: str | Sequence[str] | None) -> Said:
    stops = [stop] if isinstance(stop, str) else list(stop or ())
    if said.answer is None:
        return said
    ends = [at for one in stops if one and (at := said.answer.find(one)) >= 0]
    return dataclasses.replace(said, answer=said.answer[: min(ends)]) if ends else said


def reason_of(exc: Exception) -> tuple[int, str]:
    """(HTTP status, message) of an error, for frameworks that know errors by status."""
    if isinstance(exc, InputError):
        return 400, str(exc)
    return (502 if isinstance(exc, ModelError) else 500), str(exc)
