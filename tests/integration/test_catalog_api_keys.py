"""API keys on PostgreSQL."""

import pytest

from tests.contracts.catalog_api_keys import ApiKeysContract


class TestApiKeysOnPostgres(ApiKeysContract):
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url
