"""What every database of the catalog must do with the ledger."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import Engine, event, insert, select

from catalog.database import utc_now, writing
from catalog.ledger import SqlLedger
from catalog.ledger_queries import SqlIndexProgress
from catalog.opening import Catalog
from catalog.products import SqlProducts
from catalog.tables import EmbeddingRow, ImageRow
from core.errors import Internal, InvalidImage, NotFound
from core.types import IndexItem, LedgerCounts
from tests.contracts.catalog_model import check_any_sequence
from tests.support.catalog_fixtures import BLUE, RED, Clock, encoder

LIVE = "openclip_0123456789ab"
NEXT = "openclip_ba9876543210"


class LedgerContract:
    """Run on what the fixture `database_url` names."""

    @pytest.fixture(autouse=True)
    def _opened(self, catalog: Catalog, products: SqlProducts, clock: Clock) -> None:
        self.catalog, self.products, self.clock = catalog, products, clock
        self.ledger = SqlLedger(catalog.engine, clock)
        # A product with two images.
        catalog.products.put("shirt", "A shirt", "", {"color": "red", "sizes": [1, 2]}, [RED, BLUE])
        self.shirt = self.ledger.items("shirt")

    @pytest.mark.slow
    def test_any_sequence_of_calls_agrees_with_the_model(self) -> None:
        check_any_sequence(self.catalog)

    def test_items_hold_what_a_vector_row_repeats(self) -> None:
        images = self.catalog.products.get("shirt").images
        assert [each.key for each in self.shirt] == [f"{each.image_id}:{each.revision}" for each in images]
        assert [each.sha256 for each in self.shirt] == [each.sha256 for each in images]
        assert {each.product_id for each in self.shirt} == {"shirt"}
        assert [each.attributes for each in self.shirt] == [{"color": "red", "sizes": [1, 2]}] * 2
        assert self.catalog.ledger.items("missing") == self.catalog.ledger.items("nul\0") == []

    @pytest.mark.parametrize("registered", [False, True])
    def test_the_lag_is_that_of_the_image_which_is_missing_longest(self, registered: bool) -> None:
        if registered:
            self.ledger.register(encoder())
        later = SqlIndexProgress(self.catalog.engine, lambda: utc_now() + timedelta(seconds=100))
        assert 100 <= later.of(LIVE).age_s < 200
        first, second = self.shirt
        self.ledger.open(LIVE, self.shirt)
        self.ledger.settle({LIVE: [first]})
        assert later.of(LIVE).age_s >= 100
        self.ledger.fail(LIVE, [(second, InvalidImage("no image"))])
        progress = later.of(LIVE)
        assert progress.counts == self.ledger.counts(LIVE) == LedgerCounts(2, 1, 1, 0)
        assert progress.age_s == 0
        assert SqlIndexProgress(self.catalog.engine, Clock()).of(NEXT).age_s == 0, "a clock that is behind"

    def test_missing_comes_oldest_first_and_stops_at_its_limit(self) -> None:
        self.catalog.products.delete("shirt")
        for name in "cab":
            self.catalog.products.put(name, "", "", {}, [RED])
        assert [each.product_id for each in self.ledger.missing(LIVE, 10)] == ["c", "a", "b"]
        assert [each.product_id for each in self.ledger.missing(LIVE, 2)] == ["c", "a"]
        self.catalog.products.put("c", "", "", {"new": True}, None)
        assert [each.product_id for each in self.ledger.missing(LIVE, 10)] == ["a", "b", "c"]

    def test_ranges_of_ids_share_what_is_missing_without_overlap(self) -> None:
        for number in range(40):
            self.catalog.products.put(f"p{number}", "", "", {}, [RED])
        bounds = ["", "3", "8", "8f", "c", "g"]
        parts = [self.ledger.missing(LIVE, 100, within=(first, beyond)) for first, beyond in pairwise(bounds)]
        ids = [item.image_id for part in parts for item in part]
        assert ids == sorted(item.image_id for item in self.ledger.missing(LIVE, 100))
        assert self.ledger.missing(LIVE, 2, within=("3", "8")) == parts[1][:2]
        self.ledger.open(LIVE, parts[1][:1])
        assert self.ledger.missing(LIVE, 100, grace_s=60, within=("3", "8")) == parts[1][1:]

    def test_ranges_of_ids_share_what_is_obsolete_without_overlap(self) -> None:
        for number in range(40):
            self.catalog.products.put(f"p{number}", "", "", {}, [RED])
            self.ledger.open(LIVE, self.ledger.items(f"p{number}"))
            self.catalog.products.delete(f"p{number}")
        bounds = ["", "3", "8", "8f", "c", "g"]
        ranges = [
            self.ledger.obsolete(LIVE, 100, within=(first, beyond)) for first, beyond in pairwise(bounds)
        ]
        assert [key for part in ranges for key in part] == self.ledger.obsolete(LIVE, 100)
        assert self.ledger.obsolete(LIVE, 2, within=("3", "8")) == ranges[1][:2]
        assert self.ledger.obsolete(LIVE, 100, grace_s=60, within=("", "g")) == []

    def test_an_open_row_is_left_alone_for_the_grace(self) -> None:
        self.ledger.open(LIVE, self.shirt[:1])
        self.clock.move(59)
        assert self.ledger.missing(LIVE, 10, grace_s=60) == self.shirt[1:]
        assert set_of(self.ledger.missing(LIVE, 10)) == set_of(self.shirt)
        self.clock.move(2)
        assert set_of(self.ledger.missing(LIVE, 10, grace_s=60)) == set_of(self.shirt)

    def test_no_grace_is_none_even_when_a_clock_is_set_back(self) -> None:
        self.ledger.open(LIVE, self.shirt)
        self.clock.move(-3600)
        assert set_of(self.ledger.missing(LIVE, 10)) == set_of(self.shirt)

    def test_a_deleted_product_leaves_obsolete_rows(self) -> None:
        self.ledger.open(LIVE, self.shirt)
        self.ledger.settle({LIVE: self.shirt[:1]})
        self.clock.move(30)
        self.products.delete("shirt")
        assert self.ledger.missing(LIVE, 10) == []
        assert self.ledger.obsolete(LIVE, 10, grace_s=60) == []
        self.clock.move(31)
        assert self.ledger.obsolete(LIVE, 10, grace_s=60) == [self.shirt[1].key], "its writer died"
        self.clock.move(30)
        assert self.ledger.obsolete(LIVE, 10, grace_s=60) == [self.shirt[1].key, self.shirt[0].key]
        assert sorted(self.ledger.obsolete(LIVE, 10)) == sorted(each.key for each in self.shirt)

    def test_a_removal_leaves_what_is_being_written(self) -> None:
        self.ledger.open(LIVE, self.shirt)
        self.ledger.settle({LIVE: self.shirt[1:]})
        self.clock.move(30)
        self.products.delete("shirt")
        self.clock.move(29)
        keys = [each.key for each in self.shirt]
        strange = ["odd", "a:007", "f" * 33 + ":1"]
        assert self.ledger.begin_removal(LIVE, strange, 60).keys == sorted(strange)
        assert self.ledger.begin_removal(LIVE, [*keys, "f" * 32 + ":1"], 60).keys == ["f" * 32 + ":1"]
        self.clock.move(2)
        assert self.ledger.begin_removal(LIVE, keys, 60).keys == keys[:1], "the other is being removed"

    def test_a_removal_never_takes_what_is_current(self) -> None:
        self.ledger.open(LIVE, self.shirt)
        self.ledger.settle({LIVE: self.shirt})
        removal = self.ledger.begin_removal(LIVE, [each.key for each in self.shirt], 0)
        assert removal.keys == []
        self.ledger.end_removal({LIVE: removal})
        assert set_of(self.ledger.missing(LIVE, 10)) == set_of(self.shirt)
        assert self.ledger.settle({LIVE: self.shirt}) == {LIVE: []}

    @pytest.mark.parametrize("touch", ["open", "fail"])
    def test_a_row_that_is_touched_during_its_removal_stays(self, touch: str) -> None:
        self.ledger.open(LIVE, self.shirt)
        self.catalog.products.delete("shirt")
        removal = self.ledger.begin_removal(LIVE, [each.key for each in self.shirt], 0)
        self.clock.move(1)
        if touch == "open":
            self.ledger.open(LIVE, self.shirt[:1])
        else:
            self.ledger.fail(LIVE, [(self.shirt[0], NotFound("x"))])
        self.ledger.end_removal({LIVE: removal})
        assert self.ledger.obsolete(LIVE, 10) == [self.shirt[0].key]

    def test_a_failure_stays_in_quarantine_with_its_error(self) -> None:
        self.ledger.open(LIVE, self.shirt)
        self.ledger.settle({LIVE: self.shirt[:1]})
        self.ledger.fail(LIVE, [(self.shirt[1], InvalidImage("not an image: \0 \ud800"))])
        assert self.ledger.missing(LIVE, 10) == []
        assert self.ledger.obsolete(LIVE, 10) == []
        assert self.ledger.indexed(LIVE, [each.key for each in self.shirt]) == {self.shirt[0].key}
        assert self.ledger.counts(LIVE) == LedgerCounts(images=2, indexed=1, failed=1, missing=0)
        with self.catalog.engine.connect() as connection:
            errors = connection.scalars(select(EmbeddingRow.error).where(EmbeddingRow.error.is_not(None)))
            assert errors.all() == ["InvalidImage: not an image: � ?"]

    def test_what_met_a_bug_is_missing_again_for_another_release_alone(self) -> None:
        bug, own = Internal("a division by zero"), Internal("Internal 0: not of another release")
        bug.release = "0.0.1"
        other = self.catalog.products.put("hat", "", "", {}, [RED])[0]
        hat = self.ledger.items(other.product_id)
        self.ledger.fail(
            LIVE, [(self.shirt[0], bug), (self.shirt[1], InvalidImage("Internal 0.0.1: no")), (hat[0], own)]
        )
        self.ledger.fail(NEXT, [(self.shirt[0], bug)])
        assert self.ledger.counts(LIVE).failed == 3
        assert self.ledger.retry_bugs(LIVE) == 1
        assert self.ledger.retry_bugs(LIVE) == 0
        assert self.ledger.missing(LIVE, 10) == [self.shirt[0]]
        assert self.ledger.counts(NEXT).failed == 1

    def test_a_batch_may_name_a_row_twice_or_be_empty(self) -> None:
        twice = [*self.shirt, *self.shirt]
        self.ledger.open(LIVE, twice)
        assert self.ledger.settle({LIVE: twice}) == {LIVE: []}
        self.ledger.fail(NEXT, [(each, NotFound("x")) for each in twice])
        assert self.ledger.counts(NEXT).failed == 2
        self.ledger.open(LIVE, [])
        self.ledger.fail(LIVE, [])
        removal = self.ledger.begin_removal(LIVE, [], 0)
        assert removal.keys == []
        self.ledger.end_removal({LIVE: removal})
        assert self.ledger.settle({LIVE: []}) == {LIVE: []}
        assert (
            self.ledger.indexed(LIVE, [])
            == self.ledger.indexed(LIVE, ["f" * 32 + ":1", "odd", ":", "a:²"])
            == set()
        )
        assert self.ledger.counts(LIVE).indexed == 2

    def test_large_batches_take_few_statements(self) -> None:
        items = more_images(self.catalog, self.shirt[0], 12_000)
        keys = [each.key for each in items]
        statements: list[str] = []
        event.listen(
            self.catalog.engine, "before_cursor_execute", lambda _c, _cu, sql, *_: statements.append(sql)
        )
        self.ledger.open(LIVE, items)
        assert self.ledger.settle({LIVE: items}) == {LIVE: []}
        assert self.ledger.indexed(LIVE, keys) == set(keys)
        self.catalog.products.delete("shirt")
        assert len(self.ledger.obsolete(LIVE, 20_000)) == 12_000
        removal = self.ledger.begin_removal(LIVE, keys, 0)
        assert removal.keys == sorted(keys)
        self.ledger.end_removal({LIVE: removal})
        assert self.ledger.obsolete(LIVE, 10) == []
        assert len(statements) < 120

    @pytest.mark.parametrize("recorded", [False, True])
    def test_the_answers_about_a_collection_are_few_statements(self, recorded: bool) -> None:
        if recorded:
            self.ledger.register(encoder())
            self.ledger.open(LIVE, self.shirt)
            assert self.ledger.counts(LIVE).missing == 2
        statements: list[str] = []
        event.listen(
            self.catalog.engine, "before_cursor_execute", lambda _c, _cu, sql, *_: statements.append(sql)
        )
        self.ledger.missing(LIVE, 10, grace_s=1)
        self.ledger.obsolete(LIVE, 10, grace_s=1)
        self.ledger.counts(LIVE)
        self.ledger.unsettled()
        assert len([each for each in statements if each.startswith("SELECT")]) == (8 if recorded else 6)

    def test_what_the_repair_asks_of_a_recorded_version_reads_the_gap_alone(self) -> None:
        items = [*more_images(self.catalog, self.shirt[0], 4_000), *self.shirt]
        self.ledger.register(encoder())
        self.ledger.open(LIVE, items[:10])
        self.ledger.fail(LIVE, [(item, InvalidImage("no")) for item in items[10:20]])
        # The index of open rows keeps the pages of these, which must not make PostgreSQL read the table instead.
        self.ledger.open(LIVE, items[20:])
        self.ledger.settle({LIVE: items[20:]})
        with self.catalog.engine.connect() as connection:
            postgres = connection.dialect.name == "postgresql"
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.exec_driver_sql("VACUUM ANALYZE" if postgres else "ANALYZE")
        assert self.ledger.counts(LIVE) == LedgerCounts(4_002, indexed=3_982, failed=10, missing=10)
        for ask, index in (
            (lambda: self.ledger.unsettled(60), "open"),
            (lambda: self.ledger.missing(LIVE, 64, grace_s=60), "open"),
            (lambda: self.ledger.missing(LIVE, 64), "open"),
            (lambda: self.ledger.obsolete(LIVE, 64, grace_s=60), "open"),
            (lambda: self.ledger.counts(LIVE), "open"),
            (lambda: self.ledger.counts(LIVE), "failed"),
            (lambda: self.catalog.quarantine.page(LIVE, 10), "failed"),
        ):
            with explaining(self.catalog.engine) as plans:
                ask()
            plan = "\n".join(plans)
            assert f"ix_embeddings_{index}" in plan, plan
            assert not re.search(r"(?i)scan (on )?embeddings(?! .*using)", plan), plan

    def test_writers_of_the_same_rows_never_deadlock(self) -> None:
        items = more_images(self.catalog, self.shirt[0], 300)
        # The rows lie on disk in another order than that of their keys, and a plan may follow either.
        for start in range(0, 300, 20):
            self.ledger.open(LIVE, items[280 - start : 300 - start])

        def write(number: int) -> None:
            mine = items if number % 2 else items[::-1]
            for _ in range(8):
                self.ledger.open(LIVE, mine)
                self.ledger.begin_removal(LIVE, [each.key for each in mine], 60)
                self.ledger.settle({LIVE: mine})
                self.ledger.fail(LIVE, [(each, NotFound("x")) for each in mine])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
        assert len(self.ledger.indexed(LIVE, [each.key for each in items])) == 300

    def test_versions_are_listed_oldest_first_and_renewed(self) -> None:
        old, new = encoder(), encoder("dinov2", "aaaaaaaaaaaa")
        self.ledger.register(old)
        self.clock.move(1)
        self.ledger.register(new)
        self.clock.move(1)
        self.ledger.register(replace(old, device="cuda:0"))
        assert self.ledger.versions() == [replace(old, device="cuda:0"), new]


@contextmanager
def explaining(engine: Engine) -> Iterator[list[str]]:
    """The steps by which the database answers the questions about the ledger that come meanwhile."""
    plans: list[str] = []
    verb = "EXPLAIN" if engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"

    def explain(_connection: Any, cursor: Any, sql: str, parameters: Any, *_: Any) -> None:
        if sql.startswith("SELECT") and "embeddings" in sql:
            plans.extend(row[-1] for row in cursor.connection.execute(f"{verb} {sql}", parameters))

    event.listen(engine, "before_cursor_execute", explain)
    yield plans
    event.remove(engine, "before_cursor_execute", explain)


def set_of(items: list[IndexItem]) -> set[str]:
    """The keys of the items."""
    return {item.key for item in items}


def more_images(catalog: Catalog, like: IndexItem, number: int) -> list[IndexItem]:
    """Give an image's product so many more, each with a revision of its own."""
    numbers = range(1, number + 1)
    items = [replace(like, image_id=f"{1000 + n:032x}", revision=n) for n in numbers]
    own = [{"id": item.image_id, "position": item.revision + 1, "revision": item.revision} for item in items]
    same = select(ImageRow.__table__).where(ImageRow.id == like.image_id)
    with writing(catalog.engine) as connection:
        row = connection.execute(same).mappings().one()
        connection.execute(insert(ImageRow), [{**row, **each} for each in own])
    return items
