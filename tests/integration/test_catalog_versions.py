"""The history of model versions on a real PostgreSQL."""

import pytest

from tests.contracts.catalog_versions import VersionsContract


class TestVersionsOnPostgres(VersionsContract):
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url
