"""Telemetry of a replica: its stages as metrics and spans, its calls and log records through Serve's logger."""

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
    """Answer a call from another deployment in this block, for the request that it is about.

    Raises:
        Internal: in place of an error that is not of our tree; here alone its traceback is known.
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


ROOMS = ("core", "catalog", "models", "milvus", "deployments")


def start_telemetry() -> None:
    """Begin to tell: every replica calls this once, before anything else. Outside of Serve nothing happens."""
    try:
        serve.get_replica_context()
    except RayServeException:
        return
    watch_stages(WatchedStage)
    handler = ToServe()
    for room in ROOMS:
        logger = logging.getLogger(room)
        logger.handlers, logger.propagate = [handler], False
        # Which lines are wanted, Serve's logger knows.
        logger.setLevel(logging.DEBUG)


class WatchedStage(AbstractContextManager[None]):
    """One stage of an answer, as a metric, as a span where the request is traced, and its error by type."""

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
    """Name an error as answers do; what no answer names is `internal`, or was `canceled` by its caller."""
    if isinstance(error, VitrineError):
        return error.kind
    if isinstance(error, TimeoutError):
        return DeadlineExceeded.kind
    return "canceled" if isinstance(error, asyncio.CancelledError) else "internal"


class ToServe(logging.Handler):
    """Hands records to the logger that Serve has set up, with the id of the request that they are about."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on."""
        # Serve adds the id too, but to JSON alone, and knows nothing of what runs in threads of ours.
        if not hasattr(record, "request_id") and (request_id := current_request_id()):
            record.request_id = request_id
        serves = logging.getLogger("ray.serve")
        if serves.isEnabledFor(record.levelno):
            serves.handle(record)
