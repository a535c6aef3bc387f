"""Command `make demo`: the service with the synthetic catalog, in the foreground until Ctrl-C."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from core.api_keys import NO_KEYS_NOTICE
from demo.catalog import DemoProduct, demo_products
from demo.service import DemoService, on_interrupts
from vitrine import Forbidden, NewProduct, ServiceError, Unauthenticated, Vitrine
from vitrine.schemas.operations import StatsResponse

SEED = 7
READY_TIMEOUT_S = 240.0
INDEX_TIMEOUT_S = 300.0
KEY = "VITRINE_KEY"
"""Names an API key in the environment, as for the command line."""
LOCKED_NOTICE = (
    "API keys were made for this data, so the catalog was left as it is, and the page asks for a key. "
    f"With {KEY} set to a key of scope write, `make demo` completes the catalog too."
)


def pending(stats: StatsResponse) -> int | None:
    """Count the images that some model still lacks; None while a model does not answer."""
    models = [each for each in stats.models.values() if each is not None]
    if len(models) < len(stats.models):
        return None
    # The counts of models are cached, and lack what has come since.
    return sum(each.missing + max(0, stats.images - each.images) for each in models)


def put_products(shop: Vitrine, products: Iterable[DemoProduct]) -> int:
    """Put products; returns how many.

    Raises:
        RuntimeError: the service refused one.
    """
    summary = shop.put_products(
        NewProduct(each.product_id, each.title, each.description, each.attributes, each.images)
        for each in products
    )
    if summary.errors:
        raise RuntimeError(f"products were refused, the first as {summary.errors[0]}")
    return summary.done


console = Console()


def main() -> None:
    """Start the service, index what is missing, print the address, and wait."""
    options = _options()
    on_interrupts()
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
            on_interrupts(signal.SIG_IGN)
            console.print("\nstopping …")
        except (RuntimeError, ServiceError) as error:
            on_interrupts(signal.SIG_IGN)
            console.print(f"[red]{error}[/]")
            sys.exit(1)


def fill(base_url: str, count: int, key: str | None) -> str:
    """Complete the catalog of a running service where its keys allow it; returns a notice about its keys.

    Raises:
        RuntimeError: the service does not take this key, or does not index everything in time.
    """
    if _is_open(base_url):
        _index(base_url, count, "")
        return NO_KEYS_NOTICE
    if not key:
        return LOCKED_NOTICE
    try:
        _index(base_url, count, key)
    except (Unauthenticated, Forbidden) as error:
        raise RuntimeError(f"the API key in {KEY} was refused: {error.message}") from None
    return f"The key in {KEY} was used; the page asks for a key too."


def _is_open(base_url: str) -> bool:
    """Return whether the service answers without an API key, as it does while none was ever made."""
    with Vitrine(base_url, key="") as shop:
        try:
            shop.product_page(limit=1)
        except Unauthenticated:
            return False
        return True


def _index(base_url: str, count: int, key: str) -> None:
    with Vitrine(base_url, key) as shop:
        known = {product.product_id for product in shop.products(page_size=1000)}
        with _stage(f"catalog of {count} products indexed ({min(len(known), count)} were there)"):
            fresh = (product for product in demo_products(SEED, count) if product.product_id not in known)
            if len(known) < count:
                put_products(shop, fresh)
            deadline = time.monotonic() + INDEX_TIMEOUT_S
            while pending(shop.stats()) != 0:
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


if __name__ == "__main__":
    main()
