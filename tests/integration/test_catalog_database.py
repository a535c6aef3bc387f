"""The database of the catalog on a real PostgreSQL."""

import pytest

from tests.contracts.catalog_database import DatabaseContract


class TestDatabaseOnPostgres(DatabaseContract):
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url
