"""A pipeline behind a real uvicorn on a free port, for tests."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from PIL import Image

from flat_options import grouped
from speceyes import SpecPipeline, encoded
from speceyes.models.scripted import ScriptedModel
from speceyes.server.app import application
from speceyes.server.limits import ServerLimits
from speceyes.server.service import Service
from support.processes import until

JUDGE = "Reply with one word"
"""What the judge is asked, and nobody else."""


def pipeline(
    *, judge: Any = "no", agent: Any = "<answer>blue</answer>", draft: Any = "red", **more: Any
) -> SpecPipeline:
    """A scripted funnel."""
    margin = more.pop("margin", 12.0)
    large = ScriptedModel({JUDGE: judge, "": agent})
    return SpecPipeline.from_pretrained(
        large, ScriptedModel(draft, margin=margin), **grouped(**more)
    )


def data_url(image: Image.Image | None = None, kind: str = "PNG") -> str:
    return encoded.data_url(image or Image.new("RGB", (64, 48), "red"), kind)


def asking(
    question: str = "Which colour?", urls: Sequence[str] | None = None, **more: Any
) -> dict[str, Any]:
    """A request's body."""
    images = [{"type": "image_url", "image_url": {"url": u}} for u in urls or [data_url()]]
    content = [*images, {"type": "text", "text": question}]
    return {"model": "speceyes", "messages": [{"role": "user", "content": content}], **more}


@dataclass
class Served:
    """A server that runs."""

    url: str
    service: Service
    http: httpx.Client
    uvicorn: uvicorn.Server

    @property
    def port(self) -> int:
        return self.http.base_url.port or 80

    def post(self, body: Any, **more: Any) -> httpx.Response:
        sent = {"content": body} if isinstance(body, bytes) else {"json": body}
        said = {"Content-Type": "application/json", **more.pop("headers", {})}
        return self.http.post("/v1/chat/completions", headers=said, **sent, **more)

    def ask(self, question: str = "Which colour?", **more: Any) -> dict[str, Any]:
        reply = self.post(asking(question, **more))
        assert reply.status_code == 200, reply.text
        data: dict[str, Any] = reply.json()
        return data

    def gauge(self, name: str) -> float:
        """A value of `/metrics`."""
        lines = self.http.get("/metrics").text.splitlines()
        [line] = [line for line in lines if line.startswith(f"speceyes_{name} ")]
        return float(line.split()[-1])

    def refused(self, body: Any, status: int = 400, **more: Any) -> dict[str, Any]:
        """The error of a request that must not be served."""
        reply = self.post(body, **more)
        assert reply.status_code == status, reply.text
        error: dict[str, Any] = reply.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error


@contextmanager
def serving(pipe: SpecPipeline, **options: Any) -> Iterator[Served]:
    """Runs until the block ends, then drains."""
    limits = options.pop("limits", {})
    app = application(pipe, limits=ServerLimits(**limits), **options)
    listening = socket.create_server(("127.0.0.1", 0))
    # Longer than a client keeps idle connections, or it may use one that is being closed.
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_keep_alive=60)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        until(lambda: server.started)
        with httpx.Client(base_url=url, timeout=90, trust_env=False) as http:
            yield Served(url, app.state.service, http, server)
    finally:
        server.should_exit = True
        thread.join(90)
        listening.close()
    assert not thread.is_alive()
