"""`OpenAIModel` against a server that speaks the protocol and misbehaves in every known way."""

from __future__ import annotations

import email.utils
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes.errors import ConfigError, ImageError
from speceyes.fallback import AgenticFallback
from speceyes.models import OpenAIModel, ScriptedModel
from speceyes.models.openai import QwenResize, own_size
from speceyes.models.openai.image_urls import ImageUrls
from speceyes.models.openai.replies import read_completion
from speceyes.models.openai.requests import CAPABILITIES
from speceyes.types import Completion, Conversation, Message, Sampling
from support.engine_server import (
    Behaviour,
    Fault,
    cut_short,
    dripping,
    dropped,
    refused,
    sent,
    serving,
    slow,
)
from support.processes import until

Served = tuple[str, Behaviour]
RED = Image.new("RGB", (60, 40), "red")


def ask(text: str = "Which colour?", **rest: Any) -> Conversation:
    return Conversation((Message("user", (RED, text)),), **rest)


@pytest.fixture
def served() -> Iterator[Served]:
    script = ScriptedModel({"call": "<a>x</a> more", "": "it is red"})
    with serving({"m": script}) as found:
        yield found


@pytest.fixture
def model(served: Served) -> Iterator[OpenAIModel]:
    made = OpenAIModel(served[0], "m", retries=2, backoff_s=0.01, timeout_s=5)
    yield made
    made.close()


def one(model: OpenAIModel, sampling: Sampling | None = None, **rest: Any) -> Completion:
    [completion] = model.generate([ask(**rest)], sampling or Sampling())
    return completion


def fails(completion: Completion, *words: str) -> None:
    assert (completion.finish, completion.text) == ("error", "")
    for word in words:
        assert word in (completion.error or "")


# What goes wrong on the way


@pytest.mark.parametrize(
    "fault",
    [refused(429), refused(500), refused(503), dropped, cut_short],
    ids=["429", "500", "503", "dropped", "cut short"],
)
def test_what_passes_is_tried_again(served: Served, model: OpenAIModel, fault: Fault) -> None:
    served[1].early = lambda number, body: fault if number < 2 else None
    assert one(model).text == "it is red"
    assert len(served[1].bodies) == 3


def test_what_stays_is_told_after_the_last_attempt(served: Served, model: OpenAIModel) -> None:
    served[1].early = lambda number, body: refused(500, "out of blocks")
    fails(one(model), "500", "out of blocks", "after 3 attempts")
    assert len(served[1].bodies) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 302])
def test_what_can_not_pass_is_not_tried_again(
    served: Served, model: OpenAIModel, status: int
) -> None:
    served[1].early = lambda number, body: refused(status, "no", Location="http://x.test/v1?k=1")
    fails(one(model), "x.test/v1" if status == 302 else str(status))
    assert len(served[1].bodies) == 1


def test_the_engine_says_when_to_come_back(served: Served, model: OpenAIModel) -> None:
    arrived: list[float] = []

    def once(number: int, body: Any) -> Fault | None:
        arrived.append(time.monotonic())
        return refused(429, Retry_After="0.3") if number == 0 else None

    served[1].early = once
    assert one(model).error is None
    assert arrived[1] - arrived[0] >= 0.3


def test_a_date_to_come_back_at_is_understood(served: Served, model: OpenAIModel) -> None:
    past = email.utils.formatdate(time.time() - 60, usegmt=True)
    served[1].early = lambda n, body: refused(503, Retry_After=past) if n == 0 else None
    assert one(model).error is None


def test_an_engine_that_asks_for_an_hour_is_given_up(served: Served, model: OpenAIModel) -> None:
    served[1].early = lambda number, body: refused(429, "limit", Retry_After="3600")
    fails(one(model), "3600 s", "max_wait_s")
    assert len(served[1].bodies) == 1


