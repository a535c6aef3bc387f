"""Telemetry of a replica: stages as metrics and spans, calls and log records through Serve's logger.

Serve makes OpenTelemetry's tracer provider when the Serve configuration has a `tracing_config`. It reads the caller's
`traceparent` (https://www.w3.org/TR/trace-context/) and carries the context across handles. Spans are made here only
below a recorded span, so requests that are not sampled cost nothing.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import INVALID_SPAN, Span, Status, StatusCode
from ray import serve
from ray.serve.exceptions import RayServeException

from core.errors import DeadlineExceeded, VitrineError, expected
from core.telemetry import StageName, current_request_id, watch_stages
from deployments.observability.metrics import ERRORS, STAGE_SECONDS
from deployments.observability.request_context import as_request_of_caller

logger = logging.getLogger(__name__)
_NO_SPAN = nullcontext(INVALID_SPAN)
_tracer = trace.get_tracer("vitrine")


@contextmanager
def called(call: str, model: str, inputs: int) -> Iterator[None]:
    """Run this block for the request of the calling deployment, and log the call.

    Raises:
        Internal: in place of an error that is not ours, whose traceback only this process knows.
    """
    with as_request_of_caller():
        started = time.perf_counter()
        status = "ok"
        try:
            yield
        except Exception as error:
            status = error_type(error)
            raise expected(error, f"{call} by {model}") from None
        except BaseException as error:
            status = error_type(error)
            raise
        finally:
            ms = round((time.perf_counter() - started) * 1e3, 3)
            facts = {"call": call, "status": status, "ms": ms, "model": model, "inputs": inputs}
            logger.info(
                "%s %s %.1f ms, model %s",
                *(call, status, ms, model),
                extra={"request_id": current_request_id(), **facts},
            )


LAYERS = ("core", "catalog", "models", "milvus", "deployments")


def start_telemetry() -> None:
    """Start metrics, spans and logs of a replica, which calls this first. Outside of Serve nothing happens."""
    try:
        serve.get_replica_context()
    except RayServeException:
        return
    watch_stages(recorded_stage)
    handler = ServeLogHandler()
    for layer in LAYERS:
        layer_logger = logging.getLogger(layer)
        layer_logger.handlers, layer_logger.propagate = [handler], False
        # Serve's logger has the configured level.
        layer_logger.setLevel(logging.DEBUG)


@contextmanager
def recorded_stage(stage: StageName, model: str) -> Iterator[None]:
    """Record one stage of an answer: its time, the type of its error, and a span where the request is traced."""
    with span(stage, **{"vitrine.model": model}) as current:
        started = time.perf_counter()
        try:
            yield
        except BaseException as error:
            ERRORS.add(stage=stage, model=model, type=error_type(error))
            mark_failed(current, error_type(error))
            raise
        finally:
            STAGE_SECONDS.observe(time.perf_counter() - started, stage=stage, model=model)


def error_type(error: BaseException) -> str:
    """Return the type of an error as answers name it; others are `internal`, or `canceled` by the caller."""
    if isinstance(error, VitrineError):
        return error.kind
    if isinstance(error, TimeoutError):
        return DeadlineExceeded.kind
    return "canceled" if isinstance(error, asyncio.CancelledError) else "internal"


class ServeLogHandler(logging.Handler):
    """Passes records, with the id of their request, to the logger that Serve has set up."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on."""
        # Serve adds the id too, but only to JSON, and not in our threads.
        if not hasattr(record, "request_id") and (request_id := current_request_id()):
            record.request_id = request_id
        serve_logger = logging.getLogger("ray.serve")
        if serve_logger.isEnabledFor(record.levelno):
            serve_logger.handle(record)


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
