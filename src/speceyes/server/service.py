"""The way of a request: key, place, body, fields, images, models, answer."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from speceyes.calibration.chances import Chances
from speceyes.calibration.watched import WatchedGate
from speceyes.errors import ConfigError
from speceyes.gate import SeparabilityGate
from speceyes.images.decoding_pool import Cancellation, DecodingPool
from speceyes.pipeline import SpecPipeline
from speceyes.pipeline.audit import Auditor
from speceyes.protocols import Gate, HasModel, HasThreshold, HasTopK, RunsPrograms, offers
from speceyes.server import chat_response
from speceyes.server.allowance import Allowance, Budgets
from speceyes.server.backend import Backend, Pending, rounds_of
from speceyes.server.body import client_left, read_body
from speceyes.server.chat_request import ChatRequest
from speceyes.server.decisions_reply import Outcome
from speceyes.server.fields import bad_field
from speceyes.server.formats import Format
from speceyes.server.hosts import check_origin
from speceyes.server.image_sources import Picture, load_images
from speceyes.server.keys import Keys
from speceyes.server.limits import ServerLimits
from speceyes.server.loading import LANES, Loading, Steps
from speceyes.server.metrics import Metrics
from speceyes.server.refusal import Refusal
from speceyes.server.request_log import RequestRecord
from speceyes.server.slots import Slot, Slots
from speceyes.server.thresholds import settled, with_threshold
from speceyes.types import Image, Query, Result

_log = logging.getLogger(__name__)

HEARTBEAT_S: Final = 10.0
"""Seconds between two comments in a stream that waits for its answer."""
HOLD_S: Final = 2.0
"""Seconds for which a stream's head is held back: what fails meanwhile has a status of its own."""
_NO_LIMITS: Final = Allowance()
GONE: Final = 499
"""Counted where the client left, as proxies do."""


_BYTE_S: Final = 20e-9  # that reading one of a body is expected to take