@pytest.mark.parametrize(
    "data", [b"", b"<html>hello", b"\xff\xfe", b"[" * 100_000, b"nul"], ids=lambda d: repr(d[:8])
)
def test_garbage_is_told_and_not_tried_again(
    served: Served, model: OpenAIModel, data: bytes
) -> None:
    served[1].early = lambda number, body: sent(data)
    fails(one(model), "JSON", "base_url")
    assert len(served[1].bodies) == 1


@pytest.mark.parametrize(
    "reply",
    [
        [],
        "text",
        {"choices": []},
        {"choices": [{"message": None, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": 7}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": "x"}, "logprobs": [1], "finish_reason": "stop"}]},
        {"choices": [{"message": {"tool_calls": [{}]}, "finish_reason": "stop"}]},
    ],
    ids=lambda reply: json.dumps(reply)[:40],
)
def test_json_of_another_shape_is_told(served: Served, model: OpenAIModel, reply: Any) -> None:
    served[1].early = lambda number, body: sent(json.dumps(reply).encode())
    fails(one(model), "isn't a chat completion")


@pytest.mark.parametrize("finish", ["content_filter", "abort", None])
def test_an_answer_that_was_withheld_is_a_failure(
    served: Served, model: OpenAIModel, finish: str | None
) -> None:
    served[1].late = lambda number, body: lambda reply: _finished(reply, finish)
    fails(one(model), f"finish_reason={finish!r}")


def _finished(reply: Any, finish: str | None) -> Any:
    reply["choices"][0]["finish_reason"] = finish
    return reply


@pytest.mark.parametrize("fault", [slow(20), dripping], ids=["silent", "dripping"])
def test_a_slow_engine_is_left_in_time_and_not_asked_again(served: Served, fault: Fault) -> None:
    model = OpenAIModel(served[0], "m", timeout_s=0.4)
    served[1].early = lambda number, body: fault
    fails(one(model), "0.4 s", "timeout_s")
    assert len(served[1].bodies) == 1


def test_one_row_that_fails_leaves_its_neighbours_alone(served: Served, model: OpenAIModel) -> None:
    def guilty(number: int, body: Any) -> Fault | None:
        return refused(400, "bad row") if "number 5" in json.dumps(body["messages"]) else None

    served[1].early = guilty
    rows = model.generate([ask(f"number {i}") for i in range(9)], Sampling(top_k=4))
    assert [row.error is None for row in rows] == [i != 5 for i in range(9)]
    fails(rows[5], "bad row")


