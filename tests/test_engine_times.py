"""What an engine says of its own time: read, told apart by arm, and left out where it says none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from speceyes.evaluation.runs import Block, Run
from speceyes.evaluation.turn import Turn
from speceyes.models.openai.engine_times import EngineTimes, engine_times, parsed
from speceyes.protocols import TellsTimes
from speceyes.tuning.observed import engine_seconds
from speceyes.tuning.page import engine_lines
from speceyes.types import Query, Result

TEXT = """\
# HELP vllm:request_queue_time_seconds Histogram of time spent in WAITING phase for request.
# TYPE vllm:request_queue_time_seconds histogram
vllm:request_queue_time_seconds_bucket{engine="0",le="0.3",model_name="large"} 3.0
vllm:request_queue_time_seconds_count{engine="0",model_name="large"} 4.0
vllm:request_queue_time_seconds_sum{engine="0",model_name="large"} 0.5
vllm:request_queue_time_seconds_count{engine="1",model_name="large"} 1.0
vllm:request_queue_time_seconds_sum{engine="1",model_name="large"} 2.5e-1
vllm:request_queue_time_seconds_sum{engine="0",model_name="other"} 99.0
vllm:request_queue_time_seconds_count{engine="0",model_name="other"} 99.0
vllm:request_prefill_time_seconds_sum{engine="0",model_name="large"} 2.0
vllm:request_decode_time_seconds_sum{engine="0",model_name="large"} 8.0
"""


@contextmanager
def telling(text: str, status: int = 200) -> Iterator[str]:
    """A server that says a text at /metrics."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            there = self.path == "/metrics"
            self.send_response(status if there else 404)
            self.end_headers()
            self.wfile.write(text.encode() if there else b"")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_sums_are_those_of_one_model_on_all_replicas() -> None:
    assert parsed(TEXT, "large") == EngineTimes(5.0, 0.75, 2.0, 8.0)
    with telling(TEXT) as url:
        for one in (url, url + "/", url.removesuffix("/v1")):
            assert engine_times(one, "large") == EngineTimes(5.0, 0.75, 2.0, 8.0)


@pytest.mark.parametrize("text", ["", "nothing here", TEXT.replace("decode", "d"), "a{b} x\n\0"])
def test_an_engine_that_says_less_says_nothing(text: str) -> None:
    assert parsed(text, "large") is None
    with telling(text) as url:
        assert engine_times(url, "large") is None


def test_what_cant_be_reached_or_refuses_says_nothing() -> None:
    with telling(TEXT, status=401) as url:
        assert engine_times(url, "large") is None
    assert engine_times(url, "large") is None
    assert engine_times("not an address", "large") is None


class Served:
    """Says more at each question."""

    def __init__(self) -> None:
        self.asked = 0

    def times(self) -> EngineTimes | None:
        self.asked += 1
        return EngineTimes(10.0 * self.asked, 1.0 * self.asked, 2.0, 4.0 * self.asked)


class Silent:
    def times(self) -> None:
        return None


def test_a_turn_tells_what_was_spent_meanwhile() -> None:
    served: object = Served()
    assert isinstance(served, TellsTimes)
    turn = Turn([served, Silent(), object()])
    queries: list[Query] = []
    assert list(turn.run(lambda asked: [Result(q.id, None, "error") for q in asked], queries)) == []
    told = turn.engine
    assert told == [{"requests": 10.0, "queued": 1.0, "prefill": 0.0, "decode": 4.0}, {}, {}]


def test_seconds_are_a_query_and_by_arm(tmp_path: Path) -> None:
    told = {"large": {"requests": 8.0, "queued": 2.0, "prefill": 4.0, "decode": 8.0}}
    blocks = (
        Block("tune", 0, "agent", 1.0, 4, engine=told),
        Block("tune", 1, "agent", 1.0, 4, engine=told),
        Block("tune", 0, "draft", 1.0, 4, engine={"small": {**told["large"], "queued": 0.0}}),
        Block("check", 0, "agent", 1.0, 4, engine=told),
        Block("tune", 1, "draft@64", 1.0, 4),
    )
    found = engine_seconds(Run(tmp_path, {}, blocks, ()))
    assert found == {
        "agent": {"large": {"queued": 0.5, "prefill": 1.0, "decode": 2.0}},
        "draft": {"small": {"queued": 0.0, "prefill": 1.0, "decode": 2.0}},
    }
    assert "queued 0.5 s, reading 1 s, writing 2 s" in engine_lines(found)[1]
