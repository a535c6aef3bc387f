"""Telemetry of a replica: stages as metrics and spans, calls and log records through Serve's logger."""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType

from ray import serve
from ray.serve.exceptions import RayServeException

from core.errors import DeadlineExceeded, VitrineError, expected
from core.telemetry import StageName, current_request_id, watch_stages
from deployments.observability.metrics import ERRORS, STAGE_SECONDS
from deployments.observability.request_context import as_request_of_caller
from deployments.observability.tracing import mark_failed, span

logger = logging.getLogger(__name__)


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
    watch_stages(RecordedStage)
    handler = ServeLogHandler()
    for layer in LAYERS:
        layer_logger = logging.getLogger(layer)
        layer_logger.handlers, layer_logger.propagate = [handler], False
        # Serve's logger has the configured level.
        layer_logger.setLevel(logging.DEBUG)


class RecordedStage(AbstractContextManager[None]):
    """One stage of an answer: its time, the type of its error, and a span where the request is traced."""

    __slots__ = ("_around", "_model", "_span", "_stage", "_started")

    def __init__(self, stage: StageName, model: str) -> None:
        self._stage, self._model = stage, model

    def __enter__(self) -> None:
        """Begin."""
        self._around = span(self._stage, **{"vitrine.model": self._model})
        self._span = self._around.__enter__()
        self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; errors go on."""
        STAGE_SECONDS.observe(time.perf_counter() - self._started, stage=self._stage, model=self._model)
        if error is not None:
            name = error_type(error)
            ERRORS.add(stage=self._stage, model=self._model, type=name)
            mark_failed(self._span, name)
        self._around.__exit__(kind, error, trace)


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
