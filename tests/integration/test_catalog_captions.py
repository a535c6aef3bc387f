"""Captions on a real PostgreSQL."""

import pytest

from tests.contracts.catalog_captions import CaptionsContract


class TestCaptionsOnPostgres(CaptionsContract):
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url
