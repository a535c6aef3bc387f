"""Cost of writes and of rest, in the demo's service: `python -m benchmarks.writes`."""

import argparse
import asyncio
import base64
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import httpx
import numpy as np
import psutil
import yaml
from sqlalchemy import Connection, event

from catalog.blobs import FsspecBlobs
from catalog.database import WRITES
from core.tcp_ports import free_port
from demo.catalog import DemoProduct, demo_products
from demo.run import fill, put_products
from demo.service import CONFIG, DemoService
from tests.support.indexed import pending
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import local_service
from vitrine import Vitrine

MODELS = ("openclip", "dinov2", "blip2")
CALLERS = 6
SEED = 11
START_S, PATIENCE_S, SETTLE_S = 300.0, 120.0, 10.0
GROUPS = {
    "gateway": ":gateway:",
    "encoders": ":Encoder",
    "ensemble": ":ensemble:",
    "repair": ":repair:",
    "Lite": ":milvus-lite:",
}
"""Parts of the titles of the demo's own processes."""
RAY = "Ray"
EMPTY = "empty"
"""Replicas that do nothing: what Serve itself takes for each, on this machine at this time."""
EMPTY_REPLICAS, REPLICAS = 3, 7
"""How many of them there are, and how many the demo has."""


@dataclass
class Sent:
    """What a client has sent: its images, the states of its products in each index, ms of each answer."""

    images: int
    states: Counter[str] = field(default_factory=Counter)
    took_ms: list[float] = field(default_factory=list)
    took_s: float = 0.0


def put_each(base_url: str, count: int) -> Sent:
    """Put products one by one, `CALLERS` at once."""
    return asyncio.run(_put_each(base_url, _drawn("put", count)))


async def _put_each(base_url: str, products: Sequence[DemoProduct]) -> Sent:
    sent, queue = _sent(products), iter(products)

    async def work(client: httpx.AsyncClient) -> None:
        for product in queue:
            metadata = {name: getattr(product, name) for name in ("title", "description", "attributes")}
            files = [("images", (f"{i}.jpg", data, "image/jpeg")) for i, data in enumerate(product.images)]
            path, data = f"/v1/products/{product.product_id}", {"metadata": json.dumps(metadata)}
            began = time.perf_counter()
            answer = (await client.put(path, data=data, files=files)).raise_for_status()
            sent.took_ms.append((time.perf_counter() - began) * 1e3)
            sent.states.update(status["state"] for status in answer.json()["index"].values())

    async with httpx.AsyncClient(base_url=base_url, timeout=60) as client:
        began = time.perf_counter()
        await asyncio.gather(*(work(client) for _ in range(CALLERS)))
        sent.took_s = time.perf_counter() - began
    return sent


def put_batches(base_url: str, count: int) -> Sent:
    """Put products by the client's stream of batches."""
    products = _drawn("batch", count)
    sent, began = _sent(products), time.perf_counter()
    with Vitrine(base_url, key="") as shop:
        put_products(shop, products)
    sent.took_s = time.perf_counter() - began
    return sent


def fill_demo(base_url: str, count: int) -> float:
    """Fill the catalog as `make demo` does; returns seconds."""
    began = time.perf_counter()
    fill(base_url, count, None)
    return time.perf_counter() - began


def draw(prefix: str, count: int) -> None:
    """Draw products beforehand, in the process of the client."""
    _drawn(prefix, count)


@cache
def _drawn(prefix: str, count: int) -> list[DemoProduct]:
    # No image is of the demo's own catalog, so no embedding comes from a cache.
    seed = SEED + len(prefix)
    return [replace(each, product_id=f"{prefix}-{each.product_id}") for each in demo_products(seed, count)]


def _sent(products: Sequence[DemoProduct]) -> Sent:
    return Sent(sum(len(product.images) for product in products))


