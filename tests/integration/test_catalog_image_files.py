"""Image files that no product names, on a real PostgreSQL."""

import pytest

from tests.contracts.catalog_image_files import ImageFilesContract


class TestImageFilesOnPostgres(ImageFilesContract):
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url
