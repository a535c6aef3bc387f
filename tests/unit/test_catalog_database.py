"""The database of the catalog on SQLite."""

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from catalog.opening import Catalog
from catalog.transactions import reading
from core.errors import Unavailable
from tests.contracts.catalog_database import DatabaseContract


class TestDatabaseOnSqlite(DatabaseContract):
    @pytest.fixture
    def database_url(self, sqlite_url: str) -> str:
        return sqlite_url

    def test_a_wrong_statement_is_no_outage_and_a_file_that_cannot_be_opened_is(
        self, catalog: Catalog
    ) -> None:
        with pytest.raises(OperationalError, match="no such table"), reading(catalog.engine) as connection:
            connection.execute(text("SELECT 1 FROM nowhere"))

        nowhere = create_engine("sqlite:////nowhere/catalog.sqlite")
        with pytest.raises(Unavailable), reading(nowhere):
            pytest.fail("it was opened")
