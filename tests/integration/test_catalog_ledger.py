"""The ledger on a real PostgreSQL."""

import pytest

from catalog.opening import Catalog
from tests.contracts.catalog_ledger import LedgerContract
from tests.contracts.catalog_model import check_any_sequence


class TestLedgerOnPostgres(LedgerContract):
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url

    def test_any_sequence_of_calls_agrees_with_the_model(self, catalog: Catalog) -> None:
        check_any_sequence(catalog, max_examples=40)
