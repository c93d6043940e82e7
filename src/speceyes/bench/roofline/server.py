"""The scripted engine as a server that speaks OpenAI's chat completions, in real or scaled time.

    python -m speceyes.bench.roofline.server --accelerator H100 --port 8000 --faster 10

Every reply comes after as long as the arithmetic says, divided by `--faster`; requests that are
under way together share steps as in an engine. Usage tells the tokens of prompts, those kept from
before, and those written. It is for trials of clients and settings: what it says means nothing.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, final

from speceyes.bench.roofline.engine import Device, Engine, EngineRequest, Piece
from speceyes.bench.roofline.model import prompt_pieces
from speceyes.errors import ConfigError, InputError
from speceyes.images import load_image
from speceyes.models.scripted import ScriptedModel
from speceyes.models.sizes import named
from speceyes.protocols import VisionLanguageModel
from speceyes.tuning.roofline import ACCELERATORS
from speceyes.types import Completion, Conversation, Message, Sampling

_MOST_BYTES: Final = 1 << 26


@final
class TimedDevice:
    """An accelerator whose steps end in real time; threads may ask it.

    Args:
        accelerator: A name among `speceyes.tuning.roofline.ACCELERATORS`.
        faster: Seconds of the accelerator that pass in one.

    Raises:
        ConfigError: A name that isn't known, or `faster` is not above 0.
    """

    def __init__(self, accelerator: str = "H100", *, faster: float = 1.0) -> None:
        if accelerator not in ACCELERATORS or not (math.isfinite(faster) and faster > 0):
            raise ConfigError(
                f"accelerator={accelerator!r}, faster={faster}; one of {', '.join(ACCELERATORS)}, "
                "and a number above 0"
            )
        self._began, self._faster = time.monotonic(), faster
        self._changed = threading.Condition()
        self._over = False
        self._at = 0.0
        self.device = Device(ACCELERATORS[accelerator], lambda: self._at)
        self._thread = threading.Thread(target=self._run, name="speceyes-roofline", daemon=True)
        self._thread.start()

    def ask(self, engine: Engine, prompt: Sequence[Piece], tokens: int) -> EngineRequest:
        """The request, once it has ended, or the device is closed."""
        with self._changed:
            self._at = max(self._at, self._elapsed())
            request = engine.submit(prompt, tokens)
            self._changed.notify_all()
            self._changed.wait_for(lambda: request.done or self._over)
        return request

    def close(self) -> None:
        """Ends its thread."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._thread.join()

    def _elapsed(self) -> float:
        return (time.monotonic() - self._began) * self._faster

    def _run(self) -> None:
        with self._changed:
            while not self._over:
                due = self.device.next_event()
                left = (due - self._elapsed()) / self._faster
                if left > 0:
                    self._changed.wait(None if math.isinf(left) else left)
                    continue
                self._at = due
                self.device.fire()
                self._changed.notify_all()


