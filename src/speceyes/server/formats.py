"""The protocols that a server speaks: how each reads a request and writes a result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, final

from speceyes.calibration.chances import Chances
from speceyes.server import chat_response, decisions_reply, responses_reply
from speceyes.server.chat_request import ChatRequest, read_request
from speceyes.server.chat_response import Pieces, event
from speceyes.server.decisions_reply import Outcome
from speceyes.server.decisions_request import read_decision_request
from speceyes.server.limits import ServerLimits
from speceyes.server.refusal import Refusal
from speceyes.server.responses_request import read_response_request
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

    def whole(self, id: str, request: ChatRequest, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """The response's JSON, out of what became of each of the request's queries."""
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


@dataclass(frozen=True, slots=True)
class _OneQuestion:
    """A format that asks a single question, with what it writes of the server.

    Args:
        model: The name that is served.
        pieces: Gives the text of each of the drafter's tokens, where it is known.
    """

    model: str
    pieces: Callable[[], Pieces | None]


@final
@dataclass(frozen=True, slots=True)
class ChatFormat(_OneQuestion):
    """OpenAI's chat completions."""

    end: str = "data: [DONE]\n\n"

    def read(
        self, body: bytes, limits: ServerLimits, top_k: int | None, *, takes_turns: bool
    ) -> ChatRequest:
        """See `Format`."""
        return read_request(body, self.model, limits, top_k, takes_turns=takes_turns)

    def whole(self, id: str, request: ChatRequest, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """See `Format`."""
        result, queued_s = _only(outcomes)
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


@final
@dataclass(frozen=True, slots=True)
class ResponsesFormat(_OneQuestion):
    """OpenAI's responses."""

    end: str = ""

    def read(
        self, body: bytes, limits: ServerLimits, top_k: int | None, *, takes_turns: bool
    ) -> ChatRequest:
        """See `Format`."""
        return read_response_request(body, self.model, limits, top_k, takes_turns=takes_turns)

    def whole(self, id: str, request: ChatRequest, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """See `Format`."""
        result, queued_s = _only(outcomes)
        return self._ended(id, request, result, queued_s, int(time.time()))

    def opening(self, id: str, request: ChatRequest, created: int) -> Iterator[str]:
        """See `Format`."""
        return responses_reply.opening(responses_reply.begun(id, self.model, request, created))

    def events(
        self, id: str, request: ChatRequest, result: Result, queued_s: float, created: int
    ) -> Iterator[str]:
        """See `Format`."""
        return responses_reply.events(self._ended(id, request, result, queued_s, created))

    def failed(self, id: str, exc: Refusal) -> str:
        """See `Format`."""
        return responses_reply.failed(exc)

    def _ended(
        self, id: str, request: ChatRequest, result: Result, queued_s: float, created: int
    ) -> dict[str, Any]:
        return responses_reply.ended(
            id, self.model, request, result, queued_s, self.pieces(), created
        )


@final
@dataclass(frozen=True, slots=True)
class DecisionFormat:
    """OpenAI's decisions, which are not streamed.

    Args:
        model: The name that is served.
        chances: Gives the chances of drafts, where the gate has a calibration.
    """

    model: str
    chances: Callable[[], Chances | None]
    end: str = ""

    def read(
        self, body: bytes, limits: ServerLimits, top_k: int | None, *, takes_turns: bool
    ) -> ChatRequest:
        """See `Format`."""
        request = read_decision_request(body, self.model, limits)
        # Of the gate that decides on its drafts, which may be exchanged before they are answered.
        return replace(request, echo={**request.echo, "chances": self.chances()})

    def whole(self, id: str, request: ChatRequest, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """See `Format`."""
        asked, chances = request.echo["questions"], request.echo["chances"]
        return decisions_reply.decision(id, self.model, asked, outcomes, chances)

    def opening(self, id: str, request: ChatRequest, created: int) -> Iterator[str]:
        """No events."""
        return iter(())

    def events(
        self, id: str, request: ChatRequest, result: Result, queued_s: float, created: int
    ) -> Iterator[str]:
        """No events."""
        return iter(())

    def failed(self, id: str, exc: Refusal) -> str:
        """See `Format`."""
        return event(exc.body())


def _only(outcomes: Sequence[Outcome]) -> tuple[Result, float]:
    """The result of a request with one query.

    Raises:
        Refusal: It has none.
    """
    [(found, queued_s)] = outcomes
    if isinstance(found, Refusal):
        raise found
    return found, queued_s
