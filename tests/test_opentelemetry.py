"""Spans of queries, read back from the real SDK's in-memory exporter."""

from __future__ import annotations

import asyncio
import itertools
import sys
from typing import Any

import pytest
from PIL import Image

from speceyes import SpecPipeline
from speceyes.errors import ConfigError
from speceyes.models.scripted import ScriptedModel
from support.served import pipeline

pytest.importorskip("opentelemetry.sdk", reason="the OpenTelemetry SDK is not installed")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter,
)
from opentelemetry.trace import StatusCode

from speceyes.integrations.opentelemetry import OpenTelemetryObserver

DOT = Image.new("RGB", (32, 32))
CALL = (
    '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 16, 16]}}'
    "</tool_call>"
)
OUTSIDE = CALL.replace("[0, 0, 16, 16]", "[90, 90, 99, 99]")


class Traced:
    def __init__(self, **more: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        large = ScriptedModel(
            lambda conversation, sampling: {
                "Reply with one word": {"secret-tools": "yes", "": "no"},
                "secret-lost": ValueError("secret reason"),
                "": [CALL, OUTSIDE, "<answer>secret-blue</answer>"],
            },
            name="big",
        )
        small = ScriptedModel({"secret-lost": "", "": "secret-red"}, name="little")
        observer = OpenTelemetryObserver(self.provider, **more)
        self.pipe = SpecPipeline.from_pretrained(large, small, observers=[observer])

    def spans(self) -> list[ReadableSpan]:
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def roots(self) -> dict[str, ReadableSpan]:
        return {
            str(_of(span)["speceyes.query.id"]): span
            for span in self.spans()
            if span.name == "invoke_agent speceyes"
        }

    def within(self, root: ReadableSpan) -> list[ReadableSpan]:
        assert root.context is not None
        here = root.context.span_id
        return [s for s in self.spans() if s.parent is not None and s.parent.span_id == here]


def _of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def _item(name: str) -> dict[str, Any]:
    return {"image": DOT, "question": name, "id": name.removeprefix("secret-")}


def test_a_draft_is_a_span_of_judge_draft_and_gate() -> None:
    traced = Traced()
    result = traced.pipe(_item("secret-easy"))
    [root] = traced.roots().values()
    about = _of(root)
    assert about["gen_ai.operation.name"] == "invoke_agent"
    assert (about["speceyes.route"], about["speceyes.query.images"]) == ("draft", 1)
    judge, draft, gate = traced.within(root)
    assert [span.name for span in (judge, draft, gate)] == ["chat big", "chat little", "gate"]
    said = _of(draft)
    assert said["gen_ai.request.model"] == "little" and said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.response.finish_reasons"] == ("stop",)
    assert result.draft is not None and result.verdict is not None
    assert said["gen_ai.usage.output_tokens"] == len(result.draft.token_ids)
    assert said["gen_ai.usage.input_tokens"] == result.draft.prompt_tokens
    assert _of(judge)["speceyes.judge.needs_tools"] is False
    assert _of(gate)["speceyes.gate.accepted"] is True
    assert _of(gate)["speceyes.gate.score"] == result.verdict.score
    total = sum(_of(span)["gen_ai.usage.output_tokens"] for span in (judge, draft))
    assert about["gen_ai.usage.output_tokens"] == total
    for span in (judge, draft, gate):
        assert root.start_time <= span.start_time <= span.end_time <= root.end_time


def test_turns_and_tools_of_the_agent() -> None:
    traced = Traced()
    assert traced.pipe(_item("secret-tools")).answer == "secret-blue"
    [root] = traced.roots().values()
    assert (_of(root)["speceyes.route"], _of(root)["speceyes.agent.depth"]) == ("agent", 2)
    _, *turns = traced.within(root)
    tool, chat = "execute_tool image_zoom_in_tool", "chat big"
    assert [span.name for span in turns] == [chat, tool, chat, tool, chat]
    assert [_of(span)["speceyes.turn"] for span in turns] == [1, 1, 2, 2, 3]
    assert [_of(span).get("error.type") for span in turns] == [
        None,
        None,
        None,
        "tool_failed",
        None,
    ]
    assert _of(turns[1])["gen_ai.tool.name"] == "image_zoom_in_tool"
    for before, after in itertools.pairwise(turns):
        assert before.end_time <= after.start_time


def test_what_fails_is_an_error_without_its_words() -> None:
    traced = Traced()
    traced.pipe([_item("secret-lost"), {"image": b"x", "question": "secret-unread", "id": "none"}])
    running = traced.pipe.stream([_item("secret-tools"), _item("secret-easy")])
    next(running)
    running.close()
    roots = traced.roots()
    kinds = {name: _of(span).get("error.type") for name, span in roots.items()}
    assert kinds == {
        "lost": "query_failed",
        "none": "query_failed",
        "easy": None,
        "tools": "given_up",
    }
    for name, span in roots.items():
        failed = span.status.status_code is StatusCode.ERROR
        assert failed == (kinds[name] is not None)
    for span in traced.spans():
        assert "secret" not in f"{span.name} {_of(span)} {span.status.description} {span.events}"


def test_content_is_there_where_it_is_asked_for() -> None:
    traced = Traced(content=True)
    traced.pipe(_item("secret-tools"))
    [root] = traced.roots().values()
    assert "secret-tools" in _of(root)["gen_ai.input.messages"]
    assert "secret-blue" in _of(root)["gen_ai.output.messages"]
    tools = [_of(s) for s in traced.within(root) if s.name.startswith("execute_tool")]
    assert "bbox_2d" in tools[0]["gen_ai.tool.call.arguments"]


def test_a_query_belongs_to_the_span_that_asked() -> None:
    traced = Traced()
    tracer = traced.provider.get_tracer("host")

    async def one(name: str) -> None:
        with tracer.start_as_current_span(f"host {name}"):
            await traced.pipe.ask(_item(name))

    async def both() -> None:
        await asyncio.gather(one("secret-tools"), one("secret-easy"))

    with traced.pipe:
        asyncio.run(both())
    hosts = {span.context.span_id: span.name for span in traced.spans() if "host" in span.name}
    for name, root in traced.roots().items():
        assert root.parent is not None
        assert hosts[root.parent.span_id] == f"host secret-{name}"


def test_without_an_sdk_nothing_is_kept() -> None:
    seen: list[int] = []
    observer = OpenTelemetryObserver()
    pipe = pipeline(observers=[observer, lambda event: seen.append(observer.under_way)])
    assert pipe(DOT, "What?").answer == "red"
    assert seen[-1] == 0 == observer.under_way


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "speceyes.integrations.opentelemetry")
    with pytest.raises(ConfigError, match=r"speceyes\[otel\]"):
        import speceyes.integrations.opentelemetry  # noqa: F401
