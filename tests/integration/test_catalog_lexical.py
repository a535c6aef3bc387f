"""Lexical search on a real PostgreSQL."""

import pytest

from tests.contracts.catalog_lexical import LexicalContract


class TestLexicalOnPostgres(LexicalContract):
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url
