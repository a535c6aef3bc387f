"""Image files that no product names, on SQLite."""

import pytest

from tests.contracts.catalog_image_files import ImageFilesContract


class TestImageFilesOnSqlite(ImageFilesContract):
    @pytest.fixture
    def database_url(self, sqlite_url: str) -> str:
        return sqlite_url
