"""Child processes of tests: their output goes to files, shown with a test that fails. A pytest plugin."""

import atexit
import itertools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SHOWN_BYTES = 6000
_folder: list[Path] = []
_files: list[Path] = []
_numbers = itertools.count()


class Child(subprocess.Popen[str]):
    """A process whose stderr, and stdout where it is not asked for, are kept in a file."""

    def __init__(self, name: str, command: Sequence[Any], **options: Any) -> None:
        self.output_file = _output_to() / f"{name}-{next(_numbers)}"
        _files.append(self.output_file)
        with self.output_file.open("ab") as file:
            super().__init__(command, text=True, **{"stdout": file, "stderr": file} | options)

    def output(self) -> str:
        """Read what it has written so far."""
        return self.output_file.read_text(errors="replace")


def _output_to() -> Path:
    """Return the folder of the outputs; outside pytest, as in benchmarks, it goes when the process ends."""
    if not _folder:
        _folder.append(Path(tempfile.mkdtemp(prefix="vitrine-output-")))
        atexit.register(shutil.rmtree, _folder[0], ignore_errors=True)
    return _folder[0]


@contextmanager
def shown_on_failure(file: Path) -> Iterator[None]:
    """Show the end of a file that somebody else writes with tests that fail meanwhile, and when the context does."""
    _files.append(file)
    try:
        yield
    except BaseException:
        print(_end(file))
        raise
    finally:
        _files.remove(file)


@pytest.fixture(scope="session", autouse=True)
def _output_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    _folder[:] = [tmp_path_factory.mktemp("output")]


_began = pytest.StashKey[float]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None]:
    """Note when a test begins."""
    item.stash[_began] = time.time()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what children have written since a test began to its failure."""
    report = yield
    if report.failed:
        for file in _files:
            if file.exists() and file.stat().st_size and file.stat().st_mtime >= item.stash[_began] - 1:
                report.sections.append((f"Output in {file}", _end(file)))
    return report


def _end(file: Path) -> str:
    return file.read_bytes()[-SHOWN_BYTES:].decode(errors="replace") if file.exists() else ""
