"""The ledger on SQLite."""

import pytest

from catalog.opening import Catalog
from tests.contracts.catalog_ledger import LedgerContract
from tests.contracts.catalog_model import check_any_sequence


class TestLedgerOnSqlite(LedgerContract):
    @pytest.fixture
    def database_url(self, sqlite_url: str) -> str:
        return sqlite_url

    def test_any_sequence_of_calls_agrees_with_the_model(self, catalog: Catalog) -> None:
        check_any_sequence(catalog, max_examples=40)
