"""Imports on PostgreSQL."""

import pytest

from tests.contracts.catalog_imports import ImportsContract


class TestImportsOnPostgres(ImportsContract):
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url
