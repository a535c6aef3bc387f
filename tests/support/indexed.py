"""What a running service holds, and what it still has to index."""

import httpx

from demo import run
from vitrine.schemas.operations import StatsResponse


def pending(client: httpx.Client) -> int | None:
    """Count the images that some model still lacks; None while a model does not answer."""
    return run.pending(StatsResponse.model_validate(client.get("/v1/stats").raise_for_status().json()))


def stored_ids(client: httpx.Client) -> set[str]:
    """List the ids of all products that the service holds."""
    ids: list[str] = []
    while True:
        params = {"limit": "1000"} | ({"after": ids[-1]} if ids else {})
        page = client.get("/v1/products", params=params).raise_for_status().json()
        if not page:
            return set(ids)
        ids += [product["product_id"] for product in page]
