"""Contracts of the catalog on PostgreSQL."""

import pytest

from catalog.database import CatalogConfig
from tests.contracts.catalog_database import DatabaseContract
from tests.contracts.catalog_image_files import ImageFilesContract
from tests.contracts.catalog_jobs import JobsContract
from tests.contracts.catalog_keyword_search import KeywordContract
from tests.contracts.catalog_ledger import LedgerContract
from tests.contracts.catalog_products import CaptionsContract, ProductsContract
from tests.contracts.catalog_records import ApiKeysContract, ImportsContract, VersionsContract
from tests.contracts.catalog_writes import WritesContract


@pytest.fixture
def database_url(postgres_url: str) -> str:
    return postgres_url


@pytest.fixture(autouse=True)
def on_postgres(catalog_config: CatalogConfig) -> None:
    """Refuse to run on the SQLite that `database_url` names by default."""
    assert catalog_config.sqlalchemy_url.get_backend_name() == "postgresql"


TestDatabaseOnPostgres = DatabaseContract
TestProductsOnPostgres = ProductsContract
TestWritesOnPostgres = WritesContract
TestCaptionsOnPostgres = CaptionsContract
TestImageFilesOnPostgres = ImageFilesContract
TestJobsOnPostgres = JobsContract
TestImportsOnPostgres = ImportsContract
TestVersionsOnPostgres = VersionsContract
TestApiKeysOnPostgres = ApiKeysContract
TestKeywordOnPostgres = KeywordContract
TestLedgerOnPostgres = LedgerContract