class Meter:
    """Processor time of the service's processes by group, in seconds.

    `groups` has a part of the titles of each group's processes; all others are Ray's.
    """

    def __init__(self, service: DemoService, groups: Mapping[str, str] = GROUPS) -> None:
        self._service, self._groups = service, groups

    @contextmanager
    def reading(self) -> Iterator[dict[str, float]]:
        """Yield a dict that holds the time of each group when the block has ended."""
        spent: dict[str, float] = dict.fromkeys([*self._groups, RAY], 0.0)
        before = self._times()
        yield spent
        for process, seconds in self._times().items():
            spent[_group(process, self._groups)] += seconds - before.get(process, 0.0)

    def _times(self) -> dict[psutil.Process, float]:
        found = {}
        for process in self._service.processes(""):
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            found[process] = times.user + times.system
        return found


def _group(process: psutil.Process, groups: Mapping[str, str]) -> str:
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return RAY
    return next((group for group, part in groups.items() if part in title), RAY)


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
        DemoService(Path(home), free_port(), _with_empty_replicas(Path(home))) as service,
    ):
        # The empty graph has an `Encoder` too, so it is looked for first.
        url, meter = service.base_url, Meter(service, {EMPTY: ":empty:"} | GROUPS)
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
        for name, put in {"put": put_each, "batch": put_batches}.items():
            client.submit(draw, name, options.puts).result()
            with meter.reading() as spent:
                sent[name] = client.submit(put, url, options.puts).result()
                wait_until_indexed(url)
            costs[name] = _per_image(spent, sent[name].images)
    counts = counted_put()
    found = {
        "put_ms_per_image": _total(costs["put"]),
        "put_p50_ms": float(np.median(sent["put"].took_ms)),
        "put_images_per_s": sent["put"].images / sent["put"].took_s,
        "put_not_indexed": sent["put"].states.total() - sent["put"].states["indexed"],
        "batch_ms_per_image": _total(costs["batch"]),
        "batch_images_per_s": sent["batch"].images / sent["batch"].took_s,
        "fill_s": fill_s,
        "fill_ms_per_image": _total(costs["fill"]),
        "rest_cores": sum(costs["rest"][group] for group in GROUPS) / 1e3,
        "rest_empty_cores": costs["rest"][EMPTY] / EMPTY_REPLICAS * REPLICAS / 1e3,
        "rest_ray_cores": costs["rest"][RAY] / 1e3,
        "put_transactions": counts.transactions,
        "put_writes": counts.writes,
        "put_read_back": counts.read_bytes / counts.image_bytes,
    }
    print(f"| processor time | {' | '.join([*GROUPS, RAY])} | all | {EMPTY} |")
    print(f"| --- |{' --- |' * (len(GROUPS) + 3)}")
    for name, cost in costs.items():
        unit = "thousandths of a core" if name == "rest" else "ms an image"
        cells = [*(cost[group] for group in (*GROUPS, RAY)), _total(cost), cost[EMPTY]]
        print(f"| {name}, {unit} | {' | '.join(f'{ms:.1f}' for ms in cells)} |")
    rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in found.items()}
    print(json.dumps(rounded))


def _per_image(spent: dict[str, float], images: int) -> dict[str, float]:
    return {group: seconds / images * 1e3 for group, seconds in spent.items()}


def _total(cost: dict[str, float]) -> float:
    return sum(cost.values()) - cost[EMPTY]


def _with_empty_replicas(home: Path) -> Path:
    """Write the demo's configuration with a graph beside it that nobody asks."""
    content = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    settings = {"num_replicas": 1, "ray_actor_options": {"num_cpus": 0.01}}
    names = ("Encoder", "Ensemble", "Gateway")
    content["applications"].append(
        {
            "name": EMPTY,
            "route_prefix": "/empty",
            "import_path": "benchmarks.empty_graph:build",
            "args": {},
            "deployments": [{"name": name, **settings} for name in names],
        }
    )
    file = home / "serve_config.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return file


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fill", type=int, default=500, help="products of the demo's catalog")
    parser.add_argument("--puts", type=int, default=200, help="products that are put, and put in batches")
    parser.add_argument("--rest", type=float, default=60.0, help="seconds of rest")
    return parser.parse_args()


if __name__ == "__main__":
    main()
