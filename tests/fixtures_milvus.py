"""A vector store on everything that it runs on: memory, Milvus Lite and a real Milvus server."""

import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from core.errors import StoreUnavailable
from core.ports import VectorStore
from milvus.config import IndexConfig, MilvusConfig
from milvus.memory import MemoryStore
from milvus.store import MilvusStore

_ROOT = Path(__file__).parent.parent
_SERVER_HOME = _ROOT / ".venv-milvus"
_INSTALL = "python3 -m venv .venv-milvus && .venv-milvus/bin/pip install milvus==2.3.5"


class LiteProcess:
    """The owner of a Milvus Lite folder as a process that a test may kill and start again."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.uri = f"unix:{folder}/m.sock"
        self._log = folder / "owner.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, max_file_bytes: int | None = None) -> None:
        """Start the owner without waiting for it; beyond `max_file_bytes` its writes fail."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "milvus.lite", "--folder", self.data, "--address", self.uri],
                cwd=_ROOT,
                stdout=log,
                stderr=log,
            )
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
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def wait(self) -> int:
        """Wait until the owner ends by itself and return its exit status."""
        assert self._process is not None
        return self._process.wait(timeout=20)

    def stop(self) -> int:
        """End the owner in good order and return its exit status."""
        assert self._process is not None
        self._process.terminate()
        return self.wait()


def wait_for(store: MilvusStore, within_s: float) -> None:
    """Return when the store answers."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return store.ping()
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise


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
        wait_for(store, 30)
        store.close()
        yield owner.uri
        assert owner.stop() == 0


@pytest.fixture(scope="session")
def server_uri() -> Iterator[str]:
    """The address of a real Milvus server that the whole session shares."""
    python = _SERVER_HOME / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no Milvus server; make one with: {_INSTALL}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="vitrine-milvus-", ignore_cleanup_errors=True) as folder:
        log = (Path(folder) / "server.log").open("wb")
        arguments = [_SERVER_HOME / "server", Path(folder) / "data", str(port)]
        server = subprocess.Popen(
            [python, _ROOT / "tests" / "milvus_server.py", *arguments],
            stdout=log,
            stderr=log,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )
        try:
            store = MilvusStore(MilvusConfig(uri=f"http://127.0.0.1:{port}"))
            wait_for(store, 120)
            store.close()
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()
            server.wait()
            log.close()
            # The one file that the server writes outside its folder, wherever TMPDIR points.
            Path(f"/tmp/milvus/server_id_{server.pid}").unlink(missing_ok=True)
            with suppress(OSError):
                Path("/tmp/milvus").rmdir()


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


@pytest.fixture
def collection(store: VectorStore) -> Iterator[str]:
    """An empty collection of dimension 8, emptied after use: a server takes 3 s to make one."""
    store.ensure_collection("contract", 8)
    yield "contract"
    store.delete("contract", list(store.keys("contract")))
