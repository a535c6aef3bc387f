"""Cost of writes and of rest, in the demo's service: `python -m benchmarks.writes`."""

import argparse
import asyncio
import base64
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import numpy as np
import psutil
from sqlalchemy import Connection, event

from catalog.blobs import FsspecBlobs
from catalog.database import WRITES
from core.batching import batched
from core.tcp_ports import free_port
from demo.catalog import DemoProduct, demo_products
from demo.run import fill, pending
from demo.service import DemoService
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import local_service

MODELS = ("openclip", "dinov2", "blip2")
CALLERS = 6
BATCH, BATCHES_AT_ONCE = 50, 2
SEED = 11
START_S, PATIENCE_S, SETTLE_S = 300.0, 120.0, 10.0
BATCH_PATH = "/v1/products:batch"
GROUPS = {
    "gateway": ":gateway:",
    "encoders": ":Encoder",
    "ensemble": ":ensemble:",
    "repair": ":repair:",
    "Lite": ":milvus-lite:",
}
"""Parts of the titles of the service's own processes; all others are Ray's."""
RAY = "Ray"


@dataclass
class Sent:
    """What a client has sent: its images, the states of its products in each index, ms of each answer."""

    images: int
    states: Counter[str] = field(default_factory=Counter)
    took_ms: list[float] = field(default_factory=list)
    took_s: float = 0.0


def put_each(base_url: str, count: int) -> Sent:
    """Put products one by one, `CALLERS` at once."""

    async def put(client: httpx.AsyncClient, products: Sequence[DemoProduct]) -> list[str]:
        (product,) = products
        metadata = {name: getattr(product, name) for name in ("title", "description", "attributes")}
        files = [("images", (f"{i}.jpg", data, "image/jpeg")) for i, data in enumerate(product.images)]
        answer = await client.put(
            f"/v1/products/{product.product_id}", data={"metadata": json.dumps(metadata)}, files=files
        )
        return [status["state"] for status in answer.raise_for_status().json()["index"].values()]

    return asyncio.run(_send(base_url, _drawn("put", count), 1, put, CALLERS))


def put_batches(base_url: str, count: int) -> Sent:
    """Put products by `POST /v1/products:batch`."""

    async def put(client: httpx.AsyncClient, products: Sequence[DemoProduct]) -> list[str]:
        body = {"operations": [_operation(product) for product in products]}
        results = (await client.post(BATCH_PATH, json=body)).raise_for_status().json()["results"]
        return [state for result in results for state in (result["index"] or {"": "failed"}).values()]

    return asyncio.run(_send(base_url, _drawn("batch", count), BATCH, put, BATCHES_AT_ONCE))


def fill_demo(base_url: str, count: int) -> float:
    """Fill the catalog as `make demo` does; returns seconds."""
    began = time.perf_counter()
    fill(base_url, count, None)
    return time.perf_counter() - began


def _drawn(prefix: str, count: int) -> list[DemoProduct]:
    # No image is of the demo's own catalog, so no embedding comes from a cache.
    seed = SEED + len(prefix)
    return [replace(each, product_id=f"{prefix}-{each.product_id}") for each in demo_products(seed, count)]


def _operation(product: DemoProduct) -> dict[str, Any]:
    return {
        "op": "put",
        "product_id": product.product_id,
        "title": product.title,
        "description": product.description,
        "attributes": product.attributes,
        "images": [base64.b64encode(data).decode() for data in product.images],
    }


async def _send(
    base_url: str, products: Sequence[DemoProduct], size: int, put: Callable[..., Any], at_once: int
) -> Sent:
    sent, queue = Sent(sum(len(product.images) for product in products)), batched(products, size)

    async def work(client: httpx.AsyncClient) -> None:
        for some in queue:
            began = time.perf_counter()
            sent.states.update(await put(client, some))
            sent.took_ms.append((time.perf_counter() - began) * 1e3)

    async with httpx.AsyncClient(base_url=base_url, timeout=120) as client:
        began = time.perf_counter()
        await asyncio.gather(*(work(client) for _ in range(at_once)))
        sent.took_s = time.perf_counter() - began
    return sent


class Meter:
    """Processor time of the service's processes by group, in seconds."""

    def __init__(self, service: DemoService) -> None:
        self._service = service

    @contextmanager
    def reading(self) -> Iterator[dict[str, float]]:
        """Yield a dict that holds the time of each group when the block has ended."""
        spent: dict[str, float] = dict.fromkeys([*GROUPS, RAY], 0.0)
        before = self._times()
        yield spent
        for process, seconds in self._times().items():
            spent[_group(process)] += seconds - before.get(process, 0.0)

    def _times(self) -> dict[psutil.Process, float]:
        found = {}
        for process in self._service.processes(""):
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            found[process] = times.user + times.system
        return found


def _group(process: psutil.Process) -> str:
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return RAY
    return next((group for group, part in GROUPS.items() if part in title), RAY)


def wait_until_indexed(base_url: str) -> None:
    """Return when no image is missing.

    Raises:
        RuntimeError: some still are after two minutes.
    """
    deadline = time.monotonic() + PATIENCE_S
    with httpx.Client(base_url=base_url, timeout=60) as client:
        while pending(client) != 0:
            if time.monotonic() > deadline:
                raise RuntimeError("some images are still not indexed")
            time.sleep(0.5)


