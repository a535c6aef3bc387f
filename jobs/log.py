"""The log lines of a job: encoded as the service's own, under the id of the request that has asked for it."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from core.request_ids import answering, current_request_id

logger = logging.getLogger(__name__)

_TEXT = "%(asctime)s %(name)s %(levelname)s %(request_id)s %(message)s"


def start_log() -> None:
    """Write lines of text, until it is known how the service writes its own."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_TEXT, defaults={"request_id": "-"}))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger("alembic").setLevel(logging.WARNING)


@contextmanager
def logging_for(job_id: str, encoding: str) -> Iterator[None]:
    """Do a job in this block: its lines, and its calls to Milvus, are for the request that has asked for it.

    For a job of a shell they are under the job's own id. `encoding` is `JSON` or `TEXT`.
    """
    with answering(current_request_id() or job_id):
        identified = _Identified(current_request_id(), job_id)
        handlers = logging.getLogger().handlers
        for handler in handlers:
            handler.addFilter(identified)
            if encoding == "JSON":
                handler.setFormatter(_json())
        try:
            with _told(job_id):
                yield
        finally:
            for handler in handlers:
                handler.removeFilter(identified)


@contextmanager
def _told(job_id: str) -> Iterator[None]:
    logger.info("job %s begins", job_id)
    started, status = time.monotonic(), "ok"
    try:
        yield
    except BaseException as error:
        status = type(error).__name__
        raise
    finally:
        ms = round((time.monotonic() - started) * 1e3)
        extra = {"status": status, "ms": ms}
        logger.info("job %s ends after %.1f s: %s", job_id, ms / 1e3, status, extra=extra)


class _Identified(logging.Filter):
    """Says of every line, from whichever thread, what it is about: a job's process does nothing else."""

    def __init__(self, request_id: str, job_id: str) -> None:
        super().__init__()
        self._facts = {"request_id": request_id, "job_id": job_id}

    def filter(self, record: logging.LogRecord) -> bool:
        """Mark a line and let it pass."""
        vars(record).update(self._facts)
        return True


def _json() -> logging.Formatter:
    # The one of Serve's lines, so that a collector reads both alike. It loads Ray.
    from ray._common.formatters import JSONFormatter

    formatter: logging.Formatter = JSONFormatter()
    return formatter
