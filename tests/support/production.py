"""Production's configuration with tiny weights, on several nodes of this machine."""

import base64
import hashlib
import itertools
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import yaml

from core.tcp_ports import free_port
from demo.service import WEIGHTS
from tests.support.manifests import cluster_of, env_of, offered, rayservice
from tests.support.ray_cluster import NodeKind, RayNode, RayNodes, ServeState
from tests.support.traffic import image

ENCODERS = ("openclip", "dinov2", "blip2")
WAITING = ("gateway", "repair", *ENCODERS)
"""Applications whose constructors need the database or weights."""
LOOKED_AT: dict[str, float] = {"look_back_period_s": 5, "metrics_interval_s": 0.5}
"""What Serve goes by when it scales: by default the last 30 s, reported each 10 s."""
EAGER: dict[str, float] = {
    "max_replicas": 2,
    "target_ongoing_requests": 0.1,
    "downscale_delay_s": 8,
    **LOOKED_AT,
}
SCALING: dict[str, dict[str, Any]] = {
    # Two replicas at most, for they share two cores; as good as any load is enough for the second one.
    "openclip": EAGER,
    "dinov2": EAGER,
    # As docs/operations.md says for a model that may be scaled to zero.
    "blip2": {"min_replicas": 0, "max_replicas": 1, "downscale_to_zero_delay_s": 8, **LOOKED_AT},
}
"""What the tests of scaling change while the service runs, as an operator would, for there is no time and no load
for production's own numbers."""


def production_config(port: int, weights: Path) -> dict[str, Any]:
    """Read what the RayService runs, and change the address and the encoders' checkpoints."""
    config: dict[str, Any] = yaml.safe_load(rayservice("overlays/gpu")["spec"]["serveConfigV2"])
    config["http_options"] |= {"host": "127.0.0.1", "port": port}
    for name in ENCODERS:
        args = application(config, name)["args"]
        # Weights that fit, and a thread of a CPU, for there is no GPU behind the ones that Ray counts.
        args |= {"checkpoint": str(weights / name), "device": "cpu", "threads": 1}
        args.pop("pretrained", None)
    return config


def scaling_at_once(config: dict[str, Any]) -> dict[str, Any]:
    """The same configuration with encoders that scale within seconds."""
    changed = deepcopy(config)
    for name, changes in SCALING.items():
        application(changed, name)["deployments"][0]["autoscaling_config"] |= changes
    return changed


