"""The end of a real server's process: whoever doesn't read, and whatever was started."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from speceyes.models.scripted import ScriptedModel
from support.engine_server import engines
from support.processes import started, until
from support.served import JUDGE, asking

AGENT = ScriptedModel({JUDGE: "yes", "": "<answer>blue</answer>"})
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PROGRAM = """
import sys, time
from speceyes import SpecPipeline
from speceyes.models.scripted import ScriptedModel
from speceyes.server.app import application
from speceyes.server.limits import ServerLimits
from speceyes.server.run import run_app

def say(conversation, sampling):
    text = str(conversation.messages[-1].content)
    if "Reply with one word" in text:
        return "yes"
    if "slow" in text:
        time.sleep(1.0)
        return "<answer>late</answer>"
    return "<answer>" + "word " * 1_500_000 + "</answer>"

pipe = SpecPipeline.from_pretrained(ScriptedModel(say), ScriptedModel("red"))
limits = ServerLimits(write_s=1.0, seconds=60.0, body_s=2.0, per_client=4)
sys.exit(run_app(application(pipe, limits=limits), "speceyes", "127.0.0.1", 0))
"""


@dataclass
class Running:
    """A server's process."""

    child: subprocess.Popen[str]
    port: int
    said: list[str] = field(default_factory=list)
    """Lines on standard error since it serves, once it has ended."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def children(self) -> list[int]:
        """Processes that it has started and that run."""
        pid = self.child.pid
        return [int(n) for task in Path(f"/proc/{pid}/task").iterdir()
                for n in (task / "children").read_text().split()]  # fmt: skip

    def unread(self, question: str = "Which?", *, stream: bool = False) -> socket.socket:
        """A client that asks and doesn't read."""
        body = json.dumps(asking(question, stream=stream)).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(("127.0.0.1", self.port))
        one.sendall(head.encode() + body)
        return one

    def gauge(self, name: str) -> float:
        lines = httpx.get(f"{self.url}/metrics", trust_env=False).text.splitlines()
        return next(float(x.split()[-1]) for x in lines if x.startswith(f"speceyes_{name} "))


@contextmanager
def running(*words: str) -> Iterator[Running]:
    command = words or ("-c", PROGRAM)
    with started(sys.executable, *command, stderr=subprocess.PIPE, grace_s=60) as child:
        assert child.stderr is not None
        lines = iter(child.stderr.readline, "")
        line = next(one for one in lines if "serving" in one)
        server = Running(child, int(line.split(":")[-1].split("/")[0]))
        rest = threading.Thread(target=lambda: server.said.extend(lines), daemon=True)
        rest.start()
        yield server
        if child.poll() is None:
            child.terminate()
        rest.join(60)


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize(
    ("clients", "stream"),
    [(1, False), (1, True), pytest.param(30, False, marks=pytest.mark.exhaustive)],
)
def test_who_does_not_read_holds_up_no_end(clients: int, stream: bool) -> None:
    with running() as server, ExitStack() as open_ones:
        for _ in range(clients):
            open_ones.enter_context(server.unread(stream=stream))
        until(lambda: server.gauge("in_flight") >= 1)
        # Places are held until answers are written, so that thirty hold no more than four do.
        assert server.gauge("in_flight") <= 4
        children = server.children()
        server.child.send_signal(signal.SIGTERM)
        assert server.child.wait(60) == 0
        assert children and all(map(_gone, children))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_accepted_is_answered_and_the_exit_code_is_0(number: signal.Signals) -> None:
    with running() as server:
        replies: list[httpx.Response] = []
        body = asking("A slow one?")
        thread = threading.Thread(
            target=lambda: replies.append(
                httpx.post(
                    f"{server.url}/v1/chat/completions", json=body, timeout=60, trust_env=False
                )
            )
        )
        thread.start()
        until(lambda: server.gauge("trajectories") == 1)
        children = server.children()
        server.child.send_signal(number)
        thread.join(60)
        assert server.child.wait(60) == 0
        assert replies[0].json()["choices"][0]["message"]["content"] == "late"
        assert children and all(map(_gone, children))


def test_a_second_interruption_waits_for_no_model() -> None:
    with running("-c", PROGRAM.replace("time.sleep(1.0)", "time.sleep(300)")) as server:
        with server.unread("A slow one?"):
            until(lambda: server.gauge("trajectories") == 1)
            children = server.children()
            server.child.send_signal(signal.SIGINT)
            until(lambda: not _listens(server.port))
            assert server.child.poll() is None  # it waits for the answer
            server.child.send_signal(signal.SIGINT)
            assert server.child.wait(60) == 130
        until(lambda: bool(children) and all(map(_gone, children)))
    assert server.said[-1] == "speceyes: ended; what was not answered is lost\n"


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_a_body_that_never_ends_holds_up_no_end() -> None:
    with running() as server, socket.socket() as one:
        one.connect(("127.0.0.1", server.port))
        one.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
        )
        until(lambda: server.gauge("in_flight") == 1)
        server.child.send_signal(signal.SIGTERM)
        assert server.child.wait(60) == 0


def test_headers_that_never_end_hold_up_no_end() -> None:
    with running() as server, socket.socket() as one:
        one.connect(("127.0.0.1", server.port))
        one.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: local")
        server.gauge("in_flight")
        server.child.send_signal(signal.SIGTERM)
        assert server.child.wait(60) == 0


HEADS = {
    "nothing": b"",
    "half a line": b"POST /v1/cha",
    "half a head": b"POST /v1/chat/completions HTTP/1.1\r\nHost: local",
    "half a second head": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /heal",
    "the start of a websocket": b"GET /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: eA==\r\n",
}


def test_who_says_nothing_holds_no_connection() -> None:
    quick = PROGRAM.replace("body_s=2.0", "body_s=60.0, head_s=1.0")
    with running("-c", quick) as server, ExitStack() as open_ones:
        silent = []
        for head in (*HEADS.values(), *[b""] * 200):
            one = open_ones.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            one.settimeout(60)
            one.sendall(head)
            silent.append(one)
        # Whoever has sent a head has the body's own time.
        body = open_ones.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        said = json.dumps(asking("slow")).encode()
        head = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(said)}"
        body.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n\r\n".encode())
        for one in silent:
            with suppress(ConnectionResetError):
                while one.recv(4096):
                    pass
        body.settimeout(60)
        body.sendall(said)
        assert body.recv(4096).startswith(b"HTTP/1.1 200")
        assert server.gauge("in_flight") == 0


def test_what_decodes_ends_with_a_server_that_is_killed() -> None:
    with running() as server:
        httpx.post(
            f"{server.url}/v1/chat/completions", json=asking("slow"), timeout=60, trust_env=False
        )
        children = server.children()
        server.child.kill()
        server.child.wait(60)
        assert children
        until(lambda: all(map(_gone, children)))


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.exhaustive)]
)
def test_the_command_itself_ends_with_0(number: signal.Signals) -> None:
    serve = ["-m", "speceyes", "serve", "--port", "0", "--no-check"]
    with engines(AGENT, ScriptedModel("red")) as asked, running(*serve, *asked) as server:
        reply = httpx.post(
            f"{server.url}/v1/chat/completions", json=asking(), timeout=90, trust_env=False
        )
        assert reply.json()["choices"][0]["message"]["content"] == "blue"
        children = server.children()
        os.kill(server.child.pid, number)
        assert server.child.wait(60) == 0
        assert all(map(_gone, children))