def test_rows_come_back_in_order_and_no_more_are_under_way_than_allowed() -> None:
    echo = ScriptedModel(lambda c, s: c.messages[0].text, delay_s=0.02)
    with serving({"m": echo}) as (url, behaviour):
        model = OpenAIModel(url, max_concurrency=3)
        texts = [f"row {i}" for i in range(20)]
        halves = [texts[:10], texts[10:]]
        got: list[list[str]] = [[], []]

        def run(half: int) -> None:
            rows = model.generate([ask(text) for text in halves[half]], Sampling())
            got[half] = [row.text for row in rows]

        threads = [threading.Thread(target=run, args=(half,)) for half in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == halves
        assert 1 < behaviour.most_live <= 3
        assert behaviour.connections <= 4  # one of them for the list of models
        model.close()


def test_a_connection_that_the_engine_closed_meanwhile_is_replaced(served: Served) -> None:
    model = OpenAIModel(served[0], "m", retries=0)

    answered: list[Any] = []
    closed = threading.Event()

    def last(handler: Any, reply: Any) -> None:
        handler.send(200, answered[0])
        handler.hang_up()
        closed.set()

    served[1].late = lambda number, body: lambda reply: answered.append(reply) or reply
    assert one(model).error is None
    served[1].early = lambda number, body: last if number == 1 else None
    assert one(model).error is None
    assert closed.wait(60)
    assert one(model).error is None
    model.close()


def test_an_exception_in_the_caller_ends_what_is_under_way(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = OpenAIModel(served[0], "m", timeout_s=60)
    served[1].early = lambda number, body: slow(100)
    wait = Future.result

    def interrupted(self: Any, timeout: float | None = None) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return wait(self, timeout)
        until(lambda: served[1].live == 3)
        raise KeyboardInterrupt

    monkeypatch.setattr(Future, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.generate([ask()] * 3, Sampling())
    monkeypatch.undo()
    until(lambda: served[1].gone == 3)  # left, not answered: it would have taken longer


# Log-probabilities


@pytest.mark.parametrize("kind", ["vllm", "sglang", "openai"])
def test_log_probabilities_are_the_models_own(kind: str) -> None:
    script = ScriptedModel("it is red", margin=9.0)
    sampling = Sampling(top_k=8)
    with serving({"m": script}, kind=kind) as (url, _):
        model = OpenAIModel(url)
        # A served script has no texts of tokens to tell the end by, as real tokenizers do.
        far = one(model, sampling)
        near = script.generate([ask()], sampling)[0]
        assert (far.text, far.finish) == (near.text, near.finish)
        if kind == "vllm":
            assert far.token_ids == near.token_ids
            np.testing.assert_allclose(far.top_logprobs, near.top_logprobs, atol=1e-6)
        assert far.top_logprobs.dtype == np.float32
        model.close()


def _reply(rows: list[list[tuple[str, float]]], text: str = "ab", **choice: Any) -> Any:
    content = [
        {"token": row[0][0], "top_logprobs": [{"token": t, "logprob": v} for t, v in row]}
        for row in rows
    ]
    return {
        "choices": [
            {
                "message": {"content": text},
                "logprobs": {"content": content},
                "finish_reason": "length",
                **choice,
            }
        ],
        "usage": {"completion_tokens": len(rows)},
    }


GOOD = [("token_id:5", -0.1), ("token_id:6", -3.0), ("token_id:7", -4.0)]


def _read(reply: Any, k: int, kind: str = "vllm") -> Completion:
    return read_completion(reply, Sampling(top_k=k), CAPABILITIES[kind])


def test_rows_are_sorted_and_a_token_that_is_listed_twice_counts_once() -> None:
    drawn = [("token_id:7", -4.0), ("token_id:5", -0.1), ("token_id:6", -3.0), ("token_id:7", -4.0)]
    found = _read(_reply([drawn, GOOD]), 3)
    assert found.token_ids == (7, 5)
    np.testing.assert_allclose(found.top_logprobs, [[-0.1, -3.0, -4.0]] * 2)
    with pytest.raises(Exception, match=r"than the engine returns \(3\)"):
        _read(_reply([drawn]), 4)


def test_texts_that_collide_are_tokens_of_their_own() -> None:
    same = [("a", -0.1), ("\ufffd", -3.0), ("\ufffd", -4.0)]
    found = _read(_reply([same]), 3, "sglang")
    np.testing.assert_allclose(found.top_logprobs, [[-0.1, -3.0, -4.0]])


@pytest.mark.parametrize(
    "row, words",
    [
        (GOOD[:2], r"--max-logprobs 3, or use top_k=2"),
        ([*GOOD[:2], ("token_id:9", -9999.0)], "structured output"),
        ([*GOOD[:2], ("token_id:9", float("-inf"))], "structured output"),
        ([*GOOD[:2], ("token_id:9", float("nan"))], "not finite"),
        ([*GOOD[:2], ("token_id:9", float("inf"))], "not finite"),
        ([*GOOD[:2], ("token_id:9", 12.5)], "--logprobs-mode raw_logprobs"),
    ],
    ids=["too few", "masked", "-inf", "nan", "inf", "logits"],
)
def test_log_probabilities_that_can_not_be_used_are_refused(
    row: list[tuple[str, float]], words: str
) -> None:
    with pytest.raises(Exception, match=words):
        _read(_reply([GOOD, row]), 3)


def test_the_same_over_http_is_a_failed_row(served: Served, model: OpenAIModel) -> None:
    """Python's JSON has NaN, and so have engines written in it."""

    def spoil(reply: Any) -> Any:
        rows = reply["choices"][0]["logprobs"]["content"]
        rows[1]["top_logprobs"][2]["logprob"] = float("nan")
        return reply

    served[1].late = lambda number, body: spoil if number == 1 else None
    rows = [one(model, Sampling(top_k=4)) for _ in range(3)]
    assert [row.error is None for row in rows] == [True, False, True]
    fails(rows[1], "not finite", "--dtype")


def test_log_probabilities_that_were_cut_off_are_noticed(
    served: Served, model: OpenAIModel
) -> None:
    def cut(reply: Any) -> Any:
        del reply["choices"][0]["logprobs"]["content"][1:]
        return reply

    served[1].late = lambda number, body: cut
    fails(one(model, Sampling(top_k=4)), "1 of 4 tokens")


def test_an_engine_that_drops_them_is_refused_at_the_start_and_in_use(served: Served) -> None:
    served[1].drops_logprobs = True
    with pytest.raises(ConfigError, match="returned no log-probabilities"):
        OpenAIModel(served[0], "m", top_k=4)
    model = OpenAIModel(served[0], "m")
    fails(one(model, Sampling(top_k=4)), "returned no log-probabilities")
    fails(one(model, Sampling(max_tokens=1, first_token=True)), "returned no log-probabilities")
    assert one(model).text == "it is red"  # the agent needs none
    model.close()


def test_an_engine_that_caps_them_is_refused_with_what_to_do(served: Served) -> None:
    served[1].max_logprobs = 20
    with pytest.raises(ConfigError, match=r"than the engine returns \(20\).*--max-logprobs 64"):
        OpenAIModel(served[0], "m", top_k=64)
    model = OpenAIModel(served[0], "m", top_k=20)
    assert one(model, Sampling(top_k=20)).top_logprobs.shape == (3, 20)
    fails(one(model, Sampling(top_k=20, temperature=1.0)), "one more than top_k")
    # The judge needs yes and no only, and takes what there is; found out once.
    before = len(served[1].bodies)
    for _ in range(2):
        first = one(model, Sampling(max_tokens=1, first_token=True)).first_token
        assert first["it"] == pytest.approx(1.0)
    assert [body["top_logprobs"] for body in served[1].bodies[before:]] == [64, 20, 20]
    model.close()


def test_first_tokens_of_the_same_text_are_summed() -> None:
    row = [(" yes", np.log(0.5)), (" yes", np.log(0.25)), ("no", np.log(0.2)), ("", -3.0)]
    reply = _reply([row], text="yes")
    found = read_completion(reply, Sampling(max_tokens=1, first_token=True), CAPABILITIES["sglang"])
    assert found.first_token == pytest.approx({" yes": 0.75, "no": 0.2})


# Stop strings, ends and texts


@pytest.mark.parametrize("kind", ["vllm", "sglang", "openai"])
def test_the_stop_string_that_was_met_stays_in_the_text(kind: str) -> None:
    script = ScriptedModel("<a>x</a> more")
    with serving({"m": script}, kind=kind) as (url, _):
        model = OpenAIModel(url)
        assert one(model, Sampling(stop=("</b>", "</a>"))).text == "<a>x</a>"
        assert one(model).text == "<a>x</a> more"
        model.close()


@pytest.mark.parametrize(
    "text, stops, expected",
    [
        ("<a>x", ("</a>",), "<a>x</a>"),
        ("<a>x</a>", ("</a>",), "<a>x</a>"),
        ("<a>x</a> y", ("</a>",), "<a>x</a>"),  # kept, and run over
        ("<t>x</t><a>y", ("</t>", "</a>"), "<t>x</t>"),
        ("<a>y", ("</t>", "</a>", "\n\n"), "<a>y</a>"),
        ("plain", ("</a>", "\n"), "plain"),  # the end of the sequence, as far as can be told
    ],
)
def test_an_engine_that_does_not_say_which_stop_string_it_was(
    text: str, stops: tuple[str, ...], expected: str
) -> None:
    reply = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
    assert read_completion(reply, Sampling(stop=stops), CAPABILITIES["openai"]).text == expected


@pytest.mark.parametrize("last, kept", [("<|im_end|>", 1), ("", 1), ("b", 2)])
def test_the_end_of_the_sequence_is_told_from_the_answer(last: str, kept: int) -> None:
    rows = [[("a", -0.1)], [(last, -0.2)]]
    text = "ab" if last == "b" else "a"
    found = _read(_reply(rows, text, finish_reason="stop"), 1, "openai")
    assert len(found.token_ids) == found.top_logprobs.shape[0] == kept


def test_an_answer_of_nothing_but_its_end_has_no_tokens() -> None:
    found = _read(_reply([[("token_id:2", -0.1)]], "", finish_reason="stop"), 1)
    assert (found.token_ids, found.top_logprobs.shape, found.error) == ((), (0, 0), None)


def test_calls_and_thoughts_that_the_engine_took_apart_are_put_together() -> None:
    call = {"function": {"name": "zoom", "arguments": '{"b": [1, 2]}'}}
    message = {"content": None, "reasoning_content": "hm", "tool_calls": [call]}
    reply = {"choices": [{"message": message, "finish_reason": "tool_calls"}]}
    found = read_completion(reply, Sampling(), CAPABILITIES["openai"])
    assert found.finish == "stop"
    assert found.text == (
        '<think>hm</think>\n<tool_call>\n{"name": "zoom", "arguments": {"b": [1, 2]}}\n</tool_call>'
    )


# What is sent


@pytest.mark.parametrize("kind, choice", [("vllm", "none"), ("sglang", "auto"), ("openai", "auto")])
def test_tools_go_to_the_chat_template(kind: str, choice: str) -> None:
    schema = {"type": "function", "function": {"name": "zoom", "parameters": {}}}
    with serving({"m": ScriptedModel("x")}, kind=kind) as (url, behaviour):
        model = OpenAIModel(url)
        rows = model.generate([ask(tools=(schema,)), ask(tools=(schema["function"],))], Sampling())
        assert [row.error for row in rows] == [None, None]
        assert all(b["tools"] == [schema] for b in behaviour.bodies)
        assert all(b["tool_choice"] == choice for b in behaviour.bodies)
        model.close()


def test_a_checkpoints_own_sampling_defaults_are_set_aside(
    served: Served, model: OpenAIModel
) -> None:
    one(model)
    body = served[1].bodies[0]
    assert (body["repetition_penalty"], body["top_k"], body["temperature"]) == (1.0, -1, 0.0)


def test_extra_fields_are_added_and_taken_out(served: Served) -> None:
    extra = {"mm_processor_kwargs": {"max_pixels": 9}, "min_p": None}
    model = OpenAIModel(served[0], "m", extra_body=extra)
    one(model)
    body = served[1].bodies[0]
    assert body["mm_processor_kwargs"] == {"max_pixels": 9}
    assert "min_p" not in body
    model.close()


@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_images_arrive_as_they_are_seen(form: Any) -> None:
    got: list[Image.Image] = []

    def look(conversation: Conversation, sampling: Sampling) -> str:
        got.extend(conversation.images)
        return "x"

    see_through = Image.new("RGBA", (30, 20), (255, 0, 0, 0))
    turn = Message("user", (RED, "first", " and", see_through, RED.convert("L")))
    with serving({"m": ScriptedModel(look)}) as (url, behaviour):
        model = OpenAIModel(url, image_format=form)
        assert model.generate([Conversation((turn,))], Sampling())[0].error is None
        texts = [p["text"] for p in behaviour.bodies[0]["messages"][0]["content"] if "text" in p]
        assert texts == ["first and"]
        model.close()
    assert [image.size for image in got] == [(60, 40), (30, 20), (60, 40)]
    assert all(image.mode == "RGB" for image in got)
    tolerance = 0 if form == "png" else 3
    expected = [(255, 0, 0), (255, 255, 255), (76, 76, 76)]
    for image, colour in zip(got, expected, strict=True):
        off = np.asarray(image, dtype=int) - np.asarray(colour)
        assert abs(off).max() <= tolerance


def test_encoded_images_stay_within_their_bytes() -> None:
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (50, 50, 3), dtype=np.uint8)) for _ in range(8)]
    links = ImageUrls(30_000, "png", 95)
    for image in noise:
        links(image)
    assert 0 < links.kept_bytes <= 30_000
    links(noise[-1])
    assert links.encoded == 8
    links(noise[0])
    assert links.encoded == 9


