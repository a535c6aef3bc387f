"""Everything is lost but the backup: catalog, image files and Milvus. What it holds is found by search again."""

import asyncio
import base64
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from fastapi.testclient import TestClient

from catalog.backup import back_up, restore
from core.indexing import Indexer
from milvus.config import MilvusConfig
from milvus.store import MilvusStore
from tests.support.catalog_fixtures import sqlite_in
from tests.support.indexed import repair
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import local_service
from tests.support.traffic import image
from tests.support.vector_stores import LiteProcess, wait_for

BEFORE, DURING = 25, 10
"""Products that are acknowledged before the backup begins, and, at least, before it has ended."""


@dataclass
class Service:
    """A service on the folder and on a Milvus Lite of its own, in this process."""

    client: TestClient
    indexer: Indexer

    def put(self, sku: str, data: bytes) -> bool:
        """Put a product with an image; returns whether it was acknowledged."""
        body = {"attributes": {"sku": sku}, "images": [base64.b64encode(data).decode()]}
        answer = self.client.put(f"/v1/products/{sku}", json=body)
        assert answer.status_code in (201, 503), answer.text
        return answer.status_code == 201

    def finds(self, sku: str, data: bytes) -> bool:
        """Check that a search for the image finds the product first, among all others."""
        part = {"type": "image", "image": base64.b64encode(data).decode()}
        answer = self.client.post("/v1/search", json={"query": [part], "model": "fake", "limit": 1})
        assert answer.status_code == 200, answer.text
        return [each["product_id"] for each in answer.json()["results"]] == [sku]


@contextmanager
def service(folder: Path, lite: LiteProcess) -> Iterator[Service]:
    lite.start()
    store = MilvusStore(MilvusConfig(uri=lite.uri))
    wait_for(store, 60)
    encoder = LocalEncoder()
    with local_service(folder, {"fake": encoder}, store) as app, _client(app) as client:
        catalog = app.state.services.catalog
        yield Service(client, Indexer(encoder, store, catalog.ledger, catalog.blobs))
    store.close()
    lite.kill()


def _client(app: FastAPI) -> TestClient:
    # Without API keys only callers on loopback are let in.
    return TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 50_000))


class Writer:
    """Goes on putting products until it is stopped."""

    def __init__(self, shop: Service) -> None:
        self.acknowledged: dict[str, bytes] = {}
        self._shop = shop
        self._stopped = threading.Event()
        self._failure: AssertionError | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        assert self._failure is None, self._failure

    def wait_for(self, count: int) -> Mapping[str, bytes]:
        """Return what is acknowledged once it is that many."""
        while len(self.acknowledged) < count and self._thread.is_alive():
            self._stopped.wait(0.01)
        return dict(self.acknowledged)

    def _run(self) -> None:
        number = 0
        try:
            while not self._stopped.is_set():
                sku, data = f"p{number}", image(number)
                if self._shop.put(sku, data):
                    self.acknowledged[sku] = data
                number += 1
        except AssertionError as error:
            self._failure = error


def test_what_was_acknowledged_before_the_backup_is_found_after_all_else_is_lost(
    tmp_path: Path, lite_process: LiteProcess
) -> None:
    folder, place = tmp_path / "service", str(tmp_path / "backups")
    config = sqlite_in(folder)
    folder.mkdir()
    with service(folder, lite_process) as shop, Writer(shop) as writer:
        before = writer.wait_for(BEFORE)
        done = back_up(config, place)
        writer.wait_for(len(before) + DURING)
    assert done.whole
    assert len(writer.acknowledged) >= done.snapshot.products >= len(before) >= BEFORE

    shutil.rmtree(folder)
    shutil.rmtree(lite_process.data)
    folder.mkdir()
    with service(folder, lite_process) as shop:
        # It makes its empty collections before the catalog is back.
        asyncio.run(repair(shop.indexer))
        assert restore(config, place).whole
        # What the repair does each few seconds.
        report = asyncio.run(repair(shop.indexer))
        assert report.indexed == done.snapshot.images
        lost = [sku for sku, data in before.items() if not shop.finds(sku, data)]
    assert lost == []
