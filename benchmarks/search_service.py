"""The real service around a model that computes next to nothing, over a catalog of many products."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from pymilvus import MilvusClient

from benchmarks.service import application, configuration, one_replica, wait_for_answer
from catalog.database import CatalogConfig
from catalog.opening import open_catalog
from core.tcp_ports import free_port
from core.types import IndexItem, NewImage, VectorRow
from demo.service import DemoService
from milvus.config import MilvusConfig
from milvus.store import MilvusStore
from models.config import EncoderConfig
from models.encoder import Encoder, load_encoder

ROWS_A_CALL = 2000
_START_S = 180.0
_LOADING_S = 10.0


def null_encoder() -> Encoder:
    """Load the model, for what the bare call needs: its vectors and the name of its collection."""
    return load_encoder(null_config())


def null_config() -> EncoderConfig:
    """Return the configuration of the model; it gains nothing from batches, so it waits for none."""
    return EncoderConfig(name="null", family="fake", device="cpu", batch_wait_timeout_s=0.0)


def fill(home: Path, milvus_uri: str, products: int) -> None:
    """Put products with an image each into the catalog, and random vectors for them into Milvus."""
    catalog = open_catalog(CatalogConfig(**_catalog(home)))
    rows = []
    random = np.random.default_rng(0)
    info = null_encoder().info
    for number in range(products):
        new = NewImage(b"%d" % (number % 100), "image/jpeg", 224, 224)
        attributes = {"price": number % 100, "color": "red"}
        product, _ = catalog.products.put(f"p{number}", f"Product {number}", "", attributes, [new])
        image = product.images[0]
        item = IndexItem(image.image_id, image.revision, product.product_id, image.sha256, attributes)
        vector = random.standard_normal(info.dimension).astype(np.float32)
        rows.append(VectorRow(item, vector / np.linalg.norm(vector)))
    catalog.close()
    store = MilvusStore(MilvusConfig(uri=milvus_uri))
    store.ensure_collection(info.collection, info.dimension)
    for start in range(0, products, ROWS_A_CALL):
        store.upsert(info.collection, rows[start : start + ROWS_A_CALL])
    store.close()
    _seal(milvus_uri, info.collection, products)


def _seal(milvus_uri: str, collection: str, rows: int) -> None:
    """Wait until the rows are as those of a catalog that stands: sealed and indexed.

    What was just written Milvus searches without an index, and builds one meanwhile on the same cores.
    """
    with closing(MilvusClient(milvus_uri)) as client:
        client.flush(collection)
        deadline = time.monotonic() + _START_S
        while True:
            index = client.describe_index(collection, "embedding")
            if index["indexed_rows"] >= rows and index["pending_index_rows"] == 0:
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"Milvus did not index {rows} rows within {_START_S:.0f} s: {index}")
            time.sleep(0.5)
    # Milvus does not report when it has loaded a new index.
    time.sleep(_LOADING_S)


@contextmanager
def searching(home: Path, milvus_uri: str) -> Iterator[tuple[DemoService, int]]:
    """Run gateway, ensemble and model, a replica each, until the context ends; yields the service and its port."""
    with _running(home, _configuration(home, milvus_uri), lambda body: not body["degraded"]) as running:
        yield running


@contextmanager
def empty_graph(home: Path) -> Iterator[int]:
    """Run the graph that does nothing in the same way; yields its port."""
    application = {
        "name": "empty",
        "route_prefix": "/",
        "import_path": "benchmarks.empty_graph:build",
        "args": {},
        "deployments": [one_replica(name) for name in ("Encoder", "Ensemble", "Gateway")],
    }
    home.mkdir()
    with _running(home, configuration(application), lambda _: True) as (_, port):
        yield port


@contextmanager
def _running(
    home: Path, content: dict[str, Any], is_whole: Callable[[dict[str, Any]], bool]
) -> Iterator[tuple[DemoService, int]]:
    port = free_port()
    config = home / "serve_config.json"
    config.write_text(json.dumps(content), encoding="utf-8")
    body = {"query": "red", "limit": 1}
    with DemoService(home, port, config) as service:
        wait_for_answer(
            service,
            lambda: httpx.post(f"http://127.0.0.1:{port}/v1/search", json=body, timeout=30),
            lambda answer: answer.status_code == httpx.codes.OK and is_whole(answer.json()),
        )
        yield service, port


def _configuration(home: Path, milvus_uri: str) -> dict[str, Any]:
    encoder = null_config()
    milvus = {"uri": milvus_uri}
    # The gateway's limits are not set here: what they are by default is what is measured.
    gateway = {"catalog": _catalog(home), "milvus": milvus}
    models, weights = {"models": [encoder.name]}, {"weights": {encoder.name: 1.0}}
    arguments = encoder.model_dump(exclude_defaults=True)
    return configuration(
        application(encoder.name, None, "build_encoder", arguments, "Encoder"),
        application("ensemble", None, "build_ensemble", {"milvus": milvus}, "Ensemble", weights),
        application("gateway", "/", "build_gateway", gateway, "Gateway", models),
    )


def _catalog(home: Path) -> dict[str, str]:
    return {"database_url": f"sqlite:///{home}/catalog.sqlite", "blobs_url": str(home / "blobs")}
