"""Owner process of a Milvus Lite folder: `python -m milvus.lite --folder data/milvus --address unix:/run/m.sock`.

Milvus Lite (3.2) takes one process a folder, loses rows when writers race, and goes on after a full disk. So
the owner opens the folder once and loads every collection before it listens. Reads run side by side; a write
runs alone, reaches the disk before it is acknowledged, and is flushed early. The first storage error ends the
process: going on would acknowledge rows that are lost, while a new owner replays the log.

This module is the only one that uses what Milvus Lite keeps private. The bounds in pyproject.toml and
`tests/unit/milvus/test_private_attributes.py` name the version.
"""

import argparse
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import milvus_lite.search.filter.eval as filter_evaluation
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from milvus_lite.db import MilvusLite
from milvus_lite.exceptions import DataDirLockedError
from milvus_lite.search.filter.eval.python_backend import evaluate_python
from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc

from core.concurrency import WeightedSemaphore
from core.errors import ConfigError, StoreUnavailable
from core.telemetry import answering
from milvus.config import check_uri, socket_path

logger = logging.getLogger(__name__)

_OWN_COLLECTION = "_vitrine_guarded"
_REQUEST_ID = "client-request-id"
"""Metadata in which Milvus's clients say which request a call is for."""
_MAX_CALL_BYTES = 256 * 1024 * 1024
_WORKERS = 16
_PINGS = (("grpc.http2.min_recv_ping_interval_without_data_ms", 1000), ("grpc.http2.max_ping_strikes", 0))
"""The ordinary client keeps its connection alive with more pings than a gRPC server takes by default."""
_PROBE_S = 5.0
_READS = frozenset(
    {
        "CheckHealth", "Connect", "DescribeAlias", "DescribeCollection", "DescribeDatabase",
        "DescribeIndex", "GetCollectionStatistics", "GetCompactionState", "GetFlushState",
        "GetLoadingProgress", "GetLoadState", "GetPartitionStatistics", "GetVersion",
        "HasCollection", "HasPartition", "HybridSearch", "ListAliases", "ListDatabases", "Query",
        "Search", "ShowCollections", "ShowPartitions",
    }
)  # fmt: skip


