"""Indexing against a real ledger: what is missing is written, what is obsolete goes, nothing is lost."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import NoReturn

import numpy as np
import pytest

from catalog.blobs import FsspecBlobs
from catalog.opening import Catalog
from catalog.products import DeleteProduct, StoredProduct
from core.errors import Internal, NotFound, StoreUnavailable
from core.filters import parse_filter
from core.index_rows import IndexRows
from core.indexing import Indexer, IndexState, RepairReport
from core.types import PROBE, Encoded, EncoderInfo, EncoderInput, Removal, Vector, VectorRow
from milvus.memory import MemoryStore
from tests.support.image_files import image
from tests.support.indexed import repair
from tests.support.local_encoder import LocalEncoder

RED, GREEN, BLUE = (image(color) for color in ("red", "green", "blue"))


class FlakyStore(MemoryStore):
    """Fails upserts on demand, before or after the rows are written."""

    fail: str | None = None

    def upsert(self, collection: str, rows: Sequence[VectorRow]) -> None:
        if self.fail == "before":
            raise StoreUnavailable("down")
        super().upsert(collection, rows)
        if self.fail == "after":
            raise StoreUnavailable("down")


class Encoder(LocalEncoder):
    """Notes its calls, and may change or fail them.

    `bug` is raised by a call with one of the inputs `fails_on`, which is every call when it is None. `bugs` has
    errors of single inputs. `after` is called with each answer.
    """

    def __init__(self, checkpoint: str = "") -> None:
        super().__init__(checkpoint=checkpoint)
        self.calls: list[int] = []
        self.fails_on: Sequence[EncoderInput] | None = ()
        self.bug: Exception = Internal("a reply that cannot be sent")
        self.bugs: dict[EncoderInput, Internal] = {}
        self.after: Callable[[Encoded], Encoded] = lambda encoded: encoded

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        if self.fails_on is None or any(each in self.fails_on for each in inputs):
            raise self.bug
        self.calls.append(len(inputs))
        encoded = await super().encode(inputs)
        vectors = [self.bugs.get(each, vector) for each, vector in zip(inputs, encoded.vectors, strict=True)]
        return self.after(replace(encoded, vectors=vectors))


class Shop:
    """A catalog, a store, an encoder, and an indexer of them."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog, self.products, self.ledger = catalog, catalog.products, catalog.ledger
        self.store, self.encoder = FlakyStore(), Encoder()
        self.indexer = self.indexer_with(self.encoder)

    def indexer_with(self, encoder: LocalEncoder) -> Indexer:
        return Indexer(encoder, self.store, self.ledger, self.catalog.blobs)

    def put(self, *colors: str) -> None:
        """Put a product of each color under its name."""
        for color in colors:
            self.products.put(color, "", "", {}, [image(color)])

    def repair(self, indexer: Indexer | None = None, batch_size: int = 64) -> RepairReport:
        return asyncio.run(repair(indexer or self.indexer, batch_size))

    def index(self, product_id: str) -> set[IndexState]:
        """Index a product; returns the states of its images."""
        return set(asyncio.run(self.indexer.index(self.ledger.items(product_id))).values())

    def info(self, indexer: Indexer | None = None) -> EncoderInfo:
        return asyncio.run((indexer or self.indexer).describe())

    def keys(self, info: EncoderInfo | None = None) -> set[str]:
        return set(self.store.keys((info or self.info()).collection))

    def expected(self) -> set[str]:
        return {
            f"{each.image_id}:{each.revision}"
            for product in self.products.page(1000)
            for each in product.images
        }

    def vectors(self, product_id: str) -> dict[str, Vector]:
        """The vectors of a product's images, by image id."""
        items = self.ledger.items(product_id)
        found = self.store.fetch(self.info().collection, [item.key for item in items])
        return {item.image_id: found[item.key] for item in items}


@pytest.fixture
def shop(catalog: Catalog) -> Shop:
    return Shop(catalog)


def test_a_repair_makes_collection_and_catalog_consistent(shop: Shop) -> None:
    shop.put("red", "green", "blue", "white", "black")
    assert shop.repair(batch_size=2) == RepairReport(indexed=5)
    assert shop.keys() == shop.expected()
    assert shop.store.alias_target("fake") == shop.info().collection
    assert shop.repair() == RepairReport()


