"""Where the fixtures are."""

import pytest

pytest_plugins = ["tests.fixtures_catalog", "tests.fixtures_milvus"]

pytest.register_assert_rewrite("tests.contracts")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
