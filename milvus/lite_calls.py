"""Which calls of the Milvus protocol write, and how they are let in."""

from collections.abc import Callable
from typing import Any

import grpc

from milvus.gate import Gate

_READS = frozenset(
    {
        "CheckHealth", "Connect", "DescribeAlias", "DescribeCollection", "DescribeDatabase",
        "DescribeIndex", "GetCollectionStatistics", "GetCompactionState", "GetFlushState",
        "GetLoadingProgress", "GetLoadState", "GetPartitionStatistics", "GetVersion",
        "HasCollection", "HasPartition", "HybridSearch", "ListAliases", "ListDatabases", "Query",
        "Search", "ShowCollections", "ShowPartitions",
    }
)  # fmt: skip


class OneWriter(grpc.ServerInterceptor):  # type: ignore[misc]
    """Lets readers in together and each other call alone; after a write, `after_write` runs too."""

    def __init__(self, gate: Gate, after_write: Callable[[], None]) -> None:
        self._gate = gate
        self._after_write = after_write

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """Wrap the handler of one call."""
        handler = continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler
        reads = details.method.rsplit("/", 1)[-1] in _READS
        return grpc.unary_unary_rpc_method_handler(
            self._reading(handler.unary_unary) if reads else self._writing(handler.unary_unary),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _reading(self, answer: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def read(request: Any, context: Any) -> Any:
            with self._gate.reading():
                return answer(request, context)

        return read

    def _writing(self, answer: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def write(request: Any, context: Any) -> Any:
            with self._gate.writing():
                response = answer(request, context)
                self._after_write()
                return response

        return write