class GuardedLite(MilvusLite):  # type: ignore[misc]
    """An open folder whose storage errors call `on_storage_error` before anything else happens."""

    def __init__(self, folder: str, on_storage_error: Callable[[BaseException], None]) -> None:
        self._on_storage_error = on_storage_error
        super().__init__(folder)
        filter_evaluation.evaluate_python = _evaluate_named_columns

    def preload(self) -> None:
        """Open and load every collection: racing first accesses would open one twice and lose rows."""
        for database in self.list_databases():
            for name in self.list_collections(database):
                self.get_collection(name, database).load()

    def flush_all(self, at_least: int) -> None:
        """Write the collections with that many rows in memory to their files."""
        for collection in list(self._collections.values()):
            if collection.count() >= at_least:
                collection.flush()

    def get_collection(self, *args: Any, **kwargs: Any) -> Any:
        """Open a collection, guarded."""
        return self._guard(super().get_collection(*args, **kwargs))

    def create_collection(self, *args: Any, **kwargs: Any) -> Any:
        """Create a collection, guarded from its first write on."""
        return self._guard(self._watched(super().create_collection, OSError)(*args, **kwargs))

    def drop_collection(self, *args: Any, **kwargs: Any) -> None:
        """Drop a collection; a half-removed folder is a storage error."""
        self._watched(super().drop_collection, OSError)(*args, **kwargs)

    def _save_aliases(self, *args: Any, **kwargs: Any) -> None:
        self._watched(super()._save_aliases, OSError)(*args, **kwargs)

    def _guard(self, collection: Any) -> Any:
        if not hasattr(collection, _OWN_COLLECTION):
            setattr(collection, _OWN_COLLECTION, True)
            collection._apply = self._watched(_synced(collection), Exception)
            collection._trigger_flush = self._watched(collection._trigger_flush, Exception)
            collection._manifest.save = self._watched(collection._manifest.save, Exception)
        return collection

    def _watched(self, work: Callable[..., Any], kind: type[Exception]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            try:
                return work(*args, **kwargs)
            except kind as error:
                self._on_storage_error(error)
                raise

        return watched


def _synced(collection: Any) -> Callable[[Any], None]:
    """The collection's write with fsync; each flush starts a new log, so it is set at each write."""
    apply = collection._apply

    def apply_synced(operation: Any) -> None:
        collection._wal._sync_mode = "batch"
        apply(operation)

    return apply_synced


def _evaluate_named_columns(compiled: Any, data: Any) -> Any:
    """Evaluate a filter without turning every embedding into Python numbers first (6 times faster)."""
    named = [name for name in data.column_names if name in compiled.fields]
    return evaluate_python(compiled, data.select(named))


class ReadersWriterLock:
    """A lock that readers share and a writer has alone; readers that waited for a writer precede the next one."""

    def __init__(self) -> None:
        self._shares, self._writers = WeightedSemaphore(), WeightedSemaphore()

    def reading(self) -> AbstractContextManager[None]:
        """Hold it together with other readers."""
        return self._shares.holding(1, _WORKERS)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold it alone."""
        # Only one writer stands in line with the readers: each one in it costs them its whole time.
        with self._writers.holding(1, 1), self._shares.holding(_WORKERS, _WORKERS):
            yield


class _Calls(grpc.ServerInterceptor):  # type: ignore[misc]
    """Runs reads side by side and each other call alone, followed by `after_write`; logs each call.

    The logged time holds the wait for other calls. A call that is for no request is logged for debugging.
    """

    def __init__(self, lock: ReadersWriterLock, after_write: Callable[[], None]) -> None:
        self._lock = lock
        self._after_write = after_write

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """Wrap the handler of one call; those that stream, and calls without a handler, are left alone."""
        handler = continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler
        call = str(details.method).rsplit("/", 1)[-1]
        sent = dict(details.invocation_metadata or ()).get(_REQUEST_ID, "")
        request_id = sent if isinstance(sent, str) else ""

        def answer(request: Any, context: Any) -> Any:
            with answering(request_id):
                started, status = time.perf_counter(), "error"
                try:
                    with self._lock.reading() if call in _READS else self._lock.writing():
                        response = handler.unary_unary(request, context)
                        if call not in _READS:
                            self._after_write()
                    # Some responses are a status, others hold one.
                    status = "error" if getattr(getattr(response, "status", response), "code", 0) else "ok"
                    return response
                finally:
                    ms = (time.perf_counter() - started) * 1e3
                    logger.log(
                        logging.INFO if request_id else logging.DEBUG,
                        "%s %s %.1f ms",
                        *(call, status, ms),
                        extra={"call": call, "status": status, "ms": round(ms, 3), "request_id": request_id},
                    )

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


class LiteOwner:
    """Serves a Milvus Lite folder at an address until it is stopped or its storage fails."""

    def __init__(
        self,
        folder: str | Path,
        address: str,
        *,
        flush_rows: int = 500,
        flush_interval_s: float = 5.0,
    ) -> None:
        check_uri(address)
        self._folder = Path(folder)
        self.address = address
        self._flush_rows = flush_rows
        self._flush_interval_s = flush_interval_s
        self._lock = ReadersWriterLock()
        self._stopping, self._written = threading.Event(), threading.Event()
        self._engine: GuardedLite | None = None
        self._server: grpc.Server | None = None
        # Kept open: a new channel costs three times the call.
        self._probe: grpc.Channel | None = None
        self._flusher: threading.Thread | None = None

    def start(self) -> None:
        """Open the folder, load every collection, and listen.

        Raises:
            StoreUnavailable: another living process owns the folder or listens at the address.
            ConfigError: the folder or the address cannot be used.
        """
        self._stopping.clear()
        # Rows of the log are in memory.
        self._written.set()
        self._engine = self._open()
        try:
            self._engine.preload()
            self._server = self._listen(self._engine)
        except BaseException:
            self._engine.close()
            raise
        self._probe = grpc.insecure_channel(_grpc_target(self.address))
        self._flusher = threading.Thread(target=self._flush_regularly, name="lite-flush", daemon=True)
        self._flusher.start()

    def stop(self, grace_s: float = 5.0) -> None:
        """Finish the calls in flight, flush, and give the folder back."""
        self._stopping.set()
        self._written.set()
        if self._probe is not None:
            self._probe.close()
            self._probe = None
        if self._server is not None:
            self._server.stop(grace_s).wait()
            self._server = None
        if self._flusher is not None:
            self._flusher.join()
            self._flusher = None
        # While the folder is held: once it is free, the socket may be that of the next owner.
        if self.address.startswith("unix:"):
            with suppress(OSError):
                Path(socket_path(self.address)).unlink(missing_ok=True)
        if self._engine is not None:
            with self._lock.writing():
                self._engine.close()
            self._engine = None

    def healthy(self) -> bool:
        """Check that a real call through the address is answered."""
        if self._probe is None:
            return False
        stub = milvus_pb2_grpc.MilvusServiceStub(self._probe)
        try:
            answer = stub.ShowCollections(milvus_pb2.ShowCollectionsRequest(), timeout=_PROBE_S)
        except grpc.RpcError:
            return False
        return bool(answer.status.code == 0)

    def _open(self) -> GuardedLite:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            return GuardedLite(str(self._folder), self._fail)
        except DataDirLockedError as error:
            raise StoreUnavailable(
                f"another process owns the Milvus Lite folder {self._folder}; only one can"
            ) from error
        except OSError as error:
            raise ConfigError(f"the folder {self._folder} cannot be used: {error.strerror}") from error

    def _listen(self, engine: GuardedLite) -> grpc.Server:
        if self.address.startswith("unix:"):
            _clear_stale_socket(Path(socket_path(self.address)))
        sizes = ("grpc.max_receive_message_length", "grpc.max_send_message_length")
        server = grpc.server(
            ThreadPoolExecutor(_WORKERS, "lite"),
            options=[*((size, _MAX_CALL_BYTES) for size in sizes), ("grpc.so_reuseport", 0), *_PINGS],
            interceptors=[_Calls(self._lock, lambda: self._after_write(engine))],
        )
        milvus_pb2_grpc.add_MilvusServiceServicer_to_server(MilvusServicer(engine), server)
        try:
            bound = server.add_insecure_port(_grpc_target(self.address))
        except RuntimeError as error:
            raise ConfigError(f"cannot listen at {self.address}: {error}") from error
        if not bound:
            raise ConfigError(f"cannot listen at {self.address}")
        server.start()
        return server

    def _after_write(self, engine: GuardedLite) -> None:
        engine.flush_all(self._flush_rows)
        self._written.set()

    def _flush_regularly(self) -> None:
        while True:
            self._written.wait()
            self._written.clear()
            if self._stopping.wait(self._flush_interval_s):
                return
            try:
                with self._lock.writing():
                    if self._engine is not None and not self._stopping.is_set():
                        self._engine.flush_all(1)
            except Exception as error:
                return self._fail(error)

    def _fail(self, error: BaseException) -> None:
        logger.critical("the storage of %s failed, so its owner ends: %s", self._folder, error)
        os._exit(1)


def _clear_stale_socket(path: Path) -> None:
    """Remove the socket file of a dead owner, but never that of a living one."""
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_PROBE_S)
            probe.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        return
    raise StoreUnavailable(f"another process listens at {path}")


def _grpc_target(address: str) -> str:
    return address if address.startswith("unix:") else address.split("://", 1)[-1]


def main() -> None:
    """Own a folder until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m milvus.lite", description=main.__doc__)
    parser.add_argument("--folder", required=True, help="folder of the Milvus Lite data")
    parser.add_argument("--address", required=True, help="unix:/path/to.sock or http://host:port")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        owner = LiteOwner(options.folder, options.address)
        owner.start()
    except (ConfigError, StoreUnavailable) as error:
        raise SystemExit(error.message) from None
    logger.info("own %s, listen at %s", options.folder, options.address)
    stopped.wait()
    owner.stop()


if __name__ == "__main__":
    main()
