"""Where the fixtures are."""

import pytest
from hypothesis import settings

pytest_plugins = ["tests.children", "tests.fixtures_catalog", "tests.fixtures_milvus", "tests.turns"]

pytest.register_assert_rewrite("tests.contracts")

# Examples follow from the test alone, so that a run is what the one before was; a profile without chance keeps no
# database, so an example that has failed once stays as @example. `pytest --hypothesis-profile=random` draws others,
# and prints with a failure what draws it again. By default an example that takes longer than 200 ms fails, as it
# may on a slow or busy machine.
settings.register_profile("vitrine", deadline=None, database=None, derandomize=True)
settings.register_profile("random", deadline=None, database=None, print_blob=True)
settings.load_profile("vitrine")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
