"""Strangers who would stop a server, or have a browser ask it."""

from __future__ import annotations

import gc
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from speceyes.server.chat_response import event
from speceyes.server.limits import ServerLimits
from speceyes.server.loading import Loading
from speceyes.server.refusal import Refusal
from speceyes.server.slots import Slots
from support.processes import until
from support.served import Served, asking, data_url, pipeline, serving
from support.slow_files import slow_files


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving(pipeline(), limits={"write_s": 0.5}) as served:
        yield served


def test_a_short_step_waits_for_no_long_ones_and_clients_take_turns() -> None:
    hold, order, loading = threading.Event(), [], Loading()

    def steps(name: str, expected: float, wait: bool = False) -> Iterator[float]:
        for at in range(2):
            if wait:
                assert hold.wait(60)
            order.append(f"{name}{at}")
            yield expected

    long = [loading.submit("a", steps("long", 9.0, wait=True), 9.0) for _ in range(4)]
    loading.submit("a", steps("short", 0.01), 0.01).future.result(60)  # all others are held up
    assert order == ["short0", "short1"]
    loading.submit("b", steps("other", 9.0), 9.0).future.result(60)  # a place is left for others
    assert order[2:] == ["other0", "other1"]
    waiting = [loading.submit("c", steps("third", 9.0, wait=True), 9.0) for _ in range(9)]
    hold.set()
    for job in (*long, *waiting):
        job.future.result(60)
    loading.close()
    assert order.index("third0") < max(at for at, name in enumerate(order) if name == "long1")


def test_an_abandoned_job_takes_no_further_step_and_an_error_is_told() -> None:
    begun, hold, done, loading = threading.Event(), threading.Event(), [], Loading()

    def steps() -> Iterator[float]:
        for at in range(3):
            begun.set()
            assert hold.wait(60)
            done.append(at)
            yield 1.0

    def broken() -> Iterator[float]:
        yield 0.0
        raise ValueError("broken")

    job = loading.submit("a", steps(), 1.0)
    assert begun.wait(60)
    job.abandon()
    hold.set()
    job.future.result(60)
    with pytest.raises(ValueError, match="broken"):
        loading.submit("a", broken(), 0.0).future.result(60)
    loading.close()
    assert done == [0]


def test_pixels_and_bytes_are_shared() -> None:
    slots = Slots(ServerLimits(pixels=6400, bytes=6400))
    mine = [slots.acquire("alice") for _ in range(3)]
    mine[0].reserve(3000)
    mine[0].reserve_bytes(3000)
    for refused in (mine[1].reserve, mine[1].reserve_bytes):
        with pytest.raises(Refusal, match="fill the memory"):
            refused(3000)  # half of it is the most for one
    other, small = slots.acquire("bob"), slots.acquire("carol")
    other.reserve(1800)
    with pytest.raises(Refusal, match="fill the memory"):
        small.reserve(200)  # the last quarter is for those who want little
    small.reserve(100)
    mine[0].free_bytes()
    mine[1].reserve_bytes(3000)
    mine[0].release()
    with pytest.raises(Refusal, match="ended"):
        mine[0].reserve(1)
    for slot in (*mine[1:], other, small):
        slot.release()
    assert slots.held == 0
    slots.acquire("dora").reserve(6400)


def test_a_deadline_covers_loading(server: Served) -> None:
    hold = threading.Event()

    def busy() -> Iterator[float]:
        assert hold.wait(60)
        yield 0.0

    jobs = [server.service.loading.submit(name, busy(), 0.0) for name in "xxyy"]
    reply: list[Any] = []
    thread = threading.Thread(target=lambda: reply.append(server.post(asking())))
    thread.start()
    until(lambda: server.service.slots.held == 1)
    time.sleep(0.05)
    hold.set()
    thread.join(60)
    for job in jobs:
        job.future.result(60)
    spent = reply[0].json()["speceyes"]["timings"]
    assert spent["latency"] >= 0.05 and spent["queue"] >= 0.05
    assert server.refused(asking(speceyes={"deadline_s": 1e-6}), 504)["code"] == "deadline_exceeded"


