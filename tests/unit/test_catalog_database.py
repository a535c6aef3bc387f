"""The database of the catalog on SQLite."""

import pytest

from tests.contracts.catalog_database import DatabaseContract


class TestDatabaseOnSqlite(DatabaseContract):
    @pytest.fixture
    def database_url(self, sqlite_url: str) -> str:
        return sqlite_url
