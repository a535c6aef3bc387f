"""Spans of OpenTelemetry below those of Serve, and the exporter that Serve loads by its import path.

Serve makes the tracer provider when the Serve configuration has a `tracing_config`. It reads the caller's
`traceparent` (https://www.w3.org/TR/trace-context/) and carries the context across handles.

Spans are made here only below a recorded span, so requests that are not sampled cost nothing.
"""

import time
from contextlib import AbstractContextManager, nullcontext

from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import INVALID_SPAN, Span, Status, StatusCode

_NO_SPAN = nullcontext(INVALID_SPAN)
_tracer = trace.get_tracer("vitrine")


def span_processors() -> list[SpanProcessor]:
    """Return the processor that sends spans by OTLP over HTTP, configured by OTEL_EXPORTER_OTLP_….

    Serve calls this by its import path, once in each replica.
    """
    # Not loaded where nothing is traced.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return [BatchSpanProcessor(OTLPSpanExporter())]


def span(name: str, **attributes: str) -> AbstractContextManager[Span]:
    """Return a span around a block. `mark_failed` records errors, without their messages."""
    if not trace.get_current_span().is_recording():
        return _NO_SPAN
    return _tracer.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    )


def mark_failed(span: Span, kind: str) -> None:
    """Record a failure in the span, by the type of the error."""
    span.set_status(Status(StatusCode.ERROR, kind))
    span.set_attribute("error.type", kind)


def past_span(name: str, began_s: float, ended_s: float, now_s: float, **attributes: str | int) -> None:
    """Make a span of past work. The times are of one clock, which shows `now_s` now."""
    if not trace.get_current_span().is_recording():
        return
    now_ns = time.time_ns()
    began_ns, ended_ns = (now_ns - round((now_s - at) * 1e9) for at in (began_s, ended_s))
    _tracer.start_span(name, attributes=attributes, start_time=began_ns).end(ended_ns)


def trace_id() -> str | None:
    """Return the id of the recorded trace, 32 hex digits; None where none is recorded."""
    current = trace.get_current_span()
    return f"{current.get_span_context().trace_id:032x}" if current.is_recording() else None


def answer_headers() -> list[tuple[bytes, bytes]]:
    """Return headers with the trace in the form of `traceparent`; none where nothing is recorded.

    `traceresponse` is the name in the W3C's draft for answers (Trace Context, level 2).
    """
    current = trace.get_current_span()
    if not current.is_recording():
        return []
    context = current.get_span_context()
    value = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}".encode()
    return [(b"traceparent", value), (b"traceresponse", value)]
