"""Jobs on SQLite."""

import pytest

from tests.contracts.catalog_jobs import JobsContract


class TestJobsOnSqlite(JobsContract):
    @pytest.fixture
    def database_url(self, sqlite_url: str) -> str:
        return sqlite_url
