"""Vector stores: memory, Milvus Lite and a Milvus server, and rows for them. A pytest plugin."""

import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import StoreUnavailable
from core.filters import Filter, matches
from core.ports import VectorStore
from core.tcp_ports import free_port, free_ports
from core.types import IndexItem, Vector, VectorRow
from milvus.config import IndexConfig, IndexedAttribute, MilvusConfig
from milvus.memory import MemoryStore
from milvus.store import MilvusStore
from tests.support.children import Child
from tests.support.filter_cases import DECLARED

_ROOT = Path(__file__).parents[2]
SERVER_HOME = _ROOT / ".venv-milvus"
INSTALL = "python3 -m venv .venv-milvus && .venv-milvus/bin/pip install milvus==2.3.5"
START_S = 120.0


def is_installed() -> bool:
    """Check whether the environment that holds the server is there; `INSTALL` makes it."""
    return _python().exists()


@contextmanager
def milvus_server(port: int | None = None) -> Iterator[str]:
    """Run the server until the context ends, on a free port by default; yields its address once it answers.

    Raises:
        StoreUnavailable: it did not start in time.
    """
    port = free_port() if port is None else port
    with tempfile.TemporaryDirectory(prefix="vitrine-milvus-", ignore_cleanup_errors=True) as folder:
        server = Child(
            "milvus",
            [
                _python(),
                Path(__file__).with_name("milvus_server.py"),
                SERVER_HOME / "server",
                Path(folder) / "data",
                str(port),
                str(free_ports().start),
            ],
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )
        try:
            _wait_for(uri := f"http://127.0.0.1:{port}")
            yield uri
        finally:
            server.kill()
            server.wait()
            # The one file that the server writes outside its folder, wherever TMPDIR points.
            # The folder stays: another server may be about to write there.
            Path(f"/tmp/milvus/server_id_{server.pid}").unlink(missing_ok=True)


