from __future__ import annotations

import json
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speceyes import SeparabilityGate, SpecPipeline, SpeculativeAnswerer
from speceyes.errors import ConfigError
from speceyes.models.scripted import ScriptedModel
from speceyes.server.app import application
from speceyes.server.chat_request import read_request
from speceyes.server.limits import ServerLimits
from speceyes.server.refusal import Refusal
from support.models import FakeModel
from support.processes import until
from support.served import Served, asking, data_url, pipeline, serving


def _draft(conversation: Any, sampling: Any) -> str:
    """Says what it was asked, where a test wants to know; else a colour of two words."""
    text = conversation.messages[-1].text
    return text.replace("\n", " | ") if "echo" in text else "dark red"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving(pipeline(draft=_draft, agent="<answer>deep blue sea</answer>")) as served:
        yield served


@pytest.fixture(scope="module")
def strict() -> Iterator[Served]:
    with serving(pipeline(), limits={"tolerant": False}) as served:
        yield served


def _events(text: str) -> list[Any]:
    lines = [line for line in text.split("\n\n") if line.startswith("data: ")]
    return [line[6:] if line.endswith("[DONE]") else json.loads(line[6:]) for line in lines]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/chat/completions"),
        ("POST", "/v1/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/responses"),
        ("GET", "/models"),
        ("GET", "/"),
        ("GET", "/v2/models"),
    ],
)
def test_a_base_address_that_is_wrong_is_told_the_right_one(
    server: Served, method: str, path: str
) -> None:
    reply = server.http.request(method, path, json=asking() if method == "POST" else None)
    assert reply.status_code == 404
    assert f"clients' base address is {server.url}/v1" in reply.json()["error"]["message"]


