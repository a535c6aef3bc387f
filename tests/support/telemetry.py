"""Metrics and spans kept in memory, and the queries of alerts and dashboard."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from deployments.observability.metrics import METRICS, Metric

OF_OTHERS = {
    "haproxy_frontend_http_responses_total": {"proxy", "code"},
    "kuberay_service_condition_upgrade_in_progress": {"name", "namespace", "uid", "condition"},
    "kube_cronjob_status_last_successful_time": {"namespace", "cronjob"},
}
"""Metrics of HAProxy 2.8, KubeRay 1.7 and kube-state-metrics, with their labels."""
MONITORING = Path(__file__).parents[2] / "k8s" / "monitoring"


@cache
def rules() -> list[dict[str, Any]]:
    """Return the alerts."""
    content = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    return [rule for group in content["spec"]["groups"] for rule in group["rules"]]


@cache
def queries() -> list[str]:
    """Return the queries of all panels and alerts."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return panels + [rule["expr"] for rule in rules()]


def selections(query: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Parse a query; yield each metric with the labels it is matched and grouped by.

    Raises:
        ValueError: this is no PromQL.
    """
    yield from _selections(promql_parser.parse(query), frozenset())


def conditions(query: str) -> Iterator[tuple[str, str, str]]:
    """Parse a query; yield each metric with each label it is matched by and the value or pattern.

    Raises:
        ValueError: this is no PromQL.
    """
    for selector in _selectors(promql_parser.parse(query)):
        for matcher in selector.matchers.matchers:
            yield selector.name, matcher.name, matcher.value


def _selectors(node: Any) -> Iterator[Any]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node
        return
    for inner in _inner(node):
        yield from _selectors(inner)


def _selections(node: Any, labels: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node.name, labels | {matcher.name for matcher in node.matchers.matchers}
        return
    if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
        assert node.modifier.type == promql_parser.AggModifierType.By, "name the labels that stay"
        labels |= set(node.modifier.labels)
    if isinstance(node, promql_parser.BinaryExpr) and node.modifier and node.modifier.matching:
        labels |= set(node.modifier.matching.labels)
    for inner in _inner(node):
        yield from _selections(inner, labels)


def _inner(node: Any) -> list[Any]:
    if isinstance(node, promql_parser.MatrixSelector):
        return [node.vector_selector]
    if isinstance(node, promql_parser.BinaryExpr):
        return [node.lhs, node.rhs]
    if isinstance(node, promql_parser.Call):
        return list(node.args)
    return [node.expr] if hasattr(node, "expr") else []


class RecordedMetrics:
    """Keeps every value with its labels, which must be those that the metric declares."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._records: list[tuple[Metric, float, dict[str, str]]] = []
        for metric in METRICS:
            monkeypatch.setitem(vars(metric), "_exported", _Exported(metric, self._records))

    @property
    def values(self) -> list[tuple[str, float, dict[str, str]]]:
        """Return name, value and labels of all records, in order."""
        for metric, _, labels in self._records:
            assert set(labels) == set(metric.labels), f"labels of {metric.name}"
            assert all(isinstance(each, str) for each in labels.values())
        return [(metric.name, value, labels) for metric, value, labels in self._records]

    def of(self, metric: Metric, **labels: str) -> list[float]:
        """Return the values of a metric with these labels, among others."""
        return [
            value
            for name, value, found in self.values
            if name == metric.name and labels.items() <= found.items()
        ]


class _Exported:
    def __init__(self, metric: Metric, records: list[tuple[Metric, float, dict[str, str]]]) -> None:
        self._metric, self._records = metric, records
        self.inc = self.set = self.observe = self._record

    def _record(self, value: float, tags: dict[str, str]) -> None:
        self._records.append((self._metric, value, tags))


class Spans:
    """A tracer provider like the one that Serve makes, for this test alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._exporter = InMemorySpanExporter()
        self._provider = TracerProvider(shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        monkeypatch.setattr(
            "deployments.observability.telemetry._tracer", self._provider.get_tracer("vitrine")
        )

    @contextmanager
    def root(self) -> Iterator[str]:
        """Run within a recorded span, as a replica's method does; yields the trace id."""
        with self._provider.get_tracer("serve").start_as_current_span("replica") as span:
            yield f"{span.get_span_context().trace_id:032x}"

    @property
    def ended(self) -> dict[str, ReadableSpan]:
        """Return spans by name, each once."""
        spans = self._exporter.get_finished_spans()
        by_name = {span.name: span for span in spans}
        assert len(by_name) == len(spans)
        return by_name
