"""The history of model versions on SQLite."""

import pytest

from tests.contracts.catalog_versions import VersionsContract


class TestVersionsOnSqlite(VersionsContract):
    @pytest.fixture
    def database_url(self, sqlite_url: str) -> str:
        return sqlite_url
