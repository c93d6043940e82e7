"""What tools, engines and exceptions do that nobody should have to expect: none of it leaves the
query that it belongs to, and no text of it is without bound."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from PIL import Image as PILImage

from speceyes import Query, SpecPipeline
from speceyes.dialects.kimi import KimiDialect
from speceyes.errors import ConfigError, ModelError, ParseError, ToolError, describe
from speceyes.models.openai.client import EngineClient
from speceyes.models.scripted import ScriptedModel
from speceyes.tools import Tools
from speceyes.types import Image, Observation, ToolCall

DOT = PILImage.new("RGB", (32, 32), "red")


class Saying:
    """Tool that does as it is told."""

    name = "saying"
    description = "Says something."
    parameters: Mapping[str, Any] = {"type": "object", "properties": {}}

    def __init__(self, do: Callable[[], Observation]) -> None:
        self._do = do

    def __call__(self, images: Sequence[Image], arguments: Mapping[str, Any]) -> Observation:
        return self._do()


def run(do: Callable[[], Observation], timeout_s: float | None = 30.0, **more: Any) -> Observation:
    tools = Tools([Saying(do)], timeout_s=timeout_s, **more)
    return tools.run(ToolCall("saying", {}), [DOT])


class Mute(Exception):
    """Its text can't be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Odd(Exception):
    """Its text is none."""

    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


class Leaving(Exception):
    """Its text ends the interpreter."""

    def __str__(self) -> str:
        raise SystemExit(3)


class Endless(Exception):
    """Its text has no end worth reading."""

    def __str__(self) -> str:
        return "x" * 50_000_000


class MuteTool(ToolError):
    """A tool's own error, whose text can't be had."""

    def __str__(self) -> str:
        raise ValueError


class MuteModel(ModelError):
    """A model's own error, whose text can't be had."""

    def __str__(self) -> str:
        raise Mute


class Bare(BaseException):
    """No `Exception` at all."""


FAILURES = [
    Mute(), Odd(), Leaving(), Endless(), MuteTool(), MuteModel(), Bare("bare"), SystemExit(1),
    SystemExit("out"), GeneratorExit(), asyncio.CancelledError(), KeyboardInterrupt(),
    StopIteration(), MemoryError(), RecursionError(), BaseExceptionGroup("many", [Bare()]),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "half"), Exception("\ud800"),
]  # fmt: skip


def _raise(exc: BaseException) -> Observation:
    raise exc


@pytest.fixture(autouse=True)
def _unlogged(caplog: pytest.LogCaptureFixture) -> None:
    """What is logged of such failures can't be sent from a test process to the one that reports."""
    caplog.set_level(logging.CRITICAL + 1, logger="speceyes")


@pytest.mark.parametrize("exc", FAILURES, ids=lambda exc: type(exc).__name__)
def test_whatever_a_tool_raises_is_its_observation(exc: BaseException) -> None:
    seen = run(lambda: _raise(exc))
    assert seen.error and len(seen.error) <= 500
    seen.error.encode()


@pytest.mark.parametrize("exc", [e for e in FAILURES if not isinstance(e, KeyboardInterrupt)],
                         ids=lambda exc: type(exc).__name__)  # fmt: skip
def test_the_same_where_a_tool_runs_in_the_callers_thread(exc: BaseException) -> None:
    seen = run(lambda: _raise(exc), None)
    assert seen.error and len(seen.error) <= 500


def test_an_interrupt_from_the_keyboard_still_leaves() -> None:
    with pytest.raises(KeyboardInterrupt):
        run(lambda: _raise(KeyboardInterrupt()), None)


def test_an_interrupt_while_a_tool_runs_still_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the signal does: it is raised in the main thread, which waits for the tool's."""
    ended = threading.Event()

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        ended.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(lambda: Observation(("done",)) if ended.wait(30) else Observation())


@pytest.mark.parametrize("exc", FAILURES, ids=lambda exc: type(exc).__name__)
def test_an_exception_is_described_in_a_bounded_line(exc: BaseException) -> None:
    told = describe(exc)
    assert told.startswith(type(exc).__name__) and len(told) < 2_100 and "\n" not in told


@pytest.mark.parametrize("exc", [e for e in FAILURES if isinstance(e, Exception)],
                         ids=lambda exc: type(exc).__name__)  # fmt: skip
def test_an_exception_ends_its_own_query_and_no_stream(exc: Exception) -> None:
    def say(conversation: Any, _: Any) -> str:
        if "bad" in str(conversation.messages):
            raise exc
        return "red"

    pipe = SpecPipeline.from_pretrained(small=ScriptedModel(say), judge=None)
    queries = [Query("good", (DOT,)), Query("bad", (DOT,)), Query("good again", (DOT,))]
    answers = {result.query_id: result for result in pipe.stream(queries)}
    good, bad, again = (answers[key] for key in sorted(answers))
    assert (good.answer, again.answer) == ("red", "red") and bad.error


# --- text of tools --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        ("x" * 5_000_000,),
        ("x" * 60_000, "y" * 60_000, DOT, "z" * 60_000),
        tuple("ab" * 40_000),
        ("\ud800" * 100_000,),
        ("é" * 100_000, DOT),
    ],
    ids=["one", "several", "many", "halves", "two bytes"],
)
def test_text_of_a_tool_is_bounded_and_can_be_encoded(content: tuple[str | Image, ...]) -> None:
    seen = run(lambda: Observation(content))
    text = "".join(part for part in seen.content if isinstance(part, str))
    assert len(text) <= 50_000 + 50
    text.encode()
    assert len(seen.images) == sum(not isinstance(part, str) for part in content)