def test_changed_and_deleted_products_are_followed(shop: Shop) -> None:
    for name in ("keep", "change", "drop"):
        shop.products.put(name, "", "", {"color": "red"}, [RED])
    shop.repair()
    shop.products.put("change", "", "", {"color": "rust"}, None)
    shop.products.delete("drop")
    assert shop.repair() == RepairReport(indexed=1, removed=2)
    assert shop.keys() == shop.expected()
    info = shop.info()
    found = shop.store.search_products(info.collection, np.ones(info.dimension, np.float32), 5)
    assert {hit.product_id for hit in found} == {"keep", "change"}


def test_an_image_is_encoded_once_though_its_attributes_and_its_place_change(shop: Shop) -> None:
    shop.products.put("p", "", "", {"line": "spring"}, [RED, BLUE])
    shop.repair()
    before = shop.vectors("p")
    assert shop.encoder.encoded == 2
    shop.products.put("p", "", "", {"line": "summer"}, [BLUE, RED, GREEN])
    assert shop.repair() == RepairReport(indexed=3, removed=2)
    assert shop.encoder.encoded == 3, "the new one"
    assert shop.keys() == shop.expected()
    after = shop.vectors("p")
    assert {image_id: after[image_id].tobytes() for image_id in before} == {
        image_id: vector.tobytes() for image_id, vector in before.items()
    }
    query = next(iter(after.values()))
    for line, expected in (("spring", []), ("summer", ["p"])):
        found = shop.store.search_products(shop.info().collection, query, 5, parse_filter({"line": line}))
        assert [hit.product_id for hit in found] == expected


@pytest.mark.parametrize("factor", [np.nan, 2.0])
def test_a_damaged_vector_is_not_kept_when_attributes_change(factor: float, shop: Shop) -> None:
    shop.put("red")
    shop.repair()
    (item,) = shop.ledger.items("red")
    rows = shop.store._collections[shop.info().collection].rows
    sound = rows[item.key].vector
    rows[item.key] = VectorRow(item, sound * np.float32(factor))
    shop.products.put("red", "", "", {"new": True}, None)
    assert shop.repair() == RepairReport(indexed=1, removed=1)
    assert shop.encoder.encoded == 2
    (vector,) = shop.vectors("red").values()
    assert np.array_equal(vector, sound)


def test_a_missing_blob_goes_to_quarantine_and_spares_its_neighbors(shop: Shop, tmp_path: Path) -> None:
    shop.put("red", "blue")
    (blob,) = (tmp_path / "blobs").rglob(f"{shop.products.get('red').images[0].sha256}*")
    blob.unlink()
    assert shop.repair() == RepairReport(indexed=1, failed=1)
    counts = shop.ledger.counts(shop.info().collection)
    assert (counts.indexed, counts.failed, counts.missing) == (1, 1, 0)


@pytest.mark.parametrize("mended", [False, True])
def test_an_image_that_meets_a_bug_is_out_of_the_way_until_another_release(mended: bool, shop: Shop) -> None:
    shop.put("red", "blue", "lime")
    bug = shop.encoder.bugs[RED.data] = Internal("a division by zero")
    bug.release = "0.0.1"
    assert shop.repair(batch_size=1) == RepairReport(indexed=2, failed=1)
    if mended:
        shop.encoder.bugs.clear()
        assert shop.repair(shop.indexer_with(shop.encoder)) == RepairReport(indexed=1)
        return
    # This release has the bug too: it is found once more, and then the image is left alone.
    shop.encoder.bugs[RED.data] = Internal("a division by zero")
    assert shop.repair(shop.indexer_with(shop.encoder)) == RepairReport(failed=1)
    shop.encoder.bugs.clear()
    again = shop.indexer_with(shop.encoder)
    assert shop.repair(again) == RepairReport()
    assert shop.ledger.retry(shop.info().collection) == 1
    assert shop.repair(again) == RepairReport(indexed=1)


@pytest.mark.parametrize("moment", ["before", "after", "away"])
def test_a_store_that_fails_or_an_encoder_that_is_away_leaves_the_image_pending(
    moment: str, shop: Shop
) -> None:
    shop.put("red")
    shop.store.fail, shop.encoder.away = moment, moment == "away"
    assert shop.index("red") == {"pending"}
    shop.store.fail, shop.encoder.away = None, False
    assert shop.repair() == RepairReport(indexed=1)


def test_a_product_deleted_while_it_is_encoded_leaves_no_orphan(shop: Shop) -> None:
    shop.put("red")
    items, info = shop.ledger.items("red"), shop.info()
    shop.ledger.open(info.collection, items)
    shop.products.delete("red")
    rows = IndexRows(shop.store, shop.ledger)
    rows.remove_obsolete(info.collection)
    rows.upsert(info, [VectorRow(items[0], np.ones(info.dimension, np.float32))])
    rows.settle({info.collection: items})
    assert shop.keys() == set()