def test_a_draft_comes_back_as_a_chat_completion(server: Served) -> None:
    said = server.ask()
    assert said["object"] == "chat.completion" and said["model"] == "speceyes"
    [choice] = said["choices"]
    assert choice["message"] == {"role": "assistant", "content": "dark red", "refusal": None}
    assert choice["finish_reason"] == "stop" and choice["logprobs"] is None
    usage = said["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    how = said["speceyes"]
    assert how["route"] == "draft" and how["score"] > how["threshold"] == 0.98
    assert how["needs_tools"] is False and how["depth"] == how["turns"] == 0
    assert how["timings"]["fallback"] is None
    assert how["timings"]["latency"] >= how["timings"]["draft"] > 0
    assert usage["completion_tokens"] == sum(written for _, written in how["tokens"].values())


def test_a_request_can_ask_for_the_agent(server: Served) -> None:
    said = server.ask(speceyes={"route": "agent"}, logprobs=True)
    assert said["choices"][0]["message"]["content"] == "deep blue sea"
    assert said["choices"][0]["logprobs"] is None
    assert said["speceyes"]["route"] == "agent" and said["speceyes"]["turns"] == 1
    assert said["speceyes"]["score"] is None and set(said["speceyes"]["tokens"]) == {"agent"}


def test_a_request_can_be_stricter_and_not_laxer(server: Served) -> None:
    strict = server.ask(speceyes={"threshold": 0.9999})["speceyes"]
    assert strict["route"] == "agent" and strict["threshold"] == 0.9999
    assert strict["score"] < 0.9999
    error = server.refused(asking(speceyes={"threshold": 0.5}))
    assert error["param"] == "speceyes.threshold" and "0.98 to 1" in error["message"]


def test_an_operator_can_allow_laxer_ones_and_the_default_stays() -> None:
    with serving(pipeline(margin=5.0), limits={"thresholds": (0.6, 0.99)}) as served:
        assert served.ask()["speceyes"]["route"] == "agent"
        lax = served.ask(speceyes={"threshold": 0.9})["speceyes"]
        assert (lax["route"], lax["threshold"]) == ("draft", 0.9)
        assert served.ask(speceyes={"threshold": 0.97})["speceyes"]["route"] == "agent"
        assert served.refused(asking(speceyes={"threshold": 1.0}))["code"] == "not_allowed"


def test_a_gate_without_a_threshold_takes_none() -> None:
    gate = SeparabilityGate(0.9)
    drafts = SpeculativeAnswerer(ScriptedModel("red"))
    pipe = SpecPipeline(answerer=drafts, gate=lambda draft: gate(draft))
    with pytest.raises(ConfigError, match="has no threshold"):
        application(pipe, limits=ServerLimits(thresholds=(0.5, 1.0)))
    with serving(pipe, limits={"agent_on_request": False}) as served:
        assert served.ask()["speceyes"]["route"] == "draft"
        error = served.refused(asking(speceyes={"threshold": 0.9}))
        assert "fixed" in error["message"]
        assert served.refused(asking(speceyes={"route": "agent"}))["code"] == "not_allowed"


def test_a_threshold_out_of_the_formula_s_reach_is_the_request_s_fault() -> None:
    gate = SeparabilityGate(0.7, formula="paper", top_k=9)
    with serving(pipeline(gate=gate)) as served:
        error = served.refused(asking(speceyes={"threshold": 0.99}))
        assert error["param"] == "speceyes.threshold" and "out of reach" in error["message"]


def test_texts_and_images_keep_their_order_and_choices_are_lettered(server: Served) -> None:
    body = asking(speceyes={"choices": ["red", "blue"]}, max_tokens=99)
    image = {"type": "image_url", "image_url": {"url": data_url(kind="JPEG"), "detail": "high"}}
    text = {"type": "text", "text": "echo"}
    body["messages"][0]["content"] = [text, image, image, {"type": "text", "text": "this"}]
    said = server.post(body).json()["choices"][0]["message"]["content"]
    assert said.startswith("echo | this | (A) red | (B) blue")


@pytest.mark.parametrize(
    ("more", "text", "finish"),
    [
        ({"max_tokens": 1}, "dark", "length"),
        ({"max_completion_tokens": 2}, "dark red", "stop"),
        ({"stop": " re"}, "dark", "stop"),
        ({"stop": ["zzz", "red"]}, "dark ", "stop"),
        ({"stop": "red", "max_tokens": 1}, "dark", "length"),
        ({"max_tokens": 2, "speceyes": {"route": "agent"}}, "deep blue", "length"),
        ({"seed": 7, "temperature": 0, "top_p": 1, "n": 1, "user": "u"}, "dark red", "stop"),
    ],
)
def test_answers_are_cut_where_they_should(
    server: Served, more: dict[str, Any], text: str, finish: str
) -> None:
    choice = server.ask(**more)["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (text, finish)


def test_log_probabilities_of_the_draft(server: Served) -> None:
    entries = server.ask(logprobs=True, top_logprobs=3)["choices"][0]["logprobs"]["content"]
    assert len(entries) == 2
    for entry in entries:
        ranked = entry["top_logprobs"]
        assert [one["token"] for one in ranked] == [entry["token"], "rank:2", "rank:3"]
        values = [one["logprob"] for one in ranked]
        assert values == sorted(values, reverse=True) and entry["logprob"] == values[0] < 0
    plain = server.ask(logprobs=True)["choices"][0]["logprobs"]["content"]
    assert all(entry["top_logprobs"] == [] for entry in plain)


def test_a_stream_has_the_same_in_chunks(server: Served) -> None:
    body = asking(stream=True, stream_options={"include_usage": True}, logprobs=True)
    reply = server.post(body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    first, text, last, usage, done = _events(reply.text)
    assert done == "[DONE]"
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert text["choices"][0]["delta"] == {"content": "dark red"}
    assert len(text["choices"][0]["logprobs"]["content"]) == 2
    assert last["choices"][0]["finish_reason"] == "stop" and last["speceyes"]["route"] == "draft"
    assert usage["choices"] == [] and usage["usage"]["total_tokens"] > 0
    assert len({one["id"] for one in (first, text, last, usage)}) == 1
    assert len(_events(server.post(asking(stream=True)).text)) == 4


_CONTENT = "messages[0].content"


def _one(**message: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", **message}]}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"n": 2}, "n"),
        ({"temperature": 0.7}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"seed": 1 << 64}, "seed"),
        ({"temperature": 10**400}, "temperature"),
        ({"speceyes": {"threshold": -(10**400)}}, "speceyes.threshold"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"functions": [{}]}, "functions"),
        ({"audio": {}}, "audio"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": 1}, "logprobs"),
        ({"stop": ""}, "stop"),
        ({"stop": list("abcde")}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": asking()["messages"] * 2}, "messages"),
        ({"messages": [{"role": "system", "content": "be brief"}]}, "messages[0].role"),
        (_one(content="no image"), _CONTENT),
        (_one(content=None), _CONTENT),
        (_one(content=[{"type": "input_audio"}]), f"{_CONTENT}[0].type"),
        (_one(content="x", tool_calls=[1]), "messages[0].tool_calls"),
        ({"speceyes": {"route": "draft"}}, "speceyes.route"),
        ({"speceyes": {"gate": 1}}, "speceyes.gate"),
        ({"speceyes": {"deadline_s": 0}}, "speceyes.deadline_s"),
        ({"speceyes": {"deadline_s": 1e9}}, "speceyes.deadline_s"),
        ({"speceyes": {"choices": ["a", 1]}}, "speceyes.choices"),
        ({"speceyes": []}, "speceyes"),
        ({"a\nname\x1b[31m": 1}, "a\nname\x1b[31m"),
    ],
)
def test_a_strict_server_refuses_by_name(
    strict: Served, change: dict[str, Any], param: str
) -> None:
    error = strict.refused({**asking(), **change})
    assert error["param"] == param and error["type"] == "invalid_request_error"
    assert error["message"].startswith(param)


def test_another_model_is_not_found(server: Served) -> None:
    error = server.refused(asking() | {"model": "gpt-4o"}, 404)
    assert error["code"] == "model_not_found"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b'"text"',
        b'{"model": NaN}',
        b"[" * 200_000,
        b'{"n": ' + b"9" * 10_000 + b"}",
        b"\xff\xfe\x00",
        json.dumps(asking("\ud800")).encode(),
    ],
)
def test_bodies_that_are_no_request_are_refused(server: Served, body: bytes) -> None:
    assert server.refused(body)["message"]


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "role content type text image_url url detail route threshold choices".split()
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
_FIELDS = sorted(
    "n temperature stream stream_options stop max_tokens logprobs top_logprobs messages "
    "speceyes seed tools response_format logit_bias model user".split()
)


