"""Captions on SQLite."""

import pytest

from tests.contracts.catalog_captions import CaptionsContract


class TestCaptionsOnSqlite(CaptionsContract):
    @pytest.fixture
    def database_url(self, sqlite_url: str) -> str:
        return sqlite_url
