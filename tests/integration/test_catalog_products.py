"""Products on a real PostgreSQL."""

import pytest

from tests.contracts.catalog_products import ProductsContract


class TestProductsOnPostgres(ProductsContract):
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url
