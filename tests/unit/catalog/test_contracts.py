"""Contracts of the catalog on SQLite."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import OperationalError

from catalog.database import reading
from catalog.opening import Catalog
from core.errors import Internal, Unavailable
from tests.contracts.catalog_database import DatabaseContract
from tests.contracts.catalog_image_files import ImageFilesContract
from tests.contracts.catalog_jobs import JobsContract
from tests.contracts.catalog_keyword_search import KeywordContract
from tests.contracts.catalog_ledger import LIVE, LedgerContract
from tests.contracts.catalog_products import CaptionsContract, ProductsContract
from tests.contracts.catalog_records import ApiKeysContract, ImportsContract, VersionsContract
from tests.contracts.catalog_writes import WritesContract
from tests.support.catalog_fixtures import BLUE, RED, encoder

TestProductsOnSqlite = ProductsContract
TestWritesOnSqlite = WritesContract
TestCaptionsOnSqlite = CaptionsContract
TestImageFilesOnSqlite = ImageFilesContract
TestJobsOnSqlite = JobsContract
TestImportsOnSqlite = ImportsContract
TestVersionsOnSqlite = VersionsContract
TestApiKeysOnSqlite = ApiKeysContract
TestKeywordOnSqlite = KeywordContract


def explained(catalog: Catalog) -> list[str]:
    """The steps by which SQLite answers the statements that come from now on."""
    plans: list[str] = []

    def explain(_connection: Any, cursor: Any, sql: str, parameters: Any, *_: Any) -> None:
        if sql.startswith(("SELECT", "UPDATE", "DELETE")):
            plan = cursor.connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)
            plans.extend(row[3] for row in plan)

    event.listen(catalog.engine, "before_cursor_execute", explain)
    return plans


class TestDatabaseOnSqlite(DatabaseContract):
    def test_a_wrong_statement_is_no_outage_and_a_file_that_cannot_be_opened_is(
        self, catalog: Catalog
    ) -> None:
        with pytest.raises(OperationalError, match="no such table"), reading(catalog.engine) as connection:
            connection.execute(text("SELECT 1 FROM nowhere"))

        nowhere = create_engine("sqlite:////nowhere/catalog.sqlite")
        with pytest.raises(Unavailable), reading(nowhere):
            pytest.fail("it was opened")


class TestLedgerOnSqlite(LedgerContract):
    def test_a_batch_is_looked_up_and_not_searched_for_in_the_whole_collection(
        self, catalog: Catalog
    ) -> None:
        catalog.products.put("shirt", "", "", {}, [RED, BLUE])
        items = catalog.ledger.items("shirt")
        keys = [item.key for item in items]
        catalog.ledger.open(LIVE, items)
        plans = explained(catalog)
        catalog.ledger.settle({LIVE: items})
        catalog.ledger.indexed(LIVE, keys)
        catalog.ledger.copies(encoder(), [item.image_id for item in items])
        removal = catalog.ledger.begin_removal(LIVE, keys, 0)
        catalog.ledger.end_removal({LIVE: replace(removal, keys=keys)})
        reads = [plan for plan in plans if "embeddings" in plan]
        assert len(reads) == 7
        assert [plan for plan in reads if "image_id=?" not in plan] == []

    def test_what_is_in_quarantine_is_found_by_an_index_of_its_own(self, catalog: Catalog) -> None:
        bug = Internal("a division by zero")
        bug.release = "0.0.1"
        catalog.products.put("shirt", "", "", {}, [RED, BLUE])
        catalog.ledger.fail(LIVE, [(item, bug) for item in catalog.ledger.items("shirt")])
        plans = explained(catalog)
        assert catalog.ledger.retry_bugs(LIVE) == 2
        assert len([plan for plan in plans if "ix_embeddings_failed" in plan]) == 2, plans
