"""Imports on SQLite."""

import pytest

from tests.contracts.catalog_imports import ImportsContract


class TestImportsOnSqlite(ImportsContract):
    @pytest.fixture
    def database_url(self, sqlite_url: str) -> str:
        return sqlite_url
