"""The protocols that a server speaks: how each reads a request and writes a result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, final

from speceyes.server import chat_response
from speceyes.server.chat_request import ChatRequest, read_request
from speceyes.server.chat_response import Pieces, event
from speceyes.server.limits import ServerLimits
from speceyes.server.refusal import Refusal
from speceyes.types import Result


class Format(Protocol):
    """One protocol of requests and responses."""

    @property
    def end(self) -> str:
        """The last event of a stream that went well."""
        ...

    def read(
        self, body: bytes, limits: ServerLimits, top_k: int | None, *, takes_turns: bool
    ) -> ChatRequest:
        """The request in a body; see `speceyes.server.chat_request.read_request`."""
        ...

    def whole(
        self, id: str, request: ChatRequest, result: Result, queued_s: float
    ) -> dict[str, Any]:
        """The response's JSON."""
        ...

    def opening(self, id: str, request: ChatRequest, created: int) -> Iterator[str]:
        """Events that are sent as soon as the request is accepted."""
        ...

    def events(
        self, id: str, request: ChatRequest, result: Result, queued_s: float, created: int
    ) -> Iterator[str]:
        """The events of the answer."""
        ...

    def failed(self, id: str, exc: Refusal) -> str:
        """The event of an answer that doesn't come."""
        ...


@final
@dataclass(frozen=True, slots=True)
class ChatFormat:
    """OpenAI's chat completions.

    Args:
        model: The name that is served.
        pieces: Gives the text of each of the drafter's tokens, where it is known.
    """

    model: str
    pieces: Callable[[], Pieces | None]
    end: str = "data: [DONE]\n\n"

    def read(
        self, body: bytes, limits: ServerLimits, top_k: int | None, *, takes_turns: bool
    ) -> ChatRequest:
        """See `Format`."""
        return read_request(body, self.model, limits, top_k, takes_turns=takes_turns)

    def whole(
        self, id: str, request: ChatRequest, result: Result, queued_s: float
    ) -> dict[str, Any]:
        """See `Format`."""
        return chat_response.completion(
            f"chatcmpl-{id}", self.model, request, result, queued_s, self.pieces()
        )

    def opening(self, id: str, request: ChatRequest, created: int) -> Iterator[str]:
        """See `Format`."""
        yield event(chat_response.opening(f"chatcmpl-{id}", self.model, created))

    def events(
        self, id: str, request: ChatRequest, result: Result, queued_s: float, created: int
    ) -> Iterator[str]:
        """See `Format`."""
        for chunk in chat_response.chunks(
            f"chatcmpl-{id}", self.model, created, request, result, queued_s, self.pieces()
        ):
            yield event(chunk)

    def failed(self, id: str, exc: Refusal) -> str:
        """See `Format`."""
        return event(exc.body())
