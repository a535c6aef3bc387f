"""Calls to the Milvus Lite owner: a readers-writer lock, one writer at a time, a log line each."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition
from typing import Any

import grpc

from core.telemetry import answering


class Gate:
    """A lock that readers share and a writer has alone, in turns, so that neither side starves.

    A waiting writer goes before new readers; the readers that waited for it go before the next writer.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._reading = 0
        self._writing = False
        self._readers_waiting = 0
        self._writers_waiting = 0
        self._readers_turn = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the gate together with other readers."""
        with self._changed:
            self._readers_waiting += 1
            self._changed.wait_for(
                lambda: not self._writing and (self._readers_turn or not self._writers_waiting)
            )
            self._readers_waiting -= 1
            self._readers_turn = self._readers_turn and self._readers_waiting > 0
            self._reading += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._reading -= 1
                self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the gate alone."""
        with self._changed:
            self._writers_waiting += 1
            self._changed.wait_for(lambda: not self._writing and not self._reading and not self._readers_turn)
            self._writers_waiting -= 1
            self._writing = True
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._readers_turn = self._readers_waiting > 0
                self._changed.notify_all()


Answer = Callable[[Any, Any], Any]
"""A handler of one kind of call: from the request and gRPC's context to the response."""

_READS = frozenset(
    {
        "CheckHealth", "Connect", "DescribeAlias", "DescribeCollection", "DescribeDatabase",
        "DescribeIndex", "GetCollectionStatistics", "GetCompactionState", "GetFlushState",
        "GetLoadingProgress", "GetLoadState", "GetPartitionStatistics", "GetVersion",
        "HasCollection", "HasPartition", "HybridSearch", "ListAliases", "ListDatabases", "Query",
        "Search", "ShowCollections", "ShowPartitions",
    }
)  # fmt: skip


def call_of(details: Any) -> str:
    """Name the call, as `Search`, that gRPC is about to hand to its handler."""
    return str(details.method).rsplit("/", 1)[-1]


def wrapped(handler: Any, wrap: Callable[[Answer], Answer]) -> Any:
    """Put something around a handler; those that stream, and calls that nobody handles, are left alone."""
    if handler is None or handler.unary_unary is None:
        return handler
    return grpc.unary_unary_rpc_method_handler(
        wrap(handler.unary_unary),
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


class OneWriter(grpc.ServerInterceptor):  # type: ignore[misc]
    """Lets readers in together and each other call alone; after a write, `after_write` runs too."""

    def __init__(self, gate: Gate, after_write: Callable[[], None]) -> None:
        self._gate = gate
        self._after_write = after_write

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """Wrap the handler of one call."""
        reads = call_of(details) in _READS
        return wrapped(continuation(details), self._reading if reads else self._writing)

    def _reading(self, answer: Answer) -> Answer:
        def read(request: Any, context: Any) -> Any:
            with self._gate.reading():
                return answer(request, context)

        return read

    def _writing(self, answer: Answer) -> Answer:
        def write(request: Any, context: Any) -> Any:
            with self._gate.writing():
                response = answer(request, context)
                self._after_write()
                return response

        return write


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
