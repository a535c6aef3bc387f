"""Scheduler: two tests at a time, and one where it needs the whole machine. A pytest plugin.

`pytest -n 2` hands groups to its processes: the tests of `alone`, during which nothing else runs, those of
`e2e`, which share one service, and each other file.
"""

import fcntl
from collections.abc import Generator
from pathlib import Path
from typing import Any, TextIO

import pytest
from xdist.scheduler import LoadScopeScheduling

GROUPS = ("e2e", "alone")


class Groups(LoadScopeScheduling):
    """One process runs a group, in the order of its files."""

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    # As they come, the longest before the many short ones; by default the group of most tests goes first.
    config.option.loadscopereorder = False
    return Groups(config, log)


class Turns:
    """Whose turn it is among the processes of one checkout; the lock is on a file that is there anyway."""

    def __init__(self, rootpath: Path) -> None:
        self._path = rootpath / "pyproject.toml"
        self._held: TextIO | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
        """Run one test, with what its fixtures start and end, in its turn; the tests of `alone` are one turn."""
        alone = _is_alone(item)
        if self._held is None:
            self._held = self._path.open()
            fcntl.flock(self._held, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        try:
            return (yield)
        finally:
            if not (alone and nextitem is not None and _is_alone(nextitem)):
                self._held.close()
                self._held = None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Last, when there is nothing left to wait for them.
    items.sort(key=_is_alone)
    for item in filter(_is_alone, items):
        # They need the whole machine, of which others may take a part; the summary says which ran twice.
        item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Turns(config.rootpath))


def _is_alone(item: pytest.Item) -> bool:
    return _group(item.nodeid) == "alone"


def _group(nodeid: str) -> str:
    file = nodeid.partition("::")[0]
    return next((name for name in GROUPS if name in file.split("/")), file)