@final
class _Held(Response):
    """A response whose request keeps its place until it is written."""

    def __init__(self, inner: Response, slot: Slot) -> None:
        self._inner, self._slot = inner, slot
        self.status_code, self.raw_headers = inner.status_code, inner.raw_headers
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Writes it."""
        try:
            await self._inner(scope, receive, send)
        finally:
            self._slot.release()


def refused(exc: Refusal) -> JSONResponse:
    """The response of a refusal."""
    return JSONResponse(exc.body(), exc.status, headers=exc.headers)


@final
class Service:
    """Answers requests with a pipeline, within limits.

    Args:
        pipe: The pipeline.
        name: Its name in `/v1/models`.
        limits: Limits of a request.
        keys: Clients that are let in; None for all.
        open_metrics: `/metrics` needs no key.
        hosts: Names besides this machine's own under which it may be asked without keys.

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
        hosts: frozenset[str] = frozenset(),
    ) -> None:
        self.hosts = hosts
        self.name, self.keys, self.open_metrics = name, keys, open_metrics
        self._asked_limits = limits
        self._allowances = {} if keys is None else keys.allowances
        self.budgets = Budgets(self._allowances)
        self.metrics = Metrics(
            lambda: self.pipe,
            (
                ("in_flight", "Requests accepted and not done with", lambda: self.slots.held),
                ("waiting", "Of these, not taken up yet", lambda: self.backend.waiting),
                ("trajectories", "Of these, with the agent", lambda: self.backend.live),
            ),
        )
        self._chances: Chances | None = None
        self.limits, self.backend = self._made(pipe)
        # One process more than threads that load, for what models ask for.
        self.loading, self._decoding = Loading(), DecodingPool(LANES + 1)
        """Reads requests and their images."""
        self.slots = Slots(self.limits, emptied=self.loading.trim_soon)
        self.draining = False
        self.loop: asyncio.AbstractEventLoop | None = None
        """The loop that requests are served in, once it runs."""

    @property
    def pipe(self) -> SpecPipeline:
        """The pipeline that answers now."""
        return self.backend.pipe

    @property
    def pieces(self) -> chat_response.Pieces | None:
        """The text of each of the drafter's tokens, where its tokenizer is in this process."""
        answerer: object = self.pipe.answerer
        return chat_response.pieces_of(answerer.model if offers(answerer, HasModel) else None)

    @property
    def chances(self) -> Chances | None:
        """Chances of drafts by their scores, where the gate has a calibration that is trusted."""
        gate = self.pipe.gate
        if isinstance(gate, WatchedGate):
            if gate.monitor.tripped:
                return None
            gate = gate.gate
        made = gate.calibration if isinstance(gate, SeparabilityGate) else None
        if made is None or not made.curve:
            return None
        if self._chances is None or self._chances.calibration is not made:
            self._chances = Chances(made)
        return self._chances

    @property
    def top_k(self) -> int | None:
        """Log-probabilities that a draft's token carries; None where nothing drafts."""
        answerer: object = self.pipe.answerer
        return answerer.top_k if offers(answerer, HasTopK) else None

    def _made(self, pipe: SpecPipeline) -> tuple[ServerLimits, Backend]:
        """The limits under a pipeline's own, and the pipeline made ready."""
        _check_tools(pipe)
        limits, loosest = settled(pipe, self._asked_limits)
        # An image that the pipeline would refuse is refused while its field is still known.
        limits = dataclasses.replace(limits, image=limits.image.within(pipe.inputs.limits))
        return limits, Backend(pipe, loosest=loosest, batched=self.metrics.batched)

    async def exchange(self, pipe: SpecPipeline) -> None:
        """Answers with another pipeline from now on; what was accepted is answered by the old one.

        Raises:
            ConfigError: It can't be served; the old one goes on.
        """
        limits, backend = self._made(pipe)
        backend.start()
        old, self.backend = self.backend, backend
        self.limits = limits
        await asyncio.to_thread(old.close)

    async def renew(
        self,
        *,
        gate: Gate | None = None,
        keys: Keys | None = None,
        auditor: Auditor | None = None,
    ) -> None:
        """Goes on with another gate over the same models, or with other keys; no request is lost.

        Args:
            gate: The new one; None leaves it as it is. Where drafts are audited it must be
                calibrated: the monitor is armed anew in the same moment.
            keys: The clients that are let in from now on; None leaves them as they are.
            auditor: Audits drafts from now on, where none did before.

        Raises:
            ConfigError: They can't be served so; everything stays as it was.
        """
        pipe = self.pipe
        if gate is not None:
            if pipe.auditor is not None:
                made = gate.calibration if isinstance(gate, SeparabilityGate) else None
                if made is None:
                    raise ConfigError(
                        "drafts are audited here, and the new gate has no calibration whose "
                        "promise could be watched: pass SeparabilityGate.from_calibration(...)"
                    )
                # The monitor goes on: with its count of armings, and with what is under way.
                await asyncio.to_thread(pipe.rearm, made)
                gate, auditor = pipe.gate, pipe.auditor
            await self.exchange(
                SpecPipeline(
                    judge=pipe.judge,
                    answerer=pipe.answerer,
                    gate=gate,
                    fallback=pipe.fallback,
                    schedule=pipe.schedule,
                    inputs=pipe.inputs,
                    auditor=auditor,
                    observers=pipe.observers,
                    ladder=pipe.parts.ladder,
                )
            )
        if keys is not None and self.keys is not None:
            self.keys, self._allowances = keys, keys.allowances
            self.budgets.renew(keys.allowances)

    @asynccontextmanager
    async def life(self, app: FastAPI) -> AsyncIterator[None]:
        """Starts the models' threads, and ends them when what was accepted is done."""
        self.loop = asyncio.get_running_loop()
        self.backend.start()
        try:
            yield
        finally:
            self.draining = True
            await asyncio.to_thread(self.backend.close)
            try:
                await asyncio.to_thread(self.loading.close)
            finally:
                self._decoding.close()

    def client(self, request: Request) -> str:
        """The client's name: of its key, or its address.

        Raises:
            Refusal: 401, or without keys 403 and 415.
        """
        if self.keys is None:
            check_origin(request, self.hosts)
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

    async def answer(self, request: Request, form: Format) -> Response:
        """The response to a request in one of the protocols."""
        record = RequestRecord(request.url.path)
        try:
            response = await self._answer(request, form, record)
            record.status = response.status_code
        except Refusal as exc:
            record.refused(exc)
            response = refused(exc)
        except ClientDisconnect:
            record.status = GONE
            response = Response(status_code=GONE)
        except Exception as exc:  # noqa: BLE001 - its text may hold what a client sent
            _log.error("a request failed: %s", type(exc).__name__)
            record.status = 500
            response = refused(Refusal(500, "the server failed on this request", code="internal"))
        if not record.stream or record.status != 200:
            self._ended(record)
        return response

    async def _answer(self, request: Request, form: Format, record: RequestRecord) -> Response:
        client = self.client(request)
        record.client = client if self.keys is not None else ""
        if self.draining or not self.backend.alive:
            raise _closing()
        self.budgets.check(client)
        slot = self.slots.acquire(client, self._allowance(client).requests)
        try:
            body = await read_body(request, self.limits, slot)
            since, backend = time.monotonic(), self.backend
            read: list[ChatRequest] = []
            most = min(self.limits.seconds, self._allowance(client).timeout or self.limits.seconds)
            steps = self._read(form, backend, body, record, read)
            await self._loaded(request, client, steps, len(body) * _BYTE_S, since + most)
            del body, steps
            [asked] = read
            deadline = since + (most if asked.seconds is None else min(asked.seconds, most))
            images: dict[Picture, Image] = {}
            stop = Cancellation()
            loads = load_images(
                _pictures(asked),
                self.limits,
                images,
                self._decoding,
                stop,
                slot.reserve,
                views=backend.views(straight=asked.straight or bool(asked.tools)),
                deadline=deadline,
            )
            steps = itertools.chain(loads, _foreseen(backend, asked, images))
            await self._loaded(request, client, steps, 0.0, deadline, stop.cancel)
            slot.free_bytes()
            begun = self._submitted(backend, asked, client, slot, images, since, deadline)
            asked = _without_urls(asked)
        except BaseException:
            slot.release()
            raise
        del images, read, steps, loads
        try:
            # Charged whatever becomes of it, also where its client has left.
            for one in begun:
                one.future.add_done_callback(
                    lambda done: self.budgets.charge(client, done.result())
                )
            pending = begun[0]
            record.id = pending.id
            headers = {"x-request-id": pending.id, **chat_response.headers_of(asked)}
            if asked.stream:
                early = await self._early(request, pending, asked, record)
                events = StreamingResponse(
                    self._events(form, asked, pending, record, early),
                    media_type="text/event-stream",
                    headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **headers},
                )
                return _Held(events, slot)
            outcomes = await self._outcomes(request, asked, begun, record)
            # Holding an answer against a schema or many options takes a moment.
            said = await asyncio.to_thread(form.whole, pending.id, asked, outcomes)
            return _Held(JSONResponse(said, headers=headers), slot)
        except BaseException:
            slot.release()
            raise

    def _read(
        self,
        form: Format,
        backend: Backend,
        body: bytes,
        record: RequestRecord,
        found: list[ChatRequest],
    ) -> Steps:
        """Reads a request, in a single step."""
        asked = form.read(body, self.limits, self.top_k, takes_turns=backend.takes_turns)
        record.images, record.stream, record.notes = (
            len(_pictures(asked)),
            asked.stream,
            asked.notes,
        )
        found.append(asked)
        yield from ()

    async def _loaded(
        self,
        request: Request,
        client: str,
        steps: Steps,
        expected_s: float,
        deadline: float,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        """Until steps are done, in another thread; `stop` is called where nobody waits any more.

        Raises:
            Refusal: 504, its time is over; or what is wrong with the request.
            ClientDisconnect: The client has left.
        """
        job = self.loading.submit(client, steps, expected_s)

        def abandon() -> None:
            job.abandon()
            stop()

        await self._until(request, job.future, deadline, abandon)

    def _submitted(
        self,
        backend: Backend,
        asked: ChatRequest,
        client: str,
        slot: Slot,
        images: Mapping[Picture, Image],
        since: float,
        deadline: float,
    ) -> list[Pending]:
        """Hands its queries to the models, which keep its place until they are done with all."""
        parts = asked.parts
        others = iter(range(len(parts) - 1))

        def done() -> None:
            if next(others, None) is None:  # the last one, whichever it is
                self.slots.free(slot)
            slot.release()

        begun: list[Pending] = []
        try:
            for part in parts:
                begun.append(
                    self._submit(backend, part, client, slot, images, since, deadline, done)
                )
        except BaseException:
            for one in begun:
                one.abandon()
            raise
        return begun

    async def _outcomes(
        self, request: Request, asked: ChatRequest, begun: list[Pending], record: RequestRecord
    ) -> list[Outcome]:
        """Outcome of each query of a request, once all have ended.

        Raises:
            Refusal: None of them has an answer; it is the first one's.
        """
        try:
            for one in begun:
                await self._wait(request, one)
        finally:
            for one in begun:
                if not one.future.done():
                    one.abandon()
        found: list[Outcome] = []
        for one, part in zip(begun, asked.parts, strict=True):
            try:
                found.append((self._result(one, part, record), one.queued_s()))
            except Refusal as exc:
                found.append((exc, one.queued_s()))
        first = found[0][0]
        if isinstance(first, Refusal) and all(isinstance(one, Refusal) for one, _ in found):
            raise first
        return found

    def _submit(
        self,
        backend: Backend,
        asked: ChatRequest,
        client: str,
        slot: Slot,
        images: Mapping[Picture, Image],
        since: float,
        deadline: float,
        done: Callable[[], None],
    ) -> Pending:
        """Hands a query to the models; see `_submitted`."""
        loaded_s = time.monotonic() - since
        query = _query(asked, images)
        while True:
            slot.keep()
            try:
                if asked.tools:
                    rounds = rounds_of(backend.dialect, asked.dialogue.turns, images)
                    pending = backend.take_turn(query, rounds, asked.tools, deadline, done)
                else:
                    pending = backend.submit(
                        query,
                        client,
                        deadline,
                        straight=asked.straight,
                        gate=self._gate(backend, asked.threshold),
                        done=done,
                    )
                return dataclasses.replace(pending, loaded_s=loaded_s)
            except BaseException as exc:
                slot.release()
                if not isinstance(exc, ConfigError):
                    raise
                if backend is self.backend:
                    raise _closing() from None
                backend = self.backend  # it was exchanged meanwhile

    def _gate(self, backend: Backend, asked: float | None) -> Gate | None:
        """The gate of a request that asks for its own threshold; None for the pipeline's.

        Raises:
            Refusal: The gate can't have it.
        """
        gate: object = backend.pipe.gate
        default = gate.threshold if offers(gate, HasThreshold) else None
        if self.limits.thresholds is None or default is None:
            return None
        threshold = default if asked is None else asked
        # Where drafts are made under the loosest gate, each request needs its own.
        if threshold == default and self.limits.thresholds[0] >= default:
            return None
        try:
            return with_threshold(backend.pipe.gate, threshold)
        except ConfigError as exc:
            raise bad_field("speceyes.threshold", str(exc), "not_allowed") from None

    def _allowance(self, client: str) -> Allowance:
        return self._allowances.get(client, _NO_LIMITS)

    async def _wait(self, request: Request, pending: Pending) -> None:
        """Until it is done; see `_loaded`."""
        await self._until(request, pending.future, pending.deadline, pending.abandon)

    async def _until(
        self,
        request: Request,
        future: Future[Any],
        deadline: float,
        abandon: Callable[[], None],
    ) -> None:
        done = asyncio.wrap_future(future)
        left = asyncio.ensure_future(client_left(request))
        try:
            await asyncio.wait(
                (done, left),
                timeout=max(0.0, deadline - time.monotonic()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if done.done():
                done.result()
                return
            if left.done():
                raise ClientDisconnect
            raise _late()
        finally:
            left.cancel()
            with suppress(asyncio.CancelledError):
                await left
            if not future.done():
                abandon()
            if not done.done():  # what becomes of it is nobody's any more
                done.add_done_callback(lambda one: one.cancelled() or one.exception())

    async def _early(
        self, request: Request, pending: Pending, asked: ChatRequest, record: RequestRecord
    ) -> Result | None:
        """The result of a streamed request that is done within `HOLD_S`; None where it isn't.

        Raises:
            Refusal: There is no answer, or its time is over.
            ClientDisconnect: The client has left.
        """
        done = asyncio.wrap_future(pending.future)
        left = asyncio.ensure_future(client_left(request))
        rest = max(0.0, pending.deadline - time.monotonic())
        try:
            await asyncio.wait(
                (done, left), timeout=min(HOLD_S, rest), return_when=asyncio.FIRST_COMPLETED
            )
            if done.done():
                return self._result(pending, asked, record)
            if left.done():
                raise ClientDisconnect
            if pending.expired:
                raise _late()
            return None
        except BaseException:
            if not pending.future.done():
                pending.abandon()
            raise
        finally:
            left.cancel()
            with suppress(asyncio.CancelledError):
                await left

    async def _events(
        self,
        form: Format,
        asked: ChatRequest,
        pending: Pending,
        record: RequestRecord,
        early: Result | None,
    ) -> AsyncIterator[str]:
        """The stream; where it is closed before its end, nobody waits for the answer any more."""
        created, record.status = int(time.time()), GONE
        try:
            for event in form.opening(pending.id, asked, created):
                yield event
            done = asyncio.wrap_future(pending.future)
            while not done.done():
                rest = pending.deadline - time.monotonic()
                if rest <= 0:
                    raise _late()
                await asyncio.wait((done,), timeout=min(rest, HEARTBEAT_S))
                if not done.done() and not pending.expired:
                    yield ": waiting\n\n"
            result = self._result(pending, asked, record) if early is None else early
            events = form.events(pending.id, asked, result, pending.queued_s(), created)
            for event in events:
                yield event
            record.status = 200
            if form.end:
                yield form.end
        except Refusal as exc:
            record.refused(exc)
            yield form.failed(pending.id, exc)
        finally:
            if not pending.future.done():
                pending.abandon()
            self._ended(record)

    def _result(self, pending: Pending, asked: ChatRequest, record: RequestRecord) -> Result:
        """The result, where there is an answer or a call in it.

        Raises:
            Refusal: There is none.
        """
        result = pending.future.result()
        spent = result.timings
        if spent.latency is not None:
            spent = dataclasses.replace(spent, latency=spent.latency + pending.loaded_s)
            result = dataclasses.replace(result, timings=spent)
        way = result.trajectory
        if result.answer is None and way is None and result.draft is None and pending.expired:
            raise _late()
        self.metrics.result(result, pending.queued_s())
        record.answered(result, pending.queued_s())
        if result.answer is not None or (way is not None and way.stop == "calls"):
            return result
        _log.warning("%s: no answer (%s)", pending.id, chat_response.kind_of(result))
        raise chat_response.refusal_of(result, asked)

    def _ended(self, record: RequestRecord) -> None:
        self.metrics.answered(record.status)
        record.write()


def _pictures(asked: ChatRequest) -> list[Picture]:
    """Its images, those in results of tools behind the others."""
    later = [one for turn in asked.dialogue.turns for one in turn.results]
    return [*asked.dialogue.pictures, *(one for one in later if isinstance(one, Picture))]


def _query(asked: ChatRequest, images: Mapping[Picture, Image]) -> Query:
    dialogue = asked.dialogue
    return Query(
        dialogue.question,
        tuple(images[one] for one in dialogue.pictures),
        asked.choices,
        uuid.uuid4().hex,
        asked.instructions,
        dialogue.history,
    )


def _foreseen(backend: Backend, asked: ChatRequest, images: Mapping[Picture, Image]) -> Steps:
    """Refuses, in a step of its own, what is too long for every model here.

    Raises:
        Refusal: 400, which no further attempt changes.
    """
    why: str | None = None
    for part in asked.parts:  # each has an answer of its own
        query = _query(part, images)
        rounds = rounds_of(backend.dialect, part.dialogue.turns, images) if part.tools else []
        why = backend.too_long(query, rounds, part.tools, straight=part.straight)
        if why is None:
            break
    if why is not None:
        _log.info("a request was refused: length: %s", why)
        field = asked.dialogue.field
        raise Refusal(400, f"{field}: {why}", code="context_length_exceeded", param=field)
    yield from ()


def _without_urls(asked: ChatRequest) -> ChatRequest:
    """The request as its answer needs it: what was loaded is in memory once."""
    bare = tuple(Picture("", one.where) for one in asked.dialogue.pictures)
    return dataclasses.replace(
        asked, dialogue=dataclasses.replace(asked.dialogue, pictures=bare, turns=())
    )


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
        if offers(tool, RunsPrograms) and tool.runs_programs:
            raise ConfigError(
                f"the agent's tool {tool.name!r} runs programs that models write, and whoever "
                "asks could have them written: a server doesn't take it; leave it out"
            )
