"""A log line for every call to the owner of Milvus Lite, under the id of the request that it is for."""

import logging
import time
from collections.abc import Callable
from typing import Any

import grpc

from core.request_ids import answering
from milvus.lite_calls import Answer, call_of, wrapped

logger = logging.getLogger(__name__)

_REQUEST_ID = "client-request-id"
"""Where Milvus' clients say which request a call is for."""


class ToldCalls(grpc.ServerInterceptor):  # type: ignore[misc]
    """Tells of each call: what it was, how it went and how long it took. Calls for no request are for debugging."""

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """Wrap the handler of one call."""
        call, request_id = call_of(details), _request_id(details)

        def told(answer: Answer) -> Answer:
            def answer_and_tell(request: Any, context: Any) -> Any:
                with answering(request_id):
                    started, status = time.perf_counter(), "error"
                    try:
                        response = answer(request, context)
                        status = _status(response)
                        return response
                    finally:
                        _tell(call, status, (time.perf_counter() - started) * 1e3, request_id)

            return answer_and_tell

        return wrapped(continuation(details), told)


def _request_id(details: Any) -> str:
    sent = dict(details.invocation_metadata or ()).get(_REQUEST_ID, "")
    return sent if isinstance(sent, str) else ""


def _status(response: Any) -> str:
    """Read how it went: some answers are a status, others hold one."""
    status = getattr(response, "status", response)
    return "error" if getattr(status, "code", 0) else "ok"


def _tell(call: str, status: str, ms: float, request_id: str) -> None:
    logger.log(
        logging.INFO if request_id else logging.DEBUG,
        "%s %s %.1f ms",
        *(call, status, ms),
        extra={"call": call, "status": status, "ms": round(ms, 3), "request_id": request_id},
    )
