"""Where the fixtures are."""

import pytest
from hypothesis import settings

pytest_plugins = ["tests.children", "tests.fixtures_catalog", "tests.fixtures_milvus", "tests.turns"]

pytest.register_assert_rewrite("tests.contracts")

# By default an example that takes longer than 200 ms fails, as it may on a slow or busy machine.
settings.register_profile("vitrine", deadline=None)
settings.load_profile("vitrine")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
