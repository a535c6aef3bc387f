"""Products on SQLite."""

import pytest

from tests.contracts.catalog_products import ProductsContract


class TestProductsOnSqlite(ProductsContract):
    @pytest.fixture
    def database_url(self, sqlite_url: str) -> str:
        return sqlite_url
