"""Two tests at a time where a machine has the cores, and one where a test must have it to itself.

`pytest -n 2 --dist loadgroup` hands whole groups to its processes: the tests of `e2e` share one service, those
of `alone` wait until nothing else runs, and all others are the third group.
"""

import fcntl
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TextIO

import pytest

GROUPS = ("e2e", "alone")


class Turns:
    """Whose turn it is among the processes of one checkout; the lock is on a file that is there anyway."""

    def __init__(self, rootpath: Path) -> None:
        self._path = rootpath / "pyproject.toml"
        self._held: TextIO | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
        """Run one test, with what its fixtures start and end, in its turn; the tests of `alone` are one turn."""
        alone = _group(item) == "alone"
        if self._held is None:
            self._held = self._path.open()
            fcntl.flock(self._held, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        try:
            return (yield)
        finally:
            if not alone or nextitem is None or _group(nextitem) != "alone":
                self._held.close()
                self._held = None


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Turns(config.rootpath))


# Before pytest-xdist looks for groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))


def _group(item: pytest.Item) -> str:
    parts = item.path.relative_to(item.config.rootpath).parts
    return next((name for name in GROUPS if name in parts), "others")
