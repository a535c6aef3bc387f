"""What is told of every call that one deployment makes of another: a log line under the request's id."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import expected
from core.request_ids import current_request_id
from deployments.request_ids import as_request_of_caller
from deployments.telemetry import error_type

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
