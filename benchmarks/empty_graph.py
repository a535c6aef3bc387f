"""The shape of a search through Serve with nothing in it: an ingress that calls a deployment that calls another.

What it takes is what Serve takes, on this machine at this time, whatever a search does besides.
"""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

DIMENSION = 64

api = FastAPI()


class NoConfig(BaseModel):
    """Configuration without fields."""


class Encoder:
    """In the place of a model: the same vector for everything."""

    async def encode(self, inputs: list[str]) -> list[list[float]]:
        """Return a vector for each input."""
        return [[0.0] * DIMENSION for _ in inputs]


class Ensemble:
    """In the place of the search: the same hits for everything."""

    def __init__(self, encoder: DeploymentHandle[Any]) -> None:
        self._encoder = encoder

    async def search(self, query: str, limit: int) -> list[dict[str, Any]]:
        """Wait for the vector, and leave it at that."""
        await self._encoder.encode.remote([query])
        return [{"product_id": f"p{number}", "score": 0.5} for number in range(limit)]


@serve.ingress(api)
class Gateway:
    """The ingress: reads JSON, calls, writes JSON."""

    def __init__(self, ensemble: DeploymentHandle[Any]) -> None:
        self._ensemble = ensemble

    @api.post("/v1/search")
    async def search(self, body: dict[str, Any]) -> dict[str, Any]:
        """Answer in the form of a search."""
        hits = await self._ensemble.search.remote(body["query"], body["limit"])
        return {"results": hits, "timings_ms": {}}


def build(_config: NoConfig) -> Application:
    """Bind one to the other; how many of each there are stands in the configuration."""
    encoder, ensemble, gateway = (serve.deployment(each) for each in (Encoder, Ensemble, Gateway))
    return gateway.bind(ensemble.bind(encoder.bind()))
