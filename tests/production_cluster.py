"""Production on several nodes of this machine: its configuration, its kinds of node, its stores."""

import base64
import hashlib
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from core.tcp_ports import free_port
from tests.production import CHECKPOINTS, production_config
from tests.ray_nodes import NodeKind, RayNode, RayNodes
from tests.serve_state import ServeState
from tests.unit.k8s.rendering import cluster_of, offered, rayservice
from tests.upgrade_traffic import picture

KEY = "the-first-admin-key"
NODES = ("service", "service", "openclip", "openclip", "dinov2", "blip2")
"""Two where one is lost, or where a second replica needs a GPU of its own."""
READY_S = 900.0
PAUSE_S = 2.0
"""Between two questions whether it is ready: each is load for the models, and they scale by load."""


def node_kinds() -> dict[str, NodeKind]:
    """Read the kinds of node, with what they offer, from the groups of pods of production's RayService."""
    groups = cluster_of(rayservice("overlays/gpu"))["workerGroupSpecs"]
    return {group["groupName"]: NodeKind(group["groupName"], offered(group)) for group in groups}


class ProductionCluster:
    """The running cluster: its nodes by kind, its Serve, and its API."""

    def __init__(self, nodes: RayNodes, serve: ServeState, config: dict[str, Any]) -> None:
        self.serve = serve
        self.nodes: dict[str, list[RayNode]] = {}
        self._ray, self._kinds = nodes, node_kinds()
        self._pictures = itertools.count()
        for name in NODES:
            self.add(name)
        self.change(config)

    def add(self, kind: str) -> None:
        """Start one more node of a kind."""
        self.nodes.setdefault(kind, []).append(self._ray.add(self._kinds[kind]))

    def change(self, config: dict[str, Any]) -> None:
        """Hand a whole configuration over to Serve in place of the one that runs."""
        self.serve.deploy(config)
        self.config = config

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
            for name in CHECKPOINTS:
                # A picture that was embedded before would be answered without the encoder.
                while problem := _problem(client, name, next(self._pictures)):
                    assert time.monotonic() < deadline, f"{name} is not ready: {problem}; {self.serve.told()}"


@contextmanager
def production_cluster(database_url: str, milvus_uri: str) -> Iterator[ProductionCluster]:
    """Start the nodes and deploy the configuration to them; everything is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="vitrine-", ignore_cleanup_errors=True) as home:
        folder, port = Path(home), free_port()
        addresses = {
            "VITRINE_DATABASE_URL": database_url,
            "VITRINE_BLOBS_URL": str(folder / "blobs"),
            "VITRINE_MILVUS_URI": milvus_uri,
            "VITRINE_ADMIN_KEY_SHA256": hashlib.sha256(KEY.encode()).hexdigest(),
        }
        with RayNodes(folder, port, {**os.environ, **addresses}) as nodes, ServeState(nodes) as serve:
            yield ProductionCluster(nodes, serve, production_config(port))


def _problem(client: httpx.Client, encoder: str, seed: int) -> str:
    """What keeps an encoder from answering; nothing if it has answered."""
    body = {"image": base64.b64encode(picture(seed)).decode()}
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
