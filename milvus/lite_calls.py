"""Which calls of the Milvus protocol write, and how they are let in."""

from collections.abc import Callable
from typing import Any

import grpc

from milvus.gate import Gate

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