@pytest.mark.parametrize("name", ["jpeg, last scan 1,000 times", "png, colour profiles"])
def test_slow_files_are_refused(name: str, server: Served) -> None:
    import base64

    data, _ = slow_files()[name]
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    reply = server.post(asking(urls=[url]))
    assert reply.status_code == 400 and reply.headers["x-should-retry"] == "false"
    assert reply.json()["error"]["code"] == "bad_image"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "",
        "localhost/x",
    ],
)
def test_other_names_are_refused_without_keys(host: str, server: Served) -> None:
    for path, body in (("/v1/chat/completions", asking()), ("/v1/models", None)):
        reply = server.http.request(
            "GET" if body is None else "POST", path, json=body, headers={"Host": host}
        )
        assert reply.status_code in (400, 403), reply.text


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "[::1]:8000", "10.0.0.7"]
)
def test_own_names_are_not(host: str, server: Served) -> None:
    assert server.http.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "", "text/json"]
)
def test_only_json_is_taken_without_keys(kind: str, server: Served) -> None:
    reply = server.post(json.dumps(asking()).encode(), headers={"Content-Type": kind})
    assert reply.status_code == 415
    assert reply.json()["error"]["type"] == "invalid_request_error"
    reply = server.post(asking(), headers={"Origin": "https://evil.example"})
    assert reply.status_code == 403


def test_nothing_redirects_to_the_host_that_was_named(server: Served) -> None:
    reply = server.http.get("/v1/models/", headers={"Host": "127.0.0.1"})
    assert reply.status_code == 404 and "location" not in reply.headers


def test_no_event_holds_an_end_of_line() -> None:
    said = event({"text": "a\u2028b\u2029c\x85d\ne\x1cf\u00e9"})
    assert said.count("\n") == 2 and len(said.splitlines()) == 2
    assert json.loads(said[6:])["text"] == "a\u2028b\u2029c\x85d\ne\x1cf\u00e9"


def test_bodies_of_millions_of_values_are_not_read(server: Served) -> None:
    for body in (b"[" + b"{}," * 600_000 + b"{}]", b"[" * 600_000):
        assert server.refused(body)["code"] == "bad_json"


@pytest.mark.parametrize("stream", [False, True])
def test_who_does_not_read_is_cut_off(stream: bool) -> None:
    long = "<answer>" + "word " * 2_000_000 + "</answer>"
    with serving(pipeline(judge="yes", agent=long), limits={"write_s": 0.3}) as served:
        body = json.dumps(asking(stream=stream)).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", served.port))
            sock.sendall(head.encode() + body)
            until(lambda: served.service.slots.held == 1)
            until(lambda: served.service.slots.held == 0)  # though it never reads
            served.uvicorn.should_exit = True
            until(lambda: not served.uvicorn.server_state.connections)


def test_images_are_let_go_of_and_counted_back() -> None:
    """A client has room for one at a time, and for the bytes of two: half of all."""
    noise = np.random.default_rng(0)
    bodies = [
        asking(urls=[data_url(Image.fromarray(noise.integers(0, 255, (600, 600, 3), np.uint8)))])
        for _ in range(4)
    ]
    size = len(json.dumps(bodies[0]))
    with serving(pipeline(), limits={"pixels": 1_000_000, "bytes": 4 * size}) as served:
        for body in bodies:
            assert served.post(body).status_code == 200
            until(lambda: served.service.slots.held == 0)


def _large() -> int:
    return sum(issubclass(type(o), Image.Image) and o.width >= 2990 for o in gc.get_objects())


def test_nothing_holds_the_images_of_the_last_requests(server: Served) -> None:
    urls = [data_url(Image.new("RGB", (3000 - n, 40), "red")) for n in range(4)]
    gc.collect()
    before = _large()
    for more in ({}, {"stream": True}, {"speceyes": {"route": "agent"}}):
        assert server.post(asking(urls=urls, **more)).status_code == 200
    late = asking(urls=urls, speceyes={"deadline_s": 0.01})
    assert server.post(late).status_code in (200, 504)
    broken = asking(urls=[*urls, "data:image/png;base64,AAAA"])
    assert server.post(broken).status_code == 400
    until(lambda: server.service.slots.held == 0)
    until(lambda: gc.collect() is not None and _large() <= before)
