"""Plugins with the fixtures, settings of Hypothesis, and what runs in one process."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# Read when PyTorch is loaded, and inherited by what tests start. Its threads spin while they wait for each other,
# and where more of them run than there are cores they wait for those that cannot run: several times the CPU time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Folders of tests are in memory where there is room: tests write durably thousands of times, and a disk takes
# milliseconds each time.
MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 4 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

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


class Groups(LoadScopeScheduling):
    """Give one process of `pytest -n` a whole file, or all of e2e, which shares one service.

    What starts services of its own is another group, so that no more than two run beside each other.

    The option `--dist loadgroup` would do, but groups nothing under pytest 9.2: pytest-dev/pytest-xdist#1386.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((each for each in ("/e2e/own_service/", "/e2e/") if each in file), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    """Schedule by these groups."""
    return Groups(config, log)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