def test_both_ends_of_a_long_text_stay() -> None:
    seen = run(lambda: Observation(("first " + "x" * 500 + " last",)), max_chars=100)
    [text] = seen.content
    assert isinstance(text, str) and text.startswith("first ") and text.endswith(" last")
    assert len(text) <= 100 and "characters left out" in text


def test_an_error_of_a_tool_is_bounded_too() -> None:
    seen = run(lambda: Observation(error="x" * 5_000_000))
    assert len(seen.error or "") <= 50_000


def test_text_within_the_bound_is_left_alone() -> None:
    said = Observation(("short é \U0001f600", DOT), error="so")
    assert run(lambda: said) is said
    with pytest.raises(ConfigError, match="max_chars=0"):
        Tools(max_chars=0)


# --- replies that drip ----------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
DRIPS = {
    "a body without a length": (HEAD + b"\r\n", b" "),
    "a body of HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\n", b" "),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "a body with a length": (HEAD + b"Content-Length: 999999\r\n\r\n", b" "),
    "headers": (HEAD, b"X: y\r\n"),
    "one header": (HEAD + b"X: ", b"y"),
    "a status line": (b"HTTP/1.1 200 ", b"O"),
    "an error": (b"HTTP/1.1 400 Bad\r\n\r\n", b" "),
    "a busy engine": (b"HTTP/1.1 503 Busy\r\n\r\n", b" "),
    "what comes first": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "an extension of a chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a"),
    "trailers": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
    "nothing": (b"", b""),
}


@contextlib.contextmanager
def dripping(first: bytes, drop: bytes) -> Iterator[tuple[str, threading.Event, threading.Event]]:
    """An engine whose reply has no end: its address, that it has begun, that it was cut off."""
    begun, cut, over = threading.Event(), threading.Event(), threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(1 << 16)
            connection.sendall(first)
            begun.set()
            connection.settimeout(0.01)
            while not over.is_set():
                if drop:
                    connection.sendall(drop)
                try:
                    if not connection.recv(1 << 16):
                        break
                except TimeoutError:
                    continue
        cut.set()

    def accept(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept, args=(server,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/v1", begun, cut
        finally:
            over.set()
            server.shutdown(socket.SHUT_RDWR)


def client(url: str, timeout_s: float) -> EngineClient:
    return EngineClient(
        url, headers={}, secrets=(), timeout_s=timeout_s, retries=0, backoff_s=0.1,
        max_wait_s=1.0, max_concurrency=2, proxy=None,
    )  # fmt: skip


@pytest.mark.parametrize("drip", DRIPS)
def test_a_reply_that_drips_has_its_time_and_no_more(drip: str) -> None:
    with dripping(*DRIPS[drip]) as (url, _, cut):
        engine = client(url, 0.3)
        with pytest.raises(ModelError, match=r"had not answered after 0.3 s|dropped|sent"):
            engine.submit(engine.call("/chat/completions", dict)).result(60)
        assert cut.wait(60)
        engine.close()


@pytest.mark.parametrize("drip", DRIPS)
def test_a_reply_that_drips_is_cut_off_when_nobody_wants_it(drip: str) -> None:
    with dripping(*DRIPS[drip]) as (url, begun, cut):
        engine = client(url, 600.0)
        request = engine.submit(engine.call("/chat/completions", dict))
        assert begun.wait(60)
        engine.cancel([request])
        assert cut.wait(60)
        engine.close()


# --- another process ------------------------------------------------------------------------------


def _ask_in_child(pipe: SpecPipeline, said: Any) -> None:
    async def ask() -> Any:
        return await pipe.ask(DOT, "Which colour?")

    try:
        said.send(("answer", asyncio.run(ask()).answer))
    except BaseException as exc:  # noqa: BLE001 - told to the parent
        said.send((type(exc).__name__, str(exc)))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("asked_before", [False, True])
def test_ask_in_a_forked_child_works_or_says_why_not(asked_before: bool) -> None:
    context = multiprocessing.get_context("fork")
    pipe = SpecPipeline.from_pretrained(small=ScriptedModel("red"), judge=None)
    if asked_before:
        asyncio.run(pipe.ask(DOT, "Which colour?"))
    mine, theirs = context.Pipe()
    child = context.Process(target=_ask_in_child, args=(pipe, theirs))
    child.start()
    try:
        assert mine.poll(60), "the child says nothing"
        kind, text = mine.recv()
    finally:
        child.kill()
        child.join()
    if asked_before:
        assert kind == "ConfigError" and "forked" in text and "in the child" in text
    else:
        assert (kind, text) == ("answer", "red")
    assert asyncio.run(pipe.ask(DOT, "Which colour?")).answer == "red"
    pipe.close()


def test_a_call_of_signs_that_are_long_to_write_gets_a_short_error() -> None:
    """An identity of control characters, found by fuzzing: four characters each in a `repr`."""
    said = f"<|tool_call_begin|>functions.lo{chr(0) * 200}ok:9<|tool_call_argument_begin|>{{}}"
    with pytest.raises(ParseError, match="is not the id of a call") as caught:
        KimiDialect().parse(said)
    assert len(str(caught.value)) < 150
