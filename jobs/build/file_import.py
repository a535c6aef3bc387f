"""Import by files: rows staged in an object store, imported by Milvus, and only then in the ledger.

There is no record but the files themselves. One that waits may have been imported by a build that was killed
then: counting its rows tells. Rows that others have written meanwhile, or that came twice, are put anew.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from core.batching import batched
from core.errors import ConfigError, InvalidInput, StoreUnavailable, Unavailable, VitrineError
from core.index_rows import IndexRows, WrittenRows
from core.job_config import FileImportConfig
from core.ports import Ledger, VectorStore
from core.types import EncoderInfo, IndexItem, VectorRow
from jobs.runner.context import JobRun
from milvus.bulk_import import ImportState, RowFile, Rows, read_rows

_FILE_NAME = re.compile(r"[0-9a-z-]+\.parquet")


class Staging:
    """The files of one collection; each is there whole or not at all.

    Raises:
        ConfigError: the URL names a file system that is unknown or whose package is not installed.
    """

    def __init__(self, config: FileImportConfig, collection: str) -> None:
        try:
            self._files, root = url_to_fs(config.url)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"jobs.bulk.file_import.url cannot be opened: {error}") from error
        self._folder = f"{root.rstrip('/')}/{collection}"
        self._milvus_folder = f"{config.milvus_path.rstrip('/')}/{collection}"

    def put(self, file: Path, name: str) -> None:
        """Copy a local file there.

        Raises:
            Unavailable: the store does not take it.
        """
        with _outages_as_unavailable():
            self._files.makedirs(self._folder, exist_ok=True)
            if not isinstance(self._files, LocalFileSystem):
                # An object has its name once it is whole.
                self._files.put_file(str(file), f"{self._folder}/{name}")
                return
            self._files.put_file(str(file), f"{self._folder}/{name}.part")
            self._files.mv(f"{self._folder}/{name}.part", f"{self._folder}/{name}")

    def names(self) -> list[str]:
        """List the files that wait."""
        with _outages_as_unavailable():
            try:
                # Not from a cache of the file system's: another process writes them.
                found = self._files.ls(self._folder, detail=False, refresh=True)
            except FileNotFoundError:
                return []
        names = (str(path).rpartition("/")[2] for path in found)
        return sorted(name for name in names if _FILE_NAME.fullmatch(name))

    @contextmanager
    def opened(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for reading."""
        with _outages_as_unavailable(), self._files.open(f"{self._folder}/{name}", "rb") as file:
            yield file

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens when it is gone."""
        with _outages_as_unavailable():
            try:
                self._files.rm_file(f"{self._folder}/{name}")
            except FileNotFoundError:
                return

    def milvus_path(self, name: str) -> str:
        """Name a file as Milvus does."""
        return f"{self._milvus_folder}/{name}"


@contextmanager
def _outages_as_unavailable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable("the store of files for Milvus's import does not answer") from error


class StagedRows(IndexRows):
    """Takes rows into a file; the ledger is told of them when Milvus has imported it, and not before."""

    def __init__(self, store: VectorStore, ledger: Ledger, file: RowFile) -> None:
        super().__init__(store, ledger)
        self._file = file

    def _put(self, _info: EncoderInfo, rows: Sequence[VectorRow]) -> WrittenRows:
        self._file.append(rows)
        return WrittenRows([row.item for row in rows])


logger = logging.getLogger(__name__)

_LOOK_S = 1.0


class Importer(Protocol):
    """A Milvus server that imports files; each method may raise StoreUnavailable."""

    def begin_import(self, collection: str, path: str) -> int:
        """Have a file imported; returns the id of the task."""
        ...

    def import_state(self, task: int) -> ImportState:
        """Ask how far an import is."""
        ...

    def imports_under_way(self, collection: str) -> int:
        """Count the imports into a collection that have not ended."""
        ...

    def show_imported(self, collection: str) -> None:
        """Let searches find what was imported."""
        ...

    def count_rows(self, collection: str, keys: Sequence[str]) -> int:
        """Count the rows with these keys."""
        ...

    def put(self, collection: str, rows: Rows) -> None:
        """Write rows; afterwards each key is there once."""
        ...


class FileImports:
    """Takes in the files that wait for one collection; killed anywhere, it is done again from the beginning."""

    def __init__(
        self,
        run: JobRun,
        importer: Importer,
        staging: Staging,
        rows: IndexRows,
        config: FileImportConfig,
        collection: str,
    ) -> None:
        self._run = run
        self._importer = importer
        self._staging = staging
        self._rows = rows
        self._config = config
        self._collection = collection
        self._caught_up = False

    def take_in(self) -> int:
        """Import every file that waits, record its rows, and remove it; returns how many rows there were.

        Raises:
            Conflict: the job was canceled.
            VitrineError: Milvus has refused a file; the message holds its reason.
            Unavailable: Milvus or the store of the files was away, or took too long.
        """
        names = self._staging.names()
        if names and not self._caught_up:
            # What a killed build has begun must end first: nothing else tells whether it brought their rows.
            self._wait_until(self._is_idle)
            self._importer.show_imported(self._collection)
        self._caught_up = True
        taken = 0
        for some in batched(names, self._config.files_at_once):
            self._run.report(stage=f"importing {len(names)} files")
            first_keys = {name: self._first_keys(name) for name in some}
            readable = [name for name, keys in first_keys.items() if keys]
            self._import([name for name in readable if not self._are_in(first_keys[name])])
            taken += sum(self._record(name) for name in readable)
        return taken

    def _import(self, names: Sequence[str]) -> None:
        if not names:
            return
        tasks: dict[str, int] = {}
        for name in names:
            tasks[name] = self._importer.begin_import(self._collection, self._staging.milvus_path(name))
        for name, task in tasks.items():
            self._wait_until(partial(self._has_ended, task))
            failure = self._importer.import_state(task).failure
            if failure is not None:
                raise VitrineError(f"Milvus does not import {self._staging.milvus_path(name)}: {failure}")
        # A call that was cut short and repeated may have begun one more.
        self._wait_until(self._is_idle)
        self._importer.show_imported(self._collection)

    def _is_idle(self) -> bool:
        return self._importer.imports_under_way(self._collection) == 0

    def _has_ended(self, task: int) -> bool:
        return self._importer.import_state(task).ended

    def _first_keys(self, name: str) -> list[str]:
        """The first keys of a file; one that cannot be read is removed, and has none."""
        try:
            with self._staging.opened(name) as file:
                return [row["key"] for row in next(read_rows(file), [])]
        except InvalidInput as error:
            logger.warning("%s: %s; its images are encoded again", name, error.message)
            self._staging.remove(name)
            return []

    def _are_in(self, keys: Sequence[str]) -> bool:
        return self._importer.count_rows(self._collection, keys) > 0

    def _record(self, name: str) -> int:
        taken = 0
        with self._staging.opened(name) as file:
            for rows in read_rows(file):
                self._run.check()
                if self._importer.count_rows(self._collection, [row["key"] for row in rows]) != len(rows):
                    self._importer.put(self._collection, rows)
                self._rows.settle(
                    self._collection, [_index_item(row["image_id"], row["revision"]) for row in rows]
                )
                taken += len(rows)
        self._staging.remove(name)
        return taken

    def _wait_until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._config.wait_s
        while True:
            try:
                if is_so():
                    return
            except StoreUnavailable as error:
                logger.warning("an import cannot be followed: %s", error.message)
            if time.monotonic() > deadline:
                raise Unavailable(f"Milvus has not imported all files within {self._config.wait_s:g} s")
            self._run.pause(_LOOK_S)


def _index_item(image_id: str, revision: int) -> IndexItem:
    """The image of a row, as far as the ledger needs it."""
    return IndexItem(image_id, revision, "", "", {})
