"""Queries as OpenTelemetry spans, named by its conventions for generative AI.

A query is a span `invoke_agent`, in it a span `chat` for the judge, the draft and each turn of the
agent, `execute_tool` for its tools, and one for the gate. Questions, answers, arguments and images
are in no span unless `content=True` asks for them; images never are.
"""

from __future__ import annotations

import json
import threading
from typing import Any, Final, final

from speceyes.errors import ConfigError
from speceyes.integrations import installed
from speceyes.pipeline.events import Event, PhaseEnded, QueryBegan, QueryEnded, TurnEnded
from speceyes.types import Completion, Judgement, Verdict

try:
    from opentelemetry import trace
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode
except ImportError as exc:
    raise ConfigError('opentelemetry is not installed: pip install "speceyes[otel]"') from exc

AGENT: Final = "speceyes"
_NS: Final = 1_000_000_000


@final
class OpenTelemetryObserver:
    """An observer for `SpecPipeline(observers=[...])` that makes spans.

    A query's span is a child of whatever span was current where it was asked. Phases work on
    batches: the times of a span are those of the batch that the query was part of, and
    `speceyes.batch.size` says how many shared it.

    Args:
        provider: A tracer provider; None for the process's own.
        content: Also write down questions, answers and tool arguments. They may hold
            what people don't want kept.

    Example:
        >>> from speceyes import SpecPipeline
        >>> from speceyes.models.scripted import ScriptedModel
        >>> pipe = SpecPipeline.from_pretrained(
        ...     small=ScriptedModel("red"), judge=None, observers=[OpenTelemetryObserver()]
        ... )
    """

    def __init__(
        self, provider: trace.TracerProvider | None = None, *, content: bool = False
    ) -> None:
        self._tracer = trace.get_tracer(AGENT, installed(), tracer_provider=provider)
        self._content = content
        self._open: dict[int, Span] = {}
        self._lock = threading.Lock()

    @property
    def under_way(self) -> int:
        """Number of queries whose span has begun and not ended."""
        with self._lock:
            return len(self._open)

    def __call__(self, event: Event) -> None:
        """Begins, ends or makes a span."""
        if isinstance(event, QueryBegan):
            self._began(event)
        elif isinstance(event, QueryEnded):
            self._ended(event)
        elif isinstance(event, TurnEnded):
            self._turn(event)
        else:
            self._phase(event)

    def _began(self, event: QueryBegan) -> None:
        about: dict[str, Any] = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": AGENT,
            "gen_ai.agent.name": AGENT,
            "speceyes.query.id": event.query_id,
        }
        if event.query is not None:
            about["speceyes.query.images"] = len(event.query.images)
            if self._content:
                about["gen_ai.input.messages"] = _message("user", event.query.text)
        span = self._tracer.start_span(
            f"invoke_agent {AGENT}",
            kind=SpanKind.INTERNAL,
            attributes=about,
            start_time=_ns(event.began),
        )
        with self._lock:
            self._open[event.key] = span

    def _ended(self, event: QueryEnded) -> None:
        with self._lock:
            span = self._open.pop(event.key, None)
        if span is None:
            return
        result = event.result
        if result is None:
            _failed(span, "given_up")
        else:
            span.set_attribute("speceyes.route", result.route)
            read, written = 0, 0
            judged = None if result.judgement is None else result.judgement.completion
            for said in (judged, result.draft):
                if said is not None:
                    read, written = read + said.prompt_tokens, written + len(said.token_ids)
            if result.trajectory is not None:
                read += sum(step.prompt_tokens for step in result.trajectory.steps)
                written += result.trajectory.tokens
                span.set_attribute("speceyes.agent.depth", result.trajectory.depth)
            span.set_attribute("gen_ai.usage.input_tokens", read)
            span.set_attribute("gen_ai.usage.output_tokens", written)
            if result.error is not None:
                _failed(span, "no_answer" if result.route == "agent" else "query_failed")
            elif self._content and result.answer is not None:
                span.set_attribute("gen_ai.output.messages", _message("assistant", result.answer))
        span.end(_ns(event.ended))

    def _phase(self, event: PhaseEnded) -> None:
        outcome = event.outcome
        if isinstance(outcome, Verdict):
            about: dict[str, Any] = {
                "speceyes.phase": "gate",
                "speceyes.gate.accepted": outcome.accepted,
                "speceyes.gate.threshold": outcome.threshold,
            }
            if outcome.score is not None:
                about["speceyes.gate.score"] = outcome.score
            self._make(event.key, "gate", about, event.began, event.ended)
        elif isinstance(outcome, Judgement | Completion):
            said = outcome.completion if isinstance(outcome, Judgement) else outcome
            about = {
                **_chat(event.model, event.phase),
                "speceyes.batch.size": event.rows,
            }
            if isinstance(outcome, Judgement):
                about["speceyes.judge.needs_tools"] = outcome.needs_tools
                if outcome.p_tools is not None:
                    about["speceyes.judge.p_tools"] = outcome.p_tools
            error = None
            if said is not None:
                about |= {
                    "gen_ai.usage.input_tokens": said.prompt_tokens,
                    "gen_ai.usage.output_tokens": len(said.token_ids),
                    "gen_ai.response.finish_reasons": [said.finish],
                }
                error = None if said.error is None else "model_failed"
                if self._content:
                    about["gen_ai.output.messages"] = _message("assistant", said.text)
            self._make(
                event.key, _named("chat", event.model), about, event.began, event.ended, error
            )

    def _turn(self, event: TurnEnded) -> None:
        step = event.step
        about = {
            **_chat(event.model, "agent"),
            "speceyes.turn": event.number,
            "gen_ai.usage.input_tokens": step.prompt_tokens,
            "gen_ai.usage.output_tokens": step.tokens,
        }
        if self._content:
            about["gen_ai.output.messages"] = _message("assistant", step.text)
        error = None if step.error is None else "turn_failed"
        self._make(event.key, _named("chat", event.model), about, event.began, event.said, error)
        for call, seen in zip(step.calls, step.observations, strict=False):
            about = {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": call.name,
                "gen_ai.tool.type": "function",
                "speceyes.turn": event.number,
            }
            if self._content:
                arguments = json.dumps(dict(call.arguments), ensure_ascii=False, default=str)
                about["gen_ai.tool.call.arguments"] = arguments
            failed = None if seen.error is None else "tool_failed"
            # The tools of a turn run one after the other; how long each took isn't told.
            name = f"execute_tool {call.name}"
            self._make(event.key, name, about, event.said, event.ended, failed)

    def _make(
        self,
        key: int,
        name: str,
        about: dict[str, Any],
        began: float,
        ended: float,
        error: str | None = None,
    ) -> None:
        """A span that is over already, in the query's."""
        with self._lock:
            parent = self._open.get(key)
        if parent is None:
            return
        span = self._tracer.start_span(
            name,
            context=trace.set_span_in_context(parent),
            kind=SpanKind.CLIENT if name.startswith("chat") else SpanKind.INTERNAL,
            attributes=about,
            start_time=_ns(began),
        )
        if error is not None:
            _failed(span, error)
        span.end(_ns(ended))


def _chat(model: str | None, phase: str) -> dict[str, Any]:
    about: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": AGENT,
        "speceyes.phase": phase,
    }
    return about | ({"gen_ai.request.model": model} if model else {})


def _named(operation: str, model: str | None) -> str:
    return f"{operation} {model}" if model else operation


def _message(role: str, text: str) -> str:
    """A message as the conventions write it: JSON of parts."""
    parts = [{"type": "text", "content": text}]
    return json.dumps([{"role": role, "parts": parts}], ensure_ascii=False)


def _failed(span: Span, kind: str) -> None:
    """Says so without the error's own words, which may quote what was asked."""
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))


def _ns(seconds: float) -> int:
    return int(seconds * _NS)