def test_a_path_where_an_image_should_be_is_never_opened(model: OpenAIModel) -> None:
    turn = Message("user", (b"/etc/passwd", "what?"))  # type: ignore[arg-type]
    [row] = model.generate([Conversation((turn,))], Sampling())
    fails(row, "only PIL images")


# Beginnings


def test_the_only_model_is_found_and_so_is_the_engine(served: Served) -> None:
    model = OpenAIModel(served[0].removesuffix("/v1"))
    assert (model.name, model.engine) == ("m", "vllm")
    assert repr(model) == f"OpenAIModel({served[0]!r}, 'm', engine='vllm')"


def test_of_several_models_one_must_be_named() -> None:
    scripts = {"a": ScriptedModel("x"), "b": ScriptedModel("y")}
    with serving(scripts) as (url, _):
        with pytest.raises(ConfigError, match=r"\['a', 'b'\]: name the model"):
            OpenAIModel(url)
        with pytest.raises(ConfigError, match=r"model='c' isn't served"):
            OpenAIModel(url, "c")
        assert one(OpenAIModel(url, "b", name="mine")).text == "y"


def test_an_engine_that_is_not_there_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"can't be reached.*start the engine"):
        OpenAIModel("http://127.0.0.1:9/v1", "m", retries=1, backoff_s=0.01)
    late = OpenAIModel("http://127.0.0.1:9/v1", "m", engine="vllm", retries=0)
    fails(one(late), "can't be reached")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://x/v1",
        "http://",
        "http://a b/v1",
        "http://x/v1\r\nHost: y",
        "http://x\\@y/v1",
        "http://x:99999/v1",
        "http://user:hunter2@x/v1",
        "http://x/v1?key=hunter2",
        "http://x/v1#hunter2",
        7,
    ],
)
def test_an_address_that_can_not_be_right_is_refused(url: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        OpenAIModel(url, "m", engine="vllm")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"engine": "tgi"},
        {"image_format": "gif"},
        {"jpeg_quality": 100},
        {"cache_bytes": -1},
        {"max_concurrency": 0},
        {"retries": -1},
        {"top_k": 0},
        {"timeout_s": 0},
        {"timeout_s": float("nan")},
        {"backoff_s": -1},
        {"max_wait_s": float("inf")},
        {"headers": {"X-Key": "a\r\nb"}},
        {"headers": {"X Key": "a"}},
    ],
    ids=str,
)
def test_arguments_that_can_not_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        OpenAIModel("http://x.test/v1", "m", **{"engine": "vllm", **wrong})


