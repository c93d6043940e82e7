from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import io
import json
import logging
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from speceyes import SpecPipeline
from speceyes.errors import ConfigError
from speceyes.images import fetch as fetching
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import AgentConfig
from speceyes.server.app import application
from speceyes.server.keys import Keys, new_key
from speceyes.server.limits import ServerLimits
from speceyes.tools import PythonTool
from speceyes.types import Observation
from support.processes import until
from support.served import Served, asking, data_url, pipeline, serving


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    limits = {"images": 2, "body_bytes": 200_000, "body_s": 2.0}
    with serving(pipeline(), limits=limits) as served:
        yield served


def _keys() -> tuple[Keys, str, str]:
    alice, bob = new_key("alice"), new_key("bob")
    return Keys({"alice": alice[1][-64:], "bob": bob[1][-64:]}), alice[0], bob[0]


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_only_known_keys_get_in() -> None:
    keys, alice, _ = _keys()
    with serving(pipeline(), keys=keys) as served:
        for headers in ({}, _bearer("sk-wrong"), {"Authorization": alice}, _bearer("x" * 9999)):
            reply = served.post(asking(), headers=headers)
            assert reply.status_code == 401
            assert reply.json()["error"]["code"] == "invalid_api_key"
            assert reply.headers["www-authenticate"] == "Bearer"
            for path in ("/v1/models", "/v1/models/speceyes", "/metrics"):
                assert served.http.get(path, headers=headers).status_code == 401
        assert served.post(asking(), headers=_bearer(alice)).status_code == 200
        assert served.http.get("/metrics", headers=_bearer(alice)).status_code == 200
        for path in ("/healthz", "/readyz"):
            assert served.http.get(path).status_code == 200
    with serving(pipeline(), keys=keys, open_metrics=True) as served:
        assert served.http.get("/metrics").status_code == 200


def test_a_key_is_asked_for_before_the_body_is_read() -> None:
    keys, _, _ = _keys()
    with serving(pipeline(), keys=keys) as served:
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 99999999\r\n\r\n"
        )
        with socket.create_connection(_address(served)) as sock:
            sock.sendall(head)
            sock.settimeout(30)
            assert sock.recv(100).startswith(b"HTTP/1.1 401")


def _address(served: Served) -> tuple[str, int]:
    return served.http.base_url.host, served.http.base_url.port or 0


def test_keys_are_stored_as_hashes_and_compared_in_constant_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (alice, first), (bob, second) = new_key("alice"), new_key("bob")
    file = tmp_path / "keys"
    file.write_text(f"# ours\n{first}\n\n{second}  # the other\n")
    assert alice not in file.read_text() and bob not in file.read_text()
    assert hashlib.sha256(alice.encode()).hexdigest() in file.read_text()
    keys = Keys.load(file)
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def counting(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    assert [keys.client(key) for key in (alice, bob, "", "\ud800")] == ["alice", "bob", None, None]
    # All are compared every time, also after a match, and hashes rather than keys.
    assert len(compared) == 8 and {len(one) for pair in compared for one in pair} == {64}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no key"),
        ("alice sk-speceyes-secret", "line 1"),
        ("alice sha256:" + "a" * 63, "line 1"),
        (f"a sha256:{'0' * 64}\na sha256:{'1' * 64}", "twice"),
    ],
)
def test_a_file_of_keys_that_is_wrong_is_refused_without_being_shown(
    tmp_path: Path, text: str, says: str
) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says) as raised:
        Keys.load(file)
    assert "secret" not in str(raised.value)
    with pytest.raises(ConfigError, match="can't be read"):
        Keys.load(tmp_path / "none")
    with pytest.raises(ConfigError, match="key name"):
        new_key("a b")


