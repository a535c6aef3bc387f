"""API keys on SQLite."""

import pytest

from tests.contracts.catalog_api_keys import ApiKeysContract


class TestApiKeysOnSqlite(ApiKeysContract):
    @pytest.fixture
    def database_url(self, sqlite_url: str) -> str:
        return sqlite_url