def test_an_empty_stop_string_is_refused(model: OpenAIModel) -> None:
    with pytest.raises(ConfigError, match="empty string"):
        one(model, Sampling(stop=("",)))


# Keys


def test_the_key_is_sent_and_never_shown(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    served[1].key = "sk-very-secret"
    monkeypatch.setenv("SPECEYES_API_KEY", "sk-wrong-secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-you")
    with pytest.raises(ConfigError) as caught:
        OpenAIModel(served[0], "m")  # the server quotes the key that it was sent
    wrong = OpenAIModel(served[0], "m", engine="vllm")
    told = one(wrong).error or ""
    assert "401" in told and "***" in told and "api_key" in told
    monkeypatch.setenv("SPECEYES_API_KEY", "sk-very-secret")
    right = OpenAIModel(served[0], "m")
    assert one(right).error is None
    shown = [told, str(caught.value), repr(wrong), repr(right), repr(right.__dict__), caplog.text]
    for text in shown:
        assert "secret" not in text and "not-for-you" not in text
    with pytest.raises(ConfigError) as refused_key:
        OpenAIModel(served[0], "m", api_key="sk-very-secret\n")
    assert "secret" not in str(refused_key.value)


def test_a_key_for_one_company_is_not_sent_to_another(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPECEYES_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-you")
    served[1].key = "sk-not-for-you"
    fails(one(OpenAIModel(served[0], "m", engine="vllm")), "401")


def test_a_key_over_plain_http_to_another_machine_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    OpenAIModel("http://gpu.test:8000/v1", "m", engine="vllm", api_key="sk-secret")
    assert "plain text" in caplog.text and "sk-secret" not in caplog.text


# How images are seen


@settings(max_examples=60)
@given(
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    limits=st.sampled_from(
        [(28, 3136, 12_845_056), (32, 65_536, 16_777_216), (28, 10_160, 15_735), (20, 400, 800)]
    ),
)
def test_the_resizing_rule_is_that_of_the_qwen_families(
    width: int, height: int, limits: tuple[int, int, int]
) -> None:
    from qwen_vl_utils import smart_resize

    image = _sized(width, height)
    sight = QwenResize(*limits)
    if max(width, height) > 200 * min(width, height):
        with pytest.raises(ImageError, match="200"):
            sight(image)
        return
    factor, least, most = limits
    rule: Callable[..., tuple[int, int]] = smart_resize
    down, across = rule(height, width, factor=factor, min_pixels=least, max_pixels=most)
    assert sight(image) == (max(across, factor), max(down, factor))


def _sized(width: int, height: int) -> Image.Image:
    image = Image.new("1", (1, 1))
    image._size = (width, height)  # type: ignore[attr-defined]  # 25 MB a case otherwise
    return image


@pytest.mark.parametrize(
    "name, seen",
    [
        ("Qwen/Qwen3-VL-8B-Instruct", QwenResize(32, 65_536, 16_777_216)),
        ("Qwen/Qwen2.5-VL-7B-Instruct", QwenResize()),
        ("ChenShawn/DeepEyes-7B", QwenResize()),
        ("llava-onevision", own_size),
    ],
)
def test_the_rule_is_picked_by_the_models_name(name: str, seen: Any) -> None:
    model = OpenAIModel("http://localhost:9/v1", name, engine="vllm")
    picture = Image.new("RGB", (333, 210))
    assert model.seen_size(picture) == seen(picture)
    mine = OpenAIModel("http://localhost:9/v1", name, engine="vllm", seen=lambda image: (7, 8))
    assert mine.seen_size(picture) == (7, 8)


def test_a_rule_of_resizing_may_be_written_down() -> None:
    picture = Image.new("RGB", (1000, 700))
    rule = {"factor": 28, "min_pixels": 4 * 28 * 28, "max_pixels": 640 * 480}

    def made(seen: Any) -> OpenAIModel:
        return OpenAIModel("http://localhost:9/v1", "mine", engine="vllm", seen=seen)

    assert made(rule).seen_size(picture) == (644, 448)
    assert made("own").seen_size(picture) == (1000, 700)
    wrong = ({}, {"factor": 28}, {**rule, "more": 1}, {**rule, "factor": "28"}, "full", 28)
    for one in (*wrong, {**rule, "factor": True}, {**rule, "max_pixels": 1}):
        with pytest.raises(ConfigError, match="factor"):
            made(one)


def test_pixels_of_an_engine_whose_resizing_is_guessed_are_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def told(dialect: str, name: str = "guessed", **more: Any) -> str:
        caplog.clear()
        model = OpenAIModel("http://localhost:9/v1", name, engine="vllm", **more)
        AgenticFallback(model, tools=["zoom"], dialect=dialect)
        return caplog.text

    assert "seen=" in told("deepeyes") and "crops may miss" in caplog.text
    assert "crops" not in told("deepeyes", seen="own")  # it is known
    assert "crops" not in told("deepeyes", "Qwen/Qwen2.5-VL-7B-Instruct")
    assert "crops" not in told("qwen3vl", "other")  # whose boxes run from 0 to 1000
