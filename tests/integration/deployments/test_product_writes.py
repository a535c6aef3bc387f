"""Writes of products through the service: what they cost, and what becomes of their images."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from random import Random
from threading import Event
from typing import Any

import pytest
from sqlalchemy import Connection, event

from catalog.blobs import FsspecBlobs
from catalog.database import WRITES, CatalogConfig
from catalog.opening import Catalog, open_catalog
from catalog.products import DeleteProduct, Operation, PatchProduct, PutProduct
from core.errors import InvalidInput, NotFound, StoreUnavailable, Unavailable
from core.filters import parse_filter
from core.indexing import Indexer, RepairReport
from core.store_check import StoreCheck
from core.types import Encoded, EncoderInput, IndexItem, NewImage, Vector, VectorRow
from deployments.services import products
from deployments.services.encoders import EncoderSet
from deployments.services.products import ProductWrites, Written
from milvus.memory import MemoryStore
from tests.support.image_files import image
from tests.support.indexed import repair
from tests.support.local_encoder import LocalEncoder
from tests.support.waiting import until

pytestmark = pytest.mark.anyio
MODELS = ("first", "second", "third")
RED, GREEN, BLUE = (image(color) for color in ("red", "green", "blue"))


class Encoder(LocalEncoder):
    """Notes the size of each call, and encodes nothing while it is held."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[int] = []
        self.called, self.free = asyncio.Event(), asyncio.Event()
        self.free.set()

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        self.calls.append(len(inputs))
        self.called.set()
        await self.free.wait()
        return await super().encode(inputs)


class Store(MemoryStore):
    """Counts its calls by name, and may be down."""

    def __init__(self) -> None:
        super().__init__(declared={"indexed": "string"})
        self.calls: dict[str, int] = {}
        self.down: Callable[[Sequence[VectorRow]], bool] = lambda _: False
        self.may_delete = Event()
        self.may_delete.set()

    def _count(self, name: str) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1

    def upsert(self, collection: str, rows: Sequence[VectorRow]) -> None:
        self._count("upsert")
        if self.down(rows):
            raise StoreUnavailable("down")
        super().upsert(collection, rows)

    def delete(self, collection: str, keys: Sequence[str]) -> None:
        self._count("delete")
        assert self.may_delete.wait(60)
        super().delete(collection, keys)

    def fetch(self, collection: str, keys: Sequence[str]) -> dict[str, Vector]:
        self._count("fetch")
        return super().fetch(collection, keys)


class Shop:
    """A catalog, a store, encoders, and the service that writes products."""

    def __init__(self, catalog: Catalog, names: Sequence[str] = MODELS, wait_s: float = 60) -> None:
        self.catalog, self.store = catalog, Store()
        self.encoders = {name: Encoder(name) for name in names}
        self.writes = self.service(wait_s)
        self.transactions: list[str] = []
        event.listen(catalog.engine, "begin", self._note)

    def service(self, wait_s: float = 60) -> ProductWrites:
        encoders = EncoderSet(self.encoders, lambda name: self.encoders[name])
        check = StoreCheck(self.store, self.catalog.ledger)
        return ProductWrites(self.catalog, self.store, encoders, wait_s, check)

    def _note(self, connection: Connection) -> None:
        self.transactions.append("write" if connection.get_execution_options().get(WRITES) else "read")

    async def put(self, name: str, *images: NewImage, **attributes: Any) -> Written:
        return await self.writes.write_one(PutProduct(name, "", "", attributes, list(images) or None))

    def costs(self) -> list[str]:
        """Return the transactions since the last call."""
        done, self.transactions[:] = self.transactions[:], []
        self.store.calls.clear()
        for encoder in self.encoders.values():
            encoder.calls.clear()
        return done

    def collection(self, name: str = MODELS[0]) -> str:
        return self.encoders[name]._encoder.info.collection

    def keys(self, name: str = MODELS[0]) -> set[str]:
        return set(self.store.keys(self.collection(name)))

    def expected(self) -> set[str]:
        return {
            f"{each.image_id}:{each.revision}"
            for product in self.catalog.products.page(1000)
            for each in product.images
        }

    async def end(self) -> None:
        """Wait until nothing goes on in the background."""
        await until(lambda: self.writes._held_bytes == self.writes._held_images == 0)

    async def repair(self, name: str = MODELS[0], grace_s: float = 0) -> RepairReport:
        encoder = self.encoders[name]
        indexer = Indexer(encoder, self.store, self.catalog.ledger, self.catalog.blobs)
        return await repair(indexer, grace_s=grace_s)


