"""Sends requests over plain sockets, each on a connection of its own, and reads what comes back.

A client for people hides what is looked for here: a second reply, half a reply, or none.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, final
from urllib.parse import urlsplit

from speceyes.bench.load.requests import GONE, LoadRequest, PromptSet
from speceyes.errors import ConfigError

Kind: TypeAlias = Literal["answer", "error", "left", "broken"]

LEAVES_WITHIN_S = 0.05
"""A client that goes does so at a moment of chance up to then."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one request.

    Args:
        request: The request.
        kind: One answer, one error, none since the client left, or anything else.
        status: The HTTP status; 0 where none came.
        code: The error's code, or what is broken.
        planned: When it was to be sent, seconds from the beginning of its step.
        late: Seconds that it was sent after that.
        latency: Seconds from the planned moment to the last byte.
        right: Whether the answer belongs to the question; None without one.
        how: The answer's `speceyes` field.
        id: The answer's.
    """

    request: LoadRequest
    kind: Kind
    status: int = 0
    code: str | None = None
    planned: float = 0.0
    late: float = 0.0
    latency: float = 0.0
    right: bool | None = None
    how: dict[str, Any] | None = None
    id: str | None = None


@final
class LoadClient:
    """Sends requests to one or several servers, in turn.

    Args:
        urls: Their base URLs, such as "http://127.0.0.1:8000".
        prompts: What is asked.
        key: An API key; None sends none.
        timeout_s: Seconds for a reply to be whole; longer than the server's own limit.

    Raises:
        ConfigError: There is no URL, or one isn't http(s).
    """

    def __init__(
        self,
        urls: Sequence[str],
        prompts: PromptSet,
        *,
        key: str | None = None,
        timeout_s: float = 180.0,
    ) -> None:
        if not urls:
            raise ConfigError("no server to be loaded: pass at least one URL")
        self._places = tuple(place(url) for url in urls)
        self._prompts, self._timeout_s = prompts, timeout_s
        self._bearer = "" if key is None else f"Authorization: Bearer {key}\r\n"
        self._random = random.Random(0)

    async def send(self, request: LoadRequest) -> Outcome:
        """Sends one, and waits for what comes back. Nothing that happens there is raised."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._exchange(request)
        except TimeoutError:
            return Outcome(request, "broken", code="no reply in time")
        except OSError as exc:
            return Outcome(request, "broken", code=type(exc).__name__)

    async def _exchange(self, request: LoadRequest) -> Outcome:
        host, port, tls = self._places[request.number % len(self._places)]
        body = self._prompts.body(request)
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\n{self._bearer}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection(host, port, ssl=tls or None)
        try:
            writer.write(head.encode() + body)
            if request.kind == GONE:
                await asyncio.sleep(self._random.uniform(0, LEAVES_WITHIN_S))
                return Outcome(request, "left")
            await writer.drain()
            return self._understood(request, await reader.read(-1))
        finally:
            writer.close()

    def _understood(self, request: LoadRequest, data: bytes) -> Outcome:
        """The one answer or the one error that the bytes are, if they are one."""
        head, found, body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if not found or len(words) < 2 or not words[1].isdigit():
            return Outcome(request, "broken", code="no HTTP reply")
        status = int(words[1])
        headers = {k.strip().lower(): v.strip() for k, _, v in (x.partition(":") for x in lines)}
        try:
            if headers.get("transfer-encoding") == "chunked":
                body = _unchunked(body)
            elif int(headers.get("content-length", -1)) != len(body):
                return Outcome(request, "broken", status, "the body has another length than told")
            if headers.get("content-type", "").startswith("text/event-stream"):
                return self._streamed(request, status, body)
            said = json.loads(body)
        except ValueError:
            return Outcome(request, "broken", status, "the body can't be read")
        if status == 200 and "choices" in said:
            text = said["choices"][0]["message"]["content"]
            return self._answer(request, status, text, said)
        if status >= 400 and "error" in said:
            return Outcome(request, "error", status, said["error"]["code"])
        return Outcome(request, "broken", status, "neither an answer nor an error")

    def _streamed(self, request: LoadRequest, status: int, body: bytes) -> Outcome:
        events = [one[6:] for one in body.decode().split("\n\n") if one.startswith("data: ")]
        done = events.count("[DONE]")
        chunks = [json.loads(one) for one in events if one != "[DONE]"]
        errors = [one for one in chunks if "error" in one]
        ends = [one for one in chunks if one.get("choices") and one["choices"][0]["finish_reason"]]
        if len(errors) == 1 and not done and not ends:
            error = errors[0]["error"]
            # The status line was sent before it was known; the event says what it would have been.
            return Outcome(request, "error", _STATUS.get(error["code"], status), error["code"])
        if done == 1 and len(ends) == 1 and not errors and events[-1] == "[DONE]":
            deltas = [one["choices"][0]["delta"] for one in chunks if one.get("choices")]
            text = "".join(delta.get("content") or "" for delta in deltas)
            return self._answer(request, status, text, ends[0])
        return Outcome(request, "broken", status, "the stream has another end than one")

    def _answer(
        self, request: LoadRequest, status: int, text: str, said: dict[str, Any]
    ) -> Outcome:
        return Outcome(
            request,
            "answer",
            status,
            right=self._prompts.right(request, text),
            how=said.get("speceyes"),
            id=said.get("id"),
        )


