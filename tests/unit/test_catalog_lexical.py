"""Lexical search on SQLite."""

import pytest

from tests.contracts.catalog_lexical import LexicalContract


class TestLexicalOnSqlite(LexicalContract):
    @pytest.fixture
    def database_url(self, sqlite_url: str) -> str:
        return sqlite_url
