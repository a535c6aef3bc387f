"""Plugins with the fixtures, settings of Hypothesis, and what runs in one process."""

import os

import pytest
from hypothesis import settings

# Read when PyTorch is loaded, and inherited by what tests start. Its threads spin while they wait for each other,
# and where more of them run than there are cores they wait for those that cannot run: several times the CPU time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

pytest_plugins = [
    "tests.support.children",
    "tests.support.catalog_fixtures",
    "tests.support.vector_stores",
]

pytest.register_assert_rewrite("tests.contracts")

# Examples follow from the test alone, so that a run is what the one before was; a profile without chance keeps no
# database, so an example that has failed once stays as @example. `pytest --hypothesis-profile=random` draws others,
# and prints with a failure what draws it again. By default an example that takes longer than 200 ms fails, as it
# may on a slow or busy machine.
settings.register_profile("vitrine", deadline=None, database=None, derandomize=True)
settings.register_profile("random", deadline=None, database=None, print_blob=True)
settings.load_profile("vitrine")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give one process of `pytest -n 2 --dist loadgroup` a whole file, or all of e2e, which shares one service."""
    for item in items:
        file = item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group("e2e" if "/e2e/" in file else file))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
