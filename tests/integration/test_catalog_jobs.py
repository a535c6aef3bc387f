"""Jobs on PostgreSQL."""

import pytest

from tests.contracts.catalog_jobs import JobsContract


class TestJobsOnPostgres(JobsContract):
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url
