"""Spans that end in memory, below a root of the test's own."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Spans:
    """A tracer provider like the one that Serve makes, for this test alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._exporter = InMemorySpanExporter()
        self._provider = TracerProvider(shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        monkeypatch.setattr("deployments.tracing._tracer", self._provider.get_tracer("vitrine"))

    @contextmanager
    def root(self) -> Iterator[str]:
        """Be within a recorded span, as a replica's method is; gives the trace's id."""
        with self._provider.get_tracer("serve").start_as_current_span("replica") as span:
            yield f"{span.get_span_context().trace_id:032x}"

    @property
    def ended(self) -> dict[str, ReadableSpan]:
        """Spans by name; a name that came twice would hide one."""
        spans = self._exporter.get_finished_spans()
        by_name = {span.name: span for span in spans}
        assert len(by_name) == len(spans)
        return by_name
