"""What every database must do with writes of products and the ledger rows that they open."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from threading import Barrier
from typing import Any
from unittest.mock import Mock

import pytest
from sqlalchemy import Connection, event, not_, or_, select, text

from catalog import product_rows
from catalog.database import reading
from catalog.ledger import SqlLedger, SqlVersions
from catalog.ledger_queries import IS_CURRENT, record, version_state
from catalog.opening import Catalog
from catalog.products import DeleteProduct, Operation, PatchProduct, PutProduct, SqlProducts, StoredProduct
from catalog.tables import EmbeddingRow
from core.errors import InvalidImage, InvalidInput, NotFound, Unavailable, VitrineError
from core.types import Attributes, IndexItem, IndexWork, NewImage, Product, Removal
from tests.support.catalog_fixtures import BLUE, GREEN, RED, Clock, encoder

VERSIONS = [encoder(name) for name in ("openclip", "dinov2", "blip2")]
LIVE, OTHER, THIRD = (each.collection for each in VERSIONS)
GRACE_S = 60.0


def put(name: str, *images: NewImage, **attributes: Any) -> PutProduct:
    """A put of a product with these images."""
    return PutProduct(name, "", "", attributes, images)


class WritesContract:
    """Run on what the fixture `database_url` names."""

    @pytest.fixture(autouse=True)
    def _opened(self, catalog: Catalog, products: SqlProducts, clock: Clock) -> None:
        self.catalog, self.products, self.clock = catalog, products, clock
        self.ledger = SqlLedger(catalog.engine, clock)
        for info in VERSIONS:
            self.ledger.register(info)
            assert self.ledger.missing(info.collection, 1) == []

    def write(self, operation: Operation) -> StoredProduct:
        (outcome,) = self.products.write([operation])
        assert isinstance(outcome, StoredProduct), outcome
        return outcome

    def put(self, name: str, *images: NewImage, **attributes: Any) -> tuple[Product, IndexWork]:
        stored = self.write(put(name, *images, **attributes))
        assert stored.product is not None
        return stored.product, stored.work

    def settle(self, work: IndexWork) -> None:
        assert not any(self.ledger.settle(work.missing).values())

    def missing(self, collection: str = LIVE, grace_s: float = 0.0) -> list[str]:
        return [item.product_id for item in self.ledger.missing(collection, 1000, grace_s)]

    @contextmanager
    def counting(self, name: str) -> Iterator[list[object]]:
        """List what the engine does of this kind: `begin` or `before_cursor_execute`."""
        seen: list[object] = []

        def note(*arguments: Any) -> None:
            seen.append(arguments[2] if name == "before_cursor_execute" else arguments)

        event.listen(self.catalog.engine, name, note)
        yield seen
        event.remove(self.catalog.engine, name, note)

    def test_a_put_is_one_transaction_whatever_it_replaces(self) -> None:
        for operation in (put("p", RED), put("p", RED), put("p", BLUE, a=1), DeleteProduct("p")):
            with self.counting("begin") as begun:
                self.write(operation)
            assert len(begun) == 1

    def test_a_hundred_operations_are_one_transaction_of_few_statements(self) -> None:
        self.products.write([put(f"p{number}", RED, BLUE) for number in range(60)])
        batch: list[Operation] = [put(f"p{number}", GREEN, BLUE) for number in range(20, 80)]
        batch += [PatchProduct(f"p{number}", {"attributes": {"price": number}}) for number in range(20)]
        batch += [DeleteProduct(f"p{number}") for number in range(20, 40)]
        with self.counting("begin") as begun, self.counting("before_cursor_execute") as statements:
            outcomes = self.products.write(batch)
        assert [each for each in outcomes if isinstance(each, VitrineError)] == []
        assert len(begun) == 1
        assert len(statements) <= 30, statements
        assert self.products.counts() == (60, 120)

    def test_a_write_of_many_images_holds_a_bounded_number_of_locks(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if self.catalog.engine.dialect.name == "sqlite":
            pytest.skip("SQLite has one lock for all that write")
        held: list[int] = []
        write = product_rows.write_products

        def note(connection: Connection, *arguments: Any) -> None:
            held.append(connection.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")))
            write(connection, *arguments)

        monkeypatch.setattr("catalog.products.write_products", note)
        monkeypatch.setattr(self.products._blobs, "size", len)
        monkeypatch.setattr(self.products._blobs, "put", lambda data: hashlib.sha256(data).hexdigest())
        files = [replace(RED, data=f"{number}".encode()) for number in range(4000)]
        self.products.write([put(f"p{number}", *files[number::80]) for number in range(80)])
        assert len(held) == 1
        assert 100 < held[0] < 1200

    def test_an_operation_that_fails_spares_those_around_it(self) -> None:
        outcomes = self.products.write(
            [
                put("a", RED),
                put("a/b", RED),
                DeleteProduct("missing"),
                put("b", RED, price=float("nan")),
                PatchProduct("a", {"attributes": {"color": {"of": "nothing"}}}),
                PatchProduct("nul\0", {}),
                put("c", RED),
            ]
        )
        assert [type(each) for each in outcomes] == [
            StoredProduct,
            InvalidInput,
            NotFound,
            InvalidInput,
            InvalidInput,
            NotFound,
            StoredProduct,
        ]
        assert [each.product_id for each in self.products.page(10)] == ["a", "c"]
        assert self.products.get("a").attributes == {}
        assert self.missing() == ["a", "c"]
        assert self.products.write([]) == []

    def test_operations_on_one_product_follow_each_other(self) -> None:
        first, _ = self.put("p", RED, a=1)
        batch: list[Operation] = [
            PatchProduct("p", {"attributes": {"a": 2}}),
            DeleteProduct("p"),
            PatchProduct("p", {"title": "gone"}),
            put("p", RED, BLUE),
            PatchProduct("p", {"title": "new"}),
        ]
        patched, deleted, refused, again, last = self.products.write(batch)
        assert isinstance(patched, StoredProduct)
        assert isinstance(again, StoredProduct)
        assert isinstance(last, StoredProduct)
        assert isinstance(deleted, StoredProduct)
        assert deleted.product is None
        assert isinstance(refused, NotFound)
        assert again.created
        assert not patched.created
        assert not last.created
        assert last.product == self.products.get("p")
        assert (last.product.title, last.product.attributes) == ("new", {})
        assert last.product.revision > first.revision
        assert patched.work.missing == again.work.missing == {}
        red, blue = last.product.images
        assert [item.key for item in last.work.missing[LIVE]] == [
            f"{red.image_id}:{red.revision}",
            f"{blue.image_id}:{blue.revision}",
        ]
        assert self.ledger.missing(LIVE, 10) == sorted(last.work.missing[LIVE], key=lambda item: item.key)

    def test_a_patch_keeps_what_it_does_not_name(self) -> None:
        before = self.write(
            PutProduct("p", "Shirt", "Soft", {"color": "red", "price": 9}, [RED, BLUE])
        ).product
        assert before is not None
        self.clock.move(1)
        title = self.write(PatchProduct("p", {"title": "Dress"})).product
        assert title is not None
        assert (title.title, title.description, title.attributes) == ("Dress", "Soft", before.attributes)
        assert title.images == before.images
        assert title.updated_at == self.clock.now
        changed = self.write(
            PatchProduct("p", {"attributes": {"price": 8, "color": None, "none": None}, "description": None})
        ).product
        assert changed is not None
        assert (changed.description, changed.attributes) == ("", {"price": 8})
        assert [each.image_id for each in changed.images] == [each.image_id for each in before.images]
        assert min(each.revision for each in changed.images) > before.revision
        same = self.write(PatchProduct("p", {"attributes": {"price": 8}, "title": "Dress"})).product
        assert same == changed
        emptied = self.write(PatchProduct("p", {"attributes": None, "title": None})).product
        assert emptied is not None
        assert (emptied.title, emptied.attributes) == ("", {})

    @pytest.mark.parametrize(
        ("changes", "param", "says"),
        [
            ({"images": []}, "images", "cannot be patched; title, description and attributes can"),
            ({"title": 3}, "title", "must be a string or null"),
            ({"title": "t" * 501}, "title", "501 characters"),
            ({"attributes": [1]}, "attributes", "must be an object or null"),
            ({"attributes": {"a": {"b": 1}}}, "attributes.a", "must be a string"),
            ({"attributes": {"b": "x" * 20_000}}, "attributes", "larger than"),
        ],
    )
    def test_a_patch_is_refused_as_a_put_of_its_result(
        self, changes: dict[str, Any], param: str, says: str
    ) -> None:
        before, _ = self.put("p", RED, a="x" * 20_000)
        (refused,) = self.products.write([PatchProduct("p", changes)])
        assert isinstance(refused, InvalidInput)
        assert (refused.param or "").startswith(param)
        assert says in refused.message
        assert self.products.get("p") == before

    def test_attributes_that_the_caller_refuses_are_not_stored(self) -> None:
        def check(attributes: Attributes) -> None:
            if len(attributes) > 1:
                raise InvalidInput("no room")

        outcomes = self.products.write(
            [put("a", RED, x=1), put("b", RED, x=1, y=2), PatchProduct("a", {"attributes": {"y": 2}})], check
        )
        assert [getattr(each, "param", None) for each in outcomes] == [None, "attributes", "attributes"]
        assert self.products.counts() == (1, 1)

    def test_a_put_claims_its_images_in_every_version_until_the_grace_is_over(self) -> None:
        product, work = self.put("p", RED, BLUE)
        assert set(work.missing) == {LIVE, OTHER, THIRD}
        assert work.missing[LIVE] == self.ledger.items("p")
        assert (work.begun_at, work.obsolete) == (self.clock.now, {})
        assert self.missing(grace_s=GRACE_S) == []
        assert self.ledger.unsettled(GRACE_S) == set()
        self.clock.move(GRACE_S)
        # Its writer died: the rows are found without a look at the images.
        assert self.missing(grace_s=GRACE_S) == ["p", "p"]
        assert self.ledger.unsettled(GRACE_S) == {LIVE, OTHER, THIRD}
        self.settle(replace(work, missing={LIVE: work.missing[LIVE], OTHER: work.missing[OTHER]}))
        assert self.ledger.unsettled(GRACE_S) == {THIRD}
        assert self.ledger.indexed(LIVE, [item.key for item in work.missing[LIVE]]) == {
            f"{each.image_id}:{each.revision}" for each in product.images
        }

    def test_an_identical_put_tries_again_what_is_not_settled(self) -> None:
        _, work = self.put("p", RED, BLUE)
        red, blue = work.missing[LIVE]
        self.settle(replace(work, missing={LIVE: [red], OTHER: [red, blue], THIRD: [red, blue]}))
        self.ledger.fail(LIVE, [(blue, InvalidImage("no"))])
        assert self.missing() == []
        self.clock.move(100)
        _, again = self.put("p", RED, BLUE)
        assert (again.missing, again.obsolete) == ({LIVE: [blue], OTHER: [], THIRD: []}, {})
        assert self.ledger.counts(LIVE).missing == 1
        assert self.missing(grace_s=GRACE_S) == []

    def test_a_replaced_image_is_removed_by_its_writer_or_after_the_grace(self) -> None:
        _, work = self.put("p", RED)
        self.settle(work)
        old = work.missing[LIVE][0].key
        self.clock.move(1)
        _, work = self.put("p", BLUE)
        assert work.obsolete == {LIVE: [old], OTHER: [old], THIRD: [old]}
        assert self.ledger.obsolete(LIVE, 10, GRACE_S) == []
        self.ledger.end_removal({LIVE: Removal([old], work.begun_at), OTHER: Removal([old], self.clock.now)})
        assert self.ledger.obsolete(LIVE, 10) == self.ledger.obsolete(OTHER, 10) == []
        self.clock.move(GRACE_S)
        assert self.ledger.obsolete(THIRD, 10, GRACE_S) == [old]

    def test_a_row_that_another_writer_holds_is_left_to_it(self) -> None:
        _, first = self.put("p", RED)
        self.settle(replace(first, missing={LIVE: first.missing[LIVE]}))
        self.clock.move(1)
        stored = self.write(DeleteProduct("p"))
        assert stored.work.obsolete == {LIVE: [first.missing[LIVE][0].key]}
        assert self.ledger.settle({OTHER: first.missing[OTHER]}) == {OTHER: list(first.missing[OTHER])}
        assert self.ledger.obsolete(OTHER, 10) == [first.missing[OTHER][0].key]

    def test_what_is_obsolete_waits_for_its_successor(self) -> None:
        _, work = self.put("p", RED, price=1)
        self.settle(work)
        keys = [work.missing[LIVE][0].key]
        for price in (2, 3):
            self.clock.move(1)
            _, work = self.put("p", RED, price=price)
            keys.append(work.missing[LIVE][0].key)
        assert self.ledger.obsolete(LIVE, 10) == [keys[1]], "one vector to copy from is enough"
        image_id = work.missing[LIVE][0].image_id
        assert self.ledger.copies(VERSIONS[0], [image_id]) == {image_id: [(LIVE, keys[1]), (LIVE, keys[0])]}
        self.ledger.settle({LIVE: work.missing[LIVE]})
        assert self.ledger.obsolete(LIVE, 10) == keys[:2]
        self.ledger.fail(OTHER, [(item, InvalidImage("no")) for item in work.missing[OTHER]])
        assert self.ledger.obsolete(OTHER, 10) == keys[:2]
        assert self.ledger.obsolete(THIRD, 10) == [keys[1]]
        self.write(DeleteProduct("p"))
        assert sorted(self.ledger.obsolete(THIRD, 10)) == sorted(keys)

    def test_a_product_that_is_deleted_and_put_again_has_other_rows(self) -> None:
        first, work = self.put("p", RED)
        self.settle(work)
        self.write(DeleteProduct("p"))
        self.clock.move(-3600)
        again, late = self.put("p", RED)
        assert again.images[0].image_id == first.images[0].image_id
        assert again.images[0].revision > first.images[0].revision
        assert self.ledger.settle(work.missing)[LIVE] == list(work.missing[LIVE]), (
            "the writer of the first was late"
        )
        self.settle(late)
        assert self.ledger.obsolete(LIVE, 10) == [work.missing[LIVE][0].key]
        assert self.ledger.counts(LIVE).indexed == 1

    def test_vectors_of_the_same_weights_under_another_schema_can_be_copied(self) -> None:
        _, work = self.put("p", RED)
        self.settle(work)
        item = work.missing[LIVE][0]
        other = replace(VERSIONS[0], index_schema="0123abcd")
        assert other.collection == f"{LIVE}_0123abcd"
        assert self.ledger.copies(other, [item.image_id]) == {item.image_id: [(LIVE, item.key)]}
        self.ledger.register(other)
        assert self.ledger.versions()[-1] == other
        assert self.ledger.copies(VERSIONS[0], [item.image_id, "0" * 32]) == {}

    def test_settling_several_collections_is_one_transaction(self) -> None:
        _, work = self.put("p", RED, BLUE)
        with self.counting("begin") as begun:
            self.settle(work)
        assert len(begun) == 1
        self.write(DeleteProduct("p"))
        removals = {
            each: Removal([item.key for item in items], self.clock.now)
            for each, items in work.missing.items()
        }
        with self.counting("begin") as begun:
            self.ledger.end_removal(removals)
        assert len(begun) == 1
        with reading(self.catalog.engine) as connection:
            assert connection.execute(select(EmbeddingRow.image_id)).all() == []

    def test_a_version_that_comes_later_is_missing_every_image(self) -> None:
        self.put("p", RED)
        late = encoder("timm")
        self.ledger.register(late)
        self.put("q", RED)
        assert self.ledger.unsettled(GRACE_S) == {late.collection}
        assert self.missing(late.collection) == ["p", "q"]
        (first,) = self.ledger.missing(late.collection, 1)
        self.ledger.open(late.collection, [first])
        assert self.missing(late.collection) == ["p", "q"]
        assert self.ledger.unsettled(GRACE_S) == set(), "it has a row for every image now"
        # A version that is forgotten and comes again begins anew.
        SqlVersions(self.catalog.engine).forget(late.collection)
        self.put("r", RED)
        self.ledger.register(late)
        assert self.ledger.unsettled(GRACE_S) == {late.collection}
        assert self.missing(late.collection) == ["p", "q", "r"]

    def test_a_version_whose_removal_died_halfway_is_not_recorded(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.put("p", RED)
        with reading(self.catalog.engine) as connection:
            seen = version_state(connection, LIVE)
        assert seen is not None
        with monkeypatch.context() as patch:
            patch.setattr("catalog.ledger.lock_versions", Mock(side_effect=RuntimeError("no more power")))
            with pytest.raises(RuntimeError, match="no more power"):
                SqlVersions(self.catalog.engine).forget(LIVE)
        # A repair saw a row for every image before, and says so only now.
        record(self.catalog.engine, LIVE, replace(seen, recorded=False))
        assert LIVE in self.ledger.unsettled()
        assert self.missing(LIVE) == ["p"]

    def test_registering_what_is_known_writes_nothing(self) -> None:
        with self.counting("begin") as begun, self.counting("commit") as committed:
            self.ledger.register(replace(VERSIONS[0], captions="c" * 12))
        assert (len(begun), len(committed)) == (1, 0)

    def test_no_image_escapes_a_version_that_is_registered_meanwhile(self) -> None:
        late = [encoder("late", f"{number:012x}") for number in range(6)]

        def register() -> None:
            for info in late:
                self.ledger.register(info)
                self.ledger.missing(info.collection, 1000)

        def write(name: str) -> None:
            for number in range(12):
                self.put(f"{name}{number % 4}", RED, number=number)

        with ThreadPoolExecutor(3) as pool:
            for task in [pool.submit(write, "a"), pool.submit(register), pool.submit(write, "b")]:
                task.result()
        wanted = sorted(f"{name}{number}" for name in "ab" for number in range(4))
        for info in late:
            assert sorted(self.missing(info.collection)) == wanted
            assert self.ledger.counts(info.collection).missing == 8

    def test_what_is_settled_or_failed_is_always_current(self) -> None:
        def write() -> None:
            for number in range(30):
                self.put("p", RED, BLUE, number=number)

        def finish(last: Callable[[list[IndexItem]], object]) -> None:
            for _ in range(30):
                items = self.ledger.missing(LIVE, 10)
                last(items)

        def fail(items: list[IndexItem]) -> None:
            self.ledger.fail(LIVE, [(item, InvalidImage("no")) for item in items])

        with ThreadPoolExecutor(3) as pool:
            settle = pool.submit(finish, lambda items: self.ledger.settle({LIVE: items}))
            for task in [pool.submit(write), settle, pool.submit(finish, fail)]:
                task.result()
        closed = or_(EmbeddingRow.embedded_at.is_not(None), EmbeddingRow.error.is_not(None))
        with reading(self.catalog.engine) as connection:
            stale = select(EmbeddingRow.image_id).where(closed, not_(IS_CURRENT))
            assert connection.execute(stale).all() == []
        assert self.ledger.counts(LIVE).images == 2

    def test_batches_of_the_same_products_in_opposite_order_never_deadlock(self) -> None:
        names = [f"p{number}" for number in range(12)]
        files = [RED, BLUE, GREEN]

        def write(number: int) -> None:
            for round_ in range(6):
                turn = names if number % 2 else names[::-1]
                batch: list[Operation] = [
                    put(name, files[(round_ + number + at) % 3], files[(round_ + at) % 3], by=number)
                    for at, name in enumerate(turn)
                ]
                batch[round_] = DeleteProduct(turn[round_])
                for outcome in self.products.write(batch):
                    assert not isinstance(outcome, Unavailable)
                    if isinstance(outcome, StoredProduct):
                        self.ledger.settle(outcome.work.missing)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
        assert self.products.counts()[0] >= 11

    def test_a_write_that_dies_leaves_neither_product_nor_row(self, monkeypatch: pytest.MonkeyPatch) -> None:
        _, work = self.put("p", RED)
        self.settle(work)

        def die(*_: object) -> None:
            raise RuntimeError("no more power")

        with monkeypatch.context() as patch:
            patch.setattr("catalog.products.delete_products", die)
            with pytest.raises(RuntimeError, match="no more power"):
                self.products.write([put("p", BLUE), put("q", RED)])
        assert self.products.counts() == (1, 1)
        assert self.ledger.unsettled() == set()
        assert self.ledger.counts(LIVE).indexed == 1

    def test_files_are_stored_side_by_side(self, monkeypatch: pytest.MonkeyPatch) -> None:
        together = Barrier(3)
        store = self.catalog.blobs.put

        def put_together(data: bytes) -> str:
            together.wait(60)
            return store(data)

        monkeypatch.setattr(self.catalog.blobs, "put", put_together)
        self.products.write([put("p", RED, BLUE), put("q", GREEN)])
        assert self.products.counts() == (2, 3)
