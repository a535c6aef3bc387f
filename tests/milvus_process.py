"""A real Milvus server as a child process, its data in a folder that goes away with it."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import StoreUnavailable
from core.tcp_ports import free_port, free_ports
from milvus.config import MilvusConfig
from milvus.store import MilvusStore
from tests.children import Child

_ROOT = Path(__file__).parent.parent
SERVER_HOME = _ROOT / ".venv-milvus"
INSTALL = "python3 -m venv .venv-milvus && .venv-milvus/bin/pip install milvus==2.3.5"
START_S = 120.0


def is_installed() -> bool:
    """Tell whether the environment that holds the server is there; `INSTALL` makes it."""
    return _python().exists()


@contextmanager
def milvus_server() -> Iterator[str]:
    """Run the server until the context ends; yields its address once it answers.

    Raises:
        StoreUnavailable: it did not start in time.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="vitrine-milvus-", ignore_cleanup_errors=True) as folder:
        server = Child(
            "milvus",
            [
                _python(),
                _ROOT / "tests" / "milvus_server.py",
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
