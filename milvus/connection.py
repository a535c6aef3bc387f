"""One connection to Milvus that recovers by itself.

pymilvus waits up to 3 s between its own retries, and reconnects under a lock that all clients of the process
share. gRPC backs off for up to two minutes. Here a call that loses its server drops the client, tries the
address ten times a second, and runs again as soon as somebody listens. Every call of the store may be repeated.

This module is the only one that uses what pymilvus keeps private. The bounds in pyproject.toml and
`tests/unit/milvus/test_private_attributes.py` name the version.
"""

import logging
import socket
import time
from collections.abc import Callable
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import urlsplit

import grpc
from pymilvus import MilvusClient, MilvusException
from pymilvus.client.call_context import CallContext

from core.errors import NotFound, StoreUnavailable, VitrineError
from core.telemetry import current_request_id
from milvus.config import MilvusConfig, socket_path

logger = logging.getLogger(__name__)
# pymilvus logs each error with its traceback and raises it as well; here every error is handled or raised.
logging.getLogger("pymilvus.decorators").setLevel(logging.CRITICAL)

NOT_FOUND = 100
NOT_LOADED = 101
ALIAS_NOT_FOUND = 1600
_TRANSIENT = frozenset({1, 2, 4, 8, 103, 500, 501, 502, 503, 600, 601, 602, 603, 900, 901, 902})
"""Codes of a server that starts, balances or is overloaded (milvus/pkg/util/merr/errors.go)."""
_LOST = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
_PAUSE_S = 0.1
_PROBE_S = 1.0
_CHANNEL_OPTIONS = {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 500,
}
Result = TypeVar("Result")


class _Client(MilvusClient):  # type: ignore[misc]
    """Sends the id of the request with every call; Milvus keeps it in its logs."""

    def _generate_call_context(self, **kwargs: Any) -> CallContext:
        return super()._generate_call_context(**{"client_request_id": current_request_id(), **kwargs})


def rpc_handler(client: MilvusClient) -> Any:
    """Return what sends a client's calls: the client itself has no bulk insert (pymilvus 3.0)."""
    return client._get_connection()


class Connection:
    """Runs calls on a client, and makes a new client when the server was away. Thread-safe."""

    def __init__(self, config: MilvusConfig) -> None:
        self._config = config
        self._client: MilvusClient | None = None
        self._lock = Lock()

    def call(self, work: Callable[[MilvusClient, float], Result], timeout_s: float | None = None) -> Result:
        """Run `work(client, seconds left)`, again after a lost connection, within the time.

        Raises:
            StoreUnavailable: Milvus did not answer in time, or refused; the logs hold its reason.
            NotFound: the collection that the work names does not exist.
        """
        limit_s = timeout_s or self._config.timeout_s
        deadline = time.monotonic() + limit_s
        while True:
            client: MilvusClient | None = None
            try:
                client = self._connect(deadline)
                return work(client, max(deadline - time.monotonic(), 0.001))
            except (MilvusException, grpc.RpcError, OSError, ValueError) as error:
                if not _may_pass(error):
                    raise _translate(error) from error
                if client is not None and _is_lost(error):
                    self._discard(client)
                if time.monotonic() + _PAUSE_S >= deadline:
                    raise StoreUnavailable(f"Milvus did not answer within {limit_s:g} s") from error
            time.sleep(_PAUSE_S)

    def run(
        self, method: Callable[..., Any], *args: Any, timeout_s: float | None = None, **options: Any
    ) -> Any:
        """Call a method of MilvusClient, or what takes a client and `timeout` likewise, as `call` does."""
        return self.call(lambda client, left_s: method(client, *args, timeout=left_s, **options), timeout_s)

    def close(self) -> None:
        """Close the channel; the next call opens a new one."""
        if client := self._client:
            self._discard(client)

    def _connect(self, deadline: float) -> MilvusClient:
        left_s = max(deadline - time.monotonic(), 0.001)
        if not self._lock.acquire(timeout=left_s):
            raise TimeoutError("another thread is still connecting")
        try:
            if self._client is None:
                left_s = max(deadline - time.monotonic(), 0.001)
                _probe(self._config.uri, min(left_s, _PROBE_S))
                self._client = self._open(min(left_s, self._config.timeout_s))
            client = self._client
        finally:
            self._lock.release()
        return client

    def _open(self, timeout_s: float) -> MilvusClient:
        client = _Client(
            self._config.uri,
            token=self._config.token,
            timeout=timeout_s,
            dedicated=True,
            grpc_options=_CHANNEL_OPTIONS,
        )
        rpc_handler(client)._on_rpc_error = _give_up
        return client

    def _discard(self, client: MilvusClient) -> None:
        with self._lock:
            if self._client is client:
                self._client = None
        client.close()


def _give_up(error: Exception) -> bool:
    """Raise, where pymilvus asks whether to retry or reconnect by itself: `call` does that."""
    raise error


def _probe(uri: str, timeout_s: float) -> None:
    """Raise OSError unless somebody listens, since pymilvus takes seconds to find that out."""
    if uri.startswith("unix:"):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(timeout_s)
            probe.connect(socket_path(uri))
        return
    parts = urlsplit(uri)
    port = parts.port or (443 if parts.scheme == "https" else 19530)
    socket.create_connection((parts.hostname, port), timeout_s).close()


def _may_pass(error: Exception) -> bool:
    return isinstance(error, OSError) or _is_lost(error) or _code(error) in _TRANSIENT


def _is_lost(error: Exception) -> bool:
    return _code(error) in _LOST or "closed channel" in str(error)


def _code(error: Exception) -> Any:
    code = getattr(error, "code", None)
    return code() if callable(code) else code


def _translate(error: Exception) -> VitrineError:
    code = _code(error)
    if code in (NOT_FOUND, ALIAS_NOT_FOUND):
        return NotFound(str(getattr(error, "message", error)))
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return StoreUnavailable("Milvus did not answer in time")
    # Milvus's message names hosts, expressions and files, which no client may see.
    message = getattr(error, "message", error)
    logger.error("Milvus refused a call: code %s: %s", code, message, exc_info=error)
    return StoreUnavailable("Milvus refused a call; the logs hold why")
