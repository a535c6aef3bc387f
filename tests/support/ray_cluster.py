"""Ray cluster of several nodes on this machine, and what Serve runs on it."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import pytest
from ray.cluster_utils import Cluster

from core.tcp_ports import free_port
from deployments.proxy.haproxy import HAPROXY_SETTINGS
from deployments.proxy.ray_environment import RAY_DEFAULTS, ray_environment
from jobs.runner.cluster import agent_ports

START_S = 200.0
STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class NodeKind:
    """What a node of this kind offers: CPUs, GPUs, which Ray counts and does not look for, and what it is for.

    `environment` is that of its pods, and `mounts` are their volumes by path, each with whether it is read only.
    """

    name: str
    offered: Mapping[str, float]
    environment: Mapping[str, str]
    mounts: Mapping[str, bool]


ON_ONE_MACHINE = {
    # Many nodes share few cores.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S",
    "RAY_raylet_start_wait_time_s",
    "RAY_gcs_server_port_wait_time_s",
    "RAY_agent_register_timeout_ms",
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S",
    "RAY_event_stats",
    "RAY_worker_niceness",
    # There is no load balancer whose connections must drain, and no secret with a token.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S",
    "RAY_AUTH_MODE",
    # The image sets these.
    *HAPROXY_SETTINGS,
}
"""Variables that nodes have and pods lack; all others are those of the pods."""


class RayNode:
    """One node: its raylet, a head's other services, and all that came of them."""

    def __init__(self, kind: NodeKind, node: Any, http_port: int) -> None:
        """`node` is Ray's own."""
        self.kind = kind
        self.base_url = f"http://127.0.0.1:{http_port}"
        # Nothing public has it.
        self.node_id = str(node._node_id)
        self._services = [
            psutil.Process(started.process.pid) for each in node.all_processes.values() for started in each
        ]

    def holds(self, pid: int) -> bool:
        """Check whether a process is one of this node's."""
        try:
            return not {each.pid for each in self._services}.isdisjoint(
                parent.pid for parent in psutil.Process(pid).parents()
            )
        except psutil.NoSuchProcess:
            return False

    def lose(self) -> None:
        """End everything on the node at once with SIGKILL, as if the machine had lost its power."""
        _kill(self.processes())

    def processes(self) -> list[psutil.Process]:
        """List the node's services and all that came of them and is there still."""
        found: list[psutil.Process] = []
        for service in self._services:
            with suppress(psutil.NoSuchProcess):
                found += [service, *service.children(recursive=True)]
        return found


class RayNodes:
    """A Ray cluster: a head that holds no replica, and the nodes that are added to it; a context manager."""

    def __init__(self, folder: Path, http_port: int, environment: Mapping[str, str], head: NodeKind) -> None:
        """`environment` is every node's; the head's proxy listens on `http_port`, the others' on their own."""
        self.dashboard_url = f"http://127.0.0.1:{free_port()}"
        self.working_directory = folder / "cwd"
        self.working_directory.mkdir(mode=0o555)
        self._head = head
        self._folder = folder
        self._http_port = http_port
        self._environment = environment
        self._cluster = Cluster()
        self._nodes: list[RayNode] = []
        self._on_sigterm: Any = None

    def __enter__(self) -> Self:
        """Start the head."""
        self._on_sigterm = signal.getsignal(signal.SIGTERM)
        # Where Ray's test cluster keeps its address, whatever folder its nodes get.
        (self._folder / "ray").mkdir()
        try:
            self._start(
                self._head,
                self._http_port,
                include_dashboard=True,
                dashboard_port=int(self.dashboard_url.rpartition(":")[2]),
                # There is no cloud to ask for nodes.
                no_monitor=True,
            )
            self._wait_for_head()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End every process of every node."""
        self._end()

    def add(self, kind: NodeKind) -> RayNode:
        """Start a node without waiting until it has joined."""
        return self._start(kind, free_port())

    def of_process(self, pid: int) -> RayNode | None:
        """Find the node that holds a process."""
        return next((node for node in self._nodes if node.holds(pid)), None)

    def _end(self) -> None:
        # At once: one by one they would wait for those that are gone already.
        _kill([process for node in self._nodes for process in node.processes()])
        with _environment({"RAY_TMPDIR": str(self._folder)}):
            self._cluster.shutdown()
        # Each node puts a handler of its own there.
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def _start(self, kind: NodeKind, http_port: int, **options: Any) -> RayNode:
        # A folder each: nodes that start at the same time would take the same names of sockets. A short name:
        # below it HAProxy puts a socket in a folder named by an id of 56 letters, and takes 97 in all.
        folder = self._folder / str(len(self._nodes))
        folder.mkdir()
        environment = self._environment_of(kind, folder, http_port)
        with _environment(environment), chdir(self.working_directory), agent_ports() as ports:
            node = self._cluster.add_node(
                wait=False,
                temp_dir=str(folder),
                # It shows logs to drivers, and there is none.
                include_log_monitor=False,
                object_store_memory=100 * 2**20,
                **ports,
                **_offering(kind),
                **options,
            )
        self._nodes.append(RayNode(kind, node, http_port))
        return self._nodes[-1]

    def _environment_of(self, kind: NodeKind, folder: Path, http_port: int) -> dict[str, str]:
        pod = {name: self.mounted(value, kind, folder) for name, value in kind.environment.items()}
        # Ports and paths of HAProxy are each node's own here, where real nodes have a machine each.
        del pod["RAY_SERVE_HAPROXY_BINARY_PATH"]
        own = {"RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(http_port), "RAY_TMPDIR": str(self._folder)}
        lacking = RAY_DEFAULTS.keys() - pod.keys() - ON_ONE_MACHINE
        found = ray_environment({**self._environment, **pod}, folder) | own
        return {name: value for name, value in found.items() if name not in lacking}

    def mounted(self, value: str, kind: NodeKind, folder: Path) -> str:
        """Return where on this machine a path lies that pods of a kind have as a volume; all else as it is.

        A volume that is read only is shared, each other one is the node's own.
        """
        if (read_only := kind.mounts.get(value)) is None:
            return value
        place = (self._folder if read_only else folder) / Path(value).name
        place.mkdir(exist_ok=True)
        return str(place)

    def _wait_for_head(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._cluster.remaining_processes_alive():
            with suppress(httpx.HTTPError):
                httpx.get(f"{self.dashboard_url}/api/version", timeout=5).raise_for_status()
                return
            time.sleep(0.2)
        raise RuntimeError(f"the head did not start; see {self._folder}")


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """What processes that are started meanwhile inherit."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=STOP_S)