@given(st.dictionaries(st.sampled_from(_FIELDS), _VALUES, max_size=4))
def test_whatever_is_sent_is_read_or_refused(change: dict[str, Any]) -> None:
    body = json.dumps({**asking(), **change}).encode()
    try:
        asked = read_request(body, "speceyes", ServerLimits(thresholds=(0.5, 1.0)), 64)
    except Refusal as exc:
        assert exc.status in (400, 404) and len(str(exc)) < 400
    else:
        assert asked.question.strip() and asked.dialogue.pictures


def test_the_other_routes(server: Served) -> None:
    [model] = server.http.get("/v1/models").json()["data"]
    assert model["id"] == "speceyes"
    assert server.http.get("/v1/models/speceyes").json() == model
    assert server.http.get("/v1/models/other").status_code == 404
    assert server.http.get("/healthz").text == "ok\n"
    assert server.http.get("/readyz").text == "ready\n"
    assert server.http.get("/nothing").json()["error"]["type"] == "not_found_error"
    assert server.http.get("/v1/chat/completions").status_code == 405
    paths = server.http.get("/openapi.json").json()["paths"]
    assert "requestBody" in paths["/v1/chat/completions"]["post"]
    assert server.http.get("/docs").status_code == 404


def test_metrics_count(server: Served) -> None:
    def value(name: str) -> float:
        lines = server.http.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))

    before = value('speceyes_results_total{route="draft"}')
    refused = value('speceyes_responses_total{status="400"}')
    server.ask()
    server.ask(stream=False)
    server.refused(asking(n=3))
    assert value('speceyes_results_total{route="draft"}') == before + 2
    assert value('speceyes_responses_total{status="400"}') == refused + 1
    assert value('speceyes_phase_seconds_count{phase="latency"}') >= 2
    assert value("speceyes_in_flight") == value("speceyes_waiting") == 0
    assert 0 < value("speceyes_alpha") <= 1 and value("speceyes_batch_queries_count") > 0


def test_failures_have_their_status_and_keep_their_reason() -> None:
    secret = ConfigError("10.1.2.3 said: the prompt was xyzzy")
    with serving(pipeline(draft="hm", margin=3.0, agent=secret)) as served:
        error = served.refused(asking(), 502)
        assert error["code"] == "model_error" and "xyzzy" not in str(error)
        error = served.refused(asking(stream=True), 502)
        assert error["code"] == "model_error" and "xyzzy" not in str(error)
    with serving(pipeline(judge="yes", agent="<think>", max_steps=1)) as served:
        assert served.refused(asking(), 422)["code"] == "no_answer"
    drafts = SpeculativeAnswerer(ScriptedModel({"bad": secret, "": "red"}, margin=3.0))
    with serving(SpecPipeline(answerer=drafts, gate=SeparabilityGate(0.98))) as served:
        assert "no agent" in served.refused(asking(), 422)["message"]
        assert "xyzzy" not in str(served.refused(asking("bad"), 502))