def wait_for(store: MilvusStore, within_s: float) -> None:
    """Return when the store answers."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return store.ping()
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise


def _wait_for(uri: str) -> None:
    store = MilvusStore(MilvusConfig(uri=uri))
    try:
        wait_for(store, START_S)
    finally:
        store.close()


def _python() -> Path:
    return SERVER_HOME / "bin" / "python"


class LiteProcess:
    """The owner of a Milvus Lite folder as a process that a test may kill and start again."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.uri = f"unix:{folder}/m.sock"
        self._process: Child | None = None

    def start(self, max_file_bytes: int | None = None) -> None:
        """Start the owner without waiting for it; beyond `max_file_bytes` its writes fail."""
        command = [sys.executable, "-m", "milvus.lite", "--folder", self.data, "--address", self.uri]
        self._process = Child("milvus-lite", command, cwd=_ROOT)
        if max_file_bytes is not None:
            # Not in a preexec_fn: a fork beside gRPC's threads can hang before the program starts.
            limits = (max_file_bytes, max_file_bytes)
            resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, limits)

    def kill(self) -> None:
        """End the owner as a crash would, with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Hold the owner still: it accepts connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            deadline = time.monotonic() + 60
            while not _is_stopped(self._process.pid):
                assert time.monotonic() < deadline, "the owner does not stop"
                time.sleep(0.01)
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def wait(self) -> int:
        """Wait until the owner ends by itself and return its exit status."""
        assert self._process is not None
        return self._process.wait(timeout=60)

    def stop(self) -> int:
        """End the owner in good order and return its exit status."""
        assert self._process is not None
        self._process.terminate()
        return self.wait()


def _is_stopped(pid: int) -> bool:
    """Check whether all threads of a process obey SIGSTOP, which on a busy machine they do one after the other."""
    stats = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


@pytest.fixture
def lite_process() -> Iterator[LiteProcess]:
    """An owner of its own folder, not started; its socket path is short enough for the kernel."""
    with tempfile.TemporaryDirectory(prefix="vitrine-lite-") as folder:
        owner = LiteProcess(Path(folder))
        yield owner
        owner.kill()


@pytest.fixture(scope="session")
def lite_uri() -> Iterator[str]:
    """The address of a running Milvus Lite that the whole session shares."""
    with tempfile.TemporaryDirectory(prefix="vitrine-lite-") as folder:
        owner = LiteProcess(Path(folder))
        owner.start()
        store = MilvusStore(MilvusConfig(uri=owner.uri))
        wait_for(store, 60)
        store.close()
        yield owner.uri
        assert owner.stop() == 0


def skip_unless_installed() -> None:
    """Skip the test where there is no Milvus server."""
    if not is_installed():
        pytest.skip(f"no Milvus server; make one with: {INSTALL}")


@pytest.fixture(scope="session")
def server_uri() -> Iterator[str]:
    """The address of a real Milvus server that the whole session shares."""
    skip_unless_installed()
    with milvus_server() as uri:
        yield uri


@pytest.fixture(params=["memory", "lite", "server"])
def store(request: pytest.FixtureRequest) -> Iterator[VectorStore]:
    """A vector store, exact on every engine."""
    if request.param == "memory":
        yield MemoryStore()
        return
    uri = request.getfixturevalue(f"{request.param}_uri")
    opened = MilvusStore(MilvusConfig(uri=uri, index=IndexConfig(index_type="FLAT")))
    yield opened
    opened.close()


@pytest.fixture(params=["memory", "lite", "server"])
def declaring_store(request: pytest.FixtureRequest) -> Iterator[VectorStore]:
    """A vector store, exact on every engine, with fields for the attributes of `filter_cases.DECLARED`."""
    if request.param == "memory":
        yield MemoryStore(declared=DECLARED)
        return
    declared = tuple(IndexedAttribute(name=name, type=kind) for name, kind in DECLARED.items())
    uri = request.getfixturevalue(f"{request.param}_uri")
    opened = MilvusStore(
        MilvusConfig(uri=uri, index=IndexConfig(index_type="FLAT"), indexed_attributes=declared)
    )
    yield opened
    opened.close()


@pytest.fixture
def declared(declaring_store: VectorStore) -> Iterator[str]:
    """An empty collection of dimension 8 with fields for declared attributes, emptied after use."""
    declaring_store.ensure_collection("contract_declared", 8)
    yield "contract_declared"
    declaring_store.delete("contract_declared", list(declaring_store.keys("contract_declared")))


@pytest.fixture
def collection(store: VectorStore) -> Iterator[str]:
    """An empty collection of dimension 8, emptied after use: a server takes 3 s to make one."""
    store.ensure_collection("contract", 8)
    yield "contract"
    store.delete("contract", list(store.keys("contract")))


def row(
    image_id: str, vector: Vector, product_id: str = "p", revision: int = 1, **attributes: Any
) -> VectorRow:
    """A row; its product is `p` unless given."""
    return VectorRow(IndexItem(image_id, revision, product_id, "0" * 64, attributes), vector)


def unit(*values: float) -> Vector:
    """The unit vector of dimension 8 in the direction of the values."""
    vector = np.zeros(8, dtype=np.float32)
    vector[: len(values)] = values
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def best_scores(rows: Sequence[VectorRow], query: Vector, filter: Filter | None = None) -> dict[str, float]:
    """The best cosine similarity of each product that passes the filter, by brute force."""
    scores: dict[str, float] = {}
    for each in rows:
        if filter is None or matches(filter, each.item.attributes):
            score = float(
                each.vector.astype(np.float64)
                @ query.astype(np.float64)
                / np.linalg.norm(each.vector.astype(np.float64))
                / np.linalg.norm(query.astype(np.float64))
            )
            product_id = each.item.product_id
            scores[product_id] = max(scores.get(product_id, -2.0), score)
    return scores
