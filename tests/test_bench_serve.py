"""`speceyes bench --serve`: the load test itself, and that it sees what it looks for."""

from __future__ import annotations

import asyncio
import csv
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from speceyes.bench.load import run as load_run
from speceyes.bench.load import target as load_target
from speceyes.bench.load.client import LoadClient, Outcome, offer, saturate
from speceyes.bench.load.report import Step, costs, figures, problems
from speceyes.bench.load.requests import (
    ENGINE_ERROR,
    ENGINE_FAULTS,
    ENGINE_SLOW,
    FAULTS,
    GONE,
    MARKS,
    PLAIN,
    LoadRequest,
    Prompt,
    PromptSet,
    draw_requests,
)
from speceyes.cli import parser
from speceyes.encoded import data_url
from speceyes.errors import ConfigError, ModelError
from speceyes.models.scripted import ScriptedModel
from speceyes.types import Conversation, Message, Sampling
from support.processes import started
from support.served import pipeline, serving

OK = b'{"id": "%d", "choices": [{"message": {"content": "%d"}}]}'


def _run(*arguments: str) -> int:
    options = parser().parse_args(["bench", *arguments])
    code: int = options.run(options)
    return code


def _prompts(numbered: bool = True) -> PromptSet:
    return PromptSet([Prompt("Which number?", data_url(Image.new("RGB", (32, 32))))], numbered)


@given(st.integers(1, 400), st.floats(0, 0.1), st.integers(0, 9))
def test_each_kind_of_fault_has_its_share(n: int, share: float, seed: int) -> None:
    made = draw_requests(n, share=share, seed=seed)
    assert [request.number for request in made] == list(range(n))
    if n >= 200:
        counts = Counter(request.kind for request in made)
        for kind in FAULTS:
            assert counts[kind] == (max(1, round(n * share)) if share else 0)


def test_faults_may_not_be_most_of_it() -> None:
    for n, share in ((0, 0.01), (10, 0.2), (10, -0.1)):
        with pytest.raises(ConfigError):
            draw_requests(n, share=share)