def test_a_request_that_takes_too_long_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()
    pipe = SpecPipeline.from_pretrained(large=FakeModel("<answer>blue</answer>", hold=let_go))
    with serving(pipe, limits={"seconds": 60}) as served:
        reply = served.post(asking(speceyes={"deadline_s": 0.1}))
        assert reply.status_code == 504 and reply.headers["x-should-retry"] == "false"
        late = served.refused(asking(stream=True, speceyes={"deadline_s": 0.1}), 504)
        assert late["code"] == "deadline_exceeded"
        monkeypatch.setattr("speceyes.server.service.HOLD_S", 0.05)
        chunks = _events(served.post(asking(stream=True, speceyes={"deadline_s": 3})).text)
        assert chunks[-1]["error"]["code"] == "deadline_exceeded"
        let_go.set()
        assert served.ask()["speceyes"]["route"] == "agent"


def test_a_stream_that_fails_later_says_so_in_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speceyes.server.service.HOLD_S", 0.05)
    slow = ScriptedModel(ConfigError("gone"), delay_s=0.5)
    with serving(SpecPipeline.from_pretrained(large=slow)) as served:
        reply = served.post(asking(stream=True))
        assert reply.status_code == 200
        chunks = _events(reply.text)
        assert chunks[0]["choices"] and chunks[-1]["error"]["code"] == "model_error"
        assert served.gauge('responses_total{status="502"}') == 1


def test_health_tells_what_does_not_work_and_nothing_of_its_words() -> None:
    drafts = ["xyzzy"] * 10

    def draft(conversation: Any, sampling: Any) -> Any:
        if drafts:
            drafts.pop()
            raise ConfigError("http://10.1.2.3 said xyzzy")
        return "red"

    pipe = pipeline(draft=draft, margin=25.0, agent="<answer>blue</answer>")
    with serving(pipe) as served:
        for _ in range(10):
            assert served.ask()["speceyes"]["route"] == "agent"
        said = served.http.get("/healthz")
        assert said.status_code == 200
        assert said.text == "ok\nwarning: drafts fail, so that every query goes to the agent\n"
        served.ask()
        assert served.http.get("/healthz").text == "ok\n"  # they work again


def test_among_faults_of_every_kind_each_gets_one_answer_or_one_error() -> None:
    def agent(conversation: Any, sampling: Any) -> str:
        if "explode" in conversation.messages[-1].text:
            raise RuntimeError("the engine is down")
        return "<answer>blue</answer>"

    hostile = asking(urls=["data:image/png;base64,AAAA"])
    kinds: list[tuple[Any, int]] = [
        (asking(), 200),
        (asking("hard"), 200),
        (asking("hard explode"), 502),
        (hostile, 400),
        (b"{", 400),
        (None, 499),
    ]
    plan = random.Random(0).choices(kinds, (60, 25, 5, 3, 3, 4), k=240)
    whole = json.dumps(asking()).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(whole)}\r\n\r\n"
    )
    pipe = pipeline(judge={"hard": "yes", "": "no"}, agent=agent)
    with serving(pipe) as served:

        def send(body: Any) -> int:
            if body is not None:
                return served.post(body).status_code
            with socket.create_connection((served.http.base_url.host, served.port)) as sock:
                sock.sendall(head.encode() + whole)  # and leaves
            return 499

        with ThreadPoolExecutor(12) as pool:
            got = list(pool.map(send, [body for body, _ in plan]))
        assert got == [status for _, status in plan]
        until(lambda: served.service.slots.held == 0)

        def counted() -> Counter[str]:
            lines = served.http.get("/metrics").text.splitlines()
            found = [x for x in lines if x.startswith("speceyes_responses_total{")]
            return Counter({x.split('"')[1]: int(float(x.split()[-1])) for x in found})

        until(lambda: counted().total() == len(plan))
        # One that left may have been answered before that was seen.
        left = Counter(got)[499]
        assert counted()["200"] + counted()["499"] == Counter(got)[200] + left
        assert counted()["502"] == Counter(got)[502] and counted()["400"] == Counter(got)[400]