@dataclass
class Counts:
    """What one put did in the gateway."""

    transactions: int = 0
    writes: int = 0
    read_bytes: int = 0
    image_bytes: int = 0


def counted_put() -> Counts:
    """Put a product of one image with three models, in this process, and count what it does."""
    counts = Counts()
    get = FsspecBlobs.get

    def begun(connection: Connection) -> None:
        counts.transactions += 1
        counts.writes += bool(connection.get_execution_options().get(WRITES))

    def read(blobs: FsspecBlobs, sha256: str) -> bytes:
        data = get(blobs, sha256)
        counts.read_bytes += len(data)
        return data

    async def puts() -> None:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(base_url="http://127.0.0.1", transport=transport) as client:
            for product in _drawn("one", 3):
                # Those before the last make the collections.
                counts.__init__()  # type: ignore[misc]
                body = {
                    "attributes": product.attributes,
                    "images": [base64.b64encode(product.images[0]).decode()],
                }
                answer = await client.put(f"/v1/products/{product.product_id}", json=body)
                answer.raise_for_status()
                counts.image_bytes = len(product.images[0])
                await asyncio.sleep(0.5)

    encoders = {name: LocalEncoder(name) for name in MODELS}
    with (
        tempfile.TemporaryDirectory() as folder,
        local_service(Path(folder), encoders, authentication={"keys_ttl_s": 3600}) as app,
        patch.object(FsspecBlobs, "get", read),
    ):
        event.listen(app.state.services.catalog.engine, "begin", begun)
        asyncio.run(puts())
    return counts


def main() -> None:
    """Measure a service of its own and print the results."""
    options = _options()
    with (
        # A short path: the address of Milvus Lite is a unix socket in this folder.
        tempfile.TemporaryDirectory(prefix="vitrine-") as home,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as client,
        DemoService(Path(home), free_port()) as service,
    ):
        url, meter = service.base_url, Meter(service)
        service.wait_until_ready(START_S)
        costs: dict[str, dict[str, float]] = {}
        with meter.reading() as spent:
            fill_s = client.submit(fill_demo, url, options.fill).result()
        images = int(httpx.get(f"{url}/v1/stats").json()["images"])
        costs["fill"] = _per_image(spent, images)
        time.sleep(SETTLE_S)
        with meter.reading() as rest:
            time.sleep(options.rest)
        costs["rest"] = {group: seconds / options.rest * 1e3 for group, seconds in rest.items()}
        sent: dict[str, Sent] = {}
        paths = httpx.get(f"{url}/v1/openapi.json").raise_for_status().json()["paths"]
        for name, put in {"put": put_each, "batch": put_batches}.items():
            if name == "batch" and BATCH_PATH not in paths:
                continue
            with meter.reading() as spent:
                sent[name] = client.submit(put, url, options.puts).result()
                wait_until_indexed(url)
            costs[name] = _per_image(spent, sent[name].images)
    counts = counted_put()
    found = {
        "put_ms_per_image": _total(costs["put"]),
        "put_p50_ms": float(np.median(sent["put"].took_ms)),
        "put_images_per_s": sent["put"].images / sent["put"].took_s,
        "put_not_indexed": _not_indexed(sent["put"]),
        "batch_ms_per_image": _total(costs["batch"]) if "batch" in costs else None,
        "batch_images_per_s": sent["batch"].images / sent["batch"].took_s if "batch" in sent else None,
        "batch_not_indexed": _not_indexed(sent["batch"]) if "batch" in sent else None,
        "fill_s": fill_s,
        "fill_ms_per_image": _total(costs["fill"]),
        "rest_cores": (_total(costs["rest"]) - costs["rest"][RAY]) / 1e3,
        "rest_ray_cores": costs["rest"][RAY] / 1e3,
        "put_transactions": counts.transactions,
        "put_writes": counts.writes,
        "put_read_back": counts.read_bytes / counts.image_bytes,
    }
    print(f"| processor time | {' | '.join([*GROUPS, RAY])} | all |")
    print(f"| --- |{' --- |' * (len(GROUPS) + 2)}")
    for name, cost in costs.items():
        unit = "thousandths of a core" if name == "rest" else "ms an image"
        print(f"| {name}, {unit} | {' | '.join(f'{ms:.1f}' for ms in cost.values())} | {_total(cost):.1f} |")
    rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in found.items()}
    print(json.dumps(rounded))


def _per_image(spent: dict[str, float], images: int) -> dict[str, float]:
    return {group: seconds / images * 1e3 for group, seconds in spent.items()}


def _total(cost: dict[str, float]) -> float:
    return sum(cost.values())


def _not_indexed(sent: Sent) -> int:
    return sent.states.total() - sent.states["indexed"]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fill", type=int, default=500, help="products of the demo's catalog")
    parser.add_argument("--puts", type=int, default=200, help="products that are put, and put in batches")
    parser.add_argument("--rest", type=float, default=60.0, help="seconds of rest")
    return parser.parse_args()


if __name__ == "__main__":
    main()
