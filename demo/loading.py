"""Bringing the synthetic catalogue into a running service, over HTTP like any shop would."""

import asyncio
import json
from collections.abc import Iterable, Iterator

import httpx

from demo.catalog import DemoProduct

ATTEMPTS = 5


def key_headers(key: str | None) -> dict[str, str]:
    """Show an API key, if there is one."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def is_open(base_url: str) -> bool:
    """Tell whether the service answers without an API key, as it does while none was ever made."""
    answer = httpx.get(f"{base_url}/v1/products", params={"limit": 1}, timeout=60)
    return answer.status_code != httpx.codes.UNAUTHORIZED


def stored_ids(client: httpx.Client) -> set[str]:
    """List the ids of all products that the service holds."""
    ids: list[str] = []
    while True:
        params = {"limit": "1000"} | ({"after": ids[-1]} if ids else {})
        page = client.get("/v1/products", params=params).raise_for_status().json()
        if not page:
            return set(ids)
        ids += [product["product_id"] for product in page]


def pending(client: httpx.Client) -> int | None:
    """Count pictures that some model still misses; None while a model does not answer."""
    stats = client.get("/v1/stats").raise_for_status().json()
    models = stats["models"].values()
    if None in models:
        return None
    # Models are counted as of a moment ago, and miss what has come since.
    return sum(int(counts["missing"] + max(0, stats["pictures"] - counts["pictures"])) for counts in models)


async def put_products(
    base_url: str, products: Iterable[DemoProduct], key: str | None = None, concurrency: int = 6
) -> int:
    """Put products with a bounded number of requests at once; returns how many.

    Raises:
        httpx.HTTPStatusError: the service refused one.
    """
    queue = iter(products)
    async with httpx.AsyncClient(base_url=base_url, timeout=60, headers=key_headers(key)) as client:
        return sum(await asyncio.gather(*(_worker(client, queue) for _ in range(concurrency))))


async def _worker(client: httpx.AsyncClient, queue: Iterator[DemoProduct]) -> int:
    done = 0
    for product in queue:
        await _put(client, product)
        done += 1
    return done


async def _put(client: httpx.AsyncClient, product: DemoProduct) -> None:
    metadata = {
        "title": product.title,
        "description": product.description,
        "attributes": product.attributes,
    }
    files = [("images", (f"{i}.jpg", data, "image/jpeg")) for i, data in enumerate(product.pictures)]
    for attempt in range(ATTEMPTS):
        response = await client.put(
            f"/v1/products/{product.product_id}", data={"metadata": json.dumps(metadata)}, files=files
        )
        if response.status_code not in (429, 503):
            break
        await asyncio.sleep(2**attempt / 4)
    response.raise_for_status()