def test_bodies_are_bounded_in_size_and_time(server: Served) -> None:
    big = asking(urls=[data_url() + "A" * 300_000])
    assert server.refused(big, 413)["code"] == "body_too_large"

    def dripping() -> Iterator[bytes]:  # no Content-Length: it is counted as it comes
        for _ in range(30):
            yield b" " * 10_000

    reply = server.http.post(
        "/v1/chat/completions", content=dripping(), headers={"Content-Type": "application/json"}
    )
    assert reply.status_code == 413
    with socket.create_connection(_address(server)) as sock:
        sock.settimeout(30)
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
        )
        assert sock.recv(100).startswith(b"HTTP/1.1 408")
    assert server.service.slots.held == 0


def test_images_are_bounded_in_number(server: Served) -> None:
    error = server.refused(asking(urls=[data_url()] * 3))
    assert error["code"] == "too_many_images" and "2 images" in error["message"]


def _bomb(width: int, height: int) -> str:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    png += chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _encoded(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def test_hostile_images_are_refused_and_decoders_are_not_quoted(server: Served) -> None:
    whole = base64.b64decode(data_url().partition(",")[2])
    hostile = {
        "bomb": _bomb(60_000, 60_000),
        "over the limit": _bomb(8000, 6000),
        "a line": _bomb(1, 5000),
        "cut off": _encoded(whole[: len(whole) // 2]),
        "broken header": _encoded(whole[:12] + b"\xff" * 40),
        "text": _encoded(b"hello, this is no image"),
        "svg": "data:image/svg+xml;base64," + base64.b64encode(b"<svg/>").decode(),
        "jpeg 2000": _encoded(b"\x00\x00\x00\x0cjP  \r\n\x87\n" + b"\0" * 99),
        "no base64": "data:image/png;base64,@@@@",
        "nothing": "data:image/png;base64,",
        "html": "data:text/html;base64,PGI+",
        "xyzzy": "data:xyzzy",
    }
    for name, url in hostile.items():
        error = server.refused(asking(urls=[url]))
        assert error["param"] == "messages[0].content[0].image_url.url", name
        said = error["message"]
        assert error["code"] == "bad_image" and len(said) < 300, (name, said)
        for leak in ("0x", "PIL", "Traceback", "line ", "xyzzy", "IDAT", "Error"):
            assert leak not in said, (name, said)
    assert server.ask()["speceyes"]["route"] == "draft"


def test_pixels_under_way_are_bounded() -> None:
    hold = threading.Event()

    def agent(conversation: Any, sampling: Any) -> str:
        assert hold.wait(60)
        return "<answer>blue</answer>"

    pipe = SpecPipeline.from_pretrained(large=ScriptedModel(agent))
    body = asking(urls=[data_url(Image.new("RGB", (100, 80)))])
    with serving(pipe, limits={"pixels": 10_000}) as served:
        replies: list[int] = []
        first = threading.Thread(target=lambda: replies.append(served.post(body).status_code))
        first.start()
        until(lambda: served.gauge("trajectories") == 1)
        assert served.refused(body, 429)["code"] == "too_many_pixels"
        hold.set()
        first.join(60)
        assert replies == [200] and served.post(body).status_code == 200


@pytest.mark.parametrize(
    "url",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "FILE:/etc/passwd",
        "photo.png",
        "../photo.png",
        "C:\\photo.png",
        "\\\\host\\share\\photo.png",
        "~/.ssh/id_rsa",
        "ftp://host/photo.png",
        "gopher://127.0.0.1:6379/_x",
        "blob:https://host/1",
        "http://example.com/photo.png",
        "HTTPS://example.com/photo.png",
        "http://169.254.169.254/latest/meta-data",
        "",
        "x data:image/png;base64,AAAA",
    ],
)
def test_nothing_is_read_but_the_request_itself(
    server: Served, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any, **more: Any) -> Any:
        raise AssertionError("it was looked for")

    monkeypatch.setattr(fetching, "fetch", never)
    monkeypatch.setattr("speceyes.server.image_sources.fetch", never)
    monkeypatch.setattr("speceyes.images.load.read_file", never)
    error = server.refused(asking(urls=[url]))
    assert error["code"] == "image_source_refused"
    assert error["param"].endswith("image_url.url")


class _Pictures(http.server.BaseHTTPRequestHandler):
    """A picture, or a redirect to what the path's query says."""

    def do_GET(self) -> None:
        _, _, target = self.path.partition("?to=")
        if target:
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()
            return
        data = base64.b64decode(data_url().partition(",")[2])
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def _pictures() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Pictures)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_allowed_hosts_are_fetched_from_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    with _pictures() as port, serving(pipeline(), limits={"domains": {"LocalHost"}}) as served:
        good = f"http://localhost:{port}/p.png"
        # An allowed name is no way into a private network: its address is checked all the same.
        error = served.refused(asking(urls=[good]))
        assert error["code"] == "bad_image" and "127" not in error["message"]
        # From here on this machine passes for a public one.
        monkeypatch.setattr(fetching, "is_public", lambda address: True)
        assert served.ask(urls=[good])["speceyes"]["route"] == "draft"
        assert served.ask(urls=[good + f"?to={good}"])["speceyes"]["route"] == "draft"
        for url in (
            f"http://127.0.0.1:{port}/p.png",
            f"http://localhost.:{port}/p.png",
            f"http://localhost.evil.example:{port}/",
            f"http://evil.example\\@localhost:{port}/",
            f"http://[::ffff:127.0.0.1]:{port}/p.png",
            "http://localhost:99999/",
            "http://[::1",
            f"{good}?to=http://127.0.0.1:{port}/p.png",
            f"{good}?to=//127.0.0.1:{port}/p.png",
            f"{good}?to=file:///etc/passwd",
            f"http://user:pw@localhost:{port}/p.png",
        ):
            error = served.refused(asking(urls=[url]))
            assert error["code"] in ("image_source_refused", "bad_image"), url
            assert "pw" not in error["message"]


def test_a_private_host_is_fetched_from_only_where_it_is_named_as_one() -> None:
    with _pictures() as port:
        good = f"http://localhost:{port}/p.png"
        with serving(pipeline(), limits={"private_domains": {"localhost"}}) as served:
            assert served.ask(urls=[good])["speceyes"]["route"] == "draft"
            # All other rules hold: no other host, redirects included, and images only.
            for url in (
                f"http://127.0.0.1:{port}/p.png",
                f"{good}?to=http://127.0.0.1:{port}/p.png",
                f"{good}?to=http://169.254.169.254/latest/meta-data",
                f"http://user:pw@localhost:{port}/p.png",
            ):
                assert served.refused(asking(urls=[url]))["param"].endswith("image_url.url")


@pytest.mark.parametrize("domain", ["", "http://host", "host:80", "*.host", "a b"])
def test_domains_are_plain_names(domain: str) -> None:
    with pytest.raises(ConfigError, match="domain"):
        ServerLimits(domains=frozenset({domain}))


def test_each_key_has_its_share_and_others_get_in() -> None:
    keys, alice, bob = _keys()
    hold = threading.Event()

    def agent(conversation: Any, sampling: Any) -> str:
        assert hold.wait(60)
        return "<answer>blue</answer>"

    pipe = SpecPipeline.from_pretrained(large=ScriptedModel(agent))
    limits = {"per_client": 2, "capacity": 3}
    with serving(pipe, keys=keys, limits=limits) as served:
        replies: list[int] = []

        def ask(key: str) -> None:
            replies.append(served.post(asking(), headers=_bearer(key)).status_code)

        threads = [threading.Thread(target=ask, args=(key,)) for key in (alice, alice, bob)]
        for thread in threads[:2]:
            thread.start()
        until(lambda: served.service.slots.held == 2)
        reply = served.post(asking(), headers=_bearer(alice))
        assert reply.status_code == 429 and int(reply.headers["retry-after"]) >= 1
        assert reply.json()["error"]["code"] == "too_many_of_yours"
        threads[2].start()
        until(lambda: served.service.slots.held == 3)
        reply = served.post(asking(), headers=_bearer(bob))
        assert reply.json()["error"]["code"] == "queue_full"
        assert reply.headers["retry-after"]
        hold.set()
        for thread in threads:
            thread.join(60)
        assert replies == [200, 200, 200]
        until(lambda: served.service.slots.held == 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_is_not_worked_for(stream: bool) -> None:
    hold = threading.Event()
    asked: list[str] = []

    def agent(conversation: Any, sampling: Any) -> str:
        asked.append(conversation.messages[-1].text)
        assert hold.wait(60)
        return "<answer>blue</answer>"

    pipe = SpecPipeline.from_pretrained(large=ScriptedModel(agent), agent=AgentConfig(max_batch=1))
    with serving(pipe) as served:
        replies: list[int] = []
        first = threading.Thread(
            target=lambda: replies.append(served.post(asking("first")).status_code)
        )
        first.start()
        until(lambda: asked)
        body = json.dumps(asking("second", stream=stream)).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(_address(served)) as sock:
            sock.sendall(head.encode() + body)
            until(lambda: served.gauge("waiting") == 1)
        until(lambda: served.gauge("waiting") == 0 or served.service.slots.held == 1)
        hold.set()
        first.join(60)
        assert replies == [200]
        until(lambda: served.service.slots.held == 0)
        text = served.http.get("/metrics").text
        assert 'speceyes_responses_total{status="499"} 1.0' in text
    assert len(asked) == 1 and "first" in asked[0]


def test_prompts_images_and_keys_are_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    keys, alice, _ = _keys()
    secret = "xyzzy-prompt"
    caplog.set_level(logging.DEBUG)
    failing = ScriptedModel({"bad": RuntimeError("the engine is down"), "": "<answer>x</answer>"})
    pipe = SpecPipeline.from_pretrained(large=failing, small=ScriptedModel("red"), judge=None)
    whole = data_url()
    cut = whole[: len(whole) // 8 * 4]
    with serving(pipe, keys=keys) as served:
        for body in (
            asking(secret),
            asking(f"{secret} bad", speceyes={"route": "agent"}),
            asking(f"{secret} bad", speceyes={"route": "agent"}, stream=True),
            asking(secret, urls=[cut]),
            asking(secret, urls=[f"/{secret}"]),
            asking(secret, n=2),
        ):
            served.post(body, headers=_bearer(alice))
            served.post(body, headers=_bearer(f"wrong-{alice}"))
    logged = "\n".join(
        f"{record.getMessage()}\n{record.exc_text or ''}"
        for record in caplog.records
        if not record.name.startswith("httpcore")
    )
    assert "no answer" in logged  # it does log
    for private in (secret, alice, whole[40:80], cut[-40:]):
        assert private not in logged


class _Logged:
    """A tool within a wrapper of somebody's own."""

    def __init__(self, tool: PythonTool) -> None:
        self._tool = tool

    def __call__(self, *args: Any) -> Observation:
        return self._tool(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tool, name)


@pytest.mark.parametrize("within", [lambda tool: tool, _Logged], ids=["itself", "wrapped"])
def test_tools_that_run_code_are_refused(within: Callable[[PythonTool], Any]) -> None:
    pipe = pipeline(tools=["zoom", within(PythonTool(isolation="none"))])
    with pytest.raises(ConfigError, match="runs programs"):
        application(pipe)


def test_images_are_counted_as_they_are_decoded_not_as_they_claim(server: Served) -> None:
    buffer = io.BytesIO()
    frames = [Image.new("L", (16, 16), shade) for shade in range(80)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    data = base64.b64encode(buffer.getvalue()).decode()
    error = server.refused(asking(urls=[f"data:image/gif;base64,{data}"]))
    assert "max_frames=64" in error["message"]
