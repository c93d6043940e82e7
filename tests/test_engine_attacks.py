"""Replies that are made to fill memory, keep a thread busy or reach a terminal are refused in
bounded time, and the engine's next reply is read.
"""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from speceyes.models import OpenAIModel, ScriptedModel
from speceyes.models.openai.client import MAX_REPLY_BYTES
from speceyes.types import Sampling
from support.engine_server import Behaviour, Fault, serving
from test_engine import fails, one

Served = tuple[str, Behaviour]
GOOD = json.dumps(
    {"choices": [{"message": {"content": "it is red"}, "finish_reason": "stop"}]}
).encode()


@pytest.fixture
def served() -> Iterator[Served]:
    with serving({"m": ScriptedModel("it is red")}) as found:
        yield found


@pytest.fixture
def model(served: Served) -> Iterator[OpenAIModel]:
    made = OpenAIModel(served[0], "m", retries=0, timeout_s=60, engine="openai")
    yield made
    made.close()


def once(served: Served, reply: bytes, status: int = 200, **headers: str) -> None:
    """Has the engine send this to the next request, and answer those behind it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    left = [reply]

    def early(number: int, body: Any) -> Fault | None:
        if not left:
            return None
        said = left.pop()
        return lambda handler, answer: handler.send(status, said, named)

    served[1].early = early


def bomb(size: int, window: int = 31) -> bytes:
    """Packed zeros. A block that begins anew is the same each time, so one is packed for all.

    The checksum at the end is of two blocks only: who reads that far has unpacked too much.
    """
    pack = zlib.compressobj(9, zlib.DEFLATED, window)
    first, block = (pack.compress(bytes(1 << 20)) + pack.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + block * ((size >> 20) - 1) + pack.flush()


@pytest.mark.parametrize(
    ("packed", "encoding"),
    [
        (GOOD, "identity"),
        (gzip.compress(GOOD, mtime=0), "gzip"),
        (gzip.compress(GOOD, mtime=0), "X-GZIP"),
        (zlib.compress(GOOD), "deflate"),
    ],
    ids=["identity", "gzip", "x-gzip", "deflate"],
)
def test_a_reply_that_was_packed_unasked_is_read(
    packed: bytes, encoding: str, served: Served, model: OpenAIModel
) -> None:
    once(served, packed, Content_Encoding=encoding)
    assert one(model).text == "it is red"
    assert served[1].headers[-1]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("packed", "encoding", "told"),
    [
        (bomb(MAX_REPLY_BYTES + (1 << 20)), "gzip", "sent more than"),
        (bomb(MAX_REPLY_BYTES + (1 << 20), 15), "deflate", "sent more than"),
        (gzip.compress(bomb(1 << 30), mtime=0), "gzip, gzip", "not asked for"),
        (GOOD, "gzip, " * 1000 + "gzip", "not asked for"),
        (GOOD, "br", "not asked for"),
        (GOOD, "gzip", "no gzip"),
        (gzip.compress(GOOD, mtime=0)[:-9], "gzip", "no gzip"),
    ],
    ids=["gzip", "deflate", "twice", "a thousand times", "another", "none", "half"],
)
def test_what_unpacks_to_too_much_is_not_unpacked(
    packed: bytes, encoding: str, told: str, served: Served, model: OpenAIModel
) -> None:
    once(served, packed, Content_Encoding=encoding)
    tracemalloc.start()
    try:
        fails(one(model), told)
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_REPLY_BYTES
    finally:
        tracemalloc.stop()
    assert one(model).text == "it is red"


@pytest.mark.parametrize(
    "reply",
    [
        b'{"choices": [' + b"[]," * 3_000_000 + b"[]]}",
        b'{"choices": [' + b"{}," * 3_000_000 + b"{}]}",
        b'{"usage": [' + b"1," * 9_000_000 + b"1]}",
        b"[" * 9_000_000,
    ],
    ids=["lists", "objects", "numbers", "depth"],
)
def test_more_values_than_any_answer_has_are_not_read(
    reply: bytes, served: Served, model: OpenAIModel
) -> None:
    once(served, reply)
    fails(one(model), "more values than any answer has", "lower max_tokens or top_k")
    assert one(model).text == "it is red"


def test_as_many_values_as_a_long_draft_has_are_read(served: Served, model: OpenAIModel) -> None:
    ranked = [{"token": f"{n}", "logprob": -0.5 - n, "bytes": [48]} for n in range(64)]
    listed = [{"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": ranked}] * 2048
    choice = {"message": {"content": "a" * 2048}, "finish_reason": "length"}
    once(served, json.dumps({"choices": [{**choice, "logprobs": {"content": listed}}]}).encode())
    assert one(model, Sampling(top_k=20)).top_logprobs.shape == (2048, 20)


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize(
    "words", ["\x1b[2J\x1b]0;mine\x07", "\u202egnorw", "a\rb\x08\x9b", "\ud800"]
)
def test_an_engines_words_move_no_cursor(
    words: str, status: int, served: Served, model: OpenAIModel
) -> None:
    once(served, json.dumps({"error": {"message": f"it {words} fails"}}).encode(), status)
    error = one(model).error or ""
    assert "it " in error and "fails" in error
    assert all(sign.isprintable() for sign in error)


@pytest.mark.parametrize("unit", [b"a ", b"\xff", b'{"error":', b"data:image/png;base64,AAAA"])
def test_an_error_of_any_length_is_told_in_a_line(
    unit: bytes, served: Served, model: OpenAIModel
) -> None:
    once(served, unit * ((MAX_REPLY_BYTES - 9) // len(unit)), 400)
    error = one(model).error or ""
    assert "answered 400: " in error and len(error) < 700
    assert one(model).text == "it is red"


def test_cookies_are_not_kept(served: Served, model: OpenAIModel) -> None:
    once(served, GOOD, Set_Cookie="session=" + "x" * 4000)
    assert one(model).text == one(model).text == "it is red"
    assert not any("Cookie" in headers for headers in served[1].headers)


def test_half_a_character_of_an_engine_is_made_whole(served: Served, model: OpenAIModel) -> None:
    once(served, GOOD.replace(b"it is red", b"it is \\ud83d red"))
    assert one(model).text == "it is ? red"
