"""What Serve runs, asked as an operator of a cluster asks: by its REST API."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from tests.ray_nodes import RayNode, RayNodes

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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

    def is_asleep(self, application: str) -> bool:
        """Tell whether an application has no replica, not even one that starts or stops."""
        return _replicas(self._applications()[application]) == []

    def is_running(self, application: str) -> bool:
        """Tell whether an application is as its configuration says."""
        return bool(self._applications()[application]["status"] == "RUNNING")

    def wait_until(self, condition: Callable[[], bool], within_s: float, what: str) -> float:
        """Wait until a condition holds; returns how long that took, in seconds."""
        started = time.monotonic()
        while not condition():
            assert time.monotonic() - started < within_s, f"not within {within_s:g} s: {what}; {self.told()}"
            time.sleep(PAUSE_S)
        return time.monotonic() - started

    def told(self) -> dict[str, str]:
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
