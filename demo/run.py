"""Command `make demo`: the service with the synthetic catalog, in the foreground until Ctrl-C."""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from rich.console import Console

from core.api_keys import NO_KEYS_NOTICE
from demo.catalog import DemoProduct, demo_products
from demo.service import DemoService

ATTEMPTS = 5
SEED = 7
READY_TIMEOUT_S = 240.0
INDEX_TIMEOUT_S = 300.0
KEY = "VITRINE_KEY"
"""Names an API key in the environment, as for the command line."""
LOCKED_NOTICE = (
    "API keys were made for this data, so the catalog was left as it is, and the page asks for a key. "
    f"With {KEY} set to a key of scope write, `make demo` completes the catalog too."
)


def key_headers(key: str | None) -> dict[str, str]:
    """Show an API key, if there is one."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def is_open(base_url: str) -> bool:
    """Return whether the service answers without an API key, as it does while none was ever made."""
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
    """Count the images that some model still lacks; None while a model does not answer."""
    stats = client.get("/v1/stats").raise_for_status().json()
    models = stats["models"].values()
    if None in models:
        return None
    # The counts of models are cached, and lack what has come since.
    return sum(int(counts["missing"] + max(0, stats["images"] - counts["images"])) for counts in models)


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
    files = [("images", (f"{i}.jpg", data, "image/jpeg")) for i, data in enumerate(product.images)]
    for attempt in range(ATTEMPTS):
        response = await client.put(
            f"/v1/products/{product.product_id}", data={"metadata": json.dumps(metadata)}, files=files
        )
        if response.status_code not in (429, 503):
            break
        await asyncio.sleep(2**attempt / 4)
    response.raise_for_status()


console = Console()


def main() -> None:
    """Start the service, index what is missing, print the address, and wait."""
    options = _options()
    # Both: a process that a script starts in the background inherits SIGINT as ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    with DemoService(options.home, options.port) as service:
        try:
            with _stage("service started and ready"):
                service.wait_until_ready(READY_TIMEOUT_S)
            notice = fill(service.base_url, options.products, os.environ.get(KEY))
            console.print(f"\nVitrine answers at [bold]{service.base_url}[/] — Ctrl-C ends it.")
            console.print(f"data and log in {options.home}\n{notice}")
            service.wait()
            raise RuntimeError(f"the service ended; see {service.log_file}")
        except KeyboardInterrupt:
            # A second Ctrl-C must not interrupt the shutdown.
            _ignore_interrupts()
            console.print("\nstopping …")
        except (RuntimeError, httpx.HTTPError) as error:
            _ignore_interrupts()
            console.print(f"[red]{error}[/]")
            sys.exit(1)


def fill(base_url: str, count: int, key: str | None) -> str:
    """Complete the catalog of a running service where its keys allow it; returns a notice about its keys.

    Raises:
        RuntimeError: the service does not take this key, or does not index everything in time.
    """
    if is_open(base_url):
        _index(base_url, count, None)
        return NO_KEYS_NOTICE
    if not key:
        return LOCKED_NOTICE
    try:
        _index(base_url, count, key)
    except httpx.HTTPStatusError as error:
        if error.response.status_code not in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise
        message = error.response.json()["error"]["message"]
        raise RuntimeError(f"the API key in {KEY} was refused: {message}") from None
    return f"The key in {KEY} was used; the page asks for a key too."


def _index(base_url: str, count: int, key: str | None) -> None:
    with httpx.Client(base_url=base_url, timeout=60, headers=key_headers(key)) as client:
        known = stored_ids(client)
        with _stage(f"catalog of {count} products indexed ({min(len(known), count)} were there)"):
            fresh = (product for product in demo_products(SEED, count) if product.product_id not in known)
            if len(known) < count:
                asyncio.run(put_products(base_url, fresh, key))
            deadline = time.monotonic() + INDEX_TIMEOUT_S
            while pending(client) != 0:
                if time.monotonic() > deadline:
                    raise RuntimeError("some images are still not indexed; GET /v1/stats says which model")
                time.sleep(0.5)


@contextmanager
def _stage(name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    console.print(f"{time.perf_counter() - started:7.1f} s  {name}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".demo"), help="folder for data (default: .demo)")
    parser.add_argument("--port", type=int, default=8000, help="port on loopback (default: 8000)")
    parser.add_argument("--products", type=int, default=500, help="products in the catalog (default: 500)")
    return parser.parse_args()


def _ignore_interrupts() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