def test_a_product_that_changes_while_it_is_encoded_holds_up_no_other(shop: Shop) -> None:
    shop.put("red", "blue")

    def change(encoded: Encoded) -> Encoded:
        shop.encoder.after = lambda encoded: encoded
        shop.products.put("red", "", "", {"new": True}, None)
        return encoded

    shop.encoder.after = change
    assert shop.repair(batch_size=1) == RepairReport(indexed=2)
    assert shop.keys() == shop.expected()


def test_removing_from_a_collection_that_was_lost_leaves_no_row(shop: Shop) -> None:
    shop.put("red")
    shop.repair()
    keys, collection = [item.key for item in shop.ledger.items("red")], shop.info().collection
    shop.store.drop_collection(collection)
    shop.products.delete("red")
    with pytest.raises(NotFound):
        IndexRows(shop.store, shop.ledger).remove(collection, keys, grace_s=0)
    assert shop.ledger.obsolete(collection, 10) == []


@pytest.mark.parametrize("broken", ["away", "lost"])
def test_a_collection_that_cannot_be_deleted_from_keeps_no_other_from_it(
    broken: str, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put("red")
    other = shop.indexer_with(LocalEncoder(checkpoint="other"))
    infos = [shop.info(other), shop.info()]
    shop.repair()
    shop.repair(other)
    (stored,) = shop.products.write([DeleteProduct("red")])
    assert isinstance(stored, StoredProduct)
    delete = shop.store.delete

    def delete_elsewhere(collection: str, keys: Sequence[str]) -> None:
        if collection == infos[0].collection:
            raise StoreUnavailable("down") if broken == "away" else NotFound("no such collection")
        delete(collection, keys)

    monkeypatch.setattr(shop.store, "delete", delete_elsewhere)
    removals = [(each, Removal(keys, stored.work.begun_at)) for each, keys in stored.work.obsolete.items()]
    with pytest.raises(StoreUnavailable if broken == "away" else NotFound):
        IndexRows(shop.store, shop.ledger).finish(removals)
    assert shop.keys(infos[1]) == set()
    left = [len(shop.ledger.obsolete(each.collection, 10)) for each in infos]
    assert left == [int(broken == "away"), 0]


@pytest.mark.parametrize("change", ["nothing", "attributes", "another product"])
def test_a_collection_that_was_lost_is_rebuilt(change: str, shop: Shop) -> None:
    shop.put("red")
    shop.repair()
    shop.store.drop_collection(shop.info().collection)
    if change == "nothing":
        assert shop.repair(shop.indexer_with(LocalEncoder())) == RepairReport(indexed=1)
    elif change == "attributes":
        shop.products.put("red", "", "", {"new": True}, None)
        assert shop.index("red") == {"pending"}
        assert shop.index("red") == {"indexed"}
    else:
        shop.put("blue")
        assert shop.index("blue") == {"pending"}
        assert shop.repair() == RepairReport(indexed=2)
    assert shop.keys() == shop.expected()


def test_no_collection_is_counted_to_learn_whether_one_is_there(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count_them() -> NoReturn:
        raise AssertionError("all collections are counted")

    monkeypatch.setattr(shop.store, "collections", count_them)
    shop.put("red")
    assert shop.repair() == RepairReport(indexed=1)
    shop.store.drop_collection(shop.info().collection)
    assert shop.repair() == RepairReport(indexed=1)


def test_two_first_writers_at_once_do_not_undo_each_other(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, written = Event(), Event()
    has_collection = shop.store.has_collection

    def look_slowly(name: str) -> bool:
        found = has_collection(name)
        if not looked.is_set():
            looked.set()
            written.wait(0.5)
        return found

    monkeypatch.setattr(shop.store, "has_collection", look_slowly)
    shop.put("red")
    other = Thread(target=shop.info)
    other.start()
    assert looked.wait(60)
    assert shop.index("red") == {"indexed"}
    written.set()
    other.join()
    assert shop.ledger.missing(shop.info().collection, 10) == []


def test_a_product_that_the_store_refuses_spares_its_neighbors(shop: Shop) -> None:
    shop.products.put("huge", "", "", {"sizes": [1] * 16_000}, [RED])
    shop.put("blue")
    assert shop.repair() == RepairReport(indexed=1, failed=1)
    assert len(shop.keys()) == 1


def test_no_more_files_are_read_than_one_call_carries(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    get = FsspecBlobs.get

    def note(encoded: Encoded) -> Encoded:
        events.append("encode")
        return encoded

    def get_and_note(blobs: FsspecBlobs, sha256: str) -> bytes:
        events.append("read")
        return get(blobs, sha256)

    shop.encoder.after = note
    monkeypatch.setattr(FsspecBlobs, "get", get_and_note)
    images = [RED, GREEN, BLUE]
    shop.products.put("p", "", "", {}, images)
    monkeypatch.setattr("core.concurrency.MAX_ENCODE_BYTES", 2 * max(len(each.data) for each in images))
    assert shop.repair() == RepairReport(indexed=3)
    assert events == ["read", "read", "encode", "read", "encode"]
    assert shop.encoder.calls == [2, 1]


def test_a_repair_ends_when_other_weights_begin_to_serve_meanwhile(shop: Shop) -> None:
    shop.put("red", "green", "blue")
    other = LocalEncoder(checkpoint="other")

    def roll(encoded: Encoded) -> Encoded:
        shop.encoder.describe, shop.encoder.encode = other.describe, other.encode  # type: ignore[method-assign]
        return encoded

    shop.encoder.after = roll
    asyncio.run(asyncio.wait_for(repair(shop.indexer, batch_size=1), timeout=30))
    assert shop.info() == asyncio.run(other.describe())
    assert shop.keys() == shop.expected()


def test_versions_keep_to_their_own_collections(shop: Shop) -> None:
    shop.put("red")
    other = shop.indexer_with(LocalEncoder(checkpoint="other"))
    shop.repair()
    shop.repair(other)
    first, second = shop.info(), shop.info(other)
    assert first.collection != second.collection
    assert shop.keys(first) == shop.keys(second) == shop.expected()
    assert shop.store.alias_target("fake") == first.collection


def test_a_replica_with_other_weights_writes_to_its_own_collection(shop: Shop) -> None:
    shop.put("red")
    rolled = replace(shop.info(), fingerprint="f" * 12)
    shop.encoder.after = lambda encoded: replace(encoded, info=rolled)
    assert shop.index("red") == {"indexed"}
    assert shop.keys() == set()
    assert shop.keys(rolled) == shop.expected()


def test_what_is_obsolete_goes_in_versions_that_do_not_serve_too(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put("red", "green", "blue")
    others = [shop.indexer_with(LocalEncoder(checkpoint=name)) for name in ("broken", "lost", "former")]
    for each in (*others, shop.indexer):
        shop.repair(each)
    versions = broken, lost, former, serving = [shop.info(each) for each in (*others, shop.indexer)]
    shop.store.drop_collection(lost.collection)
    shop.products.delete("green")
    shop.products.delete("blue")
    delete = shop.store.delete

    def delete_elsewhere(collection: str, keys: Sequence[str]) -> None:
        if collection == broken.collection:
            raise StoreUnavailable("not loaded")
        delete(collection, keys)

    monkeypatch.setattr(shop.store, "delete", delete_elsewhere)
    assert shop.repair(batch_size=1) == RepairReport(removed=6)
    assert shop.keys(former) == shop.keys(serving) == shop.expected()
    monkeypatch.undo()
    assert shop.repair() == RepairReport(removed=2)
    assert shop.keys(broken) == shop.expected()
    assert [shop.ledger.obsolete(info.collection, 1) for info in versions] == [[]] * 4


@pytest.mark.parametrize(
    "bug", [Internal("a reply that cannot be sent"), RuntimeError("of the model's code")]
)
def test_an_image_on_which_a_whole_call_fails_keeps_no_other_from_being_indexed(
    bug: Exception, shop: Shop
) -> None:
    shop.put("red", "green", "blue", "white", "black")
    shop.encoder.bug, shop.encoder.fails_on = bug, [RED.data, BLUE.data]
    assert shop.repair(batch_size=4) == RepairReport(indexed=3, failed=2)
    collection = shop.info().collection
    counts = shop.ledger.counts(collection)
    assert (counts.indexed, counts.failed, counts.missing) == (3, 2, 0)
    assert shop.index("blue") == {"failed"}
    shop.encoder.fails_on = ()
    assert shop.ledger.retry(collection) == 2
    assert shop.repair() == RepairReport(indexed=2)


@pytest.mark.parametrize("products", [1, 3])
def test_no_image_is_to_blame_when_the_encoder_fails_on_everything(products: int, shop: Shop) -> None:
    shop.put(*["red", "green", "blue"][:products])
    shop.encoder.fails_on = None
    with pytest.raises(Internal, match="a reply"):
        shop.repair()
    assert shop.ledger.counts(shop.info().collection).missing == products
    shop.encoder.fails_on = [PROBE]
    assert shop.repair() == RepairReport(indexed=products)
