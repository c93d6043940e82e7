"""The routes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from speceyes.pipeline import SpecPipeline
from speceyes.server.decisions_description import describe_decisions
from speceyes.server.description import describe_chat, describe_models
from speceyes.server.formats import ChatFormat, DecisionFormat, ResponsesFormat
from speceyes.server.keys import Keys
from speceyes.server.limits import ServerLimits
from speceyes.server.metrics import CONTENT_TYPE
from speceyes.server.refusal import Refusal
from speceyes.server.responses_description import describe_responses
from speceyes.server.schemas import BEARER, failure, secured
from speceyes.server.service import Service, refused
from speceyes.server.writing import BoundedWriting


def application(
    pipe: SpecPipeline,
    *,
    name: str = "speceyes",
    limits: ServerLimits | None = None,
    keys: Keys | None = None,
    open_metrics: bool = False,
    hosts: Iterable[str] = (),
) -> FastAPI:
    """The ASGI application; any ASGI server runs it, and its lifespan starts the models' thread.

    Args:
        pipe: The pipeline, which then belongs to this application alone.
        name: The name under which it is served.
        limits: Limits of a request; None for `ServerLimits()`.
        keys: Clients that are let in; None lets all in.
        open_metrics: `/metrics` needs no key.
        hosts: Names under which it may be asked without keys, besides addresses and this machine's
            own; any web page could reach it under a name of its own otherwise.

    Raises:
        ConfigError: A pipeline that must not or can't be served so.
    """
    service = Service(
        pipe,
        name=name,
        limits=limits or ServerLimits(),
        keys=keys,
        open_metrics=open_metrics,
        hosts=frozenset(host.lower() for host in hosts),
    )
    app = FastAPI(
        title="speceyes",
        version="1",
        docs_url=None,  # they would load their scripts from another host
        redoc_url=None,
        redirect_slashes=False,  # it would redirect to whatever the request calls this host
        lifespan=service.life,
    )
    app.state.service = service
    app.add_middleware(BoundedWriting, seconds=service.limits.write_s)

    @app.exception_handler(Refusal)
    async def on_refusal(request: Request, exc: Refusal) -> Response:
        return refused(exc)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, exc: HTTPException) -> Response:
        words = str(exc.detail)
        if exc.status_code == 404:
            words = f"there is no such route; clients' base address is {_base(request)}"
        return refused(Refusal(exc.status_code, words, headers=exc.headers))

    chats = ChatFormat(name, lambda: service.pieces)
    keyed = keys is not None
    described = describe_chat(name, service.limits, keyed=keyed)

    @app.post("/v1/chat/completions", openapi_extra=described, response_class=JSONResponse)
    async def chat(request: Request) -> Response:
        """Answers one question about one or several images."""
        return await service.answer(request, chats)

    responses = ResponsesFormat(name, lambda: service.pieces)
    described = describe_responses(name, service.limits, keyed=keyed)

    @app.post("/v1/responses", openapi_extra=described, response_class=JSONResponse)
    async def respond(request: Request) -> Response:
        """Answers one question about one or several images."""
        return await service.answer(request, responses)

    decisions = DecisionFormat(name, lambda: service.chances)
    described = describe_decisions(name, service.limits, keyed=keyed)

    @app.post("/v1/decisions", openapi_extra=described, response_class=JSONResponse)
    async def decide(request: Request) -> Response:
        """Answers yes/no questions and choices about images, each with its probability."""
        return await service.answer(request, decisions)

    listed = describe_models(keyed=keyed, one=False)

    @app.get("/v1/models", responses=listed, openapi_extra=secured(keyed))
    async def models(request: Request) -> dict[str, Any]:
        """Lists the one model."""
        service.client(request)
        return {"object": "list", "data": [_model(name)]}

    shown = describe_models(keyed=keyed, one=True)

    @app.get("/v1/models/{model}", responses=shown, openapi_extra=secured(keyed))
    async def model(request: Request, model: str) -> dict[str, Any]:
        """Describes the model."""
        service.client(request)
        if model != name:
            raise Refusal(404, f"there is {name!r} only", code="model_not_found", param="model")
        return _model(name)

    @app.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> str:
        """Says that the process runs, with a line for each part that can't be doing its work."""
        return "".join(["ok\n", *(f"warning: {one}\n" for one in service.pipe.warnings)])

    @app.get("/readyz", response_class=PlainTextResponse, responses={503: _NOT_READY})
    async def readyz() -> Response:
        """Says that it takes requests, or 503."""
        ready = service.backend.alive and not service.draining
        return PlainTextResponse("ready\n" if ready else "not ready\n", 200 if ready else 503)

    counted = keyed and not open_metrics

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses={401: failure("No key that is known")} if counted else {},
        openapi_extra=secured(counted),
    )
    async def metrics(request: Request) -> Response:
        """Counters for Prometheus."""
        if not service.open_metrics:
            service.client(request)
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    def described_whole() -> dict[str, Any]:
        whole = FastAPI.openapi(app)  # made once, and kept by it
        if keyed:
            schemes = whole.setdefault("components", {}).setdefault("securitySchemes", {})
            schemes[BEARER] = {"type": "http", "scheme": "bearer"}
        return whole

    app.openapi = described_whole  # type: ignore[method-assign]
    return app


def _base(request: Request) -> str:
    """The address to give to clients, as this request reached it."""
    host = request.headers.get("host", "")
    return f"{request.url.scheme}://{host}/v1" if _HOST.fullmatch(host) else "http://HOST:PORT/v1"


_HOST = re.compile(r"[A-Za-z0-9.\-\[\]:]{1,255}")
_NOT_READY = {"description": "It takes none", "content": {"text/plain": {}}}


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "speceyes"}