def test_every_kind_of_end_is_told_apart() -> None:
    """A server that answers as no server may, one way a connection."""
    body = OK % (7, 0)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    whole = head % len(body) + body
    refused = b'{"error": {"code": "queue_full", "message": "", "type": "", "param": null}}'
    event = b'data: {"id": "8", "choices": [{"delta": {"content": "%s"}, "finish_reason": %s}]}\n\n'
    stream = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    streams = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n"
    events = event % (b"0", b"null") + event % (b"", b'"stop"') + b"data: [DONE]\n\n"
    error = b'data: {"error": {"code": "model_error"}}\n\n'
    chunked = head.replace(b"Content-Length: %d", b"Transfer-Encoding: chunked") + b"%x\r\n%s\r\n"
    cases = [
        (whole, "answer", 200),
        (head % len(refused) + refused, "broken", 200),
        ((head % len(refused)).replace(b"200 OK", b"429 Busy") + refused, "error", 429),
        (whole + whole, "broken", 200),
        (whole[:-3], "broken", 200),
        (b"", "broken", 0),
        (b"nonsense\r\n\r\n", "broken", 0),
        (head % 2 + b"{}", "broken", 200),
        (streams % len(events) + events, "answer", 200),
        (streams % len(error) + error, "error", 502),
        (streams % len(events + error) + events + error, "broken", 200),
        (streams % len(events * 2) + events * 2, "broken", 200),
        (stream, "broken", 200),
        (chunked % (len(body), body) + b"0\r\n\r\n", "answer", 200),
        (chunked % (len(body), body), "broken", 200),
        (chunked % (len(body), body) + b"0\r\n\r\nmore", "broken", 200),
    ]
    pending = iter(cases)

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(next(pending)[0])
        await writer.drain()
        writer.close()

    async def look() -> list[Outcome]:
        server = await asyncio.start_server(reply, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = LoadClient([f"http://127.0.0.1:{port}"], _prompts(), timeout_s=20)
        found = [await client.send(LoadRequest(0)) for _ in cases]
        server.close()
        await server.wait_closed()
        found.append(await client.send(LoadRequest(0)))  # nobody listens any more
        return found

    *found, nobody = asyncio.run(look())
    assert [(one.kind, one.status) for one in found] == [case[1:] for case in cases]
    assert nobody.kind == "broken" and nobody.code == "ConnectionRefusedError"
    assert found[0].right is True


def test_problems_are_found_and_only_problems() -> None:
    good = [
        Outcome(LoadRequest(0), "answer", 200, right=True, id="a"),
        Outcome(LoadRequest(1), "error", 429, "queue_full"),
        Outcome(LoadRequest(2, GONE), "left"),
        Outcome(LoadRequest(3, ENGINE_ERROR), "error", 502, "model_error"),
    ]
    counted = {"responses": 4.0, "in_flight": 0.0, "waiting": 0.0}
    assert problems(good, counted) == [] == problems(good, None)
    bad: list[tuple[Outcome, str]] = [
        (Outcome(LoadRequest(4), "broken", code="no reply in time"), "neither"),
        (Outcome(LoadRequest(4), "error", 500, "internal"), "got 500"),
        (Outcome(LoadRequest(4, ENGINE_ERROR), "answer", 200, right=True, id="b"), "got 200"),
        (
            Outcome(LoadRequest(4), "answer", 200, right=False, id="b"),
            "not those of their questions",
        ),
        (Outcome(LoadRequest(4), "answer", 200, right=True, id="a"), "came twice"),
    ]
    for one, says in bad:
        found = problems([*good, one], {**counted, "responses": 5.0})
        assert len(found) == 1 and says in found[0]
    assert "counted 3 ends of 4" in problems(good, {**counted, "responses": 3.0})[0]
    assert "still held" in problems(good, {**counted, "in_flight": 1.0})[0]


def test_latency_counts_from_the_planned_moment_and_of_answers_alone() -> None:
    times = [0.1 * n for n in range(1, 101)]
    outcomes = [
        Outcome(LoadRequest(n), "answer", 200, latency=t, planned=n) for n, t in enumerate(times)
    ]
    outcomes.append(Outcome(LoadRequest(100), "error", 429, latency=99.0, planned=100))
    outcomes.append(
        Outcome(LoadRequest(101, ENGINE_SLOW), "answer", 200, latency=99.0, planned=101)
    )
    found = figures(Step(0.5, 1.0, 102.0, outcomes, [2.0**20, 2.0**21]))
    assert found["p50_s"] == pytest.approx(5.05) and found["p99_s"] < 10.01
    assert found["share_full"] == pytest.approx(1 / 101) and found["offered_per_s"] == 1.0
    assert found["answered_per_s"] == pytest.approx(101 / 102) and found["memory_mib"] == 2.0


def test_the_engine_s_faults_are_the_target_s_and_are_not_seen_by_the_model() -> None:
    seen: list[str] = []

    def note(conversation: Conversation, sampling: Sampling) -> str:
        seen.append(conversation.messages[-1].text)
        return "red"

    model = load_target.MisbehavingModel(ScriptedModel(note, name="inner"), 0.0)
    assert model.name == "inner" and model.session(Sampling()) is None

    def asked(mark: str) -> Conversation:
        return Conversation((Message("user", (f"Which colour? {mark}".strip(),)),))

    for mark in ("", MARKS[ENGINE_SLOW]):
        assert model.generate([asked(mark)], Sampling())[0].text == "red"
    assert seen == ["Which colour?"] * 2
    with pytest.raises(ModelError):
        model.generate([asked(""), asked(MARKS[ENGINE_ERROR])], Sampling())
    # A server as users start it makes nothing of these words.
    with serving(pipeline()) as served:
        for mark in MARKS.values():
            assert served.ask(f"Which colour? {mark}")["speceyes"]["route"] == "draft"


def test_a_session_misbehaves_as_well() -> None:
    class Echo:
        def __init__(self) -> None:
            self.rows: dict[int, Conversation] = {}

        def __len__(self) -> int:
            return len(self.rows)

        def add(self, key: int, conversation: Conversation) -> None:
            self.rows[key] = conversation

        def step(self) -> list[tuple[int, Any]]:
            said = [(key, row.messages[-1].text) for key, row in self.rows.items()]
            self.rows.clear()
            return said

        def drop(self, key: int) -> None:
            self.rows.pop(key, None)

        def close(self) -> None:
            self.rows.clear()

    class Model:
        def session(self, sampling: Sampling) -> Echo:
            return Echo()

    session = load_target.MisbehavingModel(Model(), 0.0).session(Sampling())  # type: ignore[arg-type]
    assert session is not None
    for key, mark in enumerate(("", MARKS[ENGINE_ERROR], MARKS[ENGINE_SLOW], MARKS[ENGINE_ERROR])):
        session.add(key, Conversation((Message("user", (f"x {mark}".strip(),)),)))
    session.drop(3)
    assert len(session) == 3
    found: dict[int, Any] = dict(session.step())
    assert found[0] == found[2] == "x" and "as it was asked to" in found[1].error
    assert len(session) == 0


def test_requests_are_sent_when_they_are_due_whatever_came_back() -> None:
    """An open loop: the third is sent though none of the first two is answered."""
    held: list[asyncio.StreamWriter] = []
    three = asyncio.Event()

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        held.append(writer)
        if len(held) == 3:
            three.set()
        await three.wait()
        body = OK % (len(held), 0)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
        await writer.drain()
        writer.close()

    async def look() -> tuple[list[Outcome], float]:
        server = await asyncio.start_server(reply, "127.0.0.1", 0)
        client = LoadClient([f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"], _prompts())
        found = await offer(client, draw_requests(3, share=0), 50.0)
        some = await saturate(client, draw_requests(5, share=0), 2)
        server.close()
        return found, float(len(some))

    found, some = asyncio.run(look())
    assert [one.kind for one in found] == ["answer"] * 3 and some == 5
    assert found[0].planned < found[1].planned < found[2].planned
    assert found[0].latency >= found[2].planned - found[0].planned


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """(exit code, folder) of a small run."""
    out: Path = tmp_path_factory.mktemp("load")
    more = "--pair scripted --requests 300 --loads 0.5,2 --faults 0.02 --stall 0.02 --queue 24"
    yield _run("--serve", *more.split(), "--out", str(out)), out


def test_the_server_that_is_loaded_doesn_t_outlive_the_load_test() -> None:
    command = [sys.executable, "-m", "speceyes.bench.load.target", "--pair", "scripted"]
    more = "--stall 0 --batch-size 2 --queue 2 --timeout 5".split()
    pipe = subprocess.PIPE
    with started(*command, *more, stdin=pipe, stderr=pipe) as child:
        assert child.stderr is not None and child.stdin is not None
        assert "serving" in child.stderr.readline()
        child.stdin.close()  # as it is when whoever started it is killed
        assert child.wait(60) == 0


def test_every_request_has_its_one_end_among_faults_and_overload(loaded: tuple[int, Path]) -> None:
    code, out = loaded
    report = json.loads((out / "load.json").read_text())
    assert (code, report["problems"]) == (0, [])
    assert set(report["ends"]) == {PLAIN, *FAULTS}
    assert sum(n for row in report["ends"].values() for n in row.values()) == 300
    assert report["ends"][GONE] == {"left": 6}
    assert set(report["ends"][ENGINE_ERROR]) <= {"502", "429"}
    assert report["counted"]["in_flight"] == report["counted"]["waiting"] == 0
    first, second = report["steps"]
    assert (
        second["rate"] == pytest.approx(4 * first["rate"]) and first["p99_s"] >= first["p50_s"] > 0
    )


def test_its_files_hold_every_request_and_the_plot(loaded: tuple[int, Path]) -> None:
    _, out = loaded
    with (out / "requests.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 300 and {row["step"] for row in rows} == {"0", "1"}
    assert {row["route"] for row in rows if row["end"] == "answer"} == {"draft", "agent"}
    with (out / "load.csv").open() as file:
        assert [float(row["load"]) for row in csv.DictReader(file)] == [0.5, 2.0]
    svg = (out / "load.svg").read_text()
    assert svg.startswith("<svg") and all(name in svg for name in ("p50", "p95", "p99"))
    assert "<polyline" in (out / "load.html").read_text()


def test_costs_are_read_from_answers(loaded: tuple[int, Path]) -> None:
    _, out = loaded
    alone = json.loads((out / "load.json").read_text())["alone"]
    assert alone["beta"] == pytest.approx(1 - 1 / load_target.HARD) and alone["alpha"] == 1.0
    assert alone["c_judge"] > 0 and alone["l_tools"] > 0 and alone["l_rejected"] is None
    assert costs([]) == dict.fromkeys(alone.keys() - {"latency_s"})


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_is_read(loaded: tuple[int, Path]) -> None:
    found = json.loads((loaded[1] / "load.json").read_text())["memory_mib"]
    assert 20 < found["first"] <= found["most"]
    assert abs(found["grew"]) < 40  # 300 requests leave nothing that grows with them


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer questions, about small pictures, and fewer requests before the first step."""
    monkeypatch.delenv(load_run.KEY, raising=False)
    monkeypatch.setattr(load_run, "PROMPTS", 3)
    monkeypatch.setattr(load_run, "AT_ONCE", 4)
    pictures = [Image.new("RGB", (96, 64), (80 * n, 90, 160)) for n in range(3)]
    asked = PromptSet([Prompt("Which colour?", data_url(one)) for one in pictures], numbered=False)
    monkeypatch.setattr(load_run, "prompt_set_of", lambda pair: asked)


@pytest.mark.usefixtures("few")
def test_running_servers_can_be_loaded_in_turn(tmp_path: Path) -> None:
    out = tmp_path / "load.json"
    with serving(pipeline()) as one, serving(pipeline()) as other:
        more = ("--requests", "60", "--loads", "1", "--rate", "200", "--out", str(out))
        assert _run("--serve", "--url", f"{one.url}/v1", "--url", other.url, *more) == 0
        for served in (one, other):
            assert served.http.get("/metrics").text.count("speceyes_responses_total{") >= 1
    report = json.loads(out.read_text())
    assert not set(ENGINE_FAULTS) & set(report["ends"])
    assert report["memory_mib"] is None and report["capacity_per_s"] == 200


@pytest.mark.usefixtures("few")
def test_a_wrong_answer_makes_the_command_fail(capsys: pytest.CaptureFixture[str]) -> None:
    answers = iter(range(10**6))
    wrong = pipeline(judge="no", draft=lambda c, s: str(next(answers)))
    with serving(wrong) as served:
        more = ("--requests", "80", "--loads", "1", "--rate", "200", "--faults", "0")
        assert _run("--serve", "--url", served.url, *more) == 1
    assert "not those of their questions" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--loads", "x"],
        ["--loads", "0"],
        ["--requests", "1"],
        ["--stall", "-1"],
        ["--faults", "0.2"],
        ["--url", "ftp://host"],
        ["--url", "http://host:port"],
    ],
)
def test_options_that_make_no_sense_are_refused(arguments: list[str]) -> None:
    with pytest.raises(ConfigError):
        _run("--serve", "--pair", "scripted", *arguments)


def test_without_serve_it_is_the_usual_bench() -> None:
    with pytest.raises(ConfigError, match="--queries"):
        _run("--queries", "0")
    with pytest.raises(ConfigError, match="pair"):
        load_target.pipeline("other", stall_s=0.0, batch=2)
