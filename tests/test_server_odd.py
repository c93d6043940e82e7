"""Requests that no client would send: each gets an error or nothing, and the next is answered."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from support.processes import until
from support.served import Served, asking, pipeline, serving

BODY = json.dumps(asking()).encode()
POST = b"POST /v1/chat/completions HTTP/1.1\r\n"
HOST = b"Host: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
GET = b"GET /v1/models HTTP/1.1\r\n"
UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)

ODD: dict[str, bytes] = {
    "a websocket": GET + HOST + UPGRADE + b"\r\n",
    "a websocket where questions are asked": (
        b"GET /v1/chat/completions HTTP/1.1\r\n" + HOST + UPGRADE + b"\r\n"
    ),
    "a websocket of any page": (
        b"GET / HTTP/1.1\r\n" + HOST + b"Origin: https://evil.example\r\n" + UPGRADE + b"\r\n"
    ),
    "HTTP/2 at once": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2 by upgrade": GET + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "nothing but zeros": bytes(5000),
    "a megabyte of a header": GET + HOST + b"X: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "ten thousand headers": GET + HOST + b"X: a\r\n" * 10_000 + b"\r\n",
    "a long target": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target elsewhere": b"GET http://evil.example/v1/models HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tunnel": b"CONNECT evil.example:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "two hosts": GET + HOST + b"Host: evil.example\r\n\r\n",
    "no host": GET + b"\r\n",
    "two lengths": POST + HOST + JSON + LENGTH + b"Content-Length: 3\r\n\r\n" + BODY,
    "a length with a sign": POST + HOST + JSON + b"Content-Length: +5\r\n\r\n" + BODY,
    "a length below zero": POST + HOST + JSON + b"Content-Length: -5\r\n\r\n" + BODY,
    "a length without end": POST + HOST + JSON + b"Content-Length: 9" + b"9" * 5000 + b"\r\n\r\n",
    "both kinds of length": (
        POST + HOST + JSON + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + BODY
    ),
    "another coding": POST + HOST + JSON + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a chunk of all memory": (
        POST + HOST + JSON + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}"
    ),
    "a chunk's extension": (
        POST + HOST + JSON + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 500_000
    ),
    "a header in two lines": GET + HOST + b"X: a\r\n b: c\r\n\r\n",
    "a blank in a header's name": GET + HOST + b"X : a\r\n\r\n",
    "a zero in a header": GET + HOST + b"X: a\0b\r\n\r\n",
    "half a line's end": b"GET /v1/models HTTP/1.1\nHost: localhost\n\n",
    "a body that is compressed": (
        POST + HOST + JSON + b"Content-Encoding: gzip\r\n" + LENGTH + b"\r\n" + BODY
    ),
    "a key in a thousand forms": (
        GET + HOST + b"Authorization: Bearer " + b"Bearer " * 5000 + b"\r\n\r\n"
    ),
    "an expectation": POST + HOST + JSON + b"Expect: 200-ok\r\n" + LENGTH + b"\r\n" + BODY,
    "ranges": GET + HOST + b"Range: bytes=" + b"0-1," * 5000 + b"\r\n\r\n",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving(pipeline(), limits={"body_s": 1.0}) as served:
        yield served


@pytest.mark.parametrize("name", ODD)
def test_what_no_client_sends_harms_nobody(name: str, server: Served) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 30) as one:
        said = b""
        try:
            one.sendall(ODD[name])
            one.shutdown(socket.SHUT_WR)
            while part := one.recv(1 << 16):
                said += part
        except OSError:  # it was cut off
            pass
    status = said.split(b" ", 2)[1] if said.startswith(b"HTTP/1.1") else b""
    assert status in (b"", b"200") or status[:1] == b"4" or status == b"501", said[:200]
    assert not said.startswith(b"HTTP/1.1 101") and b"evil.example" not in said
    until(lambda: server.service.slots.held == 0)
    assert server.ask()["choices"][0]["message"]["content"]


def test_many_that_come_and_go_leave_nothing(server: Served) -> None:
    for _ in range(200):
        with socket.create_connection(("127.0.0.1", server.port), 30) as one:
            one.sendall(POST + HOST + JSON + LENGTH + b"\r\n" + BODY[:50])
    # Those that have not been read yet take their places later on.
    until(lambda: server.post(asking()).status_code == 200)
    until(lambda: server.service.slots.held == 0)


def test_requests_that_are_sent_behind_each_other_are_answered_in_order(server: Served) -> None:
    count = 20
    with socket.create_connection(("127.0.0.1", server.port), 30) as one:
        one.sendall((POST + HOST + JSON + LENGTH + b"\r\n" + BODY) * count)
        said = b""
        while said.count(b'"finish_reason"') < count and (part := one.recv(1 << 16)):
            said += part
    assert said.count(b"HTTP/1.1 200") == count


def _nested(deep: int) -> object:
    value: object = {}
    for _ in range(deep):
        value = {"items": value}
    return value


@pytest.mark.parametrize("deep", [20, 90, 200, 900])
def test_schemas_and_arguments_of_any_depth_are_read_or_refused(deep: int, server: Served) -> None:
    offered = {"name": "look", "description": "Looks.", "parameters": _nested(deep)}
    body = asking(tools=[{"type": "function", "function": offered}])
    reply = server.post(json.dumps(body).encode())
    assert reply.status_code in ((200,) if deep < 90 else (200, 400)), reply.text
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": _nested(deep)}}
    reply = server.post(json.dumps(asking(response_format=schema)).encode())
    assert reply.status_code in (200, 400, 422), reply.text

    body = asking(tools=[{"type": "function", "function": {"name": "look", "parameters": {}}}])
    for arguments in ("[" * 15_000, json.dumps(_nested(deep)), '{"a": "<|im_end|>"}'):
        called = {"id": "1", "type": "function", "function": {"name": "look"}}
        called["function"]["arguments"] = arguments  # type: ignore[index]
        turns = [
            {"role": "assistant", "content": None, "tool_calls": [called]},
            {"role": "tool", "tool_call_id": "1", "content": "so"},
        ]
        reply = server.post({**body, "messages": [*body["messages"], *turns]})
        assert reply.status_code in (200, 400), reply.text
