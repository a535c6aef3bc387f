"""A ledger and a Milvus that is not the one it speaks of: nothing is reset until somebody confirms it."""

import asyncio
import base64
import logging
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete

from catalog.backup import back_up, restore
from catalog.database import CatalogConfig
from catalog.opening import Catalog, open_catalog
from catalog.products import PutProduct
from catalog.tables import IndexStoreRow
from core.errors import Conflict, StoreUnknown
from core.index_rows import IndexRows
from core.indexing import Indexer, RepairReport
from core.jobs import AdoptArgs
from core.ports import VectorStore
from core.store_check import StoreCheck
from core.types import EncoderInfo
from jobs.build.build import complete
from jobs.runner.context import JobContext, JobRun, take_up
from jobs.upgrade.promote import begun
from jobs.verification.verify import adopt
from milvus.config import MilvusConfig
from milvus.memory import MemoryStore
from milvus.store import MilvusStore
from tests.support.catalog_fixtures import new_catalog, sqlite_in
from tests.support.indexed import repair
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import local_service
from tests.support.upgrade_stage import FakeServe, configuration, image
from tests.support.vector_stores import LiteProcess

IMAGES = 3


class Shop:
    """A catalog with images, and indexing with whatever store is configured."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.encoder = LocalEncoder()

    @property
    def info(self) -> EncoderInfo:
        return asyncio.run(self.encoder.describe())

    def repair(self, store: VectorStore) -> RepairReport:
        """Repair in a process of its own."""
        indexer = Indexer(self.encoder, store, self.catalog.ledger, self.catalog.blobs)
        return asyncio.run(repair(indexer))

    def adopt(self, keep_index: bool = False) -> dict[str, Any]:
        with take_up(self.catalog.jobs, "adopt", {}) as run:
            return adopt(context(run, self.catalog), AdoptArgs(keep_index=keep_index))

    @property
    def indexed(self) -> int:
        return self.catalog.ledger.counts(self.info.collection).indexed


def server() -> MemoryStore:
    return MemoryStore(rebuilt_if_empty=False)


def context(run: JobRun, catalog: Catalog, milvus: MilvusConfig | None = None) -> JobContext:
    class AnySettings:
        encoder = staticmethod(lambda _name, _candidate: None)

    settings: Any = AnySettings()
    settings.milvus = milvus or MilvusConfig(uri="http://127.0.0.1:1")
    return JobContext(run, settings, catalog)


def connect_jobs(monkeypatch: pytest.MonkeyPatch, store: MemoryStore) -> None:
    """Have jobs find this store at the configured address."""
    monkeypatch.setattr(store, "close", lambda: None, raising=False)
    for module in ("jobs.runner.context", "jobs.build.build"):
        monkeypatch.setattr(f"{module}.MilvusStore", lambda _config: store)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    catalog, names = new_catalog(tmp_path), [f"p{number}" for number in range(IMAGES)]
    catalog.products.write([PutProduct(name, "", "", {}, [image(name)]) for name in names])
    yield Shop(catalog)
    catalog.close()


def test_an_empty_store_at_a_wrong_address_resets_nothing(shop: Shop) -> None:
    right, wrong = server(), server()
    assert shop.repair(right) == RepairReport(indexed=IMAGES)
    with pytest.raises(StoreUnknown, match="correct the address, or, if the collections are lost"):
        shop.repair(wrong)
    assert shop.indexed == IMAGES
    assert wrong.collections() == []
    assert wrong.marks() == set()
    shop.encoder.encoded = 0
    assert shop.repair(right) == RepairReport()
    assert shop.encoder.encoded == 0


@pytest.mark.parametrize("rebuilt_if_empty", [False, True])
def test_another_shops_store_is_refused_though_it_has_a_collection_of_that_name(
    shop: Shop, tmp_path: Path, rebuilt_if_empty: bool
) -> None:
    shop.repair(server())
    other = open_catalog(sqlite_in(tmp_path / "other"))
    other.products.put("theirs", "", "", {}, [image("theirs")])
    theirs = MemoryStore(rebuilt_if_empty)
    Shop(other).repair(theirs)
    rows = set(theirs.keys(shop.info.collection))
    with pytest.raises(StoreUnknown):
        shop.repair(theirs)
    keys = [item.key for item in shop.catalog.ledger.items("p0")]
    shop.catalog.products.delete("p0")
    with pytest.raises(StoreUnknown):
        IndexRows(theirs, shop.catalog.ledger).remove(shop.info.collection, keys)
    assert set(theirs.keys(shop.info.collection)) == rows
    assert shop.catalog.ledger.obsolete(shop.info.collection, 10) == keys
    other.close()


def test_a_store_that_is_emptied_under_a_running_process_resets_nothing(shop: Shop) -> None:
    store = server()
    indexer = Indexer(shop.encoder, store, shop.catalog.ledger, shop.catalog.blobs)
    asyncio.run(repair(indexer))
    gone = shop.catalog.ledger.items("p0")
    store.drop_collection(shop.info.collection)
    store._marks.clear()
    shop.catalog.products.put("new", "", "", {}, [image("new")])
    for _ in range(2):
        states = asyncio.run(indexer.index(shop.catalog.ledger.items("new")))
        assert set(states.values()) == {"pending"}
    assert shop.indexed == IMAGES
    shop.catalog.products.delete("p0")
    rows = IndexRows(store, shop.catalog.ledger)
    with pytest.raises(StoreUnknown):
        rows.remove(shop.info.collection, [item.key for item in gone])
    assert shop.catalog.ledger.obsolete(shop.info.collection, 10) == [item.key for item in gone]


def test_an_emptied_folder_of_our_own_is_filled_anew_once_by_several_at_once(shop: Shop) -> None:
    shop.repair(MemoryStore())
    former, empty = shop.catalog.ledger.store_id(), MemoryStore()
    with ThreadPoolExecutor(4) as pool:
        for check in [StoreCheck(empty, shop.catalog.ledger) for _ in range(4)]:
            pool.submit(check.take)
    assert empty.marks() == {shop.catalog.ledger.store_id()}
    assert former not in empty.marks()
    assert shop.repair(empty) == RepairReport(indexed=IMAGES)


def test_processes_that_begin_at_once_agree_on_one_mark(shop: Shop) -> None:
    store = server()
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(StoreCheck(store, shop.catalog.ledger).take) for _ in range(8)]
    assert [each.result() for each in done] == [None] * 8
    assert store.marks() == {shop.catalog.ledger.store_id()}


def test_a_collection_that_is_dropped_in_the_right_store_is_filled_again(shop: Shop) -> None:
    store = server()
    shop.repair(store)
    store.drop_collection(shop.info.collection)
    assert shop.repair(store) == RepairReport(indexed=IMAGES)


def test_after_an_update_the_store_that_holds_the_collections_is_taken_and_an_empty_one_is_not(
    shop: Shop,
) -> None:
    store = server()
    shop.repair(store)
    with shop.catalog.engine.begin() as connection:
        connection.execute(delete(IndexStoreRow))
    store._marks.clear()
    with pytest.raises(StoreUnknown, match="one of the ledger's collections"):
        shop.repair(server())
    assert shop.repair(store) == RepairReport()
    assert store.marks() == {shop.catalog.ledger.store_id()}


def test_a_confirmed_loss_encodes_everything_anew_and_the_former_store_is_refused_then(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    former, new = server(), server()
    shop.repair(former)
    connect_jobs(monkeypatch, former)
    with pytest.raises(Conflict, match="nothing to adopt"):
        shop.adopt()
    connect_jobs(monkeypatch, new)
    assert shop.adopt()["index_kept"] is False
    assert shop.repair(new) == RepairReport(indexed=IMAGES)
    with pytest.raises(StoreUnknown):
        shop.repair(former)


def test_collections_that_were_brought_back_without_the_mark_are_believed_on_request(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = server()
    shop.repair(store)
    store._marks.clear()
    with pytest.raises(StoreUnknown):
        shop.repair(store)
    connect_jobs(monkeypatch, store)
    assert shop.adopt(keep_index=True)["index_kept"] is True
    assert shop.repair(store) == RepairReport()


def test_builds_and_promotions_refuse_another_store(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.repair(server())
    connect_jobs(monkeypatch, wrong := server())
    with take_up(shop.catalog.jobs, "build", {}) as run:
        job = context(run, shop.catalog)
        with pytest.raises(StoreUnknown):
            complete(run, job.settings, shop.catalog, None, shop.info)  # type: ignore[arg-type]
    with take_up(shop.catalog.jobs, "promote", {}) as run:
        monkeypatch.setattr("jobs.upgrade.promote.settings_of", lambda _applications: job.settings)
        with (
            pytest.raises(StoreUnknown),
            begun(context(run, shop.catalog), FakeServe(configuration("old")), "fake"),
        ):
            pass
    assert shop.indexed == IMAGES
    assert wrong.collections() == []


def test_a_restored_catalog_takes_the_store_that_it_finds_unless_the_index_is_kept(
    shop: Shop, tmp_path: Path
) -> None:
    store = server()
    shop.repair(store)
    back_up(sqlite_in(tmp_path), str(tmp_path / "backups"))
    for name, kept in (("kept", True), ("anew", False)):
        restore(sqlite_in(tmp_path / name), str(tmp_path / "backups"), keep_index=kept)
        with opened(sqlite_in(tmp_path / name)) as catalog:
            again = Shop(catalog)
            if kept:
                with pytest.raises(StoreUnknown):
                    again.repair(server())
                assert again.repair(store) == RepairReport()
            else:
                # A copy of the catalog with a store of its own is not taken for the original.
                copy = server()
                assert again.repair(copy) == RepairReport(indexed=IMAGES)
                with pytest.raises(StoreUnknown):
                    shop.repair(copy)


def test_a_deleted_lite_folder_is_filled_anew_or_after_a_confirmation_as_configured(
    shop: Shop, lite_process: LiteProcess
) -> None:
    own = MilvusConfig(uri=lite_process.uri, timeout_s=60)
    asks = own.model_copy(update={"rebuilt_if_empty": False})
    with empty_folder(lite_process, own) as store:
        assert shop.repair(store) == RepairReport(indexed=IMAGES)
    with empty_folder(lite_process, own) as store:
        assert shop.repair(store) == RepairReport(indexed=IMAGES)
    with empty_folder(lite_process, asks) as store:
        with pytest.raises(StoreUnknown):
            shop.repair(store)
        with take_up(shop.catalog.jobs, "adopt", {}) as run:
            adopt(context(run, shop.catalog, asks), AdoptArgs())
        assert shop.repair(store) == RepairReport(indexed=IMAGES)


@contextmanager
def empty_folder(owner: LiteProcess, settings: MilvusConfig) -> Iterator[MilvusStore]:
    shutil.rmtree(owner.data, ignore_errors=True)
    owner.start()
    store = MilvusStore(settings)
    yield store
    store.close()
    owner.kill()


@contextmanager
def opened(settings: CatalogConfig) -> Iterator[Catalog]:
    catalog = open_catalog(settings)
    yield catalog
    catalog.close()


def test_the_service_takes_writes_and_says_why_it_does_not_search(
    shop: Shop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shop.repair(server())
    caplog.set_level(logging.ERROR)
    with local_service(tmp_path, {"fake": LocalEncoder()}, server()) as app:
        client = TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 50_000))
        body = {"images": [base64.b64encode(image("new").data).decode()]}
        put = client.put("/v1/products/new", json=body)
        assert put.status_code == 201
        assert put.json()["index"]["fake"]["state"] == "pending"
        assert client.delete("/v1/products/p0").status_code in (200, 204)
        for _ in range(3):
            found = client.post("/v1/search", json={"query": "a red dress", "model": "fake"})
            assert found.status_code == 503
            assert found.json()["error"]["type"] == "store_unknown"
            assert "vitrine adopt" in found.json()["error"]["message"]
        ready = client.get("/health/ready")
        assert ready.status_code == 503
        assert "vitrine adopt" in ready.json()["problems"]["milvus"]
        models = client.get("/v1/models").json()
        assert "vitrine adopt" in str(models)
    assert sum("refused" in record.getMessage() for record in caplog.records) == 1
    assert shop.indexed == IMAGES - 1
