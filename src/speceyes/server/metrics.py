"""A server's counters in Prometheus' text format. No label holds anything a client sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from speceyes.pipeline import SpecPipeline
from speceyes.types import Result

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


@final
class Metrics:
    """The counters of one server.

    Args:
        pipe: Gives the pipeline whose costs and audits are read at each look.
        gauges: Further values, read then too: name, what it is, function.

    Example:
        >>> from speceyes.answerer import SpeculativeAnswerer
        >>> from speceyes.gate import SeparabilityGate
        >>> from speceyes.models.scripted import ScriptedModel
        >>> drafts = SpeculativeAnswerer(ScriptedModel("red"))
        >>> pipe = SpecPipeline(answerer=drafts, gate=SeparabilityGate(0.98))
        >>> metrics = Metrics(lambda: pipe, ())
        >>> metrics.answered(200)
        >>> 'speceyes_responses_total{status="200"} 1.0' in metrics.text().decode()
        True
    """

    def __init__(
        self,
        pipe: Callable[[], SpecPipeline],
        gauges: Iterable[tuple[str, str, Callable[[], float]]],
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Readings(pipe, tuple(gauges)))
        self._responses = Counter(
            "speceyes_responses",
            "Chat completions answered or refused; 499: the client left",
            ["status"],
            registry=self._registry,
        )
        self._routes = Counter(
            "speceyes_results", "What became of queries", ["route"], registry=self._registry
        )
        self._phases = Histogram(
            "speceyes_phase_seconds",
            "A query's share of each phase; queue: until the models took it up; latency: all of it",
            ["phase"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "speceyes_batch_queries",
            "Queries drafted together",
            buckets=_ROWS,
            registry=self._registry,
        )

    def answered(self, status: int) -> None:
        """Counts a response."""
        self._responses.labels(str(status)).inc()

    def batched(self, size: int) -> None:
        """Counts a batch in front."""
        self._batches.observe(size)

    def result(self, result: Result, queued_s: float) -> None:
        """Counts what became of a query."""
        self._routes.labels(result.route).inc()
        self._phases.labels("queue").observe(queued_s)
        for name in ("judge", "draft", "gate", "fallback", "latency"):
            seconds = getattr(result.timings, name)
            if seconds is not None:
                self._phases.labels(name).observe(seconds)

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self._registry)


class _Readings(Collector):
    """Values that are read at each look rather than counted."""

    def __init__(
        self,
        pipe: Callable[[], SpecPipeline],
        gauges: tuple[tuple[str, str, Callable[[], float]], ...],
    ) -> None:
        self._pipe, self._gauges = pipe, gauges

    def collect(self) -> Iterator[Metric]:
        for name, what, read in self._gauges:
            yield GaugeMetricFamily(f"speceyes_{name}", what, value=read())
        found = self._pipe().costs.efficiency()
        for name, what, value in (
            ("beta", "Share of queries that no judge sent to the agent", found.beta),
            ("alpha", "Share of these whose draft was accepted", found.alpha),
            ("gain", "Predicted gain in throughput over the agent alone", found.gain),
        ):
            if value is not None:
                yield GaugeMetricFamily(f"speceyes_{name}", what, value=value)
        auditor = self._pipe().auditor
        if auditor is None:
            return
        monitor = auditor.monitor
        yield CounterMetricFamily("speceyes_audits", "Drafts audited", value=monitor.audits)
        yield CounterMetricFamily(
            "speceyes_audit_disagreements", "Of these, bad ones", value=monitor.disagreements
        )
        yield GaugeMetricFamily(
            "speceyes_gate_tripped",
            "1 where audits have refuted the promised risk, and no draft is accepted",
            value=float(monitor.tripped),
        )