def application(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Find an application of a configuration by its name."""
    found: dict[str, Any] = next(each for each in config["applications"] if each["name"] == name)
    return found


KEY = "the-first-admin-key"
NODES = ("service", "service", "openclip", "openclip", "dinov2", "blip2")
"""Two where one is lost, or where a second replica needs a GPU of its own."""
READY_S = 900.0
PAUSE_S = 2.0
"""Between two questions whether it is ready: each is load for the models, and they scale by load."""


def node_kinds() -> dict[str, NodeKind]:
    """Read the kinds of node, with what they offer, from the groups of pods of production's RayService."""
    cluster = cluster_of(rayservice("overlays/gpu"))
    kinds = {
        group["groupName"]: NodeKind(group["groupName"], offered(group), *_container(group))
        for group in cluster["workerGroupSpecs"]
    }
    head = cluster["headGroupSpec"]
    # All of what it offers: a pod's CPUs are hidden from Ray.
    kinds["head"] = NodeKind("head", {"CPU": float(head["rayStartParams"]["num-cpus"])}, *_container(head))
    return kinds


def _container(group: dict[str, Any]) -> tuple[dict[str, str], dict[str, bool]]:
    container = group["template"]["spec"]["containers"][0]
    mounts = {each["mountPath"]: bool(each.get("readOnly")) for each in container["volumeMounts"]}
    return env_of(group["template"]), mounts


class ProductionCluster:
    """The running cluster: its nodes by kind, its Serve, and its API."""

    def __init__(
        self, nodes: RayNodes, serve: ServeState, config: dict[str, Any], late: "LateDependencies"
    ) -> None:
        self.serve = serve
        self.working_directory = nodes.working_directory
        self.late = late
        self.nodes: dict[str, list[RayNode]] = {}
        self._ray, self._kinds = nodes, node_kinds()
        self._images = itertools.count()
        for name in NODES:
            self.add(name)
        self.change(config)

    def add(self, kind: str) -> None:
        """Start one more node of a kind."""
        self.nodes.setdefault(kind, []).append(self._ray.add(self._kinds[kind]))

    def lose(self, node: RayNode) -> None:
        """Lose a node, as by a loss of power."""
        self.nodes[node.kind.name].remove(node)
        node.lose()

    def change(self, config: dict[str, Any]) -> None:
        """Hand a whole configuration over to Serve in place of the one that runs."""
        self.serve.deploy(config)
        self.config = config

    def wait_until_all_wait(self) -> dict[str, str]:
        """Return once a replica of each application in WAITING has logged that it waits; gives their statuses."""
        what = "replicas that say that they wait"
        self.serve.wait_until(lambda: all(map(self.late.is_awaited_by, WAITING)), READY_S, what)
        return self.serve.statuses()

    @property
    def base_url(self) -> str:
        """The API behind the proxy of a node that no test loses."""
        return self.nodes["service"][0].base_url

    def client(self, timeout_s: float = 60.0) -> httpx.Client:
        """Open a connection to the API, with the admin key."""
        headers = {"Authorization": f"Bearer {KEY}"}
        return httpx.Client(base_url=self.base_url, headers=headers, timeout=timeout_s)

    def wait_until_ready(self) -> None:
        """Return once every encoder has answered.

        More patient than `/health/ready`, which gives each a few seconds: processes of all nodes start on few
        cores meanwhile.
        """
        deadline = time.monotonic() + READY_S
        with self.client() as client:
            for name in ENCODERS:
                # An image that was embedded before would be answered without the encoder.
                while problem := _problem(client, name, next(self._images)):
                    assert time.monotonic() < deadline, (
                        f"{name} is not ready: {problem}; {self.serve.reported()}"
                    )


class LateDependencies:
    """A database and weights that are not there until they are brought, and a port for a Milvus server."""

    def __init__(self, folder: Path, database_url: str) -> None:
        """`database_url` is that of a PostgreSQL at a unix socket."""
        (self._socket,) = re.findall(r"host=([^&]+)", database_url)
        self._folder = folder
        self._late_socket = folder / "pg"
        self.database_url = database_url.replace(self._socket, str(self._late_socket))
        self.weights = folder / "weights"
        self.milvus_port = free_port()

    def is_awaited_by(self, application: str) -> bool:
        """Check whether a replica of an application has logged that it waits."""
        logs = self._folder.glob(f"*/session_*/logs/serve/replica_{application}_*.log")
        return any("waiting before this replica starts" in log.read_text() for log in logs)

    def bring(self) -> None:
        """Bring the database, and the weights of each encoder at once, as a volume shows them."""
        self._late_socket.symlink_to(unquote(self._socket))
        for name in ENCODERS:
            shutil.copytree(WEIGHTS / name, self._folder / f"{name}.part")
            (self._folder / f"{name}.part").rename(self.weights / name)


@contextmanager
def production_cluster(database_url: str) -> Iterator[ProductionCluster]:
    """Start the nodes and deploy the configuration to them; everything is gone afterwards.

    Nothing that it needs is there: see `LateDependencies`.
    """
    with tempfile.TemporaryDirectory(prefix="vitrine-", ignore_cleanup_errors=True) as home:
        folder, port = Path(home), free_port()
        late = LateDependencies(folder, database_url)
        addresses = {
            "VITRINE_DATABASE_URL": late.database_url,
            "VITRINE_BLOBS_URL": str(folder / "blobs"),
            "VITRINE_MILVUS_URI": f"http://127.0.0.1:{late.milvus_port}",
            "VITRINE_ADMIN_KEY_SHA256": hashlib.sha256(KEY.encode()).hexdigest(),
        }
        head = node_kinds()["head"]
        with (
            RayNodes(folder, port, {**os.environ, **addresses}, head) as nodes,
            ServeState(nodes) as serve,
        ):
            yield ProductionCluster(nodes, serve, production_config(port, late.weights), late)


def _problem(client: httpx.Client, encoder: str, seed: int) -> str:
    """What keeps an encoder from answering; nothing if it has answered."""
    body = {"image": base64.b64encode(image(seed)).decode()}
    try:
        answer = client.post(f"/v1/embed/{encoder}", json=body)
    except httpx.TransportError as error:
        problem = repr(error)
    else:
        if answer.status_code == HTTPStatus.OK:
            return ""
        problem = answer.text
    time.sleep(PAUSE_S)
    return problem