_STATUS = {"model_error": 502, "no_answer": 422, "deadline_exceeded": 504, "closing": 503}


async def saturate(
    client: LoadClient, requests: Sequence[LoadRequest], at_once: int
) -> list[Outcome]:
    """Sends all, so many at a time: the next as soon as one is back.

    Returns:
        Outcomes in the order in which they came; latency counts from when each was sent.
    """
    waiting, found = iter(requests), []

    async def one_by_one() -> None:
        for request in waiting:
            start = time.perf_counter()
            outcome = await client.send(request)
            found.append(replace(outcome, latency=time.perf_counter() - start))

    await asyncio.gather(*(one_by_one() for _ in range(at_once)))
    return found


async def offer(
    client: LoadClient, requests: Sequence[LoadRequest], rate: float, *, seed: int = 0
) -> list[Outcome]:
    """Sends them as strangers would: at times of chance, whatever has come back by then.

    Args:
        client: Who sends.
        requests: What is sent.
        rate: Requests a second on average; the time between two is exponential.
        seed: Of these times.

    Returns:
        Outcomes in the order in which they were sent. Latency counts from the planned moment, so
        that a client that falls behind doesn't hide how long others wait.

    Raises:
        ConfigError: The rate is not above 0.
    """
    if not (math.isfinite(rate) and rate > 0):
        raise ConfigError(f"rate={rate}; it must be above 0 requests a second")
    chance, at, begun = random.Random(seed), 0.0, time.perf_counter()

    async def sent(request: LoadRequest, planned: float) -> Outcome:
        late = time.perf_counter() - begun - planned
        outcome = await client.send(request)
        latency = time.perf_counter() - begun - planned
        return replace(outcome, planned=planned, late=max(0.0, late), latency=latency)

    tasks: list[asyncio.Task[Outcome]] = []
    for request in requests:
        at += chance.expovariate(rate)
        await asyncio.sleep(max(0.0, begun + at - time.perf_counter()))
        tasks.append(asyncio.create_task(sent(request, at)))
    return list(await asyncio.gather(*tasks))


async def sampled(
    read: Callable[[], float | None], every_s: float, work: Awaitable[Any]
) -> tuple[Any, list[tuple[float, float]]]:
    """The work's result, and (seconds, value) of what was read meanwhile."""
    found: list[tuple[float, float]] = []
    begun = time.perf_counter()

    async def look() -> None:
        while True:
            value = read()
            if value is not None:
                found.append((time.perf_counter() - begun, value))
            await asyncio.sleep(every_s)

    watching = asyncio.create_task(look())
    try:
        return await work, found
    finally:
        watching.cancel()


def place(url: str) -> tuple[str, int, bool]:
    """(host, port, whether by TLS) of a server's address.

    Raises:
        ConfigError: It is none.

    Example:
        >>> place("http://127.0.0.1:8000")
        ('127.0.0.1', 8000, False)
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r} is no address of a server: http://host:port is needed")
    tls = parts.scheme == "https"
    try:
        port = parts.port
    except ValueError as exc:
        raise ConfigError(f"{url!r} is no address of a server: {exc}") from exc
    return parts.hostname, port or (443 if tls else 80), tls


def _unchunked(body: bytes) -> bytes:
    """The body of a chunked reply.

    Raises:
        ValueError: It isn't whole, or something follows.
    """
    whole, rest = b"", body
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if rest[length : length + 2] != b"\r\n":
            raise ValueError("a chunk is cut off")
        whole, rest = whole + rest[:length], rest[length + 2 :]
        if length == 0:
            if rest:
                raise ValueError("something follows the last chunk")
            return whole
