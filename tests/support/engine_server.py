"""An OpenAI-compatible server for tests: the protocol is spoken over real sockets, and answers
come from real models through `HFModel`.

It behaves as vLLM, as SGLang, or as an engine with nothing beyond the common protocol, wherever
they differ for a client, and can be told to fail.
"""

from __future__ import annotations

import base64
import io
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

from speceyes.protocols import VisionLanguageModel
from speceyes.types import Completion, Conversation, Message, Sampling

Reply = dict[str, Any]
Fault = Callable[["Handler", "Reply | None"], None]
"""Called with the handler in place of answering; the reply is None where none was made."""


@dataclass
class Behaviour:
    """What the server does, and what it has seen."""

    models: Mapping[str, VisionLanguageModel]
    kind: str = "vllm"
    max_logprobs: int = 64
    key: str | None = None
    drops_logprobs: bool = False
    early: Callable[[int, Reply], Fault | None] = lambda number, body: None
    late: Callable[[int, Reply], Callable[[Reply], Any] | None] = lambda number, body: None
    decides: str = ""
    forgets: bool = False
    named: dict[str, Any] = field(default_factory=dict)
    bodies: list[Reply] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: int = 0
    live: int = 0
    most_live: int = 0
    gone: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30
    behaviour: Behaviour

    def setup(self) -> None:
        super().setup()
        with self.behaviour.lock:
            self.behaviour.connections += 1

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def send(self, status: int, reply: Any, headers: Mapping[str, str] | None = None) -> None:
        data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status: int, why: str, headers: Mapping[str, str] | None = None) -> None:
        self.send(status, {"error": {"message": why, "type": "BadRequestError"}}, headers)

    def hang_up(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def hung_up_within(self, seconds: float) -> bool:
        """Whether the client closes the connection."""
        self.connection.settimeout(seconds)
        try:
            return self.connection.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    def _let_in(self) -> bool:
        key = self.behaviour.key
        if key is None or self.headers.get("Authorization") == f"Bearer {key}":
            return True
        self.refuse(401, f"the key {self.headers.get('Authorization')} is wrong")
        return False

    def do_GET(self) -> None:
        if not self._let_in():
            return
        if self.path != "/v1/models":
            return self.refuse(404, f"no route {self.path}")
        owner = self.behaviour.kind if self.behaviour.kind != "openai" else "someone"
        data = [{"id": n, "object": "model", "owned_by": owner} for n in self.behaviour.models]
        self.send(200, {"object": "list", "data": data})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        mine = self.behaviour
        with mine.lock:
            number = len(mine.bodies)
            mine.bodies.append(body)
            mine.headers.append(dict(self.headers))
            mine.live += 1
            mine.most_live = max(mine.most_live, mine.live)
        try:
            if not self._let_in():
                return
            fault = mine.early(number, body)
            if fault is not None:
                fault(self, None)
                return
            if self.path == f"/v1{mine.decides}" and mine.decides:
                return self.send(200, _decided(body, mine))
            if self.path != "/v1/chat/completions":
                return self.refuse(404, f"no route {self.path}")
            if body.get("model") not in mine.models:
                return self.refuse(404, f"The model `{body.get('model')}` does not exist.")
            try:
                reply = answer(body, mine)
            except ValueError as exc:
                return self.refuse(400, str(exc))
            change = mine.late(number, body)
            if change is not None:
                reply = change(reply)
            self.send(200, reply)
        except (BrokenPipeError, ConnectionResetError):
            with mine.lock:
                mine.gone += 1
        finally:
            with mine.lock:
                mine.live -= 1


def answer(body: Reply, behaviour: Behaviour) -> Reply:
    """What the model says to a request, in the protocol's words.

    Raises:
        ValueError: The request is refused, in vLLM's words.
    """
    model = behaviour.models[body["model"]]
    own = {"return_tokens_as_token_ids", "continue_final_message", "repetition_penalty"}
    if behaviour.kind == "openai" and own & set(body):
        raise ValueError(f"Unrecognized request arguments: {sorted(own & set(body))}")
    if body.get("repetition_penalty", 1.0) != 1.0:
        raise ValueError("this server has no repetition penalty")
    if body.get("tools") and behaviour.kind == "vllm" and body.get("tool_choice") != "none":
        raise ValueError('"auto" tool choice requires --enable-auto-tool-choice')
    k = body.get("top_logprobs") or 0
    if k and not body.get("logprobs"):
        raise ValueError("when using `top_logprobs`, `logprobs` must be set to true.")
    if k > behaviour.max_logprobs:
        raise ValueError(
            f"Requested sample logprobs of {k}, which is greater than max allowed: "
            f"{behaviour.max_logprobs}"
        )
    if "prompt_logprobs" in body:
        return _likelihood(model, body, behaviour)
    by_text = not body.get("return_tokens_as_token_ids")
    said = model.generate(
        [_conversation(body, behaviour)],
        Sampling(
            max_tokens=body["max_tokens"],
            stop=tuple(body.get("stop") or ()),
            top_k=k,
            temperature=body["temperature"],
            first_token=by_text and k > 0 and body["max_tokens"] == 1,
            seed=body.get("seed"),
            token_texts=True,
        ),
    )[0]
    if said.error is not None:
        raise ValueError(said.error)
    return _reply(said, body, behaviour, by_text, k)


def _likelihood(model: Any, body: Reply, behaviour: Behaviour) -> Reply:
    """The log-probabilities of a prompt, as vLLM tells them: none of its first token, and here the
    same for each token of the answer that it ends with.

    Raises:
        ValueError: The engine doesn't know the field.
    """
    if behaviour.kind != "vllm":
        raise ValueError("Unrecognized request arguments: ['prompt_logprobs']")
    whole = _conversation(body, behaviour)
    said = "".join(part for part in whole.prefill if isinstance(part, str))
    [mean] = model.likelihoods([Conversation(whole.messages)], [said])
    pieces = ["assistant", "\n", said[:1], said[1:]] if len(said) > 1 else ["\n", said]
    own = len(pieces) - pieces.index("\n") - 1
    values = [-0.5] * (len(pieces) - own) + [mean] * own
    told = [
        {str(at): {"logprob": value, "rank": 1, "decoded_token": piece}}
        for at, (piece, value) in enumerate(zip(pieces, values, strict=True))
    ]
    reply = _reply(Completion("x", finish="length"), body, behaviour, True, 0)
    return {**reply, "prompt_logprobs": [None, *told]}


def _decided(body: Reply, behaviour: Behaviour) -> Reply:
    """A decision by the model's own first token."""
    if behaviour.decides == "/systemone":
        parts = [{"type": "image_url", "image_url": {"url": url}} for url in body["images"]]
        parts.append({"type": "text", "text": body["state"]})
    else:
        parts = [
            {"type": "image_url", "image_url": {"url": part["image_url"]}}
            if part["type"] == "input_image"
            else {"type": "text", "text": part["text"]}
            for item in body["input"]
            for part in item["content"]
        ]
    asked = Conversation((Message("user", _parts(parts, behaviour)),))
    [said] = behaviour.models[body["model"]].generate(
        [asked], Sampling(max_tokens=1, first_token=True)
    )
    chance = sum(p for text, p in said.first_token.items() if text.lower() == "yes")
    usage = {"input_tokens": said.prompt_tokens, "output_tokens": 0}
    if behaviour.decides == "/systemone":
        [name] = body["questions"]
        return {"answers": {name: {"type": "noul", "noul": chance}}, "usage": usage}
    name = body["questions"][0]["name"]
    return {
        "answers": [{"type": "predicate", "name": name, "probability": chance}],
        "usage": usage,
    }


def _conversation(body: Reply, behaviour: Behaviour) -> Conversation:
    messages = [Message(m["role"], _parts(m["content"], behaviour)) for m in body["messages"]]
    begun: tuple[str | Image.Image, ...] = ()
    if body.get("continue_final_message"):
        if body.get("add_generation_prompt", True):
            raise ValueError("Cannot set both continue_final_message and add_generation_prompt")
        begun = messages.pop().content
    return Conversation(tuple(messages), tuple(body.get("tools") or ()), begun)


def _parts(content: Any, behaviour: Behaviour) -> tuple[str | Image.Image, ...]:
    if isinstance(content, str):
        return (content,)
    parts: list[str | Image.Image] = []
    for part in content:
        if part["type"] == "text":
            parts.append(part["text"])
        elif part["image_url"] is None:
            if behaviour.forgets or part["uuid"] not in behaviour.named:
                raise ValueError("Cache miss for image at index 0 but data is not provided.")
            parts.append(behaviour.named[part["uuid"]])
        else:
            head, _, data = part["image_url"]["url"].partition(",")
            assert head in ("data:image/png;base64", "data:image/jpeg;base64")
            image = Image.open(io.BytesIO(base64.b64decode(data)))
            image.load()
            if "uuid" in part:
                behaviour.named[part["uuid"]] = image
            parts.append(image)
    return tuple(parts)


def _reply(said: Completion, body: Reply, behaviour: Behaviour, by_text: bool, k: int) -> Reply:
    text, met = said.text, None
    for stop in body.get("stop") or ():
        if said.finish == "stop" and text.endswith(stop):
            text, met = text[: -len(stop)], stop
    pieces = list(said.tokens)
    ended = said.finish == "stop" and met is None
    rows = [[float(value) for value in row] for row in said.top_logprobs]
    ids = list(said.token_ids)
    if ended and behaviour.kind != "openai":  # the end of the sequence is a token like others
        ids.append(2)
        pieces.append("<|im_end|>")
        rows.append([-0.01 * (j + 1) for j in range(k)])
    entries = []
    for at, (token, piece) in enumerate(zip(ids, pieces, strict=True)):
        row = rows[at] if k else []
        # The model's own ids of the others aren't kept; that they differ is what counts.
        names = [f"token_id:{token}", *(f"token_id:{100_000 + j}" for j in range(1, len(row)))]
        if by_text:
            names = [piece, *(f"<{j}>" for j in range(1, len(row)))]
        top = [(name, value) for name, value in zip(names, row, strict=False)]
        if by_text and at == 0 and said.first_token:
            top = [(name, math.log(max(p, 1e-30))) for name, p in said.first_token.items()][:k]
            top += [("<|im_end|>", math.log(1e-12))] * (k - len(top))
        entry = {"token": names[0] if row else piece, "logprob": row[0] if row else -0.1}
        if not row and not by_text:
            entry["token"] = f"token_id:{token}"
        entry["bytes"] = list(str(entry["token"]).encode())
        entry["top_logprobs"] = [{"token": n, "logprob": v, "bytes": None} for n, v in top]
        entries.append(entry)
    choice: Reply = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": said.finish,
        "logprobs": {"content": entries} if body.get("logprobs") else None,
    }
    if behaviour.drops_logprobs:
        choice["logprobs"] = None
    if behaviour.kind == "vllm":
        choice["stop_reason"] = met
    elif behaviour.kind == "sglang" and said.finish == "stop":
        choice["matched_stop"] = met if met is not None else 2
    usage = {"prompt_tokens": said.prompt_tokens, "completion_tokens": len(ids)}
    return {"object": "chat.completion", "choices": [choice], "usage": usage}


