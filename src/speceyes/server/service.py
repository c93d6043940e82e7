"""What stands between a pipeline and its clients: who is asking, what for, and how it is told."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Final, final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect

from speceyes.errors import ConfigError
from speceyes.live.job import Job
from speceyes.live.worker import Worker
from speceyes.pipeline import SpecPipeline
from speceyes.server import replies
from speceyes.server.allowance import Allowance, Budgets
from speceyes.server.asking import Asked, read
from speceyes.server.body import client_left, read_body
from speceyes.server.fields import bad_field
from speceyes.server.keys import Keys
from speceyes.server.limits import ServerLimits
from speceyes.server.metrics import Metrics
from speceyes.server.refusal import Refusal
from speceyes.server.remote import load_images
from speceyes.server.slots import Slot, Slots
from speceyes.server.thresholds import settled, with_threshold
from speceyes.tools import PythonTool
from speceyes.types import Image, Query

_log = logging.getLogger(__name__)

HEARTBEAT_S: Final = 10.0
"""Seconds between two comments in a stream that waits for its answer."""
_NO_LIMITS: Final = Allowance()
GONE: Final = 499
"""Counted where the client left, as proxies have it."""


def refused(exc: Refusal) -> JSONResponse:
    """The response of a refusal."""
    return JSONResponse(exc.body(), exc.status, headers=exc.headers)


@final
class Service:
    """A pipeline, and everything that stands between it and its clients.

    Args:
        pipe: The pipeline.
        name: What it is called in `/v1/models`.
        limits: What a request may do.
        keys: Who is let in; None for everybody.
        open_metrics: Whether `/metrics` needs no key.

    Raises:
        ConfigError: The agent has a tool that runs code, or the gate can't have the thresholds
            that requests may ask for.
    """

    def __init__(
        self,
        pipe: SpecPipeline,
        *,
        name: str,
        limits: ServerLimits,
        keys: Keys | None,
        open_metrics: bool,
    ) -> None:
        _check_tools(pipe)
        self.pipe, self.name, self.keys, self.open_metrics = pipe, name, keys, open_metrics
        self.limits, loosest = settled(pipe, limits)
        self.slots = Slots(self.limits)
        self._allowances = {} if keys is None else keys.allowances
        self.budgets = Budgets(self._allowances)
        self.metrics = Metrics(
            pipe,
            (
                ("in_flight", "Requests accepted and not done with", lambda: self.slots.held),
                ("waiting", "Of these, not taken up yet", lambda: self.worker.waiting),
                ("trajectories", "Of these, with the agent", lambda: self.worker.live),
            ),
        )
        self.worker = Worker(pipe, loosest=loosest, batched=self.metrics.batched)
        self.pieces = replies.pieces_of(getattr(pipe.answerer, "model", None))
        # Reading and decoding are bounded by threads: two at once, whoever sends them.
        self._loaders = ThreadPoolExecutor(2, thread_name_prefix="speceyes-images")
        self.draining = False

    @asynccontextmanager
    async def life(self, app: FastAPI) -> AsyncIterator[None]:
        """Starts the worker, and ends it when what was accepted is done."""
        self.worker.start()
        try:
            yield
        finally:
            self.draining = True
            await asyncio.to_thread(self.worker.close)
            self._loaders.shutdown(wait=True)

    def client(self, request: Request) -> str:
        """Who is asking.

        Raises:
            Refusal: 401.
        """
        if self.keys is None:
            return request.client.host if request.client is not None else "somebody"
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        found = self.keys.client(key.strip()) if scheme.lower() == "bearer" else None
        if found is None:
            raise Refusal(
                401,
                "a key that this server knows is needed: Authorization: Bearer ...",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return found

    async def chat(self, request: Request) -> Response:
        """A chat completion."""
        try:
            response = await self._chat(request)
        except Refusal as exc:
            self.metrics.answered(exc.status)
            return refused(exc)
        except ClientDisconnect:
            self.metrics.answered(GONE)
            return Response(status_code=GONE)
        except Exception as exc:  # noqa: BLE001 - its text may hold what a client sent
            _log.error("a request failed: %s", type(exc).__name__)
            self.metrics.answered(500)
            return refused(Refusal(500, "the server failed on this request", code="internal"))
        if not isinstance(response, StreamingResponse):
            self.metrics.answered(response.status_code)
        return response

    async def _chat(self, request: Request) -> Response:
        client = self.client(request)
        if self.draining or not self.worker.alive:
            raise _closing()
        self.budgets.check(client)
        slot = self.slots.acquire(client, self._allowance(client).requests)
        try:
            body = await read_body(request, self.limits)
            loop = asyncio.get_running_loop()  # which is not held up by a body of 32 MB
            asked, images = await loop.run_in_executor(self._loaders, self._read, body, slot)
            del body
            job = self._job(asked, client, slot, images)
            try:
                self.worker.submit(job)
            except ConfigError:
                raise _closing() from None
        except BaseException:
            slot.release()
            raise
        number = f"chatcmpl-{job.query.id}"
        if asked.stream:
            return StreamingResponse(
                self._events(number, asked, job),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
            )
        await self._wait(request, job)
        result = job.future.result()
        if result.answer is None:
            raise self._unanswered(job, asked)
        self.metrics.result(result, job.queued_s)
        return JSONResponse(
            replies.completion(number, self.name, asked, result, job.queued_s, self.pieces)
        )

    def _read(self, body: bytes, slot: Slot) -> tuple[Asked, tuple[Image, ...]]:
        """What is asked, and the images; in a thread."""
        top_k = getattr(self.pipe.answerer, "top_k", None)
        asked = read(body, self.name, self.limits, top_k if isinstance(top_k, int) else None)
        return asked, load_images(asked.urls, asked.wheres, self.limits, slot.reserve)

    def _job(self, asked: Asked, client: str, slot: Slot, images: tuple[Image, ...]) -> Job:
        gate = None
        default = getattr(self.pipe.gate, "threshold", None)
        if self.limits.thresholds is not None and default is not None:
            threshold = default if asked.threshold is None else asked.threshold
            # Where the front runs with the loosest gate, each request needs its own.
            if threshold != default or self.limits.thresholds[0] < default:
                try:
                    gate = with_threshold(self.pipe.gate, threshold)
                except ConfigError as exc:
                    raise bad_field("speceyes.threshold", str(exc), "not_allowed") from None
        most = min(self.limits.seconds, self._allowance(client).timeout or self.limits.seconds)
        seconds = most if asked.seconds is None else min(asked.seconds, most)
        job = Job(
            Query(asked.question, images, asked.choices, uuid.uuid4().hex),
            client,
            time.monotonic() + seconds,
            straight=asked.straight and self.pipe.fallback is not None,
            gate=gate,
            done=slot.release,
        )
        # Whatever becomes of it, also where its client has left.
        job.future.add_done_callback(lambda done: self.budgets.charge(client, done.result()))
        return job

    def _allowance(self, client: str) -> Allowance:
        return self._allowances.get(client, _NO_LIMITS)

    async def _wait(self, request: Request, job: Job) -> None:
        """Until it is done.

        Raises:
            Refusal: 504, its time is over.
            ClientDisconnect: The client has left.
        """
        done = asyncio.wrap_future(job.future)
        left = asyncio.ensure_future(client_left(request))
        try:
            await asyncio.wait(
                (done, left),
                timeout=max(0.0, job.deadline - time.monotonic()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if done.done():
                return
            if left.done():
                raise ClientDisconnect
            raise _late()
        finally:
            left.cancel()
            with suppress(asyncio.CancelledError):
                await left
            if not job.future.done():
                self.worker.abandon(job)

    async def _events(self, number: str, asked: Asked, job: Job) -> AsyncIterator[str]:
        """The stream; where it is closed before its end, nobody waits for the job any more."""
        created, status = int(time.time()), GONE
        try:
            yield replies.event(replies.opening(number, self.name, created))
            done = asyncio.wrap_future(job.future)
            while not done.done():
                rest = job.deadline - time.monotonic()
                if rest <= 0:
                    raise _late()
                await asyncio.wait((done,), timeout=min(rest, HEARTBEAT_S))
                if not done.done() and job.deadline > time.monotonic():
                    yield ": waiting\n\n"
            result = job.future.result()
            if result.answer is None:
                raise self._unanswered(job, asked)
            self.metrics.result(result, job.queued_s)
            for chunk in replies.chunks(
                number, self.name, created, asked, result, job.queued_s, self.pieces
            ):
                yield replies.event(chunk)
            status = 200
            yield "data: [DONE]\n\n"
        except Refusal as exc:
            status = exc.status
            yield replies.event(exc.body())
        finally:
            if not job.future.done():
                self.worker.abandon(job)
            self.metrics.answered(status)

    def _unanswered(self, job: Job, asked: Asked) -> Refusal:
        result = job.future.result()
        if not job.wanted and result.trajectory is None and result.draft is None:
            return _late()
        _log.warning("%s: no answer (%s)", job.query.id, replies.kind_of(result))
        self.metrics.result(result, job.queued_s)
        return replies.refusal_of(result, asked)


def _closing() -> Refusal:
    return Refusal(
        503, "the server is closing; try another", code="closing", headers={"Retry-After": "5"}
    )


def _late() -> Refusal:
    return Refusal(
        504,
        "the request's time is over before it was answered",
        code="deadline_exceeded",
        headers={"x-should-retry": "false"},
    )


def _check_tools(pipe: SpecPipeline) -> None:
    for tool in pipe.fallback.tools if pipe.fallback is not None else ():
        inner = getattr(tool, "tool", tool)
        if isinstance(tool, PythonTool) or isinstance(inner, PythonTool):
            raise ConfigError(
                f"the agent's tool {tool.name!r} runs programs that models write, and whoever "
                "asks could have them written: a server doesn't take it; leave it out"
            )
