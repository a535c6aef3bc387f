"""What every database of the catalog must do with the ledger."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from sqlalchemy import event, insert, select

from catalog.database import utc_now, writing
from catalog.ledger import SqlLedger
from catalog.ledger_queries import SqlIndexProgress
from catalog.opening import Catalog
from catalog.tables import EmbeddingRow, ImageRow
from core.errors import Internal, InvalidImage, NotFound
from core.types import IndexItem, LedgerCounts
from tests.support.catalog_fixtures import BLUE, RED, Clock, encoder

LIVE = "openclip_0123456789ab"
NEXT = "openclip_ba9876543210"


class LedgerContract:
    """Run on what the fixture `database_url` names."""

    @pytest.fixture
    def ledger(self, catalog: Catalog, clock: Clock) -> SqlLedger:
        return SqlLedger(catalog.engine, clock)

    @pytest.fixture
    def shirt(self, catalog: Catalog, ledger: SqlLedger) -> list[IndexItem]:
        """A product with two images."""
        catalog.products.put("shirt", "A shirt", "", {"color": "red", "sizes": [1, 2]}, [RED, BLUE])
        return ledger.items("shirt")

    def test_items_hold_what_a_vector_row_repeats(self, catalog: Catalog, shirt: list[IndexItem]) -> None:
        images = catalog.products.get("shirt").images
        assert [each.key for each in shirt] == [f"{each.image_id}:{each.revision}" for each in images]
        assert [each.sha256 for each in shirt] == [each.sha256 for each in images]
        assert {each.product_id for each in shirt} == {"shirt"}
        assert [each.attributes for each in shirt] == [{"color": "red", "sizes": [1, 2]}] * 2
        assert catalog.ledger.items("missing") == catalog.ledger.items("nul\0") == []

    def test_the_lag_is_that_of_the_image_which_is_missing_longest(
        self, catalog: Catalog, ledger: SqlLedger, shirt: list[IndexItem]
    ) -> None:
        later = SqlIndexProgress(catalog.engine, lambda: utc_now() + timedelta(seconds=100))
        assert 100 <= later.of(LIVE).age_s < 200
        first, second = shirt
        ledger.open(LIVE, shirt)
        ledger.settle(LIVE, [first])
        assert later.of(LIVE).age_s >= 100
        ledger.fail(LIVE, [(second, InvalidImage("no image"))])
        progress = later.of(LIVE)
        assert progress.counts == ledger.counts(LIVE) == LedgerCounts(2, 1, 1, 0)
        assert progress.age_s == 0
        assert SqlIndexProgress(catalog.engine, Clock()).of(NEXT).age_s == 0, "a clock that is behind"

    def test_a_first_indexing_finds_everything_and_then_nothing(
        self, ledger: SqlLedger, shirt: list[IndexItem]
    ) -> None:
        assert ledger.counts(LIVE) == LedgerCounts(images=2, indexed=0, failed=0, missing=2)
        assert sorted(ledger.missing(LIVE, 10), key=lambda item: item.key) == sorted(
            shirt, key=lambda item: item.key
        )
        ledger.open(LIVE, shirt)
        assert ledger.settle(LIVE, shirt) == []
        assert ledger.missing(LIVE, 10) == []
        assert ledger.obsolete(LIVE, 10) == []
        assert ledger.indexed(LIVE, [*(each.key for each in shirt), "f" * 32 + ":1", "odd", ":", "a:²"]) == {
            each.key for each in shirt
        }
        assert ledger.counts(LIVE) == LedgerCounts(images=2, indexed=2, failed=0, missing=0)

    def test_missing_comes_oldest_first_and_stops_at_its_limit(
        self, catalog: Catalog, ledger: SqlLedger
    ) -> None:
        for name in "cab":
            catalog.products.put(name, "", "", {}, [RED])
        assert [each.product_id for each in ledger.missing(LIVE, 10)] == ["c", "a", "b"]
        assert [each.product_id for each in ledger.missing(LIVE, 2)] == ["c", "a"]
        catalog.products.put("c", "", "", {"new": True}, None)
        assert [each.product_id for each in ledger.missing(LIVE, 10)] == ["a", "b", "c"]

    def test_ranges_of_ids_share_what_is_missing_without_overlap(
        self, catalog: Catalog, ledger: SqlLedger
    ) -> None:
        for number in range(40):
            catalog.products.put(f"p{number}", "", "", {}, [RED])
        bounds = ["", "3", "8", "8f", "c", "g"]
        parts = [ledger.missing(LIVE, 100, within=(first, beyond)) for first, beyond in pairwise(bounds)]
        ids = [item.image_id for part in parts for item in part]
        assert ids == sorted(item.image_id for item in ledger.missing(LIVE, 100))
        assert ledger.missing(LIVE, 2, within=("3", "8")) == parts[1][:2]
        ledger.open(LIVE, parts[1][:1])
        assert ledger.missing(LIVE, 100, grace_s=60, within=("3", "8")) == parts[1][1:]

    def test_ranges_of_ids_share_what_is_obsolete_without_overlap(
        self, catalog: Catalog, ledger: SqlLedger
    ) -> None:
        for number in range(40):
            catalog.products.put(f"p{number}", "", "", {}, [RED])
            ledger.open(LIVE, ledger.items(f"p{number}"))
            catalog.products.delete(f"p{number}")
        bounds = ["", "3", "8", "8f", "c", "g"]
        ranges = [ledger.obsolete(LIVE, 100, within=(first, beyond)) for first, beyond in pairwise(bounds)]
        assert [key for part in ranges for key in part] == ledger.obsolete(LIVE, 100)
        assert ledger.obsolete(LIVE, 2, within=("3", "8")) == ranges[1][:2]
        assert ledger.obsolete(LIVE, 100, grace_s=60, within=("", "g")) == []

    def test_an_open_row_is_left_alone_for_the_grace(
        self, ledger: SqlLedger, shirt: list[IndexItem], clock: Clock
    ) -> None:
        ledger.open(LIVE, shirt[:1])
        clock.move(59)
        assert ledger.missing(LIVE, 10, grace_s=60) == shirt[1:]
        assert set_of(ledger.missing(LIVE, 10)) == set_of(shirt)
        clock.move(2)
        assert set_of(ledger.missing(LIVE, 10, grace_s=60)) == set_of(shirt)

    def test_no_grace_is_none_even_when_a_clock_is_set_back(
        self, ledger: SqlLedger, shirt: list[IndexItem], clock: Clock
    ) -> None:
        ledger.open(LIVE, shirt)
        clock.move(-3600)
        assert set_of(ledger.missing(LIVE, 10)) == set_of(shirt)

    def test_changed_attributes_make_the_old_rows_obsolete_and_the_new_missing(
        self, catalog: Catalog, ledger: SqlLedger, shirt: list[IndexItem]
    ) -> None:
        ledger.open(LIVE, shirt)
        ledger.settle(LIVE, shirt)
        catalog.products.put("shirt", "A shirt", "", {"color": "blue"}, None)
        assert ledger.obsolete(LIVE, 10) == sorted(each.key for each in shirt)
        assert ledger.obsolete(LIVE, 1) == [min(each.key for each in shirt)]
        assert set_of(ledger.missing(LIVE, 10)) == set_of(ledger.items("shirt"))
        assert ledger.counts(LIVE) == LedgerCounts(images=2, indexed=0, failed=0, missing=2)
        keys = ledger.obsolete(LIVE, 10)
        removal = ledger.begin_removal(LIVE, keys, 0)
        assert removal.keys == ledger.obsolete(LIVE, 10) == keys, "until the vectors are deleted"
        ledger.end_removal(LIVE, removal)
        assert ledger.obsolete(LIVE, 10) == []

    def test_an_image_that_is_in_is_known_at_its_newest_revision(
        self, catalog: Catalog, ledger: SqlLedger, shirt: list[IndexItem]
    ) -> None:
        ids = [*(each.image_id for each in shirt), "f" * 32]
        ledger.open(LIVE, shirt)
        ledger.settle(LIVE, shirt[:1])
        ledger.fail(LIVE, [(shirt[1], NotFound("no such file"))])
        assert ledger.settled(LIVE, ids) == {ids[0]: shirt[0].key}
        catalog.products.put("shirt", "A shirt", "", {"color": "blue"}, None)
        now = ledger.items("shirt")
        ledger.open(LIVE, now)
        assert ledger.settled(LIVE, ids) == {ids[0]: shirt[0].key}
        ledger.settle(LIVE, now)
        assert ledger.settled(LIVE, ids) == {each.image_id: each.key for each in now}
        assert ledger.settled(NEXT, ids) == ledger.settled(LIVE, []) == {}

    def test_a_deleted_product_leaves_obsolete_rows(
        self, catalog: Catalog, ledger: SqlLedger, shirt: list[IndexItem], clock: Clock
    ) -> None:
        ledger.open(LIVE, shirt)
        ledger.settle(LIVE, shirt[:1])
        catalog.products.delete("shirt")
        assert ledger.missing(LIVE, 10) == []
        assert ledger.obsolete(LIVE, 10) == sorted(each.key for each in shirt)
        assert ledger.obsolete(LIVE, 10, grace_s=60) == [shirt[0].key], "the other is being written"
        clock.move(61)
        assert ledger.obsolete(LIVE, 10, grace_s=60) == sorted(each.key for each in shirt)

    def test_a_removal_leaves_what_is_being_written(
        self, catalog: Catalog, ledger: SqlLedger, shirt: list[IndexItem], clock: Clock
    ) -> None:
        ledger.open(LIVE, shirt)
        ledger.settle(LIVE, shirt[1:])
        catalog.products.delete("shirt")
        clock.move(59)
        keys = [each.key for each in shirt]
        assert ledger.begin_removal(LIVE, [*keys, "f" * 32 + ":1", "odd"], 60).keys == sorted(
            [keys[1], "f" * 32 + ":1", "odd"]
        )
        strange = ["odd", "a:007", "f" * 33 + ":1"]
        assert ledger.begin_removal(LIVE, strange, 60).keys == sorted(strange)
        clock.move(2)
        assert ledger.begin_removal(LIVE, keys, 60).keys == keys[:1], "the other is being removed"

    def test_a_removal_never_takes_what_is_current(self, ledger: SqlLedger, shirt: list[IndexItem]) -> None:
        ledger.open(LIVE, shirt)
        ledger.settle(LIVE, shirt)
        removal = ledger.begin_removal(LIVE, [each.key for each in shirt], 0)
        assert removal.keys == []
        ledger.end_removal(LIVE, removal)
        assert set_of(ledger.missing(LIVE, 10)) == set_of(shirt)
        assert ledger.settle(LIVE, shirt) == []

    @pytest.mark.parametrize("touch", ["open", "fail"])
    def test_a_row_that_is_touched_during_its_removal_stays(
        self, touch: str, catalog: Catalog, ledger: SqlLedger, shirt: list[IndexItem], clock: Clock
    ) -> None:
        ledger.open(LIVE, shirt)
        catalog.products.delete("shirt")
        removal = ledger.begin_removal(LIVE, [each.key for each in shirt], 0)
        clock.move(1)
        if touch == "open":
            ledger.open(LIVE, shirt[:1])
        else:
            ledger.fail(LIVE, [(shirt[0], NotFound("x"))])
        ledger.end_removal(LIVE, removal)
        assert ledger.obsolete(LIVE, 10) == [shirt[0].key]

    def test_what_became_obsolete_is_not_settled(
        self, catalog: Catalog, ledger: SqlLedger, shirt: list[IndexItem]
    ) -> None:
        ledger.open(LIVE, shirt)
        catalog.products.put("shirt", "A shirt", "", {"color": "red", "sizes": [1, 2]}, [RED])
        assert ledger.settle(LIVE, shirt) == shirt[1:]
        assert ledger.indexed(LIVE, [each.key for each in shirt]) == {shirt[0].key}
        assert ledger.obsolete(LIVE, 10) == [shirt[1].key], "until its vector is deleted"

    def test_settling_a_vanished_row_returns_it(
        self, catalog: Catalog, ledger: SqlLedger, shirt: list[IndexItem]
    ) -> None:
        ledger.open(LIVE, shirt)
        catalog.products.put("shirt", "A shirt", "", {"color": "red", "sizes": [1, 2]}, [RED])
        gone = ledger.obsolete(LIVE, 10)
        assert gone == [shirt[1].key]
        ledger.end_removal(LIVE, ledger.begin_removal(LIVE, gone, 0))
        assert ledger.settle(LIVE, shirt) == [shirt[1]]
        assert ledger.indexed(LIVE, [each.key for each in shirt]) == {shirt[0].key}

    def test_a_failure_stays_in_quarantine_with_its_error(
        self, catalog: Catalog, ledger: SqlLedger, shirt: list[IndexItem]
    ) -> None:
        ledger.open(LIVE, shirt)
        ledger.settle(LIVE, shirt[:1])
        ledger.fail(LIVE, [(shirt[1], InvalidImage("not an image: \0 \ud800"))])
        assert ledger.missing(LIVE, 10) == []
        assert ledger.obsolete(LIVE, 10) == []
        assert ledger.indexed(LIVE, [each.key for each in shirt]) == {shirt[0].key}
        assert ledger.counts(LIVE) == LedgerCounts(images=2, indexed=1, failed=1, missing=0)
        with catalog.engine.connect() as connection:
            errors = connection.scalars(select(EmbeddingRow.error).where(EmbeddingRow.error.is_not(None)))
            assert errors.all() == ["InvalidImage: not an image: � ?"]

    def test_quarantine_ends_when_asked(self, ledger: SqlLedger, shirt: list[IndexItem]) -> None:
        ledger.fail(LIVE, [(each, NotFound("no such file")) for each in shirt])
        ledger.fail(NEXT, [(each, NotFound("no such file")) for each in shirt])
        assert ledger.retry(LIVE) == 2
        assert ledger.retry(LIVE) == 0
        assert set_of(ledger.missing(LIVE, 10, grace_s=60)) == set_of(shirt)
        assert ledger.counts(NEXT).failed == 2

    def test_what_met_a_bug_is_missing_again_for_another_release_alone(
        self, catalog: Catalog, ledger: SqlLedger, shirt: list[IndexItem]
    ) -> None:
        bug, own = Internal("a division by zero"), Internal("Internal 0: not of another release")
        bug.release = "0.0.1"
        other = catalog.products.put("hat", "", "", {}, [RED])[0]
        hat = ledger.items(other.product_id)
        ledger.fail(LIVE, [(shirt[0], bug), (shirt[1], InvalidImage("Internal 0.0.1: no")), (hat[0], own)])
        ledger.fail(NEXT, [(shirt[0], bug)])
        assert ledger.counts(LIVE).failed == 3
        assert ledger.retry_bugs(LIVE) == 1
        assert ledger.retry_bugs(LIVE) == 0
        assert ledger.missing(LIVE, 10) == [shirt[0]]
        assert ledger.counts(NEXT).failed == 1

    def test_quarantine_ends_when_the_row_is_opened_or_the_image_changes(
        self, catalog: Catalog, ledger: SqlLedger, shirt: list[IndexItem]
    ) -> None:
        ledger.fail(LIVE, [(each, NotFound("no such file")) for each in shirt])
        ledger.open(LIVE, shirt[:1])
        assert ledger.missing(LIVE, 10) == shirt[:1]
        catalog.products.put("shirt", "A shirt", "", {}, None)
        assert set_of(ledger.missing(LIVE, 10)) == set_of(ledger.items("shirt"))
        assert ledger.obsolete(LIVE, 10) == sorted(each.key for each in shirt)

    def test_a_failure_does_not_take_a_settled_row_back(
        self, ledger: SqlLedger, shirt: list[IndexItem]
    ) -> None:
        ledger.open(LIVE, shirt)
        ledger.settle(LIVE, shirt)
        ledger.fail(LIVE, [(shirt[0], NotFound("late"))])
        assert ledger.counts(LIVE) == LedgerCounts(images=2, indexed=2, failed=0, missing=0)

    def test_a_settled_row_that_is_opened_again_is_in_doubt(
        self, ledger: SqlLedger, shirt: list[IndexItem]
    ) -> None:
        ledger.open(LIVE, shirt)
        ledger.settle(LIVE, shirt)
        ledger.open(LIVE, shirt[:1])
        assert ledger.missing(LIVE, 10) == shirt[:1]

    def test_collections_are_independent(self, ledger: SqlLedger, shirt: list[IndexItem]) -> None:
        ledger.open(LIVE, shirt)
        ledger.settle(LIVE, shirt)
        ledger.open(NEXT, shirt)
        assert set_of(ledger.missing(NEXT, 10)) == set_of(shirt)
        assert ledger.counts(LIVE).indexed == 2
        ledger.reset(LIVE)
        assert ledger.counts(LIVE).missing == len(ledger.missing(LIVE, 10, grace_s=60)) == 2
        assert ledger.settle(NEXT, shirt) == []
        assert ledger.counts(LIVE).missing == 2

    def test_a_batch_may_name_a_row_twice_or_be_empty(
        self, ledger: SqlLedger, shirt: list[IndexItem]
    ) -> None:
        twice = [*shirt, *shirt]
        ledger.open(LIVE, twice)
        assert ledger.settle(LIVE, twice) == []
        ledger.fail(NEXT, [(each, NotFound("x")) for each in twice])
        assert ledger.counts(NEXT).failed == 2
        ledger.open(LIVE, [])
        ledger.fail(LIVE, [])
        removal = ledger.begin_removal(LIVE, [], 0)
        assert removal.keys == []
        ledger.end_removal(LIVE, removal)
        assert ledger.settle(LIVE, []) == []
        assert ledger.indexed(LIVE, []) == set()
        assert ledger.counts(LIVE).indexed == 2

    def test_large_batches_take_few_statements(
        self, catalog: Catalog, ledger: SqlLedger, shirt: list[IndexItem]
    ) -> None:
        items = more_images(catalog, shirt[0], 12_000)
        keys = [each.key for each in items]
        statements: list[str] = []
        event.listen(catalog.engine, "before_cursor_execute", lambda _c, _cu, sql, *_: statements.append(sql))
        ledger.open(LIVE, items)
        assert ledger.settle(LIVE, items) == []
        assert ledger.indexed(LIVE, keys) == set(keys)
        catalog.products.delete("shirt")
        assert len(ledger.obsolete(LIVE, 20_000)) == 12_000
        removal = ledger.begin_removal(LIVE, keys, 0)
        assert removal.keys == sorted(keys)
        ledger.end_removal(LIVE, removal)
        assert ledger.obsolete(LIVE, 10) == []
        assert len(statements) < 100

    def test_the_answers_about_a_collection_are_one_statement_each(
        self, catalog: Catalog, ledger: SqlLedger, shirt: list[IndexItem]
    ) -> None:
        statements: list[str] = []
        event.listen(catalog.engine, "before_cursor_execute", lambda _c, _cu, sql, *_: statements.append(sql))
        ledger.missing(LIVE, 10, grace_s=1)
        ledger.obsolete(LIVE, 10, grace_s=1)
        ledger.counts(LIVE)
        assert len([each for each in statements if each.startswith("SELECT")]) == 3

    def test_writers_of_the_same_rows_never_deadlock(
        self, catalog: Catalog, ledger: SqlLedger, shirt: list[IndexItem]
    ) -> None:
        items = more_images(catalog, shirt[0], 300)
        # The rows lie on disk in another order than that of their keys, and a plan may follow either.
        for start in range(0, 300, 20):
            ledger.open(LIVE, items[280 - start : 300 - start])

        def write(number: int) -> None:
            mine = items if number % 2 else items[::-1]
            for _ in range(8):
                ledger.open(LIVE, mine)
                ledger.begin_removal(LIVE, [each.key for each in mine], 60)
                ledger.settle(LIVE, mine)
                ledger.fail(LIVE, [(each, NotFound("x")) for each in mine])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
        assert len(ledger.indexed(LIVE, [each.key for each in items])) == 300

    def test_versions_are_listed_oldest_first_and_renewed(self, ledger: SqlLedger, clock: Clock) -> None:
        old, new = encoder(), encoder("dinov2", "aaaaaaaaaaaa")
        ledger.register(old)
        clock.move(1)
        ledger.register(new)
        clock.move(1)
        ledger.register(replace(old, device="cuda:0"))
        assert ledger.versions() == [replace(old, device="cuda:0"), new]


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
