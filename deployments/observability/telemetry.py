"""Telemetry of a replica: the context of a request, spans, stages as metrics, and log records for Serve's logger.

Serve takes a request's id from X-Request-ID as it comes. Ours, which is checked, replaces it in Serve's context. For
that this module holds private names of Ray Serve 2.60; `jobs/runner/cluster.py` holds those of Ray itself.

Serve makes OpenTelemetry's tracer provider when the Serve configuration has a `tracing_config`. It reads the caller's
`traceparent` (https://www.w3.org/TR/trace-context/) and carries the context across handles. Spans are made here only
below a recorded span, so requests that are not sampled cost nothing.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import uvicorn
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import INVALID_SPAN, Span, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from ray import serve
from ray.serve.context import _get_global_client, _get_serve_request_context, _serve_request_context
from ray.serve.exceptions import RayServeException

from core.errors import DeadlineExceeded, VitrineError, expected
from core.telemetry import StageName, answering, current_request_id, watch_stages
from deployments.observability.metrics import ERRORS, STAGE_SECONDS

logger = logging.getLogger(__name__)
_NO_SPAN = nullcontext(INVALID_SPAN)
_tracer = trace.get_tracer("vitrine")
_Tick = Callable[[uvicorn.Server, int], Coroutine[Any, Any, bool]]


@dataclass(slots=True)
class RequestRecord:
    """The requested models, each once and in order, and the type of the answer's error."""

    models: dict[str, None] = field(default_factory=dict)
    error: str | None = None

    @property
    def model(self) -> str:
        """Return the one model, `several`, or `none`."""
        return "several" if len(self.models) > 1 else next(iter(self.models), "none")


_record: ContextVar[RequestRecord | None] = ContextVar("request_record", default=None)


@contextmanager
def recording() -> Iterator[RequestRecord]:
    """Collect in one record what this block, and all that it starts, notes."""
    record = RequestRecord()
    token = _record.set(record)
    try:
        yield record
    finally:
        _record.reset(token)


def note_model(name: str) -> None:
    """Note a model that the request asks for. Pass configured names only: each makes a metric label."""
    if (record := _record.get()) is not None:
        record.models[name] = None


def note_error(kind: str) -> None:
    """Note the type of the answer's error."""
    if (record := _record.get()) is not None:
        record.error = kind


@contextmanager
def as_request(request_id: str) -> Iterator[None]:
    """Run this block, and the calls of other replicas in it, under this request id."""
    with changed_serve_request(request_id=request_id), answering(request_id):
        yield


def id_headers(request_id: str) -> dict[str, str]:
    """Return the header with the id for the answer; empty where Serve's own server adds the same one."""
    return {} if serve_request_id() == request_id else {"X-Request-ID": request_id}


def new_request_id(of: str = "") -> str:
    """Make an id; `of` is a prefix for work that no caller has asked for."""
    return f"{of}-{uuid.uuid4().hex}" if of else uuid.uuid4().hex


def serve_request_id() -> str:
    """Return the request id of Serve's context, which handles carry to other replicas.

    Serve's documentation names this context for reading the id.
    """
    request_id: str = _get_serve_request_context().request_id
    return request_id


@contextmanager
def changed_serve_request(**changes: Any) -> Iterator[None]:
    """Run this block, and all that it starts, in Serve's request context with these fields changed.

    Serve has no public way to set the id: it takes X-Request-ID as it comes.
    """
    token = _serve_request_context.set(replace(_get_serve_request_context(), **changes))
    try:
        yield
    finally:
        _serve_request_context.reset(token)


def serve_http_host() -> str | None:
    """Return the address that Serve listens on, whoever started it.

    No public call tells it to a replica: `serve.status()` leaves it out, and the dashboard may not run.
    """
    host: str | None = _get_global_client().http_config.host
    return host


@contextmanager
def called(call: str, model: str, inputs: int) -> Iterator[None]:
    """Run this block for the request of the calling deployment, and log the call.

    Raises:
        Internal: in place of an error that is not ours, whose traceback only this process knows.
    """
    with answering(serve_request_id()):
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
    uvicorn.Server.on_tick = slow_tick(uvicorn.Server.on_tick)  # type: ignore[assignment]
    watch_stages(recorded_stage)
    handler = ServeLogHandler()
    for layer in LAYERS:
        layer_logger = logging.getLogger(layer)
        layer_logger.handlers, layer_logger.propagate = [handler], False
        # Serve's logger has the configured level.
        layer_logger.setLevel(logging.DEBUG)


def slow_tick(tick: _Tick) -> _Tick:
    """Let an HTTP server tick once a second in place of ten times, which costs less while it has nothing to do.

    Serve runs a server of uvicorn in every replica, also in those without a route. At each tick it looks whether it
    should end, and at every tenth it renews its Date header.
    """

    async def tick_slowly(server: uvicorn.Server, counter: int) -> bool:
        ends = await tick(server, counter * 10)
        if not ends:
            await asyncio.sleep(0.9)
        return ends

    return tick_slowly


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


def past_span(
    name: str,
    began_s: float,
    ended_s: float,
    now_s: float,
    error: str | None = None,
    **attributes: str | int,
) -> None:
    """Make a span of past work, `error` its type where it failed. The times are of one clock: `now_s` is now."""
    if not trace.get_current_span().is_recording():
        return
    now_ns = time.time_ns()
    began_ns, ended_ns = (now_ns - round((now_s - at) * 1e9) for at in (began_s, ended_s))
    past = _tracer.start_span(name, attributes=attributes, start_time=began_ns)
    if error is not None:
        mark_failed(past, error)
    past.end(ended_ns)


def trace_id() -> str | None:
    """Return the id of the recorded trace, 32 hex digits; None where none is recorded."""
    current = trace.get_current_span()
    return trace.format_trace_id(current.get_span_context().trace_id) if current.is_recording() else None


def answer_headers() -> list[tuple[bytes, bytes]]:
    """Return headers with the trace in the form of `traceparent`; none where nothing is recorded.

    `traceresponse` is the name in the W3C's draft for answers (Trace Context, level 2).
    """
    if not trace.get_current_span().is_recording():
        return []
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return [(name, carrier["traceparent"].encode()) for name in (b"traceparent", b"traceresponse")]
