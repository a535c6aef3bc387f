"""Contracts of the catalog on PostgreSQL."""

import pytest

from catalog.opening import Catalog
from tests.contracts.catalog_database import DatabaseContract
from tests.contracts.catalog_image_files import ImageFilesContract
from tests.contracts.catalog_jobs import JobsContract
from tests.contracts.catalog_keyword_search import KeywordContract
from tests.contracts.catalog_ledger import LedgerContract
from tests.contracts.catalog_model import check_any_sequence
from tests.contracts.catalog_products import CaptionsContract, ProductsContract
from tests.contracts.catalog_records import ApiKeysContract, ImportsContract, VersionsContract


class TestDatabaseOnPostgres(DatabaseContract):
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url


class TestProductsOnPostgres(ProductsContract):
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url


class TestCaptionsOnPostgres(CaptionsContract):
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url


class TestImageFilesOnPostgres(ImageFilesContract):
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url


class TestLedgerOnPostgres(LedgerContract):
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url

    def test_any_sequence_of_calls_agrees_with_the_model(self, catalog: Catalog) -> None:
        check_any_sequence(catalog, max_examples=40)


class TestJobsOnPostgres(JobsContract):
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url


class TestImportsOnPostgres(ImportsContract):
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url


class TestVersionsOnPostgres(VersionsContract):
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url


class TestApiKeysOnPostgres(ApiKeysContract):
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url


class TestKeywordOnPostgres(KeywordContract):
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url
