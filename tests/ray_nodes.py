"""Ray's nodes as processes of this machine, each with resources, ports and an end of its own."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

from cli.environment import free_port, ray_environment

ROOT = Path(__file__).parents[1]
START_S = 60.0
STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class NodeKind:
    """What a node of this kind offers: CPUs, GPUs, which Ray counts and does not look for, and what it is for."""

    name: str
    offered: Mapping[str, float]


class RayNode:
    """One node: `ray start` and all that came of it."""

    def __init__(self, kind: NodeKind, process: psutil.Popen, http_port: int) -> None:
        self.kind = kind
        self.base_url = f"http://127.0.0.1:{http_port}"
        self._process = process

    def holds(self, pid: int) -> bool:
        """Tell whether a process is one of this node's."""
        try:
            return self._process.pid in {parent.pid for parent in psutil.Process(pid).parents()}
        except psutil.NoSuchProcess:
            return False

    def is_running(self) -> bool:
        """Tell whether the node was neither lost nor ended by itself."""
        return bool(self._process.poll() is None)

    def lose(self) -> None:
        """End everything on the node at once with SIGKILL, as if the machine had lost its power."""
        _kill(self.processes())

    def processes(self) -> list[psutil.Process]:
        """List `ray start` and all that came of it and is there still."""
        try:
            return [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return [self._process]


class RayNodes:
    """A Ray cluster: a head that holds no replica, and the nodes that are added to it; a context manager."""

    def __init__(self, folder: Path, http_port: int, environment: Mapping[str, str]) -> None:
        """`environment` is every node's; the head's proxy listens on `http_port`, the others' on their own."""
        self.dashboard_url = f"http://127.0.0.1:{free_port()}"
        self._folder = folder
        self._http_port = http_port
        self._environment = environment
        self._address = f"127.0.0.1:{free_port()}"
        self._nodes: list[RayNode] = []

    def __enter__(self) -> Self:
        """Start the head."""
        dashboard_port = self.dashboard_url.rpartition(":")[2]
        self._start(
            NodeKind("head", {}),
            self._http_port,
            "--head",
            f"--port={self._address.rpartition(':')[2]}",
            f"--dashboard-port={dashboard_port}",
            # Nobody asks for it, but it takes one port for all clusters of a machine unless it is told another.
            f"--ray-client-server-port={free_port()}",
            # There is no cloud to ask for nodes.
            "--no-monitor",
        )
        try:
            self._wait_for_head()
        except BaseException:
            self._lose_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process of every node."""
        self._lose_all()

    def add(self, kind: NodeKind) -> RayNode:
        """Start a node without waiting until it has joined."""
        return self._start(kind, free_port(), f"--address={self._address}")

    def of_process(self, pid: int) -> RayNode | None:
        """Find the node that holds a process."""
        return next((node for node in self._nodes if node.holds(pid)), None)

    def _lose_all(self) -> None:
        _kill([process for node in self._nodes for process in node.processes()])

    def _start(self, kind: NodeKind, http_port: int, *options: str) -> RayNode:
        # A folder each: nodes that start at the same time would take the same names of sockets. A short name:
        # below it HAProxy puts a socket in a folder named by an id of 56 letters, and takes 97 in all.
        folder = self._folder / str(len(self._nodes))
        folder.mkdir()
        with (folder / "start.log").open("wb") as log:
            process = psutil.Popen(
                [
                    *(
                        sys.executable,
                        "-m",
                        "ray.scripts.scripts",
                        "start",
                        "--block",
                        "--disable-usage-stats",
                    ),
                    *("--node-ip-address=127.0.0.1", "--min-worker-port=0", "--max-worker-port=0"),
                    *_offering(kind),
                    # It shows logs to drivers, and there is none.
                    "--include-log-monitor=false",
                    f"--object-store-memory={100 * 2**20}",
                    f"--dashboard-agent-listen-port={free_port()}",
                    f"--temp-dir={folder}",
                    *options,
                ],
                cwd=ROOT,
                env=self._environment_of(folder, http_port),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        node = RayNode(kind, process, http_port)
        self._nodes.append(node)
        return node

    def _environment_of(self, folder: Path, http_port: int) -> dict[str, str]:
        # Ports and paths of HAProxy are each node's own here, where real nodes have a machine each.
        own = {"RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(http_port)}
        return ray_environment(self._environment, folder) | own

    def _wait_for_head(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._nodes[0].is_running():
            with suppress(httpx.HTTPError):
                httpx.get(f"{self.dashboard_url}/api/version", timeout=5).raise_for_status()
                return
            time.sleep(0.2)
        raise RuntimeError(f"the head did not start; see {self._folder}")


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=STOP_S)


def _offering(kind: NodeKind) -> Sequence[str]:
    own = {name: amount for name, amount in kind.offered.items() if name not in ("CPU", "GPU")}
    cpus, gpus = (int(kind.offered.get(name, 0)) for name in ("CPU", "GPU"))
    return f"--num-cpus={cpus}", f"--num-gpus={gpus}", f"--resources={json.dumps(own)}"
