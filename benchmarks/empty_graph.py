"""The shape of a search through Serve with nothing in it: an ingress that calls a deployment that calls another.

What it takes is what Serve takes, on this machine at this time, whatever a search does besides.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic import BaseModel
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from cli.environment import free_port
from demo.service import DemoService

LIMIT = 10
DIMENSION = 64
_START_S = 180.0

api = FastAPI()


class NoConfig(BaseModel):
    """There is nothing to configure."""


class Encoder:
    """In the place of a model: the same vector for everything."""

    async def encode(self, inputs: list[str]) -> list[list[float]]:
        """Return a vector for each input."""
        return [[0.0] * DIMENSION for _ in inputs]


class Ensemble:
    """In the place of the search: the same hits for everything."""

    def __init__(self, encoder: DeploymentHandle[Encoder]) -> None:
        self._encoder = encoder

    async def search(self, query: str) -> list[dict[str, Any]]:
        """Wait for the vector, and leave it at that."""
        await self._encoder.encode.remote([query])
        return [{"product_id": f"p{number}", "score": 0.5} for number in range(LIMIT)]


@serve.ingress(api)
class Gateway:
    """The ingress: reads JSON, calls, writes JSON."""

    def __init__(self, ensemble: DeploymentHandle[Ensemble]) -> None:
        self._ensemble = ensemble

    @api.post("/v1/search")
    async def search(self, body: dict[str, Any]) -> dict[str, Any]:
        """Answer in the form of a search."""
        return {"results": await self._ensemble.search.remote(body["query"]), "timings_ms": {}}


def build(_config: NoConfig) -> Application:
    """Bind one replica of each."""
    options: dict[str, Any] = {
        "num_replicas": 1,
        "max_ongoing_requests": 512,
        "ray_actor_options": {"num_cpus": 0.5},
    }
    encoder, ensemble, gateway = (
        serve.deployment(each).options(**options) for each in (Encoder, Ensemble, Gateway)
    )
    return gateway.bind(ensemble.bind(encoder.bind()))


@contextmanager
def empty_graph(home: Path) -> Iterator[int]:
    """Run it as `vitrine serve` runs everything, until the context ends; yields its port."""
    home.mkdir()
    port = free_port()
    config = home / "serve_config.json"
    content = {
        "http_options": {"host": "127.0.0.1"},
        "logging_config": {"log_level": "WARNING", "enable_access_log": False},
        "applications": [
            {"name": "empty", "route_prefix": "/", "import_path": f"{__name__}:build", "args": {}}
        ],
    }
    config.write_text(json.dumps(content), encoding="utf-8")
    with DemoService(home, port, config) as service:
        _wait(service, port)
        yield port


def _wait(service: DemoService, port: int) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and service.is_running():
        try:
            answer = httpx.post(f"http://127.0.0.1:{port}/v1/search", json={"query": "red"}, timeout=30)
            if answer.is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise RuntimeError(f"the empty graph did not start; see {service.log_file}")