def _offering(kind: NodeKind) -> dict[str, Any]:
    own = {name: amount for name, amount in kind.offered.items() if name not in ("CPU", "GPU")}
    cpus, gpus = (int(kind.offered.get(name, 0)) for name in ("CPU", "GPU"))
    return {"num_cpus": cpus, "num_gpus": gpus, "resources": own}


PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica that runs, and the node that it runs on."""

    replica_id: str
    pid: int
    node: RayNode | None


class ServeState:
    """The Serve of a cluster: takes configurations, and tells what became of them."""

    def __init__(self, nodes: RayNodes) -> None:
        self._nodes = nodes
        self._http = httpx.Client(base_url=nodes.dashboard_url, timeout=120)

    def __enter__(self) -> Self:
        """Use it as it is."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._http.close()

    def deploy(self, config: Mapping[str, Any]) -> None:
        """Hand over a whole configuration, as the operator of Kubernetes does."""
        answer = self._http.put("/api/serve/applications/", json=dict(config))
        assert answer.is_success, answer.text

    def replicas(self, application: str) -> list[Replica]:
        """List the replicas of an application that run, and where."""
        return [
            Replica(each["replica_id"], each["pid"], self._nodes.of_process(each["pid"]))
            for each in _running(self._applications()[application])
        ]

    def ids(self) -> dict[str, frozenset[str]]:
        """Gather the ids of the replicas that run, by application."""
        return {
            name: frozenset(each["replica_id"] for each in _running(application))
            for name, application in self._applications().items()
        }

    def statuses(self) -> dict[str, str]:
        """Read the status of each application."""
        return {name: str(each["status"]) for name, each in self._applications().items()}

    def node_of_job(self, job_id: str) -> str:
        """Return the id of the node that the process of a job runs on."""
        found = self._http.get(f"/api/jobs/{job_id}").raise_for_status().json()
        return str(found["driver_node_id"])

    def is_at_zero(self, application: str) -> bool:
        """Check whether an application has no replica, not even one that starts or stops."""
        return _replicas(self._applications()[application]) == []

    def is_running(self, application: str) -> bool:
        """Check whether an application is as its configuration says."""
        return bool(self._applications()[application]["status"] == "RUNNING")

    def wait_until(self, condition: Callable[[], bool], within_s: float, what: str) -> float:
        """Wait until a condition holds; returns how long that took, in seconds."""
        started = time.monotonic()
        while not condition():
            assert time.monotonic() - started < within_s, (
                f"not within {within_s:g} s: {what}; {self.reported()}"
            )
            time.sleep(PAUSE_S)
        return time.monotonic() - started

    def reported(self) -> dict[str, str]:
        """Show the state of each application and of each node's proxy in Serve's words."""
        details = self._details()
        applications = {
            name: f"{each['status']} {each.get('message', '')}".strip()
            for name, each in details["applications"].items()
        }
        return applications | {
            f"proxy of {node}": each["status"] for node, each in details["proxies"].items()
        }

    def _applications(self) -> dict[str, Any]:
        applications: dict[str, Any] = self._details()["applications"]
        return applications

    def _details(self) -> dict[str, Any]:
        details: dict[str, Any] = self._http.get("/api/serve/applications/").raise_for_status().json()
        return details


def _replicas(application: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [each for deployment in application["deployments"].values() for each in deployment["replicas"]]


def _running(application: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [each for each in _replicas(application) if each["state"] == "RUNNING"]
