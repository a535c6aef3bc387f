"""What a service holds, what it still has to index, and what the repair does about it."""

import httpx

from core.indexing import Indexer, RepairReport
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


async def repair(indexer: Indexer, batch_size: int = 64, grace_s: float = 0.0) -> RepairReport:
    """Make a collection what the catalog is, as the two loops of the repair do; raises the errors of both."""
    report = await indexer.index_missing(batch_size, grace_s)
    return report + await indexer.remove_obsolete(batch_size, grace_s)
