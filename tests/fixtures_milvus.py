"""A vector store on everything that it runs on: memory, Milvus Lite and a real Milvus server."""

import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.ports import VectorStore
from milvus.config import IndexConfig, MilvusConfig
from milvus.memory import MemoryStore
from milvus.store import MilvusStore
from tests.children import Child
from tests.milvus_process import INSTALL, is_installed, milvus_server, wait_for

_ROOT = Path(__file__).parent.parent


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
    """Tell whether all threads of a process obey SIGSTOP, which on a busy machine they do one after the other."""
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


@pytest.fixture(scope="session")
def server_uri() -> Iterator[str]:
    """The address of a real Milvus server that the whole session shares."""
    if not is_installed():
        pytest.skip(f"no Milvus server; make one with: {INSTALL}")
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


@pytest.fixture
def collection(store: VectorStore) -> Iterator[str]:
    """An empty collection of dimension 8, emptied after use: a server takes 3 s to make one."""
    store.ensure_collection("contract", 8)
    yield "contract"
    store.delete("contract", list(store.keys("contract")))