def states(written: Written) -> dict[str, set[str]]:
    return {name: set(images.values()) for name, images in written.index.items()}


def all_are(state: str) -> dict[str, set[str]]:
    return {name: {state} for name in MODELS}


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """SQLite, unless a test asks for PostgreSQL."""
    url: str = request.getfixturevalue(getattr(request, "param", "sqlite_url"))
    return url


@pytest.fixture
def catalog(catalog_config: CatalogConfig) -> Iterator[Catalog]:
    opened = open_catalog(catalog_config)
    yield opened
    opened.close()


@pytest.fixture
async def shop(catalog: Catalog) -> Shop:
    shop = Shop(catalog)
    # What is done once for a version is not what a write costs.
    await shop.put("before", image("white"))
    shop.costs()
    return shop


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The image files that are read from now on."""
    read: list[str] = []
    get = FsspecBlobs.get

    def get_and_note(blobs: FsspecBlobs, sha256: str) -> bytes:
        read.append(sha256)
        return get(blobs, sha256)

    monkeypatch.setattr(FsspecBlobs, "get", get_and_note)
    return read


async def test_a_put_is_indexed_by_three_models_in_two_writing_transactions(
    shop: Shop, reads: list[str]
) -> None:
    written = await shop.put("red", RED)
    assert states(written) == all_are("indexed")
    costs = shop.transactions[:]
    assert costs == ["write", "write"]
    assert shop.store.calls == {"upsert": 3}
    assert reads == []
    assert all(shop.keys(name) == shop.expected() for name in MODELS)


async def test_an_identical_put_costs_one_transaction_and_asks_no_model(shop: Shop) -> None:
    await shop.put("red", RED)
    shop.costs()
    for encoder in shop.encoders.values():
        encoder.away = True
    written = await shop.put("red", RED)
    assert states(written) == all_are("indexed")
    assert shop.transactions == ["write"]
    assert shop.store.calls == {}


async def test_changed_attributes_copy_vectors_and_read_no_file(shop: Shop, reads: list[str]) -> None:
    await shop.put("red", RED, GREEN, price=1)
    shop.costs()
    written = await shop.writes.write_one(PatchProduct("red", {"attributes": {"price": 2}}))
    assert states(written) == all_are("indexed")
    await shop.end()
    assert shop.transactions == ["write"] * 3, "the product, what is indexed, what is removed"
    assert shop.store.calls == {"fetch": 3, "upsert": 3, "delete": 3}
    assert [encoder.calls for encoder in shop.encoders.values()] == [[], [], []]
    assert reads == []
    assert all(shop.keys(name) == shop.expected() for name in MODELS)
    query = next(iter(shop.store.fetch(shop.collection(), sorted(shop.keys())).values()))
    for price, found in ((1, 0), (2, 1)):
        hits = shop.store.search_products(shop.collection(), query, 5, parse_filter({"price": price}))
        assert len(hits) == found


async def test_a_delete_costs_two_transactions_and_leaves_nothing(shop: Shop) -> None:
    await shop.put("red", RED)
    shop.costs()
    await shop.writes.write_one(DeleteProduct("red"))
    await shop.end()
    assert shop.transactions == ["write", "write"]
    assert shop.store.calls == {"delete": 3}
    assert shop.keys() == shop.expected()
    with pytest.raises(NotFound):
        await shop.writes.write_one(DeleteProduct("red"))
    assert shop.catalog.ledger.obsolete(shop.collection(), 10) == []


async def test_no_answer_waits_until_obsolete_vectors_are_removed(shop: Shop) -> None:
    await shop.put("red", RED, price=1)
    await shop.put("blue", BLUE)
    shop.store.may_delete.clear()
    written = await shop.writes.write_one(PatchProduct("red", {"attributes": {"price": 2}}))
    assert states(written) == all_are("indexed")
    await shop.writes.write_one(DeleteProduct("blue"))
    assert shop.expected() < shop.keys()
    shop.store.may_delete.set()
    await shop.end()
    assert all(shop.keys(name) == shop.expected() for name in MODELS)
    assert shop.catalog.ledger.obsolete(shop.collection(), 10) == []


async def test_operations_of_one_call_share_transactions_and_calls(shop: Shop) -> None:
    await shop.put("old", GREEN)
    await shop.put("gone", BLUE)
    shop.costs()
    outcomes = await shop.writes.write(
        [
            *(PutProduct(f"p{number}", "", "", {}, [image(f"#0000{number:02}")]) for number in range(20)),
            PatchProduct("old", {"attributes": {"price": 2}}),
            DeleteProduct("gone"),
            DeleteProduct("never"),
            PutProduct("bad\0", "", "", {}, [RED]),
        ]
    )
    assert [type(each) for each in outcomes] == [Written] * 22 + [NotFound, InvalidInput]
    assert [states(each) for each in outcomes[:21] if isinstance(each, Written)] == [all_are("indexed")] * 21
    await shop.end()
    assert shop.transactions.count("write") <= 8
    assert all(sum(encoder.calls) == 20 and len(encoder.calls) <= 2 for encoder in shop.encoders.values())
    assert shop.store.calls["upsert"] <= 4 * len(MODELS)
    assert all(shop.keys(name) == shop.expected() for name in MODELS)
    assert shop.catalog.ledger.obsolete(shop.collection(), 10) == []


async def test_of_several_operations_on_one_product_the_last_is_indexed(shop: Shop) -> None:
    outcomes = await shop.writes.write(
        [
            PutProduct("p", "", "", {"price": 1}, [RED]),
            PatchProduct("p", {"attributes": {"price": 2}}),
            PutProduct("p", "", "", {"price": 3}, [RED, BLUE]),
        ]
    )
    assert all(states(each) == all_are("indexed") for each in outcomes)  # type: ignore[arg-type]
    await shop.end()
    assert shop.keys() == shop.expected()
    assert shop.catalog.ledger.obsolete(shop.collection(), 10) == []


async def test_attributes_that_cannot_be_indexed_are_refused_before_anything_is_stored(shop: Shop) -> None:
    await shop.put("red", RED, sizes=[1])
    huge = [1] * 16_000
    for operation in (
        PutProduct("huge", "", "", {"sizes": huge}, [BLUE]),
        PatchProduct("red", {"attributes": {"sizes": huge}}),
    ):
        shop.costs()
        (refused,) = await shop.writes.write([operation])
        assert isinstance(refused, InvalidInput)
        assert refused.param == "attributes"
    assert shop.keys() == shop.expected()


async def test_without_waiting_a_write_is_durable_and_indexed_in_the_background(shop: Shop) -> None:
    encoder = shop.encoders["second"]
    encoder.free.clear()
    (written,) = await shop.writes.write([PutProduct("red", "", "", {}, [RED])], wait=False)
    assert isinstance(written, Written)
    assert states(written) == all_are("pending")
    assert shop.catalog.products.get("red").images
    encoder.free.set()
    await until(lambda: all(shop.catalog.ledger.missing(shop.collection(name), 1) == [] for name in MODELS))


async def test_what_exceeds_the_bound_is_left_to_the_repair(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "_MAX_HELD_BYTES", len(RED.data) + len(BLUE.data))
    for encoder in shop.encoders.values():
        encoder.free.clear()
    names = ("red", "green", "blue")
    puts = [
        PutProduct(name, "", "", {}, [each]) for name, each in zip(names, (RED, GREEN, BLUE), strict=True)
    ]
    await shop.writes.write(puts, wait=False)
    for encoder in shop.encoders.values():
        encoder.free.set()
    lacking = "green" if len(RED.data) + len(GREEN.data) > len(RED.data) + len(BLUE.data) else "blue"
    await until(lambda: len(shop.catalog.ledger.missing(shop.collection(), 10)) == 1)
    (item,) = shop.catalog.ledger.missing(shop.collection(), 10)
    assert item.product_id == lacking
    assert await shop.repair() == RepairReport(indexed=1)
    assert shop.keys() == shop.expected()
    # What is done is held no longer.
    await shop.end()


async def test_writes_that_wait_for_a_busy_model_share_its_next_calls(shop: Shop) -> None:
    shop.encoders["first"].free.clear()
    colors = [image(f"#00{number:02}00") for number in range(12)]
    puts = [asyncio.create_task(shop.put("p0", colors[0]))]
    await shop.encoders["first"].called.wait()
    puts += [asyncio.create_task(shop.put(f"p{number}", colors[number])) for number in range(1, 12)]
    await until(lambda: len(shop.catalog.products.page(100)) == 13)
    waiting, calls = shop.writes._models["first"]._encoding._waiting, shop.encoders["first"].calls
    await until(lambda: len(waiting) + sum(calls) == 12)
    shop.encoders["first"].free.set()
    written = await asyncio.gather(*puts)
    assert all(states(each) == all_are("indexed") for each in written)
    assert len(calls) <= 4
    assert sum(calls) == 12


async def test_a_model_that_hangs_holds_up_no_other_and_no_removal(catalog: Catalog) -> None:
    shop = Shop(catalog, wait_s=60)
    await shop.put("red", RED, BLUE)
    shop.encoders["third"].free.clear()
    before = shop.keys()
    await shop.writes.write_one(PutProduct("red", "", "", {"price": 1}, [RED, GREEN]), wait=False)

    def missing() -> list[int]:
        return [len(shop.catalog.ledger.missing(shop.collection(name), 10)) for name in MODELS]

    # The third model copies the vector that it knows.
    await until(lambda: missing() == [0, 0, 1])
    await until(lambda: not before & shop.keys())
    assert shop.keys() == shop.expected()
    shop.encoders["third"].free.set()
    await until(lambda: shop.keys("third") == shop.expected())


async def test_a_product_that_the_store_cannot_take_spares_others_in_its_call(shop: Shop) -> None:
    def is_red(rows: Sequence[VectorRow]) -> bool:
        if any(row.item.product_id == "red" for row in rows):
            raise InvalidInput("not this one")
        return False

    shop.store.down = is_red
    red, blue = await shop.writes.write(
        [PutProduct("red", "", "", {}, [RED]), PutProduct("blue", "", "", {}, [BLUE])]
    )
    assert isinstance(red, Written)
    assert isinstance(blue, Written)
    assert states(red) == all_are("failed")
    assert states(blue) == all_are("indexed")


async def test_what_milvus_does_not_take_stays_missing_until_the_repair(shop: Shop) -> None:
    shop.store.down = lambda _: True
    written = await shop.put("red", RED)
    assert states(written) == all_are("pending")
    shop.store.down = lambda _: False
    assert await shop.repair(grace_s=600) == RepairReport(), "within the grace it is the writer's"
    assert await shop.repair() == RepairReport(indexed=1)
    assert shop.keys() == shop.expected()


async def test_the_repair_writes_many_products_in_one_call(shop: Shop) -> None:
    # It records the version.
    assert await shop.repair() == RepairReport()
    puts = [PutProduct(f"p{number}", "", "", {}, [image(f"#0000{number:02}")]) for number in range(20)]
    shop.catalog.products.write(puts)
    shop.costs()
    assert await shop.repair() == RepairReport(indexed=20)
    assert shop.encoders[MODELS[0]].calls == [20]
    assert shop.store.calls == {"upsert": 1}
    assert shop.transactions.count("write") == 2, "the rows are opened, and settled"
    assert shop.keys() == shop.expected()


async def test_the_former_rows_stay_until_the_new_ones_are_settled(shop: Shop) -> None:
    await shop.put("red", RED, price=1)
    before = shop.keys()
    shop.store.down = lambda _: True
    written = await shop.put("red", RED, price=2)
    assert states(written) == all_are("pending")
    assert before <= shop.keys()
    shop.store.down = lambda _: False
    calls = sum(len(encoder.calls) for encoder in shop.encoders.values())
    assert await shop.repair() == RepairReport(indexed=1, removed=1)
    assert sum(len(encoder.calls) for encoder in shop.encoders.values()) == calls, "it was copied"
    assert shop.keys() == shop.expected()


async def test_a_ledger_that_does_not_settle_leaves_rows_to_the_repair(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(items: dict[str, list[IndexItem]]) -> dict[str, list[IndexItem]]:
        raise Unavailable("the catalog's database does not answer; try again")

    with monkeypatch.context() as patch:
        patch.setattr(shop.catalog.ledger, "settle", away)
        written = await shop.put("red", RED)
    assert states(written) == all_are("pending")
    assert await shop.repair() == RepairReport(indexed=1)


async def test_a_version_that_was_not_registered_before_the_write_is_indexed_too(catalog: Catalog) -> None:
    shop = Shop(catalog)
    written = await shop.put("red", RED)
    assert states(written) == all_are("indexed")
    assert all(shop.keys(name) == shop.expected() for name in MODELS)
    assert catalog.ledger.missing(shop.collection(), 1) == []


async def test_another_process_knows_what_is_indexed(shop: Shop) -> None:
    await shop.put("red", RED)
    calls = [list(encoder.calls) for encoder in shop.encoders.values()]
    shop.writes = shop.service()
    written = await shop.put("red", RED)
    assert states(written) == all_are("indexed")
    assert [encoder.calls for encoder in shop.encoders.values()] == calls


@pytest.mark.parametrize("database_url", ["sqlite_url", "postgres_url"], indirect=True)
async def test_whatever_many_requests_write_at_once_the_collections_become_what_the_catalog_is(
    shop: Shop,
) -> None:
    random = Random(17)
    images = [RED, GREEN, BLUE]

    def operation() -> Operation:
        name = f"p{random.randrange(3)}"
        kind = random.randrange(5)
        if kind == 0:
            return DeleteProduct(name)
        if kind == 1:
            return PatchProduct(name, {"attributes": {"price": random.randrange(3)}})
        some = random.sample(images, random.randrange(1, 4))
        return PutProduct(name, "", "", {"price": random.randrange(3)}, some)

    async def request() -> None:
        operations = [operation() for _ in range(random.randrange(1, 4))]
        wait = random.random() < 0.5
        await asyncio.sleep(random.random() / 100)
        outcomes = await shop.writes.write(operations, wait)
        assert all(isinstance(each, Written | NotFound) for each in outcomes)

    for _ in range(5):
        await asyncio.gather(*(request() for _ in range(12)))
        # Nothing fails, so nothing is left to the repair, but what many writes at once have left to each other.
        await shop.end()
        for name in MODELS:
            lacking = shop.catalog.ledger.missing(shop.collection(name), 100)
            assert lacking == []
            assert shop.expected() <= shop.keys(name)
            await shop.repair(name)
            assert shop.keys(name) == shop.expected()
            assert shop.catalog.ledger.obsolete(shop.collection(name), 10) == []


async def test_a_value_that_does_not_fit_the_declaration_of_its_attribute_changes_nothing(
    catalog: Catalog,
) -> None:
    shop = Shop(catalog)
    await shop.put("p", RED, indexed="red")
    wrong = PutProduct("p", "", "", {"indexed": ["red", "blue"]}, None)
    refused, other = await shop.writes.write([wrong, PutProduct("q", "", "", {"indexed": "blue"}, [BLUE])])
    assert isinstance(refused, InvalidInput)
    assert refused.param == "attributes"
    assert "the attribute 'indexed' is a list; milvus.indexed_attributes declares it" in refused.message
    assert isinstance(other, Written)
    assert catalog.products.get("p").attributes == {"indexed": "red"}
    assert shop.keys() == shop.expected()