@contextmanager
def serving(models: Mapping[str, VisionLanguageModel], **options: Any) -> Iterator[Any]:
    """(base URL, behaviour) of a server that runs until the block ends."""
    behaviour = Behaviour(models, **options)
    handler = type("Bound", (Handler,), {"behaviour": behaviour})

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that hangs up is part of the tests

    server = Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", behaviour
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def engines(large: VisionLanguageModel, small: VisionLanguageModel) -> Iterator[list[str]]:
    """Options of a command that asks these two by address.

    A process that needs no model of its own starts in a fifth of the CPU time of one that loads the
    tiny pair.
    """
    with serving({"large": large, "small": small}) as (url, _):
        yield ["--large", f"{url}#large", "--small", f"{url}#small"]


@contextmanager
def bundled_engines() -> Iterator[list[str]]:
    """Options of a command that asks the bundled pair by address, driven as it was taught to be."""
    from speceyes import tiny
    from speceyes.models import HFModel

    large, small = (HFModel.from_pretrained(at, device="cpu") for at in (tiny.LARGE, tiny.SMALL))
    gate = tiny.settings()
    told = ["--threshold", str(gate["threshold"]), "--top-k", str(gate["top_k"])]
    with engines(large, small) as asked:
        yield [*asked, *told, "--tools", "zoom", "--dialect", "deepeyes"]


def refused(status: int, why: str = "busy", **headers: str) -> Fault:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, reply: handler.refuse(status, why, sent)


def sent(data: bytes) -> Fault:
    return lambda handler, reply: handler.send(200, data)


def dropped(handler: Handler, reply: Reply | None) -> None:
    handler.hang_up()


def cut_short(handler: Handler, reply: Reply | None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.hang_up()


def slow(seconds: float) -> Fault:
    def wait(handler: Handler, reply: Reply | None) -> None:
        if handler.hung_up_within(seconds):
            with handler.behaviour.lock:
                handler.behaviour.gone += 1
        handler.close_connection = True

    return wait


def dripping(handler: Handler, reply: Reply | None) -> None:
    """A byte now and then, for ever."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    with suppress(OSError):
        for _ in range(400):
            handler.wfile.write(b" ")
            time.sleep(0.05)
    handler.close_connection = True