@final
class RooflineServer:
    """Serves engines on 127.0.0.1 until it is closed.

    Args:
        models: Name under which it is served, to (shape, what it says).
        device: The accelerator that they share.
        port: 0 takes a free one.
        kept_tokens: See `Engine`.
    """

    def __init__(
        self,
        models: Mapping[str, tuple[str, VisionLanguageModel]],
        device: TimedDevice,
        *,
        port: int = 0,
        kept_tokens: int = 400_000,
    ) -> None:
        self._device = device
        self._models = {
            name: (device.device.serve(named(shape), kept_tokens=kept_tokens), says)
            for name, (shape, says) in models.items()
        }
        handler = type("Handler", (_Handler,), {"answer": staticmethod(self._answer)})
        handler.names = tuple(models)  # type: ignore[attr-defined]
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        """Base URL for `OpenAIModel`."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Ends it, and what is under way."""
        self._server.shutdown()
        self._device.close()
        self._thread.join()
        self._server.server_close()

    def _answer(self, body: Mapping[str, Any]) -> dict[str, Any]:
        engine, says = self._models[body["model"]]
        conversation = Conversation(
            tuple(Message(m["role"], _parts(m["content"])) for m in body["messages"])
        )
        top = int(body.get("top_logprobs") or 0)
        most = int(body.get("max_tokens") or body.get("max_completion_tokens") or 256)
        sampling = Sampling(
            max_tokens=most,
            stop=tuple(body.get("stop") or ()),
            top_k=top,
            token_texts=True,
        )
        [said] = says.generate([conversation], sampling)
        if said.error is not None:
            raise InputError(said.error)
        prompt = prompt_pieces(body["model"], engine, conversation, magnify=1)
        took = self._device.ask(engine, prompt, len(said.token_ids) + 1)
        return _reply(said, took, body["model"], top)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    answer: Callable[[Mapping[str, Any]], dict[str, Any]]
    names: tuple[str, ...]

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing."""

    def do_GET(self) -> None:
        """The list of models."""
        listed = [{"id": name, "object": "model", "owned_by": "speceyes"} for name in self.names]
        self._send(200, {"object": "list", "data": listed})

    def do_POST(self) -> None:
        """A chat completion."""
        try:
            length = int(self.headers.get("Content-Length") or 0)
            if not self.path.endswith("/chat/completions") or not 0 < length <= _MOST_BYTES:
                self.close_connection = True
                self._send(404, {"error": {"message": "POST /v1/chat/completions, up to 64 MiB"}})
                return
            reply = self.answer(json.loads(self.rfile.read(length)))
        except (ValueError, LookupError, TypeError, AttributeError, InputError, OSError) as exc:
            self._send(400, {"error": {"message": f"{type(exc).__name__}: {exc}"}})
        else:
            self._send(200, reply)

    def _send(self, status: int, reply: Any) -> None:
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _parts(content: Any) -> tuple[Any, ...]:
    if isinstance(content, str):
        return (content,)
    found: list[Any] = []
    for part in content:
        if part["type"] == "text":
            found.append(part["text"])
            continue
        _, _, data = part["image_url"]["url"].partition(",")
        found.append(load_image(base64.b64decode(data)))
    return tuple(found)


def _reply(said: Completion, took: EngineRequest, model: str, top: int) -> dict[str, Any]:
    listed = []
    for at, piece in enumerate(said.tokens):
        row = [float(value) for value in said.top_logprobs[at]] if top else [0.0]
        names = [piece, *(f"<{other}>" for other in range(1, len(row)))]
        best = [
            {"token": name, "logprob": value, "bytes": None}
            for name, value in zip(names, row, strict=True)
        ]
        listed.append({"token": piece, "logprob": row[0], "bytes": None, "top_logprobs": best})
    written = len(said.token_ids)
    read = sum(piece.tokens for piece in took.prompt)
    return {
        "object": "chat.completion",
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": said.text},
                "finish_reason": said.finish,
                "logprobs": {"content": listed} if listed else None,
            }
        ],
        "usage": {
            "prompt_tokens": read,
            "completion_tokens": written,
            "prompt_tokens_details": {"cached_tokens": took.cached},
        },
    }


def main(argv: list[str] | None = None) -> int:
    """Serves the two models until it is interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m speceyes.bench.roofline.server",
        description="Answers as scripted, after as long as an accelerator would take.",
    )
    parser.add_argument("--accelerator", default="H100", choices=list(ACCELERATORS))
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--faster", type=float, default=1.0, help="time runs so many times as fast")
    options = parser.parse_args(argv)
    agent = {"Reply with one word": "no", "": "<answer>a kite</answer>"}
    server = RooflineServer(
        {
            "qwen2.5-vl-7b": ("qwen2.5-vl-7b", ScriptedModel(agent)),
            "qwen3-vl-2b": ("qwen3-vl-2b", ScriptedModel("a kite")),
        },
        TimedDevice(options.accelerator, faster=options.faster),
        port=options.port,
    )
    sys.stdout.write(f"{server.url}\n")
    sys.stdout.flush()
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
